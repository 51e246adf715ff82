"""A quiet world to tell stories in: no faults but those that the story asks for, and words for what people and machines do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from protocols.errors import LongshoreError
from protocols.event import OrderEvent
from protocols.ledger import Appended
from protocols.lifecycle import Status
from protocols.sync.uplink import UplinkSettings
from tests.sim.disks import Disk
from tests.sim.edgeproc import EdgeProc
from tests.sim.options import HOUR, MINUTE, Options
from tests.sim.procs import Proc, Request
from tests.sim.truth import FactId
from tests.sim.world import World

SMALL = UplinkSettings(frame_facts=3, window_facts=6, linger_ms=20, retry_ms=5_000, idle_hello_ms=5 * MINUTE)


class Scene:
    """A hub, some edges named dock-0, dock-1 …, and what may be done to them. Every checker of the simulation watches."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.hub = world.hub
        self.docks = world.edges

    def wait(self, ms: int = MINUTE) -> None:
        """Time passes."""
        self.world.run_to(self.world.now + ms)

    def says(self, proc: Proc, order: str, *statuses: Status, key: str = "") -> list[Appended]:
        """Somebody records what happened to an order, one request for each status; the ids."""
        return [self.asks(proc, order, status, key) for status in statuses]

    def asks(self, proc: Proc, order: str, status: Status, key: str = "") -> Appended:
        """One request; raises what it is refused with."""
        return self.repeats(proc, self.world.clients.event(proc, order, status, key))

    def repeats(self, proc: Proc, event: OrderEvent) -> Appended:
        """Ask for the very same thing again."""
        request = Request([event])
        proc.give(request)
        self.wait(self.world.options.group_ms)
        if isinstance(request.answer, LongshoreError):
            raise request.answer
        assert request.answer is not None and request.told
        return request.answer[0]

    def later(self, name: str, disk: Disk, like: EdgeProc) -> EdgeProc:
        """Another machine comes up with a copied card."""
        return self.world.add_edge(name, like.address, disk)

    def stored(self, facts: Sequence[Appended]) -> list[bool]:
        """Which of these the central store has."""
        held = self.world.store.disk.held
        truth = self.world.check.truth
        return [bool(held >> truth.of[_fid(a)] & 1) for a in facts]

    def shown(self, order: str) -> Any:
        """The order as the consolidated view shows it."""
        view = self.world.store.store.order("acme", order)
        assert view is not None, f"{order} is not in the store"
        return view

    def heals(self) -> None:
        """Links up, everybody alive: all of it must come together, or the checkers complain."""
        self.world.heal()


def _fid(a: Appended) -> FactId:
    return FactId(*a.stream, a.seq, a.h)


@contextmanager
def scene(edges: int = 1, *, strangers: Sequence[str] = (), **options: Any) -> Iterator[Scene]:
    """A world with so many edges, linked and admitted (but for `strangers`), one minute old."""
    chosen: dict[str, Any] = {
        "duration_ms": 30 * 24 * HOUR,
        "uplink": SMALL,
        "heartbeat_ms": MINUTE,
        "ask_store_ms": 10 * MINUTE,
        "latency_ms": 100,
    } | options
    world = World(Options(seed=0, edges=edges, **chosen), strangers=strangers)
    try:
        story = Scene(world)
        story.wait()
        yield story
    finally:
        world.close()
