"""The way down: what concerns a node's site reaches it, by the tail or by digests, once, merged, and nothing else does (rule 15)."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from hub import feeds as feeds_module
from protocols.codec import Kind
from protocols.downlink import ROOT, Compare, Differ, Feed, FeedDone, Leaf, order_k
from protocols.lifecycle import Status
from protocols.merge import shown
from protocols.orderbook import OrderBook
from protocols.sqlite import Db
from protocols.sync.seal import Control, unseal
from tests.support.often import seeds
from tests.unit.hub.hub_world import Edge, World


def heads(book: OrderBook, order_id: str) -> list[str]:
    """Names of the heads of an order, sorted; hashes name them everywhere."""
    order = book.get("acme", order_id)
    return sorted(h.h.hex() for h in order.heads) if order is not None else []


def state(edge: Edge, order_id: str) -> str | None:
    order = edge.core.ledger.book.get("acme", order_id)
    return None if order is None or not order.heads else Status(shown(order.heads).status).name


def follows(edge: Edge) -> list[str]:
    rows = edge.core.ledger.db.query("SELECT order_id FROM orders WHERE followed=1 ORDER BY order_id")
    return [str(order_id) for (order_id,) in rows]


def same(world: World, edge: Edge, *order_ids: str) -> None:
    for order_id in order_ids:
        assert heads(edge.core.ledger.book, order_id) == heads(world.hub.ledger.book, order_id), order_id


class Tap:
    """Counts what goes down to a node, and may lose it."""

    def __init__(self, world: World) -> None:
        self.world, self.feeds, self.bytes = world, list[Feed](), 0
        self.lose = lambda: False
        self._send = world._send
        world._send = self.send  # type: ignore[method-assign]

    def send(self, effects: list) -> None:  # type: ignore[type-arg]
        kept = []
        for effect in effects:
            said = unseal(effect.payload)
            if isinstance(said, Control) and said.envelope.kind in (Kind.FEED, Kind.DIFFER):
                self.bytes += len(effect.payload)
                if said.envelope.kind is Kind.FEED:
                    message = said.message()
                    assert isinstance(message, Feed)
                    self.feeds.append(message)
                if self.lose():
                    continue
            kept.append(effect)
        self._send(kept)

    @property
    def facts(self) -> int:
        return sum(len(f.places) for f in self.feeds)


def test_what_the_centre_says_of_a_site_reaches_its_nodes_and_no_others() -> None:
    world = World()
    madrid, oslo = world.edge("dock-1"), world.edge("dock-2", site="Oslo")
    world.run()
    world.says("A1", "PLACED", "APPROVED")
    world.run()
    assert state(madrid, "A1") == "APPROVED"
    same(world, madrid, "A1")
    assert follows(oslo) == []


def test_what_one_node_says_reaches_the_other_of_its_site() -> None:
    world = World()
    one, other = world.edge("dock-1"), world.edge("dock-2")
    one.says("A1", "PICKED")
    world.run()
    assert state(other, "A1") == "PICKED"
    other.says("A1", "PACKED")
    world.run()
    assert state(one, "A1") == "PACKED"
    same(world, one, "A1")
    same(world, other, "A1")


def test_a_node_that_saw_the_cancellation_makes_no_conflict_and_one_that_did_not_does() -> None:
    world = World()
    dock = world.edge("dock-1")
    dock.says("A1", "PICKED")
    world.run()
    dock.cut()
    world.says("A1", "CANCELLED", site=None)
    dock.says("A1", "PACKED")
    dock.link()
    world.run()
    assert len(heads(dock.core.ledger.book, "A1")) == 2
    same(world, dock, "A1")
    dock.says("A1", "RETURNED")  # who says this has seen both
    world.run()
    assert len(heads(world.hub.ledger.book, "A1")) == 1
    same(world, dock, "A1")


def test_a_tail_sends_each_fact_once() -> None:
    world = World()
    world.edge("dock-1")
    world.run()
    tap = Tap(world)
    for n in range(20):
        world.says(f"A{n}", "PLACED")
        world.run(1)
    world.run()
    assert tap.facts == 20


def test_after_a_restart_of_the_hub_only_what_differs_travels() -> None:
    world = World()
    dock = world.edge("dock-1")
    for n in range(300):
        world.says(f"A{n}", "PLACED")
    world.settle()
    dock.cut()
    world.says("A7", "APPROVED")
    world.says("B1", "PLACED")
    world.restart()
    tap = Tap(world)
    dock.link()
    world.settle()
    same(world, dock, *(f"A{n}" for n in range(300)), "B1")
    assert tap.facts <= 12
    assert tap.bytes < 8_000


def test_nothing_travels_but_digests_when_nothing_differs() -> None:
    world = World()
    dock = world.edge("dock-1")
    for n in range(300):
        world.says(f"A{n}", "PLACED")
    world.settle()
    world.restart()
    tap = Tap(world)
    world.settle()
    assert dock.core.follower.whole
    assert tap.facts == 0
    assert tap.bytes < 600


def test_a_first_sync_brings_the_scope_only_and_all_of_it() -> None:
    world = World()
    for n in range(700):
        world.says(f"A{n}", "PLACED", "APPROVED", site="Madrid" if n % 2 else "Oslo")
    dock = world.edge("dock-1")
    world.settle()
    assert len(follows(dock)) == 350
    same(world, dock, *(f"A{n}" for n in range(1, 700, 2)))
    rows = dock.core.ledger.db.one("SELECT count(*) FROM copies")
    assert rows == (700,)  # the past of an order comes along where nothing of it was known


def test_an_order_that_moves_on_leaves_the_scope() -> None:
    world = World()
    madrid, oslo = world.edge("dock-1"), world.edge("dock-2", site="Oslo")
    world.says("A1", "PLACED")
    world.run()
    assert follows(madrid) == ["A1"]
    world.says("A1", "SHIPPED", site="Oslo")
    world.run()
    assert follows(madrid) == []
    assert state(oslo, "A1") == "SHIPPED"
    assert madrid.core.ledger.db.one("SELECT count(*) FROM copies") == (0,)
    same(world, oslo, "A1")


def test_an_order_that_moved_on_while_the_node_was_away_leaves_too() -> None:
    world = World()
    madrid = world.edge("dock-1")
    for n in range(60):
        world.says(f"A{n}", "PLACED")
    world.run()
    madrid.cut()
    world.says("A1", "SHIPPED", site="Oslo")
    world.restart()
    madrid.link()
    world.run()
    assert "A1" not in follows(madrid)
    assert len(follows(madrid)) == 59


def test_a_node_keeps_what_it_said_itself_of_another_site() -> None:
    world = World()
    madrid = world.edge("dock-1")
    madrid.says("A1", "SHIPPED", site="Oslo")
    world.run()
    world.restart()
    world.run()
    assert follows(madrid) == ["A1"]


def test_a_cursor_that_the_feed_has_forgotten_leads_to_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds_module, "KEPT", 10)
    world = World()
    dock = world.edge("dock-1")
    world.run()
    passes = dock.core.follower.passes_total
    dock.cut()
    for n in range(50):
        world.says(f"A{n}", "PLACED")
    dock.link()
    world.settle()
    assert dock.core.follower.passes_total == passes + 1
    same(world, dock, *(f"A{n}" for n in range(50)))


def test_within_an_epoch_a_node_goes_on_from_its_cursor_even_after_its_own_restart() -> None:
    world = World()
    dock = world.edge("dock-1")
    world.says("A1", "PLACED")
    world.run()
    dock.cut()
    world.says("A2", "PLACED")
    dock.boot()
    tap = Tap(world)
    dock.link()
    world.run()
    assert tap.facts == 1
    assert dock.core.follower.passes_total == 0
    same(world, dock, "A1", "A2")


def test_a_pass_that_was_cut_short_is_made_again() -> None:
    world = World()
    dock = world.edge("dock-1", linked=False)
    for n in range(100):
        world.says(f"A{n}", "PLACED")
    tap = Tap(world)
    tap.lose = lambda: True
    dock.link()
    world.run(6)
    assert not dock.core.follower.whole
    dock.cut()
    dock.boot()
    tap.lose = lambda: False
    dock.link()
    world.settle()
    same(world, dock, *(f"A{n}" for n in range(100)))


def test_a_tail_that_comes_while_a_pass_is_under_way_does_not_make_its_cursor_count() -> None:
    world = World()
    dock = world.edge("dock-1", linked=False)
    for n in range(100):
        world.says(f"A{n}", "PLACED")
    tap = Tap(world)
    tap.lose = lambda: not (tap.feeds and tap.feeds[-1].tail)  # nothing of the comparison gets through
    dock.link()
    world.run(6)
    world.says("B", "PLACED")
    world.run(6)
    same(world, dock, "B")
    dock.cut()
    dock.boot()
    tap.lose = lambda: False
    dock.link()
    world.settle()
    same(world, dock, *(f"A{n}" for n in range(100)))


def test_machines_of_one_name_that_compare_at_one_moment_are_each_answered() -> None:
    world = World()
    dock = world.edge("dock-1")
    world.says("A1", "PLACED")
    world.settle()
    feeds, node = world.hub.feeds, world.hub.registry.get("dock-1")
    assert node is not None
    k = order_k("acme", "A1")
    for asker, orders in ((1, ()), (2, ((k, 7),)), (1, ())):
        feeds.compare(node, Compare(feeds.epoch, (), (Leaf(ROOT, 0, orders),), asker))
    answers = [reply for _, reply in feeds.replies(lambda key, seq: True) if isinstance(reply, Feed)]
    assert sorted(answer.asker for answer in answers) == [1, 2] and all(len(answer.orders) == 1 for answer in answers)
    follower = dock.core.follower
    follower._begin_pass(0)
    (asked,) = (out for out in follower.outputs(10**9) if out.kind is Kind.COMPARE)
    said = Compare.parse(asked.body)
    follower.on_differ(Differ(follower.epoch, tuple(v.bucket for v in said.vectors), (), said.asker + 1), 10**9)
    follower.on_feed(replace(answers[0], done=(FeedDone(ROOT, 0, 0),), asker=said.asker + 1), 10**9)
    assert follower._pass is not None, "that was said to a twin"
    follower.on_feed(replace(answers[0], done=(FeedDone(ROOT, 0, 0),), asker=said.asker), 10**9)
    assert follower._pass is None


def test_an_edge_at_its_budget_asks_for_nothing() -> None:
    world = World()
    dock = world.edge("dock-1")
    world.run()
    dock.core.budget.disk_full = True
    assert not [p for p in dock.speaks() if unseal(p).envelope.kind is Kind.FOLLOW]  # type: ignore[union-attr]


def test_branches_of_a_cloned_node_come_down_as_the_hub_knows_them() -> None:
    world = World()
    dock, watcher = world.edge("dock-1"), world.edge("dock-9")
    dock.says("A1", "PLACED")
    world.run()
    clone = world.edge("dock-1", image=dock.db.dump(), linked=False)
    dock.cut()
    dock.says("A1", "PICKED")
    dock.says("A2", "PLACED")
    dock.link()
    world.run()
    clone.says("A1", "CANCELLED")
    clone.link()
    world.settle()
    assert len(heads(world.hub.ledger.book, "A1")) == 2
    for edge in (watcher, dock, clone):
        same(world, edge, "A1", "A2")
    watcher.says("A1", "RETURNED")  # has seen both branches, and says so
    world.settle()
    assert len(heads(world.hub.ledger.book, "A1")) == 1
    for edge in (watcher, dock, clone):
        same(world, edge, "A1", "A2")


@pytest.mark.parametrize("seed", seeds(12, quick=2))
def test_whatever_is_lost_in_the_end_both_sides_are_the_same(seed: int) -> None:
    """Messages lost both ways, links cut, the hub restarted and restored: after quiet, everybody's scope is as at the hub."""
    rng = Random(seed)
    world = World()
    edges = [world.edge(f"dock-{n}", site=("Madrid", "Oslo")[n % 2]) for n in range(4)]
    tap = Tap(world)
    tap.lose = lambda: rng.random() < 0.3
    world.bend = lambda _, payload: [] if rng.random() < 0.2 else [payload]
    backup = world.db.dump()
    statuses = ("PLACED", "APPROVED", "PICKED", "SHIPPED", "CANCELLED")
    for _ in range(60):
        people: list[World | Edge] = [world, *edges]
        who = rng.choice(people)
        who.says(f"A{rng.randrange(12)}", rng.choice(statuses), site=rng.choice(("Madrid", "Oslo", None)))
        edge = rng.choice(edges)
        if rng.random() < 0.15:
            edge.cut() if edge.linked else edge.link()
        if rng.random() < 0.05:
            world.restart(backup if rng.random() < 0.5 else None)
        if rng.random() < 0.1:
            backup = world.db.dump()
        world.run(rng.randrange(3))
    tap.lose = lambda: False
    world.bend = lambda _, payload: [payload]
    for edge in edges:
        if not edge.linked:
            edge.link()
    world.run(100, 20_000)
    for edge in edges:
        edge.core.follower._compare_due = 0
    world.run(60)
    for edge in edges:
        same(world, edge, *world.concerned(edge.address.site))


def unsettled_feeds(edge: Edge) -> int:
    return edge.core.custody.counts().payloads


def test_what_the_store_may_still_lose_is_kept_as_it_was_signed_and_goes_once_it_is_settled() -> None:
    world = World()
    dock = world.edge("dock-1")
    world.run()
    for n in range(5):
        world.says(f"A{n}", "PLACED")
        world.run(1, store=False)
    assert unsettled_feeds(dock) == 5
    world.run(120, 5_000)
    assert unsettled_feeds(dock) == 0
    assert dock.core.ledger.db.one("SELECT count(*) FROM custody") == (0,)


def test_what_a_hub_lost_of_its_own_comes_back_from_its_nodes_and_it_goes_on_in_a_new_epoch() -> None:
    world = World()
    dock = world.edge("dock-1")
    world.run()
    before = world.db.dump()
    world.says("A1", "PLACED", "APPROVED")
    epoch = world.hub.ledger.own().key
    world.run(3, store=False)
    world.restart(before)
    world.run(200, 5_000)
    assert heads(world.hub.ledger.book, "A1") == heads(dock.core.ledger.book, "A1") != []
    assert world.hub.ledger.own().key != epoch
    assert world.counts(epoch).facts == 2  # type: ignore[union-attr]
    assert world.hub.registry.counters()["given_back"] == 2


def test_what_nobody_gives_back_of_the_hubs_own_is_signed_as_lost() -> None:
    """One of three facts went to no site: the node gives back the other two, and the hole between is closed by the hub's word."""
    world = World()
    world.edge("dock-1")
    world.run()
    before = world.db.dump()
    for n, site in enumerate(("Madrid", None, "Madrid")):
        world.says(f"A{n}", "PLACED", site=site)
        world.run(1, store=False)
    key = world.hub.ledger.own().key
    world.restart(before)
    for _ in range(3):
        world.run(400, 5_000)
        world.hub.begin()
        world.hub.take_statement(world.store.statement(None), whole=True)
        world.hub.take_holes(world.now_ms)
        world.hub.commit()
    world.run()
    counts = world.counts(key)
    assert counts is not None
    assert (counts.facts, counts.records) == (2, {"lost": 1})


def test_a_forged_feed_gives_nothing_back() -> None:
    world = World()
    dock = world.edge("dock-1")
    world.run()
    world.says("A1", "PLACED")
    world.run(2, store=False)
    row = dock.core.ledger.db.one("SELECT payload FROM custody")
    assert row is not None
    payload = bytes(row[0])
    world.restart(Db(":memory:").dump())
    world.admit(dock)
    world.deliver("dock-1", payload[:-64] + bytes(64))
    assert heads(world.hub.ledger.book, "A1") == []
    world.deliver("dock-1", payload)
    assert len(heads(world.hub.ledger.book, "A1")) == 1


def test_after_an_outage_the_backlog_is_not_listed_as_well() -> None:
    """What the hub cannot have yet differs anyway: it goes up as frames, not as digests, too."""
    world = World()
    dock = world.edge("dock-1", linked=False)
    for n in range(500):
        dock.says(f"A{n}", "PICKED")
    world.says("A7", "CANCELLED")
    listed = 0

    def bend(_: str, payload: bytes) -> list[bytes]:
        nonlocal listed
        said = unseal(payload)
        if isinstance(said, Control) and said.envelope.kind is Kind.COMPARE:
            listed += len(payload)
        return [payload]

    world.bend = bend
    dock.link()
    world.settle()
    assert listed < 2_500
    same(world, dock, *(f"A{n}" for n in range(500)))


def test_what_the_hub_says_of_an_order_is_merged_and_never_put_in_place_of_what_it_cannot_know() -> None:
    """The hub's word about an order comes while the node's own facts are still on their way."""
    world = World()
    dock = world.edge("dock-1")
    world.run()
    dock.cut()
    world.says("A1", "CANCELLED")
    world.says("A2", "PLACED")
    dock.says("A1", "PICKED")
    world.restart()
    world.bend = lambda _, payload: [] if not isinstance(unseal(payload), Control) else [payload]  # frames do not get through
    dock.link()
    world.run(20)
    order = dock.core.ledger.book.get("acme", "A1")
    assert order is not None
    assert sorted(Status(h.status).name for h in order.heads) == ["CANCELLED", "PICKED"]
    assert state(dock, "A2") == "PLACED"
