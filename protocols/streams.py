"""The streams of a database and the facts logged of each: the log, its runs, and what they say about branches.

`StreamLog` is shared by every ledger and by the central store on SQLite. It keeps the runs in memory and writes down those that changed at
`flush`, inside the owner's transaction; after a failed commit the owner throws it away and builds another from disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from protocols.chains import RUN_KINDS, Chain, Points, Run, RunKind
from protocols.fact import genesis
from protocols.freed import FreedHashes
from protocols.limits import RUNS_HELD, STREAMS_MENTIONED
from protocols.sql import Sql

ASKED: Final = 500
"""facts that the log is asked for at once"""
RUNS_STAYED: Final = RUNS_HELD // 2
"""facts whose rows stayed when all around them was freed, and that are runs again when that is a hole again"""


class StreamKey(NamedTuple):
    """Whose stream: node, epoch (random, made with the database), class (0 orders, 1 telemetry)."""

    node: str
    epoch: int
    cls: int


class LogRow(NamedTuple):
    """A fact as it lies in the log. `okey` is the order it is folded into, None for all else."""

    sid: int
    seq: int
    h: bytes
    prev: bytes
    okey: int | None
    at_ms: int
    row: bytes


@dataclass(slots=True)
class Stream:
    """One stream as this database knows it."""

    sid: int
    key: StreamKey
    own: bool
    chain: Chain
    settled_seq: int = 0
    freed_seq: int = 0
    freed_h: bytes = b""
    told_fork: int | None = None
    """what a hub said: above this seq the stream has branches, of which only some facts are here"""
    changed: dict[int, Stream] | None = field(default=None, repr=False, compare=False)
    """its log's list of those that are to be written: a commit does not look through a hundred thousand that are not"""
    _dirty: bool = False

    @property
    def dirty(self) -> bool:
        """Is it to be written with the next commit?"""
        return self._dirty

    @dirty.setter
    def dirty(self, dirty: bool) -> None:
        self._dirty = dirty
        if dirty and self.changed is not None:
            self.changed[self.sid] = self

    @property
    def fork_point(self) -> int | None:
        """The highest seq up to which no two hashes are known, here or to the hub; None where the stream is not forked."""
        own = self.chain.fork_point
        return own if self.told_fork is None else self.told_fork if own is None else min(own, self.told_fork)

    @property
    def head(self) -> tuple[int, bytes]:
        """Highest fact held, (0, genesis) before the first."""
        top = self.chain.top()
        return (top.last, top.h_last) if top is not None else (0, self.chain.genesis)


class _Points:
    """`chains.Points` over the log of one stream."""

    __slots__ = ("_log", "_sid")

    def __init__(self, log: StreamLog, sid: int) -> None:
        self._log, self._sid = log, sid

    def has(self, seq: int, h: bytes) -> bool:
        return self._log.has(self._sid, seq, h)

    def have(self, points: Sequence[tuple[int, bytes]]) -> set[tuple[int, bytes]]:
        return self._log.have(self._sid, points)

    def walk(self, seq: int, h: bytes, down_to: int) -> bytes | None:
        return self._log.walk(self._sid, seq, h, down_to)


def points_of(log: StreamLog, sid: int) -> Points:
    """What is logged of one stream, as its chain asks for it."""
    return _Points(log, sid)


class StreamLog:
    """All streams of one database. Not thread-safe: it belongs to the connection's owner."""

    def __init__(self, db: Sql) -> None:
        self._db = db
        self._by_key: dict[StreamKey, Stream] = {}
        self._by_sid: dict[int, Stream] = {}
        self._by_node: dict[str, list[Stream]] = {}
        self._changed: dict[int, Stream] = {}
        self._pending: list[LogRow] = []
        self.forked_nodes: dict[str, None] = {}
        self.freed = FreedHashes(db)
        self.came_late: list[tuple[int, int, bytes]] = []
        """facts (sid, seq, h) that were logged where all around them had been freed: for who frees; after a restart their rows stay"""
        self.mentioned = 0
        """streams of others of which nothing is here: only contexts name them"""
        self._load()

    def _load(self) -> None:
        runs: dict[int, list[Run]] = {}
        for sid, first, h_before, last, h_last, kind in self._db.query("SELECT sid, first, h_before, last, h_last, kind FROM runs"):
            runs.setdefault(sid, []).append(Run(first, h_before, last, h_last, RUN_KINDS[kind] if kind in RUN_KINDS else RunKind(kind)))
        for sid, node, epoch, cls, own, settled, freed, freed_h, told in self._db.query(
            "SELECT sid, node, epoch, cls, own, settled_seq, freed_seq, freed_h, told_fork FROM streams ORDER BY sid"
        ):
            key = StreamKey(node, epoch, cls)
            points = _Points(self, sid)
            stream = Stream(sid, key, bool(own), Chain(genesis(*key), points), settled, freed, freed_h or b"", told_fork=told)
            self._by_sid[sid] = stream  # its runs are compared by what is logged and freed of it
            stream.chain = Chain(stream.chain.genesis, points, runs.get(sid, ()))
            self._enter(stream)

    def _enter(self, stream: Stream) -> None:
        self._by_key[stream.key] = self._by_sid[stream.sid] = stream
        stream.changed = self._changed
        self._by_node.setdefault(stream.key.node, []).append(stream)
        self.mentioned += not stream.own and not stream.chain.runs
        self._note_fork(stream)

    def _note_fork(self, stream: Stream) -> None:
        if stream.chain.fork_point is not None:
            self.forked_nodes[stream.key.node] = None

    # ------------------------------------------------------------ streams

    def get(self, key: StreamKey) -> Stream | None:
        """The stream, if this database has heard of it."""
        return self._by_key.get(key)

    def by_sid(self, sid: int) -> Stream:
        """The stream with this local number."""
        return self._by_sid[sid]

    def open(self, key: StreamKey, *, own: bool = False) -> Stream:
        """The stream, made known here if it was not."""
        stream = self._by_key.get(key)
        if stream is None:
            sid = len(self._by_sid) + 1
            self._db.run("INSERT INTO streams (sid, node, epoch, cls, own) VALUES (?, ?, ?, ?, ?)", (sid, *key, int(own)))
            stream = Stream(sid, key, own, Chain(genesis(*key), _Points(self, sid)))
            self._enter(stream)
        return stream

    def begun_elsewhere(self, key: StreamKey) -> bool:
        """Was a stream of this node's name heard of before it was written to here? Then another machine writes it (rule 2)."""
        stream = self._by_key.get(key)
        return stream is not None and not stream.own

    def room_for(self, keys: Iterable[StreamKey]) -> bool:
        """May these be made known, or would streams of which nothing is here become too many?"""
        new = {key: None for key in keys if key not in self._by_key}
        return not new or self.mentioned + len(new) <= STREAMS_MENTIONED

    def all(self) -> list[Stream]:
        """Every stream, in the order in which they became known."""
        return list(self._by_sid.values())

    def nodes(self) -> list[str]:
        """Whose streams these are, each once, in the order in which they became known."""
        return list(self._by_node)

    def of_node(self, node: str) -> list[Stream]:
        """A node's streams, oldest acquaintance first."""
        return list(self._by_node.get(node, ()))

    # ------------------------------------------------------------ the ancestry that merge asks for

    def fork_point(self, sid: int) -> int | None:
        """See `merge.Ancestry`."""
        return self._by_sid[sid].fork_point

    def on_chain(self, sid: int, tip_seq: int, tip_h: bytes, seq: int, h: bytes) -> bool | None:
        """See `merge.Ancestry`."""
        at = self.below(sid, tip_seq, tip_h, seq)
        return None if at is None else at == h

    def below(self, sid: int, tip_seq: int, tip_h: bytes, seq: int) -> bytes | None:
        """`walk` from a tip that may be named as a context names it: by 4 bytes, which the log completes."""
        tips = [tip_h] if len(tip_h) == 8 else self._completions(sid, tip_seq, tip_h)
        return self.walk(sid, tip_seq, tips[0], seq) if tips else None

    def _completions(self, sid: int, seq: int, start: bytes) -> list[bytes]:
        self._write()
        return [h for (h,) in self._db.query("SELECT h FROM log WHERE sid=? AND seq=?", (sid, seq)) if h.startswith(start)]

    # ------------------------------------------------------------ facts

    def extend(self, stream: Stream, rows: Sequence[LogRow]) -> bool:
        """Log facts that are all new and follow each other without a hole. True when this brought a fork to light."""
        self._pending += rows
        first, last = rows[0], rows[-1]
        stream.dirty = True
        self.mentioned -= not stream.own and not stream.chain.runs
        run = stream.chain.extends(first.seq, first.prev)
        if run is not None:
            stream.chain.lengthen(run, last.seq, last.h)
            return False
        self._write()
        before = stream.chain.fork_point
        stream.chain.add(first.seq, first.prev, [r.h for r in rows])
        self._note_fork(stream)
        if first.seq <= stream.freed_seq and self.freed.kept_of(stream.sid):
            self._keep_late(stream, [(r.seq, r.h) for r in rows if r.seq <= stream.freed_seq])
        return stream.chain.fork_point != before

    def _keep_late(self, stream: Stream, points: list[tuple[int, bytes]]) -> None:
        """Facts in the place of a record that was freed: they count as freed, as all around them, so their hashes are kept as well."""
        run = stream.chain.locate(*points[-1])
        if run is None or not any(r is run for r, _ in stream.chain.path(stream.freed_seq, stream.freed_h)):
            return  # of a branch that leaves below
        late = [(seq, h) for seq, h in points if self.freed.at(stream.sid, seq) is None]
        self.freed.keep(stream.sid, late)
        self.came_late += [(stream.sid, seq, h) for seq, h in late]

    def joins(self, stream: Stream, rows: Sequence[LogRow]) -> bool:
        """Will these new facts show what a branch above a hole stands on? To be asked before `extend`; False where nothing is forked."""
        if stream.chain.fork_point is None:
            return False
        hashes = {r.seq: r.h for r in rows}
        return any(hashes.get(run.first - 1) == run.h_before for run in stream.chain.runs)

    def close_hole(self, stream: Stream, first: int, h_before: bytes, last: int, h_last: bytes, kind: RunKind) -> bool:
        """Take in an author's record; False when it closes nothing."""
        self._write()
        closed = stream.chain.close(first, h_before, last, h_last, kind)
        stream.dirty = stream.dirty or closed
        return closed

    def has(self, sid: int, seq: int, h: bytes) -> bool:
        """Is this very fact logged here (or was, and has been freed)?"""
        self._write()
        if self._db.one("SELECT 1 FROM log WHERE sid=? AND seq=? AND h=?", (sid, seq, h)) is not None:
            return True
        return self._was_freed(sid, seq, h)

    def have(self, sid: int, points: Sequence[tuple[int, bytes]]) -> set[tuple[int, bytes]]:
        """Those of many facts (seq, h) that `has` finds."""
        self._write()
        found: set[tuple[int, bytes]] = set()
        for start in range(0, len(points), ASKED):
            some = points[start : start + ASKED]
            seqs = [seq for seq, _ in some]
            seqs += seqs[-1:] * ((1 << (len(seqs) - 1).bit_length()) - len(seqs))  # few different statements, so that they stay prepared
            sql = f"SELECT seq, h FROM log WHERE sid=? AND seq IN ({', '.join('?' * len(seqs))})"
            found |= {(seq, bytes(h)) for seq, h in self._db.query(sql, (sid, *seqs))}
        return {point for point in points if point in found or self._was_freed(sid, *point)}

    def _was_freed(self, sid: int, seq: int, h: bytes) -> bool:
        """Was this very fact freed? Where no hashes are kept (a node's own stream) any hash counts: nobody else writes there."""
        stream = self._by_sid.get(sid)
        if stream is None or not 0 < seq <= stream.freed_seq:
            return False
        if not any(r.kind is RunKind.DATA and r.first <= seq <= r.last for r in stream.chain.runs):
            return False  # a record stood there and was freed with what lies around it: the fact itself never was here
        if self.freed.kept_of(sid):
            return self.freed.at(sid, seq) == h
        return seq != stream.freed_seq or h == stream.freed_h

    def walk(self, sid: int, seq: int, h: bytes, down_to: int) -> bytes | None:
        """The hash at `down_to` on the chain that ends in (seq, h), by the log's own links."""
        self._write()
        row = self._db.one(
            """WITH RECURSIVE back(seq, h) AS (SELECT CAST(? AS BIGINT), ? UNION ALL
                 SELECT l.seq - 1, l.prev FROM back JOIN log l ON l.sid = ? AND l.seq = back.seq AND l.h = back.h WHERE back.seq > ?)
               SELECT seq, h FROM back ORDER BY seq LIMIT 1""",
            (seq, h, sid, down_to),
        )
        if row is None or not self.has(sid, row[0], row[1]):
            return None
        if row[0] == down_to:
            return bytes(row[1])
        return self.freed.at(sid, down_to) if self.freed.kept_of(sid) and self._was_freed(sid, row[0], row[1]) else None

    def read(self, stream: Stream, first: int, last: int, *, max_bytes: int, max_facts: int) -> list[LogRow]:
        """Facts of the chain that ends in the stream's head, first..last, as many as fit. Stops at a hole."""
        self._write()
        rows = self._db.query(
            "SELECT sid, seq, h, prev, okey, at_ms, row FROM log WHERE sid=? AND seq BETWEEN ? AND ? ORDER BY seq LIMIT ?",
            (stream.sid, first, min(last, first + max_facts - 1), max_facts * (1 if stream.chain.fork_point is None else 4)),
        )
        facts = [LogRow(*r) for r in rows]
        fork = stream.chain.fork_point
        if fork is not None and last > fork:
            facts = self._of_head(stream, facts)
        return _fitting(facts, first, max_bytes)

    def _of_head(self, stream: Stream, facts: list[LogRow]) -> list[LogRow]:
        """Of facts of several branches, those on the chain of the head."""
        if not facts:
            return facts
        top = facts[-1].seq
        h = self.walk(stream.sid, *stream.head, top)
        kept: list[LogRow] = []
        for f in reversed(facts):
            if f.seq == top and f.h == h:
                kept.append(f)
                top, h = f.seq - 1, f.prev
        return kept[::-1]

    def read_branch(self, stream: Stream, run: Run, first: int, last: int) -> Iterator[LogRow]:
        """Facts first..last of one run, ascending; also of a branch that is not the head's."""
        self._write()
        h = run.h_last if last == run.last else self.hash_in(stream, run, last)
        rows = self._db.query(
            "SELECT sid, seq, h, prev, okey, at_ms, row FROM log WHERE sid=? AND seq BETWEEN ? AND ? ORDER BY seq DESC",
            (stream.sid, first, last),
        )
        kept = []
        for r in rows:
            f = LogRow(*r)
            if f.h == h:
                kept.append(f)
                h = f.prev
        return reversed(kept)

    def hash_in(self, stream: Stream, run: Run, seq: int) -> bytes | None:
        """The hash at a seq inside a run. Without a fork there is one row there; a walk down a long backlog would be made for each page."""
        if stream.chain.fork_point is not None:
            return self.walk(stream.sid, run.last, run.h_last, seq)
        row = self._db.one("SELECT h FROM log WHERE sid=? AND seq=?", (stream.sid, seq))
        return None if row is None else bytes(row[0])

    def hash_at(self, stream: Stream, seq: int) -> bytes | None:
        """The hash at `seq` on the chain of the head; None where it is not held any more or not yet."""
        head, h = stream.head
        if seq == head:
            return h
        if seq == 0:
            return stream.chain.genesis
        if stream.chain.fork_point is not None and seq > stream.chain.fork_point:
            return self.walk(stream.sid, head, h, seq)
        if seq == stream.freed_seq and stream.freed_h:
            return stream.freed_h
        self._write()
        row = self._db.one("SELECT h FROM log WHERE sid=? AND seq=?", (stream.sid, seq))
        if row is not None:
            return bytes(row[0])
        return (self.freed.at(stream.sid, seq) if seq < stream.freed_seq else None) or _recorded(stream, seq)

    def free(self, stream: Stream, up_to: int, *, hashed: bool = False, kept: Iterable[tuple[int, bytes]] = ()) -> int:
        """Delete the facts of the stream up to a seq; their places stay known. Returns how many places went.

        Never across a hole, and of a forked stream only what is common to all its branches. `hashed`: keep the hashes, so that a branch
        that leaves below is told apart. `kept`: facts (seq, h) whose rows stay for somebody who reads them; they count as freed all the
        same.
        """
        if self.hash_at(stream, up_to) is None:
            return 0
        up_to = min(up_to, stream.chain.prefix(), up_to if stream.chain.fork_point is None else stream.chain.fork_point)
        h = self.hash_at(stream, up_to) if up_to > stream.freed_seq else None
        if h is None:
            return 0
        if hashed:
            rows = self._db.query(
                "SELECT seq, h FROM log WHERE sid=? AND seq>? AND seq<=? ORDER BY seq", (stream.sid, stream.freed_seq, up_to)
            )
            self.freed.keep(stream.sid, [(seq, bytes(h)) for seq, h in rows])
        self._delete(stream, stream.freed_seq + 1, up_to, kept)
        gone, stream.freed_seq, stream.freed_h, stream.dirty = up_to - stream.freed_seq, up_to, h, True
        return gone

    def _delete(self, stream: Stream, first: int, last: int, kept: Iterable[tuple[int, bytes]]) -> None:
        """Rows first..last, but for some."""
        for seq, _ in sorted(kept):
            self._db.run("DELETE FROM log WHERE sid=? AND seq BETWEEN ? AND ?", (stream.sid, first, seq - 1))
            first = seq + 1
        self._db.run("DELETE FROM log WHERE sid=? AND seq BETWEEN ? AND ?", (stream.sid, first, last))

    def unfree(self, stream: Stream, support: int) -> None:
        """Nobody has the freed facts above `support` any more: they are not held here, and are a hole (rule 12). Hashes must be kept of it;
        branches whose facts are here stay as they are."""
        low_h, high, high_h = self.hash_of_freed(stream, support), stream.freed_seq, stream.freed_h
        if low_h is None or support >= high:
            return
        lost = self.freed.between(stream.sid, support + 1, high)
        stream.chain.forget(support + 1, low_h, high, high_h, lost)
        rows = self._db.query(
            "SELECT seq, h, prev FROM log WHERE sid=? AND seq>? AND seq<=? ORDER BY seq DESC", (stream.sid, support, high)
        )
        stayed = [(seq, bytes(h), bytes(prev)) for seq, h, prev in rows if lost.get(seq) == bytes(h)]
        self.freed.forget_above(stream.sid, support)
        stream.freed_seq, stream.freed_h, stream.dirty = support, low_h if support else b"", True
        for seq, h, prev in stayed[:RUNS_STAYED]:
            stream.chain.add(seq, prev, [h])
        for seq, h, _ in stayed[RUNS_STAYED:]:  # more pieces than a stream may have: they come again with the others
            self._db.run("DELETE FROM log WHERE sid=? AND seq=? AND h=?", (stream.sid, seq, h))
        self._note_fork(stream)

    def hash_of_freed(self, stream: Stream, seq: int) -> bytes | None:
        """The hash at a seq of the chain along which this stream was freed, as far as it is known."""
        if seq == 0:
            return stream.chain.genesis
        if seq == stream.freed_seq:
            return stream.freed_h
        return self.freed.at(stream.sid, seq) or (_recorded(stream, seq) if seq < stream.freed_seq else None)

    def evict(self, stream: Stream, first: int, last: int) -> Run | None:
        """Delete facts of an own stream; a run of kind EVICTED keeps their place, which is returned. None: it cannot be."""
        h_before, h_last = self.hash_at(stream, first - 1), self.hash_at(stream, last)
        run = None if h_before is None or h_last is None else stream.chain.evict(first, h_before, last, h_last)
        if run is not None:
            self._db.run("DELETE FROM log WHERE sid=? AND seq BETWEEN ? AND ?", (stream.sid, first, last))
            stream.dirty = True
        return run

    # ------------------------------------------------------------ writing down

    def _write(self) -> None:
        if self._pending:
            self._db.many("INSERT INTO log (sid, seq, h, prev, okey, at_ms, row) VALUES (?, ?, ?, ?, ?, ?, ?)", self._pending)
            self._pending = []

    def write(self) -> None:
        """Put the rows that are pending into the log, so that queries see them."""
        self._write()

    def flush(self) -> None:
        """Write what is pending; the owner commits next."""
        self._write()
        for sid in sorted(self._changed):
            if self._changed[sid].dirty:
                self._flush_stream(self._changed[sid])
        self._changed.clear()

    def _flush_stream(self, s: Stream) -> None:
        self._db.run(
            "UPDATE streams SET settled_seq=?, freed_seq=?, freed_h=?, told_fork=? WHERE sid=?",
            (s.settled_seq, s.freed_seq, s.freed_h or None, s.told_fork, s.sid),
        )
        self._db.run("DELETE FROM runs WHERE sid=?", (s.sid,))
        self._db.many(
            "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?)",
            [(s.sid, r.first, r.h_before, r.last, r.h_last, int(r.kind)) for r in s.chain.runs],
        )
        s.dirty = False


def _recorded(stream: Stream, seq: int) -> bytes | None:
    """The hash at the end of a record: where the facts are gone, both ends of the place are still known."""
    return next((r.h_last for r in stream.chain.runs if r.kind is not RunKind.DATA and r.last == seq), None)


def _fitting(facts: list[LogRow], first: int, max_bytes: int) -> list[LogRow]:
    """The leading facts that follow each other from `first` on and fit; at least one."""
    size = 0
    for i, f in enumerate(facts):
        size += len(f.row)
        if f.seq != first + i or (size > max_bytes and i):
            return facts[:i]
    return facts
