"""The implementations of the store port that the suite runs over. Another engine joins by adding its kind here."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import strategies as st

from hub.store.apart import ApartStore
from hub.store.pg import Server
from hub.store.port import CentralStore
from hub.store.postgres import PostgresStore
from hub.store.sqlite import SqliteStore
from protocols.policies import shipped
from protocols.sqlite import DRIVERS, Db
from tests.support.engines.postgres import Postgres
from tests.support.needs import needs

DRAWN: Final = 2**20


@dataclass(frozen=True)
class StoreKind:
    """How to have a store of one kind: `open` one that lasts in a folder, open it again to read beside it, or make one for a moment."""

    name: str
    open: Callable[[Path], CentralStore]
    reader: Callable[[Path], CentralStore]
    scratch: Callable[[], CentralStore]
    give_back: Callable[[], None] = lambda: None
    """after a test: no folder needs its store any more"""
    sparse: int = 1
    """a server takes a hundredth of a second for each batch: it gets one in so many of the random examples"""

    def leaves(self, seed: int) -> bool:
        """Whether to leave this seed to the other kinds."""
        return seed % self.sparse > 0

    def passes(self, data: st.DataObject) -> bool:
        """Whether to leave this example to the other kinds. Drawn from many: Hypothesis gives no example twice, so that of few numbers all
        that leave it are soon spent, and the rest would not."""
        return self.sparse > 1 and data.draw(st.integers(0, DRAWN)) % self.sparse > 0


def reference() -> CentralStore:
    """A store for a moment, of the kind that costs least: what any other says is compared with it."""
    return SqliteStore(Db(":memory:"))


def _sqlite(driver: str) -> StoreKind:
    return StoreKind(
        f"sqlite-{driver}",
        lambda folder: SqliteStore(folder / "store.db", driver=driver),
        lambda folder: SqliteStore(folder / "store.db", read_only=True, driver=driver),
        lambda: SqliteStore(Db(":memory:", driver=driver)),
    )


class Processes:
    """Stores in processes of their own. Each opens one store after another: a start costs more than all that most tests do.

    `READY` of them live as long as the session; a test that needs more has more, which end with it.
    """

    READY: Final = 2

    def __init__(self) -> None:
        self._lasting = [_Lent(Path(":memory:"), shipped()) for _ in range(self.READY)]
        self._free = list(self._lasting)

    def open(self, path: Path) -> CentralStore:
        """A store whose process gets back into the pool when it is closed. Errors: as `ApartStore`."""
        store = self._free.pop() if self._free else _Lent(Path(":memory:"), shipped())
        store.lend(path, self._free)
        return store

    def give_back(self) -> None:
        """End those that were started for a test."""
        for store in self._free:
            if store not in self._lasting:
                store.end()
        self._free = [store for store in self._free if store in self._lasting]

    def end(self) -> None:
        """End them all."""
        for store in {id(store): store for store in (*self._lasting, *self._free)}.values():
            store.end()


class _Lent(ApartStore):
    pool: list[_Lent] | None = None

    def lend(self, path: Path, pool: list[_Lent]) -> None:
        self._path, self.pool = path, pool
        self._call("open", os.fspath(path), shipped(), False)

    def close(self) -> None:
        pool, self.pool = self.pool, None
        if pool is not None:
            self._call("close")
            pool.append(self)

    def end(self) -> None:
        super().close()


class Databases:
    """Databases of one server, of an ordinary user: one for each folder, and some that are emptied and used again."""

    def __init__(self, postgres: Postgres) -> None:
        self.postgres = postgres
        self._by_folder: dict[Path, Server] = {}
        self._free: list[Server] = []
        self._made = 0

    def _take(self) -> Server:
        if self._free:
            return self._free.pop()
        self._made += 1
        return self.postgres.server(f"store-{self._made}")

    def of(self, folder: Path) -> Server:
        """The database of a folder."""
        if folder not in self._by_folder:
            self._by_folder[folder] = server = self._take()
            _Scratch(server).close()
        return self._by_folder[folder]

    def scratch(self) -> CentralStore:
        """An empty store that gives its database back when it is closed."""
        server = self._take()
        store = _Scratch(server)
        store.when_closed = lambda: self._free.append(server)
        return store

    def give_back(self) -> None:
        """No folder needs its database any more."""
        self._free += self._by_folder.values()
        self._by_folder = {}


_TABLES: Final = (
    "streams", "log", "orders", "states", "oddities", "unsure", "quarantine", "fixes", "clashes", "closures", "backups", "offsets",
)  # fmt: skip


class _Scratch(PostgresStore):
    when_closed: Callable[[], None] | None = None

    def _open(self) -> None:
        super()._open()
        self._db.run("SET synchronous_commit = off")  # nobody opens it again
        for table in _TABLES:
            self._db.run(f"DELETE FROM {table}")

    def close(self) -> None:
        super().close()
        done, self.when_closed = self.when_closed, None
        if done is not None:
            done()


def on_postgres(databases: Databases) -> StoreKind:
    """The kind over a server's databases."""
    return StoreKind(
        "postgres",
        lambda folder: PostgresStore(databases.of(folder)),
        lambda folder: PostgresStore(databases.of(folder), read_only=True),
        databases.scratch,
        databases.give_back,
        sparse=3,
    )


def apart(processes: Processes) -> StoreKind:
    """The kind in processes of their own."""
    return StoreKind(
        "sqlite-apart",
        lambda folder: processes.open(folder / "store.db"),
        lambda folder: SqliteStore(folder / "store.db", read_only=True),
        lambda: processes.open(Path(":memory:")),
        processes.give_back,
        sparse=6,
    )


KINDS: Final[tuple[Any, ...]] = (
    *(pytest.param(_sqlite(driver), id=f"sqlite-{driver}") for driver in DRIVERS),
    pytest.param("sqlite-apart", id="sqlite-apart"),
    pytest.param("postgres", id="postgres", marks=needs("postgres")),
)
"""what the suite runs over; processes and a server are started when the first test needs them"""
