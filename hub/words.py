"""Numbers as people say them: durations, ages, bytes, moments. Pure; times in ms since 1970 UTC, durations in ms."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000
MONTH_MS: Final = 2_629_746_000
"""a mean Gregorian month, for durations that nobody counts in days"""
YEAR_MS: Final = 12 * MONTH_MS

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_FROM_MS: Final = -62_135_596_800_000
_TO_MS: Final = 253_402_300_799_999

_STEPS: Final = (
    (MINUTE_MS, SECOND_MS, "s", 0, ""),
    (HOUR_MS, MINUTE_MS, "m", 0, ""),
    (DAY_MS, HOUR_MS, "h", MINUTE_MS, "m"),
    (2 * MONTH_MS, DAY_MS, "d", HOUR_MS, "h"),
    (YEAR_MS, MONTH_MS, "months", 0, ""),
)
"""(below this, unit, its name, second unit, its name)"""


def duration(ms: int) -> str:
    """`0.4 s`, `12 s`, `7 m`, `3 h 12 m`, `4 d 3 h`, `5 months`, `11 y 3 mo`; the sign is dropped, what is smaller is cut off."""
    ms = abs(ms)
    if ms < 10 * SECOND_MS:
        return f"{ms // 100 / 10:.1f} s" if ms else "0 s"
    for below, unit, name, second, second_name in _STEPS:
        if ms < below:
            return _two(ms, unit, name, second, second_name)
    return _two(ms, YEAR_MS, "y", MONTH_MS, "mo")


def _two(ms: int, unit: int, name: str, second: int, second_name: str) -> str:
    whole, rest = divmod(ms, unit)
    part = rest // second if second else 0
    return f"{whole} {name} {part} {second_name}" if part else f"{whole} {name}"


def ago(then_ms: int, now_ms: int) -> str:
    """`just now`, `40 s ago`, `2 min ago`, `3 h ago`, `4 days ago`. Coarse on purpose: a page that counts seconds never rests."""
    past = now_ms - then_ms
    if past < 15 * SECOND_MS:
        return "just now"
    if past < MINUTE_MS:
        return f"{past // (10 * SECOND_MS) * 10} s ago"
    if past < HOUR_MS:
        return f"{past // MINUTE_MS} min ago"
    if past < 2 * DAY_MS:
        return f"{past // HOUR_MS} h ago"
    return f"{past // DAY_MS} days ago" if past < 3 * MONTH_MS else f"{duration(past)} ago"


def size(count_bytes: int) -> str:
    """`412 B`, `1.9 kB`, `64 MB`: decimal units, two digits below ten."""
    if count_bytes < 1_000:
        return f"{count_bytes} B"
    value, units = count_bytes / 1_000, ["TB", "GB", "MB", "kB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1_000
        units.pop()
    return f"{value:.1f} {units[-1]}" if value < 9.95 else f"{value:,.0f} {units[-1]}"


def count(number: int) -> str:
    """`12,345`."""
    return f"{number:,}"


def plural(number: int, one: str, many: str = "") -> str:
    """`1 event`, `412 events`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def moment(ms: int) -> str:
    """`21 May 2026, 14:05:12`, UTC."""
    when = _when(ms)
    return f"{when.day} {_MONTHS[when.month - 1]} {when.year}, {when:%H:%M:%S}"


def clock(ms: int) -> str:
    """`14:05:12`, UTC."""
    return f"{_when(ms):%H:%M:%S}"


def day(ms: int) -> str:
    """`21 May 2026`, UTC."""
    when = _when(ms)
    return f"{when.day} {_MONTHS[when.month - 1]} {when.year}"


def _when(ms: int) -> datetime:
    """Clamped to the years 1 to 9999: a page must show whatever a device said."""
    return _EPOCH + timedelta(milliseconds=min(max(ms, _FROM_MS), _TO_MS))


def status_words(name: str) -> str:
    """`OUT_FOR_DELIVERY` as `Out for delivery`."""
    return name.replace("_", " ").capitalize()
