"""The processes of the simulated world: the production cores in the loop that their shells run, with crashes around each commit.

begin, decide and write, commit, then the effects, then the answers. A crash takes the core; its disk stays, as committed. Nothing is sent
or answered in a step whose commit did not return.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from edge_agent.core import EdgeCore, EdgeIdentity, EdgeSettings, Now, Publish
from hub.core import HubCore, HubIdentity, HubSettings
from protocols.codec import Kind, pack
from protocols.errors import Conflict, DecodeError, LedgerBroken, LedgerFull
from protocols.event import OrderEvent
from protocols.ledger import Appended
from protocols.messages import Answer, Receipt
from protocols.streams import StreamKey
from protocols.sync.seal import Control, unseal
from protocols.topics import Address
from protocols.trust import NodeCard
from tests.sim.checkers import Answered
from tests.sim.disks import Disk
from tests.sim.options import SECOND

if TYPE_CHECKING:
    from tests.sim.world import World

MONO_START = 10 * SECOND


@dataclass(slots=True, eq=False)
class Request:
    """What a client wants, until it is told yes or gives up."""

    events: Sequence[OrderEvent]
    tries: int = 1
    answer: Answered | None = None
    told: bool = False


@dataclass(frozen=True, slots=True)
class Down:
    """Bytes for an edge."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Up:
    """Bytes for the hub, on the topics of `node`."""

    node: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """The transport of an edge came up or went."""

    up: bool


class Proc:
    """What edge and hub have in common: a disk, an inbox, and a loop that a crash can end at three points."""

    def __init__(self, world: World, name: str, disk: Disk, crashes: float) -> None:
        self.world, self.name, self.disk, self.crashes = world, name, disk, crashes
        self.inbox: list[Any] = []
        self.boots = 0
        self.alive = False
        self.alarm: int | None = None
        self._draining = False
        self.rng = world.rng(f"crashes/{name}")

    def give(self, thing: Any) -> None:
        """Something arrives; what arrives within a moment shares a commit. A dead process hears nothing."""
        if not self.alive:
            return
        self.inbox.append(thing)
        if not self._draining:
            self._draining = True
            self.world.after(self.world.options.group_ms, self._drain, self.boots)

    def _drain(self, boot: int) -> None:
        if boot == self.boots and self.alive:
            self._draining = False
            things, self.inbox = self.inbox, []
            self.step(things)

    def crash_point(self) -> str:
        """Where this step breaks off: "", "before" or "after" the commit, or in the "effects"."""
        if not self.world.faulty or self.rng.random() >= self.crashes:
            return ""
        return self.rng.choice(("before", "after", "effects"))

    def step(self, things: Sequence[Any]) -> None:
        """One turn of the loop."""
        raise NotImplementedError

    def start(self) -> None:
        """From disk."""
        self.boots += 1
        self.alive = True
        self._draining = False
        self.inbox, self.alarm = [], None

    def stop(self) -> None:
        """The process is gone: memory, inbox, unanswered requests. What was not committed is rolled back."""
        self.alive = False
        self.alarm = None
        self.disk.db.fail = ""
        self.disk.db.rollback()

    def crash(self, why: str) -> None:
        """Gone, and back after a while."""
        self.world.count(f"crash {why}")
        self.world.say(self.name, f"crashes: {why}")
        self.stop()
        self.world.after(self.rng.choice((1, 2_000, 600_000)), self._restart, self.boots)

    def _restart(self, boot: int) -> None:
        if not self.alive and boot == self.boots:
            self.start()


class EdgeProc(Proc):
    """An edge: one machine with a card, a clock of its own and a link. Clones of it have the same node name and another `name`."""

    early_effects = False
    """a planted bug: send before the commit"""

    def __init__(self, world: World, name: str, address: Address, disk: Disk) -> None:
        super().__init__(world, name, disk, world.options.edge_crashes)
        self.address = address
        self.skew_ms = 0
        self.linked = True
        """is there a way to the broker?"""
        self.silent = False
        """the way swallows everything and neither side notices"""
        self.core: EdgeCore = None  # type: ignore[assignment]
        self._mono_from = 0
        self._beliefs: object = None
        self._adopted: bytes | None = None
        self._hello_at = 0

    @property
    def node(self) -> str:
        """The name its card says."""
        return self.address.node

    def now(self) -> Now:
        """What its clocks say."""
        return Now(max(0, self.world.wall + self.skew_ms), self.world.now - self._mono_from)

    def start(self) -> None:
        """See `Proc.start`."""
        super().start()
        world = self.world
        self._mono_from = world.now - self.rng.randrange(MONO_START)
        hub = world.hub_address.node
        sign, verify = world.keys.signer(self.node), world.keys.verify
        o = world.options
        settings = EdgeSettings(o.uplink, o.heartbeat_ms, o.budget_bytes, 0 if o.pressed else 80, o.floor_ms)
        rng = world.rng(f"core/{self.name}/{self.boots}")
        self.core = EdgeCore(self.disk.db, EdgeIdentity(self.address, hub, world.keys.public(hub)), sign, verify, rng, settings)
        if self.linked:
            self.give(Link(True))

    def step(self, things: Sequence[Any]) -> None:
        """See `Proc.step`."""
        crash = self.crash_point()
        done: list[Request] = []
        early: list[Any] = []
        try:
            self.core.begin()
            for thing in things:
                self._take(thing, done)
            if self.early_effects:
                early = self.core.effects(self.now())
                self._perform(early, "")
            self.disk.db.fail = crash if crash in ("before", "after") else ""
            self.core.commit()
        except LedgerBroken:
            if crash not in ("before", "after"):
                raise
            self._look(done if crash == "after" else [])
            self.crash(f"edge {crash} commit")
            return
        self._look(done)
        if self._perform(self.core.effects(self.now()), crash):
            return
        for request in done:
            self.world.clients.told(self, request)
        self._arm()

    def _take(self, thing: Any, done: list[Request]) -> None:
        now = self.now()
        if isinstance(thing, Request):
            done.append(thing)
            try:
                thing.answer = self.core.take_events(thing.events, now)
            except (Conflict, LedgerFull) as e:
                thing.answer = e
        elif isinstance(thing, Down):
            self.core.take_message(thing.payload, now)
        elif isinstance(thing, Link):
            self.core.take_up(now) if thing.up else self.core.take_down()
        else:
            row = thing if isinstance(thing, bytes) else pack(thing)
            self.world.check.odd_rows[row] = None
            self.core.ledger._log_own(self.core.ledger.own(), row, None, now.wall)
            self.core.uplink.on_appended(now.mono)

    def _look(self, done: Sequence[Request]) -> None:
        check = self.world.check
        new = check.own_committed(self.disk, self.name)
        check.views(self.disk, "orders", new, self.name)
        check.requests_done(self.disk, self.name, [(r.events, r.answer) for r in done if r.answer is not None])
        check.edge_moved(self.disk, self.name)
        uplink, received = self.core.uplink, self.received()
        if (received, self.world.hub.boots) != self._beliefs:
            self._beliefs = (received, self.world.hub.boots)
            check.edge_believes(self.disk, self.name, uplink.incarnation, received)
        if uplink.incarnation != self._adopted:
            self._adopted = uplink.incarnation
            check.edge_adopts(self.name, uplink.incarnation, self._hello_at)

    def received(self) -> dict[StreamKey, list[tuple[int, int]]]:
        """What it believes that the hub has received of its streams."""
        progress = self.core.uplink._progress
        return {s.key: list(progress[s.sid].received) for s in self.core.ledger.own_streams() if s.sid in progress}

    def _perform(self, effects: Sequence[Any], crash: str) -> bool:
        """Send; True when the process died on the way."""
        last = self.rng.randrange(len(effects) + 1) if crash == "effects" else len(effects)
        for effect in effects[:last]:
            if isinstance(effect, Publish):
                if effect.payload[3] == Kind.HELLO:
                    self._hello_at = self.world.now
                self.world.net.up(self, effect.topic, effect.payload)
            else:
                self.world.count("client torn down")
                self.bounce(SECOND)
        if crash == "effects":
            self.crash("edge in the effects")
            return True
        return False

    def _arm(self) -> None:
        due = self.core.next_deadline()
        if due is not None:
            at = max(self.world.now + 1, due + self._mono_from)
            if self.alarm is None or at < self.alarm:
                self.alarm = at
                self.world.at(at, self._wake, self.boots, at)

    def _wake(self, boot: int, at: int) -> None:
        if self.alive and boot == self.boots and self.alarm == at:
            self.alarm = None
            if not self._perform(self.core.effects(self.now()), "effects" if self.crash_point() == "effects" else ""):
                self._arm()

    def bounce(self, after_ms: int) -> None:
        """The session drops, and is built anew."""
        self.give(Link(False))
        self.world.after(after_ms, self._back, self.boots)

    def _back(self, boot: int) -> None:
        if self.alive and boot == self.boots and self.linked:
            self.give(Link(True))
            self.world.net.stale(self)

    def cut(self, silent: bool) -> None:
        """The link goes; the edge is told, unless it is silent."""
        if silent:
            self.silent = True
        elif self.linked:
            self.linked = False
            self.give(Link(False))

    def join(self) -> None:
        """The link is there again."""
        was = self.linked
        self.linked, self.silent = True, False
        if not was:
            self._back(self.boots)

    def swap(self, disk: Disk, why: str) -> None:
        """The machine comes up with another disk; the one it had is gone."""
        self.stop()
        self.disk.db.close()
        self.disk = disk
        self.world.count(why)
        self.world.say(self.name, why)
        self.world.check.destroyed()
        self.start()


class HubProc(Proc):
    """The hub: a core, its disk, and the loop that feeds the central store."""

    early_effects = False

    def __init__(self, world: World, disk: Disk) -> None:
        super().__init__(world, "hub", disk, world.options.hub_crashes)
        self.skew_ms = 0
        self.core: HubCore = None  # type: ignore[assignment]

    def start(self) -> None:
        """See `Proc.start`."""
        super().start()
        world = self.world
        address = world.hub_address
        identity = HubIdentity(address.org, address.region, address.node, world.keys.public(address.node))
        settings = HubSettings(credit_facts=world.options.credit_facts, budget_bytes=0 if world.hub_full else 20_000_000_000)
        rng: Random = world.rng(f"hub/{self.boots}")
        self.core = HubCore(self.disk.db, identity, world.keys.signer(address.node), world.keys.verify, rng, settings)
        world.check.hub_started(self.core.receiver.incarnation, self.disk)
        world.store.wake(1)

    def wall(self) -> int:
        """What its clock says."""
        return max(0, self.world.wall + self.skew_ms)

    def step(self, things: Sequence[Any]) -> None:
        """See `Proc.step`. Either the messages or the requests of a moment come first."""
        crash = self.crash_point()
        order = [Up, NodeCard, Request] if self.rng.random() < 0.5 else [Request, Up, NodeCard]
        things = sorted(things, key=lambda thing: order.index(type(thing)))
        done: list[Request] = []
        spans: list[tuple[StreamKey, int, int]] = []
        try:
            self.core.begin()
            for thing in things:
                self._take(thing, done, spans)
            if self.early_effects:
                self._perform(self.core.effects(self.wall()), "")
            self.disk.db.fail = crash if crash in ("before", "after") else ""
            self.core.commit()
        except LedgerBroken:
            if crash not in ("before", "after"):
                raise
            self.look(done if crash == "after" else [], spans, own_first=order[0] is Request)
            self.crash(f"hub {crash} commit")
            return
        self.look(done, spans, own_first=order[0] is Request)
        if self._perform(self.core.effects(self.wall()), crash):
            return
        for request in done:
            self.world.clients.told(self, request)
        self.world.store.wake()

    def _take(self, thing: Any, done: list[Request], spans: list[tuple[StreamKey, int, int]]) -> None:
        if isinstance(thing, Up):
            spans += _span(thing.payload)
            self.core.take_message(thing.node, thing.payload, self.wall())
        elif isinstance(thing, NodeCard):
            for (data,) in self.disk.db.query("SELECT data FROM waiting WHERE node=? ORDER BY pos", (thing.node,)):
                spans += _span(bytes(data))
            self.core.take_card(thing, self.wall())
        else:
            done.append(thing)
            try:
                thing.answer = self.core.take_events(thing.events, self.wall())
            except (Conflict, LedgerFull) as e:
                thing.answer = e

    def look(self, done: Sequence[Request], spans: Sequence[tuple[StreamKey, int, int]], *, own_first: bool = False) -> None:
        """Let the checkers see what is on the disk after a transaction."""
        check, incarnation = self.world.check, self.core.receiver.incarnation
        new = check.own_committed(self.disk, "hub") if own_first else 0
        for key, first, last in spans:
            new |= check.hub_holds(self.disk, incarnation, key, first, last)
        if not own_first:
            new |= check.own_committed(self.disk, "hub")
        check.ever[incarnation] |= self.disk.held
        check.views(self.disk, "orders", new, "hub")
        check.requests_done(self.disk, "hub", [(r.events, r.answer) for r in done if r.answer is not None])

    def _perform(self, effects: Sequence[Any], crash: str) -> bool:
        last = self.rng.randrange(len(effects) + 1) if crash == "effects" else len(effects)
        for effect in effects[:last]:
            said = unseal(effect.payload)
            assert isinstance(said, Control)
            message = said.message()
            if isinstance(message, Answer | Receipt):
                self.world.check.hub_says(self.disk, message)
            self.world.net.down(effect.topic, effect.payload)
        if crash == "effects":
            self.crash("hub in the effects")
            return True
        return False

    def say(self) -> None:
        """Send what became due outside of a step."""
        self._perform(self.core.effects(self.wall()), "")

    def swap(self, disk: Disk) -> None:
        """Restored from an older backup."""
        self.stop()
        self.disk.db.close()
        self.disk = disk
        self.world.count("hub restored")
        self.world.say("hub", "is restored from an older backup")
        self.world.check.destroyed()
        self.start()


def _span(payload: bytes) -> list[tuple[StreamKey, int, int]]:
    """The stretch of a stream that a frame claims to be; whether it got into the log is for the log to say."""
    try:
        opened = unseal(payload)
    except DecodeError:
        return []
    if isinstance(opened, Control):
        return []
    header = opened[1]
    return [(StreamKey(header.author, header.epoch, header.cls), header.first, header.first + header.count - 1)]


__all__ = ["Appended", "Down", "EdgeProc", "HubProc", "Link", "Proc", "Request", "Up"]
