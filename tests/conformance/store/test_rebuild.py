"""Every view is made anew from the log: what it says is what it said, also when the views were lost, and when it was ended half-way."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from hub.store import rebuild as steps
from hub.store.port import CentralStore, OrderQuery
from protocols.lifecycle import Status
from tests.conformance.store.kinds import KINDS, StoreKind
from tests.conformance.store.test_any_order import everything
from tests.conformance.store.test_exactly_once import NOW_MS
from tests.conformance.store.worlds import World, random_world

TABLES = {"sqlite": ("view", "oddities", "unsure", "fixes"), "postgres": ("states", "orders", "oddities", "unsure", "fixes")}


pytestmark = pytest.mark.parametrize("kind", [one for one in KINDS if one.id != "sqlite-apart"], indirect=True)
"""nobody rebuilds a store through the process of a hub"""


class EndedError(Exception):
    """Somebody ended it."""


def quiet(what: str, done: int, of: int) -> None:
    assert what in ("looking for fixes", "folding orders")
    assert done >= 1


def lose_views(kind: StoreKind, store: Any) -> None:
    for table in TABLES[kind.name.partition("-")[0]]:
        store._db.run(f"DELETE FROM {table}")


def listed(store: CentralStore) -> list[str]:
    return [order.order_id for order in store.orders(OrderQuery(limit=500)).orders]


def filled(store: CentralStore, seed: int) -> None:
    """A world with clones and late facts, in batches of some."""
    chance = random.Random(seed)
    facts = [said.given for said in random_world(seed, 60, forks=True).said]
    for i in range(0, len(facts), 7):
        batch = facts[i : i + 7]
        chance.shuffle(batch)
        store.apply(batch, [], NOW_MS + i)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_views_are_as_they_were(store: CentralStore, seed: int) -> None:
    filled(store, seed)
    before, order = everything(store), listed(store)
    assert store.rebuild(NOW_MS + 9_000, quiet) == len(order)  # type: ignore[attr-defined]
    assert (everything(store), listed(store)) == (before, order)


@pytest.mark.parametrize("seed", [4, 5, 6])
def test_lost_views_come_back_from_the_log(kind: StoreKind, store: CentralStore, seed: int) -> None:
    filled(store, seed)
    before = everything(store)
    lose_views(kind, store)
    assert store.orders(OrderQuery()).orders == []
    store.rebuild(NOW_MS + 9_000, quiet)  # type: ignore[attr-defined]
    assert everything(store) == before


def test_a_view_that_says_what_no_fact_says_is_put_right(kind: StoreKind, store: CentralStore) -> None:
    filled(store, 7)
    before = everything(store)
    table = TABLES[kind.name.partition("-")[0]][0]
    store._db.run(f"UPDATE {table} SET status=9, facts=99, conflict=1, held=1, abnormal=1, counted=NULL")  # type: ignore[attr-defined]
    assert everything(store) != before
    store.rebuild(NOW_MS + 9_000, quiet)  # type: ignore[attr-defined]
    assert everything(store) == before


def test_it_goes_on_where_it_was_ended(kind: StoreKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "ORDERS", 2)
    monkeypatch.setattr(steps, "FACTS", 7)
    store = kind.open(tmp_path)
    world = World()
    author = world.author("w1")
    store.apply([world.say(author, f"O-{n}", Status.PLACED) for n in range(12)], [], NOW_MS)
    before = everything(store)
    lose_views(kind, store)
    told: list[tuple[str, int]] = []

    def ends(what: str, done: int, of: int) -> None:
        told.append((what, done))
        if what == "folding orders" and done >= 6:
            raise EndedError

    with pytest.raises(EndedError):
        store.rebuild(NOW_MS, ends)  # type: ignore[attr-defined]
    store.close()
    again = kind.open(tmp_path)
    assert len(listed(again)) == 6
    rest: list[tuple[str, int]] = []
    again.rebuild(NOW_MS, lambda what, done, of: rest.append((what, done)))  # type: ignore[attr-defined]
    assert (len(told), rest) == (5, [("folding orders", 2), ("folding orders", 4), ("folding orders", 6)])
    assert everything(again) == before
    again.close()


def test_facts_that_come_after_it_are_folded_on_what_it_made(kind: StoreKind, store: CentralStore) -> None:
    world = World()
    author = world.author("w1")
    store.apply([world.say(author, "O-1", Status.PLACED, details={"quantities": {"picked": 2}})], [], NOW_MS)
    lose_views(kind, store)
    store.rebuild(NOW_MS, quiet)  # type: ignore[attr-defined]
    store.apply([world.say(author, "O-1", Status.PICKED, details={"quantities": {"picked": 3}})], [], NOW_MS)
    (view,) = store.find("O-1")
    assert (view.status, view.facts, view.quantities) == ("PICKED", 2, {"picked": 5})
