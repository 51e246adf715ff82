"""How long a line lets small packets gather before it reads on. Pure.

A wake-up costs as much as reading ten small packets. Where few come, one that is looked at a moment later saves nothing and is only late;
where hundreds come in a second, a longer moment lets several go together. What is large is a backlog, and waits for nothing.
"""

from __future__ import annotations

from math import exp
from typing import Final

LITTLE_BYTES: Final = 4_000
PACKETS_MOST: Final = 64
"""read at one go; what is more, in either, is a backlog"""
MANY_TIMES: Final = 3
"""the moment is so much longer where many packets come"""
MANY: Final = 2
"""packets that are expected in the longer moment: from here on it is worth its while"""
RATE_S: Final = 1.0
"""over which it is reckoned how many come"""


class Gather:
    """See the module. `least_s`: the moment where few packets come; 0: never any. `packets`: all that came. Times: seconds of a monotonic
    clock, the caller's."""

    def __init__(self, least_s: float) -> None:
        self.packets = 0
        self._least_s = least_s
        self._size, self._before = 0, 0
        self._rate, self._rated_s = 0.0, 0.0
        """packets in a second, as of then"""

    def begin(self) -> None:
        """Reading begins."""
        self._size, self._before = 0, self.packets

    def came(self, size: int) -> None:
        """A packet with so many bytes of somebody's."""
        self.packets += 1
        self._size += size

    @property
    def much(self) -> bool:
        """Was a backlog's worth read since it began?"""
        return self._size >= LITTLE_BYTES or self.packets - self._before >= PACKETS_MOST

    def pause_s(self, now_s: float) -> float:
        """After reading: for how long more may gather before the next; 0: not at all."""
        if not self._least_s:
            return 0.0
        self._rate = self._rate * exp((self._rated_s - now_s) / RATE_S) + (self.packets - self._before) / RATE_S
        self._rated_s = now_s
        if self.much or not self._size:
            return 0.0
        longer_s = MANY_TIMES * self._least_s
        return longer_s if self._rate * longer_s >= MANY else self._least_s
