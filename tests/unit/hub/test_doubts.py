"""Heads that stand at a node beside all that the hub said of an order: history whose rows are gone, or facts that it lacks (rule 15)."""

from __future__ import annotations

from dataclasses import replace

from protocols.downlink import Compare, Doubt, Feed
from protocols.messages import Message
from protocols.streams import StreamKey
from protocols.sync.seal import Control, unseal
from tests.unit.hub.hub_world import FAST, Edge, World
from tests.unit.hub.test_downlink import heads, same
from tests.unit.hub.test_freeing import DAY_MS, SOON, after


class Said:
    """Every doubt that goes up, and every feed that answers one; so many of these are lost first."""

    lose = 0

    def __init__(self, world: World) -> None:
        self.up, self.down = list[Doubt](), list[Feed]()
        self._send, self._bend = world._send, world.bend
        world._send, world.bend = self._down, self._up  # type: ignore[method-assign]

    def _up(self, node: str, payload: bytes) -> list[bytes]:
        message = _read(payload)
        self.up += message.doubts if isinstance(message, Compare) else ()
        return self._bend(node, payload)

    def _down(self, effects: list) -> None:  # type: ignore[type-arg]
        for effect in effects:
            message = _read(effect.payload)
            if isinstance(message, Feed) and not message.tail and not message.done:
                self.down.append(message)
                if len(self.down) <= self.lose:
                    continue
            self._send([effect])


def _read(payload: bytes) -> Message | None:
    said = unseal(payload)
    return said.message() if isinstance(said, Control) else None


def parted_below_what_was_freed() -> tuple[World, Edge, Said]:
    """A dock says three things of an order, and another of its site hears the first one only, and is away since; the hub frees all of it,
    and then a clone of the dock shows that their branches parted below."""
    world = World(SOON, replace(FAST, floor_ms=3_650 * DAY_MS))
    dock, other = world.edge("dock-1"), world.edge("dock-2")
    dock.says("A0", "PLACED")
    world.run()
    image = dock.db.dump()
    dock.says("A1", "PLACED")
    world.run()
    other.cut()
    dock.says("A1", "PICKED")
    dock.says("A1", "PACKED")
    world.settle()
    world.begin_backup()
    assert after(world, 8) == 4
    clone = world.edge("dock-1", image=image, linked=False)
    clone.says("B1", "PLACED")
    said = Said(world)
    dock.cut()
    clone.link()
    world.settle()
    assert world.hub.ledger.log.forked_nodes
    return world, other, said


def test_what_the_hub_freed_of_a_branch_is_history_at_a_node_too() -> None:
    world, other, said = parted_below_what_was_freed()
    assert len(heads(other.core.ledger.book, "A1")) == 1
    other.link()
    world.settle()
    same(world, other, "A0", "A1", "B1")
    assert [(doubt.order_id, len(doubt.heads)) for doubt in said.up] == [("A1", 1)]
    assert all(not feed.places for feed in said.down), "no row goes down with it"


def test_it_is_asked_once_more_when_the_answer_is_lost() -> None:
    world, other, said = parted_below_what_was_freed()
    said.lose = 1
    other.link()
    world.settle()
    same(world, other, "A1")
    assert (len(said.up), len(said.down)) == (2, 2)


def test_where_no_stream_has_branches_nothing_is_asked() -> None:
    """The hub came back older than it was: a fact that it lacks stays, and comes to it by other ways."""
    world = World()
    dock, other = world.edge("dock-1"), world.edge("dock-2")
    world.says("A1", "PLACED")
    world.run()
    older = world.db.dump()
    dock.says("A1", "PICKED")
    world.run(store=False)
    same(world, other, "A1")
    before = heads(other.core.ledger.book, "A1")
    dock.cut()
    said = Said(world)
    world.restart(older)
    world.says("A1", "CANCELLED")
    world.run(100, 20_000, store=False)
    assert set(before) < set(heads(other.core.ledger.book, "A1"))
    assert said.up == []


def asked(world: World, edge: Edge, order_id: str, *facts: tuple[StreamKey, int, bytes]) -> list[tuple[str, int]]:
    """What the hub says when a node names facts of an order: (order, how many of them are history)."""
    said = Said(world)
    world.hub.feeds.compare(
        next(node for node in world.hub.registry.all() if node.address.node == edge.address.node),
        Compare(world.hub.feeds.epoch, (), (), 7, (Doubt("acme", order_id, tuple((*key, seq, h) for key, seq, h in facts)),)),
    )
    world._send(world.hub.effects(world.hub_ms))
    return [(order.order_id, len(order.history)) for feed in said.down for order in feed.orders]


def test_only_what_that_order_took_in_is_history_and_only_of_the_nodes_own_scope() -> None:
    world = World()
    dock, oslo = world.edge("dock-1"), world.edge("dock-2", site="Oslo")
    placed, picked = (dock.says("A1", status)[0] for status in ("PLACED", "PICKED"))
    (other,) = dock.says("A2", "PLACED")
    world.run()
    facts = [(one.stream, one.seq, one.h) for one in (placed, picked, other)]
    strange = (StreamKey("dock-9", 5, 0), 1, bytes(8))
    streams = len(world.hub.ledger.log.all())
    assert asked(world, dock, "A1", *facts, strange, (placed.stream, placed.seq, bytes(8))) == [("A1", 1)]
    assert asked(world, dock, "A3", *facts) == []
    assert asked(world, oslo, "A1", *facts) == []
    assert len(world.hub.ledger.log.all()) == streams, "nothing is made known by a question"
