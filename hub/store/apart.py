"""The central store in a process of its own, as `CentralStore` for the one that owns it: the default of a hub with SQLite.

One interpreter cannot take what edges send and write the view of it at the same time. So the store's writer lives in a child, which holds
nothing but the file: it answers one call after the other over a socket pair, and ends when that closes, whatever became of its owner. It
inherits the lock of the data directory: while it writes, no other hub or command believes the data free, also when its owner was killed.

A child that ended is a `LedgerBroken` for whoever asks next; the store is then opened again like any other that failed.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from hub.child import end_child, start_child
from hub.store.backups import Backup
from hub.store.offsets import Advance, Offset
from hub.store.port import (
    Applied,
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
from protocols.errors import LedgerBroken, LongshoreError
from protocols.messages import RunStated
from protocols.policy import Policies
from protocols.streams import StreamKey

log = logging.getLogger(__name__)
COMMAND: Final = ("-m", "hub.store.apart_process")
END_S: Final = 20.0
"""a child that was told to end may still have a batch to write; beyond this it is killed, which loses nothing"""
DONE: Final = "done"
FAILED: Final = "failed"
BUG: Final = "bug"


class ApartStore:
    """See the module. Calls from several threads wait for each other."""

    def __init__(self, path: Path, policies: Policies, *, backup_required: bool = False, holds: Sequence[int] = ()) -> None:
        """Start the process and have it open the file. `holds`: descriptors that it inherits. Errors: ConfigError, LedgerError."""
        self._path = path
        self._lock = threading.Lock()
        self._process, ours = start_child(COMMAND, holds)
        self._line = Connection(ours.detach())
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._call("open", str(path), policies, backup_required)
            undo.pop_all()

    @property
    def pid(self) -> int:
        """Of the process that holds the file."""
        return self._process.pid

    def _call(self, name: str, *args: Any) -> Any:
        """Have it done there. Errors: what it raised there; LedgerBroken: the process is gone, or met a bug."""
        with self._lock:
            try:
                self._line.send((name, args))
                how, what = self._line.recv()
            except (EOFError, OSError) as error:
                raise LedgerBroken(f"{self._path}: the process of the store has ended", remedy="it is started again") from error
        if how == FAILED:
            raise _again(*what)
        if how == BUG:
            log.error("A bug in the process of the store:\n%s", what)
            raise LedgerBroken(f"{self._path}: internal error in the process of the store", remedy="close the store and open it again")
        return what

    def still_there(self) -> None:
        """See `MayBeAway`: a process that ended under an idle hub is noticed, and another started."""
        if self._process.poll() is not None:
            raise LedgerBroken(f"{self._path}: the process of the store has ended", remedy="it is started again")

    def close(self) -> None:
        """Have the process end, and wait for it. Idempotent."""
        with contextlib.suppress(OSError):
            self._line.close()
        end_child(self._process, END_S)

    # ------------------------------------------------------------ the port

    def apply(self, facts: Sequence[StoreFact], records: Sequence[StoreRecord], now_ms: int, offsets: Advance | None = None) -> Applied:
        """See `CentralStore`. What was read here is read again there: sending it would cost as much."""
        keys = {key: number for number, key in enumerate(dict.fromkeys(f.stream for f in facts))}
        flat = [(keys[f.stream], f.seq, f.h, f.prev, f.row, f.received_ms, f.quarantined) for f in facts]
        return self._call("apply", list(keys), flat, list(records), now_ms, offsets)  # type: ignore[no-any-return]

    def claim(self, topic: str, partition: int, fence: int) -> int | None:
        """See `CentralStore`."""
        return self._call("claim", topic, partition, fence)  # type: ignore[no-any-return]

    def offsets(self) -> list[Offset]:
        """See `CentralStore`."""
        return self._call("offsets")  # type: ignore[no-any-return]

    def statement(self, streams: Sequence[StreamKey] | None = None) -> Statement:
        """See `CentralStore`."""
        return self._call("statement", streams)  # type: ignore[no-any-return]

    def news(self) -> list[StreamKey]:
        """See `hub.asking.TellsNews`."""
        return self._call("news")  # type: ignore[no-any-return]

    def facts(self, stream: StreamKey, run: RunStated, limit: int) -> list[StoreFact]:
        """See `CentralStore`."""
        return self._call("facts", stream, run, limit)  # type: ignore[no-any-return]

    def records(self, stream: StreamKey) -> list[StoreRecord]:
        """See `CentralStore`."""
        return self._call("records", stream)  # type: ignore[no-any-return]

    def orders(self, query: OrderQuery) -> Page:
        """See `CentralStore`."""
        return self._call("orders", query)  # type: ignore[no-any-return]

    def order(self, org: str, order_id: str) -> OrderView | None:
        """See `CentralStore`."""
        return self._call("order", org, order_id)  # type: ignore[no-any-return]

    def find(self, order_id: str) -> list[OrderView]:
        """See `CentralStore`."""
        return self._call("find", order_id)  # type: ignore[no-any-return]

    def events(self, org: str, order_id: str) -> list[EventView]:
        """See `CentralStore`."""
        return self._call("events", org, order_id)  # type: ignore[no-any-return]

    def conflicts(self, *, open_only: bool = False, limit: int = 200) -> list[ConflictView]:
        """See `CentralStore`."""
        return self._call("conflicts", open_only, limit)  # type: ignore[no-any-return]

    def conflict(self, clash_id: str) -> ConflictView | None:
        """See `CentralStore`."""
        return self._call("conflict", clash_id)  # type: ignore[no-any-return]

    def disputed(self, org: str, order_id: str) -> Disputed:
        """See `CentralStore`."""
        return self._call("disputed", org, order_id)  # type: ignore[no-any-return]

    def judged_by(self) -> Policies:
        """See `CentralStore`."""
        return self._call("judged_by")  # type: ignore[no-any-return]

    def counts(self) -> list[StreamCounts]:
        """See `CentralStore`."""
        return self._call("counts")  # type: ignore[no-any-return]

    def totals(self) -> dict[str, int]:
        """See `CentralStore`."""
        return self._call("totals")  # type: ignore[no-any-return]

    def backups(self) -> list[Backup]:
        """See `CentralStore`."""
        return self._call("backups")  # type: ignore[no-any-return]

    def begin_backup(self, backup_id: str, tool: str, place: str, now_ms: int) -> Backup:
        """See `CentralStore`."""
        return self._call("begin_backup", backup_id, tool, place, now_ms)  # type: ignore[no-any-return]

    def complete_backup(self, backup_id: str, now_ms: int) -> Backup:
        """See `CentralStore`."""
        return self._call("complete_backup", backup_id, now_ms)  # type: ignore[no-any-return]

    def expire_backup(self, backup_id: str, now_ms: int) -> Backup:
        """See `CentralStore`."""
        return self._call("expire_backup", backup_id, now_ms)  # type: ignore[no-any-return]

    def merge_backups(self, others: Iterable[Backup]) -> list[Backup]:
        """See `CentralStore`."""
        return self._call("merge_backups", list(others))  # type: ignore[no-any-return]


def told(error: LongshoreError) -> tuple[type[LongshoreError], tuple[Any, ...], dict[str, Any]]:
    """An error on its way between two processes: its data, and not the call that made it."""
    return type(error), error.args, dict(vars(error))


def _again(kind: type[LongshoreError], args: tuple[Any, ...], data: dict[str, Any]) -> LongshoreError:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(data)
    return error
