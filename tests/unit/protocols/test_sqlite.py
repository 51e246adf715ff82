"""One suite over both drivers: what a commit promises, whose fault an error is, and one process per data directory."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from protocols.errors import ConfigError, LedgerBroken, LedgerBusy, LedgerError, LedgerFull
from protocols.sqlite import DRIVERS, DataLock, Db, translate
from tests.support.procs import python, started

Make = Callable[..., Db]
NOBODY = 65_534

HOLD_LOCK = """
import sys, signal
from protocols.sqlite import DataLock
lock = DataLock(sys.argv[1])
print("held", flush=True)
signal.pause()
"""


@pytest.fixture(params=DRIVERS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Opens `tmp_path/name` with the driver under test; everything is closed at the end."""
    opened: list[Db] = []

    def open_db(name: str | Path = "a.db", **options: Any) -> Db:
        db = Db(name if name == ":memory:" else tmp_path / name, driver=request.param, **options)
        opened.append(db)
        return db

    yield open_db
    for db in opened:
        db.close()


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may write everywhere; then for a moment be somebody who may not."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def rows(db: Db) -> list[int]:
    return [x for (x,) in db.query("SELECT x FROM t ORDER BY x")]


def table(db: Db) -> Db:
    db.run("CREATE TABLE t (x INTEGER)")
    return db


def test_the_better_driver_comes_first() -> None:
    assert DRIVERS == ("apsw", "sqlite3"), "the suite is blind without apsw"


# ------------------------------------------------------------ durability and transactions


def test_every_connection_that_writes_is_wal_with_full_sync(make: Make) -> None:
    db = make()
    assert db.one("PRAGMA journal_mode") == ("wal",)
    assert db.one("PRAGMA synchronous") == (2,)
    assert make().one("PRAGMA synchronous") == (2,), "also when the file exists"


def test_the_wal_is_bounded(make: Make) -> None:
    assert make().one("PRAGMA journal_size_limit") == (16 * 1024 * 1024,)


def test_what_is_committed_is_there_for_the_next_who_opens(make: Make) -> None:
    db = table(make())
    db.begin()
    db.many("INSERT INTO t VALUES (?)", [(1,), (2,)])
    db.commit()
    db.close()
    assert rows(make()) == [1, 2]


def test_nobody_sees_anything_before_the_commit(make: Make) -> None:
    db = table(make())
    reader = make(read_only=True)
    db.begin()
    db.run("INSERT INTO t VALUES (1)")
    assert rows(db) == [1]
    assert rows(reader) == []
    db.commit()
    assert rows(reader) == [1]


def test_a_rollback_forgets_everything_since_begin(make: Make) -> None:
    db = table(make())
    db.begin()
    db.run("INSERT INTO t VALUES (1)")
    db.rollback()
    assert rows(db) == []
    db.rollback()
    db.begin()
    db.run("INSERT INTO t VALUES (2)")
    db.commit()
    assert rows(db) == [2]


def test_closing_in_the_middle_of_a_transaction_commits_nothing(make: Make) -> None:
    db = table(make())
    db.begin()
    db.run("INSERT INTO t VALUES (1)")
    db.close()
    db.close()
    assert rows(make()) == []


def test_a_reader_cannot_write(make: Make) -> None:
    table(make())
    with pytest.raises(LedgerError):
        make(read_only=True).run("INSERT INTO t VALUES (1)")


def test_a_name_with_odd_characters_is_one_file(make: Make, tmp_path: Path) -> None:
    table(make("a?b#c%20.db")).run("INSERT INTO t VALUES (7)")
    assert rows(make("a?b#c%20.db", read_only=True)) == [7]
    assert {name.partition("-")[0] for name in os.listdir(tmp_path)} == {"a?b#c%20.db"}


def test_a_checkpoint_empties_the_wal_unless_somebody_reads(make: Make, tmp_path: Path) -> None:
    db = table(make())
    reader = make(read_only=True)
    reader.run("BEGIN")
    rows(reader)
    db.run("PRAGMA busy_timeout=0")
    db.run("INSERT INTO t VALUES (1)")
    assert not db.checkpoint()
    reader.run("COMMIT")
    assert db.checkpoint()
    assert (tmp_path / "a.db-wal").stat().st_size == 0


def test_whoever_opens_a_database_begins_its_wal_anew(make: Make, tmp_path: Path) -> None:
    """After a sync that failed, what is in the WAL may be in the kernel's memory only: nothing new is built upon it."""
    wal = tmp_path / "a.db-wal"
    table(make()).run("INSERT INTO t VALUES (1)")
    assert wal.stat().st_size > 0
    assert rows(make()) == [1]
    assert wal.stat().st_size == 0


def test_a_reader_who_stays_does_not_keep_others_from_opening(make: Make) -> None:
    table(make()).run("INSERT INTO t VALUES (1)")
    reader = make(read_only=True)
    reader.read_moment()
    second = make()
    second.run("INSERT INTO t VALUES (2)")
    assert (rows(reader), rows(second)) == ([1], [1, 2])
    reader.end_moment()
    assert second.one("PRAGMA busy_timeout") == (5_000,)


# ------------------------------------------------------------ whose fault it is


def fill(db: Db) -> None:
    """Four megabytes."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000)"
    db.run(f"{numbers} INSERT INTO t SELECT zeroblob(4000) FROM n")


def test_no_room_is_full_and_leaves_the_file_as_it_was(make: Make) -> None:
    db = table(make())
    db.run("INSERT INTO t VALUES (1)")
    db.run("PRAGMA max_page_count=20")
    db.begin()
    with pytest.raises(LedgerFull) as caught:
        fill(db)
    db.rollback()
    assert caught.value.exit_code == 5
    assert caught.value.remedy
    assert rows(db) == [1]
    db.close()
    assert rows(make()) == [1]


@pytest.mark.parametrize("code", ["extendedresult", "sqlite_errorcode"])
def test_a_disk_too_full_to_open_the_wal_is_full(code: str) -> None:
    """SQLITE_IOERR_SHMSIZE, as seen on a small tmpfs with either driver; other errors of the disk are broken."""
    error, other = sqlite3.OperationalError("disk I/O error"), sqlite3.OperationalError("disk I/O error")
    setattr(error, code, 4_874)
    setattr(other, code, 1_034)
    assert isinstance(translate(error, "a.db"), LedgerFull)
    assert isinstance(translate(other, "a.db"), LedgerBroken)


def test_a_second_writer_is_told_that_it_is_busy(make: Make) -> None:
    first, second = table(make()), make()
    second.run("PRAGMA busy_timeout=0")
    first.begin()
    with pytest.raises(LedgerBusy) as caught:
        second.begin()
    assert caught.value.exit_code == 4
    first.commit()
    second.begin()
    second.commit()


def test_the_write_lock_is_taken_at_begin_and_not_at_the_first_write(make: Make) -> None:
    first, second = table(make()), make()
    second.run("PRAGMA busy_timeout=0")
    first.begin()
    with pytest.raises(LedgerBusy):
        second.run("INSERT INTO t VALUES (1)")
    first.rollback()


@pytest.mark.parametrize("call", ["query", "one", "run"])
def test_a_wrong_statement_is_broken_whatever_it_was_asked_by(make: Make, call: str) -> None:
    with pytest.raises(LedgerBroken):
        getattr(make(), call)("SELECT nonsense FROM nowhere")


def test_a_value_that_does_not_fit_is_broken_and_not_a_crash(make: Make) -> None:
    db = table(make())
    with pytest.raises(LedgerBroken):
        db.run("INSERT INTO t VALUES (?)", (2**64,))
    with pytest.raises(LedgerBroken):
        db.many("INSERT INTO t VALUES (?)", [(1,), (2**64,)])


def test_text_that_is_no_utf8_is_broken_written_or_read(make: Make) -> None:
    """Lone surrogates may come with a request, other bytes with a damaged page."""
    db = table(make())
    with pytest.raises(LedgerBroken):
        db.run("INSERT INTO t VALUES (?)", ("\ud800",))
    for read in (db.query, db.one):
        with pytest.raises(LedgerBroken):
            read("SELECT CAST(x'ff' AS TEXT)")


def test_a_mistake_of_this_program_is_not_called_damage_of_the_file(make: Make) -> None:
    def rows() -> Iterator[tuple[int]]:
        yield (1,)
        raise KeyError("not the file's fault")

    db = table(make())
    with pytest.raises(KeyError):
        db.many("INSERT INTO t VALUES (?)", rows())
    db.run("INSERT INTO t VALUES (2)")


def test_a_path_that_cannot_be_one_is_said_and_no_crash(make: Make) -> None:
    with pytest.raises(LedgerBroken, match="null"):
        make("a\0b.db")


def test_a_closed_connection_is_broken(make: Make) -> None:
    db = table(make())
    db.close()
    with pytest.raises(LedgerBroken):
        db.query("SELECT 1")


def test_a_file_that_is_no_database_is_broken_and_untouched(make: Make, tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"these are somebody's notes\n" * 300)
    with pytest.raises(LedgerBroken, match="not a database"):
        make()
    assert (tmp_path / "a.db").read_bytes() == b"these are somebody's notes\n" * 300


def test_a_damaged_page_is_broken(make: Make, tmp_path: Path) -> None:
    db = table(make())
    fill(db)
    db.checkpoint()
    db.close()
    content = (tmp_path / "a.db").read_bytes()
    (tmp_path / "a.db").write_bytes(content[:4096] + b"\xff" * 8192 + content[12288:])
    with pytest.raises(LedgerBroken):
        make().query("SELECT * FROM t")


def test_a_sound_database_is_called_sound_by_either_driver(make: Make) -> None:
    """SQLite 3.40 complains of nulls in the second column of this table, which has none."""
    db = make()
    db.run("CREATE TABLE t (a INTEGER NOT NULL, b INTEGER NOT NULL, c INTEGER NOT NULL, PRIMARY KEY (a, c)) WITHOUT ROWID")
    db.run("INSERT INTO t VALUES (1, 2, 3)")
    assert db.damage() == db.damage(quick=True) == []


def test_a_null_where_none_may_be_is_still_found(make: Make) -> None:
    db = make()
    db.run("CREATE TABLE t (a INTEGER, b INTEGER)")
    db.many("INSERT INTO t VALUES (?, NULL)", [(1,), (2,), (3,)])
    db.run("PRAGMA writable_schema=ON")
    db.run("UPDATE sqlite_master SET sql='CREATE TABLE t (a INTEGER, b INTEGER NOT NULL)'")
    db.close()
    assert make().damage(2) == ["NULL value in t.b", "NULL value in t.b"], "no more than were asked for"


def test_a_missing_directory_is_the_operators_to_mend(make: Make) -> None:
    with pytest.raises(ConfigError) as caught:
        make("not/there/a.db")
    assert "not/there/a.db" in caught.value.reason
    assert caught.value.remedy
    assert caught.value.exit_code == 3


def test_a_directory_that_is_not_writable_is_the_operators_to_mend(make: Make, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with unprivileged(), pytest.raises(ConfigError) as caught:
        make()
    tmp_path.chmod(0o700)
    assert caught.value.remedy


def test_a_directory_in_the_place_of_the_file_is_the_operators_to_mend(make: Make, tmp_path: Path) -> None:
    (tmp_path / "a.db").mkdir()
    with pytest.raises(ConfigError):
        make()


def test_a_file_system_of_sqlite_may_be_named_where_the_driver_takes_one(make: Make) -> None:
    """The proof of storage puts its own between SQLite and the disk; the standard library's driver has no such door."""
    db = make()
    if db.driver == "apsw":
        assert make("b.db", vfs="unix-excl").one("PRAGMA journal_mode") == ("wal",)
    else:
        with pytest.raises(LedgerBroken, match="takes no vfs"):
            make("b.db", vfs="unix-excl")


# ------------------------------------------------------------ images


@pytest.mark.parametrize("source", [":memory:", "a.db"])
def test_an_image_holds_what_was_committed_and_goes_its_own_way(make: Make, source: str) -> None:
    db = table(make(source))
    db.run("INSERT INTO t VALUES (1)")
    copy = Db.load(db.dump(), driver=db.driver)
    copy.begin()
    copy.run("INSERT INTO t VALUES (2)")
    copy.commit()
    again = Db.load(copy.dump(), driver=db.driver)
    assert (rows(db), rows(copy), rows(again)) == ([1], [1, 2], [1, 2])
    copy.close()
    again.close()


def test_no_image_is_made_of_what_is_not_committed(make: Make) -> None:
    db = table(make(":memory:"))
    db.begin()
    with pytest.raises(AssertionError):
        db.dump()
    db.rollback()
    assert db.dump()


def test_bytes_in_use_grow_with_rows_and_shrink_when_they_go(make: Make) -> None:
    db = table(make())
    empty = db.file_bytes()
    fill(db)
    full = db.file_bytes()
    db.run("DELETE FROM t")
    assert empty < 100_000 < 4_000_000 < full
    assert db.file_bytes() < 100_000


# ------------------------------------------------------------ one process per directory


def test_a_second_process_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    lock = tmp_path / "run.lock"
    with started(python("-c", HOLD_LOCK, lock)) as holder:
        holder.wait_until(lambda: "held" in holder.output())
        with pytest.raises(LedgerBusy) as caught:
            DataLock(lock)
        assert caught.value.remedy
        assert lock.read_text() == str(holder.pid), "people can see who holds it"
        holder.kill()
        DataLock(lock).release()


def test_a_lock_is_held_within_one_process_too_and_release_is_idempotent(tmp_path: Path) -> None:
    first = DataLock(tmp_path / "run.lock")
    with pytest.raises(LedgerBusy):
        DataLock(tmp_path / "run.lock")
    first.release()
    second = DataLock(tmp_path / "run.lock")
    first.release()
    with pytest.raises(LedgerBusy):
        DataLock(tmp_path / "run.lock")
    second.release()


def test_a_lock_in_a_directory_that_is_not_there_is_the_operators_to_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        DataLock(tmp_path / "no" / "run.lock")
    assert caught.value.remedy


def test_a_refused_process_does_not_erase_who_holds_the_lock(tmp_path: Path) -> None:
    first = DataLock(tmp_path / "run.lock")
    with pytest.raises(LedgerBusy):
        DataLock(tmp_path / "run.lock")
    assert (tmp_path / "run.lock").read_text() == str(os.getpid())
    first.release()


def test_a_lock_holds_on_a_disk_that_has_no_room_for_the_number_of_its_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    first = DataLock(tmp_path / "run.lock")
    with pytest.raises(LedgerBusy):
        DataLock(tmp_path / "run.lock")
    first.release()
    monkeypatch.setattr(os, "open", full)
    with pytest.raises(LedgerFull):
        DataLock(tmp_path / "run.lock")
