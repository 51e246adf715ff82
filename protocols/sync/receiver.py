"""The receiving half of sync, as a machine without clock or socket: frames, records, heartbeats in; statements out (sync.md, rules 4-9).

Nothing here acknowledges: statements are read after the owner's commit, so that a receipt never says more than the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from protocols.carried import StreamCarried
from protocols.chains import Chain, RunKind
from protocols.codec import INT63_MAX, FrameHeader
from protocols.errors import DecodeError
from protocols.fact import genesis
from protocols.ledger import Ledger, Offered
from protocols.limits import FRAME_WIRE_BYTES, SEGMENTS_STATED, STREAMS_STATED
from protocols.messages import Answer, Heartbeat, Hello, Point, Pull, Receipt, Record, RunStated, StreamHeld, StreamQueue, StreamStated
from protocols.streams import Stream, StreamKey
from protocols.sync.carriers import Carriers, held_points, reached
from protocols.sync.frames import open_frame
from protocols.sync.intervals import Intervals

REFUSED_STATED: Final = 32
STATED_BYTES: Final = FRAME_WIRE_BYTES // 2
"""of streams in one answer or receipt: with what stands around them it may still travel"""


@dataclass(frozen=True, slots=True)
class StoreSays:
    """What the central store last stated of one stream: points with a row for everything below, and those that every backup has too."""

    settled: tuple[Point, ...] = ()
    freeable: tuple[Point, ...] = ()


NOTHING_SAID: Final = StoreSays()


class Granted(NamedTuple):
    """How many facts a node may have under way; `later`: only fresh ones, the backlog waits for its turn."""

    credit: int
    later: bool = False


class Receiver:
    """See the module. `incarnation`: 8 random bytes of this start of the hub. `credit` is granted to each node, in facts."""

    def __init__(self, ledger: Ledger, incarnation: bytes, *, credit: int = 10_000) -> None:
        self._ledger, self.incarnation = ledger, incarnation
        self.granted: Callable[[str], Granted] = lambda _: Granted(credit)
        """asked for each node that is told something"""
        self.backed_up = False
        self.freed_counts = True
        """is what was freed here known to be in the store? Not before it has spoken: then it is not stated"""
        self.carriers = Carriers()
        self._store: dict[StreamKey, StoreSays] = {}
        self._changed: dict[str, dict[StreamKey, list[Point]]] = {}
        """whose streams a receipt is due about, and where the frames ended that came since the last one"""
        self._untold: dict[StreamKey, list[tuple[int, bytes, str]]] = {}

    # ------------------------------------------------------------ in

    def frame(self, header: FrameHeader, body: bytes, now_ms: int, orgs: Sequence[str] = ()) -> Offered:
        """Take the facts of a frame whose signature was verified. Errors: DecodeError: nothing moved, answer `refused`.

        `orgs`: the organisations that its author may speak for; () holds nothing against it.
        A frame of one fact cannot be halved: if its body does not decode, it is kept as bytes, in quarantine, under the header's hashes.
        """
        key = StreamKey(header.author, header.epoch, header.cls)
        try:
            opened = open_frame(header, body)
            offered = self._ledger.offer(key, header.first, header.h_before, opened.facts, opened.hashes, now_ms, orgs=orgs)
        except DecodeError as e:
            if header.count > 1 or not _follows(header, key):
                raise
            offered = self._ledger.offer_opaque(key, header.first, header.h_before, header.h_after, body, e.reason, now_ms)
        self.touch(key, (header.first + header.count - 1, header.h_after))
        if offered.quarantined:
            self._untold.setdefault(key, []).extend((seq, h, why[:200]) for seq, h, why in offered.quarantined)
        return offered

    def record(self, node: str, r: Record, signed: bytes, now_ms: int) -> bool:
        """An author's signed word on a hole of its own stream. False when it closes nothing."""
        key = StreamKey(node, r.epoch, r.cls)
        closed = self._ledger.close_hole(key, r.first, r.h_before, r.last, r.h_last, r.kind, signed, now_ms)
        self.touch(key)
        return closed

    def heartbeat(self, node: str, beat: Heartbeat) -> Pull | None:
        """What the node names and this hub does not hold is asked for (rule 7)."""
        ranges = self.lacking(node, beat.streams)
        return Pull(self.incarnation, tuple(ranges[:SEGMENTS_STATED])) if ranges else None

    def lacking(self, node: str, streams: Iterable[StreamQueue | StreamHeld]) -> list[tuple[int, int, int, int]]:
        """Ranges of the streams that a node names and this hub does not hold: (epoch, class, first, last)."""
        ranges: list[tuple[int, int, int, int]] = []
        for s in streams:
            if s.head[0]:
                held = self.held(StreamKey(node, s.epoch, s.cls), s.head)
                ranges += [(s.epoch, s.cls, lo, hi) for lo, hi in held.missing(1, s.head[0])]
        return ranges

    def held(self, key: StreamKey, head: Point) -> Intervals:
        """Which seqs of the chain that ends in `head` are here, with data or record; where it is not known of which branch, of any.

        What lies below a hole is of the same branch as far as anybody knows, up to the fork point: it need not travel again.
        """
        stream = self._ledger.log.get(key)
        if stream is None:
            return Intervals()
        chain = stream.chain
        if chain.locate(*head) is None or chain.fork_point is None:
            return Intervals(sorted((r.first, r.last) for r in chain.runs))
        common = [(r.first, min(r.last, chain.fork_point)) for r in chain.runs]
        return Intervals(sorted([*common, *((r.first, last) for r, last in chain.path(*head))]))

    # ------------------------------------------------------------ out

    def touch(self, key: StreamKey, *ends: Point) -> None:
        """A receipt about this stream is due to its author (and, with relays, to those who carried it). `ends`: of frames that came."""
        self._changed.setdefault(key.node, {}).setdefault(key, []).extend(ends)

    def receipts(
        self, now_ms: int, wanted: Callable[[str], bool] = lambda _: True, later: Callable[[str], bool] = lambda _: False
    ) -> list[tuple[str, Receipt]]:
        """Call after the commit: who is to be told what about the streams that changed since the last call. Of nodes that are not `wanted`
        nothing is said; those that are told `later`, are told at another call."""
        out = []
        waiting = {node: keys for node, keys in self._changed.items() if later(node)}
        for node, keys in self._changed.items():
            if node in waiting or not wanted(node):
                continue
            statements = [self.statement(k, ends=ends) for k, ends in keys.items()]
            statements += [said for k in keys for said in self._news(k)]
            for stated in _messages(statements):
                out.append((node, self.receipt(node, now_ms, stated)))
        self._changed = waiting
        return out

    def receipt(self, node: str, now_ms: int, stated: tuple[StreamStated, ...] = ()) -> Receipt:
        """To this node, also where only its credit has changed."""
        credit, later = self.granted(node)
        return Receipt(self.incarnation, now_ms, credit, stated, self.backed_up, later)

    def about(self, node: str, keys: Sequence[StreamKey], now_ms: int) -> list[Receipt]:
        """What is held and settled of some streams, for a node that asked; nothing for none. Call it after the commit."""
        groups = _messages([self.statement(key) for key in keys]) if keys else []
        return [self.receipt(node, now_ms, stated) for stated in groups]

    def _news(self, key: StreamKey) -> Iterator[StreamStated]:
        """Every fact that went into quarantine since the last receipts, said once: a statement names only the newest."""
        told = self._untold.pop(key, [])[:-REFUSED_STATED]
        for i in range(0, len(told), REFUSED_STATED):
            yield StreamStated(*key, refused=tuple(told[i : i + REFUSED_STATED]))

    def answer(self, node: str, hello: Hello, now_ms: int) -> Answer:
        """The absolute statement to a hello: of every stream of that node that is known here, also those it did not name (rule 5).

        What does not fit follows as receipts, at the next call of `receipts`.
        """
        named = {StreamKey(node, s.epoch, s.cls): s for s in hello.streams}
        keys = [s.key for s in self._ledger.log.of_node(node) if s.chain.runs or s.key in named or s.key in self._store]
        carried = [said for c in hello.held for said in self._carried(StreamKey(c.node, c.epoch, c.cls), c)]
        first, *others = _messages([*(self.statement(k, named.get(k)) for k in _first_named(keys, named)), *carried])
        for stated in others:
            for s in stated:
                self.touch(StreamKey(s.node, s.epoch, s.cls))
        credit, later = self.granted(node)
        return Answer(hello.nonce, self.incarnation, now_ms, credit, first, self.backed_up, later=later)

    def statement(self, key: StreamKey, hello: StreamHeld | None = None, ends: Sequence[Point] = ()) -> StreamStated:
        """All that is said of one stream. Never names what is not on disk: call it after the commit."""
        if self._ledger.log.get(key) is None and key not in self._store:
            return StreamStated(*key)  # a word about a stream does not make it known
        stream = self._ledger.log.open(key)
        says = self._store.get(key, NOTHING_SAID)
        runs = _bounded(stream.chain, self._inside(stream, ends) if hello is None else self._common(stream, hello))
        if not self.freed_counts and stream.freed_seq:
            runs = _above_freed(stream, runs)
        wants = tuple(stream.chain.holes()[:SEGMENTS_STATED])
        refused = self._ledger.quarantine_rows.newest(stream.sid, REFUSED_STATED)
        settled = says.settled[1 - SEGMENTS_STATED :] + self._reached(stream, hello, says.settled)
        freeable = says.freeable[1 - SEGMENTS_STATED :] + self._reached(stream, hello, says.freeable)
        return StreamStated(*key, runs, settled, freeable, wants, refused)

    def _carried(self, key: StreamKey, carried: StreamCarried) -> Iterator[StreamStated]:
        """What is said of another's stream to a node that has facts of it in custody: all, and each of its points that counts. Of what came
        down the feed it only has to hear what is settled and what may be freed, in as many pieces as that takes."""
        said, stream = self.statement(key), self._ledger.log.get(key)
        if stream is None:
            yield said
            return
        says, points = self._store.get(key, NOTHING_SAID), carried.points
        settled = reached(stream.chain, points, says.settled)
        freeable = settled if says.freeable == says.settled else reached(stream.chain, points, says.freeable)
        yield replace(said, runs=(*said.runs, *held_points(stream.chain, points[:SEGMENTS_STATED]))) if carried.frames else said
        for i in range(0, max(len(settled), len(freeable)), SEGMENTS_STATED):
            piece = slice(i, i + SEGMENTS_STATED)
            yield StreamStated(*key, settled=settled[piece], freeable=freeable[piece])

    def _common(self, stream: Stream, hello: StreamHeld) -> list[RunStated]:
        """The highest point that a hello names and this hub holds: a node on another branch than ours learns how far they agree."""
        for seq, h in (hello.head, *hello.points):
            run = stream.chain.locate(seq, h) if seq else None
            if run is not None:
                return [RunStated(run.first, run.h_before, seq, h)] if seq < run.last else []
        return []

    def _inside(self, stream: Stream, ends: Sequence[Point]) -> list[RunStated]:
        """Frames that end inside a run, the highest of each: their author may be on a branch that leaves ours, and must get on."""
        best: dict[Point, RunStated] = {}
        for seq, h in ends:
            run = stream.chain.locate(seq, h)
            if run is not None and seq < run.last:
                end = (run.last, run.h_last)
                if end not in best or best[end].last < seq:
                    best[end] = RunStated(run.first, run.h_before, seq, h)
        return list(best.values())[:SEGMENTS_STATED]

    def _reached(self, stream: Stream, hello: StreamHeld | None, points: Sequence[Point]) -> tuple[Point, ...]:
        """The highest point of a hello that lies below one of these: a node whose branch ends inside ours learns how far it is settled."""
        for seq, h in (hello.head, *hello.points) if hello is not None else ():
            if (seq, h) in points:
                return ()
            run = stream.chain.locate(seq, h) if seq else None
            if run is not None and any(r is run and seq <= last for p in points if p[0] > seq for r, last in stream.chain.path(*p)):
                return ((seq, h),)
        return ()

    def quarantine_reasons(self, sid: int, first: int = 1, last: int = INT63_MAX) -> dict[tuple[int, bytes], str]:
        """Why facts first..last of a stream could not be read here, by (seq, hash)."""
        return self._ledger.quarantine_rows.reasons(sid, first, last)

    # ------------------------------------------------------------ the central store's word

    def settled(self, key: StreamKey, seq: int) -> bool:
        """Has the store a row for this fact, by its last word? Where the stream has branches above it, that is not known: False."""
        return self._below(key, seq, self._store.get(key, NOTHING_SAID).settled)

    def safe(self, key: StreamKey, seq: int) -> bool:
        """The same of the store and of every backup of it that could be restored; without any, of the store."""
        return self._below(key, seq, self._store.get(key, NOTHING_SAID).freeable)

    def _below(self, key: StreamKey, seq: int, points: Sequence[Point]) -> bool:
        stream = self._ledger.log.get(key)
        if stream is None or (stream.fork_point is not None and seq > stream.fork_point):
            return False
        return any(seq <= at for at, _ in points)

    def store_says(self, statement: Iterable[tuple[StreamKey, StoreSays]], *, backed_up: bool) -> list[StreamKey]:
        """Take over what the store stated; who wrote those streams is told (rule 10). Returns of which it said something new."""
        self.backed_up = backed_up
        changed = []
        for key, says in statement:
            if self._store.get(key) != says:
                self._store[key] = says
                self.touch(key)
                changed.append(key)
        return changed


def _follows(header: FrameHeader, key: StreamKey) -> bool:
    """May a single undecodable fact be trusted to its header's hashes? Not where they contradict the genesis of the stream."""
    return header.first > 1 or header.h_before == genesis(*key)


def _bounded(chain: Chain, extra: Sequence[RunStated]) -> tuple[RunStated, ...]:
    """The runs as stated: all of them, or the lowest and the highest (what is not named is not held: it costs time only)."""
    runs = [RunStated(r.first, r.h_before, r.last, r.h_last, r.kind) for r in chain.runs]
    if len(runs) > SEGMENTS_STATED:
        runs = runs[: SEGMENTS_STATED - 8] + runs[-8:]
    return (*runs, *extra)


def _above_freed(stream: Stream, runs: Sequence[RunStated]) -> tuple[RunStated, ...]:
    """Runs without what was freed; what is not named is not held, and comes again if it must."""
    freed, h = stream.freed_seq, stream.freed_h
    cut = [replace(r, first=freed + 1, h_before=h) if r.first <= freed < r.last else r for r in runs if r.last > freed]
    return tuple(cut) if stream.chain.fork_point is None else tuple(r for r in runs if r.first > freed)


def _messages(stated: Sequence[StreamStated]) -> list[tuple[StreamStated, ...]]:
    """Statements in groups that fit into one message each; at least one group."""
    groups: list[list[StreamStated]] = [[]]
    size = 0
    for s in stated:
        s_bytes = s.wire_bytes()
        if groups[-1] and (len(groups[-1]) == STREAMS_STATED or size + s_bytes > STATED_BYTES):
            groups.append([])
            size = 0
        groups[-1].append(s)
        size += s_bytes
    return [tuple(group) for group in groups]


def _first_named(keys: list[StreamKey], named: dict[StreamKey, StreamHeld]) -> list[StreamKey]:
    return [k for k in keys if k in named] + [k for k in keys if k not in named]


def rooted_points(runs: Sequence[RunStated], genesis: bytes) -> tuple[Point, ...]:
    """The ends of runs below which nothing is missing: what a statement of runs settles."""
    ends: dict[Point, None] = {(0, genesis): None}
    out: list[Point] = []
    for r in sorted(runs, key=lambda r: (r.first, r.last, r.h_last)):
        below = (r.first - 1, r.h_before)
        if below in ends or (r.kind is not RunKind.DATA and not r.h_before and any(p[0] == r.first - 1 for p in ends)):
            ends[r.last, r.h_last] = None
            out.append((r.last, r.h_last))
    return tuple(out)
