"""Whatever arrives when, and how often: the same view, and it is the one that the oracle says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hub.store.port import CentralStore, OrderQuery, StoreFact
from protocols.clashes import State
from tests.conformance.store.kinds import StoreKind, reference
from tests.conformance.store.worlds import ORG, START_MS, Said, World, abnormal, clashes, deliveries, fact_id, heads, settled, shown, worlds

NOW_MS = START_MS + 10_000_000


def everything(store: CentralStore) -> dict[str, Any]:
    """All that a store says and that must not depend on the order of arrival: everything but when it took what."""
    orders = sorted(store.orders(OrderQuery(limit=500)).orders, key=lambda o: (o.org, o.order_id))
    events = [sorted((replace(e, stored_ms=0) for e in store.events(o.org, o.order_id)), key=lambda e: e.fact_id) for o in orders]
    disputes = sorted((c.clash.id, c.shown_fact, c.other_fact, c.sentence) for c in store.conflicts(open_only=True))
    closed = [c.clash for c in store.conflicts(limit=10_000) if c.clash.state is State.SETTLED]
    history = sorted((c.id, c.policy, [t.fact_id for t in c.settled_by]) for c in closed)
    pairs = {frozenset((c.shown.fact_id, c.other.fact_id)): {t.fact_id for t in c.settled_by} for c in closed}
    counts = sorted(store.counts(), key=lambda c: c.stream)
    runs = {key: runs for key, runs in sorted(store.statement().streams.items()) if runs}
    told = {"orders": orders, "events": events, "conflicts": disputes, "history": history, "settled": pairs}
    return told | {"counts": counts, "runs": runs, "totals": store.totals()}


def deliver(make: Callable[[], CentralStore], batches: list[list[StoreFact]]) -> tuple[dict[str, Any], int]:
    """What a fresh store says after these batches, and how many facts it called new."""
    store = make()
    try:
        new = sum(store.apply(batch, [], NOW_MS + i).new for i, batch in enumerate(batches))
        return everything(store), new
    finally:
        store.close()


@given(data=st.data())
def test_any_arrival_of_an_unforked_world_ends_in_the_view_of_the_oracle(kind: StoreKind, data: st.DataObject) -> None:
    if kind.passes(data):
        return
    world = data.draw(worlds(forks=False))
    check(kind, world, data.draw(deliveries([s.given for s in world.said])))


@given(data=st.data())
def test_any_arrival_of_a_world_with_cloned_disks_ends_in_the_view_of_the_oracle(kind: StoreKind, data: st.DataObject) -> None:
    if kind.passes(data):
        return
    world = data.draw(worlds(forks=True))
    check(kind, world, data.draw(deliveries([s.given for s in world.said])))


def check(kind: StoreKind, world: World, batches: list[list[StoreFact]]) -> None:
    says, new = deliver(kind.scratch, batches)
    assert new == len(world.said)
    in_order, _ = deliver(reference, [[s.given] for s in world.said])
    assert says == in_order
    by_order: dict[str, list[Said]] = {}
    for s in world.said:
        by_order.setdefault(s.order_id, []).append(s)
    assert [o.order_id for o in says["orders"]] == sorted(by_order)
    for view, events in zip(says["orders"], says["events"], strict=True):
        facts = by_order[view.order_id]
        first = shown(facts)
        assert (view.org, view.status, view.node) == (ORG, first.status.name, first.given.stream.node)
        assert (view.facts, view.heads) == (len(facts), len(heads(facts)))
        assert view.conflict == (clashes(facts) > 0)
        assert view.abnormal == any(abnormal(f, facts) for f in facts)
        assert sum(e.is_head for e in events) == view.heads
        assert [e.abnormal for e in events] == [abnormal(f, facts) for f in sorted(facts, key=fact_id)]
        assert view.quantities.get("picked", 0) == sum(f.details.get("quantities", {}).get("picked", 0) for f in facts)
        assert view.received_ms == max(f.given.received_ms for f in facts)
    expected = {pair: by for facts in by_order.values() for pair, by in settled(facts).items()}
    still_open = {frozenset(c[1:3]) for c in says["conflicts"]}
    assert says["settled"] == {pair: by for pair, by in expected.items() if pair not in still_open}
    assert len(says["conflicts"]) == sum(clashes(facts) for facts in by_order.values())
    assert sum(c.facts for c in says["counts"]) == len(world.said)
