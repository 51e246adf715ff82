"""Turns, as nodes hear of them: at once when they come, again when a word was lost, and nobody is asked for what it is to keep back."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub import inputs
from hub.core import HubCore, HubSettings, Publish
from hub.credit import Credit
from hub.turns import FRESH_MS
from protocols.codec import Kind
from protocols.sync.receiver import Granted
from tests.unit.hub.hub_world import FAST, Edge, World
from tests.unit.hub.test_engine import Doors, in_loop, running, until

FACTS = 60


def herd(count: int = 5) -> tuple[World, list[Edge]]:
    """Nodes that come back with a backlog, of which two send it at once."""
    world = World(HubSettings(credit_facts=20, room_facts=40))
    docks = [world.edge(f"dock-{n}") for n in range(count)]
    for dock in docks:
        for n in range(FACTS):
            dock.says(f"{dock.address.node}-{n}", "PLACED")
    return world, docks


def test_the_next_is_told_as_soon_as_one_is_done() -> None:
    world, docks = herd()
    world.run(FRESH_MS // 100, 100)
    assert [dock.core.ledger.own().settled_seq for dock in docks] == [FACTS] * 5, (
        "sooner than a heartbeat, or than anybody counts as silent"
    )


def test_who_waits_is_not_asked_for_what_its_heartbeat_names(monkeypatch: pytest.MonkeyPatch) -> None:
    world, docks = herd()
    pulled: list[str] = []
    monkeypatch.setattr(world.hub.gaps, "pulled", lambda node, pull, now_ms: pulled.append(node))
    for dock in docks[:2]:
        world.run(1, 100)
        dock.cut()
    world.run(1, 100)
    assert [world.hub.credit.turns.waits(dock.address.node) for dock in docks] == [False, False, True, True, True]
    assert not {dock.address.node for dock in docks[2:]} & set(pulled)


def test_a_heartbeat_asks_for_a_turn() -> None:
    world, docks = herd(3)
    world.run(1, 100)
    assert docks[2].core.uplink.later
    world.hub.credit.turns.gone("dock-2")  # its turn came and went: the word was lost
    for dock in docks[:2]:
        dock.cut()
    world.bend = lambda node, payload: [payload] if payload[3] == Kind.HEARTBEAT else []
    world.run(1, FAST.heartbeat_ms)
    assert world.hub.credit.turns.has("dock-2")
    assert not docks[2].core.uplink.later


def test_while_those_with_a_turn_are_silent_the_next_are_told_though_nobody_says_anything() -> None:
    world, docks = herd()
    world.bend = lambda node, payload: [payload] if payload[3] == Kind.HELLO else []
    world.run(1, 100)
    world.bend = lambda node, payload: []
    assert world.hub.credit.turns.waiting == 3
    world.run(FRESH_MS // 100 + 1, 100, store=False)
    assert world.hub.credit.turns.waiting == 1
    assert [dock.core.uplink.later for dock in docks] == [False, False, False, False, True]


def test_a_turn_is_worth_more_than_a_share_among_a_thousand_who_say_little() -> None:
    credit = Credit(10_000)
    for n in range(1_000):
        credit.busy(f"n{n}", 0)
    credit.turns.lacks("back", 50_000)
    assert list(credit.turns.given(0, lambda node: True)) == ["back"]
    assert (credit.of("n1"), credit.of("back")) == (Granted(200), Granted(10_000))


def test_a_hub_without_room_gives_nothing_to_who_has_its_turn_either() -> None:
    credit = Credit(10_000)
    credit.turns.lacks("back", 50_000)
    list(credit.turns.given(0, lambda node: True))
    credit.full = True
    assert credit.of("back") == credit.of("other") == Granted(0)


def test_whose_turn_it_is_depends_on_how_much_still_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = HubCore.effects

    def effects(core: HubCore, now_ms: int) -> list[Publish]:
        seen.append(core.credit.turns.waiting_bytes)
        return real(core, now_ms)

    monkeypatch.setattr(HubCore, "effects", effects)
    monkeypatch.setattr(inputs, "TURN_BYTES", 1)

    async def story() -> None:
        async with running(Doors(tmp_path)) as engine:
            seen.clear()
            for _ in range(3):
                engine.came("dock-7", bytes(10))
            await until(lambda: seen[-1:] == [0], "all of it was taken")
            assert max(seen) == 20

    in_loop(story)
