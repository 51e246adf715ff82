"""Orders by site and by k: trees that are brought up late answer as if every order had been put there at once; old files come along."""

from __future__ import annotations

from random import Random

import pytest

from hub import scope_trees
from hub.scope_trees import SCOPES, ScopeTrees
from hub.scopes import Scopes
from hub.tasks import staff_scope
from protocols.downlink import order_k
from protocols.ledger import Ledger
from protocols.orderbook import Order
from protocols.schema import version
from protocols.sqlite import Db
from tests.unit.hub.hub_world import World
from tests.unit.hub.test_downlink import same

ORGS = ("acme", "scms")
NAMES = ("Lisbon", "Madrid", "Oslo", staff_scope("ana"))
ALL_K = (0, 2**32 - 1)


def a_ledger() -> Ledger:
    return Ledger(Db(":memory:"), node="hub", new_epoch=lambda: 1)


def old_shape(db: Db) -> None:
    """Make the tables what they were in version 1 of this part, with the same in them."""
    trees = ScopeTrees(db)
    orders = db.query("SELECT okey, org, k FROM orders")
    rows = [(org, name, k, okey) for okey, org, k in orders for name in trees.of(okey)]
    db.begin()
    for table in ("scope_names", "order_scopes", "placed", "by_k"):
        db.run(f"DROP TABLE {table}")
    db.run(
        """CREATE TABLE scopes (
             org TEXT NOT NULL, site TEXT NOT NULL, k INTEGER NOT NULL, okey INTEGER NOT NULL,
             PRIMARY KEY (org, site, k, okey)) WITHOUT ROWID"""
    )
    db.run("CREATE INDEX scopes_order ON scopes (okey)")
    for statement in SCOPES[0]:
        db.run(statement)
    db.many("INSERT INTO scopes VALUES (?, ?, ?, ?)", rows)
    db.run("DELETE FROM meta WHERE key='scopes_placed'")
    db.run("UPDATE versions SET version=1 WHERE part='scopes'")
    db.commit()


@pytest.mark.parametrize("seed", range(6))
def test_however_late_orders_are_put_in_place_they_are_found_where_they_are(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    print(f"seed {seed}")
    rng = Random(seed)
    monkeypatch.setattr(scope_trees, "PLACED_AT_ONCE", 20)
    ledger = a_ledger()
    scopes = Scopes(ledger)
    where: dict[int, tuple[str, tuple[str, ...]]] = {}
    orders: dict[int, Order] = {}
    for _ in range(40):
        ledger.begin()
        for _ in range(rng.randrange(8)):
            org, order_id = rng.choice(ORGS), f"O{rng.randrange(60)}"
            order = ledger.book.open(org, order_id, 1)
            ledger.book.replace(order, (), 1)
            before = where.get(order.okey, (org, ()))[1]
            after = tuple(sorted(rng.sample(NAMES, rng.choice((0, 1, 1, 1, 2, 3)))))
            scopes.trees.note(order, before, after)
            where[order.okey], orders[order.okey] = (org, after), order
        scopes.flush(asked=rng.random() < 0.1)
        ledger.commit()
        if rng.random() < 0.2:
            scopes = Scopes(ledger)
        for okey, (_, names) in where.items():
            assert scopes.trees.of(okey) == names
    ledger.begin()
    scopes.flush(asked=True)
    ledger.commit()
    for org in ORGS:
        for name in NAMES:
            wanted = sorted((orders[okey].place, okey) for okey, (of, names) in where.items() if of == org and name in names)
            assert [(k, okey) for k, okey, _ in scopes.trees.within((org, name), *ALL_K)] == wanted
            assert scopes.trees.sums((org, name), *ALL_K, 0) == [(k, 0) for k, _ in wanted]
    for okey, order in orders.items():
        assert scopes.trees.at(order.org, order_k(order.org, order.order_id)) == [(okey, order.order_id)]
        assert scopes.trees.at("nobody", order.place) == []


def a_world_with_orders() -> World:
    world = World()
    world.edge("phone-ana", site="Home", staff="ana")
    dock, oslo = world.edge("dock-1"), world.edge("oslo-1", site="Oslo")
    for n in range(30):
        dock.says(f"A{n}", "PLACED", to="ana" if n % 3 else None)
        world.run(1)
        if n % 5 == 0:
            oslo.says(f"A{n}", "APPROVED", site="Oslo")
    dock.says("NOWHERE", "PLACED", site=None)
    world.settle()
    return world


def test_a_database_of_before_brings_its_scopes_along_and_goes_on() -> None:
    world = a_world_with_orders()
    names = ("Madrid", "Oslo", staff_scope("ana"))
    before = {name: world.concerned(name) for name in names}
    assert all(before.values())
    old_shape(world.db)
    assert version(world.db, "scopes") == 1
    world.restart()
    assert {name: world.concerned(name) for name in names} == before
    trees, k = world.hub.feeds.scopes.trees, order_k("acme", "NOWHERE")
    assert [order_id for _, order_id in trees.at("acme", k)] == ["NOWHERE"]
    assert {name: len(trees.within(("acme", name), *ALL_K)) for name in names} == {name: len(of) for name, of in before.items()}
    late = world.edge("dock-2", site="Madrid")
    world.edges[1].says("A1", "APPROVED", site="Oslo")
    world.settle()
    same(world, late, *world.concerned("Madrid"))
    assert "A1" in world.concerned("Oslo")
    assert "A1" not in world.concerned("Madrid")


def test_who_compares_meanwhile_is_told_of_the_newest_orders() -> None:
    """Nothing waits for a number of orders where somebody asks; a hub that starts again knows what was not put in place."""
    world = World()
    dock = world.edge("dock-1")
    dock.says("A1", "PLACED")
    world.run()
    dock.says("A2", "PLACED")
    world.run(2)
    assert world.db.query("SELECT count(*) FROM placed") == [(1,)]
    world.restart()
    late = world.edge("dock-2")
    world.settle()
    same(world, late, "A1", "A2")
    assert world.db.query("SELECT count(*) FROM placed") == [(2,)]
