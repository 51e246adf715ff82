"""How long facts take through this hub: from its disk to the store, as a histogram for Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Final

from hub.facade import Metric

BOUNDS_S: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
NAME: Final = "longshore_freshness_seconds"
HELP: Final = "From a fact's arrival on this hub's disk to its place in the central store."


class Freshness:
    """Counts ages into buckets. For one thread."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum_ms = 0

    def took(self, received: Mapping[int, int], now_ms: int) -> None:
        """So many facts received at these times (ms) are in the store now. A clock that went back counts as no time."""
        for at_ms, facts in received.items():
            age_ms = max(now_ms - at_ms, 0)
            self._counts[bisect_left(BOUNDS_S, age_ms / 1_000)] += facts
            self._sum_ms += age_ms * facts

    def samples(self) -> Iterator[Metric]:
        """The histogram as Prometheus reads it."""
        below = 0
        for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), self._counts, strict=True):
            below += count
            yield Metric(NAME, HELP, "histogram", {"le": bound}, below, "_bucket")
        yield Metric(NAME, HELP, "histogram", {}, self._sum_ms / 1_000, "_sum")
        yield Metric(NAME, HELP, "histogram", {}, below, "_count")
