"""The central store for readers: a connection of its own for each thread that asks, beside the writer's.

The hub's loop owns the writer; pages and API ask from worker threads, and SQLite lets them read what was last committed while the next
batch is being written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from hub.store.backups import Backup
from hub.store.offsets import Advance, Offset
from hub.store.port import (
    Applied,
    CentralStore,
    ConflictView,
    Disputed,
    EventView,
    OrderQuery,
    OrderView,
    Page,
    Statement,
    StoreFact,
    StoreRecord,
    StreamCounts,
)
from protocols.errors import LedgerBroken, LedgerError
from protocols.messages import RunStated
from protocols.policy import Policies
from protocols.streams import StreamKey

T = TypeVar("T")


class Readers:
    """A `CentralStore` for reading from any thread. `open_reader` makes a connection; one that failed is made anew at the next question."""

    def __init__(self, open_reader: Callable[[], CentralStore]) -> None:
        self._open = open_reader
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._all: list[CentralStore] = []
        self._closed = False

    def _ask(self, question: Callable[[CentralStore], T]) -> T:
        store = getattr(self._mine, "store", None) or self._new()
        try:
            return question(store)
        except LedgerError:
            self._mine.store = None
            with self._lock:
                self._all = [one for one in self._all if one is not store]
            store.close()
            raise

    def _new(self) -> CentralStore:
        with self._lock:
            if self._closed:
                raise LedgerBroken("the hub is shutting down")
            store = self._open()
            self._all.append(store)
        self._mine.store = store
        return store

    def close(self) -> None:
        """Release every connection; call it when nobody asks any more. Idempotent."""
        with self._lock:
            self._closed = True
            stores, self._all = self._all, []
        for store in stores:
            store.close()

    # ------------------------------------------------------------ the port

    def statement(self, streams: Sequence[StreamKey] | None = None) -> Statement:
        """See `CentralStore`."""
        return self._ask(lambda store: store.statement(streams))

    def facts(self, stream: StreamKey, run: RunStated, limit: int) -> list[StoreFact]:
        """See `CentralStore`."""
        return self._ask(lambda store: store.facts(stream, run, limit))

    def records(self, stream: StreamKey) -> list[StoreRecord]:
        """See `CentralStore`."""
        return self._ask(lambda store: store.records(stream))

    def orders(self, query: OrderQuery) -> Page:
        """See `CentralStore`."""
        return self._ask(lambda store: store.orders(query))

    def order(self, org: str, order_id: str) -> OrderView | None:
        """See `CentralStore`."""
        return self._ask(lambda store: store.order(org, order_id))

    def find(self, order_id: str) -> list[OrderView]:
        """See `CentralStore`."""
        return self._ask(lambda store: store.find(order_id))

    def events(self, org: str, order_id: str) -> list[EventView]:
        """See `CentralStore`."""
        return self._ask(lambda store: store.events(org, order_id))

    def conflicts(self, *, open_only: bool = False, limit: int = 200) -> list[ConflictView]:
        """See `CentralStore`."""
        return self._ask(lambda store: store.conflicts(open_only=open_only, limit=limit))

    def conflict(self, clash_id: str) -> ConflictView | None:
        """See `CentralStore`."""
        return self._ask(lambda store: store.conflict(clash_id))

    def disputed(self, org: str, order_id: str) -> Disputed:
        """See `CentralStore`."""
        return self._ask(lambda store: store.disputed(org, order_id))

    def judged_by(self) -> Policies:
        """See `CentralStore`."""
        return self._ask(lambda store: store.judged_by())

    def counts(self) -> list[StreamCounts]:
        """See `CentralStore`."""
        return self._ask(lambda store: store.counts())

    def totals(self) -> dict[str, int]:
        """See `CentralStore`."""
        return self._ask(lambda store: store.totals())

    def backups(self) -> list[Backup]:
        """See `CentralStore`."""
        return self._ask(lambda store: store.backups())

    def begin_backup(self, backup_id: str, tool: str, place: str, now_ms: int) -> Backup:
        """Never: see `apply`."""
        raise LedgerBroken("this is a reader of the central store")

    def complete_backup(self, backup_id: str, now_ms: int) -> Backup:
        """Never: see `apply`."""
        raise LedgerBroken("this is a reader of the central store")

    def expire_backup(self, backup_id: str, now_ms: int) -> Backup:
        """Never: see `apply`."""
        raise LedgerBroken("this is a reader of the central store")

    def merge_backups(self, others: Iterable[Backup]) -> list[Backup]:
        """Never: see `apply`."""
        raise LedgerBroken("this is a reader of the central store")

    def offsets(self) -> list[Offset]:
        """See `CentralStore`."""
        return self._ask(lambda store: store.offsets())

    def claim(self, topic: str, partition: int, fence: int) -> int | None:
        """Never: see `apply`."""
        raise LedgerBroken("this is a reader of the central store")

    def apply(self, facts: Sequence[StoreFact], records: Sequence[StoreRecord], now_ms: int, offsets: Advance | None = None) -> Applied:
        """Never: there is one writer, and it is the hub's loop."""
        raise LedgerBroken("this is a reader of the central store")
