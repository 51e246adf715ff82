"""A differential oracle: what the product shows, what a pure fold of all facts gives, and what an SQL query over plain tables finds.

The SQL shares nothing with the product but the rows: it reads them with the standard library's SQLite, knows no heads and no order of
arrival, and asks which facts nobody had seen. Histories come from real ledgers that exchange what they say in any order.
"""

from __future__ import annotations

import sqlite3
from random import Random

import pytest

from protocols.codec import unpack
from protocols.event import OrderEvent, TimeQuality
from protocols.fact import genesis
from protocols.ledger import Ledger
from protocols.lifecycle import Status
from protocols.limits import FRAME_UNPACKED_BYTES
from protocols.merge import refold
from protocols.sqlite import Db
from protocols.streams import LogRow

STATUSES = [Status.PLACED, Status.APPROVED, Status.PICKED, Status.SHIPPED, Status.CANCELLED, Status.HELD]
HISTORIES = 60

HEADS = """
SELECT f.h FROM facts f WHERE f.order_id = ?1 AND NOT EXISTS (
    SELECT 1 FROM facts later WHERE later.order_id = f.order_id AND later.author = f.author AND later.seq > f.seq)
  AND NOT EXISTS (
    SELECT 1 FROM facts g JOIN seen s ON s.h = g.h WHERE g.order_id = f.order_id AND s.author = f.author AND s.seq >= f.seq)
ORDER BY f.h
"""


def event(order_id: str, status: Status) -> OrderEvent:
    return OrderEvent("acme", order_id, "WMS", status, 1_780_000_000_000, TimeQuality.STATED, None, "M", None, {}, None)


class Node:
    """A ledger, and what it has said so far."""

    def __init__(self, n: int) -> None:
        self.name = f"dock-{n}"
        self.ledger = Ledger(Db(":memory:"), node=self.name, new_epoch=lambda: n + 1)

    def says(self, order_id: str, status: Status) -> None:
        self.ledger.begin()
        self.ledger.append(event(order_id, status), 1_780_000_000_000)
        self.ledger.commit()

    def rows(self) -> list[LogRow]:
        stream = self.ledger.own()
        return self.ledger.log.read(stream, 1, stream.head[0], max_bytes=10**9, max_facts=10**6) if stream.head[0] else []

    def hears(self, other: Node, first: int, last: int) -> None:
        """A stretch of another's stream, in whatever order stretches come."""
        rows = other.rows()[first - 1 : last]
        if not rows:
            return
        key = other.ledger.own().key
        before = rows[0].prev if first > 1 else genesis(*key)
        facts = [(r.row, unpack(r.row, max_bytes=FRAME_UNPACKED_BYTES)) for r in rows]
        self.ledger.begin()
        self.ledger.offer(key, first, before, facts, [r.h for r in rows], 1_780_000_000_000)  # type: ignore[arg-type]
        self.ledger.commit()


def history(rng: Random) -> tuple[list[Node], list[str]]:
    """Nodes that speak and hear at random; at the end the first has heard everything, in stretches out of order."""
    nodes = [Node(n) for n in range(rng.choice((2, 3, 4)))]
    orders = [f"A{n}" for n in range(rng.choice((1, 2, 4)))]
    for _ in range(rng.randrange(5, 40)):
        who = rng.choice(nodes)
        if rng.random() < 0.6:
            who.says(rng.choice(orders), rng.choice(STATUSES))
        else:
            other = rng.choice([n for n in nodes if n is not who])
            head = other.ledger.own().head[0]
            if head:
                first = rng.randrange(1, head + 1)
                who.hears(other, first, rng.randrange(first, head + 1))
    for other in nodes[1:]:
        cuts = [(n, n + 1) for n in range(1, other.ledger.own().head[0] + 1, 2)]
        rng.shuffle(cuts)
        for first, last in cuts:
            nodes[0].hears(other, first, last)
    return nodes, orders


def plain_tables(ledger: Ledger) -> sqlite3.Connection:
    """Every fact as a row, and every "had seen" as a row: nothing else."""
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE facts (h BLOB PRIMARY KEY, author TEXT, seq INTEGER, order_id TEXT)")
    db.execute("CREATE TABLE seen (h BLOB, author TEXT, seq INTEGER)")
    for sid, seq, h, row in ledger.db.query("SELECT sid, seq, h, row FROM log"):
        values = unpack(bytes(row), max_bytes=FRAME_UNPACKED_BYTES)
        assert isinstance(values, list)
        db.execute("INSERT INTO facts VALUES (?, ?, ?, ?)", (bytes(h), ledger.log.by_sid(sid).key.node, seq, values[2]))
        db.executemany("INSERT INTO seen VALUES (?, ?, ?)", [(bytes(h), entry[0], entry[2]) for entry in values[12]])
    return db


@pytest.mark.parametrize("n", range(HISTORIES))
def test_product_pure_fold_and_sql_agree(n: int) -> None:
    seed = Random().getrandbits(40)
    nodes, orders = history(Random(seed))
    ledger = nodes[0].ledger
    db = plain_tables(ledger)
    for order_id in orders:
        order = ledger.book.get("acme", order_id)
        product = sorted(h.h for h in order.heads) if order is not None else []
        pure = sorted(h.h for h in refold(ledger.book.facts(order), ledger.log)) if order is not None else []
        sql = [bytes(h) for (h,) in db.execute(HEADS, (order_id,))]
        assert product == pure == sql, f"seed {seed}, order {order_id}"
    db.close()
