"""Migrations go forward only, each whole or not at all, and a file of the future is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocols.errors import ConfigError, LedgerBroken
from protocols.schema import LEDGER, migrate
from protocols.sqlite import Db

FIRST = ("CREATE TABLE a (x INTEGER)", "INSERT INTO a VALUES (1)")
SECOND = ("ALTER TABLE a ADD COLUMN y INTEGER NOT NULL DEFAULT 7",)


def versions(db: Db) -> list[tuple[str, int]]:
    return [(part, v) for part, v in db.query("SELECT part, version FROM versions ORDER BY part")]


def test_a_new_file_gets_every_table_of_the_newest_version() -> None:
    db = Db(":memory:")
    migrate(db)
    assert versions(db) == [("ledger", len(LEDGER))]
    names = [name for (name,) in db.query("SELECT name FROM sqlite_master WHERE type='table' ORDER BY name")]
    first = ["idempotency", "log", "meta", "orders", "quarantine", "records", "runs", "streams", "versions"]
    second = ["copies", "scopes", "custody", "custody_spans", "peers", "devices", "evictions", "freed", "fixes", "clashes"]
    assert names == sorted([*first, *second])


def test_an_old_file_is_brought_forward_with_what_it_holds() -> None:
    db = Db(":memory:")
    migrate(db, (FIRST,), part="p")
    migrate(db, (FIRST, SECOND), part="p")
    assert versions(db) == [("p", 2)]
    assert db.query("SELECT x, y FROM a") == [(1, 7)]


def test_a_file_of_today_is_not_written_to() -> None:
    db = Db(":memory:")
    migrate(db)
    before = db.dump()
    migrate(db)
    assert db.dump() == before


def test_parts_go_forward_one_without_the_other() -> None:
    db = Db(":memory:")
    migrate(db, (FIRST,), part="p")
    migrate(db, (("CREATE TABLE b (x)",),), part="q")
    migrate(db, (FIRST, SECOND), part="p")
    assert versions(db) == [("p", 2), ("q", 1)]


def test_a_migration_that_breaks_off_leaves_the_version_before_whole(tmp_path: Path) -> None:
    db = Db(tmp_path / "a.db")
    migrate(db, (FIRST,), part="p")
    with pytest.raises(LedgerBroken):
        migrate(db, (FIRST, (*SECOND, "CREATE TABLE a (again)")), part="p")
    db.close()
    db = Db(tmp_path / "a.db")
    assert versions(db) == [("p", 1)]
    assert db.query("SELECT * FROM a") == [(1,)]
    migrate(db, (FIRST, SECOND), part="p")
    assert versions(db) == [("p", 2)]
    db.close()


def test_a_file_of_the_future_is_refused_untouched_and_says_what_to_do() -> None:
    db = Db(":memory:")
    migrate(db, (FIRST, SECOND), part="p")
    before = db.dump()
    with pytest.raises(ConfigError, match="version 2") as caught:
        migrate(db, (FIRST,), part="p")
    assert "upgrade" in caught.value.remedy
    assert caught.value.exit_code == 3
    assert db.dump() == before
