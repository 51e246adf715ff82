"""Writes one message of the downlink: facts by their rows, orders as the hub knows them, names of those that left; within its bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from protocols.codec import DICTIONARIES, encode_body, pack
from protocols.downlink import HISTORY, FedFact, FedHead, FedOrder, Feed, FeedDone
from protocols.ledger import Ledger
from protocols.limits import CONTEXT_ENTRIES
from protocols.merge import Head, load_heads
from protocols.sqlite import Row
from protocols.streams import StreamKey

FULL_BYTES: Final = 40_000
"""of rows before compression and of what is said beside them: then a message is sent"""
ORDER_BYTES: Final = 25_000
"""of the rows of one order, and of what is said of it: together with what was there before, it still travels"""
FACTS: Final = 600
BODIES_KEPT: Final = 64
"""packed rows of messages, each at most what travels in one"""
ROWS_OF_HISTORY: Final = 32
"""of an order that the node does not know: its latest past, to be shown"""


@lru_cache(maxsize=BODIES_KEPT)
def _body(rows: tuple[bytes, ...]) -> bytes:
    """Nodes at one site are sent the same facts: these are packed once."""
    return encode_body(rows, dictionary=DICTIONARIES[-1])


class Writer:
    """See the module. Reads the ledger's database between two transactions."""

    def __init__(self, ledger: Ledger, settled: Callable[[StreamKey, int], bool]) -> None:
        self._ledger, self._settled = ledger, settled
        self._streams: dict[int, int] = {}
        self._facts: dict[tuple[int, int, bytes], FedFact] = {}
        self._orders: list[FedOrder] = []
        self._left: list[tuple[str, str]] = []
        self._bytes = 0
        self._unsettled = False
        self.too_large = 0
        """orders of which more would have to be said than travels in one message"""

    @property
    def facts(self) -> int:
        """How many facts are in it."""
        return len(self._facts)

    @property
    def orders(self) -> int:
        """Of how many orders all is said."""
        return len(self._orders)

    @property
    def full(self) -> bool:
        """Is it time to send it?"""
        return self._bytes >= FULL_BYTES or len(self._facts) >= FACTS or len(self._orders) >= FACTS

    def _stream(self, sid: int) -> int:
        if sid not in self._streams:
            self._streams[sid] = len(self._streams)
            self._bytes += 24
        return self._streams[sid]

    def fact(self, okey: int, sid: int, seq: int, h: bytes) -> None:
        """One fact, unless it is not here any more: digests will tell."""
        row = self._ledger.db.one("SELECT prev, row FROM log WHERE sid=? AND seq=? AND h=?", (sid, seq, h))
        if row is not None:
            self._add(sid, seq, h, row[0], row[1])

    def _add(self, sid: int, seq: int, h: bytes, prev: bytes, row: bytes) -> None:
        if (sid, seq, h) not in self._facts:
            self._facts[sid, seq, h] = FedFact(self._stream(sid), seq, prev, row)
            self._bytes += len(row) + 16
            self._unsettled = self._unsettled or not self._settled(self._ledger.log.by_sid(sid).key, seq)

    def order(self, okey: int, *, history: bool) -> None:
        """All that is known of an order. `history`: the node has nothing of it yet, so its past goes along."""
        found = self._ledger.db.one("SELECT org, order_id, heads FROM orders WHERE okey=?", (okey,))
        if found is None:
            return
        heads = load_heads(found[2])[:CONTEXT_ENTRIES]
        known = {h.fact for h in heads}
        past = self._ledger.db.query(
            "SELECT sid, seq, h, prev, row FROM log WHERE okey=? ORDER BY at_ms DESC, seq DESC LIMIT ?", (okey, HISTORY + len(heads))
        )
        self._say(found, heads, self._past(past, known, ROWS_OF_HISTORY if history else 0))

    def judged(self, okey: int, doubted: Sequence[tuple[str, int, int, int, bytes]]) -> None:
        """The heads of an order, and which of some facts (node, epoch, class, seq, hash) are history here, also where their rows went."""
        found = self._ledger.db.one("SELECT org, order_id, heads FROM orders WHERE okey=?", (okey,))
        if found is None:
            return
        heads = load_heads(found[2])
        ends = {h.fact for h in heads}
        streams = ((self._ledger.log.get(StreamKey(*fact[:3])), *fact[3:]) for fact in doubted)
        facts = [(stream.sid, seq, h) for stream, seq, h in streams if stream is not None]
        gone = tuple((self._stream(fact[0]), *fact[1:]) for fact in facts if fact not in ends and self._folded(okey, *fact))
        self._say(found, heads[:CONTEXT_ENTRIES], gone)

    def _folded(self, okey: int, sid: int, seq: int, h: bytes) -> bool:
        """Did this order take in that fact? Whose row went was in use: rows of heads stay, and of what nobody could read."""
        row = self._ledger.db.one("SELECT okey FROM log WHERE sid=? AND seq=? AND h=?", (sid, seq, h))
        return bool(row[0] == okey) if row is not None else self._ledger.log.has(sid, seq, h)

    def _say(self, found: Row, heads: Sequence[Head], gone: tuple[tuple[int, int, bytes], ...]) -> None:
        """`found`: organisation and name of the order."""
        said = FedOrder(found[0], found[1], tuple(self._head(h) for h in heads), gone)
        said_bytes = len(pack([[h.to_list() for h in said.heads], [list(g) for g in gone]]))
        if said_bytes > ORDER_BYTES:
            self.too_large += 1
            return
        self._orders.append(said)
        self._bytes += said_bytes + 40

    def _past(self, rows: Sequence[Row], heads: set[tuple[int, int, bytes]], shown: int) -> tuple[tuple[int, int, bytes], ...]:
        """Take in the rows of an order, newest first, as far as there is room; returns those that are history."""
        room = self._bytes + ORDER_BYTES
        gone: list[tuple[int, int, bytes]] = []
        for sid, seq, h, prev, row in rows:
            is_head = (sid, seq, h) in heads
            if (is_head or shown > 0) and self._bytes + len(row) <= room:
                self._add(sid, seq, h, prev, row)
                shown -= not is_head
            if not is_head and len(gone) < HISTORY:
                gone.append((self._stream(sid), seq, h))
        return tuple(gone)

    def _head(self, h: Head) -> FedHead:
        ctx = tuple((self._stream(sid), seq, h4) for sid, seq, h4 in h.ctx)
        return FedHead(self._stream(h.sid), h.seq, h.h, h.status, ctx, (*h.by[:3], self._stream(h.by[3])) if h.by else ())

    def left(self, okey: int) -> None:
        """An order that is no business of the node's site any more."""
        found = self._ledger.db.one("SELECT org, order_id FROM orders WHERE okey=?", (okey,))
        if found is not None:
            self._left.append((found[0], found[1]))
            self._bytes += 40

    def feed(
        self, epoch: bytes, *, tail: bool = False, pos_from: int = 0, pos_to: int = 0, done: Sequence[FeedDone] = (), asker: int = 0
    ) -> Feed:
        """The message."""
        log = self._ledger.log
        facts = list(self._facts.values())
        streams = [log.by_sid(sid) for sid in self._streams]
        named = tuple((*s.key, 0 if s.fork_point is None else s.fork_point + 1) for s in streams)
        body = _body(tuple(f.row for f in facts)) if facts else b""
        return Feed(
            epoch, tail, pos_from, pos_to, self._unsettled, named, tuple((f.stream, f.seq, f.prev) for f in facts), DICTIONARIES[-1], body,
            tuple(self._orders), tuple(self._left), tuple(done), asker,
        )  # fmt: skip
