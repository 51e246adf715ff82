"""How far something is that takes long, told now and then. The clock and where it is told are the caller's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

EVERY_S: Final = 2.0


class Progress:
    """A line at most every EVERY_S, and none at all for what is done by then. `clock_s` never steps."""

    def __init__(self, clock_s: Callable[[], float], say: Callable[[str], None]) -> None:
        self._clock_s, self._say = clock_s, say
        self._told_s = clock_s()

    def __call__(self, what: str, done: int, of: int) -> None:
        """`done` of `of` steps of `what`."""
        now_s = self._clock_s()
        if now_s - self._told_s >= EVERY_S:
            self._told_s = now_s
            self._say(f"{what}: {100 * done // max(of, 1)} % ({done:,} of {of:,})")
