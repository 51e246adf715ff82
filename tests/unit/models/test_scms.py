"""SCMS rows to events: every quirk of the publisher's file, what is skipped and what is only noted."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.importers.days import day_ms
from models.importers.report import EXAMPLES, Report
from models.importers.scms import COLUMNS, TimedEvent, events, play_order, read_events, read_rows
from protocols.errors import InvalidInput
from protocols.event import EventDefaults, parse_event, parse_time
from tests.unit.models.scms_files import API_TITLES, ODD_CELLS, header, line, line_with, original, raw_line

NOW_MS = 1_800_000_000_000


def load(data: bytes) -> tuple[list[TimedEvent], Report]:
    report = Report()
    return list(read_events(io.BytesIO(data), report, name="f.csv")), report


def one(**cells: str) -> list[dict[str, Any]]:
    found, report = load(original(line_with(cells)))
    assert report.rows_used == 1, report.as_text()
    return [timed.event for timed in found]


def ms(text: str) -> int:
    return parse_time(text, "time")


# --- the way of a usual row


def test_a_line_of_the_original_becomes_a_placing_and_a_delivery() -> None:
    placed, delivered = one()
    assert placed == {
        "orderId": "SCMS-4-L1", "source": "SCMS", "status": "PLACED", "timestamp": "2010-04-02T00:00:00Z", "actor": "PMO - US",
        "idempotencyKey": "scms-1-PLACED", "details": {
            "country": "Côte d'Ivoire", "fulfilVia": "Direct Drop", "shipmentMode": "Air", "vendor": "Orgenics, Ltd", "item": "HIV, Reveal",
            "quantity": 19, "valueUsd": "551.5", "expectedDelivery": "2010-06-02T23:59:59Z", "basis": "PO sent", "precision": "day",
        },
    }  # fmt: skip
    assert delivered == {
        "orderId": "SCMS-4-L1", "source": "SCMS", "status": "DELIVERED", "timestamp": "2010-06-01T00:00:00Z",
        "idempotencyKey": "scms-1-DELIVERED",
        "details": {"country": "Côte d'Ivoire", "shipment": "ASN-8", "weightKg": "13", "freightUsd": "780.34", "precision": "day"},
    }  # fmt: skip


def test_what_is_known_only_at_the_delivery_is_not_in_the_placing() -> None:
    later = one(shipment="ASN-9", weight="99", freight="1", recorded="9-Jun-10", delivered="8-Jun-10")
    assert later[0] == one()[0]


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [True, False])
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_line_ends_mark_and_encoding_do_not_change_an_event(end: bytes, mark: bool, encoding: str) -> None:
    found, report = load(header(end=end, mark=mark) + line(end=end, encoding=encoding) + line(end=b"", encoding=encoding, id="2"))
    assert [timed.event for timed in found[:2]] == one()
    assert report.rows_used == 2
    assert report.noted["text is not UTF-8, read as cp1252"] == (2 if encoding == "cp1252" else 0)


def test_the_open_data_interface_names_columns_in_its_own_way() -> None:
    found, _ = load(header(titles=API_TITLES, mark=False, end=b"\n") + line(end=b"\n"))
    assert [timed.event for timed in found] == one()


def test_columns_nobody_needs_may_be_missing() -> None:
    drop = ("Project Code", "Brand", "Line Item Insurance (USD)")
    found, _ = load(header(drop=drop) + line(drop=drop))
    assert [timed.event for timed in found] == one()


# --- days


@pytest.mark.parametrize(
    ("text", "day"),
    [("2-Jun-06", "2006-06-02"), ("02-JUN-2006", "2006-06-02"), ("3/4/10", "2010-03-04"), ("03/04/2010", "2010-03-04"),
     ("11/21/11", "2011-11-21"), ("29-Feb-12", "2012-02-29"), ("2010-03-04", "2010-03-04"), ("2010-03-04T00:00:00.000", "2010-03-04")],
)  # fmt: skip
def test_both_ways_to_write_a_day(text: str, day: str) -> None:
    assert day_ms(text) == ms(f"{day}T00:00:00Z")


@pytest.mark.parametrize(
    "text", ["31-Feb-10", "13/1/10x", "21/11/11", "2-Mai-06", "soon", "1/1/1969", "0/1/10", "٢-Jun-06", "2010-03-04T10:00:00"]
)
def test_what_is_no_day_is_not_guessed(text: str) -> None:
    with pytest.raises(ValueError):
        day_ms(text)


@pytest.mark.parametrize("text", ["", "N/A", "Pre-PQ Process", "Date Not Captured", "N/A - From RDC"])
def test_the_files_own_words_for_no_day(text: str) -> None:
    assert day_ms(text) is None


def test_without_the_day_of_the_po_the_quotation_stands_for_the_placing() -> None:
    placed = one(ordered="N/A - From RDC")[0]
    assert (placed["timestamp"], placed["details"]["basis"]) == ("2010-03-19T00:00:00Z", "PQ sent")


def test_an_unknown_day_of_placing_is_said_not_invented() -> None:
    found, report = load(original(line(ordered="Date Not Captured", quoted="Pre-PQ Process", promised="5-Jun-10")))
    placed = found[0].event
    assert placed["timeQuality"] == "unknown"
    assert "timestamp" not in placed
    assert not {"basis", "precision"} & set(placed["details"])
    assert found[0].known_ms == ms("2010-06-01T00:00:00Z")  # the delivery: the first later day of the row
    assert report.noted["time of placing unknown"] == 1


def test_a_delivery_becomes_known_on_the_day_it_was_recorded() -> None:
    found, report = load(original(line(recorded="15-Jun-10")))
    assert found[1].known_ms == ms("2010-06-15T00:00:00Z")
    assert found[1].event["timestamp"] == "2010-06-01T00:00:00Z"
    assert found[1].event["details"]["recordedDate"] == "2010-06-15"
    assert report.noted["recorded after the day of delivery"] == 1


def test_a_line_on_its_way_is_placed_only() -> None:
    found, report = load(original(line(delivered="", recorded="")))
    assert [timed.event["status"] for timed in found] == ["PLACED"]
    assert report.noted["not delivered yet"] == 1


def test_a_delivery_whose_day_nobody_kept_is_a_delivery() -> None:
    found, _ = load(original(line(delivered="Date Not Captured", recorded="15-Jun-10")))
    assert (found[1].event["status"], found[1].event["timeQuality"]) == ("DELIVERED", "unknown")
    assert found[1].known_ms == ms("2010-06-15T00:00:00Z")


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"delivered": "3-Jun-10"}, "delivered after the promise"),
        ({"delivered": "1-Apr-10"}, "placed after the day of delivery"),
        ({"recorded": "31-May-10"}, "recorded before the day of delivery"),
        ({"promised": "N/A"}, "no promised day"),
    ],
)
def test_odd_days_are_kept_and_noted(cells: dict[str, str], words: str) -> None:
    found, report = load(original(line_with(cells)))
    assert len(found) == 2
    assert report.noted[words] == 1


def test_on_the_promised_day_is_not_late() -> None:
    _, report = load(original(line(delivered="2-Jun-10")))
    assert report.noted["delivered after the promise"] == 0


# --- numbers that are sentences


@pytest.mark.parametrize(
    ("cells", "place", "expected"),
    [
        ({"weight": "See ASN-93 (ID#:1281)"}, 1, {"weightKgAtLine": 1281}),
        ({"freight": "See DN-304 (ID#:10589)"}, 1, {"freightUsdAtLine": 10589}),
        ({"weight": "Weight Captured Separately"}, 1, {"weightKgNote": "Weight Captured Separately"}),
        ({"freight": "Freight Included in Commodity Cost"}, 1, {"freightUsdNote": "Freight Included in Commodity Cost"}),
        ({"freight": "Invoiced Separately"}, 1, {"freightUsdNote": "Invoiced Separately"}),
        ({"freight": "1,780.34"}, 1, {"freightUsd": "1780.34"}),
        ({"quantity": "50,000"}, 0, {"quantity": 50_000}),
        ({"quantity": "12.5"}, 0, {"quantity": "12.5"}),
        ({"value": "1.2E+05"}, 0, {"valueUsdNote": "1.2E+05"}),
    ],
)
def test_a_number_a_pointer_or_a_sentence(cells: dict[str, str], place: int, expected: dict[str, Any]) -> None:
    details = one(**cells)[place]["details"]
    stem = next(iter(expected)).removesuffix("AtLine").removesuffix("Note")
    assert {name: value for name, value in details.items() if name.startswith(stem)} == expected


@pytest.mark.parametrize("empty", ["", "N/A"])
def test_an_empty_cell_is_left_out(empty: str) -> None:
    placed, delivered = one(weight=empty, freight=empty, quantity=empty, mode=empty, office="", shipment=empty)
    assert set(delivered["details"]) == {"country", "precision"}
    assert not {"quantity", "shipmentMode"} & set(placed["details"])
    assert "actor" not in placed


# --- rows that cannot be used


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"id": "x"}, "ID is no number up to 9999999"),
        ({"id": "10000000"}, "ID is no number up to 9999999"),
        ({"order": " "}, "no PO / SO #"),
        ({"order": "P" * 120}, "over 119 characters in PO / SO #"),
        ({"vendor": "V" * 129}, "over 128 characters in Vendor"),
        ({"country": "a\tb"}, "control character in Country"),
        ({"promised": "31-Feb-10"}, "unreadable day in Scheduled Delivery Date"),
        (dict.fromkeys(("quoted", "ordered", "promised", "delivered", "recorded"), ""), "no day in any column"),
    ],
)
def test_a_row_that_cannot_be_used_is_counted_with_its_reason_and_place(cells: dict[str, str], reason: str) -> None:
    found, report = load(original(line(id="7"), line_with(cells), line(id="8")))
    assert len(found) == 4
    assert report.skipped == {reason: 1}
    assert (report.examples[0].line, report.examples[0].reason) == (3, reason)


def test_a_damaged_line_costs_one_row_and_not_the_rest() -> None:
    found, report = load(original(line(id="7"), b'2,"open quote\r', b"a,b\r", b"\r", line(id="8")))
    assert len(found) == 4
    assert report.skipped == {"quotes do not close": 1, "wrong number of cells": 1}
    assert report.rows_total == 4  # an empty line is no row


def test_a_line_id_counts_once_but_a_skipped_row_does_not_take_it() -> None:
    found, report = load(original(line(promised="?"), line(), line(vendor="other")))
    assert [timed.event["details"].get("vendor") for timed in found] == ["Orgenics, Ltd", None]
    assert report.skipped == {"unreadable day in Scheduled Delivery Date": 1, "line id seen before": 1}


def test_examples_are_bounded_and_counts_are_not() -> None:
    _, report = load(original(*(line(id="x") for _ in range(EXAMPLES + 5))))
    assert len(report.examples) == EXAMPLES
    assert report.rows_skipped_total == EXAMPLES + 5
    assert "… and 5 more" in report.as_text()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf\r\r", "is empty"),
        (b"hello\rworld", "names none of the needed columns"),
        (b'ID,"open', "quotes of its first line"),
        (header(drop=("Vendor",)), "missing column: Vendor"),
        (header(drop=("Vendor", "PO / SO #")), "missing columns: PO / SO #, Vendor"),
    ],
)
def test_a_file_that_is_none_is_refused_with_what_is_missing(data: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        load(data)
    assert caught.value.field == "f.csv"


# --- properties

ROWS = st.lists(
    st.one_of(
        st.fixed_dictionaries({}, optional={title: st.sampled_from(cells) for title, cells in ODD_CELLS.items()}).map(raw_line),
        st.binary(max_size=60).map(lambda raw: raw.translate(None, b"\0\r\n") + b"\r"),
    ),
    max_size=12,
)


@given(rows=ROWS)
def test_every_row_is_used_or_counted_and_every_event_is_valid(rows: list[bytes]) -> None:
    found, report = load(original(*rows))
    assert report.rows_total == sum(1 for row in rows if row.strip())
    assert report.rows_total == report.rows_used + report.rows_skipped_total
    assert report.events_total == len(found) == report.statuses.total()
    assert report.countries.total() == report.rows_used == report.statuses["PLACED"]
    for timed in found:
        parse_event(timed.event, defaults=EventDefaults("acme"), now_ms=NOW_MS)
    keys = [timed.event["idempotencyKey"] for timed in found]
    assert len(set(keys)) == len(keys)


@given(rows=ROWS)
def test_play_order_is_by_known_day_loses_nothing_and_does_not_depend_on_the_order_of_rows(rows: list[bytes]) -> None:
    found, _ = load(original(*rows))
    played = play_order(found)
    assert [timed.known_ms for timed in played] == sorted(timed.known_ms for timed in found)
    by_line = [found[index] for index in sorted(range(len(found)), key=lambda index: (-found[index].line_id, index))]
    assert play_order(by_line) == played


def test_on_one_day_the_placing_is_played_before_the_delivery() -> None:
    found, _ = load(original(*(line(id=number, ordered="Date Not Captured", quoted="Pre-PQ Process") for number in ("2", "1"))))
    assert [timed.event["idempotencyKey"] for timed in play_order(found)] == [
        "scms-1-PLACED", "scms-1-DELIVERED", "scms-2-PLACED", "scms-2-DELIVERED",
    ]  # fmt: skip


@pytest.mark.slow
def test_rows_stream_memory_does_not_grow_with_the_file() -> None:
    class Rows(io.RawIOBase):
        """A file of many rows that exists only while it is read."""

        def __init__(self, count: int) -> None:
            self.rest = b""
            self.rows = self._rows(count)

        @staticmethod
        def _rows(count: int) -> Iterator[bytes]:
            yield header()
            yield from (line(id=str(number)) for number in range(count))

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            while len(self.rest) < len(buffer) and (more := next(self.rows, b"")):
                self.rest += more
            size = min(len(self.rest), len(buffer))
            buffer[:size], self.rest = self.rest[:size], self.rest[size:]
            return size

    def peak_bytes(count: int) -> int:
        tracemalloc.start()
        used = sum(1 for _ in read_events(cast(BinaryIO, Rows(count)), Report()))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert used == 2 * count
        return peak

    assert peak_bytes(4_000) < peak_bytes(1_000) + 200_000  # 3,000 rows more are 1 MB of file


def test_rows_can_be_taken_apart_from_events() -> None:
    report = Report()
    rows = list(read_rows(io.BytesIO(original(line(), line(id="2"))), report))
    assert [(row.line, row.line_id, row.country) for row in rows] == [(2, "1", "Côte d'Ivoire"), (3, "2", "Côte d'Ivoire")]
    assert len(list(events(rows, report))) == 4
    assert (report.rows_total, report.rows_used) == (2, 2)


def test_the_table_of_columns_fits_the_row() -> None:
    rows = list(read_rows(io.BytesIO(original(line())), Report()))
    assert all(isinstance(getattr(rows[0], column.field), str) for column in COLUMNS)
