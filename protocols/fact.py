"""Facts as rows: the canonical msgpack arrays that are hashed, chained, logged, sent and stored for ever.

    order event  [1, org, order_id, source, status, happened_ms | nil, quality, recorded_ms,
                  region | nil, site | nil, actor | nil, details, context]
    continues    [2, old_epoch, old_seq, old_h]
    context      sorted list of [node, epoch, seq, first 4 bytes of h]: what the author had seen of
                 others' facts on this order (sync rule 13)

Elements after the known ones belong to a later version: they are kept (`FactRow.extra`). An array of another kind is a later version's
fact: it is kept byte for byte and quarantined by who cannot read it. A row that came from outside is believed in nothing: `from_row`
checks every type and bound, because what it lets through is folded, shown and copied on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from typing import Any, Final

from protocols import limits
from protocols.codec import pack
from protocols.details import INT64_MAX, check_details, check_text
from protocols.errors import DecodeError, InvalidInput
from protocols.event import LAST_MS, OrderEvent, TimeQuality, check_org
from protocols.lifecycle import Status

ORDER_EVENT: Final = 1
CONTINUES: Final = 2

HASH_BYTES: Final = 8
CONTEXT_HASH_BYTES: Final = 4
_ORDER_EVENT_ITEMS: Final = 13
_GENESIS: Final = b"longshore/stream/1"
_NODE: Final = re.compile(rf"[a-z0-9][a-z0-9-]{{0,{limits.NODE_CHARS - 1}}}")
_STATUSES: Final = {int(status): status for status in Status}
_QUALITIES: Final = {int(quality): quality for quality in TimeQuality}

Context = list[list[Any]]
"""sorted [node, epoch, seq, 4 bytes of h]"""


@dataclass(frozen=True, slots=True)
class FactRow(OrderEvent):
    """An order event as its author recorded it, with what it had seen. `extra`: elements only a later version understands."""

    recorded_ms: int = 0
    context: Context = field(default_factory=list)
    extra: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Continues:
    """The first record of a new epoch: the author's own past goes on here, from (old_epoch, old_seq, old_h) (sync rule 2)."""

    old_epoch: int
    old_seq: int
    old_h: bytes


# ------------------------------------------------------------------ the chain


def genesis(node: str, epoch: int, cls: int) -> bytes:
    """The 8 bytes that stand before the first fact of stream (node, epoch, cls): no two streams begin alike."""
    return blake2b(_GENESIS + pack([node, epoch, cls]), digest_size=HASH_BYTES).digest()


def chain(prev: bytes, rows: Sequence[bytes]) -> list[bytes]:
    """The hash at each of `rows` (packed facts) that follow a fact with hash `prev`: h = blake2b-8(previous h + row)."""
    hashes = []
    for row in rows:
        prev = blake2b(prev + row, digest_size=HASH_BYTES).digest()
        hashes.append(prev)
    return hashes


# ------------------------------------------------------------------ rows out


def to_row(event: OrderEvent, recorded_ms: int, context: Context) -> list[Any]:
    """The row of a new fact. `recorded_ms`: when its author took it in, by the author's clock. The idempotency key stays at the node."""
    return [
        ORDER_EVENT, event.org, event.order_id, event.source, int(event.status), event.happened_ms, int(event.quality), recorded_ms,
        event.region, event.site, event.actor, event.details, context,
    ]  # fmt: skip


def continues_row(old_epoch: int, seq: int, h: bytes) -> list[Any]:
    """The row that opens a new epoch."""
    return [CONTINUES, old_epoch, seq, h]


# ------------------------------------------------------------------ rows in


def from_row(row: object) -> FactRow:
    """The order event in a row from outside, every element checked. Raises only DecodeError, whose reason fits a quarantine list."""
    if type(row) is not list or len(row) < _ORDER_EVENT_ITEMS or row[0] != ORDER_EVENT or type(row[0]) is not int:
        raise DecodeError(_not_an_order_event(row))
    _, org, order_id, source, status, happened_ms, quality, recorded_ms, region, site, actor, details, context = row[:_ORDER_EVENT_ITEMS]
    if type(status) is not int or status not in _STATUSES:
        raise DecodeError(f"status: {_number(status)} is no code known here")
    if type(recorded_ms) is not int or not 0 <= recorded_ms <= LAST_MS:
        raise DecodeError("recorded_ms: not a time")
    if context != [] or type(context) is not list:
        _check_context(context)
    try:
        return FactRow(
            check_org(org),
            check_text(order_id, "order_id", "", limits.ORDER_ID_CHARS),
            check_text(source, "source", "", limits.TEXT_CHARS),
            _STATUSES[status],
            happened_ms,
            _checked_quality(quality, happened_ms),
            None if region is None else check_text(region, "region", "", limits.TEXT_CHARS),
            None if site is None else check_text(site, "site", "", limits.TEXT_CHARS),
            None if actor is None else check_text(actor, "actor", "", limits.TEXT_CHARS),
            check_details(details),
            None,
            recorded_ms,
            context,
            tuple(row[_ORDER_EVENT_ITEMS:]),
        )
    except InvalidInput as error:
        raise DecodeError(error.reason) from error


def _not_an_order_event(row: object) -> str:
    if type(row) is not list:
        return f"a fact is an array, not {type(row).__name__}"
    if not row or type(row[0]) is not int or row[0] != ORDER_EVENT:
        return f"kind {_number(row[0]) if row else 'missing'} is not an order event"
    return f"an order event of {len(row)} elements, at least {_ORDER_EVENT_ITEMS} are needed"


def _number(value: object) -> str:
    return str(value) if type(value) is int else type(value).__name__


def _checked_quality(quality: object, happened_ms: object) -> TimeQuality:
    if type(quality) is not int or quality not in _QUALITIES:
        raise DecodeError(f"quality: {_number(quality)} is no code known here")
    if quality == TimeQuality.UNKNOWN:
        if happened_ms is not None:
            raise DecodeError("happened_ms: a time, though it is said to be unknown")
    elif type(happened_ms) is not int or not 0 <= happened_ms <= LAST_MS:
        raise DecodeError("happened_ms: not a time")
    return _QUALITIES[quality]


def _check_context(context: object) -> None:
    """Sorted, without repeats, within bounds: two nodes that saw the same write the same bytes."""
    if type(context) is not list:
        raise DecodeError(f"context: a list, not {type(context).__name__}")
    if len(context) > limits.CONTEXT_ENTRIES:
        raise DecodeError(f"context: {len(context)} entries, at most {limits.CONTEXT_ENTRIES}")
    for entry in context:
        if type(entry) is not list or len(entry) != 4:
            raise DecodeError("context: an entry is [node, epoch, seq, 4 bytes of h]")
        _check_point(*entry)
    for lower, higher in pairwise(context):
        if not lower < higher:
            raise DecodeError("context: not sorted, or an entry twice")


def _check_point(node: object, epoch: object, seq: object, h4: object) -> None:
    if type(node) is not str or not _NODE.fullmatch(node):
        raise DecodeError("context: not a node name")
    if type(epoch) is not int or type(seq) is not int or not (1 <= epoch <= INT64_MAX and 1 <= seq <= INT64_MAX):
        raise DecodeError(f"context: epoch or seq of {node} is not a number from 1 to 2^63-1")
    if type(h4) is not bytes or len(h4) != CONTEXT_HASH_BYTES:
        raise DecodeError(f"context: the hash of {node} is not {CONTEXT_HASH_BYTES} bytes")


def read_continues(row: object) -> Continues:
    """The record that opens an epoch, checked. Raises only DecodeError. Elements after the known ones are left to later versions."""
    if type(row) is not list or len(row) < 4 or type(row[0]) is not int or row[0] != CONTINUES:
        raise DecodeError("not a record that continues an epoch")
    _, old_epoch, old_seq, old_h = row[:4]
    if type(old_epoch) is not int or type(old_seq) is not int or not (1 <= old_epoch <= INT64_MAX and 1 <= old_seq <= INT64_MAX):
        raise DecodeError("continues: epoch or seq is not a number from 1 to 2^63-1")
    if type(old_h) is not bytes or len(old_h) != HASH_BYTES:
        raise DecodeError(f"continues: the hash is not {HASH_BYTES} bytes")
    return Continues(old_epoch, old_seq, old_h)
