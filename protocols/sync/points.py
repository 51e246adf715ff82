"""What a hello says of an own stream: enough points of its chain to find where it and the hub's part, however far below (rule 5)."""

from __future__ import annotations

from typing import Final

from protocols.messages import Point, StreamHeld
from protocols.streams import Stream, StreamLog
from protocols.sync.intervals import Intervals

POINTS: Final = 32
BELIEVED: Final = 4
"""ends of what was believed received that a hello names too, beside its points"""


def held_of(log: StreamLog, stream: Stream, believed: Intervals) -> StreamHeld:
    """The head, points at doubling distances back, and how far the hub was `believed` to hold it: branches may part far below."""
    seq, h = stream.head
    seqs = {last: None for _, last in list(believed)[-BELIEVED:]}
    step = 1
    while seq - step > stream.freed_seq and len(seqs) < POINTS:
        seqs[seq - step] = None
        step *= 2
    points: list[Point] = []
    for at in sorted(seqs, reverse=True):
        found = log.hash_at(stream, at) if stream.freed_seq < at < seq else None
        if found is not None:
            points.append((at, found))
    return StreamHeld(stream.key.epoch, stream.key.cls, (seq, h), tuple(points), stream.freed_seq)
