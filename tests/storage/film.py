"""What was committed to a database when, in points of its disk: after a power loss it must be in one of few states, to the byte."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from protocols.errors import LedgerError
from protocols.sqlite import Db
from tests.storage.disk import CrashVfs, Disk

OPEN: int = 1 << 60
WAL_PAGES = 60
"""moved into the file after so many: a trace of 200 transactions shows dozens of checkpoints"""

Digest = int
"""within one process"""
IMAGES = 8
"""of one state in so many the whole image is kept"""


def digest(image: bytes) -> Digest:
    """Of a whole database as it is committed, but for the two counters of changes in its first page."""
    return hash(image[:24] + image[28:92] + image[96:])


@dataclass(slots=True)
class Commit:
    """One transaction that ended in COMMIT. `done` is OPEN where it never returned."""

    begun: int
    done: int
    state: Digest
    image: bytes
    """empty where it was not kept"""


@dataclass(slots=True)
class Film:
    """The states that one file went through; the first was there when it was opened."""

    commits: list[Commit] = field(default_factory=list)

    def allowed(self, point: int) -> list[int]:
        """Which states the file may be in when the power goes at a point: all that was acknowledged, and perhaps what was under way."""
        last = max(i for i, c in enumerate(self.commits) if c.done <= point)
        return [last, *(i for i, c in enumerate(self.commits) if c.begun <= point < c.done)]


class Watched(Db):
    """A database on a crash disk, whose commits are filmed. `synchronous` other than FULL is what the controls break."""

    def __init__(self, path: str | Path, vfs: CrashVfs, film: Film, *, synchronous: str = "FULL", wal_pages: int = WAL_PAGES) -> None:
        self._disk: Disk = vfs.disk
        self.film = film
        super().__init__(path, vfs=vfs.name)
        self.run(f"PRAGMA synchronous={synchronous}")
        self.query(f"PRAGMA wal_autocheckpoint={wal_pages}")
        if not film.commits:
            self._note(0, 0)

    def commit(self) -> None:
        """See `Db.commit`."""
        begun = self._disk.now
        try:
            super().commit()
        except LedgerError:
            self.film.commits.append(Commit(begun, OPEN, 0, b""))
            raise
        self._note(begun, self._disk.now)

    def shrink(self, pages: int) -> None:
        """See `Db.shrink`: a transaction of its own."""
        begun = self._disk.now
        super().shrink(pages)
        self._note(begun, self._disk.now)

    def make_shrinkable(self) -> None:
        """See `Db.make_shrinkable`: likewise."""
        begun = self._disk.now
        super().make_shrinkable()
        self._note(begun, self._disk.now)

    def _note(self, begun: int, done: int) -> None:
        image = self.dump()
        kept = image if len(self.film.commits) % IMAGES == 0 else b""
        self.film.commits.append(Commit(begun, done, digest(image), kept))
