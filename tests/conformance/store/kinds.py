"""The implementations of the store port that the suite runs over. Another engine joins by adding its kind here."""

from __future__ import annotations

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

    def passes(self, data: st.DataObject) -> bool:
        """Whether to leave this example to the other kinds."""
        return data.draw(st.integers(1, self.sparse)) > 1


def _sqlite(driver: str) -> StoreKind:
    return StoreKind(
        f"sqlite-{driver}",
        lambda folder: SqliteStore(folder / "store.db", driver=driver),
        lambda folder: SqliteStore(folder / "store.db", read_only=True, driver=driver),
        lambda: SqliteStore(Db(":memory:", driver=driver)),
    )


class _Apart:
    """Stores in processes of their own. One that is made for a moment is a new database in a process that another has left."""

    def __init__(self) -> None:
        self._free: list[_ApartInMemory] = []

    def scratch(self) -> CentralStore:
        store = self._free.pop() if self._free else _ApartInMemory(Path(":memory:"), shipped())
        store.pool = self._free
        store.begin_anew()
        return store

    def end(self) -> None:
        """End the processes that wait."""
        for store in self._free:
            store.pool = None
            store.close()
        self._free = []


class _ApartInMemory(ApartStore):
    pool: list[_ApartInMemory] | None = None

    def begin_anew(self) -> None:
        self._call("open", ":memory:", shipped(), False)

    def close(self) -> None:
        if self.pool is None:
            super().close()
        else:
            self.pool.append(self)


APART: Final = _Apart()


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


def _apart() -> StoreKind:
    return StoreKind(
        "sqlite-apart",
        lambda folder: ApartStore(folder / "store.db", shipped()),
        lambda folder: SqliteStore(folder / "store.db", read_only=True),
        APART.scratch,
        APART.end,
        sparse=6,
    )


KINDS: Final[tuple[Any, ...]] = (
    *(pytest.param(_sqlite(driver), id=f"sqlite-{driver}") for driver in DRIVERS),
    pytest.param(_apart(), id="sqlite-apart"),
    pytest.param("postgres", id="postgres", marks=needs("postgres")),
)
"""what the suite runs over; a server is started when the first test needs it"""
