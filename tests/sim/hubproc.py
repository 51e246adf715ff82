"""The hub of the simulated world: the production core in the loop of its shell. The part of the central store is `central.py`."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from hub.core import HubCore, HubIdentity, HubSettings
from hub.turns import FRESH_MS, Turns
from protocols.codec import Kind
from protocols.downlink import Feed
from protocols.errors import Conflict, DecodeError, LedgerBroken, LedgerFull
from protocols.messages import Answer, Receipt
from protocols.streams import StreamKey
from protocols.sync.seal import Control, unseal
from protocols.trust import NodeCard
from tests.sim.disks import Disk
from tests.sim.handover import HandOver
from tests.sim.procs import Proc, Request, Up

if TYPE_CHECKING:
    from tests.sim.world import World


BEARS_FACTS = (bytes((Kind.FRAME,)), bytes((Kind.FEED,)))
"""the fourth byte of messages that facts come in"""


class HubProc(Proc):
    """The hub: a core, its disk, and the loop that feeds the central store."""

    early_effects = False

    def __init__(self, world: World, disk: Disk, name: str = "hub") -> None:
        super().__init__(world, name, disk, world.options.hub_crashes)
        self.handover = HandOver(world, self, world.store.rng if name == "hub" else world.rng(f"store/{name}"))
        self.skew_ms = 0
        self.core: HubCore = None  # type: ignore[assignment]

    def open(self) -> None:
        """See `Proc.open`."""
        world = self.world
        address = world.hub_address
        identity = HubIdentity(address.org, address.region, address.node, world.keys.public(address.node))
        settings = HubSettings(
            credit_facts=world.options.credit_facts, budget_bytes=0 if world.hub_full else 20_000_000_000,
            pressure_percent=0 if world.options.pressed else 80, floor_ms=world.options.floor_ms, hold_ms=world.options.hold_ms,
        )  # fmt: skip
        rng: Random = world.rng(f"{self.name}/{self.boots}")
        self._moved, self._said_at = (0, 0, 0), 0
        self.core = HubCore(self.disk.db, identity, world.keys.signer(address.node), world.keys.verify, rng, settings)
        if world.options.seed % 2:  # one after the other, and also those who have little
            self.core.credit.turns = Turns(1, turn=world.options.credit_facts, little=1)
        world.check.hub_started(self.core.receiver.incarnation, self.disk, self.name)
        self.handover.wake(1)

    @property
    def store_away_until(self) -> int:
        """Until when it cannot reach the central store; 0 when it can."""
        return self.world.store.away_until

    def wall(self) -> int:
        """What its clock says."""
        return max(0, self.world.wall + self.skew_ms + self.world.shift("hub"))

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
        except LedgerFull as e:
            self.no_room(e, done)
            return
        self.look(done, spans, own_first=order[0] is Request)
        if self._perform(self.core.effects(self.wall()), crash):
            return
        for request in done:
            self.world.clients.told(self, request)
        self.handover.wake()

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
            except Conflict as e:
                thing.answer = e
            except LedgerFull as e:
                if not self.core.full:
                    raise  # the disk, not the budget
                thing.answer = e

    def look(self, done: Sequence[Request], spans: Sequence[tuple[StreamKey, int, int]], *, own_first: bool = False) -> None:
        """Let the checkers see what is on the disk after a transaction."""
        check, incarnation = self.world.check, self.core.receiver.incarnation
        if incarnation not in check.ever:
            check.hub_started(incarnation, self.disk, self.name)  # the store came back older, and every node is made to ask again
        new = check.own_committed(self.disk, self.name) if own_first else 0
        for key, first, last in spans:
            new |= check.hub_holds(self.disk, incarnation, key, first, last, self.name)
        if not own_first:
            new |= check.own_committed(self.disk, self.name)
        freeing = self.core.freeing
        moved = (freeing.freed, freeing.taken_back, freeing.swept)
        if moved != self._moved:
            self._moved = moved
            check.hub_freed(self.disk, incarnation)
        check.ever[incarnation] |= self.disk.held
        check.views(self.disk, "orders", new, self.name)
        check.requests_done(self.disk, self.name, [(r.events, r.answer) for r in done if r.answer is not None])

    def _perform(self, effects: Sequence[Any], crash: str) -> bool:
        last = self.rng.randrange(len(effects) + 1) if crash == "effects" else len(effects)
        for effect in effects[:last]:
            said = unseal(effect.payload)
            assert isinstance(said, Control)
            message = said.message()
            if isinstance(message, Answer | Receipt):
                self.world.check.hub_says(self.disk, message)
                if message.later:
                    self.world.count("backlog told to wait for its turn")
            elif isinstance(message, Feed):
                node = self.core.registry.get(said.addressee)
                assert node is not None
                self.world.check.hub_feeds(node.address, message)
            self.world.net.down(effect.topic, effect.payload)
        if crash == "effects":
            self.crash("hub in the effects")
            return True
        if self.core.feeds.busy:
            self.world.after(1, self._more, self.boots)
        self._held()
        return False

    def _held(self) -> None:
        """Receipts wait, or nodes for their turn: say it when its time has come, whatever happened to the clock meanwhile."""
        due = self.core.due_ms(self.wall())
        if due is not None and self._said_at <= self.world.now:
            self._said_at = self.world.now + min(max(due - self.wall(), 1), max(self.core.settings.hold_ms, FRESH_MS))
            self.world.at(self._said_at, self._more, self.boots)

    def _more(self, boot: int) -> None:
        if self.alive and boot == self.boots and not self.held_up(self._more, boot):
            self.say()

    def say(self) -> None:
        """Send what became due outside of a step."""
        self._perform(self.core.effects(self.wall()), "")

    def swap(self, disk: Disk) -> None:
        """Restored from an older backup."""
        self.stop()
        self.disk.close()
        self.disk = disk
        self.world.count("hub restored")
        self.world.say("hub", "is restored from an older backup")
        self.world.check.destroyed()
        self.start()


def _span(payload: bytes) -> list[tuple[StreamKey, int, int]]:
    """The stretch of a stream that a frame claims to be; whether it got into the log is for the log to say."""
    if payload[3:4] not in BEARS_FACTS:
        return []
    try:
        opened = unseal(payload)
    except DecodeError:
        return []
    if isinstance(opened, Control):
        return _given_back(opened)
    header = opened[1]
    return [(StreamKey(header.author, header.epoch, header.cls), header.first, header.first + header.count - 1)]


def _given_back(opened: Control) -> list[tuple[StreamKey, int, int]]:
    """The facts of a feed that came back to its hub, one by one."""
    if opened.envelope.kind is not Kind.FEED:
        return []
    try:
        feed = opened.message()
    except DecodeError:
        return []
    assert isinstance(feed, Feed)
    return [(StreamKey(*feed.streams[place[0]][:3]), place[1], place[1]) for place in feed.places if place[0] < len(feed.streams)]
