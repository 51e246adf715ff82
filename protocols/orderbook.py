"""The orders of a ledger: folds of its facts, kept beside them in the same transaction, with the hot ones in memory.

A fact is folded once, when it is logged. When a fork of one of its authors comes to light, and whenever a fact of such an author arrives,
the orders concerned are folded again from their facts (sync.md, rule 13): what a context entry stands for may have changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

from protocols import merged
from protocols.codec import pack, unpack
from protocols.disputes import Watch
from protocols.downlink import heads_digest, order_k
from protocols.errors import DecodeError
from protocols.fact import FactRow, from_row
from protocols.fixes import Fixes, Identity
from protocols.limits import FRAME_UNPACKED_BYTES
from protocols.merge import Entry, Head, admit, conflicts, context, dominates, dump_heads, load_heads, refold, shown
from protocols.sqlite import Db
from protocols.streams import StreamKey, StreamLog

CACHED_ORDERS: Final = 20_000
_INSERT: Final = """INSERT INTO orders (okey, org, order_id, heads, status, conflict, at_ms, k, digest, followed, held, counted)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_UPDATE: Final = "UPDATE orders SET heads=?, status=?, conflict=?, at_ms=?, digest=?, followed=?, held=?, counted=? WHERE okey=?"
_READ: Final = "o.okey, o.heads, o.at_ms, o.followed, o.conflict, o.held, o.counted"


@dataclass(slots=True)
class Order:
    """An order as folded here. `okey` is local to this database; heads are empty only while all its facts were given up or moved."""

    okey: int
    org: str
    order_id: str
    heads: tuple[Head, ...]
    at_ms: int
    stored: bool
    followed: bool = True
    """False at a node whose scope it has left"""
    conflict: bool = False
    held: bool = False
    """by the table of policies: somebody has to look; it rests until that is done"""
    counted: merged.Counted = field(default_factory=dict)
    """what is known of its quantities"""
    _place: int = field(default=-1, compare=False, repr=False)

    @property
    def place(self) -> int:
        """`order_k`, looked for once."""
        if self._place < 0:
            self._place = order_k(self.org, self.order_id)
        return self._place


class Folded(NamedTuple):
    """What a fact did: the order, and whether it became a head (False: it is history)."""

    order: Order
    is_head: bool


_folded: Final = partial(tuple.__new__, Folded)


class _Walked:
    """The ancestry for one refold: each walk down a branch is made once, however many facts are compared at its end."""

    def __init__(self, log: StreamLog) -> None:
        self._log = log
        self._at: dict[tuple[int, int, bytes, int], bytes | None] = {}

    def fork_point(self, sid: int) -> int | None:
        return self._log.fork_point(sid)

    def on_chain(self, sid: int, tip_seq: int, tip_h: bytes, seq: int, h: bytes) -> bool | None:
        way = (sid, tip_seq, tip_h, seq)
        if way not in self._at:
            self._at[way] = self._log.below(*way)
        at = self._at[way]
        return None if at is None else at == h


class OrderBook:
    """Orders of one database. Not thread-safe; thrown away with the connection after a failed commit."""

    def __init__(self, db: Db, log: StreamLog, *, cached: int = CACHED_ORDERS) -> None:
        self._db, self._log, self._cached = db, log, cached
        self.fixes = Fixes(db, log)
        self.watch: Watch | None = None
        """whoever keeps the conflicts; None: a ledger whose conflicts others keep"""
        self._orders: dict[tuple[str, str], Order] = {}
        self._dirty: dict[int, Order] = {}
        row = db.one("SELECT max(okey) FROM orders")
        self._next = (row[0] or 0) + 1 if row else 1

    def get(self, org: str, order_id: str) -> Order | None:
        """The order, if any fact of it is here."""
        found = self._orders.get((org, order_id))
        if found is None:
            row = self._db.one(f"SELECT {_READ} FROM orders o WHERE o.org=? AND o.order_id=?", (org, order_id))
            if row is None:
                return None
            found = self._enter(org, order_id, row)
        return found

    def _enter(self, org: str, order_id: str, row: Sequence[Any]) -> Order:
        """What `_READ` found."""
        flags = bool(row[3]), bool(row[4]), bool(row[5])
        order = self._orders[org, order_id] = Order(row[0], org, order_id, load_heads(row[1]), row[2], True, *flags, merged.load(row[6]))
        return order

    def open(self, org: str, order_id: str, at_ms: int) -> Order:
        """The order, begun if it is new."""
        return self.get(org, order_id) or self._begin(org, order_id, at_ms)

    def _begin(self, org: str, order_id: str, at_ms: int) -> Order:
        order = self._orders[org, order_id] = Order(self._next, org, order_id, (), at_ms, False)
        self._next += 1
        return order

    def open_all(self, names: Iterable[tuple[str, str]], at_ms: int) -> dict[tuple[str, str], Order]:
        """`open` for many (org, order id) at once, with one query for each organisation."""
        found: dict[tuple[str, str], Order] = {}
        wanted: dict[str, list[str]] = {}
        for name in dict.fromkeys(names):
            order = self._orders.get(name)
            if order is None:
                wanted.setdefault(name[0], []).append(name[1])
            else:
                found[name] = order
        for org, ids in wanted.items():
            rows = self._db.query(
                f"SELECT o.order_id, {_READ} FROM json_each(?2) j CROSS JOIN orders o ON o.org=?1 AND o.order_id=j.value",
                (org, json.dumps(ids)),
            )
            stored = {order_id: self._enter(org, order_id, row) for order_id, *row in rows}
            for order_id in ids:
                found[org, order_id] = stored.get(order_id) or self._begin(org, order_id, at_ms)
        return found

    def seen(self, order: Order, own_sid: int) -> tuple[Entry, ...]:
        """The context of a fact that is said now, by who has seen this order as it stands."""
        return context(order.heads, own_sid, self._log) if order.heads else ()

    def fold(self, order: Order, head: Head, at_ms: int) -> Folded:
        """Take one more fact, which the log has, into its order."""
        if self._forked(head.sid):
            return self.fold_all(((order, head),), at_ms)[0]
        if head.by:
            self.replace(order, self._again(order), at_ms)
            return Folded(order, head in order.heads)
        if self.fixes.overruled(head):
            self.replace(order, order.heads, at_ms)
            return Folded(order, False)
        heads = admit(order.heads, head, self._log)
        order.at_ms = at_ms
        self._dirty[order.okey] = order
        if heads is None:
            return Folded(order, False)
        order.heads = heads
        return Folded(order, head in heads)

    def replace(self, order: Order, heads: tuple[Head, ...], at_ms: int) -> None:
        """Set the heads of an order whose outcome is known without comparing."""
        order.heads, order.at_ms = heads, at_ms
        self._dirty[order.okey] = order

    def fold_all(self, facts: Sequence[tuple[Order, Head]], at_ms: int) -> list[Folded]:
        """Take in facts of one stream that came together and are in the log. Of a forked author, each order is folded again once."""
        if not facts or not self._forked(facts[0][1].sid):
            return self._fold_each(facts, at_ms)
        for order in {order.okey: order for order, _ in facts}.values():
            self.replace(order, self._again(order), at_ms)
        return [Folded(order, head in order.heads) for order, head in facts]

    def _fold_each(self, facts: Sequence[tuple[Order, Head]], at_ms: int) -> list[Folded]:
        """`fold` of each, where their stream is not forked: there are hundreds in a frame."""
        done, dirty, log, overruled = [], self._dirty, self._log, self.fixes.overruled
        for order, head in facts:
            if head.by or overruled(head):
                done.append(self.fold(order, head, at_ms))
                continue
            heads = admit(order.heads, head, log)
            order.at_ms = at_ms
            dirty[order.okey] = order
            if heads is not None:
                order.heads = heads
            done.append(_folded((order, heads is not None and head in heads)))
        return done

    def _forked(self, sid: int) -> bool:
        return bool(self._log.forked_nodes) and self._log.by_sid(sid).key.node in self._log.forked_nodes

    def _again(self, order: Order) -> tuple[Head, ...]:
        return refold(self.facts(order), _Walked(self._log))

    def facts(self, order: Order) -> list[Head]:
        """Every fact of an order that is in the log and was not replaced, as the fold needs it. What is freed and still a head is kept
        from the heads."""
        self._log.flush()
        overruled = self.fixes.overruled
        heads = [head for head in order.heads if not overruled(head)]
        for sid, seq, h, row in self._db.query(
            """SELECT sid, seq, h, row FROM log WHERE okey=?1 UNION
               SELECT sid, seq, h, row FROM copies WHERE okey=?1 ORDER BY sid, seq, h""",
            (order.okey,),
        ):
            head = self.as_head(sid, seq, h, from_row(_row(row)))
            if head not in heads and not overruled(head):
                heads.append(head)
        return heads

    def settle(self, order: Order, heads: Sequence[Head], history: Sequence[Identity], at_ms: int) -> list[Head]:
        """Merge what somebody who knows more says of an order: these are its heads, and these facts (sid, seq, h) are history.

        What stands here and is in neither was not known to who said it, or not named: it stays, and dominates what it had seen. Returned.
        """
        known = {h.fact for h in heads} | set(history)
        ours = [
            h
            for h in order.heads
            if h.fact not in known and not self.fixes.overruled(h) and not any(dominates(g, h, self._log) for g in heads)
        ]
        theirs = [h for h in heads if not any(dominates(g, h, self._log) for g in ours)]
        self.replace(order, (*ours, *theirs) or order.heads, at_ms)
        return ours

    def as_head(self, sid: int, seq: int, h: bytes, fact: FactRow) -> Head:
        """A fact as the fold needs it: its context with local stream numbers."""
        if not fact.context and fact.replaces is None:
            return Head(sid, seq, h, int(fact.status))
        stream = self._log.by_sid(sid)
        ctx = tuple(sorted((self._log.open(StreamKey(e[0], e[1], stream.key.cls)).sid, e[2], e[3]) for e in fact.context))
        if fact.replaces is None:
            return Head(sid, seq, h, int(fact.status), ctx)
        place = self.fixes.place(stream, fact.replaces)
        return Head(*place, int(fact.status), ctx, (fact.replaces.turn, seq, h, sid))

    def fold_again(self, sid: int, above: int) -> list[Order]:
        """A fork of a stream came to light: fold again every order that has facts of it above the fork point."""
        return self._all_again(
            """okey IN (SELECT okey FROM log WHERE sid=?1 AND seq>?2 AND okey IS NOT NULL)
               OR okey IN (SELECT l.okey FROM fixes f JOIN log l ON l.sid=f.by_sid AND l.seq=f.by_seq AND l.h=f.by_h
                           WHERE f.sid=?1 AND f.seq>?2 AND l.okey IS NOT NULL)""",
            (sid, above),
        )

    def fold_replaced(self, facts: list[Identity]) -> list[Order]:
        """A fix came for some of these facts, or holds their place: fold again every order that one of them belongs to."""
        self.flush()
        return [order for okey in self.fixes.orders(facts) for order in self._all_again("okey=?", (okey,))]

    def _all_again(self, where: str, params: Sequence[int]) -> list[Order]:
        self.flush()
        out = []
        for okey, org, order_id in self._db.query(f"SELECT okey, org, order_id FROM orders WHERE {where} ORDER BY okey", params):
            order = self.open(org, order_id, 0)
            order.heads = self._again(order)
            self._dirty[okey] = order
            out.append(order)
        return out

    def name_all(self) -> None:
        """Give the orders of a database of version 1 their places and digests. Inside a transaction; cheap when there is nothing to do."""
        self.flush()
        rows = self._db.query("SELECT okey, org, order_id, heads FROM orders WHERE k IS NULL")
        self._db.many(
            "UPDATE orders SET k=?, digest=? WHERE okey=?",
            [(order_k(org, oid), digest_of(load_heads(heads)), okey) for okey, org, oid, heads in rows],
        )

    def judge_again(self, where: str) -> None:
        """Judge orders anew by the table of policies in use. `where`: ours, never a caller's text."""
        self.flush()
        for okey, org, order_id in self._db.query(f"SELECT okey, org, order_id FROM orders WHERE {where} ORDER BY okey"):
            order = self.open(org, order_id, 0)
            order.conflict = True
            self._dirty[okey] = order
        self.flush()

    def _judge(self) -> None:
        if self.watch is not None:
            self.watch.judge(self, self._dirty.values())
            return
        for order in self._dirty.values():
            order.conflict = len(order.heads) > 1 and bool(conflicts(order.heads))

    def count(self, order: Order, key: StreamKey, fact: tuple[int, bytes], details: Mapping[str, object]) -> None:
        """Take in what a fact (seq, h) of a stream says of quantities; nearly all say nothing."""
        if merged.says(details):
            known = merged.counted(details, f"{key.node}/{key.epoch:x}", f"{key.node}/{key.epoch:x}/{fact[0]}/{fact[1][:4].hex()}")
            order.counted = merged.join(order.counted, known)
            self._dirty[order.okey] = order

    def flush(self) -> None:
        """Write down the orders that changed, and let memory forget the oldest."""
        self._log.flush()
        if self._dirty:
            self._judge()
            for sql, rows in (
                (_UPDATE, [_changed(o) for o in self._dirty.values() if o.stored]),
                (_INSERT, [_new(o) for o in self._dirty.values() if not o.stored]),
            ):
                if rows:
                    self._db.many(sql, rows)
            for order in self._dirty.values():
                order.stored = True
            self._dirty = {}
        if len(self._orders) > self._cached:
            for key in list(self._orders)[: len(self._orders) - self._cached // 2]:
                del self._orders[key]


def _folded_columns(heads: tuple[Head, ...]) -> tuple[bytes, int, int]:
    """Heads, status and digest of an order. Nearly all have one head that has seen nobody else's facts."""
    if len(heads) == 1:
        head = heads[0]
        if not (head.ctx or head.by):
            return pack((head[:4],)), head.status, heads_digest((head.h,))
    return dump_heads(heads), shown(heads).status if heads else 0, digest_of(heads)


def _new(o: Order) -> Sequence[int | str | bytes | None]:
    heads, status, digest = _folded_columns(o.heads)
    counted = merged.dump(o.counted) if o.counted else None
    return o.okey, o.org, o.order_id, heads, status, int(o.conflict), o.at_ms, o.place, digest, int(o.followed), int(o.held), counted


def _changed(o: Order) -> Sequence[int | str | bytes | None]:
    heads, status, digest = _folded_columns(o.heads)
    counted = merged.dump(o.counted) if o.counted else None
    return heads, status, int(o.conflict), o.at_ms, digest, int(o.followed), int(o.held), counted, o.okey


def digest_of(heads: Sequence[Head]) -> int:
    """The digest of an order with these heads, as both ends of the downlink compare it."""
    return heads_digest([h.fact[2] for h in heads])


def _row(data: bytes) -> list[object]:
    row = unpack(data, max_bytes=FRAME_UNPACKED_BYTES)
    if not isinstance(row, list):
        raise DecodeError("a fact is not an array")
    return row
