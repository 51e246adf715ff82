"""Two machines under one name: each is sent what the other says (`hub.twins`)."""

from __future__ import annotations

from hub.twins import Twins
from tests.unit.hub.hub_world import Edge, World
from tests.unit.hub.test_downlink import same


def cloned() -> tuple[World, Edge, Edge]:
    """A node and its clone, which is not linked yet, and will be found to be behind."""
    world = World()
    dock = world.edge("dock-1")
    dock.says("A1", "PLACED")
    world.run()
    clone = world.edge("dock-1", image=dock.db.dump(), linked=False)
    dock.says("A1", "PICKED")
    world.run()
    return world, dock, clone


def twins() -> tuple[World, Edge, Edge]:
    """Both linked; the clone goes on in an epoch of its own, and no stream has branches."""
    world, dock, clone = cloned()
    clone.link()
    world.settle()
    clone.says("A2", "PLACED")
    world.settle()
    assert not world.hub.ledger.log.forked_nodes
    return world, dock, clone


def test_twins_that_live_under_one_name_are_each_sent_what_the_other_says() -> None:
    world, dock, clone = twins()
    assert clone.core.ledger.own().key.epoch != dock.core.ledger.own().key.epoch
    clone.says("B1", "PLACED")
    world.run(30)
    dock.says("B2", "PLACED")
    world.run(30)
    for edge in (dock, clone):
        same(world, edge, "A1", "A2", "B1", "B2")
    clone.says("B3", "PLACED")  # from now on without another comparison
    dock.says("B4", "PLACED")
    passes = [edge.core.follower.passes_total for edge in (dock, clone)]
    world.run(30)
    for edge in (dock, clone):
        same(world, edge, "B3", "B4")
    assert passes == [edge.core.follower.passes_total for edge in (dock, clone)]


def test_after_a_restart_twins_are_known_by_what_was_logged() -> None:
    world, dock, clone = twins()
    dock.says("B1", "PLACED")
    world.run(30)
    assert "dock-1" in Twins(world.hub.ledger)
    world.restart()
    world.run(30)
    clone.says("B2", "PLACED")
    world.run(30)
    for edge in (dock, clone):
        same(world, edge, "A1", "A2", "B1", "B2")


def test_who_only_went_on_in_another_epoch_has_no_twin() -> None:
    world = World()
    dock = world.edge("dock-1")
    dock.says("A1", "PLACED", "PICKED")
    world.run()
    older = dock.db.dump()
    dock.says("A1", "PACKED")
    world.run()
    dock.cut()
    restored = world.edge("dock-1", image=older)
    world.settle()
    restored.says("A2", "PLACED")
    world.settle()
    assert len(world.hub.ledger.log.of_node("dock-1")) == 2
    assert "dock-1" not in Twins(world.hub.ledger)


def test_a_clone_that_has_said_nothing_of_an_order_is_sent_what_the_other_says() -> None:
    world, dock, clone = cloned()
    clone.link()
    world.settle()
    begun = clone.core.ledger.own()
    assert begun.key.epoch != dock.core.ledger.own().key.epoch and begun.head[0], "its first fact is of no order"
    dock.says("A2", "PLACED")
    world.run(30)
    same(world, clone, "A1", "A2")


def test_when_a_stream_begins_beside_another_followers_compare_once_more() -> None:
    world, _, clone = cloned()
    known = Twins(world.hub.ledger)
    clone.link()
    world.settle()
    first, second = (stream.sid for stream in world.hub.ledger.log.of_node("dock-1"))
    assert not known.meet(first), "a node's first stream has nothing beside it"
    assert known.meet(second)
    assert "dock-1" not in known, "nobody knows yet whether both live"
    assert not known.meet(second)
    assert known.meet(first) and "dock-1" in known, "they do"
