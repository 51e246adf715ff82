"""Which sites an order concerns: the sites that its heads name. A head that names none stands where the order stood before it. And whose
task it is, where an organisation has phones (`hub.tasks`).

A site is a name in an organisation, and all of this is local to the hub: it decides who is told, never what is true. Kept in the ledger's
database, in the transaction of the facts: a row for each order in the order in which they came, which costs next to nothing. Only who
compares wants them by site and by k, where each new order lies on another page: those trees (`hub.scope_trees`) are brought up when
somebody compares, or when many orders wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from hub.scope_trees import SCOPES, ScopeTrees
from hub.tasks import Tasks, is_staff
from protocols.fact import FactRow
from protocols.ledger import Ledger
from protocols.orderbook import Order
from protocols.schema import migrate
from protocols.streams import LogRow

CACHED: Final = 50_000
_BUILT: Final = "scopes_built"
_SAYS_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})

Moved = tuple[Order, tuple[str, ...], tuple[str, ...]]
"""an order, what it concerned, and what it concerns now"""


class Taken(NamedTuple):
    """A fact of an order that was logged and folded, the site and the actor it names, and its details."""

    order: Order
    sid: int
    seq: int
    h: bytes
    site: str | None
    actor: str | None = None
    details: Mapping[str, object] = _SAYS_NOTHING


def taken(order: Order, row: LogRow, fact: FactRow) -> Taken:
    """What a frame brought."""
    return Taken(order, row.sid, row.seq, row.h, fact.site, fact.actor, fact.details)


class Scopes:
    """See the module. Belongs to the owner of the ledger; every method runs inside its transaction."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        migrate(ledger.db, SCOPES, part="scopes")
        self.trees = ScopeTrees(ledger.db)
        self.tasks = Tasks(ledger)
        self._built = False
        self._sites: dict[int, tuple[str, ...]] = {}

    def of(self, okey: int) -> tuple[str, ...]:
        """The sites and staff that an order concerns, in order."""
        known = self._sites.get(okey)
        if known is None:
            known = self.trees.of(okey)
            self._remember(okey, known)
        return known

    def is_at(self, order: Order, site: str) -> bool:
        """Does the order, as far as memory tells, concern this site alone? Then a fact that names it changes nothing. One of which nothing
        was known is where its first fact says."""
        known = self._sites.get(order.okey)
        if known is not None or order.stored:
            return known == (site,)
        self._write(order, (), (site,))
        return True

    def _remember(self, okey: int, sites: tuple[str, ...]) -> None:
        if len(self._sites) >= CACHED:
            self.trees.write()
            self._sites.clear()
        self._sites[okey] = sites

    def move(self, order: Order, taken: Sequence[Taken]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Take in facts of one order that came together, in order of their stream. Returns its sites and staff before and after."""
        known = order.stored or order.okey in self._sites
        before = self.of(order.okey) if known else ()
        if self.tasks.kept_of(order.org):
            sites = _after(order, taken, tuple(name for name in before if not is_staff(name)))
            after = (*self.tasks.after(order, taken, before), *sites)
        else:
            after = _after(order, taken, before)
        if after != before or not known:
            self._write(order, before, after)
        return before, after

    def again(self, order: Order) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """An order whose heads changed without a new fact: whose task it is now. Its sites stay. Returns both before and after."""
        before = after = self.of(order.okey)
        if self.tasks.kept_of(order.org):
            after = (*self.tasks.after(order, (), before), *(name for name in before if not is_staff(name)))
        if after != before:
            self._write(order, before, after)
        return before, after

    def of_before(self) -> Iterator[Moved]:
        """A page of the orders that were there before tasks were kept of them: those that are somebody's."""
        for order in self.tasks.of_before():
            before, after = self.again(order)
            if after != before:
                yield order, before, after
        self.flush()

    def _write(self, order: Order, before: tuple[str, ...], after: tuple[str, ...]) -> None:
        self.trees.note(order, before, after)
        self._remember(order.okey, after)

    def flush(self, *, asked: bool = False) -> None:
        """Write down what `move` found, before the commit. `asked`: somebody compares."""
        self.trees.flush(asked=asked)

    def build(self) -> None:
        """For a database that was written before there were scopes: once, from the heads that are here."""
        db, ledger = self._ledger.db, self._ledger
        if self._built:
            return
        self._built = True
        if db.one("SELECT 1 FROM meta WHERE key=?", (_BUILT,)) is not None:
            return
        db.run("INSERT INTO meta (key, value) VALUES (?, '1')", (_BUILT,))
        ledger.book.name_all()
        for org, order_id in db.query("SELECT org, order_id FROM orders ORDER BY okey"):
            order = ledger.book.open(org, order_id, 0)
            facts = [ledger.fact(*h.fact) for h in order.heads]
            sites = tuple(sorted({f.site for f in facts if f is not None and f.site is not None}))
            self._write(order, (), sites)
        self.flush()


def _after(order: Order, taken: Sequence[Taken], before: tuple[str, ...]) -> tuple[str, ...]:
    """The sites that the heads name; of heads that name none, or that are not among these facts, what it was before."""
    heads = {h.fact for h in order.heads}
    named: dict[str, None] = {}
    found = 0
    last: str | None = None
    for fact in taken:
        if fact.site is not None:
            last = fact.site
            if (fact.sid, fact.seq, fact.h) in heads:
                found += 1
                named[fact.site] = None
    if found < len(heads):
        for site in before if before or last is None else (last,):
            named[site] = None
    return tuple(sorted(named))
