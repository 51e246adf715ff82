"""The central store in one SQLite file: the embedded default.

One writer applies; any number of read-only connections (`SqliteStore(path, read_only=True)`, one per thread) read the state after some
commit while it does. The log is the truth: counts and the statement are read from its primary key, the view is a fold of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from hub.store.backups import Backup, Backups
from hub.store.batch import Batch
from hub.store.log import StoreLog
from hub.store.offsets import Advance, Offset, Offsets
from hub.store.port import (
    Applied,
    Statement,
    StoreFact,
    StoreRecord,
    StreamCounts,
)
from hub.store.rebuild import Step, Tell, rebuild
from hub.store.schema import STORE, has_text_index, make_text_index
from hub.store.shelf import SqliteShelf
from hub.store.sqlite_queries import SqliteQueries
from hub.store.statement import Verified
from hub.store.view import CACHED_ORDERS, ViewBook
from hub.store.views import StoreViews
from protocols.errors import ConfigError, Fenced, LedgerBroken, LedgerBusy, LedgerError, LedgerFull, LongshoreError
from protocols.messages import RunStated
from protocols.policies import shipped
from protocols.policy import Policies
from protocols.schema import migrate, version
from protocols.sqlite import DRIVERS, Db
from protocols.streams import StreamKey

T = TypeVar("T")
_PART: Final = "store"
_CACHE_KIB: Final = 64_000
"""a batch of a backlog touches thousands of pages all over the view; fewer would be written more than once in one commit"""
_CHECKPOINT_PAGES: Final = 4_000
"""as large as the WAL is allowed to stay (16 MB): the same hot pages of several batches are moved into the file once"""


class SqliteStore(StoreViews):
    """See `hub.store.port.CentralStore` and the module. `at`: the file, or an open database that the store takes over."""

    _queries: SqliteQueries

    def __init__(
        self,
        at: str | Path | Db,
        *,
        read_only: bool = False,
        driver: str = DRIVERS[0],
        cached: int = CACHED_ORDERS,
        backup_required: bool = False,
        policies: Policies | None = None,
        shared: bool = False,
    ) -> None:
        """`shared`: other processes write this file, too; what is in memory is read again whenever one of them did."""
        self._db = at if isinstance(at, Db) else Db(at, read_only=read_only, driver=driver, shrinks=False)
        self._backup_required, self._policies = backup_required, policies or shipped()
        self._read_only, self._cached = read_only, cached
        self._broken = False
        self._shared, self._version_seen = shared and not read_only, -1
        self._told: dict[int, tuple[int, ...]] | None = None
        try:
            self._open()
        except LongshoreError:
            self._db.close()
            raise

    def _open(self) -> None:
        if self._read_only:
            self._check_version()
        else:
            self._prepare()
        self._text_index = has_text_index(self._db)
        self._queries = SqliteQueries(self._db, text_index=self._text_index, snapshots=self._read_only, policies=self._policies)
        self._load()
        if not self._read_only:
            self._db.begin()
            self._book.adopt_old()
            self._book.adopt_policies()
            self._db.commit()

    def _prepare(self) -> None:
        self._db.run(f"PRAGMA cache_size=-{_CACHE_KIB}")
        self._db.query(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        migrate(self._db, STORE, part=_PART)
        self._db.begin()
        make_text_index(self._db)
        self._db.commit()

    def _check_version(self) -> None:
        if version(self._db, _PART) != len(STORE):
            raise ConfigError(
                f"{self._db.path} was not made by this version", remedy="start the hub of this version once: it brings the store up to date"
            )

    def _load(self) -> None:
        """What the writer keeps in memory, from disk."""
        self._log = StoreLog(self._db)
        self._verified = Verified(self._db, self._log)
        self._backups = Backups(self._db, self._log)
        if not self._read_only:
            shelf = SqliteShelf(self._db, text_index=self._text_index)
            self._book = ViewBook(self._db, self._log, shelf, policies=self._policies, cached=self._cached)
            self._closing = dict.fromkeys(sid for (sid,) in self._db.query("SELECT DISTINCT sid FROM closures"))

    def _catch_up(self) -> None:
        """Where another process committed since this connection last looked, its memory is of no use any more."""
        if not self._shared:
            return
        row = self._db.one("PRAGMA data_version")
        found = int(row[0]) if row else 0
        if found != self._version_seen:
            self._version_seen = found
            counted = self._verified.counted
            self._load()
            self._verified.counted = counted  # rows never go

    # ------------------------------------------------------------ applying

    def apply(self, facts: Sequence[StoreFact], records: Sequence[StoreRecord], now_ms: int, offsets: Advance | None = None) -> Applied:
        """See `CentralStore.apply`."""
        if self._read_only:
            raise LedgerError(f"{self._db.path} was opened only to read", remedy="apply on the writer's connection")
        if self._broken:
            raise LedgerBroken(f"{self._db.path}: an earlier batch failed", remedy="close the store and open it again")
        self._db.begin()
        self._broken, retry = True, False
        try:
            self._catch_up()
            if offsets is not None:
                Offsets(self._db).advance(offsets)
            applied = Batch(self._db, self._log, self._book, self._closing, now_ms).take(facts, records)
            self._commit()
            self._broken = False
        except (LedgerBusy, LedgerFull, Fenced):
            retry = True  # nothing was stored, and a later batch may find room, or come from whose turn it is
            raise
        finally:
            if self._broken:
                self._undo()
                self._broken = not retry
        return applied

    def rebuild(self, now_ms: int, tell: Tell) -> int:
        """See `hub.store.rebuild`."""

        def transaction(step: Step) -> int | None:
            return self._change(lambda: step(self._db, self._book))

        try:
            return rebuild(transaction, self._db, now_ms, tell)
        finally:
            self._load()  # orders that are kept in memory are not what they were

    def claim(self, topic: str, partition: int, fence: int) -> int | None:
        """See `CentralStore.claim`."""
        return self._change(lambda: Offsets(self._db).claim(topic, partition, fence))

    def offsets(self) -> list[Offset]:
        """See `CentralStore.offsets`."""
        return Offsets(self._db).all()

    def _commit(self) -> None:
        """Once a commit has failed, whatever the reason, the connection is not trusted any more."""
        try:
            self._db.commit()
        except LedgerError as e:
            raise LedgerBroken(f"{self._db.path}: the commit failed: {e.reason}", remedy="close the store and open it again") from e

    def _undo(self) -> None:
        """Back to what is on disk, in memory too. What a failed commit left open is closed with the connection."""
        self._db.rollback()
        self._load()

    # ------------------------------------------------------------ what is held

    def _fresh(self) -> Verified:
        """A reader's runs are as of now: it has no part in the writer's memory. What was counted stays counted: rows never go."""
        if self._read_only:
            counted = self._verified.counted
            self._load()
            self._verified.counted = counted
        self._catch_up()
        return self._verified

    def statement(self, streams: Sequence[StreamKey] | None = None) -> Statement:
        """See `CentralStore.statement`."""
        with self._queries.moment():
            state = self._fresh().state(streams)
            backed_up = self._backups.backed_up(streams, required=self._backup_required)
            newest_ms = self._backups.newest_ms
            return Statement(state, backed_up, newest_ms is not None, newest_ms)

    def news(self) -> list[StreamKey]:
        """See `hub.asking.TellsNews`: by what the table of runs says of each stream."""
        rows = self._db.query("SELECT sid, sum(last), sum(first), count(*) FROM runs GROUP BY sid")
        before, self._told = self._told, {sid: tuple(state) for sid, *state in rows}
        if before is None:
            return []
        self._fresh()
        return [self._log.by_sid(sid).key for sid, state in self._told.items() if before.get(sid) != state]

    def facts(self, stream: StreamKey, run: RunStated, limit: int) -> list[StoreFact]:
        """See `CentralStore.facts`."""
        with self._queries.moment():
            return self._fresh().facts(stream, run, limit)

    def records(self, stream: StreamKey) -> list[StoreRecord]:
        """See `CentralStore.records`."""
        return self._queries.records(stream)

    def counts(self) -> list[StreamCounts]:
        """See `CentralStore.counts`."""
        return self._queries.counts()

    # ------------------------------------------------------------ backups of it

    def backups(self) -> list[Backup]:
        """See `CentralStore.backups`."""
        return Backups(self._db, self._log).rows() if self._read_only else self._backups.rows()

    def begin_backup(self, backup_id: str, tool: str, place: str, now_ms: int) -> Backup:
        """See `CentralStore.begin_backup`."""
        return self._change(lambda: self._backups.begin(backup_id, tool, place, self._verified.state(None), now_ms))

    def complete_backup(self, backup_id: str, now_ms: int) -> Backup:
        """See `CentralStore.complete_backup`."""
        return self._change(lambda: self._backups.complete(backup_id, now_ms))

    def expire_backup(self, backup_id: str, now_ms: int) -> Backup:
        """See `CentralStore.expire_backup`."""
        return self._change(lambda: self._backups.expire(backup_id, now_ms))

    def merge_backups(self, others: Iterable[Backup]) -> list[Backup]:
        """See `CentralStore.merge_backups`."""
        return self._change(lambda: self._backups.merge(others))

    def _change(self, work: Callable[[], T]) -> T:
        """One transaction on the list; memory goes back with the disk where it fails."""
        self._db.begin()
        try:
            self._catch_up()
            done = work()
            self._log.flush()
            self._commit()
        except LongshoreError:
            self._undo()
            raise
        return done

    def close(self) -> None:
        """Release the file. Idempotent."""
        self._db.close()
