"""Restored hubs and stores, at once and again and again; and what backups have, the whole way to a node that frees.

Cores over databases in memory, without sockets; `test_backup_commands.py` does it with real processes.
"""

from __future__ import annotations

from edge_agent.core import EdgeSettings
from hub.store.sqlite import SqliteStore
from protocols.sqlite import Db
from protocols.sync.uplink import UplinkSettings
from tests.unit.hub import hub_world
from tests.unit.hub.hub_world import Edge, World, order_event

DAY_MS = 86_400_000


def patient(edge: Edge) -> None:
    """With the production floor of seven days."""
    settings = EdgeSettings(UplinkSettings(frame_facts=8, linger_ms=0, retry_ms=2_000), heartbeat_ms=5_000, floor_ms=7 * DAY_MS)
    edge.core.settings = settings


def freed(edge: Edge) -> int:
    return edge.core.ledger.own_streams()[0].freed_seq


def days(world: World, count: int) -> None:
    """Time goes on; once a day the line is cut, comes back, and both ends say what they have."""
    for _ in range(count):
        for edge in world.edges:
            edge.cut()
        world.now_ms += DAY_MS
        for edge in world.edges:
            edge.link()
        state(world)
        world.run(4)


def state(world: World) -> None:
    """The store is asked for all that it holds, as the loop does every minute."""
    world._take_back()


def center(world: World, order: str) -> None:
    """An event of the hub's own."""
    world.hub.begin()
    world.hub.take_events([order_event(order, "PLACED")], world.now_ms)
    world.hub.commit()
    world.run(2)


def restore_store(world: World, image: bytes) -> None:
    """The store's disk is replaced; the hub notices when it next asks."""
    remembered = world.store.backups()
    world.store = SqliteStore(Db.load(image))
    world.store.merge_backups(remembered)


def facts(world: World) -> int:
    return sum(count.facts for count in world.store.counts())


# ------------------------------------------------------------ freeing


def test_an_edge_frees_after_the_floor_what_every_restorable_backup_has_and_nothing_more() -> None:
    world = World()
    dock = world.edge("dock-7")
    patient(dock)
    dock.says("A1", "PLACED", "APPROVED", "PICKED")
    world.settle()
    days(world, 9)
    assert freed(dock) == 0, "no backup: nothing goes without pressure"
    world.store.begin_backup("b1", "test", "", world.now_ms)
    days(world, 9)
    assert freed(dock) == 0, "an unfinished backup is no cover"
    dock.says("A2", "PLACED")
    world.settle()
    world.store.complete_backup("b1", world.now_ms)
    days(world, 9)
    assert freed(dock) == 3, "what came after its begin is not in it"
    world.store.begin_backup("b2", "test", "", world.now_ms)
    world.store.complete_backup("b2", world.now_ms)
    days(world, 9)
    assert freed(dock) == 3, "the older one could still be restored"
    world.store.expire_backup("b1", world.now_ms)
    days(world, 9)
    assert freed(dock) == 4
    assert dock.core.ledger.db.query("SELECT count(*) FROM log") == [(0,)]


def test_what_was_freed_comes_back_with_the_oldest_backup_and_the_rest_from_the_edge() -> None:
    world = World()
    dock = world.edge("dock-7")
    patient(dock)
    dock.says("A1", "PLACED", "APPROVED")
    world.settle()
    world.store.begin_backup("b1", "test", "", world.now_ms)
    image = world.store._db.dump()
    world.store.complete_backup("b1", world.now_ms)
    days(world, 9)
    dock.says("A2", "PLACED")
    world.settle()
    world.store.begin_backup("b2", "test", "", world.now_ms)
    world.store.complete_backup("b2", world.now_ms)
    days(world, 9)
    assert freed(dock) == 2
    restore_store(world, image)
    assert [(b.id, b.state) for b in world.store.backups()] == [("b1", "complete"), ("b2", "complete")], "the later one is not forgotten"
    state(world)
    world.settle()
    assert facts(world) == 3
    days(world, 9)
    assert freed(dock) == 2


def test_required_and_none_complete_frees_nothing_even_under_pressure() -> None:
    for required, expected in ((True, 0), (False, 2)):
        world = World()
        world.store = SqliteStore(Db(":memory:"), backup_required=required)
        dock = world.edge("dock-7")
        dock.core.settings = EdgeSettings(hub_world.FAST.uplink, heartbeat_ms=5_000, pressure_percent=0)
        dock.says("A1", "PLACED", "APPROVED")
        world.settle()
        days(world, 9)
        assert freed(dock) == expected


def test_an_unfinished_backup_holds_back_what_it_lacks_under_pressure_too() -> None:
    world = World()
    dock = world.edge("dock-7")
    dock.core.settings = EdgeSettings(hub_world.FAST.uplink, heartbeat_ms=5_000, pressure_percent=0)
    dock.says("A1", "PLACED", "APPROVED")
    world.settle()
    world.store.begin_backup("b1", "test", "", world.now_ms)
    dock.says("A2", "PLACED")
    world.settle()
    days(world, 9)
    assert freed(dock) == 2


# ------------------------------------------------------------ restored


def test_a_lower_statement_reaches_the_edges_at_once() -> None:
    world = World()
    dock, yard = world.edge("dock-7"), world.edge("yard-1")
    dock.says("A1", "PLACED")
    yard.says("B1", "PLACED")
    world.settle()
    image = world.store._db.dump()
    dock.says("A1", "APPROVED", "PICKED")
    world.settle()
    before = world.hub.receiver.incarnation
    assert dock.core.ledger.own().settled_seq == 3
    restore_store(world, image)
    state(world)
    assert world.hub.receiver.incarnation != before
    world.run(1, step_ms=10, store=False)
    assert dock.core.ledger.own().settled_seq == 1
    world.settle()
    assert dock.core.ledger.own().settled_seq == 3
    assert yard.core.ledger.own().settled_seq == 1


def test_a_store_that_has_never_heard_of_a_stream_takes_its_settled_back() -> None:
    world = World()
    dock = world.edge("dock-7")
    image = world.store._db.dump()
    dock.says("A1", "PLACED")
    center(world, "C1")
    world.settle()
    assert world.hub.ledger.own().settled_seq == 1
    restore_store(world, image)
    state(world)
    world.run(1, step_ms=10, store=False)
    assert dock.core.ledger.own().settled_seq == 0
    assert world.hub.ledger.own().settled_seq == 0
    world.settle()
    assert facts(world) == 2
    assert world.hub.ledger.own().settled_seq == 1


def test_statements_that_only_grow_keep_the_incarnation() -> None:
    world = World()
    dock = world.edge("dock-7")
    before = world.hub.receiver.incarnation
    for n in range(5):
        dock.says(f"A{n}", "PLACED", "APPROVED")
        world.run(3)
        state(world)
    assert world.hub.receiver.incarnation == before


def story(world: World) -> tuple[Edge, Edge]:
    dock, yard = world.edge("dock-7"), world.edge("yard-1")
    dock.says("A1", "PLACED")
    yard.says("B1", "PLACED")
    center(world, "C1")
    world.settle()
    return dock, yard


def test_hub_and_store_restored_both_at_once_and_twice_in_a_row() -> None:
    for hub, store, times in ((True, False, 1), (False, True, 1), (True, True, 1), (True, True, 2), (True, False, 2), (False, True, 2)):
        world = World()
        dock, yard = story(world)
        hub_image, store_image = world.db.dump(), world.store._db.dump()
        dock.says("A1", "APPROVED")
        yard.says("A1", "CANCELLED")
        world.settle()
        assert facts(world) == 5
        for again in range(times):
            if store:
                restore_store(world, store_image)
            if hub:
                world.restart(hub_image)
            state(world)
            dock.says(f"D{again}", "PLACED")
            center(world, f"E{again}")
            if again + 1 < times:
                world.run(2)
        world.settle()
        state(world)
        world.settle()
        records = sum(1 for (row,) in world.store._db.query("SELECT row FROM log WHERE okey IS NULL") if row)
        assert facts(world) - records == 5 + 2 * times, (hub, store, times)
        for node in ("dock-7", "yard-1"):
            row = world.row(node)
            assert row["captured"] == row["settled"] + row["queued"] + row["quarantined"] + sum(row["evicted"].values()), row
        assert dock.core.ledger.own().settled_seq == dock.core.ledger.own().head[0]
