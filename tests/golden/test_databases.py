"""Databases of every released version open with today's code, mean what they meant, and go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

import pytest

from hub.core import HubCore, HubIdentity
from hub.registry import REGISTRY, Registry
from hub.store.schema import STORE
from hub.store.sqlite import SqliteStore
from protocols.errors import ConfigError
from protocols.fact import genesis
from protocols.ledger import Ledger
from protocols.lifecycle import Status
from protocols.schema import LEDGER
from protocols.sqlite import DRIVERS, Db
from tests.golden.databases import contents, make

FOLDER = Path(make.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.db"))
SMALL_BYTES = 100_000


def kind(name: str) -> str:
    """edge, hub or store."""
    return name.partition("-")[2]


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[str], Path]:
    def copied(name: str) -> Path:
        path = tmp_path / f"{name}.db"
        path.write_bytes((FOLDER / f"{name}.db").read_bytes())
        return path

    return copied


def test_every_database_that_the_generator_knows_is_kept_and_small() -> None:
    assert {f"v1-{name}" for name in make.MAKERS} <= set(NAMES)
    assert all((FOLDER / f"{name}.db").stat().st_size < SMALL_BYTES for name in NAMES)
    assert sorted(path.name for path in FOLDER.glob("*.db-*")) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_database_opens_and_means_what_it_meant(name: str, copy: Callable[[str], Path]) -> None:
    expected = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    path = copy(name)
    for _ in range(2):
        found = contents.read(kind(name), path)
        for part in expected:
            assert found[part] == expected[part], part


@pytest.mark.parametrize("name", [name for name in NAMES if kind(name) in ("edge", "hub")])
@pytest.mark.parametrize("driver", DRIVERS)
def test_each_row_in_a_golden_log_still_hashes_to_its_identity(name: str, driver: str, copy: Callable[[str], Path]) -> None:
    db = Db(copy(name), driver=driver)
    opaque = {(sid, seq, h) for sid, seq, h in db.query("SELECT sid, seq, h FROM quarantine WHERE reason LIKE '%decompress%'")}
    rows = db.query("SELECT sid, seq, h, prev, row FROM log")
    starts = {sid: genesis(*key) for sid, *key in db.query("SELECT sid, node, epoch, cls FROM streams")}
    db.close()
    assert len(rows) > 10
    for sid, seq, h, prev, row in rows:
        assert blake2b(prev + row, digest_size=8).digest() == h or (sid, seq, h) in opaque
        assert seq > 1 or prev == starts[sid]


@pytest.mark.parametrize("name", [name for name in NAMES if kind(name) == "edge"])
def test_an_old_edge_goes_on_where_it_was(name: str, copy: Callable[[str], Path]) -> None:
    led = Ledger(Db(copy(name)), node="w8-madrid", new_epoch=contents.no_epoch)
    seq, h = led.own().head
    repeated = make.event("GLOBAL-1001", Status.PLACED, key="req-1")
    led.begin()
    known, new = led.append_all([repeated, make.event("GLOBAL-1003", Status.DELIVERED, 99)], make.T0 + DAY)
    led.commit()
    assert (known.seq, known.repeated, known.stream.epoch) == (1, True, make.EPOCHS["w8-madrid"])
    assert (new.seq, new.repeated) == (seq + 1, False)
    row = led.db.one("SELECT prev FROM log WHERE sid=? AND seq=?", (led.own().sid, new.seq))
    assert row == (h,)
    led.db.close()


DAY = make.DAY_MS


# ------------------------------------------------------------ forward only


def fresh(name: str, folder: Path) -> Path:
    """A new, empty database of the newest version."""
    path = folder / f"{name}.db"
    if name == "store":
        SqliteStore(path).close()
        return path
    db = Db(path)
    Ledger(db, node="n", new_epoch=contents.no_epoch)
    if name == "hub":
        Registry(db)
    db.close()
    return path


@pytest.mark.parametrize("name", NAMES)
def test_an_old_file_brought_forward_has_the_tables_of_a_new_one(name: str, copy: Callable[[str], Path], tmp_path: Path) -> None:
    """Also the guard of released migrations: one that is edited makes new files unlike the golden ones."""
    path = copy(name)
    contents.read(kind(name), path)
    assert contents.tables(path) == contents.tables(fresh(kind(name), tmp_path))


PARTS: dict[str, tuple[str, int]] = {"edge": ("ledger", len(LEDGER)), "hub": ("registry", len(REGISTRY)), "store": ("store", len(STORE))}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_a_later_version_is_refused_untouched(name: str, copy: Callable[[str], Path]) -> None:
    path = copy(name)
    part, newest = PARTS[kind(name)]
    db = Db(path)
    db.run("UPDATE versions SET version=? WHERE part=?", (newest + 1, part))
    db.checkpoint()
    db.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=f"{part} is of version {newest + 1}") as caught:
        opened(name, path)
    assert "upgrade" in caught.value.remedy
    assert path.read_bytes() == before


def opened(name: str, path: Path) -> Any:
    if kind(name) == "store":
        return SqliteStore(path)
    db = Db(path)
    try:
        if kind(name) == "hub":
            return HubCore(db, HubIdentity("acme", "EMEA", "n", bytes(32)), lambda data: b"", lambda *_: None, Random(0))
        return Ledger(db, node="n", new_epoch=contents.no_epoch)
    finally:
        db.close()
