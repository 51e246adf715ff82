"""What of a batch reaches the live feed: everything while people can follow, a sample and "n more" when thousands arrive per second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hub.store.port import Change
from hub.store.reading import sample
from hub.stream import Feed
from hub.views import change_json

ITEMS_PER_S: Final = 50
BURST: Final = 100
MORE_EVERY_MS: Final = 500


class Sampler:
    """Publishes changes to the feed, at most ITEMS_PER_S in the long run, and BURST at once."""

    def __init__(self, feed: Feed) -> None:
        self.unshown_total = 0
        self._feed = feed
        self._room = float(BURST)
        self._at_ms: int | None = None
        self._more = 0
        self._more_due_ms = 0

    def publish(self, changes: Sequence[Change], now_ms: int, untold: int = 0) -> None:
        """Take in the changes of one batch, and show what there is room for. `untold`: so many more there are."""
        if self._at_ms is not None:
            self._room = min(float(BURST), self._room + max(now_ms - self._at_ms, 0) * ITEMS_PER_S / 1_000)
        self._at_ms = now_ms
        shown = [changes[n] for n in sample([change.conflict for change in changes], int(self._room))]
        self._room -= len(shown)
        for change in shown:
            self._feed.publish("change", change_json(change), change.received_ms)
        self._more += untold + len(changes) - len(shown)
        self.unshown_total += untold + len(changes) - len(shown)
        if self._more and now_ms >= self._more_due_ms:
            self._feed.publish("more", {"more": self._more}, now_ms)
            self._more, self._more_due_ms = 0, now_ms + MORE_EVERY_MS

    def due_ms(self) -> int | None:
        """When to call `publish` again though nothing came: some were not told of yet."""
        return self._more_due_ms if self._more else None
