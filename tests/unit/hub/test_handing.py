"""What is handed over from memory is what the log holds, whichever branch it is of."""

from __future__ import annotations

from hashlib import blake2b

import pytest

from edge_agent.core import EdgeSettings
from hub.store.port import StoreFact
from protocols.sync.uplink import UplinkSettings
from tests.unit.hub.hub_world import Edge, World


def lacking(world: World) -> list[StoreFact]:
    """What the hub would hand over now; it forgets what it had in memory for that."""
    return world.hub.handing.lacking(1_000)[0]


def test_from_memory_as_from_the_log() -> None:
    world = World()
    dock = world.edge("dock-1")
    for n in range(20):
        dock.says(f"A{n}", "PLACED", "APPROVED")
    world.run(store=False)
    kept = world.hub.handing.read_kept
    remembered, read = lacking(world), lacking(world)
    assert kept == 40
    assert all(f.fact is not None for f in remembered), "the store is spared reading them"
    assert all(f.fact is None for f in read)
    assert [f._replace(fact=None) for f in remembered] == read


def test_what_is_only_partly_in_memory_is_read_whole() -> None:
    world = World()
    dock = world.edge("dock-1")
    dock.says("A1", "PLACED", "APPROVED")
    world.run(store=False)
    lacking(world)
    dock.says("A1", "ALLOCATED")
    world.run(store=False)
    facts = lacking(world)
    assert [f.seq for f in facts] == [1, 2, 3]
    assert [f.fact is not None for f in facts] == [False, False, True]


@pytest.mark.parametrize("clone_first", [False, True])
def test_of_branches_each_fact_is_handed_over_with_what_it_says(clone_first: bool) -> None:
    world = World()
    dock = world.edge("dock-1")
    dock.says("A1", "PLACED")
    world.settle()
    key = dock.key_of_stream
    clone = world.edge("dock-1", image=dock.db.dump())
    dock.says("A1", "APPROVED")
    dock.says("A2", "PLACED")
    clone.says("A1", "CANCELLED")
    clone.says("A3", "PLACED")
    if clone_first:
        dock.cut()
        world.run(3, store=False)
        dock.link()
    world.run(3, store=False)
    facts = lacking(world)
    assert len({f.h for f in facts if f.stream == key and f.seq == 2}) == 2, "both branches"
    for f in facts:
        assert blake2b(f.prev + f.row, digest_size=8).digest() == f.h
        assert f.fact is None or f.fact.order_id.encode() in f.row


SLOW = EdgeSettings(UplinkSettings(frame_facts=4, window_facts=16, turn_frames=2, linger_ms=0, retry_ms=2_000), heartbeat_ms=5_000)


def with_a_backlog() -> tuple[World, Edge]:
    """Sixty facts of a dock, of which some have reached the hub; the store has none."""
    world = World(edge_settings=SLOW)
    dock = world.edge("dock-1", linked=False)
    for n in range(60):
        dock.says(f"A{n}", "PLACED")
    dock.link()
    world.run(3, store=False)
    return world, dock


def test_what_was_captured_just_now_does_not_stand_behind_a_backlog() -> None:
    world, dock = with_a_backlog()
    dock.says("F1", "PLACED")
    dock.says("F2", "PLACED")
    world.run(1, store=False)
    (_, held), newest = world.held(dock.key_of_stream)
    assert newest == (61, 62) and 8 < held < 60
    facts, _ = world.hub.handing.lacking(8)
    assert [f.seq for f in facts] == [61, 62, *range(1, 7)]


def test_however_much_is_new_most_of_the_room_is_for_the_oldest() -> None:
    world, dock = with_a_backlog()
    for n in range(8):
        dock.says(f"F{n}", "PLACED")
    world.run(1, store=False)
    assert [f.seq for f in world.hub.handing.lacking(8)[0]] == [61, 62, *range(1, 7)]
    assert [f.seq for f in world.hub.handing.lacking(1)[0]] == [1]
    low, high = world.held(dock.key_of_stream)
    everything = [f.seq for f in world.hub.handing.lacking(1_000)[0]]
    assert sorted(everything) == [*range(low[0], low[1] + 1), *range(high[0], high[1] + 1)]
    world.settle()
    counts = world.counts(dock.key_of_stream)
    assert counts is not None and counts.facts == 68
