"""Hits a PostgreSQL in the midst of a transaction, and knows that it did.

Transactions of a projector last milliseconds. So its server process is looked for while it has changed something and not ended, is stopped
there (SIGSTOP), and looked at again: when its transaction is still under way, it will be until the server is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Final

import psycopg

MEET_S: Final = 60.0
_WRITING: Final = "SELECT pid, backend_xid::text FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()"
_STILL: Final = "SELECT backend_xid::text FROM pg_stat_activity WHERE pid = %s"


def caught(dsn: str, password: str, within_s: float = MEET_S) -> bool:
    """Whether a process of the server now stands in the midst of a transaction that has written; False: none was met in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with contextlib.suppress(psycopg.Error):  # a server that is slow to answer is asked again
            return _meets(dsn, password, deadline)
    return False


def _meets(dsn: str, password: str, deadline: float) -> bool:
    with psycopg.connect(dsn, password=password, autocommit=True) as db:
        db.execute("SET statement_timeout = 20000")
        while time.monotonic() < deadline:
            for pid, xid in db.execute(_WRITING).fetchall():
                if _stops(db, pid, xid):
                    return True
    return False


def _stops(db: psycopg.Connection[tuple[object, ...]], pid: int, xid: str) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        still = False
        try:
            still = db.execute(_STILL, (pid,)).fetchone() == (xid,)
        finally:
            if not still:
                os.kill(pid, signal.SIGCONT)
        return still
    return False
