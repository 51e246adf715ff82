"""Since when something was said and nobody showed that he heard it: what a broker that refuses in silence looks like.

A node keeps two: of its frames, ended by receipts, and of its hellos, ended by answers. Either may be swallowed alone.
"""

from __future__ import annotations


class Silence:
    """See the module. `now` is in ms of a clock that never steps; a new connection does not end a silence, a receipt does."""

    def __init__(self) -> None:
        self._since: int | None = None
        self._count = self._stalls = 0

    def sent(self, now: int) -> None:
        """Something went out."""
        self._since = now if self._since is None else self._since
        self._count += 1

    def stalled(self) -> None:
        """A connection was given up because nothing moved."""
        self._stalls += 1

    def broken(self) -> None:
        """It was heard."""
        self._since = None
        self._count = self._stalls = 0

    def lasts(self, now: int, patience_ms: int) -> tuple[int, int] | None:
        """(how often it was said, for how many ms) once a connection was given up over it, or patience ran out; None before that."""
        if self._since is None or not (self._stalls or now - self._since >= patience_ms):
            return None
        return self._count, now - self._since
