"""Which MQTT to speak: 5 where the broker has it, 3.1.1 where it has not, found out by itself.

A broker that does not know MQTT 5 says so, hangs up, or says nothing. Then the very next attempt is made with 3.1.1; if that one comes up,
3.1.1 stays for an hour, and a new connection after that tries 5 again: brokers are upgraded, and one that hung up for another reason must
not cost reason codes for good.
"""

from __future__ import annotations

from typing import Final

AUTO: Final = "auto"
FIVE: Final = "5"
THREE: Final = "3.1.1"
CHOICES: Final = (AUTO, FIVE, THREE)
STAY_S: Final = 3_600.0


class Versions:
    """Which version the next connection speaks. `wanted` is one of CHOICES. Times are seconds of a clock that never steps."""

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted
        self._fell_back = False
        self._three_until_s = float("-inf")

    def five(self, now_s: float) -> bool:
        """Whether to speak MQTT 5 now."""
        return self._wanted == FIVE or (self._wanted == AUTO and not self._fell_back and now_s >= self._three_until_s)

    def came_up(self, now_s: float, *, five: bool) -> None:
        """A connection was let in."""
        if not five and self._fell_back:
            self._three_until_s = now_s + STAY_S
        self._fell_back = False

    def failed(self, *, five: bool, answered: bool) -> bool:
        """A connection ended before it was let in; `answered`: the broker did speak this version. True: try 3.1.1 at once."""
        self._fell_back = self._wanted == AUTO and five and not answered
        return self._fell_back
