"""A refused fact that was put right or given up: the view is the same whatever came first, and whoever can read the refused one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from random import Random

import pytest

from hub.store.port import CentralStore, OrderQuery, StoreFact
from protocols.ledger import fact_id
from protocols.lifecycle import Status
from tests.conformance.store.kinds import StoreKind
from tests.unit.protocols.fix_worlds import Author, Identity, Told, author, event, history, right

NOW_MS = 1_767_225_600_000


def given(told: Told, *, strict: bool) -> StoreFact:
    """As the hub hands it over; `strict`: it could not read what is bad."""
    reason = "cannot be read here" if strict and told.bad else ""
    return StoreFact(told.key, told.seq, told.h, told.prev, told.row, NOW_MS, reason)


def heads(store: CentralStore) -> dict[str, set[str]]:
    """Per order of the view the facts that are its heads."""
    orders = store.orders(OrderQuery(limit=500)).orders
    return {o.order_id: {e.fact_id for e in store.events(o.org, o.order_id) if e.is_head} for o in orders}


def named(wanted: dict[str, set[Identity]]) -> dict[str, set[str]]:
    return {order_id: {fact_id(*i) for i in identities} for order_id, identities in wanted.items()}


def batches(facts: Sequence[StoreFact], rng: Random) -> list[list[StoreFact]]:
    cuts = sorted(rng.sample(range(len(facts) + 1), min(3, len(facts))))
    return [list(facts[a:b]) for a, b in zip([0, *cuts], [*cuts, len(facts)], strict=True) if a < b]


@pytest.mark.parametrize("seed", range(30))
def test_any_arrival_ends_in_the_truth(kind: StoreKind, seed: int) -> None:
    if kind.leaves(seed):
        return
    told, rng = history(seed, 30), Random(seed)
    views = []
    for strict in (True, False, True, False):
        arrivals = [given(t, strict=strict) for t in told]
        rng.shuffle(arrivals)
        store = kind.scratch()
        try:
            for batch in batches(arrivals, rng):
                store.apply(batch, [], NOW_MS)
            assert heads(store) == named(right(told)), f"seed {seed}, strict {strict}"
            views.append([(o.order_id, o.status, o.heads, o.facts, o.conflict) for o in store.orders(OrderQuery(limit=500)).orders])
            counts = store.counts()
            assert sum(c.resolved for c in counts) == (sum(t.bad for t in told) if strict else 0)
            assert sum(c.facts + c.quarantined for c in counts) == len(told)
            assert store.totals()["quarantined"] == 0
        finally:
            store.close()
    assert all(sorted(view) == sorted(views[0]) for view in views)


@pytest.fixture
def dock() -> Author:
    return author("dock", Random(1))


def pair(dock: Author, *, order_id: str) -> list[Told]:
    """Placed, then something refused, put right as a fact of `order_id`."""
    from protocols.quarantine import resubmit

    dock.ledger.begin()
    dock.ledger.append(event("o1", Status.PLACED), 1)
    done = dock.ledger.append(event("o1", Status.CANCELLED), 2)
    dock.bad[done.stream, done.seq, done.h] = None
    dock.ledger.quarantine(dock.ledger.own().sid, done.seq, done.h, "refused", 3)
    resubmit(dock.ledger, dock.ledger.quarantine_rows.items()[0].qid, event(order_id, Status.PICKED), 4)
    dock.ledger.commit()
    return dock.told()


def test_the_timeline_shows_the_pair(kind: StoreKind, dock: Author) -> None:
    told = pair(dock, order_id="o1")
    store = kind.scratch()
    store.apply([given(t, strict=False) for t in told], [], NOW_MS)
    events = {e.seq: e for e in store.events("acme", "o1")}
    assert (events[2].replaced_by, events[3].replaces) == (events[3].fact_id, events[2].fact_id)
    assert [e.is_head for e in events.values()] == [False, False, True]
    assert (events[1].replaces, events[1].replaced_by) == (None, None)
    assert [(o.status, o.facts) for o in store.find("o1")] == [("PICKED", 2)]
    store.close()


def test_an_order_of_which_every_fact_went_elsewhere_is_gone_and_may_begin_again(kind: StoreKind, dock: Author) -> None:
    told = pair(dock, order_id="o2")
    told[0] = told[0]._replace(bad=True)  # only the cancellation, readable here, belongs to o1
    for order in itertools.permutations(told):
        store = kind.scratch()
        for t in order:
            store.apply([given(t, strict=t.seq == 1)], [], NOW_MS)
        assert heads(store) == {"o2": {fact_id(*told[2].identity)}}, [t.seq for t in order]
        assert (store.find("o1"), store.events("acme", "o1")) == ([], [])
        store.close()
    store = kind.scratch()
    store.apply([given(t, strict=t.seq == 1) for t in told], [], NOW_MS)
    dock.ledger.begin()
    dock.ledger.append(event("o1", Status.PACKED), 9)
    dock.ledger.commit()
    applied = store.apply([given(dock.told()[-1], strict=False)], [], NOW_MS)
    assert [(c.order_id, c.shown, c.is_head) for c in applied.changes] == [("o1", "PACKED", True)]
    assert [o.status for o in store.find("o1")] == ["PACKED"]
    store.close()


def test_a_store_that_is_opened_again_goes_on_with_its_fixes(
    kind: StoreKind, dock: Author, tmp_path_factory: pytest.TempPathFactory
) -> None:
    told = pair(dock, order_id="o2")
    for first in (0, 1, 2):
        folder = tmp_path_factory.mktemp(f"store-{first}")
        for t in [told[first], *told[:first], *told[first + 1 :]]:
            store = kind.open(folder)
            store.apply([given(t, strict=False)], [], NOW_MS)
            store.close()
        store = kind.open(folder)
        assert heads(store) == named(right([t._replace(bad=False) for t in told]))
        store.close()
