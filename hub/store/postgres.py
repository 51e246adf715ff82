"""The central store on PostgreSQL: for several writers at once, each with a connection of its own.

Writers are projectors that own whole orders by their partitions while streams are shared by all; or the one hub without a bus. Nothing is
kept in memory between two batches that another writer could change. What is held is read from the primary key of the log (`pg_held`), at
one moment with the list of backups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from hub.store import pg_schema
from hub.store.backups import Backup, Backups
from hub.store.offsets import Advance, Offset, Offsets
from hub.store.pg import LONG, STATEMENT_MS, Pg, Raced, Refused, Server
from hub.store.pg_batch import PgBatch
from hub.store.pg_held import Held, facts_of, stated, twins
from hub.store.pg_log import PgLog
from hub.store.pg_queries import PgQueries
from hub.store.pg_shelf import STAGED, PgShelf
from hub.store.port import (
    Applied,
    Statement,
    StoreFact,
    StoreRecord,
    StreamCounts,
)
from hub.store.reading import read_all
from hub.store.rebuild import Step, Tell, rebuild
from hub.store.statement import closed_by_records, read_facts
from hub.store.view import ViewBook
from hub.store.views import StoreViews
from protocols.chains import RunKind
from protocols.errors import ConfigError, LedgerBroken, LedgerError, LongshoreError
from protocols.messages import RunStated
from protocols.policies import shipped
from protocols.policy import Policies
from protocols.streams import Stream, StreamKey

T = TypeVar("T")
DOUBT: Final = 16
TRIES: Final = 8
"""of a batch beside other writers"""
_WRITER: Final = ("SET random_page_cost = 1.1", "SET enable_hashjoin = off", "SET enable_mergejoin = off", *STAGED)
"""a batch asks for thousands of rows by their keys: reading a whole table for them is never right"""
_ASIDE: Final = """SELECT q.sid, count(*), count(f.seq) FROM quarantine q LEFT JOIN fixes f USING (sid, seq, h) GROUP BY q.sid"""
"""by stream: what is in quarantine, and what of that was put right or given up"""


class PostgresStore(StoreViews):
    """See `hub.store.port.CentralStore` and the module."""

    def __init__(self, server: Server, *, read_only: bool = False, backup_required: bool = False, policies: Policies | None = None) -> None:
        self._read_only, self._backup_required, self._policies = read_only, backup_required, policies or shipped()
        self._broken = False
        self._doubt = DOUBT
        """so many batches are asked about first: what was sent once comes again after a start, or because it was lost"""
        self._told: dict[tuple[str, int, int], tuple[int, int]] | None = None
        self._tally: dict[int, tuple[object, tuple[int, int], StreamCounts]] = {}
        self._db = Pg(server)
        try:
            self._open()
        except Refused as e:
            self._db.close()
            raise ConfigError(e.reason, remedy=e.remedy) from None
        except LongshoreError:
            self._db.close()
            raise

    def _open(self) -> None:
        if self._read_only:
            pg_schema.check(self._db)
        else:
            pg_schema.migrate(self._db)
            for setting in _WRITER:
                self._db.run(setting)
        self._queries = PgQueries(self._db, self._policies)
        self._held = Held(self._db)
        if not self._read_only:
            self._transaction(self._adopt_policies)

    def _adopt_policies(self, _careful: bool) -> None:
        """One process at a time; the others then find it done."""
        self._db.run("LOCK TABLE meta IN SHARE ROW EXCLUSIVE MODE")
        self._careful_book().adopt_policies()

    def _careful_book(self) -> ViewBook:
        """A view of any orders, while no stream with branches changes."""
        log = PgLog(self._db, careful=True)
        log.load_forked()
        log.lock([stream.sid for stream in log.all()])
        return ViewBook(self._db, log, PgShelf(self._db, careful=True), policies=self._policies)

    # ------------------------------------------------------------ applying

    def apply(self, facts: Sequence[StoreFact], records: Sequence[StoreRecord], now_ms: int, offsets: Advance | None = None) -> Applied:
        """See `CentralStore.apply`."""
        read = read_all(facts)

        def work(careful: bool) -> Applied:
            if careful:
                self._doubt = DOUBT
            return PgBatch(self._db, self._policies, now_ms, careful=careful, doubt=self._doubt > 0).take(facts, records, read, offsets)

        applied = self._transaction(work)
        self._doubt = DOUBT if applied.known else max(0, self._doubt - 1)
        return applied

    def rebuild(self, now_ms: int, tell: Tell) -> int:
        """See `hub.store.rebuild`. Others may go on writing."""

        def transaction(step: Step) -> int | None:
            return self._transaction(lambda _: step(self._db, self._careful_book()))

        self._db.limit(LONG)  # some steps look at every order once
        try:
            return rebuild(transaction, self._db, now_ms, tell)
        finally:
            if self._db.alive:
                self._db.limit(STATEMENT_MS)

    def claim(self, topic: str, partition: int, fence: int) -> int | None:
        """See `CentralStore.claim`."""
        return self._transaction(lambda _: Offsets(self._db).claim(topic, partition, fence))

    def offsets(self) -> list[Offset]:
        """See `CentralStore.offsets`."""
        return Offsets(self._db).all()

    def _transaction(self, work: Callable[[bool], T]) -> T:
        """One transaction, again from its start where another came between; `work` is told then to be careful. After a failure that is not
        the caller's the store is not used again: nobody knows what became of it."""
        self._may_write()
        for attempt in range(TRIES):
            try:
                return self._once(work, careful=attempt > 0)
            except Raced:
                if attempt == TRIES - 1:
                    raise
        raise AssertionError("the last try returns or raises")

    def _once(self, work: Callable[[bool], T], *, careful: bool) -> T:
        self._broken = True
        try:
            self._db.begin()
            done = work(careful)
            self._db.commit()
        except LongshoreError as e:
            self._broken = isinstance(e, LedgerBroken)
            raise
        else:
            self._broken = False
        finally:
            self._db.rollback()
        return done

    def _may_write(self) -> None:
        if self._read_only:
            raise LedgerError(f"{self._db.place} was opened only to read", remedy="apply on a writer's connection")
        if self._broken:
            raise LedgerBroken(f"{self._db.place}: an earlier batch failed", remedy="close the store and open it again")

    # ------------------------------------------------------------ what is held

    def statement(self, streams: Sequence[StreamKey] | None = None) -> Statement:
        """See `CentralStore.statement`."""
        with self._db.moment():
            found = {stream.key: stated(stream) for stream in self._held.read(streams)}
            backed_up, newest_ms = self._held.backed_up(streams, required=self._backup_required)
        state = found if streams is None else {key: found.get(key, ()) for key in streams}
        return Statement(state, backed_up, newest_ms is not None, newest_ms)

    def still_there(self) -> None:
        """See `hub.store.port.MayBeAway`."""
        self._db.ping()

    def news(self) -> list[StreamKey]:
        """See `hub.asking.TellsNews`: by the counts that each batch moves."""
        rows = self._db.query("SELECT node, epoch, cls, facts, records FROM streams")
        before, self._told = self._told, {(row[0], row[1], row[2]): (row[3], row[4]) for row in rows}
        return [] if before is None else [StreamKey(*key) for key, state in self._told.items() if before.get(key) != state]

    def facts(self, stream: StreamKey, run: RunStated, limit: int) -> list[StoreFact]:
        """See `CentralStore.facts`."""
        with self._db.moment():
            self._held.read([stream])
            return read_facts(self._db, self._held.log, stream, run, limit)

    def records(self, stream: StreamKey) -> list[StoreRecord]:
        """See `CentralStore.records`: those of which some part still stands, data having superseded the rest."""
        with self._db.moment():
            for one in self._held.read([stream]):
                standing = [r for r in one.chain.runs if r.kind is not RunKind.DATA]
                rows = self._db.query(
                    """SELECT first, h_before, last, h_last, kind, signed, received_ms FROM closures WHERE sid=?
                       ORDER BY first, last, h_last""",
                    (one.sid,),
                )
                return [
                    StoreRecord(stream, first, h_before, last, h_last, RunKind(kind), signed, at)
                    for first, h_before, last, h_last, kind, signed, at in rows
                    if any(r.kind == kind and r.first >= first and r.last <= last for r in standing)
                ]
        return []

    def counts(self) -> list[StreamCounts]:
        """See `CentralStore.counts`: of the runs as they were read from the primary key of the log."""
        with self._db.moment():
            self._held.read(None)
            return self._counts()

    def counts_said(self) -> list[StreamCounts] | None:
        """See `hub.store.port.TellsCounts`: nothing of the log is read for it, only what stepped aside."""
        return None if self._held.known() is None else self._counts()

    def _counts(self) -> list[StreamCounts]:
        """Of what was read. Made anew for a stream where that has changed, or what stepped aside of it."""
        aside: dict[int, tuple[int, int]] = {sid: (bad, fixed) for sid, bad, fixed in self._db.query(_ASIDE)}
        known = self._held.known() or []
        before, self._tally = self._tally, {}
        for stream, mark in known:
            at = before.get(stream.sid)
            mine = aside.get(stream.sid, (0, 0))
            self._tally[stream.sid] = at if at is not None and at[0] is mark and at[1] == mine else (mark, mine, _count(stream, mine))
        counted = (self._tally[s.sid][2] for s, _ in sorted(known, key=lambda one: (one[0].key.node, one[0].sid)) if s.chain.runs)
        return list(counted)

    # ------------------------------------------------------------ backups of it

    def backups(self) -> list[Backup]:
        """See `CentralStore.backups`."""
        return self._list().rows()

    def begin_backup(self, backup_id: str, tool: str, place: str, now_ms: int) -> Backup:
        """See `CentralStore.begin_backup`. What it covers is read before, at a moment of its own: rows are never deleted, so all of that is
        there when the first byte is copied, and a statement made meanwhile names nothing that will not be."""
        with self._db.moment():
            cover = {stream.key: stated(stream) for stream in self._held.read(None)}
        return self._transaction(lambda _: self._list().begin(backup_id, tool, place, cover, now_ms))

    def complete_backup(self, backup_id: str, now_ms: int) -> Backup:
        """See `CentralStore.complete_backup`."""
        return self._transaction(lambda _: self._list().complete(backup_id, now_ms))

    def expire_backup(self, backup_id: str, now_ms: int) -> Backup:
        """See `CentralStore.expire_backup`."""
        return self._transaction(lambda _: self._list().expire(backup_id, now_ms))

    def merge_backups(self, others: Iterable[Backup]) -> list[Backup]:
        """See `CentralStore.merge_backups`."""
        known = list(others)
        return self._transaction(lambda _: self._list().merge(known))

    def _list(self) -> Backups:
        return Backups(self._db, self._held.log)

    def close(self) -> None:
        """Release the connection. Idempotent."""
        self._db.close()


def _count(stream: Stream, aside: tuple[int, int]) -> StreamCounts:
    """`aside`: as of now, and so perhaps ahead of what was read of the stream."""
    facts = facts_of(stream)
    bad = min(aside[0], facts)
    return StreamCounts(stream.key, facts - bad, bad, closed_by_records(stream.chain.runs), twins(stream), min(aside[1], bad))
