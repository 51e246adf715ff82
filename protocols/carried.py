"""What a node says of others' streams that it carries: in its hello, so that the hub states them too; in its heartbeat, for the balance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from protocols import elements, limits
from protocols.elements import epoch, flag, items, small, text, tuple_of, whole

POINTS_CARRIED: Final = 256
"""of one stream that are named at most"""

Point = tuple[int, bytes]
"""(seq, chain hash at it)"""


@dataclass(frozen=True, slots=True)
class StreamCarried:
    """A stream in custody, with points of it to be told about: where its branches end here, and some below.

    `frames`: as its author signed them, so that what the hub says to the author is of use here, too; not only as they came down."""

    node: str
    epoch: int
    cls: int
    points: tuple[Point, ...]
    frames: bool = True

    def to_list(self) -> list[Any]:
        """The wire form."""
        return [self.node, self.epoch, self.cls, [list(p) for p in self.points], self.frames]

    @classmethod
    def parse(cls, value: object) -> StreamCarried:
        """Checked. Errors: DecodeError."""
        node, number, klass, points, frames = items(value, 4, True)
        return cls(text(node, limits.NODE_CHARS), epoch(number), small(klass), elements.points(points, POINTS_CARRIED), flag(frames))


@dataclass(frozen=True, slots=True)
class CustodyStated:
    """What a node holds of others' facts that are not settled: facts, bytes, when the oldest was taken (its own clock), facts by author."""

    events: int
    bytes: int
    oldest_ms: int | None
    by_author: tuple[tuple[str, int], ...] = ()

    def to_list(self) -> list[Any]:
        """The wire form."""
        return [self.events, self.bytes, self.oldest_ms, [list(pair) for pair in self.by_author]]

    @classmethod
    def parse(cls, value: object) -> CustodyStated | None:
        """Checked; nil stands for none. Errors: DecodeError."""
        if value is None:
            return None
        events, size, oldest, by_author = items(value, 4)
        return cls(
            whole(events), whole(size), None if oldest is None else whole(oldest), tuple_of(by_author, _of_author, limits.STREAMS_STATED)
        )


def _of_author(value: object) -> tuple[str, int]:
    node, events = items(value, 2)
    return text(node, limits.NODE_CHARS), whole(events)
