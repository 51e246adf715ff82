"""How soon to try again what failed: at once the first time, then with a back-off that ends when it was calm for a while."""

from __future__ import annotations

from typing import Final

FIRST_S: Final = 0.05
MOST_S: Final = 5.0
CALM_MS: Final = 60_000


class Patience:
    """Counts failures that come close together. Times are of the clock that never steps, in ms."""

    def __init__(self) -> None:
        self.wait_s = 0.0
        """how long to wait before the next attempt"""
        self._failed_ms: int | None = None

    def failed(self, now_ms: int) -> None:
        """Once more."""
        calm = self._failed_ms is None or now_ms - self._failed_ms > CALM_MS
        self.wait_s = 0.0 if calm else min(MOST_S, max(FIRST_S, 2 * self.wait_s))
        self._failed_ms = now_ms
