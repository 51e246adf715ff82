"""USAID's SCMS delivery history ("Supply Chain Shipment Pricing Data") as canonical order events.

It takes the publisher's original file (CR line ends, byte order mark, two date formats, sentences where numbers belong), a copy with
other line ends, columns left out or named by the open data API (`po_so_` for `PO / SO #`), and gzip of either.

    rows(file)    ──▶ ScmsRow, the needed cells of one order line ──▶ TimedEvent: PLACED, then DELIVERED ──▶ play_order

**What an order is.** One *line* of a purchase or sales order: `SCMS-4-L1` is line 1 of SCMS-4. Lines of one PO are promised and
delivered on different days and in different shipments, so the PO has no single state; line ids are unique in the whole file.

**What the columns say, and no more.**
PLACED happened when the PO was sent to the vendor; where no such day is given (deliveries from a distribution centre have a sales order
and no vendor) when the quotation was first sent to the client, `details.basis` says which. Otherwise its time is unknown.
DELIVERED happened on Delivered to Client Date, and became known on Delivery Recorded Date (`details.recordedDate` where it differs).
No column says when an order was approved, picked or shipped, so no such event is made.

**Days, not moments.** The file has days: a day becomes its first instant in UTC, with `details.precision` = "day". The promise is the
*last* second of its day: what arrives on the promised day is on time. What is known only at the delivery (shipment, weight, freight)
stands in the DELIVERED event only, so nothing leaks backwards in time.

`org`, `region` and `site` are left to the node that captures the event.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from models.importers.days import DAY_MS, day_ms
from models.importers.lines import cells, decoded, physical_lines
from models.importers.report import Report
from protocols.errors import InvalidInput
from protocols.event import format_time
from protocols.limits import TEXT_CHARS

SOURCE: Final = "SCMS"
LINE_ID_LAST: Final = 9_999_999
"""Largest line id taken; it bounds the bitmap of ids seen (1.25 MB)."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column the importer needs: its name in the publisher's file, and the field of ScmsRow it fills."""

    title: str
    field: str


COLUMNS: Final = (
    Column("ID", "line_id"),
    Column("PO / SO #", "order"),
    Column("ASN/DN #", "shipment"),
    Column("Country", "country"),
    Column("Managed By", "managed_by"),
    Column("Fulfill Via", "fulfil_via"),
    Column("Shipment Mode", "shipment_mode"),
    Column("PQ First Sent to Client Date", "quoted"),
    Column("PO Sent to Vendor Date", "ordered"),
    Column("Scheduled Delivery Date", "promised"),
    Column("Delivered to Client Date", "delivered"),
    Column("Delivery Recorded Date", "recorded"),
    Column("Vendor", "vendor"),
    Column("Molecule/Test Type", "item"),
    Column("Line Item Quantity", "quantity"),
    Column("Line Item Value", "value"),
    Column("Weight (Kilograms)", "weight"),
    Column("Freight Cost (USD)", "freight"),
)
TITLES: Final = {column.field: column.title for column in COLUMNS}
DATE_FIELDS: Final = ("quoted", "ordered", "promised", "delivered", "recorded")


@dataclass(frozen=True, slots=True)
class ScmsRow:
    """One order line as published: stripped text of each needed column. `line` is its place in the file (the header is line 1)."""

    line: int
    line_id: str
    order: str
    shipment: str
    country: str
    managed_by: str
    fulfil_via: str
    shipment_mode: str
    quoted: str
    ordered: str
    promised: str
    delivered: str
    recorded: str
    vendor: str
    item: str
    quantity: str
    value: str
    weight: str
    freight: str


@dataclass(frozen=True, slots=True)
class TimedEvent:
    """A canonical event, and when the programme's office knew of it (ms since 1970 UTC): the key for playing history back.

    Where the time of placing is unknown, the event counts as known on the first day any later column names: the latest it can have been.
    """

    known_ms: int
    line_id: int
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Days:
    """The five days of a row, ms since 1970 UTC; None where the file says that it has none."""

    quoted: int | None
    ordered: int | None
    promised: int | None
    delivered: int | None
    recorded: int | None

    @property
    def placed(self) -> int | None:
        return self.quoted if self.ordered is None else self.ordered

    @property
    def first_later(self) -> int | None:
        return min((day for day in (self.promised, self.delivered, self.recorded) if day is not None), default=None)


@dataclass(frozen=True, slots=True)
class _Made:
    """An event of a row, with its happening time for the report."""

    timed: TimedEvent
    happened_ms: int | None


class _Unusable(Exception):
    """Why a row is skipped. Caught in `events`, where it becomes a count."""

    def __init__(self, reason: str, found: str) -> None:
        self.reason = reason
        self.found = found
        super().__init__(reason)


# --- rows -------------------------------------------------------------------------------------------------------------


def read_rows(stream: BinaryIO, report: Report, *, name: str = "file") -> Iterator[ScmsRow]:
    """Yield the order lines of an SCMS file, counting each in `report.rows_total`; those that are no rows are counted as skipped.

    Streams: memory does not grow with the file. Raises InvalidInput (field = `name`) where the file as a whole cannot be
    one of these: no text, no header, needed columns missing (it names them).
    """
    lines = enumerate(physical_lines(stream, name), start=1)
    places, width = _header(lines, name)
    for number, raw in lines:
        if not raw.strip():
            continue
        report.rows_total += 1
        text, is_utf8 = decoded(raw)
        found = _row_cells(text, width)
        if isinstance(found, str):
            report.skip(number, found, text)
            continue
        if not is_utf8:
            report.noted["text is not UTF-8, read as cp1252"] += 1
        yield ScmsRow(number, *(found[place] for place in places))


def _header(lines: Iterator[tuple[int, bytes]], name: str) -> tuple[list[int], int]:
    """Where each needed column stands, and how many columns there are. Consumes the lines up to the header."""
    raw = next((line for _, line in lines if line.strip()), None)
    if raw is None:
        raise InvalidInput(name, "is empty.", remedy="Expected the SCMS delivery history as CSV.")
    try:
        titles = [_folded(title) for title in cells(decoded(raw)[0])]
    except ValueError:
        raise InvalidInput(name, "not a CSV file: the quotes of its first line do not close.") from None
    missing = [column.title for column in COLUMNS if _folded(column.title) not in titles]
    if len(missing) == len(COLUMNS):
        raise InvalidInput(name, f"no SCMS file: its first line names none of the needed columns (first: {COLUMNS[0].title}).")
    if missing:
        raise InvalidInput(name, f"missing column{'s' * (len(missing) > 1)}: {', '.join(missing)}.")
    return [titles.index(_folded(column.title)) for column in COLUMNS], len(titles)


def _folded(title: str) -> str:
    """Titles differ in case, blanks and signs between the portal's download and its API."""
    return re.sub(r"[^a-z0-9]", "", title.lower())


def _row_cells(text: str, width: int) -> list[str] | str:
    """The cells of a row, or the reason why it is none."""
    try:
        found = cells(text)
    except ValueError:
        return "quotes do not close"
    return found if len(found) == width else "wrong number of cells"


# --- events -----------------------------------------------------------------------------------------------------------


def events(rows: Iterable[ScmsRow], report: Report) -> Iterator[TimedEvent]:
    """Yield the events of each row in file order: PLACED, then DELIVERED if it was. Fills `report` on the way.

    Events are canonical JSON objects (camelCase, times with offset Z, no floats). A row that cannot be used is skipped whole and counted.
    """
    seen = bytearray(LINE_ID_LAST // 8 + 1)
    for row in rows:
        try:
            found = _row_events(row, seen, report.noted)
        except _Unusable as why:
            report.skip(row.line, why.reason, why.found)
            continue
        report.rows_used += 1
        report.country(row.country)
        for made in found:
            _count(report, made)
            yield made.timed


def read_events(stream: BinaryIO, report: Report, *, name: str = "file") -> Iterator[TimedEvent]:
    """`events(read_rows(...))`: the whole way from a file to events."""
    return events(read_rows(stream, report, name=name), report)


def play_order(timed: Iterable[TimedEvent]) -> list[TimedEvent]:
    """The events in the order in which they became known, ties by line; of one line's events on one day the placing comes first.

    Holds them all (about 1.5 kB each).
    """
    return sorted(timed, key=lambda one: (one.known_ms, one.line_id))


def _count(report: Report, made: _Made) -> None:
    report.events_total += 1
    report.statuses[made.timed.event["status"]] += 1
    if made.happened_ms is not None:
        report.happened(made.happened_ms)


def _row_events(row: ScmsRow, seen: bytearray, noted: Counter[str]) -> list[_Made]:
    """The one or two events of a row. Raises _Unusable; only a usable row marks its id as seen."""
    line_id = _line_id(row.line_id)
    if seen[line_id // 8] >> line_id % 8 & 1:
        raise _Unusable("line id seen before", row.line_id)
    _check_texts(row)
    days = _days(row)
    noted.update(_oddities(row, days))
    made = [_placed(row, line_id, days, noted)]
    if _is_delivered(row.delivered):
        made.append(_delivered(row, line_id, days, noted))
    seen[line_id // 8] |= 1 << line_id % 8
    return made


def _placed(row: ScmsRow, line_id: int, days: _Days, noted: Counter[str]) -> _Made:
    known_ms = days.placed if days.placed is not None else days.first_later
    assert known_ms is not None, "_days refuses a row without any day"
    details = _present(
        {
            "country": row.country,
            "fulfilVia": row.fulfil_via,
            "shipmentMode": row.shipment_mode,
            "vendor": row.vendor,
            "item": row.item,
        }
    )
    details |= _amount("quantity", row.quantity, noted, whole=True) | _amount("valueUsd", row.value, noted)
    if days.promised is not None:
        details["expectedDelivery"] = format_time(days.promised + DAY_MS - 1_000)
    if days.placed is not None:
        details["basis"] = "PO sent" if days.ordered is not None else "PQ sent"
    return _Made(TimedEvent(known_ms, line_id, _event(row, line_id, "PLACED", days.placed, details)), days.placed)


def _delivered(row: ScmsRow, line_id: int, days: _Days, noted: Counter[str]) -> _Made:
    known_ms = next(day for day in (days.recorded, days.delivered, days.first_later, days.placed) if day is not None)
    details = _present({"country": row.country, "shipment": row.shipment})
    details |= _amount("weightKg", row.weight, noted) | _amount("freightUsd", row.freight, noted)
    if days.recorded is not None and days.recorded != days.delivered:
        details["recordedDate"] = format_time(days.recorded)[:10]
    return _Made(TimedEvent(known_ms, line_id, _event(row, line_id, "DELIVERED", days.delivered, details)), days.delivered)


def _event(row: ScmsRow, line_id: int, status: str, happened_ms: int | None, details: dict[str, Any]) -> dict[str, Any]:
    event: dict[str, Any] = {"orderId": f"{row.order}-L{line_id}", "source": SOURCE, "status": status}
    if happened_ms is None:
        event["timeQuality"] = "unknown"
    else:
        event["timestamp"] = format_time(happened_ms)
        details["precision"] = "day"
    if status == "PLACED" and row.managed_by:  # the office that ordered; who took the delivery, no column says
        event["actor"] = row.managed_by
    event["idempotencyKey"] = f"scms-{line_id}-{status}"
    event["details"] = details
    return event


# --- cells ------------------------------------------------------------------------------------------------------------

NOT_DELIVERED: Final = ("", "N/A")
_NUMBER: Final = re.compile(r"(?:\d{1,3}(?:,\d{3}){1,4}|\d{1,15})(?:\.\d{1,9})?", re.ASCII)
_POINTER: Final = re.compile(r"See (\S+) \(ID#:(\d{1,7})\)", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _days(row: ScmsRow) -> _Days:
    found: dict[str, int | None] = {}
    for name in DATE_FIELDS:
        text = getattr(row, name)
        try:
            found[name] = day_ms(text)
        except ValueError:
            raise _Unusable(f"unreadable day in {TITLES[name]}", text) from None
    if all(day is None for day in found.values()):
        raise _Unusable("no day in any column", row.line_id)
    return _Days(**found)


def _line_id(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text):
        raise _Unusable(f"{TITLES['line_id']} is no number up to {LINE_ID_LAST}", text)
    return int(text)


def _check_texts(row: ScmsRow) -> None:
    """Every text that goes into an event fits its bound and is printable; an order needs a number."""
    if not row.order:
        raise _Unusable(f"no {TITLES['order']}", row.line_id)
    for name, title in TITLES.items():
        text = getattr(row, name)
        limit = TEXT_CHARS - len(f"-L{LINE_ID_LAST}") if name == "order" else TEXT_CHARS
        if len(text) > limit:
            raise _Unusable(f"over {limit} characters in {title}", text)
        if _CONTROL.search(text):
            raise _Unusable(f"control character in {title}", text)


def _is_delivered(text: str) -> bool:
    """An empty cell is a line still on its way; "Date Not Captured" is a delivery whose day nobody kept."""
    return text not in NOT_DELIVERED


def _present(texts: dict[str, str]) -> dict[str, Any]:
    return {name: text for name, text in texts.items() if text not in ("", "N/A")}


def _amount(name: str, text: str, noted: Counter[str], *, whole: bool = False) -> dict[str, Any]:
    """A number as decimal text (an int if `whole`), a pointer as the line it points to, any other sentence as a note."""
    if text in ("", "N/A"):
        return {}
    if _NUMBER.fullmatch(text):
        plain = text.replace(",", "")
        return {name: int(plain)} if whole and plain.isdigit() else {name: plain}
    if found := _POINTER.fullmatch(text):
        noted[f"{name} stands at another line"] += 1
        return {f"{name}AtLine": int(found[2])}
    noted[f"{name} is a sentence"] += 1
    return {f"{name}Note": text}


def _oddities(row: ScmsRow, days: _Days) -> list[str]:
    """What is unusual about a usable row, in words the report counts."""
    placed, delivered, recorded = days.placed, days.delivered, days.recorded
    checks = (
        (placed is None, "time of placing unknown"),
        (days.promised is None, "no promised day"),
        (not _is_delivered(row.delivered), "not delivered yet"),
        (_is_delivered(row.delivered) and delivered is None, "time of delivery unknown"),
        (_follows(recorded, delivered), "recorded after the day of delivery"),
        (_follows(delivered, recorded), "recorded before the day of delivery"),
        (_follows(delivered, days.promised), "delivered after the promise"),
        (_follows(placed, delivered), "placed after the day of delivery"),
    )
    return [words for applies, words in checks if applies]


def _follows(later: int | None, earlier: int | None) -> bool:
    return later is not None and earlier is not None and later > earlier
