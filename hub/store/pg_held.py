"""What a store on PostgreSQL says it holds: runs read from the primary key of its log, at one moment, whoever wrote them.

Rows are never deleted, so a run that was once read from the rows stays true as long as the database is the same, and only its gaps and what
lies above need to be read again: in those streams whose count of facts has moved. All of a run is read anew

- when the connection is new; and it is made anew when the database is not the one it was (`_SAME`: another cluster, timeline, table),
- when a stream's count went back, does not agree with its rows, or a run's last row is gone,
- and in turn, a stretch at each regular question after everything (`PERIODIC_FACTS`), so that damage does not stay unseen for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from hub.store.backups import Backups
from hub.store.log import joined, place
from hub.store.pg import LONG, STATEMENT_MS, Pg
from hub.store.pg_log import PgStreams
from protocols.chains import Run, RunKind
from protocols.errors import LedgerBroken
from protocols.messages import RunStated
from protocols.streams import Stream, StreamKey
from protocols.sync.intervals import Intervals

PERIODIC_FACTS: Final = 200_000
"""read again at each question after everything"""
MOST: Final = 2**63 - 1

_SAME: Final = """SELECT (SELECT value FROM meta WHERE key='incarnation'), 'log'::regclass::oid::bigint,
    pg_relation_filenode('log')::bigint, (SELECT oid::bigint FROM pg_database WHERE datname=current_database()),
    (SELECT system_identifier FROM pg_control_system()), (SELECT timeline_id FROM pg_control_checkpoint())"""
_STREAMS: Final = "SELECT s.sid, s.node, s.epoch, s.cls, s.facts, s.records, s.fork_seq FROM streams s"
_OF_KEYS: Final = """ JOIN unnest(?::text[], ?::bigint[], ?::smallint[]) k (node, epoch, cls)
    ON k.node COLLATE "C" = s.node AND k.epoch = s.epoch AND k.cls = s.cls"""
_ENDS: Final = """SELECT sid, seq, h, prev, starts, ends FROM (
      SELECT l.sid, l.seq, l.h, l.prev, (lag(l.seq) OVER w = l.seq - 1 AND lag(l.h) OVER w = l.prev) IS NOT TRUE AS starts,
        (lead(l.seq) OVER w = l.seq + 1 AND lead(l.prev) OVER w = l.h) IS NOT TRUE AS ends
      FROM unnest(?::integer[], ?::bigint[], ?::bigint[]) WITH ORDINALITY r (sid, first, last, n)
        JOIN log l ON l.sid = r.sid AND l.seq BETWEEN r.first AND r.last
      WINDOW w AS (PARTITION BY r.n ORDER BY l.seq)) x
    WHERE starts OR ends ORDER BY sid, seq"""
"""of streams without branches: the rows in which a stretch begins or ends"""
_LOST: Final = """SELECT DISTINCT r.sid FROM unnest(?::integer[], ?::bigint[], ?::bytea[]) r (sid, seq, h)
    WHERE NOT EXISTS (SELECT 1 FROM log l WHERE l.sid=r.sid AND l.seq=r.seq AND l.h=r.h)"""


class Held:
    """The streams of a store as one connection has read them. Each method that reads runs inside `Pg.moment`."""

    def __init__(self, db: Pg) -> None:
        self._db = db
        self._same: tuple[Any, ...] | None = None
        self.log = PgStreams(self._db)
        self.backups: Backups | None = None
        self._listed: list[tuple[Any, ...]] = []
        self._counted: dict[int, tuple[int, int, int | None]] = {}
        """by stream: facts, records and fork point as of the last reading that found them changed"""
        self._whole = False
        """were all streams read?"""
        self._turn = 0

    # ------------------------------------------------------------ reading

    def read(self, keys: Sequence[StreamKey] | None) -> list[Stream]:
        """Bring what is known of these streams, or of all, up to this moment. Those that the store does not know are left out."""
        same = self._db.one(_SAME)
        if self._same is not None and same != self._same:
            raise LedgerBroken(f"{self._db.place} is not the database it was", remedy="it is opened again, and read whole")
        self._same = same
        rows = self._db.query(_STREAMS) if keys is None else self._db.query(_STREAMS + _OF_KEYS, _lists(keys))
        streams = [self.log.made_known(row[0], StreamKey(row[1], row[2], row[3]), row[6]) for row in rows]
        moved = [
            (stream, row[4]) for stream, row in zip(streams, rows, strict=True) if self._counted.get(stream.sid) != (row[4], row[5], row[6])
        ]
        self._bring_up(moved)
        self._mend(streams, {row[0]: row[4] for row in rows}, in_turn=keys is None)
        for stream, row in zip(streams, rows, strict=True):
            if self._counted.get(stream.sid) != (row[4], row[5], row[6]):
                self._close_holes(stream, row[5])
                self._counted[stream.sid] = (row[4], row[5], row[6])
        self._whole = self._whole or keys is None
        return sorted(streams, key=lambda s: s.sid)

    def known(self) -> list[tuple[Stream, object]] | None:
        """All streams as they were last read, each with a mark that is another object once it has changed; None: not all were read to the
        end, which a statement that was cut short leaves behind."""
        if not self._whole or any(stream.sid not in self._counted for stream in self.log.all()):
            return None
        return [(stream, self._counted[stream.sid]) for stream in self.log.all()]

    def _bring_up(self, moved: Sequence[tuple[Stream, int]]) -> None:
        plain = [stream for stream, facts in moved if stream.chain.fork_point is None and facts >= _facts(stream)]
        self._fill(plain, [gap for stream in plain for gap in _gaps(stream)])
        for stream, facts in moved:
            if stream.chain.fork_point is not None or facts < _facts(stream):
                self._anew(stream)

    def _mend(self, streams: Sequence[Stream], facts: dict[int, int], *, in_turn: bool) -> None:
        """Read anew what cannot be as it was read."""
        ends = [(s.sid, r.last, r.h_last) for s in streams for r in s.chain.data()]
        lost = dict.fromkeys(sid for (sid,) in self._db.query(_LOST, [[e[n] for e in ends] for n in range(3)])) if ends else {}
        again = [s for s in streams if s.sid in lost or _facts(s) != facts[s.sid]]
        if in_turn:
            again += [s for s in self._next_in_turn(streams) if s not in again]
        for stream in again:
            self._anew(stream)

    def _next_in_turn(self, streams: Sequence[Stream]) -> list[Stream]:
        """Streams that make up a share of all facts, beginning behind those of the last time; none at the first, when all is new."""
        if not self._counted:
            return []
        left, out = PERIODIC_FACTS, []
        for stream in sorted(streams, key=lambda s: (s.sid <= self._turn, s.sid)):
            if left <= 0:
                break
            out.append(stream)
            left -= _facts(stream)
        self._turn = out[-1].sid if out else 0
        return out

    def _fill(self, streams: Sequence[Stream], gaps: Sequence[tuple[int, int, int]]) -> None:
        """Read the rows that lie in gaps."""
        if not gaps:
            return
        found: dict[int, list[Run]] = {}
        self._db.limit(LONG)
        for sid, seq, h, prev, starts, ends in self._db.query(_ENDS, [[gap[n] for gap in gaps] for n in range(3)]):
            runs = found.setdefault(sid, [])
            if starts:
                runs.append(Run(seq, prev, seq, h))
            if ends:
                runs[-1].last, runs[-1].h_last = seq, h
        self._db.limit(STATEMENT_MS)
        for stream in streams:
            if stream.sid in found:
                closed = [r for r in stream.chain.runs if r.kind is not RunKind.DATA]
                stream.chain.runs = sorted([*joined([*stream.chain.data(), *found[stream.sid]]), *closed], key=lambda r: (r.first, r.last))

    def _anew(self, stream: Stream) -> None:
        """All of a stream, from its rows alone. Of a forked one the trunk as of any other, what is above row by row."""
        fork = stream.chain.fork_point
        old = PgStreams(self._db)
        fresh = old.made_known(stream.sid, stream.key, fork)
        self._fill([fresh], [(stream.sid, 1, MOST if fork is None else fork)])
        if fork is not None:
            rows = self._db.query("SELECT seq, h, prev FROM log WHERE sid=? AND seq>? ORDER BY seq, h", (stream.sid, fork))
            fresh.chain.runs = joined([*fresh.chain.data(), *(Run(seq, prev, seq, h) for seq, h, prev in rows)])
        stream.chain = self.log.chain_of(stream, fresh.chain.runs)
        self._counted.pop(stream.sid, None)

    def _close_holes(self, stream: Stream, records: int) -> None:
        if records:
            sql = "SELECT first, h_before, last, h_last, kind FROM closures WHERE sid=? ORDER BY last DESC, h_last, first"
            place(stream.chain, [(r[0], r[1], r[2], r[3], r[4]) for r in self._db.query(sql, (stream.sid,))])

    # ------------------------------------------------------------ saying

    def backed_up(
        self, keys: Sequence[StreamKey] | None, *, required: bool
    ) -> tuple[dict[StreamKey, tuple[RunStated, ...]] | None, int | None]:
        """(what every restorable backup has of these streams, when the newest complete one was begun). After `read`."""
        listed = self._db.query("SELECT id, finished_ms, expired_ms, length(covers) FROM backups ORDER BY id")
        if self.backups is None or listed != self._listed:
            self.backups, self._listed = Backups(self._db, self.log), listed
        return self.backups.backed_up(keys, required=required), self.backups.newest_ms


def stated(stream: Stream) -> tuple[RunStated, ...]:
    """Its runs, as a statement has them."""
    return tuple(RunStated(r.first, r.h_before, r.last, r.h_last, r.kind) for r in stream.chain.runs)


def twins(stream: Stream) -> int:
    """Facts beyond the first at their seq."""
    if stream.chain.fork_point is None:
        return 0
    seqs = Intervals()
    for run in stream.chain.data():
        seqs.add(run.first, run.last)
    return _facts(stream) - sum(high - low + 1 for low, high in seqs)


def _facts(stream: Stream) -> int:
    return sum(r.last - r.first + 1 for r in stream.chain.runs if r.kind is RunKind.DATA)


def facts_of(stream: Stream) -> int:
    """How many facts of it are held."""
    return _facts(stream)


def _gaps(stream: Stream) -> list[tuple[int, int, int]]:
    """Where rows may have come that were not read yet: between the runs, and above."""
    out, at = [], 1
    for run in stream.chain.data():
        if run.first > at:
            out.append((stream.sid, at, run.first - 1))
        at = run.last + 1
    return [*out, (stream.sid, at, MOST)]


def _lists(keys: Sequence[StreamKey]) -> tuple[list[str], list[int], list[int]]:
    return [k.node for k in keys], [k.epoch for k in keys], [k.cls for k in keys]
