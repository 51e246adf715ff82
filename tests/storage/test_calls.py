"""System calls fail under the edge's ledger, the hub's ledger and the central store, one at a time or all for a minute: nobody hears yes to
what is not on disk, nothing crashes or spins, and when the disk works again everything goes on without an operator.

Here each series lets every so-manieth call fail; `python -m tests.storage --calls` sweeps all of them.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from protocols.errors import LedgerBroken, LedgerError, LedgerFull
from protocols.sqlite import Db
from tests.storage.faults import Plan, failing
from tests.storage.sweep import Series, all_series, sweep
from tests.storage.world import EDGE_FILE, STORE_FILE

STRIDES = {"pwrite": 31, "sync": 29, "pread": 23, "fcntl": 11, "fstat": 5}
SLOWER = 2
"""a hub makes twice the calls"""
OFTEN = ("pwrite", "sync")


@pytest.mark.parametrize("series", all_series(), ids=lambda s: s.name)
def test_calls_that_fail_cost_time_and_no_fact(series: Series) -> None:
    stride = STRIDES.get(series.kind, 2) * (1 if series.file == EDGE_FILE else SLOWER)
    first = 1 + (hash_of(series.name) % stride if series.kind in OFTEN else 0)
    done = sweep(series, stride=stride, first=first)
    assert not done.complaints, "\n".join(done.complaints)
    assert done.failed > 0
    if series.for_good and series.kind in OFTEN and series.file != STORE_FILE:
        assert done.refused > 0, "somebody must have heard that it does not work; while the store fails, nobody needs to"


def hash_of(name: str) -> int:
    """The same in each process."""
    return sum(name.encode())


# ------------------------------------------------------------ the failing itself


@pytest.mark.parametrize(("how", "expected"), [("EIO", LedgerBroken), ("ENOSPC", LedgerFull), ("short", LedgerFull)])
def test_a_write_fails_as_planned_and_leaves_what_was_committed(how: str, expected: type[LedgerError], tmp_path: Path) -> None:
    with failing(str(tmp_path), Plan("pwrite", 0)) as calls:
        assert written(tmp_path) == 3
    seen: list[type[LedgerError]] = []
    for nth in range(1, calls.seen["pwrite"] + 1):
        folder = tmp_path / f"{nth}"
        with failing(str(folder), Plan("pwrite", nth, how)) as again:
            try:
                written(folder)
            except LedgerError as error:
                seen.append(type(error))
        assert again.struck
        assert rows(folder) <= 3
    assert seen.count(expected) > 10


def test_a_sync_fails_between_two_writes(tmp_path: Path) -> None:
    with failing(str(tmp_path), Plan("sync", 0)) as calls:
        written(tmp_path)
    failures = 0
    for nth in range(1, calls.seen["sync"] + 1):
        folder = tmp_path / f"{nth}"
        with failing(str(tmp_path), Plan("sync", nth)) as again:
            try:
                written(folder)
            except LedgerBroken:
                failures += 1
        assert again.struck == 1
    assert failures >= 3, "each commit has a sync"


def test_nothing_fails_and_nothing_is_counted_afterwards(tmp_path: Path) -> None:
    with failing(str(tmp_path), Plan("pwrite", 1, for_good=True)) as calls, pytest.raises(LedgerError):
        written(tmp_path)
    seen = dict(calls.seen)
    assert written(tmp_path / "after") == 3
    assert calls.seen == seen
    assert not [fd for fd in os.listdir("/proc/self/fd") if "eventfd" in _link(fd)]


def _link(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def test_the_table_has_what_is_swept() -> None:
    """`fallocate` is in the table of builds that use it; this one does not, so there is nothing to fail."""
    import apsw

    vfs = apsw.VFS("unix-table", "unix")
    try:
        names = [name for name in ("open", "ftruncate", "fstat", "fcntl", "mmap", "unlink", "fallocate") if vfs.xGetSystemCall(name)]
    finally:
        vfs.unregister()
    assert names == ["open", "ftruncate", "fstat", "fcntl", "mmap", "unlink"]
    assert sqlite3.sqlite_version  # the other driver has a SQLite of its own, whose table cannot be reached from Python


def written(folder: Path) -> int:
    """Three transactions; how many rows they made."""
    folder.mkdir(exist_ok=True)
    db = Db(folder / "a.db")
    try:
        for i in range(3):
            db.begin()
            db.run("CREATE TABLE IF NOT EXISTS t (x)")
            db.run("INSERT INTO t VALUES (?)", (i,))
            db.commit()
        found = db.one("SELECT count(*) FROM t")
        return int(found[0]) if found else 0
    finally:
        db.close()


def rows(folder: Path) -> int:
    """What is there when the disk works again."""
    db = Db(folder / "a.db")
    try:
        made = db.one("SELECT 1 FROM sqlite_master WHERE name='t'")
        found = db.one("SELECT count(*) FROM t") if made else (0,)
        return int(found[0]) if found else 0
    finally:
        db.close()
