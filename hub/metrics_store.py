"""Figures that the central store counts, for Prometheus: NaN while it does not answer."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from hub.facade import Metric
from hub.snapshot import Snapshots
from protocols.errors import LongshoreError


class TotalFamily(NamedTuple):
    """A metric family, and which of the store's totals it shows."""

    name: str
    help: str
    total: str


FAMILIES: Final = (
    TotalFamily("longshore_store_answers", "1 when the central store says what it counts.", ""),
    TotalFamily("longshore_orders", "Orders of the consolidated view.", "orders"),
    TotalFamily("longshore_store_events", "Facts of orders in the central store.", "facts"),
    TotalFamily("longshore_conflicts_open", "Conflicts that nobody has settled.", "conflicts"),
    TotalFamily("longshore_store_quarantined_events", "Facts in the central store that wait for their author.", "quarantined"),
)


async def stored(snapshots: Snapshots) -> list[Metric]:
    """A sample per family."""
    try:
        totals: dict[str, int] | None = (await snapshots.take()).totals
    except LongshoreError:
        totals = None
    return [Metric(f.name, f.help, "gauge", {}, _value(f, totals)) for f in FAMILIES]


def _value(family: TotalFamily, totals: dict[str, int] | None) -> float:
    if not family.total:
        return float(totals is not None)
    return math.nan if totals is None else totals[family.total]
