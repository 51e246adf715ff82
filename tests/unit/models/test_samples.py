"""The shipped orders are what their data card says: the numbers are read from the card, so neither can drift."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re

import pytest

from models import samples
from models.importers.days import day_ms
from models.importers.report import Report
from models.importers.scms import COLUMNS, TimedEvent, play_order, read_events, read_rows
from models.importers.scms_sample import promised_before, write_sample
from protocols.event import EventDefaults, TimeQuality, format_time, parse_event
from tests.unit.models.scms_files import header, line, original


@pytest.fixture(scope="module")
def card() -> dict[str, str]:
    figures = samples.card_text().split("## Figures")[1].split("##")[0]
    return dict(re.findall(r"^\| (.+?) \| (.+?) \|$", figures, re.MULTILINE))


@pytest.fixture(scope="module")
def loaded() -> tuple[list[TimedEvent], Report]:
    report = Report()
    with samples.open_scms() as stream:
        return list(read_events(stream, report)), report


def day(at_ms: int | None) -> str:
    assert at_ms is not None
    return format_time(at_ms)[:10]


def test_the_card_counts_what_the_importer_counts(card: dict[str, str], loaded: tuple[list[TimedEvent], Report]) -> None:
    found, report = loaded
    details = [timed.event["details"] for timed in found]
    compact = [len(json.dumps(timed.event, ensure_ascii=False, separators=(",", ":")).encode()) for timed in found]
    counted = {
        "order lines": report.rows_total, "countries": len(report.countries), "events": report.events_total,
        "rows skipped": report.rows_skipped_total,
        "purchase and sales orders": len({timed.event["orderId"].rpartition("-L")[0] for timed in found}),
        "shipments": len({one["shipment"] for one in details if "shipment" in one}),
        "vendors": len({one["vendor"] for one in details if "vendor" in one}),
        'PLACED from "PO sent"': sum(one.get("basis") == "PO sent" for one in details),
        'PLACED from "PQ sent"': sum(one.get("basis") == "PQ sent" for one in details),
        "first day": day(report.first_ms), "last day": day(report.last_ms), "last day known": day(max(timed.known_ms for timed in found)),
        "mean bytes of an event as JSON": round(sum(compact) / len(compact)),
    }  # fmt: skip
    counted |= {f"events {status}": count for status, count in report.statuses.items()} | dict(report.noted)
    stated = {name: text for name, text in card.items() if "unpacked" not in name and name != "figure"}
    assert {name: str(count) for name, count in counted.items()} == stated


def test_the_card_states_the_files_digest(card: dict[str, str]) -> None:
    with samples.open_scms() as stream:
        unpacked = gzip.decompress(stream.read())
    assert str(len(unpacked)) == card["bytes unpacked"]
    assert hashlib.sha256(unpacked).hexdigest() == card["SHA-256 unpacked"]


def test_the_card_explains_every_column() -> None:
    table = samples.card_text().split("## Columns")[1].split("##")[0]
    assert re.findall(r"^\| (.+?) \|", table, re.MULTILINE)[1:] == [column.title for column in COLUMNS]


def test_the_cards_prose_counts_countries_right(loaded: tuple[list[TimedEvent], Report]) -> None:
    sentence = samples.card_text().split("Largest countries, in lines: ")[1].split(".")[0]
    named = dict(re.findall(r"([^,]+?) (\d+)(?:, |$)", sentence))
    assert {name: int(count) for name, count in named.items()} == dict(loaded[1].countries.most_common(7))


def test_each_event_of_the_sample_is_valid_and_believable(loaded: tuple[list[TimedEvent], Report]) -> None:
    now_ms = 1_800_000_000_000
    read = [parse_event(timed.event, defaults=EventDefaults("acme", "EMEA", "W1"), now_ms=now_ms) for timed in loaded[0]]
    assert not [event for event in read if event.quality is TimeQuality.IMPROBABLE]
    assert len({(event.order_id, event.status) for event in read}) == len(read)


def test_played_back_only_the_four_lines_of_the_card_arrive_before_they_are_placed(loaded: tuple[list[TimedEvent], Report]) -> None:
    placed: set[str] = set()
    early = 0
    for timed in play_order(loaded[0]):
        if timed.event["status"] == "PLACED":
            placed.add(timed.event["orderId"])
        early += timed.event["orderId"] not in placed
    assert early == 4
    assert "(4 also become known in that order)" in samples.card_text()


def test_the_sample_cut_again_is_the_sample(card: dict[str, str]) -> None:
    with samples.open_scms() as stream:
        made = write_sample(read_rows(stream, Report()), io.BytesIO())
    assert made.csv_sha256 == card["SHA-256 unpacked"]
    assert str(made.lines_total) == card["order lines"]


def test_cutting_keeps_what_was_promised_before_the_day_and_counts_the_rest() -> None:
    data = original(line(promised="31-Dec-13"), line(id="2", promised="1-Jan-14"), line(id="3", promised=""), line(id="4", promised="?"))
    report, out = Report(), io.BytesIO()
    before_ms = day_ms("2014-01-01")
    assert before_ms is not None
    write_sample(promised_before(read_rows(io.BytesIO(data), report), before_ms, report), out)
    kept = list(read_rows(io.BytesIO(out.getvalue()), Report()))
    assert [row.line_id for row in kept] == ["1"]
    assert report.skipped == {"promised too late for the sample": 1, "no day in Scheduled Delivery Date": 2}
    assert report.rows_total == report.rows_used + report.rows_skipped_total


def test_cutting_does_not_change_an_event_and_the_same_rows_give_the_same_bytes() -> None:
    data = header() + line(vendor='A "quoted", Ltd') + line(id="2", weight="See ASN-93 (ID#:1281)")
    first, second = io.BytesIO(), io.BytesIO()
    for out in (first, second):
        write_sample(read_rows(io.BytesIO(data), Report()), out)
    assert first.getvalue() == second.getvalue()
    assert first.getvalue()[4:8] == bytes(4), "a time stamp in the gzip header"
    assert list(read_events(io.BytesIO(first.getvalue()), Report())) == list(read_events(io.BytesIO(data), Report()))
