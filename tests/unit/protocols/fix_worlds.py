"""Random histories of two authors in which facts are refused, and put right or given up, for the tests of fixes: written by real ledgers.

The world remembers which facts the strict places refuse. `right` is what must come of it, from the rows alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from protocols.codec import unpack
from protocols.event import OrderEvent, TimeQuality
from protocols.fact import FactRow
from protocols.fixes import withdrawal
from protocols.ledger import Ledger, parse_row
from protocols.lifecycle import Status
from protocols.quarantine import State, discard, resubmit
from protocols.sqlite import Db
from protocols.streams import StreamKey

Identity = tuple[StreamKey, int, bytes]
"""of a fact, wherever it is"""


class Told(NamedTuple):
    """A fact as it travels. `bad`: strict places refuse it."""

    key: StreamKey
    seq: int
    h: bytes
    prev: bytes
    row: bytes
    bad: bool

    @property
    def identity(self) -> Identity:
        """Which fact it is."""
        return self.key, self.seq, self.h


@dataclass(eq=False)
class Author:
    """A node that writes, and what of its facts is refused elsewhere."""

    ledger: Ledger
    bad: dict[Identity, None] = field(default_factory=dict)

    def told(self) -> list[Told]:
        """All that it wrote."""
        out = []
        for stream in self.ledger.own_streams():
            for seq, h, prev, row in self.ledger.db.query("SELECT seq, h, prev, row FROM log WHERE sid=? ORDER BY seq", (stream.sid,)):
                out.append(Told(stream.key, seq, h, prev, row, (stream.key, seq, h) in self.bad))
        return out


def author(node: str, rng: Random) -> Author:
    """A node with an empty ledger."""
    return Author(Ledger(Db(":memory:"), node=node, new_epoch=lambda: rng.randrange(1, 1 << 60)))


def event(order_id: str, status: Status = Status.PLACED, *, actor: str | None = None) -> OrderEvent:
    """Something that happened to an order."""
    return OrderEvent("acme", order_id, "s", status, None, TimeQuality.UNKNOWN, None, None, actor, {})


def take(ledger: Ledger, fact: Told, *, strict: bool) -> None:
    """One fact arrives, in a transaction of its own. `strict`: the place cannot read what is bad."""
    ledger.begin()
    if strict and fact.bad:
        ledger.offer_opaque(fact.key, fact.seq, fact.prev, fact.h, fact.row, "cannot be read here", 5)
    else:
        values: Any = unpack(fact.row, max_bytes=10_000)
        ledger.offer(fact.key, fact.seq, fact.prev, [(fact.row, values)], [fact.h], 5)
    ledger.commit()


def history(seed: int, steps: int) -> list[Told]:
    """What two authors said in so many steps; every bad fact is resolved at the end."""
    rng = Random(seed)
    a, c = author("a", rng), author("c", rng)
    orders = ("o1", "o2", "o3")[: rng.randint(1, 3)]
    for step in range(steps):
        who = a if rng.random() < 0.65 else c
        what = rng.random()
        who.ledger.begin()
        if what < 0.5:
            _say(who, rng, orders, step)
        elif what < 0.7:
            _resolve_one(who, rng, orders, step)
        elif what < 0.75:
            who.ledger.start_new_epoch(step)
        who.ledger.commit()
        if what >= 0.75:
            other = c if who is a else a
            for fact in other.told():
                take(who.ledger, fact, strict=rng.random() < 0.5)
    for who in (a, c):
        who.ledger.begin()
        while who.ledger.quarantine_rows.items(1, state=State.OPEN) and _resolve_one(who, rng, orders, steps, final=True):
            continue
        who.ledger.commit()
    told = [*a.told(), *c.told()]
    for who in (a, c):
        who.ledger.db.close()
    return told


def _say(who: Author, rng: Random, orders: Sequence[str], step: int) -> None:
    done = who.ledger.append(event(rng.choice(orders), rng.choice(list(Status))), step)
    if rng.random() < 0.4:
        _refuse(who, done.stream, done.seq, done.h, step)


def _refuse(who: Author, key: StreamKey, seq: int, h: bytes, step: int) -> None:
    who.bad[key, seq, h] = None
    who.ledger.quarantine(who.ledger.log.open(key).sid, seq, h, "cannot be read there", step)


def _resolve_one(who: Author, rng: Random, orders: Sequence[str], step: int, *, final: bool = False) -> bool:
    mine = [i for i in who.ledger.quarantine_rows.items(state=State.OPEN) if who.ledger.log.by_sid(i.identity[0]).own]
    if not mine:
        return False
    item = rng.choice(mine)
    if rng.random() < 0.3:
        discard(who.ledger, item.qid, "a slip of the finger", step)
        return True
    done = resubmit(who.ledger, item.qid, event(rng.choice(orders), rng.choice(list(Status))), step)
    if not final and rng.random() < 0.3:
        _refuse(who, done.stream, done.seq, done.h, step)
    return True


# ---------------------------------------------------------------- what is right


@dataclass(frozen=True)
class Standing:
    """A readable fact: who it is, where it stands, what it had seen."""

    identity: Identity
    place: Identity
    by: tuple[Any, ...]
    fact: FactRow

    def saw(self, other: Standing) -> bool:
        """Had its author seen the other, there where it stands?"""
        (key, seq, _), (their_key, their_seq, _) = self.place, other.place
        if key == their_key and their_seq < seq:
            return True
        return any(their_key[:2] == (e[0], e[1]) and their_seq <= e[2] for e in self.fact.context)


def right(told: Sequence[Told]) -> dict[str, set[Identity]]:
    """Per order the facts that are its heads: of those that hold their place, the ones no other had seen. Without forks."""
    holders: dict[Identity, tuple[Any, ...]] = {}
    standing: list[Standing] = []
    for t in told:
        given_up = withdrawal(t.row)
        fact = parse_row(t.row) if given_up is None and t.row[1] == 1 else None
        replaces = given_up.replaces if given_up is not None else fact.replaces if fact is not None else None
        place: Identity = t.identity
        by: tuple[Any, ...] = ()
        if replaces is not None and not t.bad:
            epoch, seq, h = replaces.place
            place, by = (StreamKey(t.key.node, epoch, t.key.cls), seq, h), (replaces.turn, t.seq, t.h)
            holders[place] = max(holders.get(place, ()), by)
        if fact is not None and not t.bad:
            standing.append(Standing(t.identity, place, by, fact))
    held = [s for s in standing if holders.get(s.place, ()) == s.by]
    out: dict[str, set[Identity]] = {}
    for s in held:
        if not any(o is not s and o.fact.order_id == s.fact.order_id and o.saw(s) for o in held):
            out.setdefault(s.fact.order_id, set()).add(s.identity)
    return out
