"""A state machine over real cores: whatever people, lines, disks and clones do, promises hold at each step, and after quiet all agree."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hub.core import HubSettings
from hub.holding import HOLD_MS
from protocols.merge import refold
from tests.unit.hub.hub_world import Edge, World

NUMBERS = st.integers(0, 3)
STATUSES = st.sampled_from(["PLACED", "APPROVED", "PICKED", "SHIPPED", "CANCELLED"])


class Longshore(RuleBasedStateMachine):
    """Two edges, perhaps a clone, a hub and a store."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(HubSettings(hold_ms=HOLD_MS))
        self.edges: list[Edge] = [self.world.edge("dock-0"), self.world.edge("dock-1")]
        self.backup = self.world.db.dump()
        self.said: dict[bytes, None] = {}
        """the hash of every fact that was said yes to"""
        self.losing = False
        self.world.bend = lambda _, payload: [] if self.losing else [payload]

    def edge(self, n: int) -> Edge:
        return self.edges[n % len(self.edges)]

    @rule(n=NUMBERS, order=NUMBERS, status=STATUSES)
    def an_edge_says(self, n: int, order: int, status: str) -> None:
        self.said |= {one.h: None for one in self.edge(n).says(f"A{order}", status)}

    @rule(order=NUMBERS, status=STATUSES)
    def the_centre_says(self, order: int, status: str) -> None:
        self.world.says(f"A{order}", status)

    @rule(rounds=st.integers(1, 6), store=st.booleans())
    def time_goes_on(self, rounds: int, store: bool) -> None:
        self.world.run(rounds, store=store)

    @rule()
    def the_line_begins_or_ends_to_lose(self) -> None:
        self.losing = not self.losing

    @rule(n=NUMBERS)
    def a_link_goes_or_comes(self, n: int) -> None:
        edge = self.edge(n)
        edge.cut() if edge.linked else edge.link()

    @rule(n=NUMBERS)
    def an_edge_starts_again(self, n: int) -> None:
        edge = self.edge(n)
        linked = edge.linked
        edge.linked = False
        edge.boot()
        if linked:
            edge.link()

    @rule()
    def the_hub_is_backed_up(self) -> None:
        self.backup = self.world.db.dump()

    @rule(restored=st.booleans())
    def the_hub_starts_again(self, restored: bool) -> None:
        self.world.restart(self.backup if restored else None)

    @precondition(lambda self: len(self.edges) < 3)
    @rule(n=NUMBERS)
    def a_card_is_cloned(self, n: int) -> None:
        edge = self.edge(n)
        self.edges.append(self.world.edge(edge.address.node, image=edge.db.dump(), linked=False))

    @invariant()
    def every_fold_is_that_of_its_facts(self) -> None:
        for ledger in (self.world.hub.ledger, *(e.core.ledger for e in self.edges)):
            if ledger.log.forked_nodes or any(s.told_fork is not None for s in ledger.log.all()):
                continue  # where branches are known only in part, the hub's word counts; the end is compared below
            for (order_id,) in ledger.db.query("SELECT order_id FROM orders"):
                order = ledger.book.get("acme", str(order_id))
                assert order is not None
                assert sorted(order.heads) == sorted(refold(ledger.book.facts(order), ledger.log))

    @invariant()
    def nothing_is_settled_that_the_store_does_not_have(self) -> None:
        for edge in self.edges:
            for stream in edge.core.ledger.own_streams():
                rows = self.world.store._db.one(
                    "SELECT count(DISTINCT seq) FROM log JOIN streams USING (sid) WHERE node=? AND epoch=? AND cls=? AND seq<=?",
                    (*stream.key, stream.settled_seq),
                )
                assert rows is not None
                assert rows[0] >= stream.settled_seq - stream.freed_seq

    def teardown(self) -> None:
        """Quiet: everybody linked, nothing lost on the way; then every yes is in the store, and the edges show what the hub shows."""
        self.losing = False
        for edge in self.edges:
            if not edge.linked:
                edge.link()
        self.world.run(150, 5_000)
        for edge in self.edges:
            edge.core.follower._compare_due = 0
        self.world.run(40, 2_000)
        stored = {bytes(h) for (h,) in self.world.store._db.query("SELECT h FROM log")}
        assert not [h for h in self.said if h not in stored]
        hub = self.world.hub.ledger.book
        for edge in self.edges:
            for order_id in self.world.concerned("Madrid"):
                ours, theirs = edge.core.ledger.book.get("acme", order_id), hub.get("acme", order_id)
                assert ours is not None
                assert theirs is not None
                assert sorted(h.h for h in ours.heads) == sorted(h.h for h in theirs.heads), order_id


TestLongshore = Longshore.TestCase
TestLongshore.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
