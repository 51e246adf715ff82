"""A batch before and after it is applied: what its facts say, which belong together, and what the live feed tells of them. Pure."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice, repeat
from typing import Any, Final

from hub.store.orders import Order
from hub.store.port import CHANGES_TOLD, Applied, Change, StoreFact
from protocols.codec import unpack, unpack_together
from protocols.errors import DecodeError
from protocols.fact import FactRow, from_row
from protocols.fact_columns import from_rows
from protocols.ledger import readable
from protocols.lifecycle import STATUS_NAMES
from protocols.limits import FRAME_UNPACKED_BYTES
from protocols.merge import Head
from protocols.streams import StreamKey

TOGETHER: Final = 400
"""rows that are unpacked in one go"""
_ROW_BYTES: Final = 4_000
_PLAIN_ITEMS: Final = 13
"""of a row of an order's event that its author had nothing to say of beside"""
_NAMES: Final = ("", *STATUS_NAMES)
"""by status code, which run from 1 without a gap"""

Read = tuple[FactRow | None, str]
"""a fact of an order; or (None, "") for one that is none; or (None, why it goes to quarantine)"""
Fresh = tuple[int, Head, Order, FactRow]
"""A new fact of an order, logged and about to be folded: its place in the batch, how the fold sees it, the order, the fact."""


def read_fact(f: StoreFact) -> Read:
    """What a fact on its way into the store says."""
    if f.quarantined:
        return None, f.quarantined
    if f.fact is not None:
        return f.fact, ""
    try:
        return readable(unpack(f.row, max_bytes=FRAME_UNPACKED_BYTES), f.stream, f.seq)
    except DecodeError as e:
        return None, e.reason


def read_all(facts: Sequence[StoreFact]) -> list[Read]:
    """`read_fact` of each: common rows are unpacked together, and whatever is not common, or cannot be read, is read by itself."""
    out: list[Read] = []
    for start in range(0, len(facts), TOGETHER):
        some = facts[start : start + TOGETHER]
        alone = any(f.fact is not None or f.quarantined or len(f.row) > _ROW_BYTES for f in some)
        values = None if alone else unpack_together([f.row for f in some])
        if values is None:
            out += map(read_fact, some)
            continue
        plain = from_rows(values)
        out += map(_read_values, some, values) if plain is None else zip(plain, repeat(""), strict=False)
    return out


def _read_values(f: StoreFact, values: Any) -> Read:
    if type(values) is list and (len(values) == _PLAIN_ITEMS or (len(values) == _PLAIN_ITEMS + 1 and type(values[-1]) is int)):
        with contextlib.suppress(DecodeError):
            return from_row(values), ""
    return read_fact(f)


def lanes(facts: Sequence[StoreFact]) -> dict[StreamKey, list[int]]:
    """The places of each stream's facts in the batch."""
    out: dict[StreamKey, list[int]] = {}
    for i, f in enumerate(facts):
        lane = out.get(f.stream)
        if lane is None:
            out[f.stream] = [i]
        else:
            lane.append(i)
    return out


def linked(lane: Sequence[int], facts: Sequence[StoreFact]) -> list[Sequence[int]]:
    """A lane in stretches in which each fact follows the one before on its chain."""
    starts: list[int] = []
    seq, h = facts[lane[0]].seq - 1, facts[lane[0]].prev
    for k, i in enumerate(lane):
        f = facts[i]
        if f.prev != h or f.seq != seq + 1:
            starts.append(k)
        seq, h = f.seq, f.h
    return [lane[a:b] for a, b in zip([0, *starts], [*starts, len(lane)], strict=True)]


def consecutive(facts: Sequence[StoreFact]) -> Iterator[list[StoreFact]]:
    """Facts grouped where each follows the one before it on its chain."""
    run: list[StoreFact] = []
    for f in facts:
        if run and (f.stream != run[-1].stream or f.seq != run[-1].seq + 1 or f.prev != run[-1].h):
            yield run
            run = []
        run.append(f)
    if run:
        yield run


def applied(fresh: Sequence[Fresh], facts: Sequence[StoreFact], new: int) -> Applied:
    """What is said of a batch of which `new` facts were new, as the orders stand after it."""
    tell = sample([order.conflict for _, _, order, _ in fresh], CHANGES_TOLD)
    received = Counter(facts[i].received_ms for i, _, _, _ in fresh)
    return Applied(new, len(facts) - new, [_change(facts, *fresh[n]) for n in tell], len(fresh) - len(tell), dict(received))


def sample(conflicts: Sequence[bool], room: int) -> Sequence[int]:
    """At most `room` places of changes, in their order. Conflicts come first, for they are what somebody must see; the rest is represented
    by the last, which are the freshest."""
    if len(conflicts) <= room:
        return range(len(conflicts))
    taken = dict.fromkeys([n for n, conflict in enumerate(conflicts) if conflict][-room:] if room > 0 else ())
    others = (n for n in range(len(conflicts) - 1, -1, -1) if n not in taken)
    return sorted([*taken, *islice(others, max(room, 0) - len(taken))])


def _change(facts: Sequence[StoreFact], i: int, head: Head, order: Order, fact: FactRow) -> Change:
    given = facts[i]
    status, now = _NAMES[fact.status], _NAMES[order.status if order.heads else fact.status]
    return Change(
        order.org, order.order_id, status, now, fact.source, fact.site, fact.region, given.stream.node, fact.happened_ms, given.received_ms,
        order.conflict, head in order.heads,
    )  # fmt: skip
