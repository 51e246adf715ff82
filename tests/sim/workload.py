"""What the people and systems around the nodes do: orders that move through their lives, told by several authors, some of whom do not know
of each other; requests that are repeated because their answer was lost; a few that contradict themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from protocols.errors import LongshoreError
from protocols.event import OrderEvent, TimeQuality
from protocols.lifecycle import Status
from tests.sim.edgeproc import EdgeProc
from tests.sim.options import DAY, HOUR, MINUTE, SECOND
from tests.sim.procs import Proc, Request

if TYPE_CHECKING:
    from tests.sim.world import World

PATH = tuple(status for status in Status if status <= Status.DELIVERED)
TROUBLE = (Status.CANCELLED, Status.HELD, Status.RETURNED, Status.BACKORDERED, Status.DELIVERY_FAILED, Status.REFUNDED)
TRIES = 4
HUB_SHARE = 0.25


class Clients:
    """Everybody who asks for something to be recorded."""

    def __init__(self, world: World) -> None:
        self.world, self.rng = world, world.rng("workload")
        self._odd = world.rng("odd facts")
        self._orgs, self._sites = world.rng("organisations"), world.rng("sites")
        self.made = 0
        self.yes = 0
        self._progress: dict[str, int] = {}

    def plan(self) -> None:
        """Spread the requests over the world's time: some steady, some in bursts."""
        o = self.world.options
        at = 0
        for _ in range(o.requests):
            if self.rng.random() < 0.4:
                at = self.rng.randrange(o.duration_ms)
            self.world.at(min(at + self.rng.randrange(MINUTE), o.duration_ms - 1), self._somebody)

    def _somebody(self) -> None:
        world = self.world
        proc: Proc = world.some_hub() if self.rng.random() < HUB_SHARE else self.rng.choice(world.edges)
        if isinstance(proc, EdgeProc) and self.rng.random() < world.options.poison:
            world.count("fact of a later version")
            proc.give([9, "from the future", self.made] if self._odd.random() < 0.7 else b"\xc1" + self._odd.randbytes(4))
        events = [self.event(proc) for _ in range(self.rng.choice((1, 1, 1, 2, 5)))]
        self.ask(proc, Request(events))

    def burst(self, proc: Proc) -> None:
        """Work goes on at one place, a request every second or so."""
        if self.world.faulty:
            for n in range(self.rng.choice((0, 2, 6))):
                self.world.after(n * SECOND + self.rng.randrange(SECOND), self._one, proc)

    def _one(self, proc: Proc) -> None:
        self.ask(proc, Request([self.event(proc)]))

    def event(self, proc: Proc, order: str = "", status: Status | None = None, key: str | None = None) -> OrderEvent:
        """Something that happened to an order."""
        self.made += 1
        order = order or f"o{self.rng.randrange(self.world.options.orders)}"
        if key is None and self.rng.random() < 0.6:
            key = f"k{self.made}"
        status = status or self._next(order, proc)
        return OrderEvent(
            self._org(proc), order, proc.name, status, self.world.wall, TimeQuality.STATED, None, self._site(proc), None, {"n": self.made},
            key or None,
        )  # fmt: skip

    def _org(self, proc: Proc) -> str:
        """Whose order it is: at an edge its own organisation's, at the hub anybody's."""
        from_edge = proc.address.org if isinstance(proc, EdgeProc) else ""
        return from_edge or ("globex" if self.world.options.orgs > 1 and self._orgs.random() < 0.25 else "acme")

    def _site(self, proc: Proc) -> str | None:
        """Where it happened: mostly where the edge stands, sometimes elsewhere, so that orders move; often nobody says."""
        drawn = self._sites.random()
        if isinstance(proc, EdgeProc) and drawn < 0.8:
            return proc.address.site
        return None if drawn < 0.5 or drawn > 0.9 else self._sites.choice(self.world.edges).address.site

    def _next(self, order: str, proc: Proc) -> Status:
        if self.rng.random() < (0.1 if isinstance(proc, EdgeProc) else 0.4):
            return self.rng.choice(TROUBLE)
        at = self._progress[order] = min(self._progress.get(order, -1) + self.rng.choice((0, 1, 1, 1, 2)), len(PATH) - 1)
        return PATH[max(0, at)]

    def ask(self, proc: Proc, request: Request) -> None:
        """Send a request; ask again while no answer comes and its keys make that safe."""
        proc.give(request)
        if all(e.idempotency_key for e in request.events):
            wait = self.rng.choice((MINUTE, HOUR))
            self.world.after(wait, self._unanswered, proc, request)
            if self.rng.random() < 0.1:
                self.world.after(self.rng.randrange(2 * DAY), self._again, proc, request.events)

    def _unanswered(self, proc: Proc, request: Request) -> None:
        if request.told or request.tries >= TRIES or not self.world.faulty:
            return
        self.world.count("request repeated: no answer")
        self.ask(proc, Request(request.events, request.tries + 1))

    def _again(self, proc: Proc, events: Sequence[OrderEvent]) -> None:
        """A sender that forgot that it was answered, or one that uses its key for something else."""
        if not self.world.faulty:
            return
        if self.rng.random() < 0.3:
            self.world.count("key used for something else")
            events = [replace(e, status=Status.HELD, details={"n": -1}) for e in events]
        else:
            self.world.count("request repeated: answered before")
        proc.give(Request(events, TRIES))

    def told(self, proc: Proc, request: Request) -> None:
        """The answer reached who asked."""
        request.told = True
        assert request.answer is not None
        self.world.check.told(request.answer)
        if isinstance(request.answer, LongshoreError):
            self.world.count(f"request refused: {type(request.answer).__name__}")
        else:
            self.yes += sum(not a.repeated for a in request.answer)
