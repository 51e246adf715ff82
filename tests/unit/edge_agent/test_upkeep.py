"""The disk under an edge: the ballast is given back when it is full, the edge recovers by itself, and the file shrinks."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edge_agent.ballast import Ballast, free_bytes
from edge_agent.core import EdgeSettings
from edge_agent.runtime import EdgeRuntime
from edge_agent.upkeep import Upkeep
from protocols.errors import LedgerBroken, LedgerFull, OverBudget
from protocols.schema import LEDGER, migrate
from protocols.sqlite import DRIVERS, Db
from tests.unit.edge_agent.edges import IDENTITY, NODE_KEY, edge, event, run, stored, until
from tests.unit.protocols.ledgers import event as plain
from tests.unit.protocols.ledgers import ledger, say

MB = 1_000_000


def no_room(fd: int, offset: int, size: int) -> None:
    """An allocator on a full disk: it writes a part of it, and fails."""
    os.write(fd, b"x" * 1_000)
    raise OSError(errno.ENOSPC, "No space left on device")


# ------------------------------------------------------------ ballast


def test_ballast_is_really_allocated_and_given_back(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "b", 3 * MB)
    assert not ballast.held
    assert ballast.hold()
    assert (tmp_path / "b").stat().st_blocks * 512 >= 3 * MB
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600
    assert ballast.hold(), "it is held already"
    assert ballast.release()
    assert not ballast.release()
    assert not ballast.held


def test_a_file_that_only_looks_as_large_is_no_ballast(tmp_path: Path) -> None:
    with (tmp_path / "b").open("wb") as file:
        file.truncate(3 * MB)
    ballast = Ballast(tmp_path / "b", 3 * MB)
    assert not ballast.held
    assert ballast.hold()


def test_another_size_is_another_file_and_none_is_none(tmp_path: Path) -> None:
    Ballast(tmp_path / "b", 3 * MB).hold()
    assert Ballast(tmp_path / "b", MB).hold()
    assert (tmp_path / "b").stat().st_size == MB
    assert not Ballast(tmp_path / "b", 0).hold()
    assert not (tmp_path / "b").exists()


def test_without_room_nothing_of_it_is_left_behind(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "b", MB, allocate=no_room)
    assert not ballast.hold()
    assert "no room" in ballast.problem
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------ a full disk, and room again


class Disk(Db):
    """A database on a disk that a test fills: there is room for a commit only where ballast was given back."""

    full = False
    ballast: Ballast | None = None

    def commit(self) -> None:
        if Disk.full and (Disk.ballast is None or Disk.ballast.held):
            raise LedgerFull("ledger.db: no space left")
        super().commit()


@pytest.fixture(autouse=True)
def _there_is_room() -> None:
    Disk.full, Disk.ballast = False, None


def test_a_full_disk_gives_the_ballast_back_and_takes_it_again_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.runtime.EVERY_S", 0.01)
    room = [100 * MB]
    upkeep = Upkeep(tmp_path / "ledger.db", MB, free=lambda _: room[0])

    async def story() -> None:
        async with runtime(tmp_path, upkeep) as r:
            await r.append([event("A1")])
            assert upkeep.ballast.held
            Disk.full, Disk.ballast, room[0] = True, upkeep.ballast, 0
            with pytest.raises(LedgerFull):
                await r.append([event("A2")])
            assert (upkeep.disk_full, upkeep.ballast.held, upkeep.released_total) == (True, False, 1)
            room[0] = MB  # what the ballast was: enough to tidy up, not to go on
            await until(lambda: r.unready() == ["the disk is full"])
            with pytest.raises(OverBudget, match="disk is full"):
                await r.append([event("A3")])
            assert r.status()["disk"]["diskFull"] is True
            Disk.full, room[0] = False, 100 * MB
            await until(lambda: r.unready() == [])
            assert upkeep.ballast.held
            await r.append([event("A4")])
            assert r.status()["disk"]["ballastHeld"] is True

    run(story())
    assert len(stored(tmp_path)) == 2


def runtime(folder: Path, upkeep: Upkeep, **settings: Any) -> EdgeRuntime:
    made = edge(folder, settings=EdgeSettings(**settings), open_db=Disk)
    made.upkeep = upkeep
    return made


def test_without_ballast_the_next_request_simply_tries_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with runtime(tmp_path, Upkeep(tmp_path / "ledger.db", 0)) as r:
            Disk.full = True
            with pytest.raises(LedgerFull):
                await r.append([event("A1")])
            Disk.full = False
            await until(lambda: r.unready() == [])
            await r.append([event("A1")])

    run(story())


def test_other_trouble_leaves_the_ballast_alone(tmp_path: Path) -> None:
    upkeep = Upkeep(tmp_path / "ledger.db", MB)
    upkeep.start()
    upkeep.failed(LedgerBroken("a bad sector"))
    upkeep.failed(OverBudget("the budget"))
    assert upkeep.ballast.held
    assert not upkeep.disk_full


def test_an_edge_that_starts_without_room_for_ballast_runs_and_says_so(tmp_path: Path) -> None:
    upkeep = Upkeep(tmp_path / "ledger.db", ballast=Ballast(tmp_path / "b", MB, allocate=no_room))

    async def story() -> None:
        async with runtime(tmp_path, upkeep) as r:
            await r.append([event("A1")])
            disk = r.status()["disk"]
            assert (disk["ballastBytes"], disk["ballastHeld"], disk["diskFull"]) == (MB, False, False)

    run(story())


@pytest.mark.skipif(os.geteuid() != 0, reason="LOUD: needs root for a small tmpfs; the real full disk is not tested")
def test_a_real_full_disk_recovers_without_an_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tmpfs of 12 MB that others fill to the last byte, and leave again."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"LOUD: no tmpfs can be mounted here ({mounted.stderr.strip()}); the full disk is not tested")
    monkeypatch.setattr("edge_agent.runtime.EVERY_S", 0.02)
    try:
        run(_on_a_small_disk(disk))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


async def _on_a_small_disk(disk: Path) -> None:
    upkeep = Upkeep(disk / "ledger.db", 2 * MB)
    taken = 0
    runtime = EdgeRuntime(disk / "ledger.db", IDENTITY, NODE_KEY.sign, _never, upkeep=upkeep)
    async with runtime as r:
        assert upkeep.ballast.held
        await r.append([event("before")])
        (disk / "others").write_bytes(b"x" * (free_bytes(disk) - 600_000))
        while not upkeep.disk_full:
            try:
                await r.append([event(f"A{taken}", details={"note": "x" * 4_000})])
            except LedgerFull:
                break
            taken += 1
        assert upkeep.disk_full
        await until(lambda: r.unready() == ["the disk is full"])
        assert not upkeep.ballast.held
        with pytest.raises(LedgerFull):
            await r.append([event("late")])
        (disk / "others").unlink()
        await until(lambda: r.unready() == [])
        assert upkeep.ballast.held
        await r.append([event("after")])
    assert len(stored(disk)) == taken + 2, "each yes is there, and nothing else"


def _never(*_: object) -> None:
    raise AssertionError("nobody speaks to this edge")


# ------------------------------------------------------------ the file shrinks


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_new_file_shrinks_when_facts_have_gone(tmp_path: Path, driver: str) -> None:
    path = tmp_path / "ledger.db"
    db = Db(path, driver=driver)
    led = ledger(db=db)
    for n in range(20):
        say(led, *(plain(f"o{n}-{i}", note="x" * 500) for i in range(100)))
    db.checkpoint()
    before = path.stat().st_size
    assert db.shrinks
    led.begin()
    led.free(led.own(), 1_900, 0)
    led.commit()
    assert db.spare_bytes() > before // 2
    while db.spare_bytes():
        spare = db.spare_bytes()
        db.shrink(64)
        assert 0 < spare - db.spare_bytes() <= 65 * 4_096 + 4_096
    db.checkpoint()
    assert path.stat().st_size < before // 2
    assert len(led.log.read(led.own(), 1_901, 2_000, max_bytes=10**9, max_facts=1_000)) == 100
    db.close()


def test_a_file_of_version_1_is_made_anew_once_where_that_is_quick(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    old = Db(path, shrinks=False)
    migrate(old, LEDGER[:1])
    assert not old.shrinks
    old.close()

    async def story(free: int) -> bool:
        async with runtime(tmp_path, Upkeep(path, 0, free=lambda _: free)) as r:
            await r.append([event("A1")])
            return r.core.ledger.db.shrinks

    assert run(story(10_000)) is False, "there is no room to do it"
    assert run(story(100 * MB)) is True
    assert len(stored(tmp_path)) == 2


def test_a_running_edge_cuts_its_file_in_small_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.runtime.EVERY_S", 0.01)
    monkeypatch.setattr("edge_agent.upkeep.SPARE_BYTES", 10_000)

    async def story() -> None:
        async with runtime(tmp_path, Upkeep(tmp_path / "ledger.db", 0)) as r:
            for n in range(20):
                await r.append([event(f"{n}-{i}", details={"note": "x" * 400}) for i in range(100)])
            core = r.core
            core.begin()
            core.ledger.free(core.ledger.own(), 1_990, 0)
            core.commit()
            await until(lambda: core.ledger.db.spare_bytes() <= max(10_000, core.ledger.db.file_bytes() // 8))
            assert r.status()["disk"]["cutBytes"] > 500_000

    run(story())


def test_the_wal_stays_small_while_much_is_written(tmp_path: Path) -> None:
    db = Db(tmp_path / "ledger.db")
    led = ledger(db=db)
    most = 0
    for n in range(100):
        say(led, *(plain(f"o{n}-{i}", note="x" * 900) for i in range(100)))
        most = max(most, (tmp_path / "ledger.db-wal").stat().st_size)
    assert (tmp_path / "ledger.db").stat().st_size > 8 * MB
    assert most < 6 * MB
    db.close()
