"""The look that the engine takes at itself between two turns: what pages and metrics show of fleet, balance and gaps."""

from __future__ import annotations

import logging
from typing import Final

from hub.core import HubCore
from hub.engine_ports import LOOK_EVERY_MS, Ports, Rhythm
from hub.fleet import NO_STORE, NOT_ASKED, Seen, look
from hub.lookbook import Book
from hub.store.port import CentralStore

log = logging.getLogger(__name__)
LOOK_SHARE: Final = 100
"""one part in so many of the worker's time goes into looks"""
LOOK_MOST_MS: Final = 10_000
"""but no longer than this after one: a look may have waited for a store that was stopped, or for a machine that was busy"""


class Lookout:
    """See the module. It goes on from what it saw of the same core before."""

    def __init__(self, ports: Ports, rhythm: Rhythm) -> None:
        self._ports, self._rhythm = ports, rhythm
        self._core: HubCore | None = None
        self._book = Book()

    def around(self, core: HubCore, store: CentralStore | None, before: Seen, taking_back: bool) -> tuple[Seen, int]:
        """What is seen now (`before` where that fails), and when to look again: what takes long is made seldom."""
        ports = self._ports
        if core is not self._core:
            self._core, self._book = core, Book()
        began_ms, seen = ports.now_ms(), before
        try:
            if ports.desk is not None:
                ports.desk.look()
            offline_after_ms = self._rhythm.offline_after_ms
            seen = look(core, store, began_ms, ports.left, offline_after_ms, taking_back=taking_back, book=self._book)
        # boundary: a page that cannot be drawn is no reason to stop taking facts
        except Exception:
            log.exception("The hub could not look at its fleet")
        if seen.balance["fleet"].get("unknown") in (NO_STORE, NOT_ASKED):
            # What took long was waiting for it, or the start; whoever asks soon is to hear that it is there, and what it says.
            return seen, ports.now_ms() + LOOK_EVERY_MS
        ended_ms = ports.now_ms()
        return seen, min(began_ms + max(LOOK_EVERY_MS, LOOK_SHARE * (ended_ms - began_ms)), ended_ms + LOOK_MOST_MS)
