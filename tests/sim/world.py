"""One world: a hub, its central store, edges, a broker that lies, virtual time, one heap of events, one seed.

Two phases: safety under faults, then heal (faults off, links up) and demand convergence within a budget of steps.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from random import Random
from typing import Any

from protocols.sync import receiver
from protocols.topics import Address
from protocols.trust import NodeCard
from tests.sim.central import Central
from tests.sim.checkers import Checker, Violation, demand
from tests.sim.devices import Devices
from tests.sim.disks import Disk
from tests.sim.edgeproc import EdgeProc
from tests.sim.faults import Faults
from tests.sim.healing import goals, last_look, reached
from tests.sim.hubproc import HubProc
from tests.sim.keys import Keys
from tests.sim.net import Net
from tests.sim.options import DAY, Options
from tests.sim.truth import Mask
from tests.sim.wire import Wire
from tests.sim.workload import Clients

START_MS = 1_780_000_000_000
ORGS = ("acme", "globex")
STEPS = 400_000
"""events of the first phase; more means that something spins"""
HEAL_STEPS = 4_000
HEAL_STEPS_PER_FACT = 60
HEAL_ROUNDS = 12
"""of the slowest rhythm of the world"""
LOOKS = 8
"""how often all disks are compared with their mirrors in the first phase"""

Trace = Callable[[str], None]


class World:
    """See the module. `trace` gets a line for each thing that happens."""

    def __init__(
        self, options: Options, trace: Trace | None = None, *, strangers: Sequence[str] = (), shift: Callable[[str], int] | None = None
    ) -> None:
        self.options, self.trace = options, trace
        self.shift = shift or (lambda machine: 0)
        """ms by which a machine's wall clock is elsewhere from the first moment on (I9)"""
        self.now = 0
        self.faulty = True
        self.hub_full = False
        self.steps = 0
        self.heal_steps = 0
        self.heal_ms = 0
        self.counts: dict[str, int] = {}
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._n = 0
        self._hash = blake2b(digest_size=16)
        self.keys = self.make_keys()
        self.hub_address = self.make_hub_address()
        self.check = Checker(self)
        self.net = self.make_net()
        self.clients = self.make_clients()
        self.devices = Devices(self)
        self.faults = Faults(self)
        self.store = Central(self)
        self.edges: list[EdgeProc] = []
        self.strangers = dict.fromkeys(strangers)
        """nodes that nobody has admitted yet"""
        self.old = dict.fromkeys(f"dock-{n}" for n in options.old)
        """nodes that know version 1 only"""
        self.staff: dict[str, str] = {}
        """who works on which phone"""
        self.hubs = self.make_hubs()
        self._wire = Wire()
        self._segments = vars(receiver)["SEGMENTS_STATED"]
        vars(receiver)["SEGMENTS_STATED"] = options.segments
        self._people()

    # ------------------------------------------------------------ what another beginning replaces

    def make_keys(self) -> Keys:
        """Everybody's keys."""
        return Keys(self.options.seed, real=self.options.real_keys)

    def make_hubs(self) -> list[HubProc]:
        """The processes of the hub: one, that everybody speaks to."""
        return [HubProc(self, self.first_disk("hub"))]

    def make_net(self) -> Net:
        """What lies between hub and edges."""
        return Net(self)

    def make_clients(self) -> Clients:
        """Who asks for something to be recorded."""
        return Clients(self)

    def make_hub_address(self) -> Address:
        """Where the hub stands."""
        return Address("acme", "EMEA", "center", "hub-1")

    def first_disk(self, name: str) -> Disk:
        """The disk that a machine begins with. All edges but the first find a ledger on it, as a first start leaves one."""
        return Disk.formatted(name) if name.startswith("dock-") and name != "dock-0" else Disk.blank(name)

    def edge_addresses(self) -> list[Address]:
        """Where the edges stand that a world begins with."""
        return [self._address(n, f"dock-{n}") for n in range(self.options.edges)]

    def _people(self) -> None:
        for _, kind, numbers in self.options.plan:
            if kind == "strangers":
                self.strangers[f"dock-{numbers[0]}"] = None
        for hub in self.hubs:
            hub.start()
        for address in self.edge_addresses():
            self.add_edge(address.node, address, self.first_disk(address.node))
        self.operator()
        for hub in self.hubs:
            hub.handover.regularly()

    def _address(self, n: int, node: str) -> Address:
        """Where an edge stands: the last quarter of them belongs to another organisation, where there is one."""
        o = self.options
        org = ORGS[1] if o.orgs > 1 and n >= o.edges - max(1, o.edges // 4) else ORGS[0]
        return Address(org, "EMEA", f"W{n % o.sites if o.sites else n}", node)

    # ------------------------------------------------------------ time and chance

    def rng(self, concern: str) -> Random:
        """A generator of its own for each concern, so that one more draw here moves nothing there."""
        return Random(f"{self.options.seed}/{concern}")

    @property
    def wall(self) -> int:
        """The true time, ms since 1970."""
        return START_MS + self.now

    def at(self, when_ms: int, act: Callable[..., None], *args: Any) -> None:
        """Do it at a moment of virtual time."""
        self._n += 1
        heapq.heappush(self._heap, (max(when_ms, self.now), self._n, act, args))

    def after(self, wait_ms: int, act: Callable[..., None], *args: Any) -> None:
        """Do it after a while."""
        self.at(self.now + wait_ms, act, *args)

    def step(self) -> bool:
        """The next event; False when there is none."""
        if not self._heap:
            return False
        self.now, _, act, args = heapq.heappop(self._heap)
        self.steps += 1
        act(*args)
        return True

    def run_to(self, when_ms: int) -> None:
        """Everything up to a moment."""
        while self._heap and self._heap[0][0] <= when_ms:
            self.step()
            demand(self.steps < STEPS, "I7 something spins: too many events in the first phase")
        self.now = max(self.now, when_ms)

    # ------------------------------------------------------------ notes

    def say(self, who: str, what: str) -> None:
        """A line of the trace."""
        if self.trace is not None:
            days, ms = divmod(self.now, DAY)
            self.trace(f"{days:3}d {ms // 3600000:02}:{ms // 60000 % 60:02}:{ms / 1000 % 60:06.3f}  {who:10} {what}")

    def note(self, who: str, new: Mask) -> None:
        """A commit: into the hash, and into the trace where it brought facts."""
        self._hash.update(f"{self.now}|{who}|{new:x}".encode())
        if new and self.trace is not None:
            name, did = who.split(" ", 1)
            self.say(name, f"{did} {self.check.truth.show(new)}")

    def deliver(self, whom: str, data: bytes) -> None:
        """A message arrives: into the hash."""
        self._hash.update(f"{self.now}|{whom}|".encode() + data)
        self.count("message delivered")

    def count(self, what: str, by: int = 1) -> None:
        """One more of these."""
        self.counts[what] = self.counts.get(what, 0) + by

    @property
    def hash(self) -> str:
        """Over every delivered message and every commit."""
        return self._hash.hexdigest()

    # ------------------------------------------------------------ machines

    @property
    def hub(self) -> HubProc:
        """The hub, or the first worker of it."""
        return self.hubs[0]

    def some_hub(self) -> HubProc:
        """Whom a source system at the centre talks to."""
        return self.hub

    def readers(self, edge: EdgeProc) -> list[HubProc]:
        """To whom the broker gives what an edge publishes."""
        return self.hubs

    def owner(self, edge: EdgeProc) -> HubProc | None:
        """Who speaks to an edge; None: nobody does now."""
        return self.hub

    def strike(self, kind: str, n: int, for_ms: int) -> None:
        """Something happens to one of several workers."""

    def disks(self) -> list[Disk]:
        """All there are."""
        return [*(hub.disk for hub in self.hubs), self.store.disk, *(edge.disk for edge in self.edges)]

    def add_edge(self, name: str, address: Address, disk: Disk) -> EdgeProc:
        """Another edge comes to life."""
        edge = EdgeProc(self, name, address, disk)
        self.edges.append(edge)
        edge.start()
        return edge

    def operator(self) -> None:
        """A person at the hub admits the nodes that it should know and does not."""
        for node in dict.fromkeys(e.node for e in self.edges):
            if node not in self.strangers and self.hub.alive and self.hub.core.registry.get(node) is None:
                address = next(e.address for e in self.edges if e.node == node)
                place, staff = (node, address.org, address.region, address.site), self.staff.get(node, "")
                self.hub.give(NodeCard(*place, self.keys.public(node), "scrypt$none", staff=staff))
        self.after(max(1, self.options.duration_ms // 50), self.operator)

    def set_hub_full(self, full: bool) -> None:
        """The budget of the hub's disk is used up, or not any more."""
        self.hub_full = full
        for hub in self.hubs:
            hub.core.settings = replace(hub.core.settings, budget_bytes=0 if full else 20_000_000_000)

    # ------------------------------------------------------------ the two phases

    def run(self) -> World:
        """Both phases; raises Violation."""
        self.clients.plan()
        self.devices.plan()
        for when, kind, numbers in self.options.plan:
            self.at(when, self.faults.strike, kind, numbers)
        for n in range(1, LOOKS + 1):
            self.run_to(self.options.duration_ms * n // LOOKS)
            self.check.everything()
        self.heal()
        return self

    def heal(self) -> None:
        """Faults off, links up, everybody alive; then everything must come together within the budget."""
        self.say("world", "heals: no faults from here on")
        self.faulty = False
        self.strangers.clear()
        self.set_hub_full(False)
        for disk in self.disks():
            disk.clear()
        for proc in [*self.hubs, *self.edges]:
            if not proc.alive:
                proc.start()
        for edge in self.edges:
            edge.join()
        self.operator()
        began, steps = self.now, self.steps
        o = self.options
        slowest = max(
            o.lease_ms,
            o.uplink.idle_hello_ms,
            o.heartbeat_ms,
            o.uplink.retry_most_ms,
            o.ask_store_ms,
            o.duration_ms // 50,
            o.slow_ms,
            o.late_statement_ms,
            o.reorder_ms,
        )
        budget = HEAL_STEPS + HEAL_STEPS_PER_FACT * len(self.check.truth.facts)
        while not reached(self):
            for _ in range(20):
                self.step()
            self.heal_steps, self.heal_ms = self.steps - steps, self.now - began
            if self.heal_steps > budget or self.heal_ms > HEAL_ROUNDS * slowest:
                raise Violation(f"I8 not healed after {self.heal_steps} steps, {self.heal_ms / 1000:.0f} s: {'; '.join(goals(self))}")
        self.check.everything()
        for complaint in last_look(self):  # the goals were all looked at just now, and nothing has happened since
            raise Violation(complaint)

    def close(self) -> None:
        """Close every database, and give the product its bounds back."""
        vars(receiver)["SEGMENTS_STATED"] = self._segments
        self._wire.close()
        self.store.close()
        self.faults.close()
        for proc in [*self.hubs, *self.edges]:
            proc.disk.close()


def play(options: Options, trace: Trace | None = None, make: Callable[[Options, Trace | None], World] = World) -> World:
    """One world from begin to end. Raises Violation, or whatever the product raises."""
    world = make(options, trace)
    try:
        return world.run()
    finally:
        world.close()
