"""What node and hub say about the facts that go down: the tail of the hub's feed, digests of buckets, and the facts themselves (rule 15).

An order stands at `k`, 32 bits of a digest of its name; a *bucket* (depth, prefix) is the orders whose k begins with those bits.
The digest of an order is a sum over the hashes of its heads, that of a bucket the sum over its orders: both ends add up what they have, and
go down only where the sums differ. Sums and not hashes of lists: they can be added up by the database, in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from protocols import limits
from protocols.codec import Kind, pack
from protocols.elements import HASH, epoch, fixed, flag, items, seq, small, text, tuple_of, whole
from protocols.errors import DecodeError

DIGEST_BITS: Final = 48
DIGEST_BYTES: Final = DIGEST_BITS // 8
K_BITS: Final = 32
STEPS: Final = (8, 14, 20, 26)
"""depths at which buckets are compared: 256 at first, then 64 in each that differs"""
LEAF_ORDERS: Final = 32
"""a bucket with no more orders is listed instead of divided"""
LISTED_ORDERS: Final = 4_000
"""in one message"""
VECTORS: Final = 64
HOLDS: Final = 16
HISTORY: Final = 256
"""facts of one order of which a statement says that they are history"""
DOUBTS: Final = 256
"""orders with heads that the hub did not name, in one message"""
DOUBTED: Final = 16
"""such heads of one order"""

_MASK: Final = (1 << DIGEST_BITS) - 1


def order_k(org: str, order_id: str) -> int:
    """Where an order stands among the buckets: 0..2^32-1."""
    return int.from_bytes(blake2b(pack([org, order_id]), digest_size=4).digest(), "big")


def heads_digest(hashes: Sequence[bytes]) -> int:
    """The digest of an order by the chain hashes of its heads, 48 bits. A chain hash names a fact in all the world."""
    if len(hashes) == 1:
        return int.from_bytes(hashes[0][:DIGEST_BYTES], "big")
    return sum(int.from_bytes(h[:DIGEST_BYTES], "big") for h in hashes) & _MASK


def added(digests: Iterable[int]) -> int:
    """The digest of a bucket from those of what is in it."""
    return sum(digests) & _MASK


class Bucket(NamedTuple):
    """Orders whose k begins with the `depth` bits of `prefix`."""

    depth: int
    prefix: int

    @property
    def low(self) -> int:
        """The lowest k in it."""
        return self.prefix << (K_BITS - self.depth)

    @property
    def high(self) -> int:
        """The highest k in it."""
        return self.low + (1 << (K_BITS - self.depth)) - 1

    @property
    def step(self) -> int:
        """The depth at which it is divided; 0: it is not."""
        return next((step for step in STEPS if step > self.depth), 0)

    def children(self) -> list[Bucket]:
        """Its parts, in order of k."""
        more = self.step - self.depth
        return [Bucket(self.step, (self.prefix << more) + i) for i in range(1 << more)]


ROOT: Final = Bucket(0, 0)


@dataclass(frozen=True, slots=True)
class Vector:
    """The digests of the parts of a bucket, in order."""

    bucket: Bucket
    digests: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Leaf:
    """Every order of a bucket from `from_k` on: (k, digest), ascending."""

    bucket: Bucket
    from_k: int
    orders: tuple[tuple[int, int], ...]


class Doubt(NamedTuple):
    """Heads of an order here, (node, epoch, class, seq, hash) each, that the hub knows, if at all, as history which it did not name: it
    lets go of rows, and keeps their hashes."""

    org: str
    order_id: str
    heads: tuple[tuple[str, int, int, int, bytes], ...]

    def to_list(self) -> list[Any]:
        """The wire form."""
        return [self.org, self.order_id, _lists(self.heads)]


@dataclass(frozen=True, slots=True)
class Follow:
    """A node asks for what the feed holds beyond its cursor, at most `room` facts now; what comes later, it hears as it comes.

    `holds`: streams (node, epoch, class) of which it keeps signed bytes until they are settled; a receipt tells it how far they are.
    """

    feed_epoch: bytes
    pos: int
    room: int
    holds: tuple[tuple[str, int, int], ...] = ()

    KIND = Kind.FOLLOW

    def to_list(self) -> list[Any]:
        """The wire form."""
        return [self.feed_epoch, self.pos, self.room, _lists(self.holds)]

    @classmethod
    def parse(cls, body: object) -> Follow:
        """The message, checked. Errors: DecodeError."""
        feed_epoch, pos, room, holds = items(body, 4)
        return cls(fixed(feed_epoch, HASH), whole(pos), whole(room), tuple_of(holds, _key, HOLDS))


@dataclass(frozen=True, slots=True)
class Compare:
    """What a node has, by digests; the hub answers vectors with a Differ and leaves with Feeds.

    `asker`: which machine of that name asks, a number that it drew; the answers name it. 0: nobody says.
    `doubts`: answered with Feeds that name the heads of those orders, and of what was asked that which is history."""

    feed_epoch: bytes
    vectors: tuple[Vector, ...] = ()
    leaves: tuple[Leaf, ...] = ()
    asker: int = 0
    doubts: tuple[Doubt, ...] = ()

    KIND = Kind.COMPARE

    def to_list(self) -> list[Any]:
        """The wire form."""
        vectors = [[*v.bucket, b"".join(d.to_bytes(DIGEST_BYTES, "big") for d in v.digests)] for v in self.vectors]
        leaves = [[*leaf.bucket, leaf.from_k, [list(o) for o in leaf.orders]] for leaf in self.leaves]
        return [self.feed_epoch, vectors, leaves, self.asker, [doubt.to_list() for doubt in self.doubts]]

    @classmethod
    def parse(cls, body: object) -> Compare:
        """The message, checked. Errors: DecodeError."""
        feed_epoch, vectors, leaves, asker, doubts = items(body, 3, 0, [])
        out = cls(
            fixed(feed_epoch, HASH), tuple_of(vectors, _vector, VECTORS), tuple_of(leaves, _leaf, LISTED_ORDERS), whole(asker),
            tuple_of(doubts, _doubt, DOUBTS),
        )  # fmt: skip
        if sum(len(leaf.orders) for leaf in out.leaves) > LISTED_ORDERS:
            raise DecodeError(f"more than {LISTED_ORDERS} orders listed")
        return out


@dataclass(frozen=True, slots=True)
class Differ:
    """Which parts of the vectors that came are not the same at the hub; `vectors`: those that were looked at. `asker`: of `Compare`."""

    feed_epoch: bytes
    vectors: tuple[Bucket, ...]
    parts: tuple[Bucket, ...]
    asker: int = 0

    KIND = Kind.DIFFER

    def to_list(self) -> list[Any]:
        """The wire form."""
        return [self.feed_epoch, [list(b) for b in self.vectors], [list(b) for b in self.parts], self.asker]

    @classmethod
    def parse(cls, body: object) -> Differ:
        """The message, checked. Errors: DecodeError."""
        feed_epoch, vectors, parts, asker = items(body, 3, 0)
        most = VECTORS << STEPS[0]
        return cls(fixed(feed_epoch, HASH), tuple_of(vectors, _bucket, VECTORS), tuple_of(parts, _bucket, most), whole(asker))


class FedFact(NamedTuple):
    """A fact on its way down: its stream (an index into `Feed.streams`), its seq, the hash before it, its canonical row."""

    stream: int
    seq: int
    prev: bytes
    row: bytes


class FedHead(NamedTuple):
    """A head of an order as the fold needs it, also where its row is gone: place, status, context [[stream index, seq, h4]].

    `by` names the fix that stands there, if it is one: its turn, seq, hash and stream index.
    """

    stream: int
    seq: int
    h: bytes
    status: int
    ctx: tuple[tuple[int, int, bytes], ...] = ()
    by: tuple[int, int, bytes, int] | tuple[()] = ()

    def to_list(self) -> list[Any]:
        """The wire form."""
        return [self.stream, self.seq, self.h, self.status, _lists(self.ctx), list(self.by)]


@dataclass(frozen=True, slots=True)
class FedOrder:
    """All that the hub says of an order: its heads, and facts (stream index, seq, hash) of which it knows that they are history."""

    org: str
    order_id: str
    heads: tuple[FedHead, ...]
    history: tuple[tuple[int, int, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class FeedDone:
    """How far the leaf of a bucket has been answered: from `next_k` on it is still to be asked; 0 when all is said."""

    bucket: Bucket
    from_k: int
    next_k: int


@dataclass(frozen=True, slots=True)
class Feed:
    """Facts of others for one node. `tail`: they are all that the feed holds of its scope in (pos_from, pos_to].

    `unsettled`: some of it is not in the central store yet, so that the node keeps these very bytes until it is (rule 12).
    `body`: the rows of `facts`, compressed like those of a frame; the hash of each follows from `prev` and its row.
    """

    feed_epoch: bytes
    tail: bool
    pos_from: int
    pos_to: int
    unsettled: bool
    streams: tuple[tuple[str, int, int, int], ...]
    """(node, epoch, class, fork) of each that is named; fork is one more than the highest seq below its branches, 0 where it has none"""
    places: tuple[tuple[int, int, bytes], ...]
    """(stream index, seq, hash before) of each fact in `body`"""
    dictionary: int
    body: bytes
    orders: tuple[FedOrder, ...] = ()
    left: tuple[tuple[str, str], ...] = ()
    done: tuple[FeedDone, ...] = ()
    asker: int = 0
    """of the `Compare` that `done` answers"""

    KIND = Kind.FEED

    def to_list(self) -> list[Any]:
        """The wire form."""
        orders = [
            [
                o.org,
                o.order_id,
                [[h.stream, h.seq, h.h, h.status, [list(e) for e in h.ctx], list(h.by)] for h in o.heads],
                _lists(o.history),
            ]
            for o in self.orders
        ]
        done = [[*d.bucket, d.from_k, d.next_k] for d in self.done]
        return [
            self.feed_epoch, self.tail, self.pos_from, self.pos_to, self.unsettled, _lists(self.streams), _lists(self.places),
            self.dictionary, self.body, orders, _lists(self.left), done, self.asker,
        ]  # fmt: skip

    @classmethod
    def parse(cls, body: object) -> Feed:
        """The message, checked, but for the rows in its body. Errors: DecodeError."""
        feed_epoch, tail, pos_from, pos_to, unsettled, streams, places, dictionary, rows, orders, left, done, asker = items(body, 12, 0)
        out = cls(
            fixed(feed_epoch, HASH), flag(tail), whole(pos_from), whole(pos_to), flag(unsettled),
            tuple_of(streams, _stream, limits.FRAME_WIRE_BYTES), tuple_of(places, _place, limits.FRAME_FACTS), small(dictionary),
            _body(rows), tuple_of(orders, _order, limits.FRAME_FACTS), tuple_of(left, _name, limits.FRAME_WIRE_BYTES),
            tuple_of(done, _done, LISTED_ORDERS), whole(asker),
        )  # fmt: skip
        out.check_indexes()
        return out

    def check_indexes(self) -> None:
        """Does every index name a stream? Errors: DecodeError."""
        heads = [h for o in self.orders for h in o.heads]
        named = [
            *(p[0] for p in self.places), *(h.stream for h in heads), *(e[0] for h in heads for e in h.ctx),
            *(h.by[3] for h in heads if h.by),
            *(p[0] for o in self.orders for p in o.history),
        ]  # fmt: skip
        if any(i >= len(self.streams) for i in named):
            raise DecodeError("a stream is named that is not in the message")


def _lists(rows: Sequence[Sequence[object]]) -> list[list[object]]:
    return [list(row) for row in rows]


def _bucket(value: object) -> Bucket:
    depth, prefix = items(value, 2)
    return _checked(small(depth), whole(prefix))


def _checked(depth: int, prefix: int) -> Bucket:
    if (depth and depth not in STEPS) or prefix >> depth:
        raise DecodeError("no such bucket")
    return Bucket(depth, prefix)


def _vector(value: object) -> Vector:
    depth, prefix, packed = items(value, 3)
    bucket = _checked(small(depth), whole(prefix))
    if not bucket.step:
        raise DecodeError("this bucket is not divided")
    data = fixed(packed, DIGEST_BYTES << (bucket.step - bucket.depth))
    return Vector(bucket, tuple(int.from_bytes(data[i : i + DIGEST_BYTES], "big") for i in range(0, len(data), DIGEST_BYTES)))


def _leaf(value: object) -> Leaf:
    depth, prefix, from_k, orders = items(value, 4)
    return Leaf(_checked(small(depth), whole(prefix)), whole(from_k), tuple_of(orders, _listed, LISTED_ORDERS))


def _listed(value: object) -> tuple[int, int]:
    k, digest = items(value, 2)
    return whole(k), whole(digest)


def _doubt(value: object) -> Doubt:
    org, order_id, heads = items(value, 3)
    return Doubt(text(org, limits.ORG_CHARS), text(order_id, limits.ORDER_ID_CHARS), tuple_of(heads, _doubted, DOUBTED))


def _doubted(value: object) -> tuple[str, int, int, int, bytes]:
    node, epoch_, cls, seq_, h = items(value, 5)
    return text(node, limits.NODE_CHARS), epoch(epoch_), small(cls), seq(seq_), fixed(h, HASH)


def _stream(value: object) -> tuple[str, int, int, int]:
    node, epoch_, cls, fork = items(value, 4)
    return text(node, limits.NODE_CHARS), epoch(epoch_), small(cls), whole(fork)


def _key(value: object) -> tuple[str, int, int]:
    node, epoch_, cls = items(value, 3)
    return text(node, limits.NODE_CHARS), epoch(epoch_), small(cls)


def _place(value: object) -> tuple[int, int, bytes]:
    stream, seq_, h = items(value, 3)
    return whole(stream), seq(seq_), fixed(h, HASH)


def _order(value: object) -> FedOrder:
    org, order_id, heads, history = items(value, 4)
    return FedOrder(
        text(org, limits.ORG_CHARS), text(order_id, limits.ORDER_ID_CHARS), tuple_of(heads, _head, limits.CONTEXT_ENTRIES),
        tuple_of(history, _place, HISTORY),
    )  # fmt: skip


def _head(value: object) -> FedHead:
    stream, seq_, h, status, ctx, by = items(value, 6)
    return FedHead(whole(stream), seq(seq_), fixed(h, HASH), whole(status), tuple_of(ctx, _entry, limits.CONTEXT_ENTRIES), _by(by))


def _by(value: object) -> tuple[int, int, bytes, int] | tuple[()]:
    if value == []:
        return ()
    turn, seq_, h, stream = items(value, 4)
    return whole(turn), seq(seq_), fixed(h, HASH), whole(stream)


def _entry(value: object) -> tuple[int, int, bytes]:
    stream, seq_, h = items(value, 3)
    return whole(stream), seq(seq_), fixed(h, 4)


def _name(value: object) -> tuple[str, str]:
    org, order_id = items(value, 2)
    return text(org, limits.ORG_CHARS), text(order_id, limits.ORDER_ID_CHARS)


def _done(value: object) -> FeedDone:
    depth, prefix, from_k, next_k = items(value, 4)
    return FeedDone(_checked(small(depth), whole(prefix)), whole(from_k), whole(next_k))


def _body(value: object) -> bytes:
    if type(value) is not bytes or len(value) > limits.FRAME_WIRE_BYTES:
        raise DecodeError("the rows are not bytes")
    return value
