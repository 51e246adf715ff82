"""The implementations of the store port that the suite runs over. Another engine joins by adding its kind here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hub.store.port import CentralStore
from hub.store.sqlite import SqliteStore
from protocols.sqlite import DRIVERS, Db


@dataclass(frozen=True)
class StoreKind:
    """How to have a store of one kind: `open` one that lasts in a folder, open it again to read beside it, or make one for a moment."""

    name: str
    open: Callable[[Path], CentralStore]
    reader: Callable[[Path], CentralStore]
    scratch: Callable[[], CentralStore]


def _sqlite(driver: str) -> StoreKind:
    return StoreKind(
        f"sqlite-{driver}",
        lambda folder: SqliteStore(folder / "store.db", driver=driver),
        lambda folder: SqliteStore(folder / "store.db", read_only=True, driver=driver),
        lambda: SqliteStore(Db(":memory:", driver=driver)),
    )


KINDS: Final = tuple(_sqlite(driver) for driver in DRIVERS)
