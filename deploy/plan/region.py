"""A planned region as queues: each edge captures by the hour of its day, links are up or down, the hub takes what it can, fairly.

Pure, in steps of a minute of virtual time. It is a model of flows, and the costs of an event that it works with are measured: whether
single facts survive is what the simulation of the product's own code is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final

from deploy.plan.measure import Costs

STEP_S: Final = 60.0
DAY_S: Final = 86_400.0
LIVE_FRAME_S: Final = 2.0
"""fresh facts of so long share a frame at most, as far as the bytes on the wire are concerned"""
POINTS: Final = 400
"""of a curve"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is planned. Rates per edge; `link_bps` bits a second upwards; `hub_share` of one core that the hub may use."""

    edges: int
    days: float
    outage_s: float
    outage_from_s: float
    outage_edges: int
    events_per_day: float
    peak: float
    link_bps: float
    budget_bytes: float
    hub_share: float
    flaky_per_day: float
    flaky_s: float
    seed: int


@dataclass(slots=True)
class Edge:
    """One edge on its way through the plan."""

    out: list[tuple[float, float]]
    phase: float
    queue: float = 0.0
    peak: float = 0.0
    peak_s: float = 0.0
    captured: float = 0.0
    full_s: float | None = None
    caught_up_s: float | None = None


@dataclass(slots=True)
class Outcome:
    """What became of it. Times in seconds of virtual time, queues in events."""

    edges: list[Edge]
    outage_end_s: float
    curve: list[tuple[float, float, float]] = field(default_factory=list)
    """(time, all queues, the largest)"""
    wire_bytes: float = 0.0
    hub_busy: float = 0.0
    """the largest part of the hub's time that was used, of an hour"""

    @property
    def catch_up_s(self) -> float | None:
        """From the end of the long outage until the last edge had an empty queue; None: not within the plan."""
        times = [e.caught_up_s for e in self.edges if e.out]
        return None if any(t is None for t in times) else max((t for t in times if t is not None), default=0.0)


def play(plan: Plan, costs: Costs, progress: Callable[[float], None] | None = None) -> Outcome:
    """Walk through the plan."""
    rng = Random(plan.seed)
    edges = [Edge(list(_outages(plan, n, rng)), rng.random() * 3_600) for n in range(plan.edges)]
    out = Outcome(edges, plan.outage_from_s + plan.outage_s)
    steps = int(plan.days * DAY_S / STEP_S)
    every = max(1, steps // POINTS)
    hour: list[float] = []
    for step in range(steps):
        now = step * STEP_S
        hour.append(_step(plan, costs, edges, now, out))
        if len(hour) == 60:
            out.hub_busy, hour = max(out.hub_busy, sum(hour) / 60), []
        if step % every == 0:
            out.curve.append((now, sum(e.queue for e in edges), max(e.queue for e in edges)))
            if progress is not None:
                progress(step / steps)
    return out


def _outages(plan: Plan, n: int, rng: Random) -> Iterator[tuple[float, float]]:
    if n < plan.outage_edges and plan.outage_s > 0:
        yield plan.outage_from_s, plan.outage_from_s + plan.outage_s
    for day in range(int(plan.days)):
        if rng.random() < plan.flaky_per_day:
            at = (day + rng.random()) * DAY_S
            yield at, at + rng.uniform(0.2, 1.8) * plan.flaky_s


def _step(plan: Plan, costs: Costs, edges: list[Edge], now: float, out: Outcome) -> float:
    """One minute. Returns the part of the hub's time that was used."""
    room = plan.hub_share * STEP_S / costs.hub_s
    link = plan.link_bps / 8 * STEP_S / costs.wire_bytes
    ready: list[tuple[float, Edge]] = []
    for e in edges:
        fresh = _captured(plan, now + e.phase)
        e.captured += fresh
        e.queue += fresh
        if not any(a <= now < b for a, b in e.out):
            ready.append((min(e.queue, link), e))
        _note(plan, costs, e, now)
    sent = _fair(ready, room)
    out.wire_bytes += sent * costs.wire_bytes + costs.overhead_bytes * len(ready) * min(STEP_S / LIVE_FRAME_S, sent / max(1, len(ready)))
    for _, e in ready:
        if e.queue < 1 and e.caught_up_s is None and now >= out.outage_end_s:
            e.caught_up_s = now + STEP_S - out.outage_end_s
    return sent * costs.hub_s / STEP_S


def _captured(plan: Plan, local_s: float) -> float:
    """Facts of a minute: the busy third of the day sees `peak` times the mean, the rest what is left of the day's work."""
    busy = 1 / 3
    peak = min(plan.peak, 1 / busy)
    factor = peak if 8 * 3_600 <= local_s % DAY_S < 16 * 3_600 else (1 - peak * busy) / (1 - busy)
    return plan.events_per_day * factor * STEP_S / DAY_S


def _note(plan: Plan, costs: Costs, e: Edge, now: float) -> None:
    if e.queue > e.peak:
        e.peak, e.peak_s = e.queue, now
    if e.full_s is None and e.queue * costs.edge_disk_bytes >= plan.budget_bytes:
        e.full_s = now


def _fair(ready: list[tuple[float, Edge]], room: float) -> float:
    """Everybody the same share; what one does not need, the others have. Returns what was sent."""
    sent, left = 0.0, len(ready)
    for wanted, e in sorted(ready, key=lambda one: one[0]):
        given = min(wanted, (room - sent) / left)
        e.queue -= given
        sent += given
        left -= 1
    return sent
