"""What the store says it holds: its runs, each checked against the primary key of the log before it is said.

The check is incremental: what was counted once since the file was opened is not counted again. Rows are never deleted here, so a run whose
rows are not all there means that the file was damaged; the runs of that stream are then made anew from the rows, the statement goes down,
and the hub hands the rest over again (sync.md, rules 10 and 12).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hub.store.log import StoreLog
from hub.store.port import StoreFact
from protocols.chains import Run, RunKind
from protocols.messages import RunStated
from protocols.sql import Sql
from protocols.sqlite import Db
from protocols.streams import Stream, StreamKey, StreamLog
from protocols.sync.intervals import Intervals

_FACT: Final = "l.seq, l.h, l.prev, l.row, l.received_ms, q.reason FROM log l LEFT JOIN quarantine q USING (sid, seq, h)"


class Verified:
    """The runs of a store and how far each was checked. Lives as long as the connection."""

    def __init__(self, db: Db, log: StoreLog) -> None:
        self._db, self._log = db, log
        self.counted: dict[tuple[int, int, bytes], int] = {}
        """(sid, first, hash before it) of a run: the last seq up to which its rows were counted"""

    def state(self, streams: Sequence[StreamKey] | None) -> dict[StreamKey, tuple[RunStated, ...]]:
        """What is held of these streams, or of all. A stream that is not known has no runs."""
        out: dict[StreamKey, tuple[RunStated, ...]] = {}
        for key in streams if streams is not None else [s.key for s in self._log.all()]:
            stream = self._log.get(key)
            out[key] = self._state(stream) if stream is not None else ()
        return out

    def _state(self, stream: Stream) -> tuple[RunStated, ...]:
        data = stream.chain.data()
        if not all(self._complete(stream, run, data) for run in data):
            self._log.rebuild(stream)
        return tuple(RunStated(r.first, r.h_before, r.last, r.h_last, r.kind) for r in stream.chain.runs)

    def _complete(self, stream: Stream, run: Run, data: Sequence[Run]) -> bool:
        """Is there a row for each seq of a run, and the row that it ends in?"""
        place = (stream.sid, run.first, run.h_before)
        done = min(self.counted.get(place, run.first - 1), run.last)
        if self._db.one("SELECT 1 FROM log WHERE sid=? AND seq=? AND h=?", (stream.sid, run.last, run.h_last)) is None:
            return False
        if done < run.last:
            shared = any(o is not run and o.first <= run.last and run.first <= o.last for o in data)
            if (self._walked if shared else self._count)(stream.sid, run, done + 1) != run.last - done:
                return False
            self.counted[place] = run.last
        return True

    def _count(self, sid: int, run: Run, first: int) -> int:
        row = self._db.one("SELECT count(*) FROM log WHERE sid=? AND seq BETWEEN ? AND ?", (sid, first, run.last))
        return int(row[0]) if row else 0

    def _walked(self, sid: int, run: Run, first: int) -> int:
        """Rows of a run whose seqs another branch has too: counted along the chain."""
        row = self._db.one(
            """WITH RECURSIVE back(seq, h) AS (SELECT ?2, ?3 UNION ALL
                 SELECT l.seq - 1, l.prev FROM back JOIN log l ON l.sid = ?1 AND l.seq = back.seq AND l.h = back.h WHERE back.seq >= ?4)
               SELECT count(*) - 1 FROM back""",
            (sid, run.last, run.h_last, first),
        )
        return int(row[0]) if row else 0

    def facts(self, key: StreamKey, run: RunStated, limit: int) -> list[StoreFact]:
        """Facts of a run that was stated, lowest first, at most `limit`; [] for a stream that is not known."""
        return read_facts(self._db, self._log, key, run, limit)


def read_facts(db: Sql, log: StreamLog, key: StreamKey, run: RunStated, limit: int) -> list[StoreFact]:
    """See `CentralStore.facts`."""
    stream = log.get(key)
    if stream is None or run.kind is not RunKind.DATA:
        return []
    last = min(run.last, run.first + max(limit, 0) - 1)
    rows = db.query(f"SELECT {_FACT} WHERE l.sid=? AND l.seq BETWEEN ? AND ? ORDER BY l.seq", (stream.sid, run.first, last))
    if stream.chain.fork_point is not None:
        stated = Run(run.first, run.h_before, run.last, run.h_last)
        branch = dict.fromkeys((f.seq, f.h) for f in log.read_branch(stream, stated, run.first, last))
        rows = [r for r in rows if (r[0], r[1]) in branch]
    return [StoreFact(key, seq, h, prev, row, received_ms, reason or "") for seq, h, prev, row, received_ms, reason in rows]


def closed_by_records(runs: Sequence[Run]) -> dict[str, int]:
    """Of one stream: the seqs at which there is a record and no data, by reason. A seq that is gone on two branches is one seq."""
    accounted = Intervals()
    reasons: dict[str, int] = {}
    for run in sorted(runs, key=lambda r: (r.kind, r.first, r.last)):
        if run.kind is not RunKind.DATA:
            seqs = sum(high - low + 1 for low, high in accounted.missing(run.first, run.last))
            name = run.kind.name.lower()
            if seqs:
                reasons[name] = reasons.get(name, 0) + seqs
        accounted.add(run.first, run.last)
    return reasons
