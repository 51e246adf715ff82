"""An edge of the simulated world: the production core in the loop of its shell, on a machine with a card, a clock and a link."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edge_agent.core import EdgeCore, EdgeIdentity, EdgeSettings, Now, Publish
from protocols.codec import Kind, pack
from protocols.errors import Conflict, LedgerBroken, LedgerFull, OverBudget
from protocols.streams import StreamKey
from protocols.topics import Address
from tests.sim.devices import Measured
from tests.sim.disks import Disk, newer_tables_bytes
from tests.sim.options import SECOND
from tests.sim.procs import Down, Link, Proc, Request
from tests.sim.truth import Mask

if TYPE_CHECKING:
    from tests.sim.world import World

MONO_START = 10 * SECOND
FEED_BYTE = bytes([Kind.FEED])


class EdgeProc(Proc):
    """An edge: one machine with a card, a clock of its own and a link. Clones of it have the same node name and another `name`."""

    early_effects = False
    """a planted bug: send before the commit"""
    handout_ms: int | None = None
    """where its line may lead to a gateway"""
    carries = False
    """is it a gateway?"""

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
        return Now(max(0, self.world.wall + self.skew_ms + self.world.shift(self.name)), self.world.now - self._mono_from)

    def open(self) -> None:
        """See `Proc.open`."""
        world = self.world
        self._mono_from = world.now - self.rng.randrange(MONO_START)
        hub = world.hub_address.node
        sign, verify = world.keys.signer(self.node), world.keys.verify
        o = world.options
        settings = EdgeSettings(
            o.uplink,
            o.heartbeat_ms,
            o.budget_bytes + newer_tables_bytes(),
            0 if o.pressed else 80,
            o.floor_ms,
            o.telemetry_bytes,
            relay=o.relay,
            follow=o.follow,
            handout_ms=self.handout_ms,
        )
        rng = world.rng(f"core/{self.name}/{self.boots}")
        self.core = EdgeCore(self.disk.db, EdgeIdentity(self.address, hub, world.keys.public(hub)), sign, verify, rng, settings)
        if self.linked:
            self.give(Link(True))

    def step(self, things: Sequence[Any]) -> None:
        """See `Proc.step`."""
        crash = self.crash_point()
        fed = any(isinstance(thing, Down) and thing.payload[3:4] == FEED_BYTE for thing in things)
        if fed or self.carries:  # what is asked in the same moment has not seen it
            things = sorted(things, key=lambda thing: not isinstance(thing, Request))
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
            self._look(done if crash == "after" else [], fed)
            self.crash(f"edge {crash} commit")
            return
        except LedgerFull as e:
            self.no_room(e, done)
            return
        self._look(done, fed)
        self.world.check.measured(self.disk, self.name, [thing for thing in things if isinstance(thing, Measured)])
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
            except (Conflict, OverBudget) as e:
                thing.answer = e
        elif isinstance(thing, Down):
            self.core.take_message(thing.payload, now)
        elif isinstance(thing, Measured):
            thing.take(self.core, now)
        elif isinstance(thing, Link):
            self.core.take_up(now) if thing.up else self.core.take_down()
        else:
            row = thing if isinstance(thing, bytes) else pack(thing)
            self.world.check.odd_rows[row] = None
            self.core.ledger._log_own(self.core.ledger.own(), row, None, now.wall)
            self.core.uplink.on_appended(now.mono)

    def _look(self, done: Sequence[Request], fed: bool) -> None:
        check = self.world.check
        new = check.own_committed(self.disk, self.name) | self.carried()
        if fed:
            check.came_down(self.disk, self.name)
        check.views(self.disk, "orders", new, self.name)
        check.requests_done(self.disk, self.name, [(r.events, r.answer) for r in done if r.answer is not None])
        check.edge_moved(self.disk, self.name)
        uplink, received = self.core.uplink, self.received()
        boots = [hub.boots for hub in self.world.hubs]
        if (received, boots) != self._beliefs:
            self._beliefs = (received, boots)
            check.edge_believes(self.disk, self.name, uplink.incarnation, received)
        if uplink.incarnation != self._adopted:
            self._adopted = uplink.incarnation
            check.edge_adopts(self.name, uplink.incarnation, self._hello_at)

    def carried(self) -> Mask:
        """What a gateway took of others in this transaction; after the look at its own facts."""
        return 0

    def passed_on(self, payload: bytes) -> bool:
        """Is this a message of somebody for whom it is the gateway?"""
        return False

    def received(self) -> dict[StreamKey, list[tuple[int, int]]]:
        """What it believes that the hub has received of its streams."""
        progress = self.core.uplink._progress
        return {s.key: list(progress[s.sid].received) for s in self.core.ledger.own_streams() if s.sid in progress}

    def _perform(self, effects: Sequence[Any], crash: str) -> bool:
        """Send; True when the process died on the way."""
        last = self.rng.randrange(len(effects) + 1) if crash == "effects" else len(effects)
        for effect in effects[:last]:
            if isinstance(effect, Publish):
                if effect.payload[3] == Kind.HELLO and not self.passed_on(effect.payload):
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
        self.disk.close()
        self.disk = disk
        self.world.count(why)
        self.world.say(self.name, why)
        self.world.check.destroyed()
        self.start()
