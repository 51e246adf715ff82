"""Who says little is told once of its fact, that it is here and stored; whoever says more, or anything out of the ordinary, at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.core import HubCore, HubSettings, Publish
from hub.holding import HOLD_MS, QUIET_MS, Holding
from protocols.messages import Receipt
from protocols.streams import StreamKey
from protocols.sync.seal import Control, unseal
from protocols.trust import NodeKey
from tests.unit.hub.hub_world import Edge, World, make_card
from tests.unit.hub.test_engine import Doors, in_loop, running, until

NODE = "dock-7"


@pytest.fixture
def holding() -> Holding:
    return Holding(HOLD_MS)


def test_a_first_word_waits_and_one_that_follows_does_not(holding: Holding) -> None:
    holding.came(NODE, 1_000, plain=True)
    assert holding.waits(NODE, 1_000)
    assert holding.due_ms() == 1_000 + HOLD_MS
    holding.came(NODE, 1_000 + QUIET_MS - 1, plain=True)
    assert not holding.waits(NODE, 1_000 + QUIET_MS - 1)
    holding.came(NODE, 1_000 + 2 * QUIET_MS, plain=True)
    assert holding.waits(NODE, 1_000 + 2 * QUIET_MS)


def test_it_waits_no_longer_than_it_may_also_where_the_clock_is_set_back(holding: Holding) -> None:
    holding.came(NODE, 10_000, plain=True)
    assert [holding.waits(NODE, at) for at in (10_000 + HOLD_MS - 1, 10_000 + HOLD_MS, 9_000)] == [True, False, False]
    assert [holding.is_due(at) for at in (10_000 + HOLD_MS - 1, 10_000 + HOLD_MS, 9_000)] == [False, True, True]
    holding.said(10_000 + HOLD_MS)
    assert holding.due_ms() is None
    holding.came(NODE, 5_000, plain=True)
    assert holding.waits(NODE, 5_000)


def test_nothing_waits_where_none_may() -> None:
    holding = Holding(0)
    holding.came(NODE, 1_000, plain=True)
    assert not holding.waits(NODE, 1_000)


# ---------------------------------------------------------------- in the core


class Heard(World):
    """Keeps the receipts that went down."""

    def __init__(self) -> None:
        self.receipts: list[Receipt] = []
        super().__init__(HubSettings(hold_ms=HOLD_MS))

    def _send(self, effects: list[Publish]) -> None:
        messages = [said.message() for said in (unseal(effect.payload) for effect in effects) if isinstance(said, Control)]
        self.receipts += [message for message in messages if isinstance(message, Receipt)]
        super()._send(effects)

    def told(self) -> list[tuple[bool, bool]]:
        """Of each receipt since the last call: does it say that something is here, and that something is settled?"""
        told = [(any(s.runs for s in r.streams), any(s.settled for s in r.streams)) for r in self.receipts]
        self.receipts.clear()
        return told


@pytest.fixture
def world() -> Heard:
    world = Heard()
    world.edge(NODE)
    world.edge("other")
    world.settle()
    world.told()
    return world


def sent(world: Heard, edge: Edge, *statuses: str, order: str = "A1") -> list[bytes]:
    """An edge says it, and the hub takes it."""
    edge.says(order, *statuses)
    world.now_ms += 1
    frames = edge.speaks()
    for frame in frames:
        world.deliver(NODE, frame)
    return frames


def test_a_lone_fact_is_told_once_with_the_stores_word(world: Heard) -> None:
    sent(world, world.edges[0], "PLACED")
    assert world.told() == []
    world.store_turn()
    assert world.told() == [(True, True)]
    assert world.edges[0].core.ledger.own().settled_seq == 1


def test_without_the_stores_word_it_is_told_in_its_time(world: Heard) -> None:
    sent(world, world.edges[0], "PLACED")
    world.now_ms += HOLD_MS - 1
    world._send(world.hub.effects(world.hub_ms))
    assert world.told() == []
    world.now_ms += 1
    assert world.hub.holding.is_due(world.hub_ms)
    world._send(world.hub.effects(world.hub_ms))
    assert world.told() == [(True, False)]
    assert world.hub.holding.due_ms() is None


def test_the_stores_word_about_others_tells_nobody_else(world: Heard) -> None:
    sent(world, world.edges[0], "PLACED")
    world.edges[1].says("B1", "PLACED")
    world.now_ms += 1
    for frame in world.edges[1].speaks():
        world.deliver("other", frame)
    facts, _ = world.hub.lacking_in_store()
    theirs = [f for f in facts if f.stream.node == "other"]
    world.store.apply(theirs, [], world.hub_ms)
    world._state([theirs[0].stream])
    assert [r.streams[0].node for r in world.receipts] == ["other"]


def test_who_goes_on_is_told_at_once(world: Heard) -> None:
    edge = world.edges[0]
    sent(world, edge, "PLACED")
    sent(world, edge, "APPROVED")
    assert world.told() == [(True, False)]


def test_a_copy_is_answered_at_once(world: Heard) -> None:
    (frame,) = sent(world, world.edges[0], "PLACED")
    world.store_turn()
    world.told()
    world.now_ms += 2 * QUIET_MS
    world.deliver(NODE, frame)
    assert world.told() == [(True, True)]


def test_a_hole_is_asked_for_at_once(world: Heard) -> None:
    edge = world.edges[0]
    world.bend = lambda _, __: []
    edge.says("A1", "PLACED")
    world.now_ms += 1
    edge.speaks()
    sent(world, edge, "APPROVED")
    assert [stream.wants != () for receipt in world.receipts for stream in receipt.streams] == [True]


def test_many_facts_are_told_at_once(world: Heard) -> None:
    edge = world.edges[0]
    sent(world, edge, *["PICKED"] * 21)
    assert world.told()[0] == (True, False)


def test_before_the_store_has_spoken_nothing_waits(world: Heard) -> None:
    world.restart()
    edge = world.edges[0]
    edge.cut()
    edge.link()
    world.run(3, 10, store=False)
    world.told()
    sent(world, edge, "PLACED")
    assert world.told() == [(True, False)]


# ---------------------------------------------------------------- in the engine


class Holds(Doors):
    """Opens cores that let receipts wait."""

    def open_core(self) -> HubCore:
        core = super().open_core()
        core.holding = Holding(HOLD_MS)
        return core


def test_what_waits_is_told_though_nothing_else_happens(tmp_path: Path) -> None:
    doors = Holds(tmp_path)

    def comes(core: HubCore, now_ms: int) -> None:
        core.receiver.touch(StreamKey(NODE, 7, 0))
        core.holding.came(NODE, now_ms, plain=True)

    async def story() -> None:
        async with running(doors) as engine:
            await engine.admit(make_card(NodeKey(b"e" * 32), NODE))
            await until(lambda: engine.seen.balance["fleet"]["balanced"] is True, "the store has spoken")
            await engine.do(comes)
            assert doors.published == []
            await until(lambda: bool(doors.published), "the receipt goes out")

    in_loop(story)
