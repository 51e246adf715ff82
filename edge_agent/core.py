"""What an edge decides: takes events and the hub's words, says what to send. No clock, socket, thread or chance of its own.

The owner runs one loop: `begin`, any number of `take_*`, `commit`, then `effects` (send, restart), then tell whoever waits. `effects` is
also due at `next_deadline`. After a LedgerError from any of these the object is thrown away and rebuilt from disk.

Two clocks come in, both in ms: `wall` stamps facts and is never trusted for order; `mono` drives timers and never steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from edge_agent.budget import Budget
from edge_agent.freeing import EdgeFreeing
from edge_agent.handout import Carry, Handout
from edge_agent.oversize import Oversize
from edge_agent.peers import Peers
from edge_agent.relay import Relay, RelaySettings, Taken
from edge_agent.timekeeping import EdgeClock
from edge_agent.timekeeping import Now as Moment
from protocols.chains import RunKind
from protocols.codec import SIGNATURE_BYTES, Kind, open_envelope
from protocols.copies import Copies
from protocols.custody import Custody
from protocols.downlink import Differ, Feed
from protocols.errors import CustodyFull, DecodeError, NotVerified
from protocols.event import OrderEvent
from protocols.ledger import Appended, Ledger
from protocols.limits import STREAMS_STATED
from protocols.messages import Answer, Heartbeat, Pull, Receipt, Refused, StreamQueue
from protocols.policies import shipped
from protocols.policy import Policies
from protocols.sqlite import Db
from protocols.streams import Stream
from protocols.sync.beside import beside
from protocols.sync.follow import Follower, FollowSettings
from protocols.sync.frames import digest
from protocols.sync.seal import Control, Sign, Verify, seal, unseal
from protocols.sync.uplink import Heard, Out, Uplink, UplinkSettings
from protocols.telemetry import Reading
from protocols.topics import Address, Channel
from protocols.transport.port import PLAIN, Extra

Now = Moment
"""see `edge_agent.timekeeping`"""
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class EdgeIdentity:
    """Who this edge is, and which hub it trusts."""

    address: Address
    hub: str
    hub_public: bytes
    version: str = "0.1.0"

    @property
    def node(self) -> str:
        """This node's name."""
        return self.address.node


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """Bounds and rhythms. `budget_bytes`: of the ledger file; `telemetry_bytes`, `reserve_bytes`: see `budget.Room`.
    `floor_ms`: how long settled facts stay at least, by the hub's time."""

    uplink: UplinkSettings = field(default_factory=UplinkSettings)
    heartbeat_ms: int = 10_000
    budget_bytes: int = 1_000_000_000
    pressure_percent: int = 80
    floor_ms: int = 7 * _DAY_MS
    telemetry_bytes: int = 0
    reserve_bytes: int = 0
    relay: RelaySettings = field(default_factory=RelaySettings)
    handout_ms: int | None = None
    """where the line may lead to a relay: after so long without an answer of the hub, own facts are handed to whoever is there"""
    follow: FollowSettings = field(default_factory=FollowSettings)
    policies: Policies | None = None
    """the table that judges conflicts; None: the shipped one"""


@dataclass(frozen=True, slots=True)
class Publish:
    """Send this; whether it arrives is for receipts to say."""

    topic: str
    payload: bytes
    extra: Extra = PLAIN


@dataclass(frozen=True, slots=True)
class Restart:
    """The link is up and nothing moves: tear the client down and build a new one."""


Effect = Publish | Restart


class EdgeCore:
    """See the module."""

    def __init__(
        self,
        db: Db,
        identity: EdgeIdentity,
        sign: Sign,
        verify: Verify,
        rng: Random,
        settings: EdgeSettings | None = None,
    ) -> None:
        self.identity, self.settings = identity, settings or EdgeSettings()
        self._sign, self._verify = sign, verify
        self.ledger = Ledger(
            db, node=identity.node, new_epoch=lambda: rng.getrandbits(62) + 1, policies=self.settings.policies or shipped()
        )
        self.clock = EdgeClock(self.ledger)
        self.uplink = Uplink(self.ledger, rng, self.settings.uplink)
        self.custody = Custody(db, budget_bytes=self.settings.relay.custody_bytes)
        peers = Peers(db, org=identity.address.org, node=identity.node, hub=identity.hub)
        self.handout = Handout(self.ledger, self.uplink, self.settings.handout_ms)
        self.carry = Carry(self.ledger, self.uplink, self.custody, sign)
        self.relay = Relay(self.ledger, self.uplink, peers, self.custody, verify, rng, self.settings.relay, self.settings.floor_ms)
        self.follower = Follower(self.ledger, rng, self.settings.follow)
        self.follower.unreceived, self.relay.inquire = self.uplink.unreceived_above, self.follower.inquire
        self.copies = Copies(self.ledger)
        self.damaged = 0
        """messages from the hub that did not verify or decode"""
        self.not_kept = 0
        """feeds with facts that are not settled, for whose signed bytes there was no room"""
        self._beat_due: int | None = None
        self.freeing = EdgeFreeing(self.ledger, self.uplink, self.clock, self.settings.floor_ms)
        self.disk_free_bytes: int | None = None
        """what its owner knows of the disk, for the hub to see"""
        self.oversize = Oversize(self.ledger, self.uplink)
        self.budget = Budget(self.ledger, self.uplink, lambda: self.settings)

    # ------------------------------------------------------------ in (inside a transaction)

    def begin(self) -> None:
        """Open the transaction that the following `take_*` share."""
        self.ledger.begin()
        self.budget.relieve()

    def commit(self) -> None:
        """Make them durable, together."""
        self.ledger.commit()

    def take_events(self, events: Sequence[OrderEvent], now: Now) -> list[Appended]:
        """Say yes to a batch, whole or not at all; the answer counts once `commit` returned. Errors: Conflict, LedgerFull."""
        if self.full:
            raise self.budget.no_room()
        stamp = self.clock.recording(now)
        done = self.ledger.append_all(events, stamp.ms, clock=stamp.clock)
        self.clock.recorded(done, stamp, now)
        self.uplink.on_appended(now.mono)
        return done

    def take_telemetry(self, readings: Sequence[Reading], now: Now) -> list[Appended]:
        """Say yes to readings of devices, whole or not at all, as `take_events` does. Errors: Conflict, LedgerFull."""
        if self.budget.telemetry_full:
            raise self.budget.no_room_for_telemetry()
        stamp = self.clock.recording(now)
        done = self.ledger.append_telemetry(readings, stamp.ms)
        self.clock.recorded(done, stamp, now)
        self.uplink.on_appended(now.mono)
        return done

    def take_up(self, now: Now) -> None:
        """The transport is connected."""
        self.uplink.on_up(now.mono)
        self.handout.on_up(now.mono)
        self._beat_due = now.mono

    def take_down(self) -> None:
        """The transport is gone."""
        self.uplink.on_down()
        self.relay.on_down()
        self.handout.on_down()
        self.follower.on_down()
        self._beat_due = None

    def take_sync(self, payloads: Sequence[bytes], now: Now) -> list[Taken]:
        """What peers signed, however it came (HTTP, a stick): see `Relay.take`. The answers count once `commit` returned.

        The reserve is for this node's own facts."""
        node, hub = self.identity.node, self.identity.hub
        return [self.relay.take(payload, node, hub, self.clock.ms(now), full=self.budget.telemetry_full) for payload in payloads]

    def take_message(self, payload: bytes, now: Now) -> None:
        """Bytes that came down from the hub. What is not signed by the pinned hub, for this node or one it carries for, moves nothing."""
        try:
            control = self._open(payload)
            if control.addressee != self.identity.node:
                if not self.relay.overhear(control, payload, now.mono, backed_up=self.uplink.backed_up):
                    raise NotVerified(f"addressed to {control.addressee}")
                self._let_go()
                return
            said = control.message()
        except DecodeError:
            self.damaged += 1
            return
        if isinstance(said, Answer):
            heard = self.uplink.on_answer(said, now.mono)
            if heard.answered:
                self.follower.on_answer(said.feed_epoch, said.feed_pos, now.mono, said.followed)
                self.relay.on_answer(said, now.mono, backed_up=said.backed_up)
            self._heard(heard, now)
        elif isinstance(said, Receipt):
            heard = self.uplink.on_receipt(said, now.mono)
            if said.incarnation == self.uplink.incarnation:
                self.relay.on_receipt(said, now.mono)
            self._heard(heard, now)
        elif isinstance(said, Refused):
            self.uplink.on_refused(said, now.mono)
        elif isinstance(said, Pull):
            self.uplink.on_pull(said)
        elif isinstance(said, Differ):
            self.follower.on_differ(said, now.mono)
        elif isinstance(said, Feed):
            self._take_feed(said, payload, now)

    def _take_feed(self, feed: Feed, payload: bytes, now: Now) -> None:
        """Others' facts: merged first, so that the cursor never names what is not here. What the store may still lose is kept as it was
        signed, to be given back (rule 12); where there is no room for that, the facts are here all the same."""
        try:
            taken = self.copies.take(feed, self.clock.ms(now))
            if taken.twin:
                self._begin_epoch(now)
            spans = [span for span in taken.spans if span.key.node != self.identity.node]  # what is its own, this node keeps anyway
            if feed.unsettled and not all(self.custody.covers(span, self.relay.known) for span in spans):
                self.custody.keep(payload, spans, self.clock.ms(now))
        except CustodyFull:
            self.not_kept += 1
        except DecodeError:
            self.damaged += 1
            return
        self.follower.on_feed(feed, now.mono, taken.doubts)

    def _open(self, payload: bytes) -> Control:
        control = unseal(payload)
        if not isinstance(control, Control):
            raise DecodeError("a frame on the channel of receipts")
        if control.author != self.identity.hub:
            raise NotVerified(f"from {control.author}")
        self._verify(self.identity.hub_public, control.envelope.signature, control.envelope.signed)
        return control

    def _heard(self, heard: Heard, now: Now) -> None:
        self.clock.heard(self.uplink, now)
        if heard.fork:
            self._begin_epoch(now)
        for stream, seq, h, why in heard.refused:
            self.ledger.quarantine(stream.sid, seq, h, why, self.clock.ms(now))
        self.oversize.heard()
        self._let_go()

    def _begin_epoch(self, now: Now) -> None:
        """Another machine writes this one's stream (rule 2)."""
        self.ledger.start_new_epoch(self.clock.ms(now))
        self.uplink.on_appended(now.mono)

    def _let_go(self) -> None:
        """Free what rule 11 lets go: of this node's own facts, and of others' that lie here."""
        self.freeing.heard(pressed=self.budget.pressed)
        self.relay.let_go(pressed=self.budget.pressed)

    # ------------------------------------------------------------ out (after the commit)

    def effects(self, now: Now) -> list[Effect]:
        """After a commit, and at `next_deadline`: what to send now."""
        if self.uplink.stalled(now.mono):
            self.uplink.restarted(now.mono)
            if self.settings.handout_ms is None:  # over HTTP each request is answered, or the line is down: a new one cures nothing
                return [Restart()]
        self.follower.paused = self.full
        carried = self.relay.outputs(now.mono)  # first: it may have the uplink say hello
        outs = [*self.uplink.outputs(now.mono), *self.handout.outputs(now.mono), *self.follower.outputs(now.mono)]
        if self._beat_due is not None and now.mono >= self._beat_due and self.uplink.incarnation is not None:
            outs.append(self._beat(now))
        return [*map(self._publish, outs), *(Publish(self.identity.address.topic(channel), payload) for channel, payload in carried)]

    def next_deadline(self) -> int | None:
        """When `effects` is due by itself, on the `mono` clock."""
        beat = self._beat_due if self.uplink.incarnation is not None else None
        due = (self.uplink.next_deadline(), self.relay.next_deadline(), self.handout.next_deadline(), self.follower.next_deadline(), beat)
        return min((t for t in due if t is not None), default=None)

    def _publish(self, out: Out) -> Publish:
        sealed = seal(out, self.identity.node, self.identity.hub, self._sign)
        return Publish(self.identity.address.topic(out.channel), sealed, beside(out, self.settings.uplink))

    def _beat(self, now: Now) -> Out:
        self._beat_due = now.mono + self.settings.heartbeat_ms
        self.check_budget()
        queues = []
        for stream in self.ledger.own_streams()[-STREAMS_STATED:]:
            count, size, oldest = self._unsettled(stream)
            queues.append(StreamQueue(stream.key.epoch, stream.key.cls, stream.head, count, size, oldest))
        custody, clock = self.relay.stated(), self.clock.stated(now)
        beat = Heartbeat(
            self.clock.ms(now),
            tuple(queues),
            self.identity.version,
            self.uplink.refusals,
            self.disk_free_bytes,
            custody=custody,
            clock=clock,
        )
        return Out(Channel.CONTROL, Heartbeat.KIND, [], beat.to_list())

    @property
    def full(self) -> bool:
        """Is there no room for facts of orders, not even in the reserve?"""
        return self.budget.full

    def check_budget(self) -> None:
        """Look at the size of the file: near the budget, settled facts go even without a backup; at the budget, no more is taken."""
        self.budget.look()

    # ------------------------------------------------------------ asking

    def status(self, now: Now) -> dict[str, Any]:
        """Queue, oldest age, receipts, clock and disk, as `GET /v1/status` and `longshore-edge status` show them."""
        streams = [self._stream_status(s, now) for s in self.ledger.own_streams()]
        queued = sum(s["queued"] for s in streams)
        oldest = min((s["oldestMs"] for s in streams if s["oldestMs"] is not None), default=None)
        hub_ms, heard = self.uplink.hub_ms, self.uplink.last_heard_ms
        return {
            "node": self.identity.node,
            "org": self.identity.address.org,
            "region": self.identity.address.region,
            "site": self.identity.address.site,
            "version": self.identity.version,
            "link": {
                "connected": self.uplink.connected,
                "answered": self.uplink.incarnation is not None,
                "lastHeardAgoMs": None if heard is None else now.mono - heard,
                "credit": self.uplink.credit,
                "waitsForTurn": self.uplink.connected and self.uplink.later,
                "refused": self.uplink.refusals,
                "damaged": self.damaged,
                "unanswered": self.unanswered(now),
            },
            "queue": {
                "events": queued,
                "bytes": sum(s["bytes"] for s in streams),
                "oldestAgeMs": None if oldest is None else max(0, self.clock.ms(now) - oldest),
                "notReceived": sum(s["notReceived"] for s in streams),
                "quarantined": self.ledger.quarantine_rows.count_open(),
            },
            "streams": streams,
            "custody": self.relay.status(self.clock.ms(now)),
            "clock": {
                "nowMs": now.wall,
                "hubMs": hub_ms,
                "skewMs": None if hub_ms is None or heard is None else now.wall - (hub_ms + now.mono - heard),
            }
            | self.clock.status(now),
            "disk": {"ledgerBytes": self.ledger.db.file_bytes(), "budgetBytes": self.settings.budget_bytes, "full": self.full}
            | self.budget.status(),
        }

    def unanswered(self, now: Now) -> dict[str, Any] | None:
        """Frames or hellos that were sent, and no word that any arrived, for longer than that takes."""
        for what, silence in (("hellos", self.uplink.unheard), ("frames", self.uplink.silence)):
            lasts = silence.lasts(now.mono, 2 * self.settings.uplink.retry_ms) if self.uplink.connected else None
            if lasts is not None:
                return {"what": what, "count": lasts[0], "forMs": lasts[1]}
        return None

    def take_too_large(self, payload: bytes, now: Now) -> None:
        """The broker does not take this message of ours for its size. See `oversize`; what is no frame only waits for its next turn."""
        try:
            kind = open_envelope(payload).kind
        except DecodeError:
            return
        if kind is Kind.FRAME:
            self.oversize.refused(digest(payload[:-SIGNATURE_BYTES]), len(payload), self.clock.ms(now), now.mono)

    def _unsettled(self, stream: Stream) -> tuple[int, int, int | None]:
        """`Ledger.unsettled`, the oldest's time as it is known now."""
        count, size, oldest = self.ledger.unsettled(stream)
        about = None if oldest is None else self.clock.about_ms(stream.key.epoch, stream.key.cls, stream.settled_seq + 1, oldest)
        return count, size, oldest if about is None else about

    def _stream_status(self, s: Stream, now: Now) -> dict[str, Any]:
        count, size, oldest = self._unsettled(s)
        return {
            "epoch": f"{s.key.epoch:x}",
            "class": ("orders", "telemetry")[s.key.cls] if s.key.cls < 2 else str(s.key.cls),
            "captured": s.head[0],
            "settled": s.settled_seq,
            "freed": s.freed_seq,
            "queued": count,
            "bytes": size,
            "oldestMs": oldest,
            "notReceived": self.uplink.unreceived(s),
            "records": {
                k.name.lower(): sum(r.last - r.first + 1 for r in s.chain.runs if r.kind is k) for k in RunKind if k is not RunKind.DATA
            },
        }
