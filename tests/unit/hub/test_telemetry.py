"""Telemetry on its way: to the hub's ledger and the central store, settled and counted like any fact, folded into no order."""

from __future__ import annotations

from hub.fleet import fleet_rows
from hub.store.sqlite import SqliteStore
from protocols.chains import RunKind
from protocols.eviction import evict
from protocols.ledger import TELEMETRY
from protocols.messages import Record
from protocols.sqlite import Db
from protocols.streams import StreamKey
from protocols.sync.seal import Control, unseal
from tests.unit.hub.hub_world import Edge, World


def test_telemetry_is_settled_and_counted_and_folded_into_nothing() -> None:
    world = World()
    dock = world.edge("dock-7")
    dock.says("A1", "PLACED")
    dock.reports("scanner-1", "scanner-2", "scanner-1")
    world.settle()
    stream = dock.core.ledger.own(TELEMETRY)
    assert (stream.head[0], stream.settled_seq) == (3, 3)
    counts = world.counts(stream.key)
    assert counts is not None
    assert (counts.facts, counts.quarantined) == (3, 0)
    row = world.row("dock-7")
    assert (row["captured"], row["settled"], row["queued"], row["quarantined"], row["balanced"]) == (4, 4, 0, 0, True)
    assert [o.order_id for o in world.store.find("A1")] == ["A1"]
    assert world.store.totals()["orders"] == 1


def test_the_hub_knows_the_latest_of_each_device() -> None:
    world = World()
    dock, gate = world.edge("dock-7"), world.edge("gate-1")
    dock.reports("scanner-1", "scanner-2", note="old")
    dock.reports("scanner-1", note="new")
    gate.reports("scanner-1")
    world.settle()
    found = {(one.node, one.reading.device): one.reading.values["note"] for one in world.hub.ledger.devices.page("", 10)}
    assert found == {("dock-7", "scanner-1"): "new", ("dock-7", "scanner-2"): "old", ("gate-1", "scanner-1"): "x"}
    rows = {r.node: r for r in fleet_rows(world.hub, {}, world.now_ms, lambda _: None, 30_000)}
    assert (rows["dock-7"].devices, rows["gate-1"].devices) == (2, 1)
    assert rows["dock-7"].telemetry_ms is not None


def test_the_store_is_given_facts_of_orders_before_telemetry() -> None:
    world = World()
    dock = world.edge("dock-7")
    dock.reports(*(f"d{n}" for n in range(20)))
    dock.says("A1", "PLACED", "SHIPPED")
    world.hub.begin()
    world.hub.take_statement(world.store.statement(None), whole=True)
    world.hub.commit()
    world.run(4, store=False)
    facts, _ = world.hub.lacking_in_store(10)
    assert [f.stream.cls for f in facts][:2] == [0, 0]
    assert StreamKey(*facts[2].stream).cls == TELEMETRY


def test_a_new_epoch_has_a_telemetry_stream_of_its_own() -> None:
    world = World()
    dock = world.edge("dock-7")
    dock.reports("scanner-1")
    dock.core.begin()
    dock.core.ledger.start_new_epoch(world.now_ms)
    dock.core.commit()
    dock.reports("scanner-1", note="after")
    world.settle()
    assert [s.settled_seq for s in dock.core.ledger.own_streams() if s.key.cls == TELEMETRY] == [1, 1]
    assert world.row("dock-7")["balanced"]


def lets_go(edge: Edge, first: int, last: int, reason: str = "oldest") -> int:
    """Evict a range of the edge's telemetry."""
    edge.core.begin()
    facts = evict(edge.core.ledger, edge.core.ledger.own(TELEMETRY), first, last, reason).facts
    edge.core.uplink.on_evicted()
    edge.core.commit()
    return facts


def test_the_balance_closes_with_what_was_evicted_and_says_why() -> None:
    world = World()
    dock = world.edge("dock-7", linked=False)
    dock.says("A1", "PLACED", "SHIPPED")
    dock.reports(*(f"d{n}" for n in range(20)))
    assert lets_go(dock, 3, 9) == 7
    dock.link()
    world.settle()
    row = world.row("dock-7")
    assert (row["captured"], row["settled"], row["queued"], row["evicted"]) == (22, 15, 0, {"evicted": 7})
    assert row["balanced"]
    stream = dock.core.ledger.own(TELEMETRY)
    assert stream.settled_seq == 20, "a record settles its place"
    (record,) = world.store.records(stream.key)
    opened = unseal(record.signed)
    assert isinstance(opened, Control)
    said = opened.message()
    assert isinstance(said, Record)
    assert (said.first, said.last, said.kind, said.reason) == (3, 9, RunKind.EVICTED, "7 oldest")


def test_what_the_store_had_already_stays_settled_and_is_counted_once() -> None:
    world = World()
    dock = world.edge("dock-7")
    dock.reports(*(f"d{n}" for n in range(20)))
    world.settle()
    assert lets_go(dock, 1, 15, "settled") == 15
    dock.reports("d1")
    world.settle()
    row = world.row("dock-7")
    assert (row["captured"], row["settled"], row["evicted"], row["balanced"]) == (21, 21, {}, True)


def test_a_store_that_went_back_below_what_was_evicted_is_told_by_a_record() -> None:
    """The hub still has the data and hands it over; where the hub lost it too, the author's record closes the place."""
    world = World()
    dock = world.edge("dock-7")
    hub_before, store_before = world.db.dump(), SqliteStore(Db(":memory:"))
    dock.reports(*(f"d{n}" for n in range(20)))
    world.settle()
    lets_go(dock, 5, 10, "settled")
    world.store = store_before
    world.restart(hub_before)
    world.settle()
    row = world.row("dock-7")
    assert (row["captured"], row["settled"], row["evicted"], row["balanced"]) == (20, 14, {"evicted": 6}, True)
