"""The rows of the view on PostgreSQL, as a batch reads and writes them (`hub.store.shelf`).

Others may write the same rows. What was read is written only where its `version` is still the one that was read; otherwise the batch begins
again (`Raced`), carefully: it then locks the rows before it reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from hub.store.orders import COLUMNS, Order, enter
from hub.store.pg import Pg, Raced
from hub.store.pg_rows import STATES, StateRow, order_rows, state_rows
from hub.store.schema_pg import BLOCK
from hub.store.shelf import LoggedFact, Remarks
from protocols import merged
from protocols.merge import dump_heads

_LISTED: Final = ", ".join(f"v.{name}" for name in (*COLUMNS, "version"))
_KEYS: Final = "unnest(?::text[], ?::text[]) k (org, order_id)"
_OF_KEYS: Final = 'o.order_id = k.order_id COLLATE "C" AND o.org = k.org COLLATE "C"'
STAGE: Final = f"""CREATE TEMPORARY TABLE IF NOT EXISTS stage ON COMMIT DELETE ROWS AS SELECT {", ".join(STATES)} FROM states LIMIT 0"""
"""for the rows of a batch on their way into `states`; made once for a connection"""
_UPDATE: Final = f"""UPDATE states t SET {", ".join(f"{name}=s.{name}" for name in STATES[1:] if name != "version")}, version=s.version+1
    FROM stage s WHERE t.okey=s.okey AND t.version=s.version"""


class PgShelf(Remarks):
    """See `Shelf`. For one batch."""

    _db: Pg

    def __init__(self, db: Pg, *, careful: bool) -> None:
        self._db, self._careful = db, careful
        row = db.one("SELECT nextval('positions')")
        self.pos: int = row[0] if row else 0
        self._okey = self._last = 0
        self._staged = False
        self._found: list[Order] = []

    def number(self, org: str, order_id: str) -> int:
        """See `Shelf`."""
        if self._okey == self._last:
            row = self._db.one("SELECT nextval('okeys')")
            self._okey = row[0] if row else 0
            self._last = self._okey + BLOCK
        self._okey += 1
        return self._okey - 1

    # ------------------------------------------------------------ reading

    def fetch(self, keys: Sequence[tuple[str, str]]) -> list[Order]:
        """See `Shelf`. What `read` found."""
        return self._found

    def read(self, keys: Sequence[tuple[str, str]]) -> None:
        """Read the orders of the batch, before all else that it relies on."""
        asked = [org for org, _ in keys], [order_id for _, order_id in keys]
        if self._careful:
            self._lock(f"SELECT o.okey FROM {_KEYS} JOIN orders o ON {_OF_KEYS}", asked)
        sql = f"SELECT {_LISTED} FROM {_KEYS} JOIN orders o ON {_OF_KEYS} JOIN view v ON v.okey=o.okey"
        self._found = [_enter(row) for row in self._db.query(sql, asked)]

    def of_stream(self, sid: int, above: int) -> list[Order]:
        """See `Shelf`."""
        return self._of(
            """SELECT okey FROM log WHERE sid=? AND seq>? AND okey IS NOT NULL UNION
               SELECT l.okey FROM fixes f JOIN log l ON l.sid=f.by_sid AND l.seq=f.by_seq AND l.h=f.by_h
               WHERE f.sid=? AND f.seq>? AND l.okey IS NOT NULL""",
            (sid, above, sid, above),
        )

    def of_numbers(self, okeys: Sequence[int]) -> list[Order]:
        """See `Shelf`."""
        return self._of("SELECT unnest(?::bigint[])", (list(okeys),))

    def unsure_of(self, sid: int) -> list[Order]:
        """See `Shelf`."""
        return self._of("SELECT okey FROM unsure WHERE sid=?", (sid,))

    def _of(self, okeys: str, params: Sequence[Any]) -> list[Order]:
        if self._careful:
            self._lock(okeys, params)
        return [_enter(row) for row in self._db.query(f"SELECT {_LISTED} FROM view v WHERE v.okey IN ({okeys}) ORDER BY v.okey", params)]

    def _lock(self, okeys: str, params: Sequence[Any]) -> None:
        self._db.run(f"SELECT 1 FROM states WHERE okey IN ({okeys}) ORDER BY okey FOR UPDATE", params)

    def facts(self, okeys: Sequence[int]) -> Iterator[tuple[int, list[LoggedFact]]]:
        """See `Shelf`."""
        rows = self._db.query(
            "SELECT okey, sid, seq, h, row, received_ms FROM log WHERE okey = ANY(?) ORDER BY okey, sid, seq, h", (list(okeys),)
        )
        found: dict[int, list[LoggedFact]] = {
            okey: [(r[1], r[2], r[3], r[4], r[5]) for r in own] for okey, own in groupby(rows, itemgetter(0))
        }
        for okey in okeys:
            yield okey, found.get(okey, [])

    # ------------------------------------------------------------ writing

    def save(self, changed: Sequence[Order]) -> None:
        """See `Shelf`. Errors: Raced."""
        new, old = [o for o in changed if not o.stored], [o for o in changed if o.stored]
        if new:
            self._db.copy_in(
                "orders (okey, org, order_id, region, site)", order_rows((o.okey, o.org, o.order_id, o.region, o.site) for o in new)
            )
            self._db.copy_in(f"states ({', '.join(STATES)})", state_rows(map(_row, new)))
        if old:
            if self._staged:
                self._db.run("DELETE FROM stage")
            self._staged = True
            self._db.copy_in(f"stage ({', '.join(STATES)})", state_rows(map(_row, old)))
            if self._db.count(_UPDATE) != len(old):
                raise Raced("another writer changed an order", remedy="try again")
            self._move([o for o in old if o.moved])
        for order in changed:
            order.version += order.stored

    def _move(self, moved: Sequence[Order]) -> None:
        if moved:
            lists = [o.okey for o in moved], [o.region for o in moved], [o.site for o in moved]
            self._db.run(
                """UPDATE orders o SET region=m.region, site=m.site
                   FROM unnest(?::bigint[], ?::text[], ?::text[]) m (okey, region, site) WHERE o.okey=m.okey""",
                lists,
            )

    def remove(self, okey: int) -> None:
        """See `Shelf`."""
        for table in ("states", "orders", "oddities", "unsure"):
            self._db.run(f"DELETE FROM {table} WHERE okey=?", (okey,))


def _enter(row: Sequence[Any]) -> Order:
    order = enter(row)
    order.version = row[len(COLUMNS)]
    return order


def _row(o: Order) -> StateRow:
    return (
        o.okey, o.pos, o.received_ms, o.version, o.facts, len(o.heads), o.status, o.quality, o.covered, o.conflict, o.abnormal, o.held,
        dump_heads(o.heads), o.source, o.node, o.happened_ms, o.expected_ms, merged.dump(o.counted),
    )  # fmt: skip
