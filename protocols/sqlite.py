"""SQLite, opened in one place: durable by default, one writer, errors that say whose fault they are.

Uses apsw (a current SQLite) and falls back to the standard library where apsw has no wheel; one test suite runs over both. Never both
libraries on one file in one process: POSIX locks are per process, and closing one's descriptor drops the other's locks.

Every database is WAL with `synchronous=FULL`: a commit that returned survives power loss (NORMAL loses the last commits, see RELIABILITY).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from protocols.errors import ConfigError, LedgerBroken, LedgerBusy, LedgerError, LedgerFull

try:
    import apsw
except ImportError:  # a platform without a wheel
    apsw = None  # type: ignore[assignment]

Value = int | str | bytes | None
Row = tuple[Any, ...]

MEMORY: Final = ":memory:"
DRIVERS: Final = ("apsw", "sqlite3") if apsw is not None else ("sqlite3",)
_BUSY_MS: Final = 5_000
_MOMENT_MS: Final = 500
_WAL_BYTES: Final = 16 * 1024 * 1024
_FOUND_MOST: Final = 10_000
_STATEMENTS: Final = 500
"""of one connection that stay prepared: a node runs some hundreds of different ones, and by itself either driver keeps about 100"""
_SHM_SIZE: Final = 4_874
"""SQLITE_IOERR_SHMSIZE: what a full disk says to somebody who opens a database in WAL mode"""
_FAULTS: Final = (sqlite3.Error, OverflowError, UnicodeError) if apsw is None else (apsw.Error, sqlite3.Error, OverflowError, UnicodeError)
"""What either driver raises over a statement: its own errors, a number beyond 64 bit, text that is no UTF-8 (to be written, or in a damaged
page). All else is a mistake in this program, and is not dressed up as trouble with a file."""
_OPENING_FAULTS: Final = (*_FAULTS, OSError, ValueError)
"""also a path that cannot be one, a directory that has gone, a driver that lacks what was asked of it"""
_READ_ONLY: Final = 1
_READ_WRITE: Final = 6  # SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE
_COPYING: Final = threading.Lock()
"""held while a database that many begin as is read: a connection serves one thread at a time"""


class Db:
    """One connection to one file. The owner begins and commits; everything else only executes.

    Errors: LedgerFull (disk or quota), LedgerBusy (locked by another process), LedgerBroken (anything else: close and reopen); when it is
    made also ConfigError (the directory or the file may not be opened).
    """

    def __init__(self, path: str | Path, *, read_only: bool = False, driver: str = DRIVERS[0], vfs: str = "", shrinks: bool = True) -> None:
        """`vfs`: the name of a registered file system of SQLite to reach the file through; only apsw takes one. `shrinks`: a new file can
        be cut where facts have gone; it costs a page in eight hundred.
        """
        self._shrinks = shrinks
        self._page_size = 0
        self.path = str(path)
        self.driver = driver
        self.in_transaction = False
        try:
            self._c: Any = _open(self.path, driver, read_only, vfs)
            self._configure(read_only)
        except _OPENING_FAULTS as e:
            self._close_half_open()
            raise _cannot_open(e, self.path) from e

    def _close_half_open(self) -> None:
        """A connection that could not be set up would hold its file until the garbage is collected."""
        if getattr(self, "_c", None) is not None:
            self._c.close()

    def _configure(self, read_only: bool) -> None:
        self._c.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        if not read_only:
            if self._shrinks:
                self._c.execute("PRAGMA auto_vacuum=INCREMENTAL")  # of a new file; one that holds anything stays as it was made
            self._c.execute("PRAGMA journal_mode=WAL").fetchall()
            self._c.execute("PRAGMA synchronous=FULL")
            self._c.execute(f"PRAGMA journal_size_limit={_WAL_BYTES}").fetchall()
            self._begin_wal_anew()
        self._c.execute("PRAGMA foreign_keys=ON")
        self._c.execute("PRAGMA cache_size=-16000")

    def _begin_wal_anew(self) -> None:
        """Nothing new may stand on what a failed sync left in the WAL: the kernel takes it for written, shows it to everybody, and no later
        sync brings it to the disk; after a power loss the WAL would end there. Moved into the file it is written once more, and synced.

        Where a reader keeps the WAL alive for longer than a moment, that is left to the next opening.
        """
        self._c.execute(f"PRAGMA busy_timeout={_MOMENT_MS}").fetchall()
        self._c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._c.execute(f"PRAGMA busy_timeout={_BUSY_MS}").fetchall()

    def query(self, sql: str, params: Sequence[Value] = ()) -> list[Row]:
        """All rows of a statement."""
        try:
            return self._c.execute(sql, params).fetchall()  # type: ignore[no-any-return]
        except _FAULTS as e:
            raise translate(e, self.path) from e

    def one(self, sql: str, params: Sequence[Value] = ()) -> Row | None:
        """The first row, or None."""
        try:
            return self._c.execute(sql, params).fetchone()  # type: ignore[no-any-return]
        except _FAULTS as e:
            raise translate(e, self.path) from e

    def run(self, sql: str, params: Sequence[Value] = ()) -> None:
        """Execute one statement for its effect."""
        try:
            self._c.execute(sql, params)
        except _FAULTS as e:
            raise translate(e, self.path) from e

    def many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """Execute one statement for each row."""
        try:
            self._c.executemany(sql, rows)
        except _FAULTS as e:
            raise translate(e, self.path) from e

    def begin(self) -> None:
        """Take the write lock now, so that nothing is decided on a state that somebody else may still change."""
        self.run("BEGIN IMMEDIATE")
        self.in_transaction = True

    def commit(self) -> None:
        """On disk when it returns. After an error the connection is poisoned: its owner closes it and rebuilds from disk."""
        self.run("COMMIT")
        self.in_transaction = False

    def rollback(self) -> None:
        """Forget everything since `begin`; harmless without one."""
        if self.in_transaction:
            self.in_transaction = False
            try:
                self._c.execute("ROLLBACK")
            except _FAULTS as e:
                # a failed commit may have rolled back by itself
                if "no transaction" not in str(e):
                    raise translate(e, self.path) from e

    def close(self) -> None:
        """Release the file. Idempotent."""
        self._c.close()

    def checkpoint(self) -> bool:
        """Move the WAL into the file. False when a reader held it back (try later)."""
        row = self.one("PRAGMA wal_checkpoint(TRUNCATE)")
        return row is not None and row[0] == 0

    def file_bytes(self) -> int:
        """Bytes of pages in use, by SQLite's own count."""
        pages, free = self.one("PRAGMA page_count"), self.one("PRAGMA freelist_count")
        return int(pages[0] - free[0]) * self._page_bytes() if pages and free else 0

    def _page_bytes(self) -> int:
        """Of a database that is there already: for good."""
        if not self._page_size:
            size = self.one("PRAGMA page_size")
            self._page_size = int(size[0]) if size else 0
        return self._page_size

    @property
    def shrinks(self) -> bool:
        """Can unused pages be cut off the file? Files of version 1 cannot before `make_shrinkable`."""
        return self.one("PRAGMA auto_vacuum") == (2,)

    def spare_bytes(self) -> int:
        """Bytes of pages that are not in use."""
        free = self.one("PRAGMA freelist_count")
        return int(free[0]) * self._page_bytes() if free else 0

    def shrink(self, pages: int) -> None:
        """Cut so many unused pages off the file, in this transaction or one of its own; it is shorter after the next checkpoint."""
        self.query(f"PRAGMA incremental_vacuum({int(pages)})")

    def trim(self, pages: int, spare_bytes: int) -> int:
        """`shrink`, where more than `spare_bytes` and an eighth of what is used lie unused: the rest is used again soon. Bytes cut off."""
        spare = self.spare_bytes()
        if not spare or spare <= max(spare_bytes, self.file_bytes() // 8 if spare_bytes else 0) or not self.shrinks:
            return 0
        self.shrink(pages)
        return max(0, spare - self.spare_bytes())

    def make_shrinkable(self) -> None:
        """Make the whole file anew, outside of any transaction: takes long, and as much room again, for a large one."""
        self.query("PRAGMA auto_vacuum=INCREMENTAL")
        self.query("VACUUM")

    def damage(self, most: int = 10, *, quick: bool = False) -> list[str]:
        """What SQLite finds wrong with the pages of this database, in its words; empty when it is sound. `quick` looks at no index.

        SQLite 3.40 (the standard library's of Debian 12) sees null values in tables without rowid where there are none: they are looked at.
        """
        found = self.query(f"PRAGMA {'quick_check' if quick else 'integrity_check'}({_FOUND_MOST})")
        return [text for (text,) in found if text != "ok" and not self._is_no_null(text)][:most]

    def _is_no_null(self, text: str) -> bool:
        named = re.fullmatch(r"NULL value in (\w+)\.(\w+)", text)
        return named is not None and self.one(f"SELECT 1 FROM {named[1]} WHERE typeof({named[2]}) = 'null' LIMIT 1") is None

    def dump(self) -> bytes:
        """The whole database as it is committed; `load` takes it back. For tests, backups in memory and the simulator."""
        assert not self.in_transaction, "SQLite would put what is not committed yet into the image"
        return bytes(self._c.serialize("main") if self.driver == "apsw" else self._c.serialize())

    def copy_to(self, path: str | Path, *, progress: Callable[[int, int], None] | None = None, pages: int = 4_096) -> None:
        """Copy the database as it stands now into a new file, while others go on writing: a read transaction keeps the moment, also over
        many steps. The copy is one file in rollback mode, so that it can lie on a medium that nobody may write, and is synced.

        `progress` hears (pages copied, pages in all). The WAL of a busy database grows meanwhile. Errors: LedgerFull, LedgerBroken.
        """
        assert not self.in_transaction, "what is not committed yet does not belong into a copy"
        self.read_moment()
        try:
            copied = (_copy_apsw if self.driver == "apsw" else _copy_stdlib)(self._c, str(path), progress or _quiet, pages)
            try:
                copied.execute("PRAGMA journal_mode=DELETE").fetchall()
            finally:
                copied.close()
        except _FAULTS as e:
            raise translate(e, str(path)) from e
        finally:
            self.end_moment()

    def read_moment(self) -> None:
        """Keep what is read from here on at one commit, until `end_moment`; for a connection that only reads."""
        self.run("BEGIN")
        self.one("SELECT count(*) FROM sqlite_master")  # the moment is that of the first read

    def end_moment(self) -> None:
        """See `read_moment`."""
        self.run("ROLLBACK")

    def begins_in_memory(self) -> bool:
        """Whether this is a database in memory in which nothing was ever made."""
        return self.path == MEMORY and self._shrinks and self.one("SELECT 1 FROM sqlite_master") is None

    def begin_as(self, other: Db) -> None:
        """Be a copy of another database in memory, of the same driver. Safe in any thread."""
        with _COPYING:
            if self.driver == "apsw":
                with self._c.backup("main", other._c, "main") as copying:
                    copying.step()
            else:
                other._c.backup(self._c)

    @classmethod
    def load(cls, image: bytes, *, driver: str = DRIVERS[0]) -> Db:
        """An in-memory database from what `dump` gave. A file's image says WAL in its header, which no database in memory can be."""
        image = image[:18] + b"\x01\x01" + image[20:]
        db = cls(MEMORY, driver=driver)
        db._c.deserialize(*(("main", image) if driver == "apsw" else (image,)))
        return db


def _quiet(_copied: int, _all: int) -> None:
    """Nobody wants to know how far a copy is."""


def _copy_apsw(source: Any, path: str, progress: Callable[[int, int], None], pages: int) -> Any:
    target = apsw.Connection(path)
    with target.backup("main", source, "main") as copying:
        while not copying.done:
            copying.step(pages)
            progress(copying.page_count - copying.remaining, copying.page_count)
    return target


def _copy_stdlib(source: Any, path: str, progress: Callable[[int, int], None], pages: int) -> Any:
    target = sqlite3.connect(path, isolation_level=None)
    source.backup(target, pages=pages, progress=lambda _status, remaining, total: progress(total - remaining, total))
    return target


def _open(path: str, driver: str, read_only: bool, vfs: str) -> Any:
    if driver == "apsw":
        return apsw.Connection(path, _READ_ONLY if read_only else _READ_WRITE, vfs or None, statementcachesize=_STATEMENTS)
    if vfs:
        raise ValueError(f"the driver {driver} takes no vfs")
    if read_only:
        path = f"{Path(path).absolute().as_uri()}?mode=ro"
    return sqlite3.connect(path, uri=read_only, isolation_level=None, check_same_thread=False, cached_statements=_STATEMENTS)


def translate(e: Exception, path: str) -> LedgerBroken | LedgerBusy | LedgerFull:
    """Which of ours a driver's error is. Both drivers name the condition in the text or in the result code."""
    code = _code(e)
    if code == 13 or _extended(e) == _SHM_SIZE:
        return LedgerFull(f"{path}: no space left", remedy="free disk space; nothing of this request was stored")
    if code in (5, 6):
        return LedgerBusy(f"{path}: locked by another process", remedy="stop the other process that uses this data directory")
    return LedgerBroken(f"{path}: {type(e).__name__}: {e}")


def _code(e: Exception) -> int:
    """SQLite's primary result code."""
    return int(getattr(e, "result", None) or (getattr(e, "sqlite_errorcode", 0) or 0) & 0xFF)


def _extended(e: Exception) -> int:
    return int(getattr(e, "extendedresult", None) or getattr(e, "sqlite_errorcode", 0) or 0)


def _cannot_open(e: Exception, path: str) -> LedgerError | ConfigError:
    """Why a file does not open: what its operator can mend, or what `translate` says."""
    if _code(e) in (3, 8, 14, 23):  # PERM, READONLY, CANTOPEN, AUTH
        return ConfigError(f"{path}: {e}", remedy="the directory must exist, and it and the file must be writable for this user")
    if _code(e) == 26:
        return LedgerBroken(f"{path} is not a database of Longshore")
    return translate(e, path)


class DataLock:
    """One process per data directory. Held until `release` or the end of the process, also by SIGKILL (the kernel lets go)."""

    def __init__(self, path: str | Path) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:
            if e.errno == errno.ENOSPC:
                raise LedgerFull(f"{path}: no space left", remedy="free disk space") from e
            raise ConfigError(f"{path}: {e.strerror}", remedy="make the data directory writable for this user") from e
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            os.close(self._fd)
            raise LedgerBusy(f"{path} is held by another process", remedy="stop it first, or use another data directory") from e
        with contextlib.suppress(OSError):  # for people only; a full disk has no room for it, and the lock holds without
            os.ftruncate(self._fd, 0)
            os.write(self._fd, str(os.getpid()).encode())

    def fileno(self) -> int:
        """The descriptor: who inherits it holds the lock, too."""
        return self._fd

    def release(self) -> None:
        """Let another process in. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
