"""Facts that stepped aside, and how their author puts them right (sync.md, rule 8).

A quarantined fact keeps its bytes in the log, its reason here, and holds back nothing behind it. Its author keeps it until it is resolved:
*resubmitted*, by a new fact that names it and takes its causal place, or *discarded*, by a withdrawal. Both are facts like any other, so
everybody who holds the refused one learns of it by the same way, in any order, and nothing is ever deleted. Only the author may do either.

`Quarantine` is the table; `resubmit` and `discard` write what an author decides. All inside the owner's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from protocols.codec import pack, unpack
from protocols.errors import Conflict, DecodeError, InvalidInput, NotKnown
from protocols.event import OrderEvent
from protocols.fact import CONTEXT_HASH_BYTES, Clock, Context, FactRow, Replaces, Withdrawn, from_row, to_row, withdrawn_row
from protocols.fixes import Fixes, Identity, is_withdrawal, withdrawal
from protocols.limits import FRAME_UNPACKED_BYTES
from protocols.sqlite import Db
from protocols.streams import LogRow, Stream, StreamLog

if TYPE_CHECKING:
    from protocols.ledger import Appended, Ledger
    from protocols.orderbook import Order

ORDERS: Final = 0
TOO_MANY: Final = "names more streams than are kept here"
_COLUMNS: Final = "qid, sid, seq, h, reason, at_ms, state, by_sid, by_seq, by_h, resolved_ms, who, note"


class State(IntEnum):
    """What became of a quarantined fact. The codes are in databases."""

    OPEN = 0
    RESUBMITTED = 1
    DISCARDED = 2


@dataclass(frozen=True, slots=True)
class Item:
    """One quarantined fact. `by`: the fact that resolved it, said by `who`, known here since `resolved_ms`; `note`: why it was given up."""

    qid: int
    identity: Identity
    reason: str
    at_ms: int
    state: State = State.OPEN
    by: Identity | None = None
    resolved_ms: int | None = None
    who: str | None = None
    note: str | None = None


class Quarantine:
    """The quarantined facts of one database. Held on disk, not in memory: whoever sends nonsense must not fill it."""

    def __init__(self, db: Db, log: StreamLog, fixes: Fixes) -> None:
        self._db, self._log, self._fixes = db, log, fixes
        self._sids: dict[int, None] = {sid: None for (sid,) in db.query("SELECT DISTINCT sid FROM quarantine ORDER BY sid")}
        """streams of which something is or was in quarantine: of the others nothing is looked up"""

    # ------------------------------------------------------------ in

    def note(self, sid: int, seq: int, h: bytes, reason: str, now_ms: int) -> None:
        """A logged fact cannot be used here, or was refused elsewhere. Once noted, its reason stays; a fix may have come before it."""
        self._sids[sid] = None
        self._db.run("INSERT OR IGNORE INTO quarantine (sid, seq, h, reason, at_ms) VALUES (?, ?, ?, ?, ?)", (sid, seq, h, reason, now_ms))
        self.resolve((sid, seq, h), now_ms)

    def forget(self, identity: Identity) -> None:
        """It only could not travel, and has arrived: nothing is wrong with it, nor was anything done about it."""
        self._db.run("DELETE FROM quarantine WHERE sid=? AND seq=? AND h=? AND state=0", identity)

    def resolve(self, identity: Identity, now_ms: int) -> None:
        """Write down what stands in the place of a quarantined fact now, if anything does."""
        fix = self._fixes.of(identity)
        if identity[0] not in self._sids or (fix is None and not self._gives_up(identity)):
            return
        by = fix.fact if fix is not None else identity
        state = State.DISCARDED if fix is None or fix.gone else State.RESUBMITTED
        self._db.run(
            """UPDATE quarantine SET state=?, by_sid=?, by_seq=?, by_h=?, resolved_ms=?, who=?, note=?
               WHERE sid=? AND seq=? AND h=? AND (by_seq IS NULL OR (by_sid, by_seq, by_h) <> (?, ?, ?))""",
            (int(state), *by, now_ms, *self._words(by), *identity, *by),
        )

    def _gives_up(self, identity: Identity) -> bool:
        """An own withdrawal that a hub of an older version cannot read: there is nothing in it to put right."""
        row = self._row(identity)
        return row is not None and self._log.by_sid(identity[0]).own and is_withdrawal(row)

    def _row(self, identity: Identity) -> bytes | None:
        self._log.flush()
        row = self._db.one("SELECT row FROM log WHERE sid=? AND seq=? AND h=?", identity)
        return None if row is None else bytes(row[0])

    def _words(self, by: Identity) -> tuple[str, str | None]:
        """(who, why) as the resolving fact says it."""
        row, node = self._row(by), self._log.by_sid(by[0]).key.node
        given_up = withdrawal(row) if row is not None else None
        if given_up is not None:
            return given_up.actor or node, given_up.why
        fact = order_event(row) if row is not None else None
        return (fact.actor if fact is not None and fact.actor else node), None

    # ------------------------------------------------------------ asking

    def items(self, limit: int = 1000, *, state: State | None = None) -> list[Item]:
        """What stepped aside, newest first."""
        where, params = ("WHERE state=?", (int(state),)) if state is not None else ("", ())
        return [
            _item(row) for row in self._db.query(f"SELECT {_COLUMNS} FROM quarantine {where} ORDER BY qid DESC LIMIT ?", (*params, limit))
        ]

    def get(self, qid: int) -> Item | None:
        """One of them."""
        row = self._db.one(f"SELECT {_COLUMNS} FROM quarantine WHERE qid=?", (qid,))
        return None if row is None else _item(row)

    def count_open(self) -> int:
        """How many wait for their author."""
        row = self._db.one("SELECT count(*) FROM quarantine WHERE state=0")
        return int(row[0]) if row else 0

    def first_open(self, sid: int) -> int | None:
        """The lowest seq of a stream that waits for its author; None where none does."""
        if sid not in self._sids:
            return None
        row = self._db.one("SELECT min(seq) FROM quarantine WHERE sid=? AND state=0", (sid,))
        return None if row is None or row[0] is None else int(row[0])

    def newest(self, sid: int, limit: int) -> tuple[tuple[int, bytes, str], ...]:
        """(seq, h, why) of the facts of a stream that wait for their author, the newest last."""
        if sid not in self._sids:
            return ()
        rows = self._db.query("SELECT seq, h, reason FROM quarantine WHERE sid=? AND state=0 ORDER BY qid DESC LIMIT ?", (sid, limit))
        return tuple((seq, bytes(h), why[:200]) for seq, h, why in reversed(rows))

    def reasons(self, sid: int, first: int, last: int) -> dict[tuple[int, bytes], str]:
        """Why facts first..last of a stream cannot be read here, by (seq, h)."""
        if sid not in self._sids:
            return {}
        rows = self._db.query("SELECT seq, h, reason FROM quarantine WHERE sid=? AND seq BETWEEN ? AND ?", (sid, first, last))
        return {(seq, bytes(h)): why[:200] for seq, h, why in rows}

    def bytes_of(self, item: Item) -> bytes:
        """The refused fact itself; b"" where it was freed after it had been resolved."""
        return self._row(item.identity) or b""


def _item(row: tuple[object, ...]) -> Item:
    qid, sid, seq, h, reason, at_ms, state, by_sid, by_seq, by_h, resolved_ms, who, note = row
    by = None if by_h is None else (by_sid, by_seq, by_h)
    return Item(qid, (sid, seq, h), reason, at_ms, State(state), by, resolved_ms, who, note)  # type: ignore[arg-type]


def order_event(row: bytes) -> FactRow | None:
    """What a refused row says, where it is an order event that can be read here: its author usually can."""
    try:
        return from_row(unpack(row, max_bytes=FRAME_UNPACKED_BYTES))
    except DecodeError:
        return None


# ---------------------------------------------------------------- what an author decides


def resubmit(ledger: Ledger, qid: int, event: OrderEvent, now_ms: int, *, clock: Clock | None = None) -> Appended:
    """Put right what was refused: a new fact that takes the place of the refused one.

    It carries the context of the refused one, because that is what its author had seen there; where that was the fault, or it is about
    another order, the context of what its author had said of that order before. Errors: InvalidInput: no such item, not this node's;
    Conflict: it is resolved already.
    """
    from protocols.ledger import Appended

    item = mine(ledger, qid)
    stream = ledger.log.by_sid(item.identity[0])
    if stream.key.cls != ORDERS:
        raise InvalidInput("id", "is no order event, so no order event can take its place.", remedy="Discard it.")
    was = order_event(ledger.quarantine_rows.bytes_of(item))
    same = was is not None and (was.org, was.order_id) == (event.org, event.order_id) and TOO_MANY not in item.reason
    replaces = _replacing(stream, item, was.replaces if was is not None else None)
    own = ledger.own()
    order = ledger.book.open(event.org, event.order_id, now_ms)
    context = was.context if was is not None and same else _seen_before(ledger, order, *item.identity[:2])
    values = to_row(event, now_ms, context, clock=clock, replaces=replaces)
    row = ledger._log_own(own, pack(values), order.okey, now_ms)
    head = ledger.book.as_head(row.sid, row.seq, row.h, from_row(values))
    touched = ledger.book.fixes.take(own, row.seq, row.h, replaces, gone=False)
    ledger.book.fold_all(((order, head),), now_ms)
    settle_fixes(ledger, touched, now_ms)
    return Appended(own.key, row.seq, row.h, False)


def discard(ledger: Ledger, qid: int, why: str, now_ms: int, *, actor: str | None = None, clock: Clock | None = None) -> Appended:
    """Give up what was refused: a withdrawal, so that everybody knows. Errors: as `resubmit`."""
    from protocols.ledger import Appended

    item = mine(ledger, qid)
    stream = ledger.log.by_sid(item.identity[0])
    was = order_event(ledger.quarantine_rows.bytes_of(item))
    replaces = _replacing(stream, item, was.replaces if was is not None else None)
    own = ledger.own(stream.key.cls)
    row = ledger._log_own(own, pack(withdrawn_row(Withdrawn(replaces, now_ms, why, actor, clock))), None, now_ms)
    settle_fixes(ledger, ledger.book.fixes.take(own, row.seq, row.h, replaces, gone=True), now_ms)
    return Appended(own.key, row.seq, row.h, False)


def mine(ledger: Ledger, qid: int) -> Item:
    """An open item whose author this node is. Errors: NotKnown, InvalidInput, Conflict."""
    item = ledger.quarantine_rows.get(qid)
    if item is None:
        raise NotKnown(f"Nothing in quarantine has the number {qid}.", remedy="Its list shows the numbers: quarantine ls")
    author = ledger.log.by_sid(item.identity[0]).key.node
    if author != ledger.node:
        raise InvalidInput("id", f"is a fact of {author}: only its author may replace or withdraw it.", remedy=f"Do it at {author}.")
    if item.state is not State.OPEN:
        raise Conflict(f"{qid} was {item.state.name.lower()} already", remedy="look at it: quarantine show")
    return item


def _seen_before(ledger: Ledger, order: Order, sid: int, seq: int) -> Context:
    """What this node had seen of an order before a place in its own stream: who dominates its own earlier fact has to dominate what that
    had seen, or the order of arrival would decide what is shown."""
    log = ledger.log
    mine = (h for h in ledger.book.facts(order) if log.by_sid(h.sid).own and log.hash_at(log.by_sid(h.sid), h.seq) in (None, h.h))
    before = [h for h in mine if h.sid < sid or (h.sid == sid and h.seq < seq)]
    if not before:
        return []
    last = max(before, key=lambda h: (h.sid, h.seq))
    entries = [*last.ctx, *([] if last.sid == sid else [(last.sid, last.seq, last.h[:CONTEXT_HASH_BYTES])])]
    return sorted([*log.by_sid(s).key[:2], at, h4] for s, at, h4 in entries)


def _replacing(stream: Stream, item: Item, earlier: Replaces | None) -> Replaces:
    """A fix of a fix takes the same place, one turn later."""
    target = (stream.key.epoch, item.identity[1], item.identity[2])
    return Replaces(target, 1, target) if earlier is None else earlier.next(target)


def settle_fixes(ledger: Ledger, touched: list[Identity], now_ms: int) -> None:
    """What a fix touched: its orders are folded again, and what stood in quarantine is resolved."""
    ledger.note_folded_again(ledger.book.fold_replaced(touched))
    for identity in touched:
        ledger.quarantine_rows.resolve(identity, now_ms)


def take_fixes(ledger: Ledger, stream: Stream, rows: list[tuple[LogRow, Replaces, bool]]) -> list[Identity]:
    """Facts that came and replace others, already logged: note them. Returns what `settle_fixes` needs after the fold."""
    touched: dict[Identity, None] = {}
    for row, replaces, gone in rows:
        touched |= dict.fromkeys(ledger.book.fixes.take(stream, row.seq, row.h, replaces, gone=gone))
    return list(touched)
