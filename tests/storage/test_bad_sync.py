"""A sync fails, and the power goes later: what should have been written is clean for the kernel and not on the disk, and no later sync
brings it back. What the edge says yes to after it has opened its ledger again must not stand on that."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import apsw
import pytest

from protocols.ledger import Ledger
from protocols.sqlite import Db
from tests.storage import verify as check
from tests.storage.clock import StillLoop, in_still_time
from tests.storage.disk import NOTHING, CrashVfs, Disk, Surface, crash_vfs, draw, error
from tests.storage.edge_story import ADDRESS, Story, Told, not_spinning

NTH_MOST = 400
EACH = 4


class CrashDb(Db):
    """On a crash disk. There errors of the last checkpoint reach the caller of `close`, which SQLite itself keeps to itself."""

    def close(self) -> None:
        """See `Db.close`."""
        with contextlib.suppress(apsw.Error):
            super().close()

    def _close_half_open(self) -> None:
        with contextlib.suppress(apsw.Error):
            super()._close_half_open()


class BadSyncs:
    """The `nth` sync fails, and with `for_good` all after it until they are repaired."""

    def __init__(self, disk: Disk, nth: int, for_good: bool) -> None:
        self.seen = self.struck = 0
        self.on_first: Callable[[], None] = lambda: None
        self._nth, self._for_good, self._repaired = nth, for_good, False
        self._disk = disk
        disk.fault = self._meet

    def _meet(self, what: str, _: str) -> None:
        if what != "sync" or self._repaired:
            return
        self.seen += 1
        if self.seen == self._nth or (self._for_good and self.seen > self._nth):
            self.struck += 1
            if self.struck == 1:
                self.on_first()
            raise error(apsw.IOError, apsw.SQLITE_IOERR_FSYNC)

    def repair(self) -> None:
        """From now on everything works."""
        self._repaired = True


def play(vfs: CrashVfs, path: Path, nth: int, *, for_good: bool) -> tuple[BadSyncs, Told, Disk]:
    """The story of an edge on a disk whose syncs fail."""
    vfs.disk = Disk()
    disk, syncs = vfs.disk, BadSyncs(vfs.disk, nth, for_good)
    told: list[Told] = []

    async def tell(loop: StillLoop) -> None:
        story = Story(loop, path, syncs, lambda at: CrashDb(at, vfs=vfs.name), lambda: disk.now)
        told.append(story.told)
        await story.tell()

    in_still_time(tell)
    disk.fault = None
    return syncs, told[0], disk


def cut_everywhere(vfs: CrashVfs, path: Path, told: Told, disk: Disk, rng: Random) -> int:
    """The power goes right after each yes, and at the end; returns how many cuts that was."""
    surface, played = Surface({}), 0
    points = [one.at for one in told.yes] + [disk.now]
    for point in sorted(points):
        for op in disk.ops[played:point]:
            surface.play(op)
        played = point
        for mood in (NOTHING, draw(rng)):
            vfs.disk = Disk(surface.left(rng, mood))
            db = CrashDb(path, vfs=vfs.name)
            try:
                check.sound(db)
                check.links(db)
                led = Ledger(db, node=ADDRESS.node, new_epoch=lambda: 1)
                check.runs(led)
                check.answered(led, [one for one in told.yes if one.at <= point])
            finally:
                db.close()
    return 2 * len(points)


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for-a-minute"])
def test_no_yes_stands_on_what_a_failed_sync_left_in_the_cache(for_good: bool, tmp_path: Path) -> None:
    struck = refused = cuts = 0
    with crash_vfs(f"bad-sync-{os.getpid()}") as vfs:
        for nth in range(1, NTH_MOST, EACH):
            syncs, told, disk = play(vfs, tmp_path / "ledger.db", nth, for_good=for_good)
            if not syncs.struck:
                break
            struck += 1
            not_spinning(told)
            refused += told.refused
            cuts += cut_everywhere(vfs, tmp_path / "ledger.db", told, disk, Random(nth))
        else:
            raise AssertionError(f"still failing at sync {NTH_MOST}")
    assert struck > 10
    assert refused > 3
    print(f"{struck} syncs failed, {refused} requests were refused, {cuts} cuts")
