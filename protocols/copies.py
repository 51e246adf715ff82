"""Facts that came down: kept beside the log, folded like all others, removed when their order leaves the scope (sync.md, rule 15).

They are single facts out of their streams, believed because the hub signed them; so they make no runs, and nothing is ever stated or
given away because of them. What arrives is merged: it removes only what it dominates, what the hub knows to be history, or what left.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, NamedTuple

from protocols.codec import decode_body
from protocols.custody_spans import Span
from protocols.downlink import Doubt, FedHead, FedOrder, Feed
from protocols.ledger import Ledger, readable
from protocols.merge import Head, above_fork
from protocols.streams import Stream, StreamKey


class Taken(NamedTuple):
    """What a feed did: facts that were new here, orders that changed by it, orders that left."""

    new: int
    orders: int
    left: int
    spans: list[Span]
    """each fact of the feed, as custody names it"""
    twin: bool = False
    """it named a point of the stream that is written here which is not on the chain here: another machine writes it, too (rule 2)"""
    doubts: tuple[Doubt, ...] = ()
    """orders of which the feed said all, and heads that stand here beside it where streams have branches; elsewhere its own tell enough"""


class _Fact(NamedTuple):
    stream: Stream
    seq: int
    h: bytes
    prev: bytes
    row: bytes
    values: list[Any]


class Copies:
    """See the module. Belongs to the owner of the ledger; every method but `rows` runs inside its transaction."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def take(self, feed: Feed, now_ms: int) -> Taken:
        """Merge a feed of the hub, whose signature was checked. Errors: DecodeError, before anything is written."""
        rows = decode_body(feed.body, len(feed.places), feed.dictionary) if feed.places else []
        streams = [self._stream(*named) for named in feed.streams]
        facts = [
            _Fact(streams[place[0]], place[1], blake2b(place[2] + row, digest_size=8).digest(), place[2], row, values)
            for place, (row, values) in zip(feed.places, rows, strict=True)
        ]
        twin = self._twin_found(feed, streams, facts)
        stated = {(o.org, o.order_id) for o in feed.orders}
        new = sum(self._take_fact(fact, stated, now_ms) for fact in facts)
        doubts = [self._take_order(order, streams, now_ms) for order in feed.orders]
        gone = sum(self._leave(org, order_id) for org, order_id in feed.left)
        spans = [Span(f.stream.key, f.seq, f.prev, f.seq, f.h) for f in facts if not f.stream.own]
        return Taken(new, len(feed.orders), gone, spans, twin, tuple(doubt for doubt in doubts if doubt.heads))

    def _stream(self, node: str, epoch: int, cls: int, fork: int) -> Stream:
        stream = self._ledger.log.open(StreamKey(node, epoch, cls))
        if fork and (stream.told_fork is None or fork - 1 < stream.told_fork):
            stream.told_fork, stream.dirty = fork - 1, True
        return stream

    def _twin_found(self, feed: Feed, streams: list[Stream], facts: list[_Fact]) -> bool:
        """Before anything is folded: at a seq at which the own chain has another hash, branches have parted below."""
        if not any(stream.own for stream in streams):
            return False
        heads = [h for order in feed.orders for h in order.heads]
        points = [(f.stream, f.seq, f.h) for f in facts] + [(streams[i], seq, h) for o in feed.orders for i, seq, h in o.history]
        points += [(streams[h.stream], h.seq, h.h) for h in heads] + [(streams[i], seq, h4) for h in heads for i, seq, h4 in h.ctx]
        found = False
        for stream, seq, h in points:
            mine = self._ledger.log.hash_at(stream, seq) if stream.own else None
            if mine is not None and not mine.startswith(h) and (stream.fork_point is None or seq <= stream.fork_point):
                stream.told_fork, stream.dirty = seq - 1, True
            strange = stream.own and (seq > stream.head[0] or (mine is not None and not mine.startswith(h)))
            found = found or (strange and stream is self._ledger.own(stream.key.cls))
        return found

    def _take_fact(self, f: _Fact, stated: set[tuple[str, str]], now_ms: int) -> bool:
        """Keep a fact that is not here yet, and fold it, unless the feed says itself what its order has become."""
        fact, _ = readable(f.values)
        ledger, sid = self._ledger, f.stream.sid
        if fact is None or ledger.log.has(sid, f.seq, f.h):
            return False
        order = ledger.book.open(fact.org, fact.order_id, now_ms)
        order.followed = True
        known = ledger.db.one("SELECT 1 FROM copies WHERE okey=? AND sid=? AND seq=? AND h=?", (order.okey, sid, f.seq, f.h))
        if known is None:
            values = (order.okey, sid, f.seq, f.h, f.prev, now_ms, f.row)
            ledger.db.run("INSERT INTO copies (okey, sid, seq, h, prev, at_ms, row) VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        ledger.book.count(order, f.stream.key, (f.seq, f.h), fact.details)
        if (fact.org, fact.order_id) not in stated:
            ledger.book.fold(order, ledger.book.as_head(sid, f.seq, f.h, fact), now_ms)
        return known is None

    def _take_order(self, said: FedOrder, streams: list[Stream], now_ms: int) -> Doubt:
        order = self._ledger.book.open(said.org, said.order_id, now_ms)
        order.followed = True
        history = [(streams[i].sid, seq, h) for i, seq, h in said.history]
        beside = self._ledger.book.settle(order, [_head(h, streams) for h in said.heads], history, now_ms)
        log = self._ledger.log
        facts = [h.fact for h in beside if above_fork(h, log)]
        return Doubt(said.org, said.order_id, tuple((*log.by_sid(sid).key, seq, h) for sid, seq, h in facts))

    def _leave(self, org: str, order_id: str) -> bool:
        """The order is nobody's business here any more. What this node said itself stays in its log until it may be freed."""
        order = self._ledger.book.get(org, order_id)
        if order is None or not order.followed:
            return False
        order.followed = False
        self._ledger.db.run("DELETE FROM copies WHERE okey=?", (order.okey,))
        self._ledger.book.replace(order, order.heads, order.at_ms)
        return True


def _head(h: FedHead, streams: list[Stream]) -> Head:
    ctx = tuple(sorted((streams[i].sid, seq, h4) for i, seq, h4 in h.ctx))
    by = (*h.by[:3], streams[h.by[3]].sid) if h.by else ()
    return Head(streams[h.stream].sid, h.seq, h.h, h.status, ctx, by)
