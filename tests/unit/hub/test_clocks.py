"""Clocks that were never set, jump, or are set back: nothing is decided by them, and people see true timelines (I9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from edge_agent.views import order_json
from hub.fleet import look
from hub.store.port import EventView, OrderQuery
from hub.times import as_shown
from hub.web.timeline import lag_words
from protocols.clock import RELEASED_MS, Shift
from protocols.fact import Clock
from tests.unit.hub.hub_world import START_MS, Edge, World

HOUR_MS: Final = 3_600_000
SINCE_1970: Final = -START_MS


def timeline(world: World, order_id: str) -> list[EventView]:
    """As the hub shows it."""
    seen = look(world.hub, world.store, world.hub_ms, lambda _: None, 30_000)
    return as_shown(world.store.events("acme", order_id), seen.shifts)


def row_of(world: World, node: str) -> Any:
    seen = look(world.hub, world.store, world.hub_ms, lambda _: None, 30_000)
    return next(row for row in seen.fleet if row.node == node)


def close(event: EventView, true_ms: int) -> bool:
    """Is it shown at about the time at which it was recorded?"""
    shown = event.recorded_ms if event.about_ms is None else event.about_ms
    return abs(shown - true_ms) <= 3_000


# ------------------------------------------------------------ three clocks


def test_a_board_that_boots_in_1970_and_works_alone_for_hours_has_a_true_timeline_in_the_end() -> None:
    world = World()
    dock = world.edge("dock-7", linked=False)
    dock.wall_off_ms = SINCE_1970
    true_ms = []
    for status in ("PLACED", "PICKED", "PACKED"):
        true_ms.append(world.now_ms)
        dock.says("A1", status)
        world.now_ms += HOUR_MS
    local = order_json(dock.core.ledger, "acme", "A1", dock.core.clock.about_ms)
    assert local is not None and [e["clock"] for e in local["timeline"]] == ["unset"] * 3
    dock.link()
    world.run(12)
    events = timeline(world, "A1")
    assert [e.status for e in events] == ["PLACED", "PICKED", "PACKED"]
    assert [e.clock for e in events] == [Clock.UNSET] * 3
    assert all(e.recorded_ms < RELEASED_MS + 3 * HOUR_MS for e in events), "the fact says what its author knew"
    assert all(close(e, ms) for e, ms in zip(events, true_ms, strict=True))
    assert "recorded about 21 May 2026" in lag_words(events[0])[0]
    local = order_json(dock.core.ledger, "acme", "A1", dock.core.clock.about_ms)
    assert local is not None and all(e["recordedAbout"] is not None for e in local["timeline"])
    dock.says("A1", "SHIPPED")
    world.run(12)
    last = timeline(world, "A1")[-1]
    assert (last.clock, last.about_ms) == (Clock.HUB, None)
    assert abs(last.recorded_ms - last.received_ms) <= 3_000, "the hub's time, as long as its own is of no use"


def test_a_clock_that_jumps_two_hours_ahead_while_cut_off() -> None:
    world = World()
    dock = world.edge("dock-7")
    world.run(3)
    dock.says("A1", "PLACED")
    world.run(3)
    dock.cut()
    world.now_ms += HOUR_MS
    dock.wall_off_ms = 2 * HOUR_MS
    picked_ms = world.now_ms
    dock.says("A1", "PICKED")
    world.now_ms += HOUR_MS
    dock.link()
    world.run(12)
    placed, picked = timeline(world, "A1")
    assert (placed.status, placed.about_ms) == ("PLACED", None)
    assert picked.recorded_ms == picked_ms + 2 * HOUR_MS and picked.clock == Clock.FLOOR
    assert close(picked, picked_ms)
    row = row_of(world, "dock-7")
    assert abs(row.skew_ms - 2 * HOUR_MS) <= 3_000 and row.clock == Clock.FLOOR


def test_a_clock_that_is_set_back_ten_minutes_goes_on_where_it_was() -> None:
    world = World()
    dock = world.edge("dock-7", linked=False)
    dock.says("A1", "PLACED")
    world.now_ms += 60_000
    dock.wall_off_ms = -600_000
    dock.says("A1", "PICKED")
    dock.link()
    world.run(12)
    placed, picked = timeline(world, "A1")
    assert (placed.clock, picked.clock) == (Clock.FLOOR, Clock.UNSET)
    assert close(placed, START_MS) and close(picked, START_MS + 60_000)


def test_the_floor_outlasts_a_restart_of_the_edge() -> None:
    world = World()
    dock = world.edge("dock-7", linked=False)
    dock.says("A1", "PLACED")
    dock.boot()
    dock.wall_off_ms = SINCE_1970
    dock.says("A1", "PICKED")
    facts = order_json(dock.core.ledger, "acme", "A1")
    assert facts is not None
    assert [e["clock"] for e in facts["timeline"]] == ["floor", "unset"]
    assert facts["timeline"][1]["recordedAt"] >= facts["timeline"][0]["recordedAt"]


def test_shifts_outlast_a_restart_of_the_hub_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from hub import registry

    world = World()
    monkeypatch.setattr(registry, "SHIFTS_KEPT", 2)
    world.hub.begin()
    for first in (1, 10, 20):
        world.hub.registry.note_shifts("dock-7", [Shift(5, 0, first, first + 5, 1_000, 1)])
    world.hub.registry.note_shifts("dock-7", [Shift(5, 0, 1, 8, 2_000, 1)])
    world.hub.commit()
    world.restart()
    assert sorted((s.first, s.last, s.ms) for s in world.hub.registry.shifts["dock-7"]) == [(1, 8, 2_000), (10, 15, 1_000)]


def test_no_event_is_improbable_because_the_edge_does_not_know_the_time() -> None:
    world = World()
    dock = world.edge("dock-7", linked=False)
    dock.wall_off_ms = SINCE_1970
    assert dock.core.clock.judging_ms(dock.now) > START_MS + 365 * 24 * HOUR_MS
    dock.wall_off_ms = 0
    assert dock.core.clock.judging_ms(dock.now) == world.now_ms


# ------------------------------------------------------------ I9: the outcome is the same

Bent = Callable[[World, Edge, Edge, int], None]


def right(world: World, a: Edge, b: Edge, at: int) -> None:
    """Nobody's clock is wrong."""


def boots_in_1970(world: World, a: Edge, b: Edge, at: int) -> None:
    a.wall_off_ms = SINCE_1970


def jumps_and_steps_back(world: World, a: Edge, b: Edge, at: int) -> None:
    a.wall_off_ms, b.wall_off_ms = (2 * HOUR_MS, 0) if at % 2 else (0, -600_000)


def the_hub_is_years_ahead(world: World, a: Edge, b: Edge, at: int) -> None:
    world.hub_off_ms = 40 * 365 * 24 * HOUR_MS


def the_hub_swings(world: World, a: Edge, b: Edge, at: int) -> None:
    world.hub_off_ms = (10 * 24 * HOUR_MS) * (-1) ** at


def all_at_once(world: World, a: Edge, b: Edge, at: int) -> None:
    the_hub_swings(world, a, b, at)
    jumps_and_steps_back(world, b, a, at)
    a.wall_off_ms = SINCE_1970 if at < 3 else 7 * HOUR_MS


def outcome(bend: Bent) -> dict[str, Any]:
    """What comes of one story of two edges and the centre, with cuts and a conflict, under these clocks."""
    world = World()
    a, b = world.edge("dock-1"), world.edge("dock-2")
    for at in range(6):
        bend(world, a, b, at)
        a.says("A1", ("PLACED", "PICKED", "PACKED", "SHIPPED", "IN_TRANSIT", "DELIVERED")[at])
        if at == 2:
            a.cut()
            world.says("A1", "CANCELLED")
        b.says(f"B{at % 3}", ("PLACED", "HELD", "PICKED", "PACKED", "SHIPPED", "DELIVERED")[at])
        world.run(6)
        if at == 4:
            a.link()
    world.settle()
    orders = world.store.orders(OrderQuery(limit=100)).orders
    return {
        "orders": sorted((o.order_id, o.status, o.heads, o.facts, o.conflict, o.abnormal) for o in orders),
        "heads": {o.order_id: sorted((e.node, e.seq) for e in world.store.events("acme", o.order_id) if e.is_head) for o in orders},
        "timelines": {o.order_id: [(e.node, e.seq) for e in timeline(world, o.order_id) if e.node != "hub"] for o in orders},
        "settled": [[s.settled_seq for s in edge.core.ledger.own_streams()] for edge in (a, b)],
        "quarantined": world.store.totals()["quarantined"],
        "balanced": [world.row(node)["balanced"] for node in ("dock-1", "dock-2", "hub")],
    }


@pytest.mark.parametrize("bend", [boots_in_1970, jumps_and_steps_back, the_hub_is_years_ahead, the_hub_swings, all_at_once])
def test_the_outcome_is_the_same_whatever_the_clocks_say(bend: Bent) -> None:
    wanted = outcome(right)
    assert wanted["orders"] and all(wanted["balanced"]) and wanted["settled"] == [[6], [6]]
    assert outcome(bend) == wanted
