"""The disk under a running edge: ballast for when it is full, a file that shrinks when facts have gone, and what is left to others.

Called by the runtime between its turns. When the disk is full the ballast is let go of, the core takes nothing more and makes room (settled
facts, telemetry), the file is cut, and once the ballast fits on the disk again events are taken again. Nobody has to do anything here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edge_agent.ballast import Ballast, free_bytes
from edge_agent.core import EdgeCore
from protocols.errors import CustodyFull, LedgerError, LedgerFull, OverBudget
from protocols.sqlite import Db

log = logging.getLogger(__name__)

EVERY_S: Final = 1.0
STEP_PAGES: Final = 256
"""cut off in one go while events are taken: a few ms"""
SPARE_BYTES: Final = 1_000_000
"""of unused pages that stay: they are used again soon"""
VACUUM_MOST_BYTES: Final = 64_000_000
"""a file of version 1 that holds more is not made anew at the start: it would take long, and needs as much room again"""
MARGIN_BYTES: Final = 1_000_000


class Upkeep:
    """See the module. `free`: bytes left on the disk of a folder."""

    def __init__(
        self, ledger: Path, ballast_bytes: int = 0, *, ballast: Ballast | None = None, free: Callable[[Path], int] = free_bytes
    ) -> None:
        self._folder, self._free = ledger.absolute().parent, free
        self.ballast = ballast or Ballast(ledger.with_name(ledger.name + ".ballast"), ballast_bytes)
        self.disk_full = False
        self.free_bytes: int | None = None
        self.released_total = 0
        self.cut_bytes_total = 0

    # ------------------------------------------------------------ what the runtime tells

    def start(self) -> None:
        """Before the ledger is opened for the first time."""
        self.ballast.hold()
        self._look()
        if self.ballast.size and not self.ballast.held:
            log.warning("no ballast of %d bytes beside the ledger: %s", self.ballast.size, self.ballast.problem)

    def opened(self, core: EdgeCore) -> None:
        """A core was made from disk, outside of any transaction."""
        if self.disk_full:
            core.budget.on_disk_full(self._wanted)
        elif not core.ledger.db.shrinks:
            self._make_shrinkable(core.ledger.db)

    def failed(self, error: LedgerError) -> None:
        """The ledger failed. Where the disk was full, this is what the ballast is for; without one the next request simply tries again."""
        if not self.ballast.size or not isinstance(error, LedgerFull) or isinstance(error, OverBudget | CustodyFull):
            return
        released = self.ballast.release()
        self.released_total += released
        if released or not self.disk_full:
            back = f", {self.ballast.size} bytes of ballast are given back" if released else ""
            log.error("the disk is full%s: nothing more is taken until there is room", back)
        self.disk_full = True

    def tend(self, core: EdgeCore) -> None:
        """Every second. Errors: LedgerError."""
        self._look()
        core.disk_free_bytes = self.free_bytes
        if self.disk_full:
            self._make_room(core)
        else:
            self.cut_bytes_total += core.ledger.db.trim(STEP_PAGES, SPARE_BYTES)
            if self.ballast.size and not self.ballast.held and self._fits:
                self.ballast.hold()

    # ------------------------------------------------------------ room

    @property
    def _wanted(self) -> int:
        """A disk that had no room for the ballast when all was well need not have it when all is well again."""
        return MARGIN_BYTES + (self.ballast.size + self.ballast.size // 4 if self.released_total else 0)

    def _look(self) -> None:
        try:
            self.free_bytes = self._free(self._folder)
        except OSError:
            self.free_bytes = None

    @property
    def _is_room(self) -> bool:
        return self.free_bytes is not None and self.free_bytes >= self._wanted

    @property
    def _fits(self) -> bool:
        return self.free_bytes is not None and self.free_bytes >= self.ballast.size + MARGIN_BYTES + self.ballast.size // 4

    def _make_room(self, core: EdgeCore) -> None:
        core.begin()
        core.commit()
        self.cut_bytes_total += core.ledger.db.trim(8 * STEP_PAGES, 0)
        core.ledger.db.checkpoint()
        self._look()
        if self._is_room and (self.ballast.hold() or not self.released_total):
            self.disk_full = False
            core.budget.on_disk_room()
            log.warning("the disk has room again: events are taken%s", ", the ballast is back" if self.ballast.held else "")

    def _make_shrinkable(self, db: Db) -> None:
        """A file of version 1 cannot be cut until it was made anew once. Only where that is quick, and the disk has the room."""
        size = db.file_bytes()
        if size > VACUUM_MOST_BYTES or self.free_bytes is None or self.free_bytes < 3 * size:
            return
        db.make_shrinkable()
        log.info("the ledger was made anew once, so that its file can shrink")

    # ------------------------------------------------------------ asking

    def status(self) -> dict[str, Any]:
        """For `GET /v1/status`."""
        return {
            "diskFull": self.disk_full,
            "freeBytes": self.free_bytes,
            "ballastBytes": self.ballast.size,
            "ballastHeld": self.ballast.held,
            "ballastReleased": self.released_total,
            "cutBytes": self.cut_bytes_total,
        }
