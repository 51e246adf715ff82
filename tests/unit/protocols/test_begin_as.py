"""A new database in memory begins as a copy of one that was migrated; it is what a file becomes step by step, and nobody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hub.store.schema import STORE
from protocols.schema import LEDGER, migrate, version
from protocols.sqlite import DRIVERS, MEMORY, Db

PARTS = {"ledger": LEDGER, "store": STORE}


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def shape(db: Db, part: str) -> list[Any]:
    """Tables, indexes and what is set of a database."""
    said: list[Any] = [version(db, part), db.shrinks]
    for pragma in ("foreign_keys", "cache_size", "page_size", "synchronous"):
        said += db.query(f"PRAGMA {pragma}")
    return said + db.query("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name")


@pytest.mark.parametrize("part", sorted(PARTS))
def test_in_memory_it_is_what_a_file_becomes_step_by_step(part: str, driver: str, tmp_path: Path) -> None:
    file, memory = Db(tmp_path / "x.db", driver=driver), Db(MEMORY, driver=driver)
    for db in (file, memory):
        migrate(db, PARTS[part], part=part)
    assert shape(memory, part) == shape(file, part)
    for db in (file, memory):
        db.close()


def test_what_one_takes_no_other_has(driver: str) -> None:
    first, second = Db(MEMORY, driver=driver), Db(MEMORY, driver=driver)
    migrate(first)
    first.run("INSERT INTO meta VALUES ('epoch', 7)")
    migrate(second)
    assert (first.query("SELECT * FROM meta"), second.query("SELECT * FROM meta")) == ([("epoch", 7)], [])
    for db in (first, second):
        db.close()


def test_one_that_holds_anything_goes_forward_itself(driver: str) -> None:
    db = Db(MEMORY, driver=driver)
    db.run("CREATE TABLE kept (x)")
    migrate(db)
    assert (db.query("SELECT count(*) FROM kept"), version(db, "ledger")) == ([(0,)], len(LEDGER))
    db.close()
