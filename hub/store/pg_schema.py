"""Bringing a database on PostgreSQL forward: migrations that only ever go forward, one process at a time."""

from __future__ import annotations

from typing import Final

from hub.store.pg import Pg
from hub.store.schema_pg import PART, STORE_PG
from protocols.errors import ConfigError

_LOCK: Final = 7_163_021_985_442
"""of the advisory lock: two processes that start at once make one schema"""
_VERSIONS: Final = 'CREATE TABLE IF NOT EXISTS versions (part text COLLATE "C" PRIMARY KEY, version integer NOT NULL)'


def version(db: Pg) -> int:
    """The version of the store in a database; 0 where there is none."""
    # not to_regclass: it may answer from what it remembers, although another process made the table while this one waited for the lock
    if db.one("SELECT 1 FROM pg_tables WHERE tablename='versions' AND schemaname=current_schema()") is None:
        return 0
    row = db.one("SELECT version FROM versions WHERE part=?", (PART,))
    return int(row[0]) if row else 0


def migrate(db: Pg) -> tuple[int, int]:
    """Bring the store to this version, in one transaction. Returns the version it had and the one it has. Errors: ConfigError: it is newer
    than this program."""
    if version(db) == len(STORE_PG):
        return len(STORE_PG), len(STORE_PG)
    db.begin()
    try:
        db.run("SELECT pg_advisory_xact_lock(?)", (_LOCK,))
        have = version(db)
        refuse_newer(db, have)
        for step in STORE_PG[have:]:
            for statement in (_VERSIONS, *step):
                db.run(statement)
        db.run(
            "INSERT INTO versions (part, version) VALUES (?, ?) ON CONFLICT (part) DO UPDATE SET version=excluded.version",
            (PART, len(STORE_PG)),
        )
        db.commit()
    finally:
        db.rollback()
    return have, len(STORE_PG)


def refuse_newer(db: Pg, have: int) -> None:
    """Errors: ConfigError."""
    if have > len(STORE_PG):
        raise ConfigError(
            f"{db.place}: the store is of version {have}, this program knows up to {len(STORE_PG)}",
            remedy="upgrade Longshore on this machine",
        )


def check(db: Pg) -> None:
    """For readers. Errors: ConfigError: not of this version."""
    have = version(db)
    refuse_newer(db, have)
    if have != len(STORE_PG):
        raise ConfigError(
            f"{db.place}: the store is {f'of version {have}' if have else 'not made yet'}",
            remedy="start the hub of this version once, or run longshore-hub store migrate: it brings the store up to date",
        )
