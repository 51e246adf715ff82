"""Reading the view and the log of a store: orders, timelines, conflicts. Writes nothing. Shared by every engine.

The reader may be another connection than the writer's; what one answer says is then read at one moment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from contextlib import AbstractContextManager
from hashlib import blake2b
from typing import Any, Final

from hub.store.port import PAGE_ORDERS, ConflictView, Disputed, EventView, OrderQuery, OrderView, Page
from protocols import merged
from protocols.clashes import COLUMNS as CLASH_COLUMNS
from protocols.clashes import Clash, as_clash, judged, tell
from protocols.errors import DecodeError, InvalidInput
from protocols.ledger import fact_id, parse_row
from protocols.lifecycle import STATUS_NAMES, Status
from protocols.limits import ORDER_ID_CHARS
from protocols.merge import Head, load_heads, ranked, shown
from protocols.policy import Policies, Told
from protocols.sql import Sql
from protocols.streams import StreamKey
from protocols.trace import trace_id

Row = tuple[Any, ...]
CANDIDATES: Final = 1_000
"""orders that a fragment may match before it is cheaper to look through the orders from the newest on"""
CONFLICTS_SHOWN: Final = 100
"""of one order"""
CLASH: Final = ", ".join(f"c.{name}" for name in CLASH_COLUMNS)

ORDER: Final = (
    "v.org, v.order_id, v.status, v.source, v.region, v.site, v.node, v.happened_ms, v.quality, v.received_ms, v.facts, v.head_count,"
    " v.conflict, v.abnormal, v.expected_ms, v.held, v.counted, v.heads, v.pos"
)


class Queries(ABC):
    """Reads over one connection, in SQL that every engine understands. Each engine adds what it does in its own way."""

    def __init__(self, db: Sql, policies: Policies) -> None:
        self._db, self._policies = db, policies

    @abstractmethod
    def moment(self) -> AbstractContextManager[None]:
        """What is read inside is all of one commit."""

    @abstractmethod
    def totals(self) -> dict[str, int]:
        """See `CentralStore.totals`."""

    # ------------------------------------------------------------ pages of orders

    like: str
    """how the engine finds a pattern whatever the case of its letters"""
    unindexed: str
    """what before a column keeps the engine from its index"""

    @abstractmethod
    def _among(self, few: list[int]) -> tuple[str, Any]:
        """The condition that `v.okey` is one of these, and its parameter."""

    @abstractmethod
    def _standing(self, column: str, value: str) -> list[int]:
        """Orders with this in a column (site, region): all, or some more than CANDIDATES."""

    @abstractmethod
    def _holding(self, text: str) -> list[int] | None:
        """Orders whose id may hold the fragment; None when there are more than CANDIDATES."""

    def orders(self, query: OrderQuery) -> Page:
        """See `CentralStore.orders`."""
        limit = min(max(query.limit, 1), PAGE_ORDERS)
        where, params = filters(query, self.like, self.unindexed)
        with self.moment():
            few = self._few(query)
            # for a handful the index on pos would be read from its end, for many any other would be read whole
            pos = "v.pos" if few is None else f"{self.unindexed}v.pos"
            if few is not None:
                condition, given = self._among(few)
                where.append(condition)
                params.append(given)
            if query.cursor is not None:
                where.append(f"{pos} < ?")
                params.append(read_cursor(query.cursor))
            sql = f"SELECT {ORDER} FROM view v{' WHERE ' if where else ''}{' AND '.join(where)} ORDER BY {pos} DESC LIMIT ?"
            rows = self._db.query(sql, (*params, limit + 1))
            views = [self.view_of(r) for r in rows[:limit]]
        return Page(views, cursor(rows[limit - 1][-1]) if len(rows) > limit else None)

    def _few(self, query: OrderQuery) -> list[int] | None:
        """The orders among which the page is to be found, if some filter leaves few; None: walk from the newest, matches are common."""
        for column, value in (("site", query.site), ("region", query.region)):
            if value is not None:
                found = self._standing(column, value)
                if len(found) <= CANDIDATES:
                    return found
        return self._holding(query.text) if query.text else None

    # ------------------------------------------------------------ orders

    def find(self, order_id: str) -> list[OrderView]:
        """See `CentralStore.find`."""
        if not sayable(order_id):
            return []
        with self.moment():
            return [self.view_of(r) for r in self._db.query(f"SELECT {ORDER} FROM view v WHERE v.order_id=? ORDER BY v.org", (order_id,))]

    def view_of(self, row: Row) -> OrderView:
        """An order from its row of `ORDER`."""
        org, order_id, status = row[:3]
        rest: list[Any] = [*row[3:12], bool(row[12]), bool(row[13]), row[14]]
        rest += [self._details(shown(load_heads(row[17]))), bool(row[15]), merged.totals(merged.load(row[16]))]
        return OrderView(org, order_id, Status(status).name, *rest)

    def _details(self, head: Head) -> dict[str, Any]:
        row = self._db.one("SELECT row FROM log WHERE sid=? AND seq=? AND h=?", head.fact)
        try:
            return parse_row(row[0]).details if row is not None else {}
        except DecodeError:  # a damaged file: the list still answers, and the statement goes down
            return {}

    # ------------------------------------------------------------ one order

    def events(self, org: str, order_id: str) -> list[EventView]:
        """See `CentralStore.events`."""
        if not (sayable(org) and sayable(order_id)):
            return []
        with self.moment():
            order = self._db.one("SELECT okey, heads FROM view WHERE order_id=? AND org=?", (order_id, org))
            if order is None:
                return []
            heads = dict.fromkeys(h.fact for h in load_heads(order[1]))
            odd = dict.fromkeys(self._db.query("SELECT sid, seq, h FROM oddities WHERE okey=?", (order[0],)))
            rows = self._db.query(
                """SELECT l.sid, l.seq, l.h, s.node, s.epoch, s.cls, l.received_ms, l.at_ms, l.row, b.node, b.epoch, b.cls, f.by_seq, f.by_h
                   FROM log l JOIN streams s USING (sid) LEFT JOIN fixes f ON f.sid=l.sid AND f.seq=l.seq AND f.h=l.h
                   LEFT JOIN streams b ON b.sid=f.by_sid
                   WHERE l.okey=? ORDER BY l.at_ms, l.received_ms, l.sid, l.seq, l.h""",
                (order[0],),
            )
        return [_event(r, r[:3] in heads, r[:3] in odd) for r in rows]

    def conflicts(self, *, open_only: bool, limit: int) -> list[ConflictView]:
        """See `CentralStore.conflicts`."""
        return self._conflicts("WHERE c.state = 0" if open_only else "", (), max(limit, 0))

    def conflict(self, clash_id: str) -> ConflictView | None:
        """See `CentralStore.conflict`."""
        return next(iter(self._conflicts("WHERE c.id = ?", (clash_id,), 1)), None) if sayable(clash_id) else None

    def _conflicts(self, where: str, params: tuple[Any, ...], limit: int) -> list[ConflictView]:
        rows = self._db.query(
            f"SELECT v.org, v.order_id, {CLASH} FROM clashes c JOIN view v USING (okey) {where} ORDER BY c.cid DESC LIMIT ?",
            (*params, limit),
        )
        return [_conflict(r[0], r[1], as_clash(r[2:])) for r in rows]

    def disputed(self, org: str, order_id: str) -> Disputed:
        """See `CentralStore.disputed`."""
        if not (sayable(org) and sayable(order_id)):
            return Disputed()
        with self.moment():
            row = self._db.one("SELECT okey, heads FROM view WHERE order_id=? AND org=?", (order_id, org))
            if row is None:
                return Disputed()
            conflicts = self._conflicts("WHERE c.okey = ?", (row[0],), CONFLICTS_SHOWN)
            heads = load_heads(row[1])
            told = {head.fact: one for head in heads if (one := self._told(head)) is not None}
        known = [head for head in ranked(heads) if head.fact in told]
        verdicts = judged(self._policies, known, lambda head: told[head.fact][0])
        return Disputed(conflicts, [verdict for verdict, _ in verdicts], [told[head.fact] for head in known])

    def _told(self, head: Head) -> tuple[Told, dict[str, Any]] | None:
        row = self._db.one(
            "SELECT s.node, s.epoch, s.cls, l.row, l.received_ms FROM log l JOIN streams s USING (sid) WHERE l.sid=? AND l.seq=? AND l.h=?",
            head.fact,
        )
        if row is None:
            return None
        fact = parse_row(row[3])
        return tell(StreamKey(*row[:3]), head.fact[1], head.fact[2], fact, row[4]), dict(fact.details)


def _conflict(org: str, order_id: str, clash: Clash) -> ConflictView:
    facts = clash.shown.fact_id, clash.other.fact_id
    return ConflictView(org, order_id, *facts, clash.sentence, clash.raised_ms, clash.closed_ms, clash)


def _event(r: Row, is_head: bool, abnormal: bool) -> EventView:
    _, seq, h, node, epoch, cls, received_ms, stored_ms, row, *by = r
    fact = parse_row(row)
    target = fact.replaces.target if fact.replaces is not None else None
    return EventView(
        fact_id(StreamKey(node, epoch, cls), seq, h), node, epoch, seq, fact.status.name, fact.source, fact.region, fact.site, fact.actor,
        fact.happened_ms, int(fact.quality), fact.recorded_ms, received_ms, stored_ms, is_head, abnormal, fact.context, dict(fact.details),
        None if target is None else fact_id(StreamKey(node, target[0], cls), target[1], target[2]),
        None if by[0] is None else fact_id(StreamKey(by[0], by[1], by[2]), by[3], by[4]),
        fact.replaces.place[:2] if fact.replaces is not None else None, None if fact.clock is None else int(fact.clock),
        trace_id=trace_id(node, epoch, seq, bytes(h)),
    )  # fmt: skip


# ---------------------------------------------------------------- filters and cursors


def pattern(text: str) -> str:
    """For LIKE, with a backslash as its escape: this text anywhere, each of its characters for itself."""
    for special in ("\\", "%", "_"):
        text = text.replace(special, "\\" + special)
    return f"%{text}%"


def sayable(text: str) -> bool:
    """Can it be in the store at all? SQLite would stop at a zero byte, and a lone surrogate is no character."""
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


def filters(query: OrderQuery, like: str, unindexed: str = "") -> tuple[list[str], list[Any]]:
    """Conditions on the view `v`, and their parameters. `like`: how the engine finds a pattern whatever the case of its letters;
    `unindexed`: what before a column keeps the engine from an index that finds too many. Errors: InvalidInput."""
    where: list[str] = []
    params: list[Any] = []
    for field, column, value in (("site", "site", query.site), ("region", "region", query.region), ("org", "org", query.org)):
        if value is not None:
            where.append(f"{unindexed}v.{column}=?")
            params.append(_checked(field, value))
    if query.text:
        where.append(f"v.order_id {like} ? ESCAPE '\\'")
        params.append(pattern(_checked("q", query.text)))
    if query.status is not None:
        where.append("v.status=?")
        params.append(_status(query.status))
    if query.conflict is not None:
        where.append(f"v.conflict={int(query.conflict)}")
    if query.held is not None:
        where.append("v.conflict=1 AND v.held=1" if query.held else "v.held=0")  # what is held is in conflict, and that has an index
    return where, params


def _checked(field: str, value: str) -> str:
    if len(value) > ORDER_ID_CHARS or not sayable(value):
        raise InvalidInput(field, f"is not text of at most {ORDER_ID_CHARS} characters.")
    return value


def _status(name: str) -> int:
    if name not in STATUS_NAMES:
        raise InvalidInput("status", f"{name[:40]!r} is not a status.", allowed=STATUS_NAMES)
    return int(Status[name])


_CURSOR: Final = b"longshore/orders/1"


def cursor(pos: int) -> str:
    """An opaque cursor that continues below a position of the view."""
    at = pos.to_bytes(8, "big")
    return urlsafe_b64encode(at + blake2b(_CURSOR + at, digest_size=4).digest()).decode()


def read_cursor(said: str) -> int:
    """The position in a cursor of `cursor`. Errors: InvalidInput naming `cursor` for anything else."""
    try:
        data = urlsafe_b64decode(said.encode("ascii"))
    except (NotBase64, ValueError):
        data = b""
    pos = int.from_bytes(data[:8], "big")
    if len(data) != 12 or cursor(pos) != said:
        raise InvalidInput(
            "cursor", "is not one of this list.", remedy="Begin again without a cursor, or take it unchanged from the page before."
        )
    return pos
