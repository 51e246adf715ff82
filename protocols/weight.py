"""What waits in a stream, weighed as it changes: facts above the settled point, and their bytes.

Each row is weighed when it comes and when it goes, so asking costs what changed since, not the length of a long outage.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocols.sqlite import Db
from protocols.streams import Stream


@dataclass(slots=True)
class _Meter:
    """As last weighed: facts in (settled, head]."""

    settled: int
    freed: int
    head: int
    facts: int = 0
    size: int = 0


class Weights:
    """See the module. Reads the log: what is pending must have been written down."""

    def __init__(self, db: Db) -> None:
        self._db = db
        self._meters: dict[int, _Meter] = {}

    def unsettled(self, stream: Stream) -> tuple[int, int, int | None]:
        """Facts above the settled point of a stream: how many, their bytes, and when the oldest was taken (None when there is none)."""
        meter = self._meters.get(stream.sid)
        if meter is None or meter.settled > stream.settled_seq or meter.freed != stream.freed_seq:
            meter = self._meters[stream.sid] = _Meter(stream.settled_seq, stream.freed_seq, stream.settled_seq)
        gone, came = self.weigh(stream, meter.settled, stream.settled_seq), self.weigh(stream, meter.head, stream.head[0])
        meter.facts += came[0] - gone[0]
        meter.size += came[1] - gone[1]
        meter.settled, meter.head = stream.settled_seq, stream.head[0]
        oldest = self._db.one("SELECT at_ms FROM log WHERE sid=? AND seq>? ORDER BY seq LIMIT 1", (stream.sid, stream.settled_seq))
        return meter.facts, meter.size, None if oldest is None else int(oldest[0])

    def weigh(self, stream: Stream, above: int, up_to: int) -> tuple[int, int]:
        """How many facts of above < seq <= up_to are logged, and the bytes of their rows."""
        row = self._db.one(
            "SELECT count(*), coalesce(sum(length(row)), 0) FROM log WHERE sid=? AND seq>? AND seq<=?", (stream.sid, above, up_to)
        )
        return (row[0], row[1]) if row else (0, 0)

    def forget(self, stream: Stream, first: int, last: int, facts: int, size: int) -> None:
        """Facts first..last are gone without being settled: `facts` rows of `size` bytes."""
        meter = self._meters.get(stream.sid)
        if meter is not None and meter.settled < first and last <= meter.head:
            meter.facts, meter.size = meter.facts - facts, meter.size - size
        elif meter is not None and last > meter.settled:
            del self._meters[stream.sid]  # across a border of what was weighed: weigh it all again
