"""The rows of the view as a batch reads and writes them: a port, and SQLite behind it.

Everything happens in the transaction of whoever owns the connection.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

from hub.store.orders import COLUMNS, Order, enter, values
from protocols.fixes import Identity
from protocols.sql import Sql
from protocols.sqlite import Db

LoggedFact = tuple[int, int, bytes, bytes, int]
"""(sid, seq, h, row, received_ms) of a fact of an order"""
_LISTED: Final = ", ".join(COLUMNS)


class Shelf(Protocol):
    """What `hub.store.view` asks of an engine."""

    pos: int
    """the last position that was given out; the view gives out the next ones"""

    def fetch(self, keys: Sequence[tuple[str, str]]) -> list[Order]:
        """The orders, by (org, order id), that are there."""

    def number(self, org: str, order_id: str) -> int:
        """The number (okey) of an order that is new, and that `fetch` was asked for."""

    def of_stream(self, sid: int, above: int) -> list[Order]:
        """Orders with facts of a stream above a seq, or with fixes of such facts."""

    def of_numbers(self, okeys: Sequence[int]) -> list[Order]:
        """Orders by their numbers, those that are there."""

    def unsure_of(self, sid: int) -> list[Order]:
        """Orders whose fold could not follow a branch of a stream."""

    def facts(self, okeys: Sequence[int]) -> Iterator[tuple[int, list[LoggedFact]]]:
        """All facts of each order, those of this batch included, by stream, seq and hash."""

    def unsure_streams(self) -> Iterable[int]:
        """Streams that `unsure_of` finds something for."""

    def note_odd(self, okey: int, facts: Sequence[Identity]) -> None:
        """These facts of the order made an abnormal transition."""

    def forget_odd(self, okey: int) -> None:
        """None of its facts did."""

    def note_unsure(self, okey: int, sids: Sequence[int]) -> None:
        """Its fold could not follow branches of these streams, in place of what was noted before."""

    def save(self, changed: Sequence[Order]) -> None:
        """Write orders that are new (`stored` is false) or changed."""

    def remove(self, okey: int) -> None:
        """Nothing is left of an order; its facts stay in the log."""


_INSERT: Final = f"INSERT INTO view ({_LISTED}) VALUES ({', '.join('?' * len(COLUMNS))})"
_UPDATE: Final = f"UPDATE view SET {', '.join(f'{c}=?' for c in COLUMNS[7:])}, status=?, source=? WHERE okey=?"
_UPDATE_MOVED: Final = "UPDATE view SET region=?, site=? WHERE okey=?"
"""apart, because naming a column writes its index anew, and most facts leave an order where it was"""


class Remarks:
    """What a shelf notes beside its orders, in SQL that every engine understands."""

    _db: Sql

    def unsure_streams(self) -> Iterable[int]:
        """See `Shelf`."""
        return [sid for (sid,) in self._db.query("SELECT DISTINCT sid FROM unsure")]

    def note_odd(self, okey: int, facts: Sequence[Identity]) -> None:
        """See `Shelf`."""
        self._db.many("INSERT INTO oddities VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", [(okey, *fact) for fact in facts])

    def forget_odd(self, okey: int) -> None:
        """See `Shelf`."""
        self._db.run("DELETE FROM oddities WHERE okey=?", (okey,))

    def note_unsure(self, okey: int, sids: Sequence[int]) -> None:
        """See `Shelf`."""
        self._db.run("DELETE FROM unsure WHERE okey=?", (okey,))
        self._db.many("INSERT INTO unsure VALUES (?, ?)", [(sid, okey) for sid in sids])


class SqliteShelf(Remarks):
    """See `Shelf`. The connection is the only writer's, so numbers are counted in memory."""

    _db: Db

    def __init__(self, db: Db, *, text_index: bool) -> None:
        self._db, self._text_index = db, text_index
        # facts of an order that is gone, because all of them were given up, keep its number
        row = db.one(
            """SELECT coalesce(max(okey), 0), (SELECT coalesce(max(okey), 0) FROM log WHERE okey IS NOT NULL), coalesce(max(pos), 0)
               FROM view"""
        )
        self._okey: int = max(row[0], row[1]) if row else 0
        self.pos: int = row[2] if row else 0

    def fetch(self, keys: Sequence[tuple[str, str]]) -> list[Order]:
        """See `Shelf`. One query for each organisation."""
        wanted: dict[str, list[str]] = {}
        for org, order_id in keys:
            wanted.setdefault(org, []).append(order_id)
        listed = ", ".join("v." + c for c in COLUMNS)
        sql = f"SELECT {listed} FROM json_each(?2) k CROSS JOIN view v ON v.order_id=k.value AND v.org=?1"
        return [enter(row) for org, ids in wanted.items() for row in self._db.query(sql, (org, json.dumps(ids)))]

    def number(self, org: str, order_id: str) -> int:
        """See `Shelf`."""
        self._okey += 1
        return self._okey

    def of_stream(self, sid: int, above: int) -> list[Order]:
        """See `Shelf`."""
        return self._where(
            """okey IN (SELECT okey FROM log WHERE sid=?1 AND seq>?2 AND okey IS NOT NULL)
               OR okey IN (SELECT l.okey FROM fixes f JOIN log l ON l.sid=f.by_sid AND l.seq=f.by_seq AND l.h=f.by_h
                           WHERE f.sid=?1 AND f.seq>?2 AND l.okey IS NOT NULL)""",
            (sid, above),
        )

    def of_numbers(self, okeys: Sequence[int]) -> list[Order]:
        """See `Shelf`."""
        return self._where("okey IN (SELECT value FROM json_each(?))", (json.dumps(okeys),))

    def unsure_of(self, sid: int) -> list[Order]:
        """See `Shelf`."""
        return self._where("okey IN (SELECT okey FROM unsure WHERE sid=?)", (sid,))

    def _where(self, where: str, params: Sequence[Any]) -> list[Order]:
        return [enter(row) for row in self._db.query(f"SELECT {_LISTED} FROM view WHERE {where} ORDER BY okey", params)]

    def facts(self, okeys: Sequence[int]) -> Iterator[tuple[int, list[LoggedFact]]]:
        """See `Shelf`."""
        sql = "SELECT sid, seq, h, row, received_ms FROM log WHERE okey=? ORDER BY sid, seq, h"
        for okey in okeys:
            yield okey, self._db.query(sql, (okey,))

    def save(self, changed: Sequence[Order]) -> None:
        """See `Shelf`."""
        new = [o for o in changed if not o.stored]
        self._db.many(_UPDATE, [(*values(o)[7:], o.status, o.source, o.okey) for o in changed if o.stored])
        self._db.many(_UPDATE_MOVED, [(o.region, o.site, o.okey) for o in changed if o.stored and o.moved])
        self._db.many(_INSERT, [values(o) for o in new])
        if self._text_index:
            self._db.many("INSERT INTO order_text (rowid, order_id) VALUES (?, ?)", [(o.okey, o.order_id) for o in new])

    def remove(self, okey: int) -> None:
        """See `Shelf`."""
        for table in ("view", "oddities", "unsure"):
            self._db.run(f"DELETE FROM {table} WHERE okey=?", (okey,))
