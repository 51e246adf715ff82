"""Telemetry: JSON to row and back, the words that mean the same everywhere, the latest of each device."""

from __future__ import annotations

from typing import Any

import pytest

from protocols import limits
from protocols.codec import pack, unpack
from protocols.devices import Devices, read_row
from protocols.errors import Conflict, DecodeError, InvalidInput, TooLarge
from protocols.event import TimeQuality
from protocols.ledger import ORDERS, TELEMETRY, Ledger
from protocols.telemetry import EXAMPLES, Reading, parse_reading, parse_readings, read_telemetry, reading_json, telemetry_row
from tests.unit.protocols.ledgers import NOW_MS, event, ledger, offer, range_of, rows_range, say


def reading(device: str = "scanner-7", kind: str = "health", **values: Any) -> Reading:
    return Reading(device, kind, NOW_MS, TimeQuality.STATED, values or {"batteryPercent": 87})


def tell(led: Ledger, *readings: Reading, now_ms: int = NOW_MS) -> list[int]:
    led.begin()
    done = led.append_telemetry(readings, now_ms)
    led.commit()
    return [one.seq for one in done]


def latest(led: Ledger) -> dict[tuple[str, str], object]:
    return {(one.reading.device, one.reading.kind): one.reading.values for one in led.devices.page("", 100)}


def said(**more: Any) -> dict[str, Any]:
    return {"device": "scanner-7", "kind": "health", "timestamp": "2026-05-21T14:05:12Z", "values": {"batteryPercent": 87}, **more}


@pytest.mark.parametrize("example", EXAMPLES, ids=["health", "provisioning"])
def test_json_row_and_back(example: dict[str, object]) -> None:
    one = parse_reading(example, now_ms=NOW_MS)
    assert parse_reading(reading_json(one), now_ms=NOW_MS) == one
    row = pack(telemetry_row(one, NOW_MS))
    assert read_telemetry(unpack(row, max_bytes=10_000)) == (one, NOW_MS)
    assert read_row(row) == one


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"values": {}}, "values"),
        ({"values": [1]}, "values"),
        ({"values": {"t": 21.5}}, "values.t"),
        ({"values": {"t": None}}, "values.t"),
        ({"values": {"t": {"a": 1}}}, "values.t"),
        ({"values": {"t": 2**63}}, "values.t"),
        ({"values": {"": "x"}}, "values"),
        ({"values": {"batteryPercent": 101}}, "values.batteryPercent"),
        ({"values": {"batteryPercent": True}}, "values.batteryPercent"),
        ({"values": {"signalDbm": "-61"}}, "values.signalDbm"),
        ({"values": {"mac": "02:42"}}, "values.mac"),
        ({"values": {"mac": "02:42-ac:11-00:02"}}, "values.mac"),
        ({"values": {"mac": "ff:ff:ff:ff:ff:ff"}}, "values.mac"),
        ({"values": {"provisioning": "lost"}}, "values.provisioning"),
        ({"values": {"lastSeen": "yesterday"}}, "values.lastSeen"),
        ({"values": {"firmware": ""}}, "values.firmware"),
        ({"device": None}, "device"),
        ({"kind": "x" * 129}, "kind"),
        ({"timestamp": None}, "timestamp"),
        ({"timestamp": "2026-05-21T14:05:12"}, "timestamp"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_bad_reading_is_refused_by_the_name_of_its_field(sent: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_readings([said(), said(**sent)], now_ms=NOW_MS)
    assert refused.value.field == f"[1].{field}"


@pytest.mark.parametrize("written", ["02-42-AC-11-00-02", "0242ac110002", "0242.AC11.0002", " 02:42:ac:11:00:02 "])
def test_a_hardware_address_has_one_form_however_it_is_written(written: str) -> None:
    assert parse_reading(said(values={"mac": written}), now_ms=NOW_MS).values == {"mac": "02:42:ac:11:00:02"}


def test_known_words_come_out_in_one_form() -> None:
    one = parse_reading(said(values={"mac": "02-42-AC-11-00-02", "lastSeen": "2026-05-21T16:05:12+02:00", "own": "x"}), now_ms=NOW_MS)
    assert one.values == {"mac": "02:42:ac:11:00:02", "lastSeen": "2026-05-21T14:05:12Z", "own": "x"}


def test_bounds() -> None:
    with pytest.raises(TooLarge):
        parse_readings([said()] * (limits.BATCH_EVENTS + 1), now_ms=NOW_MS)
    with pytest.raises(TooLarge):
        parse_reading(said(values={"note": "x" * limits.TELEMETRY_BYTES}), now_ms=NOW_MS)
    assert parse_reading(said(timestamp="1970-01-01T00:00:01Z"), now_ms=NOW_MS).quality is TimeQuality.IMPROBABLE


@pytest.mark.parametrize(
    "row",
    [
        [3],
        [3, "d", "k", -1, 0, 0, {"a": 1}],
        [3, "d", "k", None, 9, 0, {"a": 1}],
        [3, "d", "k", None, 1, None, {"a": 1}],
        [3, "d", "k", None, 1, 0, {"a": [1]}],
        [3, "", "k", None, 1, 0, {"a": 1}],
        [3, "d", 7, None, 1, 0, {"a": 1}],
        [True, "d", "k", None, 1, 0, {"a": 1}],
    ],
)
def test_a_row_from_outside_is_believed_in_nothing(row: list[Any]) -> None:
    with pytest.raises(DecodeError):
        read_telemetry(row)


def test_what_a_later_version_added_is_no_fault() -> None:
    assert read_telemetry([3, "d", "k", None, 1, 0, {"batteryPercent": "full"}, "more"])[0].values == {"batteryPercent": "full"}


# ------------------------------------------------------------ the ledger


def test_readings_go_to_a_stream_of_their_own_and_into_no_order() -> None:
    led = ledger()
    say(led, event())
    assert tell(led, reading(), reading(batteryPercent=86), reading("scanner-8")) == [1, 2, 3]
    assert (led.own(ORDERS).head[0], led.own(TELEMETRY).head[0]) == (1, 3)
    assert led.db.query("SELECT count(*) FROM orders") == [(1,)]
    assert latest(led) == {("scanner-7", "health"): {"batteryPercent": 86}, ("scanner-8", "health"): {"batteryPercent": 87}}


def test_a_key_is_of_one_reading_and_never_of_an_event_too() -> None:
    led = ledger()
    one = Reading("d", "k", NOW_MS, TimeQuality.STATED, {"a": 1}, "key-1")
    assert tell(led, one) == tell(led, one) == [1]
    other = Reading("d", "k", NOW_MS, TimeQuality.STATED, {"a": 2}, "key-1")
    led.begin()
    with pytest.raises(Conflict):
        led.append_telemetry([reading(), other], NOW_MS)
    with pytest.raises(Conflict):
        led.append_all([event(key="key-1")], NOW_MS)
    led.commit()
    assert led.own(TELEMETRY).head[0] == 1


def test_others_readings_are_kept_and_a_late_one_does_not_replace_the_latest() -> None:
    edge, hub = ledger(), ledger("hub")
    tell(edge, *(reading(batteryPercent=n) for n in range(6)), reading("scanner-8"))
    whole = range_of(edge, stream=edge.own(TELEMETRY))
    for part in (whole.part(4, 7), whole.part(1, 3)):
        assert offer(hub, part).quarantined == []
    assert latest(hub) == latest(edge) == {("scanner-7", "health"): {"batteryPercent": 5}, ("scanner-8", "health"): {"batteryPercent": 87}}
    summary = hub.devices.index().summaries()["edge-1"]
    assert (summary.devices, summary.heard_ms) == (2, NOW_MS)
    assert hub.db.query("SELECT count(*) FROM orders") == [(0,)]


def test_a_reading_that_cannot_be_read_steps_aside() -> None:
    edge, hub = ledger(), ledger("hub")
    bad = rows_range(edge.own(TELEMETRY).key, [telemetry_row(reading(), NOW_MS), [3, "d", "k", None, 1, 0, {"a": [1]}]])
    assert [seq for seq, _, _ in offer(hub, bad).quarantined] == [2]


def test_the_devices_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocols.devices.DEVICES_KEPT", 20)
    led = ledger()
    for n in range(50):
        tell(led, reading(f"d{n:02}"), now_ms=NOW_MS + n)
    names = [device for device, _ in latest(led)]
    assert 18 <= len(names) <= 20
    assert names[-1] == "d49"
    assert led.devices.is_latest("edge-1", "d00", "health", 1, 1), "what is not remembered supersedes nothing"
    assert not Devices(led.db).is_latest("edge-1", "d49", "health", 1, 1)
