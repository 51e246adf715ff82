"""A backlog drains the whole way on real engines: edge, Mosquitto, hub, Kafka, projectors, PostgreSQL; beside the embedded default.

The rate is from the hub's first receipt to the moment PostgreSQL has committed the last event; the processor time is of all processes
from before the edge starts to that moment. What a machine of two cores could do at most follows from it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from deploy.bench import drain, engines, line
from deploy.bench.table import Figure

EVENTS: Final = 200_000
TARGET: Final = 12_000
CORES: Final = 2


def run(events: int = EVENTS) -> Iterator[Figure]:
    """One run of each; all events are compared with PostgreSQL afterwards."""
    if engines.skipped(*line.ENGINES):
        return
    peer = next(iter(drain.run(events))).figure
    rate, cost, rss = asyncio.run(drained(events))
    sum_us = sum(cost.values())
    note = (
        f"nothing missing, nothing twice; {line.PROJECTORS} projectors, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}"
    )
    name, target = f"drain of {events:,} events into PostgreSQL", f">= {TARGET:,}"
    yield Figure(name, rate, "ev/s", "embedded default", peer, rate / peer, target, rate >= TARGET, note)
    yield Figure("processor time of all of it", sum_us, "us/ev", note=line.told(cost))
    yield Figure(f"so {CORES} cores do at most", CORES * 1e6 / sum_us, "ev/s")
    yield Figure("hub RSS after it", rss["hub"], "MB", note=", ".join(f"{name} {mb:.0f}" for name, mb in rss.items() if name != "hub"))


class Drained(NamedTuple):
    """`cost` and `rss` (MB) by process; the cost in microseconds of processor time for each event."""

    rate: float
    cost: dict[str, float]
    rss: dict[str, float]


async def drained(events: int) -> Drained:
    """One run. Errors: AssertionError: an event is missing or there twice."""
    async with line.line() as made:
        await asyncio.to_thread(drain.fill, made.edge.dir / "ledger.db", events)
        await line.start(made, made.hub)
        before = made.cpu_s()
        asker = line.Asker(made.db)
        try:
            await line.start(made, made.edge)
            ended = await line.held(asker, events, max(line.PATIENCE_S, events / 1_000))
        finally:
            asker.close()
        cost = line.costs(before, made.cpu_s(), events)
        line.check(made, line.facts_of(made.edge.dir / "ledger.db"))
        first = int(made.db.ask(line.DATABASE, "SELECT min(received_ms) FROM log")[0][0])
        rss = {name: sum(map(engines.rss_mb, pids)) for name, pids in made.pids.items() if name != "postgres"}
        return Drained(events / (ended - first / 1000), cost, rss)
