"""Single facts that alone are too large for the way to the hub: each steps aside for an hour, so that the others flow and nobody is worn
out by it; then it is tried once more, for the limit may have been raised. Another way (a stick, a gateway) may bring it sooner."""

from __future__ import annotations

from typing import Final

AGAIN_MS: Final = 3_600_000


class Aside:
    """See the module. `now` is in ms of a clock that never steps. In memory: a restart tries at once."""

    def __init__(self) -> None:
        self._until: dict[tuple[int, int], int] = {}

    def put(self, sid: int, seq: int, now: int) -> None:
        """A fact of a stream was refused for its size, all by itself."""
        self._until[sid, seq] = now + AGAIN_MS

    def over(self, now: int) -> bool:
        """Is the time of some of them over? They are aside no longer."""
        due = [fact for fact, until in self._until.items() if now >= until]
        for fact in due:
            del self._until[fact]
        return bool(due)

    def of(self, sid: int) -> list[tuple[int, int]]:
        """Those of a stream, as ranges."""
        return [(seq, seq) for at, seq in self._until if at == sid]

    def next_ms(self) -> int | None:
        """When to ask `over` again."""
        return min(self._until.values(), default=None)
