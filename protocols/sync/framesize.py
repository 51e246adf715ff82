"""How many facts a frame may hold, where a broker on the way takes less than Longshore's own bound.

A frame that was too large is halved, and so are those after it; after ten minutes without another one the bound doubles again. A limit that
stays costs one refused message each time; one that was put right is forgotten by itself.
"""

from __future__ import annotations

from typing import Final

RECOVER_MS: Final = 600_000


class FrameSize:
    """See the module. `now` is in ms of a clock that never steps."""

    def __init__(self, facts: int) -> None:
        self._full = self._most = facts
        self._since = 0

    def too_large(self, facts: int, now: int) -> None:
        """A frame of so many facts was refused for its size."""
        self._most, self._since = max(1, min(self._most, facts // 2)), now

    def most(self, now: int) -> int:
        """Facts in the next frame at most."""
        while self._most < self._full and now - self._since >= RECOVER_MS:
            self._most, self._since = min(self._full, self._most * 2), self._since + RECOVER_MS
        return self._most
