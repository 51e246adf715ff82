"""An order of the view in memory, and how it lies in a row of the view. Pure: shared by every engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from protocols import merged
from protocols.errors import InvalidInput
from protocols.event import parse_time
from protocols.fact import FactRow
from protocols.merge import Head, dump_heads, load_heads

PROMISE: Final = "expectedDelivery"
COLUMNS: Final = (
    "okey", "org", "order_id", "status", "source", "region", "site", "node", "happened_ms", "quality", "received_ms", "facts",
    "head_count", "heads", "covered", "conflict", "abnormal", "expected_ms", "pos", "held", "counted",
)  # fmt: skip
"""of the view, in the order of `values`"""

Value = int | str | bytes | None


@dataclass(slots=True, eq=False)
class Order:
    """An order of the view in memory; the columns of its row, with the heads unpacked."""

    okey: int
    org: str
    order_id: str
    status: int = 0
    source: str = ""
    region: str | None = None
    site: str | None = None
    node: str = ""
    happened_ms: int | None = None
    quality: int = 0
    received_ms: int = 0
    facts: int = 0
    heads: tuple[Head, ...] = ()
    covered: bool = True
    conflict: bool = False
    abnormal: bool = False
    expected_ms: int | None = None
    pos: int = 0
    held: bool = False
    """some open conflict says that it rests until settled"""
    counted: merged.Counted = field(default_factory=dict)
    stored: bool = False
    again: bool = False
    """to be folded from the log before it is written"""
    moved: bool = False
    """region or site are not those of its row"""
    version: int = 0
    """of its row, where several writers may change it: what is written stands on the row as it was read"""


def enter(row: Sequence[Any]) -> Order:
    """An order from its row of `COLUMNS`."""
    heads = load_heads(row[13])
    flags = [bool(flag) for flag in row[14:17]]
    values: list[Any] = [*row[:12], heads, *flags, *row[17:19], bool(row[19]), merged.load(row[20])]
    order = Order(*values)
    order.stored = True
    return order


def values(o: Order) -> tuple[Value, ...]:
    """Its row."""
    return (
        o.okey, o.org, o.order_id, o.status, o.source, o.region, o.site, o.node, o.happened_ms, o.quality, o.received_ms, o.facts,
        len(o.heads), dump_heads(o.heads), o.covered, o.conflict, o.abnormal, o.expected_ms, o.pos, o.held, merged.dump(o.counted),
    )  # fmt: skip


def show(order: Order, fact: FactRow, node: str) -> None:
    """Let the order show what a fact says."""
    if order.site != fact.site or order.region != fact.region:
        order.region, order.site, order.moved = fact.region, fact.site, True
    order.status, order.source = int(fact.status), fact.source
    order.happened_ms, order.quality, order.node = fact.happened_ms, int(fact.quality), node


def promise(fact: FactRow) -> int | None:
    """When the goods are expected, in ms since 1970, where the details say so in a way that can be read."""
    said = fact.details.get(PROMISE)
    return _promised(said) if type(said) is str else None


@lru_cache(maxsize=4096)
def _promised(said: str) -> int | None:
    try:
        return parse_time(said, PROMISE)
    except InvalidInput:
        return None
