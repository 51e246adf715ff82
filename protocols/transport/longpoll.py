"""The serving side of a long poll: callers wait until there is something for them, for a bounded time. For the thread of one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from protocols.errors import LedgerBusy

CALLERS_MOST: Final = 2_000


class LongPoll:
    """`waits(node)`: is there anything for this node? The owner rings after whatever may have changed that."""

    def __init__(self, waits: Callable[[str], bool], *, callers_most: int = CALLERS_MOST) -> None:
        self._waits, self._callers_most = waits, callers_most
        self._callers: dict[asyncio.Future[None], str] = {}
        self._closed = False

    @property
    def callers(self) -> int:
        """How many wait now."""
        return len(self._callers)

    async def until(self, node: str, wait_s: float) -> None:
        """Return when there is something for a node, after `wait_s`, or when the owner stops. Errors: LedgerBusy: too many wait."""
        if wait_s <= 0 or self._closed or self._waits(node):
            return
        if len(self._callers) >= self._callers_most:
            raise LedgerBusy("too many wait for an answer here", remedy="come again in a moment, without waiting")
        caller: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._callers[caller] = node
        try:
            async with asyncio.timeout(wait_s):
                await caller
        except TimeoutError:
            return
        finally:
            self._callers.pop(caller, None)

    def ring(self) -> None:
        """Let those go for whom there is something."""
        for caller, node in list(self._callers.items()):
            if not caller.done() and (self._closed or self._waits(node)):
                caller.set_result(None)

    def close(self) -> None:
        """Let everybody go: who serves them stops."""
        self._closed = True
        self.ring()
