"""Days as published files write them, to milliseconds since 1970 UTC."""

from __future__ import annotations

import datetime
import re
from functools import lru_cache
from typing import Final

DAY_MS: Final = 86_400_000
_EPOCH_ORDINAL: Final = datetime.date(1970, 1, 1).toordinal()
NO_DATE: Final = ("", "N/A", "Pre-PQ Process", "Date Not Captured", "N/A - From RDC")
"""What the file writes where it has no day."""
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAY_NAMED: Final = re.compile(r"(\d{1,2})-([A-Za-z]{3})-(\d{4}|\d{2})", re.ASCII)
_DAY_US: Final = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})", re.ASCII)
_DAY_ISO: Final = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:T00:00:00(?:\.0+)?)?", re.ASCII)


@lru_cache(maxsize=8_192)
def day_ms(text: str) -> int | None:
    """The first instant (UTC, ms since 1970) of a day as the file writes it: 2-Jun-06, 6/2/06 or 06/02/2006 (month first), 2006-06-02.

    None for the file's own words for "no day". Two-digit years are 20xx: the programme began in 2005. Raises ValueError for anything else.
    """
    if text in NO_DATE:
        return None
    if found := _DAY_NAMED.fullmatch(text):
        day, month, year = found[1], str(_MONTHS.index(found[2].lower()) + 1), found[3]
    elif found := _DAY_US.fullmatch(text):
        month, day, year = found.groups()
    elif found := _DAY_ISO.fullmatch(text):
        year, month, day = found.groups()
    else:
        raise ValueError("not a day")
    whole_year = int(year) + (2_000 if len(year) == 2 else 0)
    days = datetime.date(whole_year, int(month), int(day)).toordinal() - _EPOCH_ORDINAL
    if days < 0:
        raise ValueError("a day before 1970")
    return days * DAY_MS
