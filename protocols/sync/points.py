"""What a hello says of an own stream: enough points of its chain to find where it and the hub's part, however far below (rule 5); and
which of the hub's points on it are not ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from protocols.messages import Point, RunStated, StreamHeld
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


def foreign(strange: Sequence[RunStated], mine: Sequence[RunStated], freed_seq: int) -> bool:
    """Do runs that do not end on our chain show that somebody else wrote to the stream? Of what we freed we know no hashes any more: there
    they do where they hold seqs that one of our own runs holds too."""
    return any(run.last > freed_seq or any(m.first <= run.last and run.first <= m.last for m in mine) for run in strange)
