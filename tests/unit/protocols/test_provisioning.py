"""Devices: what a record of provisioning must say, and what is put together of all that was told."""

from __future__ import annotations

import random
from typing import Any

import pytest

from protocols import limits
from protocols.device_index import FIRST, UNSTATED, DeviceIndex
from protocols.devices import Devices
from protocols.errors import InvalidInput
from protocols.event import TimeQuality
from protocols.ledger import TELEMETRY, Ledger
from protocols.provisioning import NAMES, STATES
from protocols.telemetry import Reading, fact_json, parse_reading
from tests.unit.protocols.ledgers import NOW_MS, ledger, offer, range_of


def of(device: str, kind: str = "health", happened_ms: int | None = NOW_MS, **values: Any) -> Reading:
    return Reading(device, kind, happened_ms, TimeQuality.STATED, values or {"batteryPercent": 87})


def told(*readings: tuple[str, Reading], taken_ms: int = NOW_MS) -> DeviceIndex:
    index = DeviceIndex()
    for seq, (node, reading) in enumerate(readings, 1):
        index.note(node, reading, (1, seq), taken_ms + seq)
    return index


def test_the_table_of_states_is_one() -> None:
    assert NAMES == ("new", "enrolled", "active", "suspended", "retired")
    assert [state.name for state in STATES if state.serves] == ["active"]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"serial": "S1"}, "values.provisioning"),
        ({"provisioning": "active"}, "values.serial"),
        ({"provisioning": "active", "mac": "1"}, "values.mac"),
    ],
)
def test_a_record_says_its_state_and_a_name_of_its_maker(values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_reading({"device": "d", "kind": "provisioning", "timeQuality": "unknown", "values": values}, now_ms=NOW_MS)
    assert refused.value.field == field
    assert refused.value.remedy


def test_either_name_will_do_and_other_kinds_are_free() -> None:
    for values in ({"provisioning": "new", "serial": "S"}, {"provisioning": "new", "mac": "0242ac110002"}):
        parse_reading({"device": "d", "kind": "provisioning", "timeQuality": "unknown", "values": values}, now_ms=NOW_MS)
    parse_reading({"device": "d", "kind": "health", "timeQuality": "unknown", "values": {"x": 1}}, now_ms=NOW_MS)


def test_others_read_a_fact_with_who_told_of_it() -> None:
    fact = fact_json(of("scanner-7"), node="dock-7", recorded_ms=NOW_MS)
    assert (fact["node"], fact["device"], fact["values"]) == ("dock-7", "scanner-7", {"batteryPercent": 87})
    assert "recordedAt" in fact


# ------------------------------------------------------------------ what is known of a device


def test_of_each_word_the_latest_reading_counts_whatever_its_kind() -> None:
    index = told(
        ("dock-7", of("d", "provisioning", provisioning="enrolled", serial="S1", firmware="1.0", batteryPercent=99)),
        ("dock-7", of("d", "health", batteryPercent=15, signalDbm=-90)),
        ("dock-7", of("d", "update", firmware="2.0")),
    )
    (device,) = index.page(("", ""), 10)
    assert (device.state, device.serial, device.firmware, device.battery_percent, device.signal_dbm) == ("enrolled", "S1", "2.0", 15, -90)
    assert device.low_battery and device.weak_signal
    assert device.heard_ms == NOW_MS + 3


@pytest.mark.parametrize(("state", "low"), [("new", True), ("enrolled", True), ("active", True), ("suspended", False), ("retired", False)])
def test_the_battery_of_what_is_out_of_service_is_nobodys_business(state: str, low: bool) -> None:
    index = told(("n", of("d", "provisioning", provisioning=state, serial="S", batteryPercent=1, signalDbm=-120)))
    (device,) = index.page(("", ""), 10)
    assert device.low_battery is device.weak_signal is low


def test_what_comes_late_replaces_nothing() -> None:
    index = DeviceIndex()
    index.note("n", of("d", batteryPercent=50), (1, 9), NOW_MS)
    index.note("n", of("d", batteryPercent=80), (1, 2), NOW_MS + 5)
    index.note("n", of("d", batteryPercent=40), (2, 1), NOW_MS + 6)
    assert index.page(("", ""), 10)[0].battery_percent == 40
    index.note("n", of("d", batteryPercent=70), (1, 10), NOW_MS + 7)
    assert index.page(("", ""), 10)[0].battery_percent == 40, "an earlier stream"


def test_last_seen_is_what_the_gateway_says_and_not_when_the_hub_heard() -> None:
    index = told(
        ("n", of("d", happened_ms=NOW_MS - 60_000)), ("n", of("e", happened_ms=None)), ("n", of("f", lastSeen="1970-01-01T00:00:01Z"))
    )
    assert [device.seen_ms for device in index.page(("", ""), 10)] == [NOW_MS - 60_000, None, 1_000]


def test_words_that_a_later_version_says_in_another_way_are_left_out() -> None:
    index = told(("n", of("d", mac=7, batteryPercent="full", provisioning=True, lastSeen="once")))
    (device,) = index.page(("", ""), 10)
    assert (device.mac, device.battery_percent, device.state, device.seen_ms) == (None, None, None, NOW_MS)


def test_pages_of_all_of_a_node_and_of_a_state() -> None:
    states = ["active", "retired"]
    readings = [(f"n{n}", of(f"d{d}", "provisioning", provisioning=states[d % 2], serial="S")) for n in range(3) for d in range(5)]
    index = told(*readings, ("n1", of("only-health")))
    keys, after = [], ("", "")
    while page := index.page(after, 4):
        keys += [(d.node, d.device) for d in page]
        after = keys[-1]
    assert keys == sorted(keys) and len(keys) == 16
    assert [d.device for d in index.page(("", ""), 10, node="n1")] == ["d0", "d1", "d2", "d3", "d4", "only-health"]
    assert [d.device for d in index.page(("n1", "d1"), 2, node="n1", state="active")] == ["d2", "d4"]
    assert [(d.node, d.device) for d in index.page(("", ""), 10, state=UNSTATED)] == [("n1", "only-health")]
    assert index.page(("", ""), 10, node="n") == []


def test_a_node_is_summed_up_anew_when_it_tells_something() -> None:
    index = told(
        *[("n1", of(f"d{n:02}", "provisioning", provisioning="active", serial="S")) for n in range(12)], ("n2", of("x", batteryPercent=5))
    )
    one = index.summaries()["n1"]
    assert (one.devices, one.states, one.low_battery, len(one.first)) == (12, {"active": 12}, 0, FIRST)
    two = index.summaries()["n2"]
    assert (two.devices, two.states, two.low_battery) == (1, {UNSTATED: 1}, 1)
    index.note("n2", of("y", "provisioning", provisioning="moved-in", serial="S"), (1, 99), NOW_MS + 99)
    assert index.summaries()["n2"].states == {UNSTATED: 1, "other": 1}
    assert index.summaries()["n1"] is one, "nobody counts again what did not change"


# ------------------------------------------------------------------ beside the ledger


def kept(led: Ledger) -> list[Any]:
    return led.devices.index().page(("", ""), 1_000)


def test_the_index_is_the_same_in_step_and_from_the_table() -> None:
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    led = ledger()
    led.devices.index()
    for _ in range(30):
        led.begin()
        led.append_telemetry([of(f"d{rng.randrange(5)}", rng.choice(("health", "update")), batteryPercent=rng.randrange(100))], NOW_MS)
        led.commit()
    assert kept(led) == Devices(led.db).index().page(("", ""), 1_000), f"seed {seed}"


def test_it_hears_of_what_others_sent_and_forgets_what_the_table_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocols.devices.DEVICES_KEPT", 10)
    edge, hub = ledger(), ledger("hub")
    hub.devices.index()
    edge.begin()
    edge.append_telemetry([of(f"d{n:02}") for n in range(12)], NOW_MS)
    edge.commit()
    offer(hub, range_of(edge, stream=edge.own(TELEMETRY)))
    assert [d.device for d in kept(hub)] == [d.device for d in Devices(hub.db).index().page(("", ""), 100)]
    assert 0 < len(kept(hub)) <= 10
    assert limits.DEVICES_KEPT > 10
