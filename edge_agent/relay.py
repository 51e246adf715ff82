"""An edge as a relay: it keeps the signed bytes of peers in custody, folds their facts here at once, and brings them to the hub (rule 16).

Custody is not `received`: nothing here tells an author anything but what the hub said itself. What is in custody is sent when it comes,
named in each hello, and sent again where the hub's answer does not state it. Receipts that stay out lead to another hello, with back-off.
Custody ends when the store has it; the bytes, and the facts in this ledger, go by rule 11.

Pure: driven by `EdgeCore`, inside its transactions. What the hub says to peers waits in bounded mailboxes, in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Any, Final, NamedTuple

from edge_agent.peers import Peers
from protocols.carried import POINTS_CARRIED, CustodyStated, StreamCarried
from protocols.chains import RunKind
from protocols.codec import DICTIONARIES, Envelope, FrameHeader, Kind
from protocols.custody import Custody, Known, chained, single, stated
from protocols.custody_spans import Span
from protocols.errors import CustodyFull, DecodeError
from protocols.fact import genesis
from protocols.freeing import Freeing
from protocols.ledger import Ledger
from protocols.limits import STREAMS_STATED
from protocols.messages import Answer, Point, Receipt, RunStated, StreamStated
from protocols.streams import Stream, StreamKey
from protocols.sync.frames import open_frame
from protocols.sync.mailbox import Mailboxes
from protocols.sync.seal import Control, Verify, unseal
from protocols.sync.uplink import Uplink
from protocols.topics import Channel

FREED_EVERY_MS: Final = 3_600_000
"""of the hub's time: so often is looked what has been settled for long enough, though nobody said anything new"""
FEED_POINTS: Final = 1_500
"""of all streams that came down the hub's feed, named in one hello"""
_PEERS_MAY_SAY: Final = (Kind.HELLO, Kind.HEARTBEAT, Kind.RECORD, Kind.FOLLOW, Kind.COMPARE)


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """`custody_bytes` bounds what is kept for others. At most `window_payloads` of it are under way to the hub without a receipt, and no
    more facts than half of the hub's credit. Times in ms."""

    custody_bytes: int = 200_000_000
    window_payloads: int = 32
    retry_ms: int = 10_000
    retry_most_ms: int = 300_000
    ask_ms: int = 60_000
    """what is not settled is asked about this long after an answer, then after twice as long, up to `retry_most_ms`"""
    pressure_percent: int = 80


class Verdict(Enum):
    """What became of a message of a peer."""

    KEPT = "kept"
    KNOWN = "known"
    FORWARDED = "forwarded"
    REFUSED = "refused"
    STRANGER = "stranger"
    NO_ROOM = "noRoom"


class Taken(NamedTuple):
    """The same, with the author as far as it could be read, why it was refused, and how many facts were new to this ledger."""

    verdict: Verdict
    author: str = ""
    reason: str = ""
    new: int = 0


@dataclass(slots=True)
class _Flight:
    spans: list[Span]
    sent_ms: int
    frame: bool

    @property
    def facts(self) -> int:
        return sum(s.last - s.first + 1 for s in self.spans)


class Relay:
    """See the module. `floor_ms`: how long what is settled stays at least, by the hub's time."""

    def __init__(
        self,
        ledger: Ledger,
        uplink: Uplink,
        peers: Peers,
        custody: Custody,
        verify: Verify,
        rng: Random,
        settings: RelaySettings,
        floor_ms: int,
    ) -> None:
        self.peers, self.custody, self.settings = peers, custody, settings
        self.mailboxes = Mailboxes()
        self._ledger, self._uplink, self._verify, self._rng, self._floor_ms = ledger, uplink, verify, rng, floor_ms
        by_chain, by_word = chained(ledger.log), single(ledger.log)
        self.known: Known = lambda key, tip, point: by_chain(key, tip, point) or by_word(key, tip, point)
        """what this ledger knows of others' chains"""
        self._freeing = Freeing(ledger, floor_ms, hashed=True)
        self._to_send: dict[int, None] = {}
        self._to_give_back: dict[int, None] = {}
        """what came down from the hub, and is to go there again"""
        self._flights: dict[int, _Flight] = {}
        self._controls: list[bytes] = []
        self._hellos: dict[str, bytes] = {}
        """the last hello of each peer that came while there was no line"""
        self._named: dict[StreamKey, bool] = {}
        """streams named in the last hello: whether there are frames of them"""
        self._asked: dict[StreamKey, tuple[Point, ...]] = {}
        """and which points of those"""
        self._turn = 0
        self._attempts = 0
        self._retry_ms: int | None = None
        self._asks = 0
        self._ask_due: int | None = None
        self._freeable: dict[int, int] = {}
        self._free_next: dict[int, None] = {}
        """streams of which more may be freed than when they were last looked at"""
        self._freed_at: tuple[int, bool] | None = None
        self._believed: dict[StreamKey, tuple[object, ...]] = {}
        """what was last heard of a stream, and when: the same again moves nothing"""
        self.inquire: Callable[[Sequence[StreamKey], int], bool] = lambda keys, now: False
        """asks how far streams are settled without a hello: see `Follower.inquire`"""
        uplink.carried = self._carried

    # ------------------------------------------------------------ from peers (inside a transaction)

    def take(self, payload: bytes, node: str, hub: str, now_ms: int, *, full: bool) -> Taken:
        """A message that a peer signed, however it came. `full`: this ledger takes no more facts. Nothing is raised for what is refused."""
        try:
            opened = unseal(payload)
            author = opened.author if isinstance(opened, Control) else opened[1].author
            if author == node:
                return Taken(Verdict.KNOWN, author)
            if author == hub and isinstance(opened, Control) and opened.envelope.kind is Kind.FEED:
                return self._pass_on(opened, payload)  # a peer gives the hub back what it came down with; the hub knows its own hand
            card = self.peers.get(author)
            if card is None:
                return Taken(Verdict.STRANGER, author, f"{author} is no peer of this edge")
            envelope = opened.envelope if isinstance(opened, Control) else opened[0]
            self._verify(card.public_key, envelope.signature, envelope.signed)
            if isinstance(opened, Control):
                return self._take_control(opened, payload, hub)
            return self._take_frame(*opened, payload, now_ms, full=full)
        except DecodeError as error:
            return Taken(Verdict.REFUSED, _author(payload), error.reason)

    def _take_control(self, control: Control, payload: bytes, hub: str) -> Taken:
        """Passed on as it is, and not kept; but the last hello waits for the line: its answer is what the peer waits for."""
        if control.addressee != hub or control.envelope.kind not in _PEERS_MAY_SAY:
            raise DecodeError(f"{control.envelope.kind.name.lower()} to {control.addressee!r} is not for a relay to carry")
        return self._pass_on(control, payload)

    def _pass_on(self, control: Control, payload: bytes) -> Taken:
        if self._uplink.connected:
            self._controls.append(payload)
        elif control.envelope.kind is Kind.HELLO:
            self._hellos[control.author] = payload
        return Taken(Verdict.FORWARDED, control.author)

    def _take_frame(self, envelope: Envelope, header: FrameHeader, payload: bytes, now_ms: int, *, full: bool) -> Taken:
        key = StreamKey(header.author, header.epoch, header.cls)
        span = Span(key, header.first, header.h_before, header.first + header.count - 1, header.h_after)
        if self.custody.covers(span, self.known):
            return Taken(Verdict.KNOWN, header.author)
        if header.first == 1 and header.h_before != genesis(*key):
            raise DecodeError("the first fact of a stream does not follow its genesis hash")
        if full:
            return Taken(Verdict.NO_ROOM, header.author, "the ledger of this edge has reached its budget")
        try:
            facts = open_frame(header, envelope.body)
        except DecodeError:
            if header.count > 1 and header.dictionary in DICTIONARIES:
                raise  # its author cuts it anew; what only this version cannot read is for the hub to judge
            facts = None
        try:
            self.custody.keep(payload, [span], now_ms)
        except CustodyFull as error:
            return Taken(Verdict.NO_ROOM, header.author, error.reason)
        cid = self.custody.id_of(payload)
        if cid is not None:
            self._to_send[cid] = None
        new = 0
        if facts is not None:
            new = self._ledger.offer(key, header.first, header.h_before, facts.facts, facts.hashes, now_ms).new
        return Taken(Verdict.KEPT, header.author, new=new)

    # ------------------------------------------------------------ from the hub (inside a transaction)

    def overhear(self, control: Control, payload: bytes, now_mono: int, *, backed_up: bool) -> bool:
        """What the pinned hub says to somebody else: kept for a peer, and read. False when it concerns nobody here."""
        peer = self.peers.get(control.addressee) is not None
        if not peer and not self.custody.kept_bytes:
            return False
        if peer:
            self.mailboxes.put(control.addressee, payload)
        if control.envelope.kind in (Kind.ANSWER, Kind.RECEIPT):
            message = control.message()
            if isinstance(message, Answer | Receipt):
                self._heard(message, now_mono, backed_up=backed_up)
        return True

    def _heard(self, message: Answer | Receipt, now: int, *, backed_up: bool) -> None:
        if message.incarnation != self._uplink.incarnation:
            self._uplink.ask()
            return
        for said in message.streams:
            self.believe(said, message.hub_ms, now, backed_up=backed_up)

    def believe(self, said: StreamStated, hub_ms: int, now: int, *, backed_up: bool) -> None:
        """A statement about another's stream, of the incarnation that counts: what is settled, may be freed, and has arrived."""
        key = StreamKey(said.node, said.epoch, said.cls)
        if self.custody.kept_bytes:
            may = backed_up or self._pressed
            heard = (said.settled, said.freeable, self.custody.taken, may, hub_ms // FREED_EVERY_MS)
            if self._believed.get(key) != heard:
                self._believed[key] = heard
                self._let_custody_go(key, said, hub_ms, may=may)
            self._landed(key, said.runs)
        stream = self._ledger.log.get(key)
        if stream is not None and not stream.own:
            self._set_freeable(stream, self._may_free(stream, said.freeable))

    def _let_custody_go(self, key: StreamKey, said: StreamStated, hub_ms: int, *, may: bool) -> None:
        if self.custody.note_settled(key, said.settled, hub_ms, self.known):
            self._asks = 0
        self.custody.release_feed(key, said.freeable, self.known)
        if may:
            self.custody.release(key, said.freeable, hub_ms - self._floor_ms, self.known)

    def _set_freeable(self, stream: Stream, seq: int) -> None:
        if self._freeable.get(stream.sid) != seq:
            self._freeable[stream.sid] = seq
            self._free_next[stream.sid] = None

    def let_go(self, *, pressed: bool) -> None:
        """Free others' facts in this ledger by rule 11, as far as the hub of this incarnation says so."""
        hub_ms = self._uplink.hub_ms
        if self._uplink.incarnation is None or hub_ms is None:
            return
        may = self._uplink.backed_up or pressed
        moment = (hub_ms // FREED_EVERY_MS, may)
        sids = self._free_next if moment == self._freed_at else self._freeable
        self._free_next, self._freed_at = {}, moment
        for sid in sids:
            stream, freeable = self._ledger.log.by_sid(sid), self._freeable[sid]
            self._freeing.mark(stream, freeable, hub_ms)
            if may:
                self._freeing.free(stream, self._freeing.due(stream, freeable, hub_ms), hub_ms)

    def _freeable_of(self, key: StreamKey) -> int:
        stream = self._ledger.log.get(key)
        return 0 if stream is None else self._freeable.get(stream.sid, 0)

    def _raise_freeable(self, key: StreamKey, seq: int) -> None:
        stream = self._ledger.log.get(key)
        if stream is not None and seq > self._freeable.get(stream.sid, seq):
            self._set_freeable(stream, seq)

    @property
    def _pressed(self) -> bool:
        return self.custody.kept_bytes * 100 >= self.custody.budget_bytes * self.settings.pressure_percent

    def _may_free(self, stream: Stream, points: Sequence[Point]) -> int:
        """Up to where a peer's facts here may be freed; never a seq at which two branches are known."""
        seq = max((s for s, h in points if self._ledger.log.hash_at(stream, s) == h), default=0)
        return seq if stream.chain.fork_point is None else min(seq, stream.chain.fork_point)

    def _landed(self, key: StreamKey, runs: Sequence[RunStated]) -> None:
        data = [run for run in runs if run.kind is RunKind.DATA]
        for cid, flight in list(self._flights.items()):
            flight.spans = [s for s in flight.spans if s.key != key or not stated(s, data, self.known)]
            if not flight.spans:
                del self._flights[cid]
                self._attempts = 0

    def on_answer(self, answer: Answer, now: int, *, backed_up: bool) -> None:
        """The absolute answer to this edge's latest hello: what it does not state is sent (again)."""
        runs: dict[StreamKey, list[RunStated]] = {}
        waited = {**self._flights, **self._to_send, **self._to_give_back}
        self._flights, self._to_send, self._to_give_back = {}, {}, {}
        for said in answer.streams:
            key = StreamKey(said.node, said.epoch, said.cls)
            if key in self._named:
                more = key in runs  # the same stream goes on: its points need several statements
                runs.setdefault(key, []).extend(said.runs)
                freeable = self._freeable_of(key) if more else 0
                self.believe(said, answer.hub_ms, now, backed_up=backed_up)
                self._raise_freeable(key, freeable)
        lacking: dict[int, None] = {}
        for key, _ in self.custody.held():
            if key in self._named or self.peers.get(key.node) is not None:  # else it was not asked about, and came from the hub itself
                frames = self._named.get(key, True)
                known, asked = (self.known, self._asked.get(key, ())) if frames else (_covered, None)
                lacking.update(dict.fromkeys(self.custody.lacking_ids(key, runs.get(key, ()), known, asked, waited)))
        self._wait_again(lacking)
        self._ask_due = None

    def on_receipt(self, receipt: Receipt, now: int) -> None:
        """A receipt to this edge itself, of the incarnation that counts: it may be about others' streams (the hub's own)."""
        for said in receipt.streams:
            if said.node != self._ledger.node:
                self.believe(said, receipt.hub_ms, now, backed_up=receipt.backed_up)

    def _carried(self) -> tuple[StreamCarried, ...]:
        """For a hello: streams in custody; where there are more, or more of them, than it may name, others each time."""
        self._turn += 1
        held = self.custody.held(self._turn)
        if len(held) > STREAMS_STATED:
            start = self._turn * STREAMS_STATED % len(held)
            held = [*held[start:], *held[:start]][:STREAMS_STATED]
        self._named = {key: self.custody.carries(key) for key, _ in held}
        share = max(FEED_POINTS // (list(self._named.values()).count(False) or 1), 1)
        self._asked = {key: self._points(key, points, share) for key, points in held}
        return tuple(StreamCarried(*key, self._asked[key], self._named[key]) for key in self._asked)

    def _points(self, key: StreamKey, points: tuple[Point, ...], share: int) -> tuple[Point, ...]:
        return points if self._named[key] else self.custody.page_of_points(key, min(share, POINTS_CARRIED), self._turn)

    # ------------------------------------------------------------ to the hub (after the commit)

    def on_down(self) -> None:
        """The line is gone. What was under way is unknown until the next answer."""
        self._wait_again(self._flights)
        self._flights, self._controls = {}, []

    def _wait_again(self, cids: Iterable[int]) -> None:
        """These are to be sent, before what waits already. What a peer said does not wait behind what is given back to the hub."""
        frames = self.custody.frames(cids)
        self._to_send = frames | self._to_send
        self._to_give_back = {cid: None for cid in cids if cid not in frames} | self._to_give_back

    def outputs(self, now: int) -> list[tuple[Channel, bytes]]:
        """What to publish now, unchanged, on this edge's own topics."""
        if not self._uplink.connected:
            return []
        outs = [(Channel.CONTROL, payload) for payload in (*self._hellos.values(), *self._controls)]
        self._hellos, self._controls = {}, []
        if self._uplink.incarnation is None:
            return outs
        if ((self._flights and now >= self._due()) or (self._ask_due is not None and now >= self._ask_due)) and self._ask(now):
            return outs
        if self._ask_due is None and self.custody.waits():
            self._ask_due = now + min(self.settings.ask_ms << min(self._asks, 16), self.settings.retry_most_ms)
        return outs + self._next_payloads(now)

    def _ask(self, now: int) -> bool:
        """A receipt is late, or what is settled of others' streams cannot be told from receipts alone: an answer names each point. Is a
        hello under way? What came down, and waits for no more than the store's word, is first asked for with a follow, which costs less."""
        self._attempts += bool(self._flights)
        self._asks += 1
        self._retry_ms = self._ask_due = None
        if not self.custody.waits():
            self._flights = {}  # all of it was settled while its receipt was on the way: nobody will answer for it any more
            return False
        if self._asks % 2 and self._inquired(now):
            return False
        self._uplink.ask()
        return True

    def _inquired(self, now: int) -> bool:
        keys = self.custody.waiting()
        streams = [self._ledger.log.get(key) for key in keys]
        if self._flights or self._to_send or self._to_give_back or any(s is not None and s.fork_point is not None for s in streams):
            return False
        return not any(self.custody.carries(key) for key in keys) and self.inquire(keys, now)

    def _next_payloads(self, now: int) -> list[tuple[Channel, bytes]]:
        outs: list[tuple[Channel, bytes]] = []
        most = (self._uplink.credit + 1) // 2
        for is_frame, waiting in ((True, self._to_send), (False, self._to_give_back)):
            facts = sum(f.facts for f in self._flights.values() if f.frame or not is_frame)
            alone = not facts
            while waiting and len(self._flights) < self.settings.window_payloads and most:
                cid = next(iter(waiting))
                spans = self.custody.spans(cid)
                facts += sum(s.last - s.first + 1 for s in spans)
                if not alone and facts > most:
                    break
                del waiting[cid]
                if spans:  # else it was settled meanwhile
                    self._flights[cid] = _Flight(spans, now, is_frame)
                    alone = False
                    outs.append((Channel.BACKFILL, self.custody.payload(cid)))
        return outs

    def _due(self) -> int:
        """When the oldest payload under way is asked about: after a wait that doubles and is jittered, drawn once each time."""
        if self._retry_ms is None:
            wait = min(self.settings.retry_ms << min(self._attempts, 16), self.settings.retry_most_ms)
            self._retry_ms = wait // 2 + self._rng.randrange(wait // 2 + 1)
        return min(f.sent_ms for f in self._flights.values()) + self._retry_ms

    def next_deadline(self) -> int | None:
        """When `outputs` has something to say by itself."""
        if not self._uplink.connected or self._uplink.incarnation is None:
            return None
        due = [t for t in (self._due() if self._flights else None, self._ask_due) if t is not None]
        return min(due, default=None)

    # ------------------------------------------------------------ asking

    def stated(self) -> CustodyStated | None:
        """For a heartbeat; None when nothing is in custody."""
        counts = self.custody.counts()
        if not counts.payloads:
            return None
        return CustodyStated(counts.events, counts.bytes, counts.oldest_ms, tuple(self.custody.by_author()[:STREAMS_STATED]))

    def status(self, now_wall: int) -> dict[str, Any]:
        """For `GET /v1/status`."""
        counts = self.custody.counts()
        return {
            "peers": len(self.peers.all()),
            "events": counts.events,
            "bytes": counts.bytes,
            "oldestAgeMs": None if counts.oldest_ms is None else max(0, now_wall - counts.oldest_ms),
            "keptBytes": self.custody.kept_bytes,
            "budgetBytes": self.custody.budget_bytes,
            "underWay": len(self._flights),
            "notSent": len(self._to_send) + len(self._to_give_back),
        }


def _covered(key: StreamKey, tip: Point, point: Point) -> bool:
    """Of what came from the hub itself, a hub that holds the seq holds the fact, as far as it was not asked about by name."""
    return True


def _author(payload: bytes) -> str:
    """Whose it claims to be, for people."""
    try:
        opened = unseal(payload)
    except DecodeError:
        return ""
    return opened.author if isinstance(opened, Control) else opened[1].author
