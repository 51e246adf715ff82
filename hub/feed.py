"""What of a batch reaches the live feed: everything while people can follow, a sample and "n more" when thousands arrive per second.

Conflicts come first, for they are what somebody must see. The rest of a batch is represented by its last facts: those are the freshest.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final

from hub.store.port import Change
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

    def publish(self, changes: Sequence[Change], now_ms: int) -> None:
        """Take in the changes of one batch, and show what there is room for."""
        if self._at_ms is not None:
            self._room = min(float(BURST), self._room + max(now_ms - self._at_ms, 0) * ITEMS_PER_S / 1_000)
        self._at_ms = now_ms
        shown = changes if len(changes) <= self._room else _sample(changes, int(self._room))
        self._room -= len(shown)
        for change in shown:
            self._feed.publish("change", change_json(change), change.received_ms)
        self._more += len(changes) - len(shown)
        self.unshown_total += len(changes) - len(shown)
        if self._more and now_ms >= self._more_due_ms:
            self._feed.publish("more", {"more": self._more}, now_ms)
            self._more, self._more_due_ms = 0, now_ms + MORE_EVERY_MS

    def due_ms(self) -> int | None:
        """When to call `publish` again though nothing came: some were not told of yet."""
        return self._more_due_ms if self._more else None


def _sample(changes: Sequence[Change], room: int) -> Sequence[Change]:
    """At most `room` of them, in their order."""
    if room <= 0:
        return ()
    conflicts = [n for n, change in enumerate(changes) if change.conflict][-room:]
    taken = dict.fromkeys(conflicts)
    others = (n for n in range(len(changes) - 1, -1, -1) if n not in taken)
    return [changes[n] for n in sorted(chain(conflicts, (n for n, _ in zip(others, range(room - len(conflicts)), strict=False))))]
