"""Whose tasks an order is, at the hub: names beside those of its sites, so that a phone follows its staff as an edge follows its site.

Kept from the day on which an organisation admits its first phone, for all of its staff: the next phone finds its scope as it stands. What
was there before is gone through once, a page in each transaction, and never for one phone. A hub without phones keeps nothing.

Names of staff bear a mark that no site can have. An order is also marked with whom it was given to, because a fact that does not say so
leaves it with them; nobody follows that mark.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from protocols.ledger import Ledger
from protocols.orderbook import Order
from protocols.tasks import assigned_to, is_over

if TYPE_CHECKING:
    from hub.registry import Node
    from hub.scopes import Taken

_TASK: Final = "\x01"
_GIVEN: Final = "\x02"
_MARKS: Final = (_TASK, _GIVEN)
"""no text from outside has a control character"""
_META: Final = "tasks/"
"""key in `meta`, with the organisation: how far the orders of before were gone through, DONE at the end"""
_DONE: Final = -1
PAGE: Final = 500
"""orders of before, in one transaction"""
HEADS_READ: Final = 64
"""of one order: so many stand side by side only where somebody means harm"""


def staff_scope(staff: str) -> str:
    """The name under which a phone of this person follows orders."""
    return _TASK + staff


def is_staff(name: str) -> bool:
    """Is this the scope of a person, and not of a site?"""
    return name.startswith(_MARKS)


class Tasks:
    """See the module. Belongs to the owner of the ledger; every method but `people` runs inside its transaction."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        rows = ledger.db.query("SELECT key, value FROM meta WHERE key >= ? AND key < ? ORDER BY key", (_META, _META[:-1] + "0"))
        self._through: dict[str, int] = {str(key)[len(_META) :]: int(value) for key, value in rows}
        """by organisation that has or had phones"""
        self._phones: dict[str, str] = {}
        """node -> its staff"""
        self._orgs: dict[str, None] = {}

    def people(self, nodes: Iterable[Node]) -> None:
        """Who is admitted."""
        phones = [node for node in nodes if node.staff]
        self._phones = {node.address.node: node.staff for node in phones}
        self._orgs = dict.fromkeys(node.address.org for node in phones)

    def kept_of(self, org: str) -> bool:
        """Are tasks kept of the orders of this organisation?"""
        return org in self._through or org in self._orgs

    def silent(self, one: Taken) -> bool:
        """Does a fact say nothing of staff? Then it changes nothing for an order that was nobody's task."""
        if not self.kept_of(one.order.org):
            return True
        return one.actor is None and assigned_to(one.details) is None and self._author(one.sid) not in self._phones

    def _author(self, sid: int) -> str:
        return self._ledger.log.by_sid(sid).key.node

    # ------------------------------------------------------------ one order

    def after(self, order: Order, taken: Sequence[Taken], before: Sequence[str]) -> list[str]:
        """The names, with their marks, of an order as it stands: facts that came, and what it was called before."""
        given = [name for name in before if name.startswith(_GIVEN)]
        said: dict[str, None] = {}
        hands: dict[str, None] = {}
        silent = unknown = False
        here = {(t.sid, t.seq, t.h): (t.actor, t.details) for t in taken}
        for head in order.heads[:HEADS_READ]:
            actor, details = here.get(head.fact) or self._read(*head.fact) or (None, None)
            unknown |= details is None
            names = assigned_to(details or {})
            if names is not None:
                said.update(dict.fromkeys(names))
                continue
            silent = True
            for name in (actor, self._phones.get(self._author(head.fact[0]))):
                if name is not None:
                    hands[name] = None
        if silent and not given:  # what comes late is history, and may still be all that is known
            given = [_GIVEN + name for t in taken for name in assigned_to(t.details) or ()]
        marks = sorted({*(_GIVEN + name for name in said), *(given if silent else ())})
        if is_over(order.heads):
            return marks
        tasks = {*(_TASK + name for name in hands), *(_TASK + mark[1:] for mark in marks)}
        return sorted({*tasks, *(name for name in before if unknown and name.startswith(_TASK)), *marks})

    def _read(self, sid: int, seq: int, h: bytes) -> tuple[str | None, Mapping[str, object]] | None:
        self._ledger.log.flush()
        fact = self._ledger.fact(sid, seq, h)
        return None if fact is None else (fact.actor, fact.details)

    # ------------------------------------------------------------ what was there before

    def begin(self) -> None:
        """An organisation has phones now: from here on its tasks are kept."""
        for org in self._orgs:
            if org not in self._through:
                self._note(org, 0)

    @property
    def behind(self) -> bool:
        """Are there orders of before to go through?"""
        return any(through != _DONE for through in self._through.values())

    def of_before(self) -> Iterator[Order]:
        """The next page of orders that were there before the first phone."""
        for org, through in list(self._through.items()):
            if through == _DONE:
                continue
            self._ledger.flush()
            rows = self._ledger.db.query(
                "SELECT okey, order_id FROM orders WHERE okey>? AND org=? ORDER BY okey LIMIT ?", (through, org, PAGE)
            )
            for _, order_id in rows:
                yield self._ledger.book.open(org, order_id, 0)
            self._note(org, rows[-1][0] if len(rows) == PAGE else _DONE)

    def _note(self, org: str, through: int) -> None:
        self._through[org] = through
        self._ledger.db.run(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value=excluded.value", (_META + org, through)
        )
