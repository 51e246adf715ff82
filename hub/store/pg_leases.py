"""What the workers of a hub share, in PostgreSQL: the tables of `hub.store.leases` beside the store's, on a connection of their own.

The store's clock is the server's. Every transaction locks one row first, so that READ COMMITTED is enough: what it reads stays true.
"""

from __future__ import annotations

from typing import Final

from hub.store.leases import Leases, SqlLeases, tables
from hub.store.pg import Pg, Server
from protocols.errors import LongshoreError

_CLOCK: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_LOCK: Final = "SELECT pg_advisory_xact_lock(7305528)"
"""whoever makes the tables; of two that come first at once one does"""
_LIMIT_MS: Final = 5_000
"""a lease does not wait for long: the next round asks again"""


def postgres_leases(server: Server, partitions: int) -> Leases:
    """The lease table, made where there is none. Errors: ConfigError, LedgerError."""
    db = Pg(server)
    try:
        db.limit(_LIMIT_MS)
        db.run(f"SET idle_in_transaction_session_timeout = {_LIMIT_MS}")  # a worker that is stopped in the midst holds up nobody for long
        _make(db)
        return SqlLeases(db, lambda: _clock_ms(db), partitions)
    except LongshoreError:
        db.close()
        raise


def _make(db: Pg) -> None:
    db.begin()
    try:
        db.query(_LOCK)
        found = db.one("SELECT to_regclass('worker_numbers') IS NOT NULL")
        if not (found and found[0]):
            for statement in tables("bigint", "bytea"):
                db.run(statement)
        db.commit()
    finally:
        db.rollback()


def _clock_ms(db: Pg) -> int:
    row = db.one(_CLOCK)
    assert row is not None
    return int(row[0])
