"""What a row is, as far as it can be read here: the one place that knows every kind of fact."""

from __future__ import annotations

from protocols.codec import unpack_own
from protocols.errors import DecodeError
from protocols.fact import CONTINUES, WITHDRAWN, FactRow, from_row, read_continues, read_withdrawn
from protocols.fixes import unfit
from protocols.streams import StreamKey
from protocols.telemetry import is_telemetry, read_telemetry


def kind_of(values: object) -> int:
    """What sort of row it is, as far as its first element says; 0 for no row at all."""
    return values[0] if isinstance(values, list) and values and type(values[0]) is int else 0


def readable(values: object, key: StreamKey | None = None, seq: int = 0) -> tuple[FactRow | None, str]:
    """A fact of an order; or (None, "") for one that is none; or (None, why it cannot be read here).

    `key`, `seq`: where it stands; a fix is held against that.
    """
    try:
        kind = kind_of(values)
        if kind == CONTINUES:
            read_continues(values)
            return None, ""
        if is_telemetry(values):
            read_telemetry(values)
            return None, ""
        if kind == WITHDRAWN:
            given_up = read_withdrawn(values)
            return None, unfit(key, seq, given_up) if key is not None else ""
        fact = from_row(values)
    except DecodeError as e:
        return None, e.reason
    why = unfit(key, seq, fact) if key is not None and fact.replaces is not None else ""
    return (None, why) if why else (fact, "")


def parse_row(row: bytes) -> FactRow:
    """A logged order fact, read: it was judged readable before it was logged as one. Errors: DecodeError."""
    return from_row(unpack_own(row))
