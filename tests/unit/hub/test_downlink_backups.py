"""The hub's own facts after hub and store came back from backups that lack them: whoever heard of them gives them back. Found by processes
that were killed and put back (tests/chaos)."""

from __future__ import annotations

import pytest

from hub.store.sqlite import SqliteStore
from protocols.audit import audit
from protocols.sqlite import Db
from tests.unit.hub.hub_world import Edge, World


def kept(edge: Edge) -> int:
    """Messages of the hub's feed that an edge keeps as they were signed."""
    row = edge.core.ledger.db.one("SELECT count(*) FROM custody")
    return int(row[0]) if row else 0


def backed_up(world: World, name: str) -> None:
    """A backup of the store, whole and where it belongs."""
    world.store.begin_backup(name, "test", "", world.now_ms)
    world.store.complete_backup(name, world.now_ms)
    asked(world)


def asked(world: World) -> None:
    """The store says all that it holds, and what its backups hold."""
    world._take_back()
    world.run(200, 5_000)


def restore_both(world: World, hub: bytes, store: bytes) -> None:
    remembered = world.store.backups()
    world.store = SqliteStore(Db.load(store))
    world.store.merge_backups(remembered)
    world.restart(hub)


def story(*sites: str) -> tuple[World, list[Edge]]:
    world = World()
    edges = [world.edge(f"dock-{n}", site=site) for n, site in enumerate(sites, 1)]
    world.run()
    return world, edges


@pytest.mark.parametrize("away", [False, True], ids=["heard before it was settled", "heard when it was settled"])
def test_what_was_settled_after_the_last_backup_comes_back_from_the_nodes_when_hub_and_store_are_both_put_back(away: bool) -> None:
    world, (dock,) = story("Madrid")
    backed_up(world, "b1")
    hub, store = world.db.dump(), world.store._db.dump()
    said = world.hub.ledger.own().key
    if away:
        dock.cut()
    for n in range(3):
        world.says(f"A{n}", "PLACED")
        world.run(20)
    assert world.hub.ledger.own().settled_seq == 3
    if away:
        dock.link()
        world.run(20)
    restore_both(world, hub, store)
    world.run(200, 5_000)
    counts = world.counts(said)
    assert counts is not None
    assert counts.facts == 3


def test_what_came_down_goes_once_every_backup_that_could_be_restored_has_it() -> None:
    world, (dock,) = story("Madrid")
    backed_up(world, "b1")
    world.says("A1", "PLACED")
    world.run(200, 5_000)
    assert world.hub.ledger.own().settled_seq == 1
    assert dock.core.custody.counts().payloads == 0, "custody ended with the store's word"
    assert kept(dock) == 1
    backed_up(world, "b2")
    assert kept(dock) == 1, "the first backup lacks it, and could still be restored"
    world.store.expire_backup("b1", world.now_ms)
    asked(world)
    assert kept(dock) == 0


def test_without_any_backup_it_goes_with_the_stores_word() -> None:
    world, (dock,) = story("Madrid")
    world.says("A1", "PLACED")
    world.run(1, store=False)
    assert kept(dock) == 1
    world.run(120, 5_000)
    assert kept(dock) == 0


def test_an_order_that_left_a_nodes_scope_names_facts_that_are_gone_there_and_its_ledger_is_whole() -> None:
    world, (madrid, _) = story("Madrid", "Oslo")
    world.says("A1", "PLACED")
    world.run(20)
    world.says("A1", "SHIPPED", site="Oslo")
    world.run(20)
    row = madrid.core.ledger.db.one("SELECT followed FROM orders WHERE order_id='A1'")
    assert row == (0,)
    assert list(audit(madrid.core.ledger.db).findings) == []
