"""The way down while a backlog is on its way up: nothing is sent back to who has just handed it over, and it costs little."""

from __future__ import annotations

import pytest

from edge_agent.core import EdgeSettings
from hub.scopes import Scopes
from protocols.downlink import order_k
from protocols.sync.follow import FollowSettings
from protocols.sync.seal import Control, unseal
from protocols.sync.uplink import UplinkSettings
from tests.unit.hub.hub_world import Edge, World
from tests.unit.hub.test_downlink import Tap, same, state

PATIENT = EdgeSettings(
    UplinkSettings(frame_facts=8, window_facts=80, linger_ms=0, retry_ms=2_000),
    follow=FollowSettings(backlog_facts=20, backlog_ms=60_000),
    heartbeat_ms=5_000,
)


def cut_off(facts: int) -> tuple[World, Edge]:
    """A dock with facts of as many orders that nobody has heard of, and an order of the centre that it has not heard of."""
    world = World(edge_settings=PATIENT)
    dock = world.edge("dock-1", linked=False)
    for n in range(facts):
        dock.says(f"A{n}", "PLACED")
    world.says("C1", "PLACED")
    return world, dock


def only_words(_: str, payload: bytes) -> list[bytes]:
    """Frames do not get through."""
    return [payload] if isinstance(unseal(payload), Control) else []


def test_what_a_node_has_just_handed_over_is_not_sent_back_to_it() -> None:
    world, dock = cut_off(400)
    tap = Tap(world)
    dock.link()
    world.run(60)
    assert world.hub.ledger.log.open(dock.key_of_stream).head[0] == 400
    assert tap.facts <= 1 + 20, "the order of the centre, and of its own those that were still under way"
    same(world, dock, "C1", "A0", "A399")


def test_a_comparison_waits_for_a_backlog_no_longer_than_it_is_told() -> None:
    world, dock = cut_off(30)
    world.bend = only_words
    dock.link()
    world.run(50)
    assert state(dock, "C1") is None
    world.run(20)
    assert state(dock, "C1") == "PLACED"


def test_for_a_few_facts_a_comparison_does_not_wait() -> None:
    world, dock = cut_off(20)
    world.bend = only_words
    dock.link()
    world.run(5)
    assert state(dock, "C1") == "PLACED"


def test_a_fact_that_leaves_its_order_where_it_was_costs_no_look_at_the_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    dock = world.edge("dock-1")
    dock.says("A1", "PLACED")
    world.run()
    looked = list[str]()
    move = Scopes.move
    monkeypatch.setattr(Scopes, "move", lambda self, order, taken: looked.append(order.order_id) or move(self, order, taken))  # type: ignore[func-returns-value]
    dock.says("A1", "APPROVED")
    dock.says("A2", "PLACED", "APPROVED")
    world.run()
    assert looked == []
    other = world.edge("dock-2")  # now somebody else wants to hear of it
    world.run()
    dock.says("A1", "ALLOCATED")
    world.run()
    assert looked == ["A1"]
    same(world, other, "A1", "A2")


def test_an_order_that_begins_and_moves_on_in_one_message_stands_where_it_ended() -> None:
    world = World()
    dock = world.edge("dock-1", linked=False)
    dock.says("A1", "PLACED", site="Lisbon")
    dock.says("A1", "PICKED", site="Oslo")
    dock.says("A2", "PLACED", site="Lisbon")
    dock.says("A2", "PICKED", site=None)
    dock.link()
    world.run()
    assert (world.concerned("Oslo"), world.concerned("Lisbon")) == (["A1"], ["A2"])
    lisbon, oslo = world.edge("dock-2", site="Lisbon"), world.edge("dock-3", site="Oslo")
    world.run()
    assert (state(lisbon, "A1"), state(lisbon, "A2"), state(oslo, "A1")) == (None, "PICKED", "PICKED")


def test_an_order_that_memory_has_forgotten_still_leaves_where_it_was() -> None:
    world = World()
    dock = world.edge("dock-1", site="Lisbon")
    dock.says("A1", "PLACED", site="Lisbon")
    world.run()
    world.restart()
    dock.says("A1", "PICKED", site="Oslo")
    world.settle()
    assert (world.concerned("Oslo"), world.concerned("Lisbon")) == (["A1"], [])


def test_an_order_keeps_its_place_for_comparisons_however_often_it_is_written() -> None:
    world = World()
    dock = world.edge("dock-1")
    for status in ("PLACED", "APPROVED", "ALLOCATED"):
        dock.says("A1", status)
        world.run()
    for db in (dock.core.ledger.db, world.hub.ledger.db):
        assert db.query("SELECT k FROM orders") == [(order_k("acme", "A1"),)]
