"""Who says little is told once. Pure.

A receipt costs a signature, a message through the broker, and its acknowledgement; `received` and `settled` follow each other within a
moment. Somebody who sends a backlog needs the first at once, for it makes room for more. To all others it says only that nothing needs to
be sent again, which nobody would do for seconds: there it waits for the store's word, and goes with it, or alone where that does not come
in time. Whatever is out of the ordinary (a hole, a copy, something refused) is said at once.
"""

from __future__ import annotations

from typing import Final

HOLD_MS: Final = 500
"""a tenth of what a node waits at the least before it asks"""
QUIET_MS: Final = 1_000
"""since the frame before: who sent one so long ago says little"""
FEW_FACTS: Final = 20
"""in a frame; more is a backlog, or would become one"""


class Holding:
    """Which nodes' receipts wait. Times: the hub's clock, ms, which may be set back: nothing waits for longer because of it. `hold_ms`: at
    the most; 0: none waits."""

    def __init__(self, hold_ms: int) -> None:
        self._hold_ms = hold_ms
        self._came_ms: dict[str, int] = {}
        self._until_ms: dict[str, int] = {}

    def came(self, node: str, now_ms: int, *, plain: bool) -> None:
        """A frame of this node was taken in. `plain`: of a few facts, all new, of which there is nothing to say but that they are here."""
        last_ms = self._came_ms.get(node)
        self._came_ms[node] = now_ms
        if plain and self._hold_ms and (last_ms is None or not 0 <= now_ms - last_ms < QUIET_MS):
            self._until_ms[node] = now_ms + self._hold_ms
        else:
            self.release(node)

    def release(self, node: str) -> None:
        """There is more to say to it: now."""
        self._until_ms.pop(node, None)

    def waits(self, node: str, now_ms: int) -> bool:
        """Is it told later?"""
        until_ms = self._until_ms.get(node)
        return until_ms is not None and now_ms < until_ms <= now_ms + self._hold_ms

    def said(self, now_ms: int) -> None:
        """All that did not wait any longer has gone out."""
        self._until_ms = {node: at for node, at in self._until_ms.items() if self.waits(node, now_ms)}

    def due_ms(self) -> int | None:
        """When the next of those that wait is to be told; None: none waits."""
        return min(self._until_ms.values(), default=None)

    def is_due(self, now_ms: int) -> bool:
        """Has one waited long enough?"""
        return any(not self.waits(node, now_ms) for node in self._until_ms)
