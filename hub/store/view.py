"""The consolidated view while facts are applied: the orders a batch touches, folded in memory, written in the batch's transaction.

The common fact comes from an author who had seen everything that is here of the order: it becomes the one head, and nothing is compared
with the rest. Any other fact marks its order, and at the end of the batch such orders are folded again from the log (`fold.py`), once each
however many of their facts came. So is an order when a fork of one of its authors comes to light, and when facts arrive of a branch that
its fold could not follow to the end (sync.md, rule 13).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from hub.store.disputes import Disputes
from hub.store.fold import Known, OrderFold, covers, fold_order
from hub.store.log import StoreLog
from protocols import merged
from protocols.errors import InvalidInput
from protocols.event import parse_time
from protocols.fact import FactRow
from protocols.fixes import Fixes, Identity
from protocols.ledger import fact_id, parse_row
from protocols.lifecycle import Status, may_follow
from protocols.merge import Head, dump_heads, load_heads, shown
from protocols.policy import Outcome, Policies
from protocols.sqlite import Db
from protocols.streams import StreamKey

CACHED_ORDERS: Final = 20_000
_STATUSES: Final = {int(status): status for status in Status}
PROMISE: Final = "expectedDelivery"

_COLUMNS: Final = (
    "okey", "org", "order_id", "status", "source", "region", "site", "node", "happened_ms", "quality", "received_ms", "facts",
    "head_count", "heads", "covered", "conflict", "abnormal", "expected_ms", "pos", "held", "counted",
)  # fmt: skip
_INSERT: Final = f"INSERT INTO view ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_UPDATE: Final = f"UPDATE view SET {', '.join(f'{c}=?' for c in _COLUMNS[7:])}, status=?, source=? WHERE okey=?"
_UPDATE_MOVED: Final = "UPDATE view SET region=?, site=? WHERE okey=?"
"""apart, because naming a column writes its index anew, and most facts leave an order where it was"""


@dataclass(slots=True, eq=False)
class Order:
    """An order of the view in memory; the columns of its row, with the heads unpacked."""

    okey: int
    org: str
    order_id: str
    status: int = 0
    source: str = ""
    region: str | None = None
    site: str | None = None
    node: str = ""
    happened_ms: int | None = None
    quality: int = 0
    received_ms: int = 0
    facts: int = 0
    heads: tuple[Head, ...] = ()
    covered: bool = True
    conflict: bool = False
    abnormal: bool = False
    expected_ms: int | None = None
    pos: int = 0
    held: bool = False
    """some open conflict says that it rests until settled"""
    counted: merged.Counted = field(default_factory=dict)
    stored: bool = False
    again: bool = False
    """to be folded from the log before it is written"""
    moved: bool = False
    """region or site are not those of its row"""


class _Watching:
    """An `Ancestry` that remembers of which streams a branch could not be followed, and makes each walk down a branch once."""

    def __init__(self, log: StoreLog) -> None:
        self._log = log
        self.unsure: dict[int, None] = {}
        self._at: dict[tuple[int, int, bytes, int], bytes | None] = {}

    def fork_point(self, sid: int) -> int | None:
        return self._log.fork_point(sid)

    def on_chain(self, sid: int, tip_seq: int, tip_h: bytes, seq: int, h: bytes) -> bool | None:
        way = (sid, tip_seq, tip_h, seq)
        if way not in self._at:
            self._at[way] = self._log.below(*way)
        found = self._at[way]
        if found is None:
            self.unsure[sid] = None
            return None
        return found == h


class ViewBook:
    """The view of one database as its writer holds it. Not thread-safe; thrown away after a batch that failed."""

    def __init__(self, db: Db, log: StoreLog, *, policies: Policies, text_index: bool, cached: int = CACHED_ORDERS) -> None:
        self._db, self._log, self._text_index, self._cached = db, log, text_index, cached
        self._orders: dict[tuple[str, str], Order] = {}
        self._dirty: dict[int, Order] = {}
        self.fixes, self._disputes = Fixes(db, log), Disputes(db, log, policies)
        # facts of an order that is gone, because all of them were given up, keep its number
        row = db.one(
            """SELECT coalesce(max(okey), 0), (SELECT coalesce(max(okey), 0) FROM log WHERE okey IS NOT NULL), coalesce(max(pos), 0)
               FROM view"""
        )
        self._okey: int = max(row[0], row[1]) if row else 0
        self._pos: int = row[2] if row else 0
        self._unsure = {sid for (sid,) in db.query("SELECT DISTINCT sid FROM unsure")}

    # ------------------------------------------------------------ orders

    def fetch(self, keys: Iterable[tuple[str, str]]) -> None:
        """Bring the orders of a batch, (org, order id), into memory with one query for each organisation."""
        wanted: dict[str, list[str]] = {}
        for org, order_id in keys:
            if (org, order_id) not in self._orders:
                wanted.setdefault(org, []).append(order_id)
        for org, ids in wanted.items():
            sql = (
                f"SELECT {', '.join('v.' + c for c in _COLUMNS)} FROM json_each(?2) k CROSS JOIN view v ON v.order_id=k.value AND v.org=?1"
            )
            for row in self._db.query(sql, (org, json.dumps(ids))):
                self._enter(row)

    def open(self, org: str, order_id: str) -> Order:
        """An order that `fetch` looked for, begun if it is new."""
        order = self._orders.get((org, order_id))
        if order is None:
            self._okey += 1
            order = self._orders[org, order_id] = Order(self._okey, org, order_id)
        return order

    def _enter(self, row: Sequence[Any]) -> Order:
        heads = load_heads(row[13])
        flags = [bool(flag) for flag in row[14:17]]
        values: list[Any] = [*row[:12], heads, *flags, *row[17:19], bool(row[19]), merged.load(row[20])]
        order = Order(*values)
        order.stored = True
        return self._orders.setdefault((order.org, order.order_id), order)

    def as_head(self, sid: int, cls: int, seq: int, h: bytes, fact: FactRow) -> Head:
        """A fact as the fold needs it: its context with local stream numbers."""
        if not fact.context and fact.replaces is None:
            return Head(sid, seq, h, int(fact.status))
        ctx = tuple(sorted((self._log.open(StreamKey(e[0], e[1], cls)).sid, e[2], e[3]) for e in fact.context))
        if fact.replaces is None:
            return Head(sid, seq, h, int(fact.status), ctx)
        place = self.fixes.place(self._log.by_sid(sid), fact.replaces)
        return Head(*place, int(fact.status), ctx, (fact.replaces.turn, seq, h, sid))

    # ------------------------------------------------------------ folding

    def fold(self, order: Order, head: Head, fact: FactRow, node: str, received_ms: int) -> None:
        """Take in one more fact, which the log has."""
        self._pos += 1
        order.pos = self._pos
        order.facts += 1
        if received_ms > order.received_ms:
            order.received_ms = received_ms
        self._dirty[order.okey] = order
        if merged.says(fact.details):
            self._count(order, head, fact)
        if order.again:
            return
        if not self._saw_all(order, head):
            order.again = True
            return
        if order.heads and not may_follow(_STATUSES[order.heads[0].status], fact.status):
            self._note_odd(order, (head,))
        order.heads = (head,)
        _show(order, fact, node)
        if PROMISE in fact.details:
            expected_ms = promise(fact)
            order.expected_ms = order.expected_ms if expected_ms is None else expected_ms

    def _count(self, order: Order, head: Head, fact: FactRow) -> None:
        sid, seq, h = head.fact
        key = self._log.by_sid(sid).key
        known = merged.counted(fact.details, f"{key.node}/{key.epoch:x}", fact_id(key, seq, h))
        order.counted = merged.join(order.counted, known)

    def _saw_all(self, order: Order, head: Head) -> bool:
        """Had its author seen every fact of the order that is here? Beside a forked author nothing is taken for granted, nor of a fix."""
        if head.by or self.fixes.overruled(head):
            return False
        forked = self._log.forked_nodes
        if forked and any(self._log.by_sid(sid).key.node in forked for sid in (head.sid, *(e[0] for e in head.ctx))):
            return False
        if not order.heads:
            return True
        last = order.heads[0]
        if head.sid == last.sid and not last.ctx:  # the common case: one writer for the order
            return order.covered and head.seq > last.seq
        return order.covered and covers(head, last)

    def mark_forked(self, sid: int, above: int) -> None:
        """A fork of a stream came to light: every order with facts of it above the fork point is folded again."""
        self._log.write()
        self._mark(
            """okey IN (SELECT okey FROM log WHERE sid=?1 AND seq>?2 AND okey IS NOT NULL)
               OR okey IN (SELECT l.okey FROM fixes f JOIN log l ON l.sid=f.by_sid AND l.seq=f.by_seq AND l.h=f.by_h
                           WHERE f.sid=?1 AND f.seq>?2 AND l.okey IS NOT NULL)""",
            (sid, above),
        )

    def mark_replaced(self, facts: list[Identity]) -> None:
        """A fix came for some of these facts, or holds their place: the orders they belong to are folded again."""
        self._log.write()
        self._mark("okey IN (SELECT value FROM json_each(?))", (json.dumps(self.fixes.orders(facts)),))

    def mark_unsure(self, sids: Iterable[int]) -> None:
        """Facts of these streams arrived: orders whose fold could not follow one of their branches are folded again."""
        for sid in sids:
            if sid in self._unsure:
                self._mark("okey IN (SELECT okey FROM unsure WHERE sid=?)", (sid,))

    def _mark(self, where: str, params: Sequence[Any]) -> None:
        for row in self._db.query(f"SELECT {', '.join(_COLUMNS)} FROM view WHERE {where} ORDER BY okey", params):
            order = self._orders.get((row[1], row[2])) or self._enter(row)
            order.again = True
            self._dirty[order.okey] = order
        for order in self._dirty.values():
            order.again = order.again or not order.stored  # what is new in this batch the query cannot find

    def _refold(self, order: Order, now_ms: int) -> None:
        """From all its facts in the log that were not replaced; if none are left, the order is gone."""
        facts = self._facts(order.okey)
        if not facts:
            order.heads, order.again = (), False
            self._disputes.gone(order.okey, now_ms)
            return
        ancestry = _Watching(self._log)
        done = fold_order([Known(head, promise(fact)) for head, fact, _ in facts], ancestry)
        first = shown(done.heads)
        _show(order, next(fact for head, fact, _ in facts if head == first), self._log.by_sid(first.sid).key.node)
        order.heads, order.covered, order.expected_ms, order.again = done.heads, done.covered, done.expected_ms, False
        order.facts, order.received_ms = len(facts), max(received_ms for _, _, received_ms in facts)
        self._replace_marks(order, done, ancestry.unsure)
        if order.conflict or len(done.heads) > 1 or done.merges or self._log.forked_nodes:
            outcome = self._disputes.of(order.okey, done.heads, facts, done.merges, now_ms)
            order.conflict, order.held = outcome is not Outcome.ACCEPT, outcome is Outcome.HOLD

    def _facts(self, okey: int) -> list[tuple[Head, FactRow, int]]:
        self._log.write()
        out = []
        for sid, seq, h, row, received_ms in self._db.query(
            "SELECT sid, seq, h, row, received_ms FROM log WHERE okey=? ORDER BY sid, seq, h", (okey,)
        ):
            fact = parse_row(row)
            head = self.as_head(sid, self._log.by_sid(sid).key.cls, seq, bytes(h), fact)
            if not self.fixes.overruled(head):
                out.append((head, fact, received_ms))
        return out

    def _note_odd(self, order: Order, heads: Sequence[Head]) -> None:
        order.abnormal = True
        self._db.many("INSERT OR IGNORE INTO oddities VALUES (?, ?, ?, ?)", [(order.okey, *h.fact) for h in heads])

    def _replace_marks(self, order: Order, done: OrderFold, unsure: dict[int, None]) -> None:
        if order.abnormal:
            self._db.run("DELETE FROM oddities WHERE okey=?", (order.okey,))
            order.abnormal = False
        if done.abnormal:
            self._note_odd(order, done.abnormal)
        if self._unsure:
            self._db.run("DELETE FROM unsure WHERE okey=?", (order.okey,))
        for sid in unsure:
            self._db.run("INSERT INTO unsure VALUES (?, ?)", (sid, order.okey))
            self._unsure.add(sid)

    # ------------------------------------------------------------ policies

    def adopt_policies(self) -> None:
        """Bring what is kept of conflicts up to this version and to the table of policies in use. Inside a transaction."""
        self._disputes.adopt_old(self._facts, self._log)
        if self._disputes.in_use():
            return
        for (okey,) in self._db.query("SELECT okey FROM view WHERE head_count > 1 ORDER BY okey"):
            (row,) = self._db.query(f"SELECT {', '.join(_COLUMNS)} FROM view WHERE okey=?", (okey,))
            order = self._enter(row)
            outcome = self._disputes.of(okey, order.heads, self._facts(okey), None, order.received_ms)
            order.conflict, order.held = outcome is not Outcome.ACCEPT, outcome is Outcome.HOLD
            self._db.run("UPDATE view SET conflict=?, held=? WHERE okey=?", (order.conflict, order.held, okey))
            self._forget()
        self._disputes.note_in_use()

    # ------------------------------------------------------------ writing down

    def finish(self, now_ms: int) -> None:
        """Fold what is marked and write every order that changed; the owner commits next."""
        self._log.write()
        changed = list(self._dirty.values())
        for order in changed:
            if order.again:
                self._refold(order, now_ms)
            if not order.heads:
                self._remove(order)
        changed = [o for o in changed if o.heads]
        new = [o for o in changed if not o.stored]
        self._db.many(_UPDATE, [(*_values(o)[7:], o.status, o.source, o.okey) for o in changed if o.stored])
        self._db.many(_UPDATE_MOVED, [(o.region, o.site, o.okey) for o in changed if o.stored and o.moved])
        self._db.many(_INSERT, [_values(o) for o in new])
        if self._text_index:
            self._db.many("INSERT INTO order_text (rowid, order_id) VALUES (?, ?)", [(o.okey, o.order_id) for o in new])
        for order in changed:
            order.stored, order.moved = True, False
        self._dirty = {}
        self._forget()

    def _remove(self, order: Order) -> None:
        """Its facts stay in the log."""
        for table in ("view", "oddities", "unsure"):
            self._db.run(f"DELETE FROM {table} WHERE okey=?", (order.okey,))
        self._orders.pop((order.org, order.order_id), None)

    def _forget(self) -> None:
        if len(self._orders) > self._cached:
            for key in list(self._orders)[: len(self._orders) - self._cached // 2]:
                del self._orders[key]


def _values(o: Order) -> tuple[int | str | bytes | None, ...]:
    return (
        o.okey, o.org, o.order_id, o.status, o.source, o.region, o.site, o.node, o.happened_ms, o.quality, o.received_ms, o.facts,
        len(o.heads), dump_heads(o.heads), o.covered, o.conflict, o.abnormal, o.expected_ms, o.pos, o.held, merged.dump(o.counted),
    )  # fmt: skip


def _show(order: Order, fact: FactRow, node: str) -> None:
    if order.site != fact.site or order.region != fact.region:
        order.region, order.site, order.moved = fact.region, fact.site, True
    order.status, order.source = int(fact.status), fact.source
    order.happened_ms, order.quality, order.node = fact.happened_ms, int(fact.quality), node


def promise(fact: FactRow) -> int | None:
    """When the goods are expected, in ms since 1970, where the details say so in a way that can be read."""
    said = fact.details.get(PROMISE)
    return _promised(said) if type(said) is str else None


@lru_cache(maxsize=4096)
def _promised(said: str) -> int | None:
    try:
        return parse_time(said, PROMISE)
    except InvalidInput:
        return None
