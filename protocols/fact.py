"""Facts as rows: the canonical msgpack arrays that are hashed, chained, logged, sent and stored for ever.

    order event  [1, org, order_id, source, status, happened_ms | nil, quality, recorded_ms,
                  region | nil, site | nil, actor | nil, details, context, clock | nil, replaces | nil]
    continues    [2, old_epoch, old_seq, old_h]
    withdrawn    [4, replaces, recorded_ms, why, actor | nil, clock | nil]
    context      sorted list of [node, epoch, seq, first 4 bytes of h]: what the author had seen of
                 others' facts on this order (sync rule 13)
    clock        how far recorded_ms can be believed (`Clock`); left out by version 1
    replaces     [epoch, seq, h] of a fact of the same node that stood in quarantine and whose causal place this one takes (rule 8);
                 where that was a fix itself, [epoch, seq, h, turn, epoch, seq, h, …]: its number, the place that all of them take, and
                 (epoch, seq, h) of each fix between
    withdrawn    its author gave up a fact that stood in quarantine: nothing stands in its place

Elements after the known ones belong to a later version: they are kept (`FactRow.extra`). An array of another kind is a later version's
fact: it is kept byte for byte and quarantined by who cannot read it. A row that came from outside is believed in nothing: `from_row`
checks every type and bound, because what it lets through is folded, shown and copied on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from itertools import pairwise
from typing import Any, Final, NamedTuple

from protocols import limits
from protocols.codec import pack
from protocols.details import INT64_MAX, check_details, check_text
from protocols.errors import DecodeError, InvalidInput
from protocols.event import LAST_MS, OrderEvent, TimeQuality, check_org
from protocols.lifecycle import Status

ORDER_EVENT: Final = 1
CONTINUES: Final = 2
WITHDRAWN: Final = 4
WHY_CHARS: Final = 200
FIXES_NAMED: Final = 16

HASH_BYTES: Final = 8
CONTEXT_HASH_BYTES: Final = 4
_ORDER_EVENT_ITEMS: Final = 13
_KNOWN_ITEMS: Final = 15
_GENESIS: Final = b"longshore/stream/1"
_NODE: Final = re.compile(rf"[a-z0-9][a-z0-9-]{{0,{limits.NODE_CHARS - 1}}}")
STATUSES: Final = {int(status): status for status in Status}
QUALITIES: Final = {int(quality): quality for quality in TimeQuality}

Context = list[list[Any]]
"""sorted [node, epoch, seq, 4 bytes of h]"""

Named = tuple[int, int, bytes]
"""(epoch, seq, h) of a fact of the same node"""


class Clock(IntEnum):
    """How far a node could believe its own clock. The codes are on the wire; one that nobody here knows counts as not said."""

    UNSET = 0
    FLOOR = 1
    NTP = 2
    HUB = 3


CLOCKS: Final = {int(clock): clock for clock in Clock}


@dataclass(frozen=True, slots=True)
class Replaces:
    """What a fix stands for. `target` stood in quarantine; `place` is where the first of them stood; `turn` counts the fixes from 1.

    `between`: refused fixes of the same place, before `target`: who cannot read that one would not know that they are done with.
    """

    target: Named
    turn: int
    place: Named
    between: tuple[Named, ...] = ()

    @property
    def all(self) -> tuple[Named, ...]:
        """Every fact that is done with."""
        return tuple(dict.fromkeys((self.place, self.target, *self.between)))

    def next(self, target: Named) -> Replaces:
        """What a fix of this fix stands for; `target` is this one."""
        between = self.between if self.target == self.place else (*self.between, self.target)
        return Replaces(target, self.turn + 1, self.place, between[-FIXES_NAMED:])

    def to_list(self) -> list[Any]:
        """The wire form."""
        if self.turn == 1:
            return list(self.target)
        return [*self.target, self.turn, *self.place, *(part for named in self.between for part in named)]


class FactRow(NamedTuple):
    """An order event as its author recorded it, with what it had seen. `extra`: elements only a later version understands.

    `clock`: what the author thought of its own clock; None: it did not say. `replaces`: it is a fix of a fact that was refused.
    The fields of an `OrderEvent` first. A tuple, because there is one per fact of a backlog: a frozen dataclass takes four times as long to
    make.
    """

    org: str
    order_id: str
    source: str
    status: Status
    happened_ms: int | None
    quality: TimeQuality
    region: str | None
    site: str | None
    actor: str | None
    details: dict[str, object]
    recorded_ms: int
    context: Context
    extra: tuple[Any, ...] = ()
    clock: Clock | None = None
    replaces: Replaces | None = None

    @property
    def idempotency_key(self) -> None:
        """It stays at the node."""
        return


@dataclass(frozen=True, slots=True)
class Continues:
    """The first record of a new epoch: the author's own past goes on here, from (old_epoch, old_seq, old_h) (sync rule 2)."""

    old_epoch: int
    old_seq: int
    old_h: bytes


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Its author gave up a fact that stood in quarantine. `why` and `actor` are for people."""

    replaces: Replaces
    recorded_ms: int
    why: str
    actor: str | None = None
    clock: Clock | None = None


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


def to_row(
    event: OrderEvent | FactRow, recorded_ms: int, context: Context, *, clock: Clock | None = None, replaces: Replaces | None = None
) -> list[Any]:
    """The row of a new fact. `recorded_ms`: when its author took it in, by the author's clock. The idempotency key stays at the node."""
    row = [
        ORDER_EVENT, event.org, event.order_id, event.source, int(event.status), event.happened_ms, int(event.quality), recorded_ms,
        event.region, event.site, event.actor, event.details, context,
    ]  # fmt: skip
    if replaces is not None:
        return [*row, None if clock is None else int(clock), replaces.to_list()]
    return row if clock is None else [*row, int(clock)]


def withdrawn_row(w: Withdrawn) -> list[Any]:
    """The row that gives up a fact."""
    row = [WITHDRAWN, w.replaces.to_list(), w.recorded_ms, w.why, w.actor]
    return row if w.clock is None else [*row, int(w.clock)]


def continues_row(old_epoch: int, seq: int, h: bytes) -> list[Any]:
    """The row that opens a new epoch."""
    return [CONTINUES, old_epoch, seq, h]


# ------------------------------------------------------------------ rows in


def from_row(row: object) -> FactRow:
    """The order event in a row from outside, every element checked. Raises only DecodeError, whose reason fits a quarantine list."""
    if type(row) is not list or len(row) < _ORDER_EVENT_ITEMS or row[0] != ORDER_EVENT or type(row[0]) is not int:
        raise DecodeError(_not_an_order_event(row))
    _, org, order_id, source, status, happened_ms, quality, recorded_ms, region, site, actor, details, context = row[:_ORDER_EVENT_ITEMS]
    if type(status) is not int or status not in STATUSES:
        raise DecodeError(f"status: {_number(status)} is no code known here")
    if type(recorded_ms) is not int or not 0 <= recorded_ms <= LAST_MS:
        raise DecodeError("recorded_ms: not a time")
    if context != [] or type(context) is not list:
        check_context(context)
    try:
        return FactRow(
            check_org(org),
            check_text(order_id, "order_id", "", limits.ORDER_ID_CHARS),
            check_text(source, "source", "", limits.TEXT_CHARS),
            STATUSES[status],
            happened_ms,
            _checked_quality(quality, happened_ms),
            None if region is None else check_text(region, "region", "", limits.TEXT_CHARS),
            None if site is None else check_text(site, "site", "", limits.TEXT_CHARS),
            None if actor is None else check_text(actor, "actor", "", limits.TEXT_CHARS),
            check_details(details),
            recorded_ms,
            context,
            *_beyond(row),
        )
    except InvalidInput as error:
        raise DecodeError(error.reason) from error


def _beyond(row: list[Any]) -> tuple[tuple[Any, ...], Clock | None, Replaces | None]:
    """What stands behind the elements of version 1: (extra, clock, replaces)."""
    if len(row) == _ORDER_EVENT_ITEMS:
        return (), None, None
    said = row[_ORDER_EVENT_ITEMS + 1] if len(row) > _ORDER_EVENT_ITEMS + 1 else None
    return tuple(row[_KNOWN_ITEMS:]), _clock(row[_ORDER_EVENT_ITEMS]), None if said is None else _read_replaces(said)


def _clock(value: object) -> Clock | None:
    """A later version may know more of clocks: that is no reason to refuse its fact."""
    return CLOCKS.get(value) if type(value) is int else None


def _read_replaces(value: object) -> Replaces:
    if type(value) is not list or len(value) < 3:
        raise DecodeError("replaces: [epoch, seq, h] or [epoch, seq, h, turn, epoch, seq, h] is expected")
    target = _named(value[:3])
    if len(value) < 7:
        return Replaces(target, 1, target)
    turn = value[3]
    if type(turn) is not int or not 2 <= turn <= INT64_MAX:
        raise DecodeError("replaces: the number of a fix of a fix is not from 2 to 2^63-1")
    if len(value) > 7 + 3 * FIXES_NAMED or (len(value) - 7) % 3:
        raise DecodeError(f"replaces: at most {FIXES_NAMED} fixes between, each [epoch, seq, h]")
    return Replaces(target, turn, _named(value[4:7]), tuple(_named(value[i : i + 3]) for i in range(7, len(value), 3)))


def _named(point: list[Any]) -> Named:
    epoch, seq, h = point
    if type(epoch) is not int or type(seq) is not int or not (1 <= epoch <= INT64_MAX and 1 <= seq <= INT64_MAX):
        raise DecodeError("replaces: epoch or seq is not a number from 1 to 2^63-1")
    if type(h) is not bytes or len(h) != HASH_BYTES:
        raise DecodeError(f"replaces: the hash is not {HASH_BYTES} bytes")
    return epoch, seq, h


def _not_an_order_event(row: object) -> str:
    if type(row) is not list:
        return f"a fact is an array, not {type(row).__name__}"
    if not row or type(row[0]) is not int or row[0] != ORDER_EVENT:
        return f"kind {_number(row[0]) if row else 'missing'} is not an order event"
    return f"an order event of {len(row)} elements, at least {_ORDER_EVENT_ITEMS} are needed"


def _number(value: object) -> str:
    return str(value) if type(value) is int else type(value).__name__


def _checked_quality(quality: object, happened_ms: object) -> TimeQuality:
    if type(quality) is not int or quality not in QUALITIES:
        raise DecodeError(f"quality: {_number(quality)} is no code known here")
    if quality == TimeQuality.UNKNOWN:
        if happened_ms is not None:
            raise DecodeError("happened_ms: a time, though it is said to be unknown")
    elif type(happened_ms) is not int or not 0 <= happened_ms <= LAST_MS:
        raise DecodeError("happened_ms: not a time")
    return QUALITIES[quality]


def check_context(context: object) -> None:
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


def read_withdrawn(row: object) -> Withdrawn:
    """The record that gives up a fact, checked. Raises only DecodeError. Elements after the known ones are left to later versions."""
    if type(row) is not list or len(row) < 5 or type(row[0]) is not int or row[0] != WITHDRAWN:
        raise DecodeError("not a record that withdraws a fact")
    _, replaces, recorded_ms, why, actor = row[:5]
    if type(recorded_ms) is not int or not 0 <= recorded_ms <= LAST_MS:
        raise DecodeError("withdrawn: recorded_ms is not a time")
    try:
        check_text(why, "why", "", WHY_CHARS)
        said = None if actor is None else check_text(actor, "actor", "", limits.TEXT_CHARS)
    except InvalidInput as error:
        raise DecodeError(f"withdrawn: {error.reason}") from error
    return Withdrawn(_read_replaces(replaces), recorded_ms, why, said, _clock(row[5]) if len(row) > 5 else None)
