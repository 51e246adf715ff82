"""The consolidated view while facts are applied: the orders a batch touches, folded in memory, written in the batch's transaction.

The common fact comes from an author who had seen everything that is here of the order: it becomes the one head, and nothing is compared
with the rest. Any other fact marks its order, and at the end of the batch such orders are folded again from the log (`fold.py`), once each
however many of their facts came. So is an order when a fork of one of its authors comes to light, and when facts arrive of a branch that
its fold could not follow to the end (sync.md, rule 13).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from hub.store.disputes import Disputes
from hub.store.fold import Known, OrderFold, covers, fold_order
from hub.store.orders import PROMISE, Order, promise, show
from hub.store.shelf import LoggedFact, Shelf
from protocols import merged
from protocols.fact import FactRow, Replaces
from protocols.fixes import Fixes, Identity
from protocols.ledger import fact_id, parse_row
from protocols.lifecycle import Status, may_follow
from protocols.merge import Head, shown
from protocols.policy import Outcome, Policies
from protocols.remembered import remembered
from protocols.sql import Sql
from protocols.streams import StreamKey, StreamLog

CACHED_ORDERS: Final = 20_000
PARSED_KEPT: Final = 2_000
"""facts of orders that are folded again at every fact of theirs"""
REFOLDED_TOGETHER: Final = 200
"""orders whose facts are asked for at once"""
WALKED_KEPT: Final = 20_000
"""walks down the branches of forked streams"""
Way = tuple[int, int, bytes, int]
"""of a stream (sid) from a tip (seq, how its hash begins) down to a seq"""
_STATUSES: Final = {int(status): status for status in Status}
_parsed: Final = remembered(PARSED_KEPT)(parse_row)


class _Watching:
    """An `Ancestry` that remembers of which streams a branch could not be followed. `walked`: walks down a branch that were made before,
    and where they led: a hash stands for all below it."""

    def __init__(self, log: StreamLog, walked: dict[Way, bytes]) -> None:
        self._log, self._walked = log, walked
        self.unsure: dict[int, None] = {}

    def fork_point(self, sid: int) -> int | None:
        return self._log.fork_point(sid)

    def on_chain(self, sid: int, tip_seq: int, tip_h: bytes, seq: int, h: bytes) -> bool | None:
        way = (sid, tip_seq, tip_h, seq)
        found = self._walked.get(way)
        if found is None:
            found = self._log.below(*way)
            if found is None:
                self.unsure[sid] = None
                return None
            if len(self._walked) >= WALKED_KEPT:
                self._walked.clear()
            self._walked[way] = found
        return found == h


class ViewBook:
    """The view of one database as its writer holds it. Not thread-safe; thrown away after a batch that failed."""

    def __init__(
        self, db: Sql, log: StreamLog, shelf: Shelf, *, policies: Policies, cached: int = CACHED_ORDERS, fixed: Iterable[int] | None = None
    ) -> None:
        """`fixed`: see `Fixes`."""
        self._db, self._log, self._shelf, self._cached = db, log, shelf, cached
        self._orders: dict[tuple[str, str], Order] = {}
        self._dirty: dict[int, Order] = {}
        self.fixes, self._disputes = Fixes(db, log, fixed), Disputes(db, log, policies)
        self._walked: dict[Way, bytes] = {}
        self._pos = shelf.pos
        self._unsure = set(shelf.unsure_streams())

    # ------------------------------------------------------------ orders

    def fetch(self, keys: Iterable[tuple[str, str]]) -> None:
        """Bring the orders of a batch, (org, order id), into memory."""
        for order in self._shelf.fetch([key for key in keys if key not in self._orders]):
            self._orders[order.org, order.order_id] = order

    def open(self, org: str, order_id: str) -> Order:
        """An order that `fetch` looked for, begun if it is new."""
        order = self._orders.get((org, order_id))
        if order is None:
            order = self._orders[org, order_id] = Order(self._shelf.number(org, order_id), org, order_id)
        return order

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
        show(order, fact, node)
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
        self._mark(self._shelf.of_stream(sid, above))

    def mark_replaced(self, facts: list[Identity]) -> None:
        """A fix came for some of these facts, or holds their place: the orders they belong to are folded again."""
        self._log.write()
        self._mark(self._shelf.of_numbers(self.fixes.orders(facts)))

    def mark_unsure(self, sids: Iterable[int]) -> None:
        """Facts of these streams arrived: orders whose fold could not follow one of their branches are folded again."""
        for sid in sids:
            if sid in self._unsure:
                self._mark(self._shelf.unsure_of(sid))

    def _mark(self, found: Iterable[Order]) -> None:
        for one in found:
            order = self._orders.setdefault((one.org, one.order_id), one)
            order.again = True
            self._dirty[order.okey] = order
        for order in self._dirty.values():
            order.again = order.again or not order.stored  # what is new in this batch no query can find

    def _refold(self, order: Order, logged: Sequence[LoggedFact], now_ms: int) -> None:
        """From all its facts in the log that were not replaced; if none are left, the order is gone."""
        facts = self._standing(logged)
        if not facts:
            order.heads, order.again = (), False
            self._disputes.gone(order.okey, now_ms)
            return
        ancestry = _Watching(self._log, self._walked)
        done = fold_order([Known(head, promise(fact)) for head, fact, _ in facts], ancestry)
        first = shown(done.heads)
        show(order, next(fact for head, fact, _ in facts if head == first), self._log.by_sid(first.sid).key.node)
        order.heads, order.covered, order.expected_ms, order.again = done.heads, done.covered, done.expected_ms, False
        order.facts, order.received_ms = len(facts), max(received_ms for _, _, received_ms in facts)
        self._replace_marks(order, done, ancestry.unsure)
        if order.conflict or len(done.heads) > 1 or done.merges or self._log.forked_nodes:
            outcome = self._disputes.of(order.okey, done.heads, facts, done.merges, now_ms)
            order.conflict, order.held = outcome is not Outcome.ACCEPT, outcome is Outcome.HOLD

    def _standing(self, logged: Sequence[LoggedFact]) -> list[tuple[Head, FactRow, int]]:
        """The facts of an order whose places nothing else holds."""
        out = []
        for sid, seq, h, row, received_ms in logged:
            fact = _parsed(bytes(row))
            head = self.as_head(sid, self._log.by_sid(sid).key.cls, seq, bytes(h), fact)
            if not self.fixes.overruled(head):
                out.append((head, fact, received_ms))
        return out

    def _facts(self, okey: int) -> list[tuple[Head, FactRow, int]]:
        self._log.write()
        return [fact for _, logged in self._shelf.facts([okey]) for fact in self._standing(logged)]

    def _note_odd(self, order: Order, heads: Sequence[Head]) -> None:
        order.abnormal = True
        self._shelf.note_odd(order.okey, [h.fact for h in heads])

    def _replace_marks(self, order: Order, done: OrderFold, unsure: dict[int, None]) -> None:
        if order.abnormal:
            self._shelf.forget_odd(order.okey)
            order.abnormal = False
        if done.abnormal:
            self._note_odd(order, done.abnormal)
        if self._unsure or unsure:
            self._shelf.note_unsure(order.okey, list(unsure))
            self._unsure.update(unsure)

    # ------------------------------------------------------------ policies

    def adopt_old(self) -> None:
        """Take over the conflicts of version 1 of the store on SQLite. Inside a transaction."""
        self._disputes.adopt_old(self._facts, self._log)

    def adopt_policies(self) -> None:
        """Bring what is kept of conflicts up to the table of policies in use. Inside a transaction."""
        if self._disputes.in_use():
            return
        for (okey,) in self._db.query("SELECT okey FROM view WHERE head_count > 1 ORDER BY okey"):
            for order in self._shelf.of_numbers([okey]):
                outcome = self._disputes.of(okey, order.heads, self._facts(okey), None, order.received_ms)
                order.conflict, order.held = outcome is not Outcome.ACCEPT, outcome is Outcome.HOLD
                self._shelf.save([order])
        self._disputes.note_in_use()

    # ------------------------------------------------------------ anew

    def place_again(self, sid: int, seq: int, h: bytes, replaces: Replaces | None, gone: bool) -> None:
        """Take in a fix that is logged. Inside a transaction."""
        if replaces is not None:
            self.fixes.take(self._log.by_sid(sid), seq, h, replaces, gone=gone)

    def rebuild(self, okeys: Sequence[int], now_ms: int) -> None:
        """Fold these orders from the log as if nothing were kept of them but their positions. Inside a transaction."""
        known = {order.okey: order for order in self._shelf.of_numbers(okeys)}
        for okey, logged in self._shelf.facts(okeys):
            first = parse_row(logged[0][3])
            order = known.get(okey)
            if order is None:
                self._shelf.remove(okey)
                self._pos += 1
                order = Order(okey, first.org, first.order_id, pos=self._pos, moved=True)
            self._shelf.forget_odd(okey)
            order.abnormal, order.counted = False, {}
            order.conflict = True  # conflicts are judged whether one is known or not
            for sid, seq, h, row, _ in logged:
                self._count_if_said(order, sid, seq, bytes(h), parse_row(row))
            self._refold(order, logged, now_ms)
            if order.heads:
                self._shelf.save([order])
            else:
                self._shelf.remove(okey)

    def _count_if_said(self, order: Order, sid: int, seq: int, h: bytes, fact: FactRow) -> None:
        if merged.says(fact.details):
            self._count(order, self.as_head(sid, self._log.by_sid(sid).key.cls, seq, h, fact), fact)

    def drop(self, okeys: Sequence[int]) -> None:
        """Take orders out of the view. Inside a transaction."""
        for okey in okeys:
            self._shelf.remove(okey)

    # ------------------------------------------------------------ writing down

    def finish(self, now_ms: int) -> None:
        """Fold what is marked and write every order that changed; the owner commits next."""
        changed = list(self._dirty.values())
        self._fold_again([o for o in changed if o.again], now_ms)
        for order in changed:
            if not order.heads:
                self._shelf.remove(order.okey)
                self._orders.pop((order.org, order.order_id), None)
        changed = [o for o in changed if o.heads]
        self._shelf.save(changed)
        for order in changed:
            order.stored, order.moved = True, False
        self._dirty = {}
        self._forget()

    def _fold_again(self, marked: Sequence[Order], now_ms: int) -> None:
        if marked:
            self._log.write()
        for start in range(0, len(marked), REFOLDED_TOGETHER):
            some = {order.okey: order for order in marked[start : start + REFOLDED_TOGETHER]}
            for okey, logged in self._shelf.facts(list(some)):
                self._refold(some[okey], logged, now_ms)

    def _forget(self) -> None:
        if len(self._orders) > self._cached:
            for key in list(self._orders)[: len(self._orders) - self._cached // 2]:
                del self._orders[key]
