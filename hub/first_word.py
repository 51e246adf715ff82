"""The hub takes no event of its own before the central store has spoken.

A hub that came back from a backup may lack facts of its own stream. An event taken in that state would get a number that is taken already:
a fork, which is kept and folded like any other, but which people are told of and which nobody needs. So callers wait, for a moment each,
until the store has said what it holds and the hub has taken back what is its own; who waits in vain is answered 503 and comes again.

A store that cannot be reached must not stop the hub, which is there to take facts: when it is not open `grace_ms` after the start of the
core, events are taken, and a fork is then the price. Facts of edges are taken in any case; they are of other streams.
"""

from __future__ import annotations

import asyncio
from typing import Final

from protocols.errors import LedgerBusy

GRACE_MS: Final = 3_000


class FirstWord:
    """For the event loop's thread. `grace_ms`: how long callers wait, and how long a store may stay out of reach."""

    def __init__(self, grace_ms: int | None = None) -> None:
        self._grace_ms = GRACE_MS if grace_ms is None else grace_ms
        self._spoken = asyncio.Event()
        self._since_ms = 0

    def begin(self, now_ms: int) -> None:
        """A core begins: what an earlier one was told does not count."""
        self._spoken.clear()
        self._since_ms = now_ms

    def note(self, *, spoken: bool) -> None:
        """After each turn: has the store spoken, and is everything of the hub's own here that it has?"""
        if spoken:
            self._spoken.set()
        else:
            self._spoken.clear()

    async def heard(self, now_ms: int, *, reachable: bool) -> None:
        """Returns once an event may be taken. Errors: LedgerBusy: not yet, send it again."""
        left_ms = self._grace_ms - max(0, now_ms - self._since_ms) if not reachable else self._grace_ms
        if self._spoken.is_set():
            return
        try:
            async with asyncio.timeout(max(0, left_ms) / 1_000):
                await self._spoken.wait()
        except TimeoutError:
            if reachable:
                raise LedgerBusy(
                    "the central store has not said yet what it holds of this hub's own facts", remedy="send it again in a moment"
                ) from None
