"""The process behind `hub.store.apart`: `python -m hub.store.apart_process FD` holds one SQLite store and does what the line at FD says.

It ends when the line closes. Signals that end a whole group of processes are its owner's to answer: it has a batch to finish first.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from hub.child import leave_signals_to_owner
from hub.store.apart import BUG, DONE, FAILED, told
from hub.store.offsets import Advance
from hub.store.port import Applied, StoreFact, StoreRecord
from hub.store.sqlite import SqliteStore
from protocols.errors import LongshoreError
from protocols.policy import Policies
from protocols.starting import stays
from protocols.streams import StreamKey


class _Served:
    """A store, in words that travel."""

    def __init__(self) -> None:
        self._store: SqliteStore | None = None

    @property
    def store(self) -> SqliteStore:
        assert self._store is not None, "`open` comes first"
        return self._store

    def do(self, name: str, args: Sequence[Any]) -> Any:
        """One call of the owner's."""
        own = getattr(self, f"_{name}", None)
        return own(*args) if own is not None else getattr(self.store, name)(*args)

    def _open(self, path: str, policies: Policies, backup_required: bool) -> None:
        self._store = SqliteStore(path, policies=policies, backup_required=backup_required, shared=True)

    def _apply(self, keys: list[StreamKey], flat: list[Any], records: list[StoreRecord], now_ms: int, offsets: Advance | None) -> Applied:
        facts = [StoreFact(keys[number], *rest) for number, *rest in flat]
        return self.store.apply(facts, records, now_ms, offsets)

    def _conflicts(self, open_only: bool, limit: int) -> list[Any]:
        return list(self.store.conflicts(open_only=open_only, limit=limit))

    def close(self) -> None:
        if self._store is not None:
            self._store.close()


def serve(line: Connection) -> None:
    """Until the line closes."""
    served = _Served()
    try:
        while True:
            name, args = line.recv()
            line.send(_answer(served, name, args))
    except (EOFError, OSError):
        return  # the owner is gone, or has closed
    finally:
        served.close()


def _answer(served: _Served, name: str, args: Sequence[Any]) -> tuple[str, Any]:
    try:
        return DONE, served.do(name, args)
    except LongshoreError as error:
        return FAILED, told(error)
    except Exception:  # boundary: between two processes; the owner logs it and opens the store again
        return BUG, traceback.format_exc()


def main(argv: Sequence[str]) -> int:
    """`FD`: the line to the owner."""
    leave_signals_to_owner()
    stays()
    serve(Connection(int(argv[0])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
