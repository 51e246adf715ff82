"""The sending half of sync, as a machine without clock or socket: hello, window, lanes, retries, records (sync.md, rules 5-9, 17, 18).

`received` lives in memory and only schedules sending; nothing is freed by it. A node believes the answer to its latest nonce, and after it
only receipts of that incarnation. Whatever looks wrong (a receipt that does not come, another incarnation) ends in a new hello, whose
answer is absolute: what is not named is not held, and is sent again.

Methods beginning with `on_` take something in, inside the owner's transaction. `outputs` says what to send, and is called after the commit,
so that nothing is ever on the wire that is not on this node's disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from protocols.carried import StreamCarried
from protocols.chains import RunKind
from protocols.codec import Kind, envelope
from protocols.eviction import evicted_at
from protocols.ledger import ORDERS, Ledger
from protocols.limits import FRAME_FACTS, STREAMS_STATED
from protocols.messages import DICTIONARIES, Answer, Hello, Pull, Receipt, Record, Refused, StreamStated
from protocols.streams import Stream
from protocols.sync.aside import Aside
from protocols.sync.frames import Cut, cut, digest
from protocols.sync.framesize import FrameSize
from protocols.sync.intervals import Intervals
from protocols.sync.patience import Patience
from protocols.sync.points import foreign, held_of
from protocols.sync.records import below_records, gone, records
from protocols.sync.silence import Silence
from protocols.sync.underway import Flight as _Flight
from protocols.sync.underway import Lane
from protocols.sync.underway import Progress as _Progress
from protocols.topics import Channel


@dataclass(frozen=True, slots=True)
class UplinkSettings:
    """How eagerly a node sends. Times in ms, sizes in facts."""

    frame_facts: int = 500
    window_facts: int = 10_000
    turn_frames: int = 4
    """cut in one go: a backlog must not keep those waiting who capture"""
    live_share_percent: int = 25
    linger_ms: int = 20
    retry_ms: int = 5_000
    retry_most_ms: int = 300_000
    idle_hello_ms: int = 300_000
    stall_ms: int = 60_000
    level: int = 6


class Out(NamedTuple):
    """Something to sign and publish."""

    channel: Channel
    kind: Kind
    header: list[Any]
    body: bytes | list[Any]
    """a frame's compressed body as bytes, or a control message to pack"""


@dataclass(slots=True)
class Heard:
    """What the core has to act on after a statement of the hub."""

    fork: bool = False
    """a point of the current stream that is not on its chain, or lies beyond its head: never go on in it"""
    refused: list[tuple[Stream, int, bytes, str]] = field(default_factory=list)
    settled: bool = False
    answered: bool = False
    """it was the answer to the latest hello, and counts"""


class Uplink:
    """See the module. `now` is in ms of any clock of this node that never steps: only differences matter."""

    def __init__(self, ledger: Ledger, rng: Random, settings: UplinkSettings | None = None) -> None:
        self.settings = settings or UplinkSettings()
        self._ledger, self._rng = ledger, rng
        self._progress: dict[int, _Progress] = {}
        self._flights: dict[bytes, _Flight] = {}
        self._nonce = b""
        self.incarnation: bytes | None = None
        self.connected = False
        self.credit, self.later = 0, False
        self.backed_up = False
        self.hub_ms: int | None = None
        self.last_heard_ms: int | None = None
        self.round_trip: tuple[int, int, int] | None = None
        """(hub_ms, when we had asked, when it came) of the last word of the hub that was a reply to one of ours, for who keeps the time"""
        self._asked = 0
        self.refusals, self._aside = 0, Aside()
        self._dictionary = 0
        self._hello_due: int | None = None
        self._patience = Patience(rng, self.settings.retry_ms, self.settings.retry_most_ms)
        self._late: _Flight | None = None
        """the frame whose receipt did not come: the hub is asked because of it"""
        self._lingering: int | None = None
        self._idle_due: int | None = None
        self._progress_ms = 0
        self._idle = True
        """nothing is expected of the hub: no answer, no receipt"""
        self._freeable: dict[int, int] = {}
        self._greeting = False
        self._more_due: int | None = None
        self._to_record: dict[tuple[int, int, int, bytes], Record] = {}
        self._frame_size = FrameSize(min(self.settings.frame_facts, FRAME_FACTS))
        self.silence, self.unheard = Silence(), Silence()
        """of frames, and of hellos"""
        self.carried: Callable[[], tuple[StreamCarried, ...]] = tuple
        """others' streams in this node's custody, asked for each hello"""

    # ------------------------------------------------------------ the link

    def on_up(self, now: int) -> None:
        """The transport is connected: greet."""
        self.connected = True
        self._patience.reset()
        self._late = None
        self._progress_ms = now
        self._greet()

    def on_down(self) -> None:
        """The transport is gone. What was under way is unknown until the next answer."""
        self.connected = False
        self._forget_flights()
        self.incarnation = None
        self._hello_due = self._lingering = self._idle_due = self._more_due = None
        self._greeting = False
        self._to_record = {}

    def _greet(self) -> None:
        """Whatever was believed is in doubt: send nothing more before the answer to a new hello."""
        self._greeting = True
        self._nonce = b""
        self.incarnation = None
        self._forget_flights()

    def ask(self) -> None:
        """Something besides this node's own facts is in doubt (a relay's custody): say hello, unless a greeting is on its way."""
        self._doubt()

    def _doubt(self) -> None:
        """A sign of another incarnation: greet it, unless a greeting is on its way."""
        if self.connected and self.incarnation is not None:
            self._greet()

    def _hello(self, now: int) -> Out:
        self._greeting = False
        self._expect(now)
        self._nonce = self._rng.randbytes(8)
        self._asked = now
        self._hello_due = now + self._patience.answer_ms()
        self._patience.asked(self._nonce, now)
        self.unheard.sent(now)
        log, streams = self._ledger.log, self._ledger.own_streams()[-STREAMS_STATED:]
        hello = Hello(self._nonce, tuple(held_of(log, s, self.believed(s)) for s in streams), held=self.carried())
        return Out(Channel.CONTROL, Kind.HELLO, [], hello.to_list())

    # ------------------------------------------------------------ what the hub says

    def on_answer(self, a: Answer, now: int) -> Heard:
        """Absolute, and believed only with the latest nonce (rule 6)."""
        heard = Heard()
        on_the_way = self._patience.heard(a.nonce, now)
        if not self._nonce or a.nonce != self._nonce or not self.connected:
            if on_the_way and self._nonce and self.connected:  # answers do come, only late: so will the one to the latest hello
                self._hello_due = max(self._hello_due or 0, self._asked + self._patience.receipt_ms())
            return heard
        self._nonce = b""
        heard.answered = True
        self.unheard.broken()
        self.incarnation = a.incarnation
        self._hello_due = None
        self._patience.answered()
        self.round_trip = (a.hub_ms, self._asked, now)
        self._dictionary = max(d for d in DICTIONARIES if d == 0 or d in a.dictionaries)
        self._note(a, now)
        self._forget_flights()
        self._freeable = {}
        believed = self._received()
        stated = {(s.epoch, s.cls): s for s in a.streams if s.node == self._ledger.node}
        for stream in self._ledger.own_streams():
            progress = self._progress[stream.sid] = _Progress(live_above=stream.head[0])
            progress.received.add(1, stream.freed_seq)
            said = stated.get((stream.key.epoch, stream.key.cls), StreamStated(*stream.key))
            self._believe(stream, said, heard, absolute=True)
        if self._received() > believed:
            self._progress_ms = now
            self.silence.broken()
            self._patience.progress()
        late, self._late = self._late, None
        if late is not None and late.sid in self._progress and self._progress[late.sid].received.covers(late.first, late.last):
            self._patience.took(now - late.sent_ms)  # it was not lost, only the wait was too short
        self._rebuild()
        for said in stated.values():
            self._record(said, now)
        return heard

    def on_receipt(self, r: Receipt, now: int) -> Heard:
        """The same statement for what changed; of another incarnation it makes the node say hello."""
        heard = Heard()
        if r.incarnation != self.incarnation or not self.connected:
            self._doubt()
            return heard
        self._note(r, now)
        for said in r.streams:
            stream = self._own(said)
            if stream is not None:
                self._believe(stream, said, heard, absolute=False)
                landed = self._land(stream)
                if landed is not None:
                    self.round_trip = (r.hub_ms, landed, now)
                self._record(said, now)
        return heard

    def on_refused(self, r: Refused, now: int) -> None:
        """One of our frames moved nothing: cut it by halves. A digest we never sent was damaged on its way, and times out."""
        if r.incarnation != self.incarnation:
            self._doubt()
            return
        flight = self._flights.pop(r.digest, None)
        if flight is not None:
            self.refusals += 1
            self._halve(flight, now)

    def on_too_large(self, digest: bytes, now: int) -> tuple[int, int] | None:
        """The broker does not take a frame of ours for its size: cut it and those after it. A single fact steps aside: returned."""
        flight = self._flights.pop(digest, None)
        if flight is not None and flight.first == flight.last:
            self._aside.put(flight.sid, flight.first, now)
            self._rebuild()
            return flight.sid, flight.first
        if flight is not None:
            self._frame_size.too_large(flight.last - flight.first + 1, now)
            self._halve(flight, now)
        return None

    def _halve(self, flight: _Flight, now: int) -> None:
        count = flight.last - flight.first + 1
        progress = self._progress[flight.sid]
        half = max(1, (count + 1) // 2)
        progress.halves[flight.first] = half
        if count > 1:
            progress.halves[flight.first + half] = count - half
            self._rebuild()
            return
        self._hello_due = now + self._patience.refused_ms()  # a single fact: not at once again
        self._patience.fruitless()

    def on_pull(self, p: Pull) -> None:
        """The hub does not hold what it was believed to: send it again."""
        if p.incarnation != self.incarnation:
            self._doubt()
            return
        for epoch, cls, first, last in p.ranges:
            stream = self._own(StreamStated(self._ledger.node, epoch, cls))
            if stream is not None and stream.sid in self._progress:
                self._progress[stream.sid].received.remove(max(first, stream.freed_seq + 1), last)
        self._rebuild()

    def _note(self, said: Answer | Receipt, now: int) -> None:
        self.hub_ms, self.credit, self.later, self.backed_up = said.hub_ms, said.credit, said.later, said.backed_up
        self.last_heard_ms = now
        self._idle_due = now + self.settings.idle_hello_ms

    def _own(self, said: StreamStated) -> Stream | None:
        stream = self._ledger.log.get((self._ledger.node, said.epoch, said.cls))  # type: ignore[arg-type]
        return stream if stream is not None and stream.own and said.node == self._ledger.node else None

    def _believe(self, stream: Stream, said: StreamStated, heard: Heard, *, absolute: bool) -> None:
        """A point counts only if it is on this node's own chain; a record never takes the place of data that is here (rule 9)."""
        progress = self._progress_of(stream, stream.head[0])
        data = [run for run in said.runs if run.kind is RunKind.DATA]
        mine = [run for run in data if self._mine(stream, run.last, run.h_last)]
        for run in mine:
            progress.received.add(run.first, run.last)
            progress.busy.add(run.first, run.last)
        strange = [run for run in data if run not in mine and evicted_at(stream, run.last) is None]  # of what is gone no hash is known
        if stream is self._ledger.own(stream.key.cls) and foreign(strange, mine, stream.freed_seq):
            if absolute or any(run.last > stream.freed_seq for run in strange):
                heard.fork = True
            else:  # or the receipt was made before they were freed, and names the ends of frames: the answer names none
                self._doubt()
        settled = max((seq for seq, h in said.settled if self._mine(stream, seq, h)), default=0)
        if settled > stream.settled_seq or (absolute and settled < stream.settled_seq):
            stream.settled_seq, stream.dirty, heard.settled = max(settled, stream.freed_seq), True, True
        free = below_records(stream, said.runs, max((seq for seq, h in said.freeable if self._mine(stream, seq, h)), default=0))
        self._freeable[stream.sid] = free
        heard.refused += [(stream, seq, h, why) for seq, h, why in said.refused if self._mine(stream, seq, h)]

    def _progress_of(self, stream: Stream, live_above: int = 0) -> _Progress:
        progress = self._progress.get(stream.sid)
        if progress is None:
            progress = self._progress[stream.sid] = _Progress(busy=Intervals(gone(stream)), live_above=live_above)
        return progress

    def _mine(self, stream: Stream, seq: int, h: bytes) -> bool:
        return seq <= stream.head[0] and self._ledger.log.hash_at(stream, seq) == h

    def _land(self, stream: Stream) -> int | None:
        """What arrived is no longer under way. Returns when the last of it was sent."""
        progress, sent = self._progress[stream.sid], None
        for key, f in list(self._flights.items()):
            if f.sid == stream.sid and progress.received.covers(f.first, f.last):
                del self._flights[key]
                sent = f.sent_ms
                progress.halves.pop(f.first, None)
                self._progress_ms = self.last_heard_ms or 0
                self.silence.broken()
                self._patience.progress()
                self._patience.took(self._progress_ms - f.sent_ms)
        return sent

    def _record(self, said: StreamStated, now: int) -> None:
        """Signed records for holes that this node cannot fill (rule 9)."""
        for record in records(self._ledger, self._own(said), said, now):
            self._to_record[record.epoch, record.cls, record.last, record.h_last] = record

    # ------------------------------------------------------------ sending

    def on_appended(self, now: int) -> None:
        """New facts are being written. They linger a few ms, so that a busy moment makes one frame."""
        if self._lingering is None and self.connected and self.incarnation is not None:
            self._lingering = now + self.settings.linger_ms

    def outputs(self, now: int) -> list[Out]:
        """After a commit, and whenever a deadline has come: everything there is to send now."""
        if not self.connected:
            return []
        if self._aside.over(now):
            self._rebuild()
        if self._overdue(now):
            self._late = min(self._flights.values(), key=lambda f: f.sent_ms, default=None)
            if self._late is not None:
                self._patience.fruitless()
            self._greet()
        outs = [self._hello(now)] if self._greeting else []
        if self.incarnation is not None:
            outs += [Out(Channel.CONTROL, Kind.RECORD, [], r.to_list()) for r in self._to_record.values()]
            self._to_record = {}
        if self._lingering is not None and now >= self._lingering:
            self._lingering = None
        frames = self._pump(now)
        self._more_due = now + 1 if len(frames) >= self.settings.turn_frames else None
        return outs + frames

    def _overdue(self, now: int) -> bool:
        """No answer, nothing heard for long, or a frame or its receipt was lost: the answer to a hello says which."""
        due = self._hello_at()
        return not self._greeting and due is not None and now >= due

    def _hello_at(self) -> int | None:
        """When to say hello (again) if nothing is heard."""
        if self.incarnation is None:
            return self._hello_due
        return min((t for t in (self._hello_due, self._idle_due, self._receipt_due()) if t is not None), default=None)

    def _receipt_due(self) -> int | None:
        """When the receipt of the oldest frame under way should have come."""
        oldest = min((f.sent_ms for f in self._flights.values()), default=None)
        return None if oldest is None else oldest + self._patience.receipt_ms()

    def next_deadline(self) -> int | None:
        """When `outputs` has something to say by itself, in the same clock as `now`; None: nothing until something happens."""
        if not self.connected:
            return None
        sending = (self._lingering, self._more_due, self._aside.next_ms()) if self.incarnation is not None else ()
        return min((t for t in (self._hello_at(), *sending) if t is not None), default=None)

    def stalled(self, now: int) -> bool:
        """Connected, an answer or receipt expected, and no progress for long: the client is to be torn down and built anew.

        An answer alone is no progress: where a broker swallows the frames, hellos may well be answered. Waiting begins when something is
        sent after a time in which nothing was.
        """
        return self.connected and not self._idle and now - self._progress_ms >= self.settings.stall_ms

    def _expect(self, now: int) -> None:
        if self._idle:
            self._idle, self._progress_ms = False, now

    def restarted(self, now: int) -> None:
        """The client was built anew; give it its time."""
        self._progress_ms = now
        self.silence.stalled()
        self.unheard.stalled()

    def _pump(self, now: int) -> list[Out]:
        """Fill the window: live first, then backlog, each within its share of the credit; telemetry only behind all facts of orders,
        and never so much of it under way that a fresh fact or a backlog of orders would find no room."""
        if not self.connected or self.incarnation is None or self._lingering is not None:
            return []
        window = min(self.settings.window_facts, self.credit)
        backlog = 0 if self.later else window - window * self.settings.live_share_percent // 100
        outs: list[Out] = []
        streams = self._ledger.own_streams()
        orders, others = [s for s in streams if s.key.cls == ORDERS], [s for s in streams if s.key.cls != ORDERS]
        rest = min(backlog, max(1, backlog - window * self.settings.live_share_percent // 100))
        for lane, most, group in (
            (Lane.LIVE, window, orders), (Lane.BACKFILL, backlog, orders), (Lane.LIVE, backlog, others), (Lane.BACKFILL, rest, others)
        ):  # fmt: skip
            for stream in group:
                while len(outs) < self.settings.turn_frames and (room := most - self._under_way()) > 0:
                    out = self._send_next(stream, lane, room, now)
                    if out is None:
                        break
                    outs.append(out)
        self._idle = not self._flights
        return outs

    def _under_way(self) -> int:
        return sum(f.last - f.first + 1 for f in self._flights.values())

    def _send_next(self, stream: Stream, lane: Lane, room: int, now: int) -> Out | None:
        progress = self._progress_of(stream)
        head = stream.head[0]
        low, high = (progress.live_above + 1, head) if lane is Lane.LIVE else (stream.freed_seq + 1, progress.live_above)
        gap = next(progress.busy.missing(low, high), None)
        if gap is None:
            return None
        first, last = gap
        most = self._frame_size.most(now)
        facts = min(most, progress.halves.get(first, FRAME_FACTS), room)
        if room < min(most, last - first + 1) and self._flights:
            return None  # wait for a receipt rather than cut a sliver
        later = [at - first for at in progress.halves if first < at <= last]
        frame = cut(
            self._ledger.log, stream, first, last, facts=min([facts, *later]), dictionary=self._dictionary, level=self.settings.level
        )
        if frame is None:
            return None
        return self._launch(stream, frame, lane, now)

    def _launch(self, stream: Stream, frame: Cut, lane: Lane, now: int) -> Out:
        self._expect(now)
        self.silence.sent(now)
        header = frame.header.to_list()
        self._flights[digest(envelope(Kind.FRAME, header, frame.body))] = _Flight(stream.sid, frame.first, frame.last, lane, now)
        self._progress[stream.sid].busy.add(frame.first, frame.last)
        return Out(lane.value, Kind.FRAME, header, frame.body)

    def on_evicted(self) -> None:
        """Facts of own streams are gone for good: they are not to be sent any more."""
        self._rebuild()

    def _forget_flights(self) -> None:
        self._flights = {}
        self.on_evicted()

    def _received(self) -> int:
        return sum(p.received.count() for p in self._progress.values())

    def _rebuild(self) -> None:
        for sid, progress in self._progress.items():
            under_way = ((f.first, f.last) for f in self._flights.values() if f.sid == sid)
            progress.busy = Intervals([*progress.received, *under_way, *self._aside.of(sid), *gone(self._ledger.log.by_sid(sid))])

    # ------------------------------------------------------------ asking

    def unreceived(self, stream: Stream) -> int:
        """Facts of an own stream that the hub is not believed to hold, of those that are not settled."""
        progress = self._progress.get(stream.sid, _Progress())
        held = Intervals([*progress.received, *gone(stream)])
        return sum(b - a + 1 for a, b in held.missing(stream.settled_seq + 1, stream.head[0]))

    def believed(self, stream: Stream) -> Intervals:
        """What of an own stream the hub was last believed to hold; it only spares sending."""
        return self._progress.get(stream.sid, _Progress()).received

    @property
    def dictionary(self) -> int:
        """The dictionary that the hub was last heard to read; 0 works everywhere."""
        return self._dictionary

    def unreceived_above(self) -> list[tuple[int, int]]:
        """Own streams (sid) with facts that the hub is not believed to hold, and the seq up to which it holds everything."""
        out = []
        for stream in self._ledger.own_streams():
            progress = self._progress.get(stream.sid, _Progress())
            gap = next(progress.received.missing(stream.freed_seq + 1, stream.head[0]), None)
            if gap is not None:
                out.append((stream.sid, gap[0] - 1))
        return out

    def freeable(self, stream: Stream) -> int:
        """The highest seq at and below which everything is settled and, where backups are configured, in each of them."""
        return self._freeable.get(stream.sid, 0)

    def streams_under_way(self) -> Iterable[tuple[int, int, int]]:
        """(sid, first, last) of what was sent and not yet acknowledged."""
        return [(f.sid, f.first, f.last) for f in self._flights.values()]
