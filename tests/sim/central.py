"""The central store of the world: the production store on a disk that fails, and the hand-over between hub and store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hub.store.port import Statement
from hub.store.sqlite import SqliteStore
from protocols.errors import LedgerBroken, LedgerFull
from protocols.messages import RunStated
from protocols.streams import StreamKey
from tests.sim.disks import Disk
from tests.sim.options import MINUTE

if TYPE_CHECKING:
    from tests.sim.world import World

BACKUPS_KEPT = 2
GIVEN_BACK = 10_000


class Central:
    """The store, its backups, and what the hub's shell does with it: one thing at a time."""

    def __init__(self, world: World) -> None:
        self.world, self.disk = world, world.first_disk("store")
        self.store = SqliteStore(self.disk.db)
        self.backups: list[Disk] = []
        self.rng = world.rng("store")
        self.ask = False
        """a whole statement is due"""
        self._token = 0
        self._away_until = 0

    # ------------------------------------------------------------ the hub's loop about the store

    def wake(self, after_ms: int = 0) -> None:
        """Something may be lacking: look again soon."""
        self._token += 1
        self.world.after(after_ms, self._pump, self._token, self.world.hub.boots)

    def regularly(self) -> None:
        """A whole statement is asked for now and then (rule 10)."""
        self.ask = True
        self.wake()
        self.world.after(self.world.options.ask_store_ms, self.regularly)

    def _pump(self, token: int, boot: int) -> None:
        hub = self.world.hub
        if token != self._token or not hub.alive or boot != hub.boots:
            return
        if self.world.faulty and self.world.now < self._away_until:
            self.world.at(self._away_until, self._pump, token, boot)
            return
        if self.ask or not hub.core.asked_store:
            self.ask = False
            self._deliver(self.statement(None), True)
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
            self.disk.db.fail = how if how != "lost" else ""
            if how != "lost":
                self.store.apply(facts, records, hub.wall())
        except LedgerBroken:
            if how not in ("before", "after"):
                raise
            self.store = SqliteStore(self.disk.db)
        except LedgerFull:
            if not self.disk.db.filled:
                raise
            self.world.count("store apply fails (disk full)")
            self._reopen()
            return
        self.disk.db.fail = ""
        if how:
            self.world.count(f"store apply fails ({how})")
        self.world.check.store_applied(self.disk, facts)
        keys = list(dict.fromkeys([*(f.stream for f in facts), *(r.stream for r in records)]))
        self._deliver(self.statement(keys), False)

    def _reopen(self) -> None:
        """Nothing of the batch is there; the hub's shell tries again with back-off."""
        self.disk.db.fail = ""
        self.disk.db.rollback()
        self.store = SqliteStore(self.disk.db)
        self.wake(MINUTE)

    def away(self, for_ms: int) -> None:
        """It cannot be reached for a while."""
        self._away_until = max(self._away_until, self.world.now + for_ms)

    def statement(self, keys: Sequence[StreamKey] | None) -> Statement:
        """The store's own word, with what every restorable backup has."""
        said = self.store.statement(keys)
        if not self.world.options.backups:
            return said
        common = -1 if self.backups else 0
        for backup in self.backups:
            common &= backup.held
        return Statement(said.streams, self.world.check.truth.runs(common))

    def _deliver(self, statement: Statement, whole: bool) -> None:
        late = self.world.options.late_statement_ms if self.world.faulty else 0
        self._token += 1
        self.world.after(self.rng.randrange(late + 1), self._take, statement, whole, self.world.hub.boots)

    def _take(self, statement: Statement, whole: bool, boot: int) -> None:
        hub = self.world.hub
        if not hub.alive or boot != hub.boots:
            return
        crash = hub.crash_point()
        try:
            hub.core.begin()
            older = hub.core.take_statement(statement, whole=whole, now_ms=hub.wall())
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
        hub = self.world.hub
        self.world.say("store", f"gives back {[(k.node, r.first, r.last) for k, r in older]}")
        facts = [f for key, run in older for f in self.store.facts(key, run, GIVEN_BACK)]
        records = [r for key in dict.fromkeys(key for key, _ in older) for r in self.store.records(key)]
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

    # ------------------------------------------------------------ backups

    def backup(self) -> None:
        """Begin a backup; the oldest can no longer be restored."""
        self.backups.append(self.disk.copy("store backup"))
        for old in self.backups[:-BACKUPS_KEPT]:
            old.close()
        self.backups = self.backups[-BACKUPS_KEPT:]
        self.world.say("store", "is backed up")

    def restore(self) -> None:
        """The store comes back from a backup."""
        if not self.backups:
            return
        backup = self.rng.choice(self.backups)
        self.store.close()
        self.disk.gone = True
        self.disk = backup.copy("store")
        self.store = SqliteStore(self.disk.db)
        self.world.count("store restored")
        self.world.say("store", "is restored from a backup")
        self.world.check.destroyed()

    def close(self) -> None:
        """Let go of everything."""
        self.store.close()
        for backup in self.backups:
            backup.close()
