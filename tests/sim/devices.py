"""What the devices at a site report: readings that supersede each other, facts of a stream that gives way when room is short (I1, I7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from protocols.errors import Conflict, LongshoreError, OverBudget
from protocols.event import TimeQuality
from protocols.ledger import Appended
from protocols.telemetry import Reading

if TYPE_CHECKING:
    from edge_agent.core import EdgeCore, Now
    from tests.sim.world import World

DEVICES = ("scale-1", "scale-2", "printer", "cooler")
KINDS = ("battery", "usage")


@dataclass(slots=True, eq=False)
class Measured:
    """Readings on their way into an edge, and what it answered."""

    readings: Sequence[Reading]
    answer: Sequence[Appended] | LongshoreError | None = None

    def take(self, core: EdgeCore, now: Now) -> None:
        """Give them to the core, inside its transaction."""
        try:
            self.answer = core.take_telemetry(self.readings, now)
        except (Conflict, OverBudget) as e:
            self.answer = e


class Devices:
    """Everything that reports."""

    def __init__(self, world: World) -> None:
        self.world, self.rng = world, world.rng("devices")
        self.made = 0

    def plan(self) -> None:
        """Spread the reports over the world's time."""
        o = self.world.options
        for _ in range(o.reports):
            self.world.at(self.rng.randrange(o.duration_ms), self._report)

    def _report(self) -> None:
        readings = [self._reading() for _ in range(self.rng.choice((1, 3, 8)))]
        self.world.count("readings of devices", len(readings))
        self.rng.choice(self.world.edges).give(Measured(readings))

    def _reading(self) -> Reading:
        self.made += 1
        device, kind = self.rng.choice(DEVICES), self.rng.choice(KINDS)
        key = f"m{self.made}" if self.rng.random() < 0.3 else None
        return Reading(device, kind, self.world.wall, TimeQuality.STATED, {"n": self.made}, key)
