"""What a heartbeat says of its node's clock (version 2): an element appended to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from protocols.clock import REGIMES_KEPT, Shift
from protocols.codec import INT63_MAX
from protocols.elements import epoch, items, seq, small, tuple_of, whole
from protocols.errors import DecodeError
from protocols.fact import Clock

_CLOCKS: Final = {int(clock): clock for clock in Clock}


@dataclass(frozen=True, slots=True)
class ClockStated:
    """`quality` of the clock that facts are stamped with now (None: one that nobody here knows); `offset_ms`: the wall clock minus the
    hub's, known to `within_ms`; `shifts`: own facts whose stamps are known to be off, and by how much."""

    quality: Clock | None
    offset_ms: int | None = None
    within_ms: int | None = None
    shifts: tuple[Shift, ...] = ()

    def to_list(self) -> list[Any]:
        """The wire form."""
        return [None if self.quality is None else int(self.quality), self.offset_ms, self.within_ms, [list(s) for s in self.shifts]]

    @classmethod
    def parse(cls, value: object) -> ClockStated | None:
        """The element, checked; None where it was left out. Errors: DecodeError."""
        if value is None:
            return None
        quality, offset_ms, within_ms, shifts = items(value, 4)
        return cls(
            None if quality is None else _CLOCKS.get(small(quality)),
            None if offset_ms is None else _signed(offset_ms),
            None if within_ms is None else whole(within_ms),
            tuple_of(shifts, _shift, REGIMES_KEPT),
        )


def _shift(value: object) -> Shift:
    of, klass, first, last, ms, within_ms = items(value, 6)
    out = Shift(epoch(of), small(klass), seq(first), seq(last), _signed(ms), whole(within_ms))
    if out.last < out.first:
        raise DecodeError("a shift covers first..last")
    return out


def _signed(value: object) -> int:
    if type(value) is not int or not -INT63_MAX <= value <= INT63_MAX:
        raise DecodeError("expected a whole number of 63 bits and a sign")
    return value
