"""What nodes and hub say to each other besides frames of facts: hello and answer, receipts, records, refusals, heartbeats, pulls.

Each message is a frozen dataclass that goes on the wire as a positional msgpack list inside a signed envelope whose header is
[author, addressee]. `parse` believes nothing: every type and bound is checked, and only DecodeError comes out. Elements after the known
ones belong to a later version and are ignored here. Rule numbers are those of sync.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from protocols import codec, limits
from protocols.carried import CustodyStated, StreamCarried
from protocols.chains import RunKind
from protocols.clocked import ClockStated
from protocols.codec import Kind, pack
from protocols.downlink import Compare, Differ, Feed, Follow
from protocols.elements import HASH
from protocols.elements import epoch as _epoch
from protocols.elements import fixed as _bytes
from protocols.elements import flag as _flag
from protocols.elements import hash_or_none as _hash_or_none
from protocols.elements import items as _items
from protocols.elements import points as _points
from protocols.elements import seq as _seq
from protocols.elements import small as _small
from protocols.elements import text as _text
from protocols.elements import tuple_of as _tuple
from protocols.elements import whole as _whole
from protocols.errors import DecodeError

FORMATS: Final = (1,)
DICTIONARIES: Final = codec.DICTIONARIES
POINTS_STATED: Final = 64
NONCE: Final = 8
REASON_CHARS: Final = 200

Point = tuple[int, bytes]
"""(seq, chain hash at it)"""


@dataclass(frozen=True, slots=True)
class RunStated:
    """I hold first..last of the chain that ends in (last, h_last); or, with another kind, its author signed that there is no data."""

    first: int
    h_before: bytes
    last: int
    h_last: bytes
    kind: RunKind = RunKind.DATA


@dataclass(frozen=True, slots=True)
class StreamStated:
    """All that is said about one stream, absolutely: what is not named is not held (rules 5 and 6).

    `settled`: points at and below which the central store has a row for every seq. `freeable`: those also in every backup of it.
    `wants`: (first, last, hash at last) of holes. `refused`: (seq, hash, why) of facts in quarantine.
    """

    node: str
    epoch: int
    cls: int
    runs: tuple[RunStated, ...] = ()
    settled: tuple[Point, ...] = ()
    freeable: tuple[Point, ...] = ()
    wants: tuple[tuple[int, int, bytes], ...] = ()
    refused: tuple[tuple[int, bytes, str], ...] = ()

    def wire_bytes(self) -> int:
        """How much room it takes in a message."""
        return len(pack(_stated(self)))


@dataclass(frozen=True, slots=True)
class StreamHeld:
    """A stream as its node says hello with: its head, and points of its chain at doubling distances back."""

    epoch: int
    cls: int
    head: Point
    points: tuple[Point, ...] = ()
    freed_seq: int = 0


@dataclass(frozen=True, slots=True)
class Hello:
    """A node's greeting: a nonce for the answer to echo, its streams, and the formats it reads. `held`: others' streams in its custody."""

    nonce: bytes
    streams: tuple[StreamHeld, ...]
    formats: tuple[int, ...] = FORMATS
    dictionaries: tuple[int, ...] = DICTIONARIES
    held: tuple[StreamCarried, ...] = ()

    KIND = Kind.HELLO

    def to_list(self) -> list[Any]:
        """The wire form."""
        streams = [[s.epoch, s.cls, list(s.head), [list(p) for p in s.points], s.freed_seq] for s in self.streams]
        return [self.nonce, streams, list(self.formats), list(self.dictionaries), [held.to_list() for held in self.held]]

    @classmethod
    def parse(cls, body: object) -> Hello:
        """The message, checked. Errors: DecodeError."""
        nonce, streams, formats, dictionaries, held = _items(body, 4, [])
        return cls(
            _bytes(nonce, NONCE),
            _tuple(streams, _stream_held, limits.STREAMS_STATED),
            _tuple(formats, _small, 64),
            _tuple(dictionaries, _small, 64),
            _tuple(held, StreamCarried.parse, limits.STREAMS_STATED),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """The hub's absolute statement, to one hello. `credit` is how many facts may be under way at once; 0 stops the sender.

    `backed_up`: backups of the central store are configured, and `freeable` waits for them; without, facts are freed only under pressure.
    """

    nonce: bytes
    incarnation: bytes
    hub_ms: int
    credit: int
    streams: tuple[StreamStated, ...]
    backed_up: bool = False
    formats: tuple[int, ...] = FORMATS
    dictionaries: tuple[int, ...] = DICTIONARIES
    feed_epoch: bytes = b""
    """of the feed of this start of the hub (rule 15); empty: this hub has none"""
    feed_pos: int = 0
    """where the feed stands: what came before it, digests find; what comes after it, the tail brings"""
    followed: int | None = None
    """the cursor of the node's follow that waits here for something to tell; None: none waits, or the hub does not say"""
    later: bool = False
    """only what is fresh may be sent: the hub says when the backlog's turn has come"""

    KIND = Kind.ANSWER

    def to_list(self) -> list[Any]:
        """The wire form."""
        streams = [_stated(s) for s in self.streams]
        return [
            self.nonce,
            self.incarnation,
            self.hub_ms,
            self.credit,
            streams,
            self.backed_up,
            list(self.formats),
            list(self.dictionaries),
            self.feed_epoch,
            self.feed_pos,
            self.followed,
            self.later,
        ]

    @classmethod
    def parse(cls, body: object) -> Answer:
        """The message, checked. Errors: DecodeError."""
        nonce, incarnation, hub_ms, credit, streams, backed_up, formats, dictionaries, *feed = _items(body, 8, b"", 0, None, False)
        feed_epoch, feed_pos, followed, later = feed
        return cls(
            _bytes(nonce, NONCE),
            _bytes(incarnation, NONCE),
            _whole(hub_ms),
            _whole(credit),
            _tuple(streams, _parse_stated, limits.STREAMS_STATED),
            _flag(backed_up),
            _tuple(formats, _small, 64),
            _tuple(dictionaries, _small, 64),
            _hash_or_none(feed_epoch),
            _whole(feed_pos),
            None if followed is None else _whole(followed),
            _flag(later),
        )


@dataclass(frozen=True, slots=True)
class Receipt:
    """The same statement for the streams that changed. Idempotent; believed only of the incarnation that answered (rule 6)."""

    incarnation: bytes
    hub_ms: int
    credit: int
    streams: tuple[StreamStated, ...]
    backed_up: bool = False
    later: bool = False
    """see `Answer`"""

    KIND = Kind.RECEIPT

    def to_list(self) -> list[Any]:
        """The wire form."""
        return [self.incarnation, self.hub_ms, self.credit, [_stated(s) for s in self.streams], self.backed_up, self.later]

    @classmethod
    def parse(cls, body: object) -> Receipt:
        """The message, checked. Errors: DecodeError."""
        incarnation, hub_ms, credit, streams, backed_up, later = _items(body, 5, False)
        return cls(
            _bytes(incarnation, NONCE),
            _whole(hub_ms),
            _whole(credit),
            _tuple(streams, _parse_stated, limits.STREAMS_STATED),
            _flag(backed_up),
            _flag(later),
        )


@dataclass(frozen=True, slots=True)
class Record:
    """An author's signed word that it has no data for first..last of its own stream, and why (rule 9). `h_before` may be empty: unknown."""

    epoch: int
    cls: int
    first: int
    h_before: bytes
    last: int
    h_last: bytes
    kind: RunKind
    made_ms: int
    reason: str = ""
    """in words, for people; absent in version 1"""

    KIND = Kind.RECORD

    def to_list(self) -> list[Any]:
        """The wire form."""
        return [self.epoch, self.cls, self.first, self.h_before, self.last, self.h_last, int(self.kind), self.made_ms, self.reason]

    @classmethod
    def parse(cls, body: object) -> Record:
        """The message, checked. Errors: DecodeError."""
        epoch, klass, first, h_before, last, h_last, kind, made_ms = _items(body, 8)
        out = cls(
            _epoch(epoch),
            _small(klass),
            _seq(first),
            _hash_or_none(h_before),
            _seq(last),
            _bytes(h_last, HASH),
            _kind(kind),
            _whole(made_ms),
            _text(body[8], REASON_CHARS) if isinstance(body, list) and len(body) > 8 else "",
        )
        if out.kind is RunKind.DATA or out.last < out.first:
            raise DecodeError("a record covers first..last without data")
        return out


@dataclass(frozen=True, slots=True)
class Refused:
    """A frame that moved nothing, named by the digest of its bytes; its author sends it again, in halves (rule 8)."""

    incarnation: bytes
    digest: bytes
    reason: str

    KIND = Kind.REFUSED

    def to_list(self) -> list[Any]:
        """The wire form."""
        return [self.incarnation, self.digest, self.reason]

    @classmethod
    def parse(cls, body: object) -> Refused:
        """The message, checked. Errors: DecodeError."""
        incarnation, digest, reason = _items(body, 3)
        return cls(_bytes(incarnation, NONCE), _bytes(digest, 16), _text(reason, REASON_CHARS))


@dataclass(frozen=True, slots=True)
class StreamQueue:
    """One stream in a heartbeat: head, and what is not settled yet: facts, bytes, and when the oldest was taken (node's clock)."""

    epoch: int
    cls: int
    head: Point
    queued: int
    queued_bytes: int
    oldest_ms: int | None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a node has, so that the hub knows what it does not have (rule 7). `facts` is everything the node ever said yes to."""

    now_ms: int
    streams: tuple[StreamQueue, ...]
    version: str
    refused: int = 0
    disk_free_bytes: int | None = None
    custody: CustodyStated | None = None
    clock: ClockStated | None = None

    KIND = Kind.HEARTBEAT

    def to_list(self) -> list[Any]:
        """The wire form."""
        streams = [[q.epoch, q.cls, list(q.head), q.queued, q.queued_bytes, q.oldest_ms] for q in self.streams]
        custody = None if self.custody is None else self.custody.to_list()
        clock = None if self.clock is None else self.clock.to_list()
        return [self.now_ms, streams, self.version, self.refused, self.disk_free_bytes, custody, clock]

    @classmethod
    def parse(cls, body: object) -> Heartbeat:
        """The message, checked. Errors: DecodeError."""
        now_ms, streams, version, refused, disk, custody, clock = _items(body, 5, None, None)
        queues = _tuple(streams, _parse_queue, limits.STREAMS_STATED)
        free = None if disk is None else _whole(disk)
        said = CustodyStated.parse(custody), ClockStated.parse(clock)
        return cls(_whole(now_ms), queues, _text(version, 64), _whole(refused), free, *said)


@dataclass(frozen=True, slots=True)
class Pull:
    """The hub asks for ranges that a heartbeat names and it does not hold: (epoch, class, first, last). Costs time, never a fact."""

    incarnation: bytes
    ranges: tuple[tuple[int, int, int, int], ...]

    KIND = Kind.PULL

    def to_list(self) -> list[Any]:
        """The wire form."""
        return [self.incarnation, [list(r) for r in self.ranges]]

    @classmethod
    def parse(cls, body: object) -> Pull:
        """The message, checked. Errors: DecodeError."""
        incarnation, ranges = _items(body, 2)
        return cls(_bytes(incarnation, NONCE), _tuple(ranges, _parse_range, limits.SEGMENTS_STATED))


Message = Hello | Answer | Receipt | Record | Refused | Heartbeat | Pull | Follow | Compare | Differ | Feed
_BY_KIND: Final[dict[Kind, Callable[[object], Message]]] = {
    m.KIND: m.parse for m in (Hello, Answer, Receipt, Record, Refused, Heartbeat, Pull, Follow, Compare, Differ, Feed)
}


def parse_message(kind: Kind, body: object) -> Message:
    """Any of the messages above by its kind. Errors: DecodeError, also for a frame, which is not one of them."""
    parse = _BY_KIND.get(kind)
    if parse is None:
        raise DecodeError(f"{kind.name} is not a control message")
    return parse(body)


# ---------------------------------------------------------------- parts


def _stated(s: StreamStated) -> list[Any]:
    runs = [[r.first, r.h_before, r.last, r.h_last, int(r.kind)] for r in s.runs]
    return [
        s.node,
        s.epoch,
        s.cls,
        runs,
        [list(p) for p in s.settled],
        [list(p) for p in s.freeable],
        [list(w) for w in s.wants],
        [list(r) for r in s.refused],
    ]


def _parse_stated(value: object) -> StreamStated:
    node, epoch, cls, runs, settled, freeable, wants, refused = _items(value, 8)
    return StreamStated(
        _text(node, limits.NODE_CHARS),
        _epoch(epoch),
        _small(cls),
        _tuple(runs, _parse_run, limits.SEGMENTS_STATED * 2),
        _points(settled, limits.SEGMENTS_STATED),
        _points(freeable, limits.SEGMENTS_STATED),
        _tuple(wants, _parse_want, limits.SEGMENTS_STATED),
        _tuple(refused, _parse_refused, limits.SEGMENTS_STATED),
    )


def _parse_run(value: object) -> RunStated:
    first, h_before, last, h_last, kind = _items(value, 5)
    return RunStated(_seq(first), _hash_or_none(h_before), _seq(last), _bytes(h_last, HASH), _kind(kind))


def _parse_want(value: object) -> tuple[int, int, bytes]:
    first, last, h = _items(value, 3)
    return _seq(first), _seq(last), _bytes(h, HASH)


def _parse_refused(value: object) -> tuple[int, bytes, str]:
    seq, h, why = _items(value, 3)
    return _seq(seq), _bytes(h, HASH), _text(why, REASON_CHARS)


def _parse_range(value: object) -> tuple[int, int, int, int]:
    epoch, cls, first, last = _items(value, 4)
    return _epoch(epoch), _small(cls), _seq(first), _seq(last)


def _parse_queue(value: object) -> StreamQueue:
    epoch, cls, head, queued, queued_bytes, oldest = _items(value, 6)
    return StreamQueue(
        _epoch(epoch), _small(cls), _head(head), _whole(queued), _whole(queued_bytes), None if oldest is None else _whole(oldest)
    )


def _stream_held(value: object) -> StreamHeld:
    epoch, cls, head, points, freed = _items(value, 5)
    return StreamHeld(_epoch(epoch), _small(cls), _head(head), _points(points, POINTS_STATED), _whole(freed))


def _head(value: object) -> Point:
    seq, h = _items(value, 2)
    return _whole(seq), _bytes(h, HASH)


def _kind(value: object) -> RunKind:
    try:
        return RunKind(_small(value))
    except ValueError as e:
        raise DecodeError(f"{value} is no kind of run") from e
