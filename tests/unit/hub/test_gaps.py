"""The gap ledger and the alarm of the balance: what is missing has a name, a beginning, a count of askings, and an end with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from hub.alarms import imbalances, unaccounted
from hub.fleet import look
from hub.store.sqlite import SqliteStore
from protocols.chains import RunKind
from protocols.messages import Record
from protocols.sqlite import Db
from protocols.sync.seal import Control, seal, unseal
from protocols.sync.uplink import Out
from protocols.topics import Channel
from tests.unit.hub.hub_world import Edge, World, order_event


def seen(world: World) -> dict[str, Any]:
    return world.hub.gaps.seen(world.hub.registry.beats(), world.now_ms)


def spans(rows: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    return [(row["node"], row["first"], row["last"]) for row in rows]


def losing(world: World, dock: Edge, *seqs: int) -> None:
    """Frames that begin with one of these facts are lost on the way."""

    def bend(_node: str, payload: bytes) -> list[bytes]:
        opened = unseal(payload)
        return [] if not isinstance(opened, Control) and opened[1].first in seqs else [payload]

    world.bend = bend


def test_a_hole_is_known_asked_for_and_closed_with_the_data() -> None:
    world = World()
    dock = world.edge("dock-7")
    dock.says("A0", *["PLACED"] * 4)
    world.run(3)
    losing(world, dock, 5)
    for n in range(1, 4):
        dock.says(f"A{n}", *["PLACED"] * 8)
    began_ms = world.now_ms
    world.run(3, 100)
    (hole,) = seen(world)["open"]
    assert (hole["node"], hole["first"], hole["last"], hole["facts"]) == ("dock-7", 5, 12, 8)
    assert began_ms < hole["sinceMs"] <= world.now_ms
    assert hole["asked"] >= 1
    assert len(bytes.fromhex(hole["branch"])) == 8
    world.bend = lambda _node, payload: [payload]
    world.settle()
    after = seen(world)
    assert (after["open"], after["beyond"], after["holes"], after["facts"]) == ([], [], 0, 0)
    (closed,) = after["closed"]
    assert (closed["first"], closed["last"], closed["how"]) == (5, 12, "data")
    assert closed["sinceMs"] == hole["sinceMs"] < closed["closedMs"]


def test_it_is_remembered_over_a_restart_and_asked_for_again() -> None:
    world = World()
    dock = world.edge("dock-7")
    losing(world, dock, 1)
    dock.says("A1", *["PLACED"] * 24)
    world.run(3, 100)
    before = seen(world)["open"][0]
    world.run(2, 100)  # written with the next commit
    world.restart()
    assert spans(seen(world)["open"]) == [("dock-7", 1, 8)]
    assert seen(world)["open"][0]["sinceMs"] == before["sinceMs"]
    world.run(6, 1_000)
    assert seen(world)["open"][0]["asked"] > before["asked"]


def test_what_fills_a_hole_in_part_is_closed_and_the_rest_goes_on_since_then() -> None:
    world = World()
    dock = world.edge("dock-7")
    losing(world, dock, 1, 9)
    dock.says("A1", *["PLACED"] * 32)
    world.run(3, 100)
    (hole,) = seen(world)["open"]
    assert spans(seen(world)["open"]) == [("dock-7", 1, 16)]
    losing(world, dock, 1)
    world.run(8)
    assert spans(seen(world)["open"]) == [("dock-7", 1, 8)]
    assert seen(world)["open"][0]["sinceMs"] == hole["sinceMs"]
    assert [(r["first"], r["last"], r["how"]) for r in seen(world)["closed"]] == [(9, 16, "data")]


def test_a_signed_record_closes_it_with_its_reason() -> None:
    world = World()
    dock = world.edge("dock-7")
    losing(world, dock, 1)
    dock.says("A1", *["PLACED"] * 16)
    world.run(3, 100)
    stream = dock.core.ledger.own()
    h = dock.core.ledger.log.hash_at(stream, 8) or b""
    record = Record(stream.key.epoch, 0, 1, b"", 8, h, RunKind.EVICTED, world.now_ms)
    world.deliver("dock-7", seal(Out(Channel.CONTROL, Record.KIND, [], record.to_list()), "dock-7", "hub", dock.key.sign))
    assert seen(world)["open"] == []
    assert [(r["first"], r["last"], r["how"]) for r in seen(world)["closed"] or _pending(world)] == [(1, 8, "a record: evicted")]


def _pending(world: World) -> list[dict[str, Any]]:
    """Closings that the next commit writes."""
    world.hub.begin()
    world.hub.commit()
    closed: list[dict[str, Any]] = seen(world)["closed"]
    return closed


def test_what_a_heartbeat_names_beyond_all_that_is_here() -> None:
    world = World()
    dock = world.edge("dock-7")
    world.run(2)
    world.bend = lambda _node, payload: [payload] if isinstance(unseal(payload), Control) else []  # no frame arrives
    dock.says("A1", "PLACED", "APPROVED", "PICKED")
    world.run(8)
    (gap,) = seen(world)["beyond"]
    assert (gap["node"], gap["first"], gap["last"]) == ("dock-7", 1, 3)
    assert gap["asked"] >= 1, "the heartbeat was answered by a pull"
    since_ms = gap["sinceMs"]
    world.run(8)
    assert seen(world)["beyond"][0]["sinceMs"] == since_ms
    world.bend = lambda _node, payload: [payload]
    world.settle()
    assert seen(world)["beyond"] == []


def test_the_history_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.gaps.CLOSED_KEPT", 3)
    world = World()
    dock = world.edge("dock-7")
    for n in range(6):
        losing(world, dock, 8 * n * 2 + 1)
        dock.says(f"A{n}", *["PLACED"] * 16)
        world.run(3, 100)
        world.bend = lambda _node, payload: [payload]
        world.settle()
    assert len(seen(world)["closed"]) == 3


# ------------------------------------------------------------ the balance


def sheet(world: World) -> Any:
    return look(world.hub, world.store, world.now_ms, lambda _: None, 30_000)


def test_an_imbalance_is_an_alarm_that_names_node_epoch_and_numbers() -> None:
    world = World()
    dock = world.edge("dock-7")
    dock.says("A1", *["PLACED"] * 10)
    world.hub.begin()
    world.hub.take_events([order_event("C1", "PLACED")], world.now_ms)
    world.hub.commit()
    world.settle()
    assert sheet(world).findings == []
    epoch = dock.core.ledger.own().key.epoch
    world.store._db.run("DELETE FROM log WHERE seq IN (3, 4, 5) AND sid=(SELECT sid FROM streams WHERE node='dock-7')")
    found = sheet(world)
    assert found.findings == [
        f"balance: node dock-7 epoch {epoch:x} 3 facts unaccounted: captured 10, settled 7, queued 0, in custody 0, quarantined 0"
    ]
    assert found.balance["alarms"] == found.findings
    assert unaccounted(found.balance) == 3
    world.store = SqliteStore(Db.load(world.store._db.dump()))
    world._take_back()
    world.settle()
    assert sheet(world).findings == [], "the store said less, and was given it again"


def test_the_worst_come_first_and_the_rest_are_counted() -> None:
    def row(node: str, captured: int, settled: int, balanced: bool | None = False) -> dict[str, Any]:
        parts = {"queued": 0, "inCustody": 0, "quarantined": 0, "evicted": {"evicted": 1}}
        return {"node": node, "captured": captured, "settled": settled, "balanced": balanced, **parts}

    nodes = [row(f"n{n}", 10 + n, 9) for n in range(1, 8)] + [row("ok", 10, 9, True), row("new", 99, 0, None)]
    balance: Any = {"asOfMs": 0, "fleet": row("", 0, 0), "nodes": nodes}
    said = imbalances(balance, {})
    assert said[0].startswith("balance: node n7 7 facts unaccounted: captured 17, settled 9")
    assert said[0].endswith("evicted 1")
    assert said[-1] == "balance: 2 more nodes do not close"
    assert len(said) == 6
    balance["nodes"] = [row("x", 5, 6)]
    (more,) = imbalances(balance, {})
    assert more.startswith("balance: node x 2 facts more than were captured: captured 5, settled 6, queued 0")
