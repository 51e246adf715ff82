"""Since when frames were sent and none of them was received, as far as anybody said: what a broker that refuses in silence looks like."""

from __future__ import annotations


class Silence:
    """See the module. `now` is in ms of a clock that never steps; a new connection does not end a silence, a receipt does."""

    def __init__(self) -> None:
        self._since: int | None = None
        self._frames = self._stalls = 0

    def sent(self, now: int) -> None:
        """A frame went out."""
        self._since = now if self._since is None else self._since
        self._frames += 1

    def stalled(self) -> None:
        """A connection was given up because nothing moved."""
        self._stalls += 1

    def broken(self) -> None:
        """The hub received something."""
        self._since = None
        self._frames = self._stalls = 0

    def lasts(self, now: int, patience_ms: int) -> tuple[int, int] | None:
        """(frames sent, for how many ms) once a connection was given up over it, or patience ran out; None before that."""
        if self._since is None or not (self._stalls or now - self._since >= patience_ms):
            return None
        return self._frames, now - self._since
