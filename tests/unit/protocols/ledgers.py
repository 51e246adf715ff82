"""Small ledgers for tests: events with short words, frames cut by hand, clones, and what two ledgers have to agree on."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Any, NamedTuple

from protocols.codec import pack, unpack
from protocols.errors import DecodeError
from protocols.event import OrderEvent, TimeQuality
from protocols.fact import chain, genesis, to_row
from protocols.ledger import Appended, Ledger, Offered
from protocols.lifecycle import Status
from protocols.sqlite import Db
from protocols.streams import Stream, StreamKey

NOW_MS = 1_780_000_000_000
DAY_MS = 86_400_000
ORG = "acme"


def event(order_id: str = "A", status: Status = Status.PLACED, key: str | None = None, **details: Any) -> OrderEvent:
    """An event of order `order_id`; `key` is its idempotency key."""
    return OrderEvent(ORG, order_id, "WMS", status, NOW_MS, TimeQuality.STATED, "EMEA", "w8", None, details, key)


def ledger(node: str = "edge-1", db: Db | None = None, *, epochs: Iterable[int] | None = None) -> Ledger:
    """A ledger, by default in memory; its epochs are 101, 102, … unless given."""
    numbers = iter(epochs) if epochs is not None else count(101)
    return Ledger(db or Db(":memory:"), node=node, new_epoch=lambda: next(numbers))


def say(led: Ledger, *events: OrderEvent, now_ms: int = NOW_MS) -> list[Appended]:
    """Append in a transaction of its own."""
    led.begin()
    done = led.append_all(events, now_ms)
    led.commit()
    return done


def clone(led: Ledger, *, epochs: Iterable[int] = range(900, 1_000)) -> Ledger:
    """The same disk in another machine: a cloned card, a restored backup."""
    return ledger(led.node, Db.load(led.db.dump(), driver=led.db.driver), epochs=epochs)


class Range(NamedTuple):
    """A range of a branch, as `Ledger.offer` takes it."""

    key: StreamKey
    first: int
    h_before: bytes
    facts: list[tuple[bytes, list[Any]]]
    hashes: list[bytes]

    def part(self, first: int, last: int) -> Range:
        """Facts first..last of it."""
        a, b = first - self.first, last - self.first + 1
        return Range(self.key, first, self.hashes[a - 1] if a else self.h_before, self.facts[a:b], self.hashes[a:b])

    def singles(self) -> list[Range]:
        """Each fact as a range of its own."""
        return [self.part(self.first + i, self.first + i) for i in range(len(self.facts))]


def range_of(led: Ledger, first: int = 1, last: int | None = None, stream: Stream | None = None) -> Range:
    """Facts of a ledger's own (or another) stream, on the branch of its head."""
    stream = stream or led.own()
    rows = led.log.read(stream, first, last or stream.head[0], max_bytes=10**9, max_facts=10_000)
    return Range(stream.key, first, rows[0].prev, [(r.row, _values(r.row)) for r in rows], [r.h for r in rows])


def rows_range(key: StreamKey, rows: list[Any], *, first: int = 1, h_before: bytes | None = None) -> Range:
    """A range of facts made of any values, as a stranger or a later version could write them; bytes are taken as they are."""
    packed = [row if isinstance(row, bytes) else pack(row) for row in rows]
    before = genesis(*key) if h_before is None else h_before
    return Range(key, first, before, [(data, _values(data)) for data in packed], chain(before, packed))


def order_row(order_id: str = "A", status: int = 1, context: list[list[Any]] | None = None) -> list[Any]:
    """A good row."""
    row = to_row(event(order_id), NOW_MS, context or [])
    row[4] = status
    return row


def _values(row: bytes) -> list[Any]:
    try:
        values = unpack(row, max_bytes=1_000_000)
    except DecodeError:
        return []
    return values if isinstance(values, list) else []


def offer(led: Ledger, given: Range, now_ms: int = NOW_MS) -> Offered:
    """Offer in a transaction of its own."""
    led.begin()
    done = led.offer(given.key, given.first, given.h_before, given.facts, given.hashes, now_ms)
    led.commit()
    return done


Identity = tuple[str, int, int, bytes]
"""(node, epoch, seq, hash): means the same in every ledger"""


def heads(led: Ledger, order_id: str = "A") -> set[Identity]:
    """The heads of an order, by identity."""
    order = led.book.get(ORG, order_id)
    return set() if order is None else {(*led.log.by_sid(h.sid).key[:2], h.seq, h.h) for h in order.heads}


def orders(led: Ledger) -> dict[str, set[Identity]]:
    """All orders and their heads."""
    led.flush()
    return {order_id: heads(led, order_id) for (order_id,) in led.db.query("SELECT order_id FROM orders ORDER BY order_id")}


def runs(led: Ledger, key: StreamKey) -> list[tuple[int, int, int]]:
    """(first, last, kind) of the runs of a stream."""
    stream = led.log.get(key)
    return [] if stream is None else [(r.first, r.last, int(r.kind)) for r in stream.chain.runs]
