"""Reads a whole database and says whether it is what it claims: pages, chains, orders folded again, records by their signatures.

For backups, before a restore, and whenever somebody doubts. Writes nothing; pure but for the database and the verifier it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from protocols.audit import Audit, Tell, Words, audit
from protocols.errors import DecodeError, LedgerBroken, LedgerError
from protocols.ledger import parse_row
from protocols.merge import Head, load_heads, refold
from protocols.messages import Record
from protocols.orderbook import OrderBook
from protocols.sqlite import Db
from protocols.streams import StreamLog
from protocols.sync.seal import Control, Verify, unseal

PAGE_ORDERS: Final = 500
NAMED: Final = 20
"""troubles of one sort that are told one by one"""


@dataclass(slots=True)
class Verdict:
    """What a database is. `partly`: orders of which facts were freed by rule, so that only what is left could be folded. `unsigned`:
    records whose authors' keys are not at hand here. `old`: its tables are not those of this version."""

    integrity: list[str] = field(default_factory=list)
    chains: Audit = field(default_factory=Audit)
    orders: int = 0
    partly: int = 0
    wrong_orders: list[str] = field(default_factory=list)
    records: int = 0
    unsigned: int = 0
    old: bool = False
    wrong_records: list[str] = field(default_factory=list)

    def troubles(self) -> list[str]:
        """One sentence for each thing that is wrong; empty: nothing is."""
        return [*self.integrity, *(f.sentence() for f in self.chains.findings), *self.wrong_orders, *self.wrong_records]

    def notes(self) -> list[str]:
        """What could not be looked at, and why."""
        out = []
        if self.chains.freed:
            out.append(f"{self.chains.freed:,} facts were freed by rule: of them only the last hash is here")
        if self.partly:
            out.append(f"{self.partly:,} orders show facts that are not in this log any more: the rest of them was folded and agrees")
        if self.chains.unread:
            out.append(
                f"{self.chains.unread:,} facts in quarantine are bytes that do not decode: only their place in the chain was checked"
            )
        if self.old:
            out.append("it was made by an older version: its orders are folded again when it is opened, not here")
        if self.unsigned:
            out.append(f"{self.unsigned:,} signed records could not be checked: their authors' keys are not here (they are in hub.db)")
        return out


def verify_database(
    db: Db,
    check: Verify,
    keys: Mapping[str, bytes] | None = None,
    words: Words | None = None,
    tell: Callable[[str, int, int], None] | None = None,
) -> Verdict:
    """See the module. `keys`: public keys by node, beside those that the database holds itself. `tell(what, done, of)` hears how far it is.

    Errors: LedgerBroken where not even reading works.
    """
    said = tell or _quiet
    done = Verdict()
    said("pages", 0, 1)
    try:
        done.integrity = db.damage()
    except LedgerBroken as error:  # too broken even for that
        done.integrity = [error.reason]
    if done.integrity:
        return done  # what lies in broken pages says nothing about who wrote it
    done.chains = audit(db, words, _named(said, "facts"))
    _check_orders(db, done, _named(said, "orders"))
    _check_records(db, done, {**_keys(db), **(keys or {})}, check)
    return done


def _quiet(_what: str, _done: int, _of: int) -> None:
    """Nobody wants to know."""


def _named(tell: Callable[[str, int, int], None], what: str) -> Tell:
    return lambda done, of: tell(what, done, of)


def _has_table(db: Db, name: str) -> bool:
    return db.one("SELECT 1 FROM sqlite_master WHERE type='table' AND name=?", (name,)) is not None


# ------------------------------------------------------------ orders


def _check_orders(db: Db, done: Verdict, tell: Tell) -> None:
    """Each order's heads, folded from its facts, against those that are stored. A store has them in its view, a ledger in its orders."""
    try:
        log = StreamLog(db)
        fold = _Fold(db, log, OrderBook(db, log))
    except LedgerError:
        done.old = True
        return
    table = "view" if _has_table(db, "view") else "orders"
    count = ", facts" if table == "view" else ", NULL"
    row = db.one(f"SELECT count(*) FROM {table}")
    total, at = int(row[0]) if row else 0, 0
    while True:
        page = db.query(f"SELECT okey, org, order_id, heads{count} FROM {table} WHERE okey>? ORDER BY okey LIMIT {PAGE_ORDERS}", (at,))
        if not page:
            break
        facts = fold.facts_of(page[0][0], page[-1][0])
        for okey, org, order_id, heads, number in page:
            known = facts.get(okey, [])
            why, whole = fold.judge(load_heads(bytes(heads)), known)
            if not why and number is not None and number != len(known):
                why = f"counts {number} facts, and has {len(known)}"
            done.partly += not whole and not why
            if why and len(done.wrong_orders) < NAMED:
                done.wrong_orders.append(f"order {org}/{order_id} {why}")
        done.orders += len(page)
        at = page[-1][0]
        tell(done.orders, total)


class _Fold:
    """Folds orders from the rows of a database that is only read."""

    def __init__(self, db: Db, log: StreamLog, book: OrderBook) -> None:
        self._db, self._log, self._book = db, log, book
        self._copies = _has_table(db, "copies") and not _has_table(db, "view")

    def facts_of(self, low: int, high: int) -> dict[int, list[Head | str]]:
        """By order: its facts as the fold needs them, without those in whose place another stands; a text for one that cannot be read."""
        out: dict[int, list[Head | str]] = {}
        for okey, sid, seq, h, row in self._rows(low, high):
            head = self._head(sid, seq, bytes(h), bytes(row))
            if isinstance(head, str) or not self._book.fixes.overruled(head):
                out.setdefault(okey, []).append(head)
        return out

    def _rows(self, low: int, high: int) -> Iterator[tuple[int, int, int, bytes, bytes]]:
        sql = "SELECT okey, sid, seq, h, row FROM log WHERE okey BETWEEN ?1 AND ?2"
        if self._copies:
            sql += " UNION SELECT okey, sid, seq, h, row FROM copies WHERE okey BETWEEN ?1 AND ?2"
        yield from self._db.query(f"{sql} ORDER BY 1, 2, 3, 4", (low, high))

    def _head(self, sid: int, seq: int, h: bytes, row: bytes) -> Head | str:
        try:
            return self._book.as_head(sid, seq, h, parse_row(row))
        except (DecodeError, KeyError) as error:
            return f"has a fact that cannot be read: {error}"
        except LedgerError:  # it would have to be made known, and this database is only read
            return "has a fact that names a stream which is not known here"

    def judge(self, stored: tuple[Head, ...], found: list[Head | str]) -> tuple[str, bool]:
        """(what is wrong or "", whether every head that is stored is here as a fact)."""
        bad = next((f for f in found if isinstance(f, str)), "")
        if bad:
            return bad, False
        facts = [f for f in found if isinstance(f, Head)]
        here = {f.fact for f in facts}
        away = [h for h in stored if h.fact not in here]
        folded = refold([*facts, *away], self._log)
        if {h.fact for h in folded} != {h.fact for h in stored}:
            return "does not fold to the heads that are stored for it", False
        return "", not away


# ------------------------------------------------------------ records


def _keys(db: Db) -> dict[str, bytes]:
    """The admitted nodes of a hub's database."""
    return {node: bytes(key) for node, key in db.query("SELECT node, public_key FROM nodes")} if _has_table(db, "nodes") else {}


def _check_records(db: Db, done: Verdict, keys: Mapping[str, bytes], check: Verify) -> None:
    for table in ("records", "closures"):
        if not _has_table(db, table):
            continue
        columns = "s.node, s.epoch, s.cls, r.first, r.last, r.kind, r.signed"
        sql = f"SELECT {columns} FROM {table} r JOIN streams s USING (sid) ORDER BY sid, r.last"
        for node, epoch, cls, first, last, kind, signed in db.query(sql):
            done.records += 1
            if node not in keys:
                done.unsigned += 1
                continue
            why = _wrong_record((epoch, cls, first, last, kind), bytes(signed), keys[node], check)
            if why and len(done.wrong_records) < NAMED:
                done.wrong_records.append(f"the record of {node} epoch {epoch:x} on {first} to {last} {why}")


def _wrong_record(told: tuple[int, int, int, int, int], signed: bytes, key: bytes, check: Verify) -> str:
    epoch, cls, first, last, kind = told
    try:
        sealed = unseal(signed)
        if not isinstance(sealed, Control):
            return "is no record"
        check(key, sealed.envelope.signature, sealed.envelope.signed)
        said = sealed.message()
    except DecodeError as error:
        return f"is not what its author signed: {error}"
    if not isinstance(said, Record) or (said.epoch, said.cls, int(said.kind)) != (epoch, cls, kind):
        return "was signed about something else"
    return "" if said.first <= last and first <= said.last else "was signed about other facts"
