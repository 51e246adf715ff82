"""The budget of an edge: telemetry makes room, facts of orders never do, and when nothing is left the caller is told."""

from __future__ import annotations

from typing import Any

import pytest

from edge_agent.budget import MOST_RUNS
from protocols.chains import RunKind
from protocols.devices import read_row
from protocols.errors import OverBudget
from protocols.event import TimeQuality
from protocols.eviction import evicted_by_reason
from protocols.ledger import TELEMETRY
from protocols.messages import RunStated, StreamStated
from protocols.streams import Stream
from protocols.telemetry import Reading
from tests.unit.edge_agent.core_edge import Edge, ranges
from tests.unit.protocols.ledgers import NOW_MS, event

NOTE = "x" * 200
ROOMY: dict[str, Any] = {"budget_bytes": 4_000_000, "telemetry_bytes": 100_000, "reserve_bytes": 100_000}


def tell(edge: Edge, *devices: str) -> None:
    """A reading of each device, in one transaction."""
    edge.core.begin()
    try:
        edge.core.take_telemetry([Reading(d, "health", NOW_MS, TimeQuality.STATED, {"note": NOTE}) for d in devices], edge.now)
    finally:
        edge.core.commit()  # what was refused changed nothing, and the loop goes on


def say(edge: Edge) -> None:
    """Ten facts of orders, in one transaction."""
    edge.core.begin()
    try:
        edge.core.take_events([event(f"order-{n}") for n in range(10)], edge.now)
    finally:
        edge.core.commit()


def turn(edge: Edge) -> None:
    """A transaction in which nothing comes."""
    edge.core.begin()
    edge.core.commit()


def telemetry(edge: Edge) -> Stream:
    return edge.core.ledger.own(TELEMETRY)


def here(edge: Edge) -> dict[str, int]:
    """How many facts of each device are in the log."""
    found: dict[str, int] = {}
    for (row,) in edge.db.query("SELECT row FROM log WHERE sid=?", (telemetry(edge).sid,)):
        said = read_row(row)
        assert said is not None
        found[said.device] = found.get(said.device, 0) + 1
    return found


def evicted(edge: Edge) -> dict[str, int]:
    return {why: n for why, n in evicted_by_reason(edge.core.ledger).items() if n}


def balance_closes(edge: Edge) -> bool:
    """Every number of the stream is either in the log, or in a run of evicted facts, or freed."""
    stream = telemetry(edge)
    rows = edge.db.query("SELECT count(*) FROM log WHERE sid=?", (stream.sid,))[0][0]
    gone = sum(r.last - r.first + 1 for r in stream.chain.runs if r.kind is RunKind.EVICTED)
    return bool(stream.head[0] == rows + gone == rows + sum(evicted_by_reason(edge.core.ledger).values()))


def test_telemetry_stays_within_its_share_and_superseded_readings_go_first() -> None:
    edge = Edge(**ROOMY)
    edge.say(20)
    tell(edge, "rare-0", "rare-1")
    for _ in range(200):
        tell(edge, *(f"busy-{n}" for n in range(5)))
    turn(edge)
    assert edge.core.budget.telemetry_used <= 100_000
    assert set(evicted(edge)) == {"superseded"}
    assert {"rare-0", "rare-1"} <= set(here(edge)), "the latest of each device is here"
    assert edge.rows() - sum(here(edge).values()) == 20, "no fact of an order went"
    assert balance_closes(edge)
    assert edge.status()["disk"]["evicted"]["superseded"] == evicted(edge)["superseded"]


def test_then_the_oldest_go() -> None:
    edge = Edge(**ROOMY)
    for n in range(1_000):
        tell(edge, f"d{n:05}")
    turn(edge)
    assert set(evicted(edge)) == {"oldest"}
    assert edge.core.budget.telemetry_used <= 100_000
    left = sorted(here(edge))
    assert left == [f"d{n:05}" for n in range(1_000 - len(left), 1_000)]
    assert balance_closes(edge)


def test_what_the_store_has_goes_before_anything_else() -> None:
    edge = Edge(**ROOMY)
    tell(edge, *(f"d{n:05}" for n in range(100)))
    stream = telemetry(edge)
    h = edge.core.ledger.log.hash_at(stream, 100)
    assert h is not None
    point = ((100, h),)
    edge.greet(StreamStated(*stream.key, (RunStated(1, stream.chain.genesis, 100, h),), point, point))
    edge.core.begin()
    edge.core.take_down()
    edge.core.commit()
    for _ in range(60):
        tell(edge, *(f"busy-{n}" for n in range(5)))
    assert set(evicted(edge)) == {"settled"}
    assert balance_closes(edge)


def test_what_is_under_way_stays() -> None:
    edge = Edge(**ROOMY)
    tell(edge, *(f"d{n:05}" for n in range(10)))
    effects = edge.greet()
    assert [(a, b) for _, a, b in ranges(effects)] == [(1, 10)]
    for _ in range(60):
        tell(edge, *(f"busy-{n}" for n in range(10)))
    assert evicted(edge)
    assert edge.db.query("SELECT count(*) FROM log WHERE sid=? AND seq<=10", (telemetry(edge).sid,)) == [(10,)]


def test_a_stream_is_not_cut_into_more_pieces_than_a_hub_states() -> None:
    """Every tenth fact is the only one of its device: what lies between goes, and in the end the single ones too, the oldest first."""
    edge = Edge(**ROOMY)
    for n in range(300):
        tell(edge, f"one-{n}", *["busy"] * 9)
    turn(edge)
    assert len(telemetry(edge).chain.runs) <= MOST_RUNS
    assert balance_closes(edge)
    assert "one-299" in here(edge)


def test_the_reserve_is_for_facts_of_orders_and_they_take_all_of_it() -> None:
    edge = Edge(budget_bytes=400_000, telemetry_bytes=150_000, reserve_bytes=100_000)
    tell(edge, *(f"d{n:05}" for n in range(400)))
    told: dict[str, Any] = {}
    for n in range(500):
        try:
            say(edge)
        except OverBudget as error:
            told["orders"] = (n, error.reason)
            break
        if "telemetry" not in told:
            try:
                tell(edge, "late")
            except OverBudget as error:
                told["telemetry"] = (n, error.reason)
    assert told["telemetry"][0] < told["orders"][0], "telemetry is turned away first"
    assert "kept for facts of orders" in told["telemetry"][1]
    assert "reserve" in told["orders"][1]
    assert sum(here(edge).values()) == 1, "all telemetry but the newest went before a fact of an order was refused"
    assert edge.core.full
    assert edge.status()["disk"]["full"]
    assert edge.core.ledger.own(0).head[0] == edge.db.query("SELECT count(*) FROM log WHERE sid=?", (edge.stream().sid,))[0][0]
    assert balance_closes(edge)


def test_it_recovers_by_itself_when_there_is_room() -> None:
    edge = Edge(budget_bytes=300_000, floor_ms=0)
    while not edge.core.full:
        say(edge)
        edge.core.check_budget()
    with pytest.raises(OverBudget):
        say(edge)
    head = edge.stream().head[0]
    edge.greet()
    edge.hear(edge.receipt(received=head, settled=head, freeable=head))
    edge.say(10)
    tell(edge, "d1")
    assert not edge.core.full


def test_places_outlive_a_restart() -> None:
    edge = Edge(**ROOMY)
    for _ in range(200):
        tell(edge, *(f"busy-{n}" for n in range(5)))
    before = evicted(edge)
    again = Edge(edge.db, **ROOMY)
    assert evicted(again) == before
    turn(again)
    assert balance_closes(again)
    edge.core.check_budget()
    assert again.core.budget.telemetry_used == edge.core.budget.telemetry_used


def test_a_flood_of_any_size_evicts_in_turns_that_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.budget.TURN_ROWS", 50)
    edge = Edge(**ROOMY)
    for _ in range(20):
        tell(edge, *["busy"] * 40)
    before = sum(evicted(edge).values())
    turn(edge)
    assert 0 < sum(evicted(edge).values()) - before <= 50
