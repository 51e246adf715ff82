"""Own facts go to whoever will carry them: once to a gateway while no hub answers, whole onto a stick, whatever holes there are."""

from __future__ import annotations

from dataclasses import replace

from edge_agent.core import Restart
from protocols.codec import FrameHeader
from protocols.eviction import evict
from protocols.sync.seal import Control, unseal
from protocols.telemetry import parse_readings
from tests.unit.edge_agent.relay_world import arrive, frames_of, leave, roaming, spoken
from tests.unit.hub.hub_world import Edge, World

HOUR_MS = 3_600_000


def headers(payloads: list[bytes]) -> list[FrameHeader]:
    return [opened[1] for opened in map(unseal, payloads) if not isinstance(opened, Control)]


def handed(phone: Edge, after_ms: int = 3_000) -> list[tuple[int, int]]:
    """Ranges that the phone hands out within the next while, as long as it has something."""
    found: list[tuple[int, int]] = []
    phone.world.now_ms += after_ms
    while new := headers(spoken(phone)):
        found += [(h.first, h.first + h.count - 1) for h in new]
        phone.world.now_ms += 1_000
    return found


def phone_with(facts: int) -> Edge:
    phone = roaming(World(), "phone-1")
    phone.says("A1", *["PICKED"] * facts)
    return phone


def test_facts_are_handed_out_in_pieces_once_the_hub_stays_silent() -> None:
    phone = phone_with(30)
    arrive(phone)
    assert headers(spoken(phone)) == [], "the hub has its time"
    assert handed(phone) == [(a, min(a + 3, 30)) for a in range(1, 31, 4)]
    phone.says("A1", "PACKED")
    assert handed(phone) == [(31, 31)]
    assert handed(phone) == []


def test_a_line_that_flickers_does_not_make_everything_go_again() -> None:
    phone = phone_with(8)
    arrive(phone)
    assert handed(phone) == [(1, 4), (5, 8)]
    phone.world.now_ms += 200_000
    spoken(phone)
    phone.says("A1", "PACKED")
    assert handed(phone) == [(9, 9)]
    leave(phone)
    arrive(phone)
    assert handed(phone) == [(9, 9)], "what went shortly before the line broke may not have arrived"
    leave(phone)
    phone.world.now_ms += 2 * HOUR_MS
    arrive(phone)
    assert handed(phone) == [(1, 4), (5, 8), (9, 9)], "after an hour all of it: the relay may have lost its disk"


def test_who_stays_connected_hands_out_again_after_an_hour() -> None:
    phone = phone_with(3)
    arrive(phone)
    assert handed(phone) == [(1, 3)]
    phone.world.now_ms += HOUR_MS
    assert handed(phone) == [(1, 3)]


def test_silence_of_the_hub_behind_a_gateway_is_no_stall() -> None:
    phone = phone_with(1)
    arrive(phone)
    handed(phone)
    for _ in range(300):
        phone.world.now_ms += 1_000
        assert not any(isinstance(effect, Restart) for effect in phone.core.effects(phone.now))


def test_holes_hold_nothing_back() -> None:
    phone = roaming(World(), "phone-1")
    readings = parse_readings(
        [{"device": f"d{i}", "kind": "climate", "values": {"c": i}, "timestamp": "2026-05-21T14:05:12Z"} for i in range(12)],
        now_ms=phone.world.now_ms,
    )
    phone.core.begin()
    phone.core.take_telemetry(readings, phone.now)
    stream = phone.core.ledger.own(1)
    evict(phone.core.ledger, stream, 3, 6, "oldest")
    phone.core.commit()
    ranges = [(h.first, h.first + h.count - 1) for h in headers(frames_of(phone))]
    assert ranges == [(1, 2), (7, 8), (9, 12)]
    arrive(phone)
    assert handed(phone) == ranges
    phone.core.uplink.settings = replace(phone.core.uplink.settings, frame_facts=1)
    cursor, got = None, []
    while True:
        page = phone.core.carry.page(cursor, 1)
        got += [h.first for h in headers(page.payloads)]
        cursor = page.cursor
        if cursor is None:
            break
    assert got == [1, 2, 7, 8, 9, 10, 11, 12]
