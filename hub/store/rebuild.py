"""Every view made anew from the store's own log of facts: which facts stand in others' places, then order by order.

Each step is one transaction and notes how far it came, so it may be ended at any time and goes on from there; a store that takes facts from
other writers meanwhile stays right at every moment. What no log holds stays as it was: positions in the list of orders, and when a conflict
was found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from hub.store.view import ViewBook
from protocols.errors import DecodeError
from protocols.fact import Replaces
from protocols.fixes import withdrawal
from protocols.ledger import parse_row
from protocols.sql import Sql

ORDERS: Final = 250
"""in one transaction"""
FACTS: Final = 5_000
_KEY: Final = "rebuild"
_FIXES, _VIEWS = "fixes", "views"

Tell = Callable[[str, int, int], None]
"""(what, done, of)"""
Step = Callable[[Sql, ViewBook], int | None]
"""what is done in one transaction; returns how many, None when there is no more"""


class Rebuildable(Protocol):
    """A store that makes its views anew."""

    def rebuild(self, now_ms: int, tell: Tell) -> int:
        """See the module. Returns how many orders there are. Errors: LedgerFull, LedgerBusy, LedgerBroken."""


def rebuild(transaction: Callable[[Step], int | None], db: Sql, now_ms: int, tell: Tell) -> int:
    """`transaction` runs a step in one, with a view that knows nothing yet, and commits."""
    done, of = 0, _number(db, "SELECT count(*) FROM log")
    while (step := transaction(_place_fixes)) is not None:
        done += step
        tell("looking for fixes", done, of)
    done, of = 0, _number(db, "SELECT count(*) FROM view")
    while (step := transaction(lambda sql, book: _fold_orders(sql, book, now_ms))) is not None:
        done += step
        tell("folding orders", done, of)
    transaction(_end)
    return _number(db, "SELECT count(*) FROM view")


def _number(db: Sql, sql: str) -> int:
    row = db.one(sql)
    return int(row[0]) if row else 0


def _came_to(db: Sql) -> tuple[str, list[int]]:
    row = db.one("SELECT value FROM meta WHERE key=?", (_KEY,))
    what, _, at = str(row[0]).partition(" ") if row else (_FIXES, "", "0 0")
    return what, [int(n) for n in at.split()]


def _note(db: Sql, what: str, *at: int) -> None:
    db.run(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value=excluded.value",
        (_KEY, " ".join([what, *map(str, at)])),
    )


def _place_fixes(db: Sql, book: ViewBook) -> int | None:
    """Facts that replace others, taken in again. Of a fact that is known already this changes nothing."""
    what, at = _came_to(db)
    if what != _FIXES:
        return None
    rows = db.query("SELECT sid, seq, h, okey, row FROM log WHERE (sid, seq) >= (?, ?) ORDER BY sid, seq, h LIMIT ?", (*at, FACTS))
    for sid, seq, h, okey, row in rows:
        book.place_again(sid, seq, bytes(h), *_replaces(okey, row))
    if len(rows) < FACTS:
        _note(db, _VIEWS, 0)
    else:
        _note(db, _FIXES, rows[-1][0], rows[-1][1] + (rows[0][:2] == rows[-1][:2]))
    return len(rows)


def _replaces(okey: int | None, row: bytes) -> tuple[Replaces | None, bool]:
    try:
        if okey is not None:
            return parse_row(row).replaces, False
    except DecodeError:  # a damaged row: the statement goes down, and it comes again
        return None, False
    given_up = withdrawal(bytes(row))
    return (None, False) if given_up is None else (given_up.replaces, True)


def _fold_orders(db: Sql, book: ViewBook, now_ms: int) -> int | None:
    what, at = _came_to(db)
    if what != _VIEWS:
        return None
    okeys = [okey for (okey,) in db.query("SELECT DISTINCT okey FROM log WHERE okey > ? ORDER BY okey LIMIT ?", (at[0], ORDERS))]
    if okeys:
        book.rebuild(okeys, now_ms)
        _note(db, _VIEWS, okeys[-1])
    return len(okeys) if okeys else None


def _end(db: Sql, book: ViewBook) -> int | None:
    """Orders of which there is no fact, and the note."""
    gone = db.query("SELECT okey FROM view WHERE NOT EXISTS (SELECT 1 FROM log l WHERE l.okey=view.okey)")
    book.drop([okey for (okey,) in gone])
    db.run("DELETE FROM meta WHERE key=?", (_KEY,))
    return None
