"""The conflicts of a ledger: kept beside its orders, in the flush that writes them.

What is open follows from the heads and the table of policies. Who settled a conflict is looked up among the facts that are here; an edge
frees settled facts, so its history tells what it saw happen, and the central store's is complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from protocols.clashes import Clash, ClashBook, Closed, State, judged, settlers, tell, tell_unknown
from protocols.codec import unpack
from protocols.errors import DecodeError
from protocols.fact import FactRow, from_row
from protocols.limits import FRAME_UNPACKED_BYTES
from protocols.merge import Head
from protocols.policy import Outcome, Policies, Told
from protocols.remembered import remembered
from protocols.sqlite import Db
from protocols.streams import StreamLog

if TYPE_CHECKING:
    from protocols.orderbook import Order, OrderBook

_IN_USE: Final = "policies"
_READ_KEPT: Final = 1_000
"""facts that stand side by side are looked at whenever one of them changes"""


@remembered(_READ_KEPT)
def _read(row: bytes) -> FactRow:
    return from_row(unpack(row, max_bytes=FRAME_UNPACKED_BYTES))


class Watch:
    """Keeps the conflicts of an order book. Inside the owner's transaction."""

    def __init__(self, db: Db, log: StreamLog, policies: Policies) -> None:
        self._db, self._log, self.policies = db, log, policies
        self._book = ClashBook(db, policies)

    def judge(self, book: OrderBook, orders: Iterable[Order]) -> None:
        """Bring the conflicts of orders that changed up to date. Orders with one head that had none cost nothing."""
        for order in orders:
            if len(order.heads) > 1 or order.conflict:
                self._judge(book, order)

    def _judge(self, book: OrderBook, order: Order) -> None:
        kept = self._book.kept(order.okey)
        told = {head.fact: self.tell(order.okey, head) for head in order.heads}
        verdicts = judged(self.policies, order.heads, lambda head: told[head.fact])
        still = {verdict.id for verdict, _ in verdicts}
        closed: list[Closed] = []
        if any(clash.id not in still and clash.state != State.WENT_ON for clash in kept):
            closed = self._closed(book, order, [clash for clash in self._book.standing(order.okey) if clash.id not in still])
        outcome = self._book.update(order.okey, verdicts, closed, order.at_ms, complete=False, kept=kept)
        order.conflict, order.held = outcome is not Outcome.ACCEPT, outcome is Outcome.HOLD

    def _closed(self, book: OrderBook, order: Order, over: list[Clash]) -> list[Closed]:
        facts = book.facts(order)
        out = []
        for clash in over:
            a, b = clash.heads
            found = (self.tell(order.okey, head, ()) for head in settlers(a, b, facts, self._log))
            by = {told.identity: told for told in (*found, *clash.settled_by)}  # what is remembered may be freed by now
            if by:
                verdict = self.policies.judge(clash.shown, clash.other)
                out.append(Closed(verdict, (a, b), tuple(by[identity] for identity in sorted(by))))
        return out

    def tell(self, okey: int, head: Head, kept: Sequence[Clash] | None = None) -> Told:
        """A fact as policies and people see it; where its row was freed, what `kept` conflicts (None: those that stand or were settled)
        remember of it, or its identity alone."""
        sid, seq, h = head.fact
        key = self._log.by_sid(sid).key
        row = self._db.one(
            """SELECT row, at_ms FROM log WHERE sid=?1 AND seq=?2 AND h=?3 UNION ALL
               SELECT row, at_ms FROM copies WHERE sid=?1 AND seq=?2 AND h=?3 AND okey=?4 LIMIT 1""",
            (sid, seq, h, okey),
        )
        try:
            if row is not None:
                return tell(key, seq, h, _read(bytes(row[0])), row[1])
        except DecodeError:  # it was folded once, so it was readable: the file is damaged, and the order must still be told
            row = None
        kept = self._book.standing(okey) if kept is None else kept
        remembered = (told for clash in kept for told in (clash.shown, clash.other))
        return next((t for t in remembered if (t.node, t.epoch, t.seq, t.h) == (key.node, key.epoch, seq, h)), tell_unknown(key, head))

    def refresh(self, book: OrderBook) -> None:
        """After a start: where another table of policies was in use (or none, before version 2), judge all that stands side by side."""
        row = self._db.one("SELECT value FROM meta WHERE key=?", (_IN_USE,))
        if row is not None and row[0] == self.policies.digest:
            return
        book.judge_again("conflict <> 0 OR substr(heads, 1, 1) <> x'91'")  # a list of one begins with 0x91
        self._db.run(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value=excluded.value",
            (_IN_USE, self.policies.digest),
        )
