"""How close the turns of the hub's loop may follow each other. Pure.

A turn costs its transaction, its sync, its answers and its wake-ups whether it takes one fact or a thousand. A thousand nodes that say
little each would cost as much as a backlog; so after a turn that did little, what follows within a moment goes into one: the less there is
to do in all, the longer that moment. Nobody is kept waiting for it: not who asked for something, and not a backlog, nor what came within
a moment after one, nor whoever comes first after a rest.
"""

from __future__ import annotations

from math import exp
from typing import Final

LITTLE_FACTS: Final = 200
"""taken in and given to the store in one turn; more is a backlog"""
LITTLE_BYTES: Final = 6_000
"""of frames that wait; more is a backlog"""
BACKLOG_S: Final = 0.5
"""for so long after the last of a backlog, more of it is expected"""
WORTH_FACTS: Final = 20
"""moved: what a turn is worth its price for, ten that come and the same ten as the store has them"""
FEW_TIMES: Final = 3
"""as far apart where fewer than that come together: what is fresh is to stay so"""
RATE_S: Final = 0.5
"""over which it is reckoned how much moves"""


class Pace:
    """See the module. Times: seconds of a monotonic clock, the caller's. `apart_s`: between the beginnings of two turns that do little, at
    the least; at the most FEW_TIMES as much."""

    def __init__(self, apart_s: float) -> None:
        self._apart_s = apart_s
        self._next_s = 0.0
        self._much_until_s = 0.0
        self._rate, self._rated_s = 0.0, 0.0
        """facts moved in a second, as of when the last turn began"""

    def turned(self, began_s: float, facts: int) -> None:
        """A turn that began then moved so many facts."""
        self._rate = self._rate * exp((self._rated_s - began_s) / RATE_S) + facts / RATE_S
        self._rated_s = began_s
        wanted_s = WORTH_FACTS / max(self._rate, 1e-3)
        self._next_s = began_s + min(max(wanted_s, self._apart_s), FEW_TIMES * self._apart_s)
        if facts >= LITTLE_FACTS:
            self._much_until_s = began_s + BACKLOG_S

    def rest_s(self, now_s: float, waiting_bytes: int) -> float:
        """For how long the next turn may still gather; 0: it begins now."""
        if now_s < self._much_until_s or much(waiting_bytes):
            return 0.0
        return max(0.0, self._next_s - now_s)


def much(waiting_bytes: int) -> bool:
    """Is what waits worth a turn of its own?"""
    return waiting_bytes >= LITTLE_BYTES
