"""Worlds with phones: each follows the tasks of its staff, and roams: now it has a line of its own, now it is at a gateway, which carries
for it and folds what it says at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge_agent.core import Now
from edge_agent.relay import Verdict
from protocols.event import OrderEvent
from protocols.lifecycle import Status
from protocols.streams import StreamKey
from protocols.sync.seal import Control, unseal
from protocols.topics import Address
from protocols.trust import NodeCard
from tests.sim.checkers import Violation
from tests.sim.disks import Disk
from tests.sim.edgeproc import EdgeProc
from tests.sim.net import Net
from tests.sim.options import MINUTE, SECOND
from tests.sim.procs import Link, Proc
from tests.sim.staff import too_many
from tests.sim.truth import Mask
from tests.sim.workload import Clients
from tests.sim.world import World

STAFF = ("ana", "ben", "cleo")
MAIL_BYTES = 200_000


@dataclass(frozen=True, slots=True)
class Carried:
    """What a phone hands to its gateway."""

    payload: bytes


class Gate(EdgeProc):
    """An edge that carries for phones."""

    carries = True
    world: PhonesWorld

    def open(self) -> None:
        """See `Proc.open`: an operator has added every phone."""
        super().open()
        peers, keys = self.core.relay.peers, self.world.keys
        for node in self.world.staff:
            at = self.address
            peers._cards[node] = NodeCard(node, at.org, at.region, "home", keys.public(node), "scrypt$none", staff=self.world.staff[node])
            peers._added_ms[node] = 1

    def step(self, things: Sequence[Any]) -> None:
        """See `Proc.step`; afterwards phones that are here are given what waits for them."""
        super().step(things)
        for node in self.world.staff if self.alive else ():
            self.hand_out(node)

    def hand_out(self, node: str) -> None:
        """What the hub said to a phone. Of twins one gets it, whoever asks first."""
        here = [phone for phone in self.world.phones() if phone.node == node and phone.gate is self]
        if here:
            for payload in self.core.relay.mailboxes.take(node, MAIL_BYTES):
                self.world.roaming.to_phone(self.rng.choice(here), payload)

    def _take(self, thing: Any, done: Any) -> None:
        if not isinstance(thing, Carried):
            super()._take(thing, done)
            return
        now: Now = self.now()
        for taken in self.core.take_sync([thing.payload], now):
            self.world.count(f"message at a gateway: {taken.verdict.value}")
            if taken.verdict is Verdict.STRANGER and taken.author in (*self.world.staff, self.world.hub_address.node):
                raise Violation(f"I10 {self.name} takes nothing of {taken.author}")

    def passed_on(self, payload: bytes) -> bool:
        """See `EdgeProc`."""
        said = unseal(payload)
        return isinstance(said, Control) and said.author != self.node

    def carried(self) -> Mask:
        """See `EdgeProc`: what a gateway folds, it has seen."""
        truth, new = self.world.check.truth, 0
        rows = self.disk.db.query("SELECT node, epoch, cls FROM streams WHERE own=0 ORDER BY sid")
        for key in (StreamKey(*row) for row in rows):
            for fid, _, _ in self.disk.logged(key, 1, 2**62):
                i = truth.of.get(fid, -1)
                if i < 0:
                    raise Violation(f"I2 {self.name} carries {fid}, which nobody ever committed")
                new |= 1 << i
        new &= ~self.disk.held
        self.disk.held |= new
        self.disk.seen |= truth.closure(new)
        return new


class Phone(EdgeProc):
    """A phone. `gate`: through which it speaks now; None: straight to the hub."""

    world: PhonesWorld
    gate: Gate | None = None

    def open(self) -> None:
        """See `Proc.open`."""
        self.handout_ms = 3 * self.world.options.uplink.retry_ms
        super().open()

    def move(self, gate: Gate | None) -> None:
        """It is elsewhere now."""
        self.gate = gate
        self.world.count("phone moved")
        self.world.say(self.name, f"is at {gate.name if gate is not None else 'a line of its own'}")
        if self.alive and self.linked:
            self.give(Link(False))
            self.world.after(SECOND, self._back, self.boots)
            if gate is not None and gate.alive:
                gate.hand_out(self.node)


class RoamingNet(Net):
    """What a phone at a gateway says goes there, and so does what the hub says to it."""

    world: PhonesWorld

    def up(self, edge: EdgeProc, topic: str, payload: bytes) -> None:
        """See `Net.up`."""
        gate = edge.gate if isinstance(edge, Phone) else None
        if gate is None:
            super().up(edge, topic, payload)
        elif edge.linked and not edge.silent:
            for delay, data in self._copies(payload):
                self.world.after(delay, self._at_gate, gate, data)

    def _between(self, edge: EdgeProc, payload: bytes) -> bytes | None:
        return None if isinstance(edge, Phone) and edge.gate is not None else super()._between(edge, payload)

    def _at_gate(self, gate: Gate, data: bytes) -> None:
        if gate.alive:
            self.world.deliver(gate.name, data)
            gate.give(Carried(data))

    def to_phone(self, phone: Phone, payload: bytes) -> None:
        """From its gateway."""
        for delay, data in self._copies(payload):
            self.world.after(delay, self._at_edge, phone, data)


class StaffClients(Clients):
    """People with names, who give each other work."""

    world: PhonesWorld

    def __init__(self, world: PhonesWorld) -> None:
        super().__init__(world)
        self._people = world.rng("staff")

    def event(self, proc: Proc, order: str = "", status: Status | None = None, key: str | None = None) -> OrderEvent:
        """See `Clients.event`."""
        event, rng = super().event(proc, order, status, key), self._people
        if isinstance(proc, Phone) and proc.gate is not None:
            event = replace(event, site=proc.gate.address.site)
        actor = rng.choice((None, rng.choice(STAFF)))
        to: object = rng.choice((None, None, None, rng.choice(STAFF), rng.sample(STAFF, 2), []))
        return replace(event, actor=actor, details=event.details if to is None else event.details | {"assignedTo": to})


class PhonesWorld(World):
    """See the module."""

    def make_net(self) -> Net:
        """See `World`."""
        self.roaming = RoamingNet(self)
        return self.roaming

    def make_clients(self) -> Clients:
        """See `World`."""
        return StaffClients(self)

    def phones(self) -> list[Phone]:
        """All there are."""
        return [edge for edge in self.edges if isinstance(edge, Phone)]

    def edge_addresses(self) -> list[Address]:
        """See `World`: the phones come last."""
        self.staff |= {f"phone-{n}": STAFF[n % len(STAFF)] for n in range(self.options.phones)}
        return [*super().edge_addresses(), *(Address("acme", "EMEA", "home", node) for node in self.staff)]

    def add_edge(self, name: str, address: Address, disk: Disk) -> EdgeProc:
        """See `World`."""
        edge: EdgeProc = (Phone if address.node in self.staff else Gate)(self, name, address, disk)
        self.edges.append(edge)
        edge.start()
        return edge

    def run(self) -> World:
        """See `World`: and phones move."""
        rng = self.rng("roaming")
        for phone in self.phones():
            for _ in range(rng.randint(2, 12)):
                self.at(rng.randrange(self.options.duration_ms), self._moves, phone.name, rng.random())
        return super().run()

    def _moves(self, name: str, where: float) -> None:
        gates = [edge for edge in self.edges if isinstance(edge, Gate)]
        phone = next(phone for phone in self.phones() if phone.name == name)
        place = int(where * (len(gates) + 1))
        phone.move(gates[place] if place < len(gates) else None)

    def heal(self) -> None:
        """See `World`. After one more comparison a phone follows what is its staff's, and nothing else."""
        super().heal()
        if self.options.old_hub:
            return
        until = self.now + self.options.follow.compare_ms + 30 * MINUTE + 4 * self.options.uplink.idle_hello_ms
        while self.now < until and self.step():
            pass
        for phone in self.phones():
            rows = phone.disk.db.query("SELECT org, order_id FROM orders WHERE followed=1 ORDER BY okey")
            for what in too_many(self, phone.name, self.staff[phone.node], [(org, order_id) for org, order_id in rows]):
                if not phone.core.full:
                    raise Violation(what)
