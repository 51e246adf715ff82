"""The rows of the view on PostgreSQL, as a batch reads and writes them (`hub.store.shelf`).

Others may write the same rows. What was read is written only where its `version` is still the one that was read; otherwise the batch begins
again (`Raced`), carefully: it then locks the rows before it reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple

from hub.store.orders import COLUMNS, Order, enter
from hub.store.pg import Answer, Asked, Pg, Raced
from hub.store.pg_rows import STATES, StateRow, order_rows, state_array, state_rows
from hub.store.pg_values import bigints, texts
from hub.store.schema_pg import BLOCK
from hub.store.shelf import LoggedFact, Remarks
from protocols import merged
from protocols.merge import dump_heads

_LISTED: Final = ", ".join(f"v.{name}" for name in (*COLUMNS, "version"))
_APART: Final = ", ".join(("o." if name in {"org", "order_id", "region", "site"} else "s.") + name for name in (*COLUMNS, "version"))
"""the same of the two tables behind the view"""
_KEYS: Final = "unnest(?::text[], ?::text[]) k (org, order_id)"
_OF_KEYS: Final = 'o.order_id = k.order_id COLLATE "C" AND o.org = k.org COLLATE "C"'
_FETCH: Final = f"SELECT {_APART} FROM {_KEYS} JOIN orders o ON {_OF_KEYS} JOIN states s ON s.okey=o.okey"
STAGED: Final = (
    "DROP TYPE IF EXISTS pg_temp.staged",
    """CREATE TYPE pg_temp.staged AS (okey bigint, pos bigint, received_ms bigint, version integer, facts integer, head_count integer,
         status smallint, quality smallint, covered smallint, conflict smallint, abnormal smallint, held smallint, heads bytea, source text,
         node text, happened_ms bigint, expected_ms bigint, counted bytea)""",
)
"""of the rows of a batch on their way into `states`; made once for a connection"""
_UPDATE: Final = f"""UPDATE states t SET {", ".join(f"{name}=s.{name}" for name in STATES[1:] if name != "version")}, version=s.version+1
    FROM unnest(?::pg_temp.staged[]) s WHERE t.okey=s.okey AND t.version=s.version"""
_STATES: Final = f"states ({', '.join(STATES)})"
_MOVE: Final = """UPDATE orders o SET region=m.region, site=m.site
    FROM unnest(?::bigint[], ?::text[], ?::text[]) m (okey, region, site) WHERE o.okey=m.okey"""
NUMBERS: Final[Asked] = (
    """SELECT nextval('positions'), nextval('okeys'), 'pg_temp.staged'::regtype::oid::bigint,
         ARRAY(SELECT DISTINCT sid FROM unsure ORDER BY sid), ARRAY(SELECT DISTINCT sid FROM fixes ORDER BY sid)""",
    (),
)


class Numbers(NamedTuple):
    """What a batch is given once: the first of its positions and of the numbers of its orders, the number of the type `STAGED`; and the
    streams of which branches could not be followed, or facts were replaced."""

    pos: int
    okey: int
    staged: int
    unsure: list[int]
    fixed: list[int]


class PgShelf(Remarks):
    """See `Shelf`. For one batch. `found` and `numbers`: what was read already, by `fetching` and `NUMBERS`; a batch that has read them so
    writes what changed together with all the rest (`held`, `changing`)."""

    _db: Pg

    def __init__(self, db: Pg, *, careful: bool, found: Answer | None = None, numbers: Numbers | None = None) -> None:
        self._db, self._careful, self._numbers = db, careful, numbers
        self.pos, self._okey, self._staged, _, _ = numbers or Numbers(*db.together(NUMBERS)[0].rows[0])
        self._last = self._okey + BLOCK
        self._found: list[Order] = [] if found is None else [_enter(row) for row in found.rows]
        self._copies: list[tuple[str, bytes]] = []
        self._asked: list[Asked] = []
        self._expected = 0
        """orders that the first of these changes"""

    def number(self, org: str, order_id: str) -> int:
        """See `Shelf`."""
        if self._okey == self._last:
            row = self._db.one("SELECT nextval('okeys')")
            self._okey = row[0] if row else 0
            self._last = self._okey + BLOCK
        self._okey += 1
        return self._okey - 1

    def unsure_streams(self) -> Iterable[int]:
        """See `Shelf`."""
        return super().unsure_streams() if self._numbers is None else self._numbers.unsure

    # ------------------------------------------------------------ reading

    @staticmethod
    def fetching(keys: Sequence[tuple[str, str]]) -> Asked:
        """Asks for the orders of a batch, before all else that it relies on."""
        return _FETCH, (texts([org for org, _ in keys]), texts([order_id for _, order_id in keys]))

    def fetch(self, keys: Sequence[tuple[str, str]]) -> list[Order]:
        """See `Shelf`. What `read` found."""
        return self._found

    def read(self, keys: Sequence[tuple[str, str]]) -> None:
        """Read the orders of the batch, locked where it is careful."""
        if self._careful:
            asked = [org for org, _ in keys], [order_id for _, order_id in keys]
            self._lock(f"SELECT o.okey FROM {_KEYS} JOIN orders o ON {_OF_KEYS}", asked)
        (found,) = self._db.together(self.fetching(keys))
        self._found = [_enter(row) for row in found.rows]

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
        moved = [o for o in old if o.moved]
        if new:
            orders = order_rows((o.okey, o.org, o.order_id, o.region, o.site) for o in new)
            self._copies += [("orders (okey, org, order_id, region, site)", orders), (_STATES, state_rows(map(_row, new)))]
        if old:
            self._asked.append((_UPDATE, (state_array(self._staged, map(_row, old)),)))
            self._expected = len(old)
        if moved:
            self._asked.append(
                (_MOVE, (bigints([o.okey for o in moved]), texts([o.region for o in moved]), texts([o.site for o in moved])))
            )
        if self._numbers is None:
            self._db.copy_in(*self.held())
            self.changed(self._db.together(*self.changing()))
        for order in changed:
            order.version += order.stored

    def held(self) -> list[tuple[str, bytes]]:
        """The rows of new orders; whoever asks writes them."""
        copies, self._copies = self._copies, []
        return copies

    def changing(self) -> list[Asked]:
        """What writes the others; `changed` is given as many answers."""
        asked, self._asked = self._asked, []
        return asked

    def changed(self, answers: Sequence[Answer]) -> None:
        """Errors: Raced."""
        expected, self._expected = self._expected, 0
        if answers and answers[0].written != expected:
            raise Raced("another writer changed an order", remedy="try again")

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
