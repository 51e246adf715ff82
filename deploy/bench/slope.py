"""How the cost of an event grows with their number: the whole way drained at several sizes, and the slope of cost against size.

In processor time, which a busy machine does little to; a slope of 1 in logarithms of both is a cost per event that stays the same. The
edge is left out: its start is in its figure, and would flatter a small size's neighbours.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from math import log
from typing import Final

from deploy.bench import engines, line, whole
from deploy.bench.table import Figure

EVENTS: Final = 1_000_000
STEPS: Final = (100, 10, 1)
"""the sizes are the largest divided by these"""
TARGET: Final = 1.05


def run(events: int = EVENTS) -> Iterator[Figure]:
    """One run of each size, all events compared with PostgreSQL afterwards."""
    if engines.skipped(*line.ENGINES):
        return
    sizes, costs = [events // step for step in STEPS], []
    for size in sizes:
        done = asyncio.run(whole.drained(size))
        costs.append(done.cost)
        sum_us = sum(us for name, us in done.cost.items() if name != "edge")
        note = f"without the edge {sum_us:.0f}, {done.rate:,.0f} ev/s: {line.told(done.cost)}"
        yield Figure(f"{size:,} events: hub", done.cost["hub"], "us/ev", note=note)
    hub = worst(sizes, [cost["hub"] * size for cost, size in zip(costs, sizes, strict=True)])
    rest = worst(sizes, [(sum(cost.values()) - cost["edge"]) * size for cost, size in zip(costs, sizes, strict=True)])
    note = f"load {os.getloadavg()[0]:.1f}"
    yield Figure("slope of the hub's processor time", hub, "", target=f"<= {TARGET}", met=hub <= TARGET, note=note)
    yield Figure("slope of hub, engines and projectors", rest, "", target=f"<= {TARGET}", met=rest <= TARGET)


def worst(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope over all, or that of the last step if it is steeper: what starting costs flatters the smallest."""
    return max(slope(sizes, costs), slope(sizes[-2:], costs[-2:]))


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Of the line through the logarithms, by least squares."""
    x, y = [log(size) for size in sizes], [log(cost) for cost in costs]
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True)) / sum((a - middle_x) ** 2 for a in x)
