"""What a node believes of its own streams while it sends them: what is received, what is under way, and in which lane."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from protocols.sync.intervals import Intervals
from protocols.topics import Channel


class Lane(Enum):
    """Live facts travel before backlog (rule 18); both are ranges of the same stream."""

    LIVE = Channel.LIVE
    BACKFILL = Channel.BACKFILL


@dataclass(slots=True)
class Flight:
    """A frame that was sent and not acknowledged yet."""

    sid: int
    first: int
    last: int
    lane: Lane
    sent_ms: int


@dataclass(slots=True)
class Progress:
    """What is believed of one own stream."""

    received: Intervals = field(default_factory=Intervals)
    busy: Intervals = field(default_factory=Intervals)
    """received or under way: what need not be sent now"""
    live_above: int = 0
    halves: dict[int, int] = field(default_factory=dict)
    """first seq of a range that was refused -> how many facts its next frame may have"""
