"""How a hub opens its ledger: like any ledger, with room for what a backlog touches."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from protocols.sqlite import Db

CACHE_KIB: Final = 64_000
"""orders of a backlog lie all over three indexes (by id, by site and k, by k): with 16 MB their pages are read again for each batch"""
CHECKPOINT_PAGES: Final = 4_000
"""16 MB, as large as the WAL is allowed to stay: the same hot pages of several commits are moved into the file once"""


def open_ledger(path: str | Path) -> Db:
    """The database of a hub's ledger. Errors: LedgerError, ConfigError."""
    db = Db(path)
    db.run(f"PRAGMA cache_size=-{CACHE_KIB}")
    db.query(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
    return db
