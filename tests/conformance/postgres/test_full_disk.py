"""A server whose disk is full: nothing of a batch is stored, the store goes on, and takes it once there is room."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.store.pg import Server
from hub.store.postgres import PostgresStore
from protocols.errors import LedgerFull
from protocols.lifecycle import Status
from tests.conformance.store.test_any_order import everything
from tests.conformance.store.test_exactly_once import NOW_MS
from tests.conformance.store.worlds import World
from tests.support.engines.postgres import USER, Postgres
from tests.support.needs import needs

pytestmark = [needs("postgres"), needs("tmpfs")]


def mount(folder: Path, size: str, *more: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *more]), "none", str(folder)], check=True, capture_output=True)


@pytest.fixture
def small(own: Postgres) -> Iterator[Path]:
    """A folder of the server's user, with little room."""
    folder = own.folder / "small"
    folder.mkdir()
    mount(folder, "3m")
    shutil.chown(folder, "postgres", "postgres")
    yield folder
    own.crash()
    subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


@pytest.fixture
def where(own: Postgres, small: Path) -> Server:
    """A database whose tables lie there."""
    found = own.server("small")
    own.sql(f"CREATE TABLESPACE small LOCATION '{small}'")
    own.sql(f"GRANT CREATE ON TABLESPACE small TO {USER}")
    own.sql("ALTER DATABASE small SET default_tablespace = small")
    return found


def test_nothing_of_a_batch_is_stored_and_it_is_taken_once_there_is_room(where: Server, small: Path) -> None:
    world = World()
    author = world.author("w1")
    store = PostgresStore(where)
    store.apply([world.say(author, "O-1", Status.PLACED)], [], NOW_MS)
    facts = [world.say(author, f"O-{n}", Status.PLACED, details={"note": "x" * 400}) for n in range(12_000)]
    taken, full = 0, None
    for start in range(0, len(facts), 500):
        before = everything(store)["totals"]
        try:
            taken += store.apply(facts[start : start + 500], [], NOW_MS).new
        except LedgerFull as error:
            full = error
            break
    assert full is not None
    assert "disk is full" in full.reason
    assert store.totals() == before == {"orders": taken + 1 - (taken > 1), "facts": taken + 1, "conflicts": 0, "quarantined": 0}
    mount(small, "64m", "remount")
    assert sum(store.apply(facts[n : n + 500], [], NOW_MS).new for n in range(0, len(facts), 500)) == len(facts) - taken
    assert store.totals()["facts"] == 12_001
    store.close()
