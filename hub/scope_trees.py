"""The tables behind `hub.scopes`: which scopes an order has, and the orders of a scope by k.

    scope_names   a scope's number for its name (a site, or a mark of `hub.tasks`) in an organisation
    order_scopes  of each order its k and its scopes: a number, or text where it is not one ("3,7"; "" for none)
    placed        (scope, k, okey): what a comparison adds up
    by_k          (k, okey): orders that a node names and that are elsewhere

New orders have rising okeys and lie at the end of `order_scopes`, but all over the two trees. So those are complete up to an okey (`meta`),
and orders beyond it are put in place many at once; what changes of orders below is changed there at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from protocols.orderbook import Order
from protocols.sqlite import Db

PLACED_AT_ONCE: Final = 10_000
"""orders; nobody has to have asked for them"""
NAMES_KEPT: Final = 50_000
_PLACED: Final = "scopes_placed"
_NOTE: Final = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value=excluded.value"

SCOPES: Final = (
    ("CREATE INDEX orders_k ON orders (k)",),
    (
        # A database of before brings its rows along, and has them in place; one of version 1 names its orders later (`Scopes.build`).
        "CREATE TABLE scope_names (scope INTEGER PRIMARY KEY, org TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (org, name))",
        "CREATE TABLE order_scopes (okey INTEGER PRIMARY KEY, k INTEGER NOT NULL, scopes NOT NULL)",
        """CREATE TABLE placed (
             scope INTEGER NOT NULL, k INTEGER NOT NULL, okey INTEGER NOT NULL, PRIMARY KEY (scope, k, okey)) WITHOUT ROWID""",
        "CREATE TABLE by_k (k INTEGER NOT NULL, okey INTEGER NOT NULL, PRIMARY KEY (k, okey)) WITHOUT ROWID",
        "INSERT INTO scope_names (org, name) SELECT DISTINCT org, site FROM scopes ORDER BY org, site",
        """INSERT INTO placed (scope, k, okey)
             SELECT n.scope, s.k, s.okey FROM scopes s JOIN scope_names n ON n.org=s.org AND n.name=s.site ORDER BY 1, 2, 3""",
        """INSERT INTO order_scopes (okey, k, scopes)
             SELECT okey, min(k), CASE count(*) WHEN 1 THEN min(scope) ELSE group_concat(scope) END FROM placed GROUP BY okey""",
        "INSERT INTO by_k (k, okey) SELECT k, okey FROM orders WHERE k IS NOT NULL ORDER BY 1, 2",
        f"""INSERT INTO meta (key, value) SELECT '{_PLACED}', CASE WHEN count(k)=count(*) THEN coalesce(max(okey), 0) ELSE 0 END
             FROM orders""",
        "DROP INDEX orders_k",
        "DROP TABLE scopes",
    ),
)
"""only a hub has these: tables of its database, and not of every ledger"""


class ScopeTrees:
    """See the module. Belongs to the owner of the ledger; what writes runs inside its transaction."""

    def __init__(self, db: Db) -> None:
        self._db = db
        row = db.one("SELECT value FROM meta WHERE key=?", (_PLACED,))
        self._through = int(row[0]) if row else 0
        """the okey up to which the trees are complete"""
        row = db.one("SELECT count(*) FROM order_scopes WHERE okey>?", (self._through,))
        self._waiting = int(row[0]) if row else 0
        self._new: dict[int, tuple[int, int, int | str]] = {}
        self._numbers: dict[tuple[str, str], int] = {}
        self._names: dict[int, str] = {}

    # ------------------------------------------------------------ one order

    def of(self, okey: int) -> tuple[str, ...]:
        """The names of an order's scopes, in order."""
        row = self._new.get(okey) or self._db.one("SELECT okey, k, scopes FROM order_scopes WHERE okey=?", (okey,))
        return tuple(sorted(map(self._name, _listed(row[2])))) if row is not None else ()

    def note(self, order: Order, before: Iterable[str], after: tuple[str, ...]) -> None:
        """An order's scopes are others than before, or it is new."""
        okey, k, org = order.okey, order.place, order.org
        if len(after) == 1:
            scopes: int | str = self._number(org, after[0])
        else:
            scopes = ",".join([str(self._number(org, name)) for name in after])
        self._new[okey] = (okey, k, scopes)
        if okey > self._through:
            self._waiting += 1
            return
        gone = [(self._number(org, name), k, okey) for name in before if name not in after]
        self._db.many("DELETE FROM placed WHERE scope=? AND k=? AND okey=?", gone)
        self._place([(number, k, okey) for number in _listed(scopes)])
        self._db.run("INSERT OR IGNORE INTO by_k (k, okey) VALUES (?, ?)", (k, okey))

    def _place(self, rows: Iterable[tuple[int, int, int]]) -> None:
        self._db.many("INSERT OR IGNORE INTO placed (scope, k, okey) VALUES (?, ?, ?)", rows)

    # ------------------------------------------------------------ names

    def _number(self, org: str, name: str) -> int:
        """The number of a scope, which it has from now on."""
        number = self._numbers.get((org, name))
        if number is None:
            number = self._known(org, name)
            if number is None:
                self._db.run("INSERT INTO scope_names (org, name) VALUES (?, ?)", (org, name))
                number = self._known(org, name)
                assert number is not None
            self._keep(number, org, name)
        return number

    def _known(self, org: str, name: str) -> int | None:
        row = self._db.one("SELECT scope FROM scope_names WHERE org=? AND name=?", (org, name))
        return None if row is None else int(row[0])

    def _name(self, number: int) -> str:
        name = self._names.get(number)
        if name is None:
            org, name = self._db.query("SELECT org, name FROM scope_names WHERE scope=?", (number,))[0]
            self._keep(number, str(org), str(name))
        return str(name)

    def _keep(self, number: int, org: str, name: str) -> None:
        if len(self._names) >= NAMES_KEPT:
            self._names.clear()
            self._numbers.clear()
        self._names[number], self._numbers[org, name] = name, number

    # ------------------------------------------------------------ writing down

    def write(self) -> None:
        """Put down what was noted, for whoever asks for one order."""
        if self._new:
            self._db.many("INSERT OR REPLACE INTO order_scopes (okey, k, scopes) VALUES (?, ?, ?)", self._new.values())
            self._new = {}

    def flush(self, *, asked: bool) -> None:
        """Before the commit. `asked`: for whoever asks for the orders of a scope; else only where many wait."""
        self.write()
        if self._waiting and (asked or self._waiting >= PLACED_AT_ONCE):
            self._put_in_place()

    def _put_in_place(self) -> None:
        db, above = self._db, (self._through,)
        db.run(
            """INSERT OR IGNORE INTO placed (scope, k, okey)
               SELECT scopes, k, okey FROM order_scopes WHERE okey>? AND typeof(scopes)='integer' ORDER BY 1, 2, 3""",
            above,
        )
        several = db.query("SELECT okey, k, scopes FROM order_scopes WHERE okey>? AND typeof(scopes)='text'", above)
        self._place(sorted((number, k, okey) for okey, k, scopes in several for number in _listed(scopes)))
        db.run("INSERT OR IGNORE INTO by_k (k, okey) SELECT k, okey FROM order_scopes WHERE okey>? ORDER BY 1, 2", above)
        row = db.one("SELECT max(okey) FROM order_scopes")
        self._through, self._waiting = max(self._through, int(row[0] or 0) if row else 0), 0
        db.run(_NOTE, (_PLACED, self._through))

    # ------------------------------------------------------------ asking

    def sums(self, scope: tuple[str, str], low: int, high: int, shift: int) -> list[tuple[int, int]]:
        """Of the orders of a scope with k from low to high: (k >> shift, sum of their digests)."""
        return self._db.query(
            f"""SELECT p.k >> {int(shift)}, sum(o.digest) FROM placed p JOIN orders o ON o.okey = p.okey
                WHERE p.scope=? AND p.k BETWEEN ? AND ? GROUP BY 1""",
            (self._known(*scope), low, high),
        )

    def within(self, scope: tuple[str, str], low: int, high: int) -> list[tuple[int, int, int]]:
        """The same orders, (k, okey, digest), by k and okey."""
        return self._db.query(
            """SELECT p.k, p.okey, o.digest FROM placed p JOIN orders o ON o.okey = p.okey
               WHERE p.scope=? AND p.k BETWEEN ? AND ? ORDER BY p.k, p.okey""",
            (self._known(*scope), low, high),
        )

    def at(self, org: str, k: int) -> list[tuple[int, str]]:
        """All orders of an organisation at k: (okey, order id)."""
        return self._db.query(
            "SELECT b.okey, o.order_id FROM by_k b JOIN orders o ON o.okey = b.okey WHERE b.k=? AND o.org=? ORDER BY b.okey", (k, org)
        )


def _listed(scopes: object) -> list[int]:
    """The numbers of what a row says."""
    return [scopes] if isinstance(scopes, int) else [int(number) for number in str(scopes).split(",") if number]
