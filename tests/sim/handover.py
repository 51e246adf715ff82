"""What a hub's shell does with the central store: one thing at a time. Production code decides; here are the moments and the faults."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from hub.store.port import Statement
from hub.store.sqlite import SqliteStore
from protocols.errors import LedgerBroken, LedgerFull
from protocols.messages import RunStated
from protocols.streams import StreamKey
from tests.sim.options import MINUTE

if TYPE_CHECKING:
    from tests.sim.hubproc import HubProc
    from tests.sim.world import World

GIVEN_BACK = 10_000
FULL_MOST_MS = 30 * MINUTE
"""between two attempts at a store whose disk is full; as in the product each wait is twice the one before"""


class HandOver:
    """The loop of one hub about the store."""

    def __init__(self, world: World, hub: HubProc, rng: Random) -> None:
        self.world, self.hub, self.rng = world, hub, rng
        self.ask = False
        """a whole statement is due"""
        self._token = 0
        self._full_until, self._full_ms = 0, MINUTE

    def wake(self, after_ms: int = 0) -> None:
        """Something may be lacking: look again soon."""
        self._token += 1
        self.world.after(after_ms, self._pump, self._token, self.hub.boots)

    def regularly(self) -> None:
        """A whole statement is asked for now and then (rule 10)."""
        self.ask = True
        self.wake()
        self.world.after(self.world.options.ask_store_ms, self.regularly)

    def _pump(self, token: int, boot: int) -> None:
        hub, store = self.hub, self.world.store
        if token != self._token or not hub.alive or boot != hub.boots or hub.held_up(self._pump, token, boot):
            return
        if hub.store_away_until:
            self.world.at(hub.store_away_until, self._pump, token, boot)
            return
        if self.ask or not hub.core.asked_store:
            self.ask = False
            self._deliver(store.statement(None), True)
            return
        if self.world.faulty and self.world.now < self._full_until:
            self.world.at(self._full_until, self._pump, token, boot)
            return
        facts, records = hub.core.lacking_in_store(self.world.options.hand_over_facts)
        if not facts and not records:
            return
        how = (
            self.rng.choice(("before", "after", "lost"))
            if self.world.faulty and self.rng.random() < self.world.options.store_failures
            else ""
        )
        try:
            store.disk.db.fail = how if how != "lost" else ""
            if how != "lost":
                store.store.apply(facts, records, hub.wall())
        except LedgerBroken:
            if how not in ("before", "after"):
                raise
            store.store = SqliteStore(store.disk.db)
        except LedgerFull:
            if not store.disk.db.filled:
                raise
            self.world.count("store apply fails (disk full)")
            store.reopen()
            self._full_until, self._full_ms = self.world.now + self._full_ms, min(2 * self._full_ms, FULL_MOST_MS)
            self.wake()
            return
        self._full_ms = MINUTE
        store.disk.db.fail = ""
        if how:
            self.world.count(f"store apply fails ({how})")
        self.world.check.store_applied(store.disk, facts)
        keys = list(dict.fromkeys([*(f.stream for f in facts), *(r.stream for r in records)]))
        self._deliver(store.statement(keys), False)

    def _deliver(self, statement: Statement, whole: bool) -> None:
        late = self.world.options.late_statement_ms if self.world.faulty else 0
        self._token += 1
        self.world.after(self.rng.randrange(late + 1), self._take, statement, whole, self.hub.boots)

    def _take(self, statement: Statement, whole: bool, boot: int) -> None:
        hub = self.hub
        if not hub.alive or boot != hub.boots or hub.held_up(self._take, statement, whole, boot):
            return
        crash = hub.crash_point()
        try:
            hub.core.begin()
            older = hub.core.take_statement(statement, whole=whole, now_ms=hub.wall())
            if whole:
                hub.core.take_holes(hub.wall())
            hub.disk.db.fail = crash if crash in ("before", "after") else ""
            hub.core.commit()
        except LedgerBroken:
            if crash not in ("before", "after"):
                raise
            hub.look([], [])
            hub.crash(f"hub {crash} commit")
            return
        except LedgerFull as e:
            hub.no_room(e, ())
            return
        hub.look([], [])
        hub.say()
        if older:
            self._give_back(older)
        if hub.alive:
            self.wake(1)

    def _give_back(self, older: Sequence[tuple[StreamKey, RunStated]]) -> None:
        """The hub came back older than the store is."""
        hub, store = self.hub, self.world.store
        self.world.say("store", f"gives back {[(k.node, r.first, r.last) for k, r in older]}")
        facts = [f for key, run in older for f in store.store.facts(key, run, GIVEN_BACK)]
        records = [r for key in dict.fromkeys(key for key, _ in older) for r in store.store.records(key)]
        crash = hub.crash_point()
        spans = [(f.stream, f.seq, f.seq) for f in facts]
        try:
            hub.core.begin()
            hub.core.take_from_store(facts, records, hub.wall())
            hub.disk.db.fail = crash if crash in ("before", "after") else ""
            hub.core.commit()
        except LedgerBroken:
            if crash not in ("before", "after"):
                raise
            hub.look([], spans)
            hub.crash(f"hub {crash} commit")
            return
        except LedgerFull as e:
            hub.no_room(e, ())
            return
        hub.look([], spans)
        hub.say()
