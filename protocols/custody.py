"""Signed payloads of others, kept until the central store has what they say: frames that a relay carries (sync.md, rule 16), and messages
of the hub's feed that hold facts not settled yet (rule 12).

A payload covers spans: stretches of one branch, named by their two ends. Custody of it ends when every span is settled at a point of its
own branch. A chain hash stands for everything before it, so a span that ends in a settled point is settled, and so is one that another
settled span stands on; of all else only somebody who has the chain can tell (`known`). A higher seq alone proves nothing: it may be of
another branch.

Custody is not `received`: nobody but the operator is told. What is full refuses; nothing is dropped. Rule 11 (floor, backups) is its
owner's: `settled` lets go at once, `note_settled` and `release` part the end of custody from the end of the bytes.

Every method runs inside a transaction of the owner; after an error it is thrown away and made again from disk.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from protocols.chains import RunKind
from protocols.codec import Kind
from protocols.custody_spans import SAFE, SETTLED, WAITING, Kept, Span, Spans
from protocols.errors import CustodyFull
from protocols.messages import Point, RunStated
from protocols.sqlite import Db
from protocols.streams import StreamKey, StreamLog

BUDGET_BYTES: Final = 200_000_000
POINTS_HELD: Final = 32
"""of one stream of frames that are named at most: where its branches end here, and others spread below"""
_DIGEST_BYTES: Final = 16
_FRAME: Final = bytes((Kind.FRAME,))
_IS_FRAME: Final = "substr(c.payload, 4, 1) = x'01'"
"""the kind stands in the fourth byte of an envelope"""

Known = Callable[[StreamKey, Point, Point], bool]
"""(stream, tip, point): does the point lie on the chain that ends in the tip, for certain? `chained` asks a log."""


class CustodyCounts(NamedTuple):
    """What is in custody and not settled: facts, payloads, their bytes, and when the oldest was taken (ms, this node's clock)."""

    events: int
    payloads: int
    bytes: int
    oldest_ms: int | None


def _unknown(key: StreamKey, tip: Point, point: Point) -> bool:
    return tip == point


class Custody:
    """See the module. `budget_bytes` bounds the payloads kept, settled ones included. Its tables are made by `schema.migrate`."""

    def __init__(self, db: Db, *, budget_bytes: int = BUDGET_BYTES) -> None:
        self._db, self.budget_bytes, self._spans = db, budget_bytes, Spans(db)
        row = db.one("SELECT coalesce(sum(length(payload)), 0) FROM custody")
        self.kept_bytes = int(row[0]) if row else 0
        self.taken = 0
        """payloads that were kept since this object was made: what was heard before the last of them may say more now"""

    # ------------------------------------------------------------ in

    def keep(self, payload: bytes, spans: Sequence[Span], now_ms: int) -> bool:
        """Take a payload into custody; False when these very bytes are here already. Errors: CustodyFull: nothing was kept."""
        digest = blake2b(payload, digest_size=_DIGEST_BYTES).digest()
        if self._db.one("SELECT 1 FROM custody WHERE digest=?", (digest,)) is not None:
            return False
        if self.kept_bytes + len(payload) > self.budget_bytes:
            raise CustodyFull(
                f"the custody of others' facts has reached its bound of {self.budget_bytes} bytes, and none of it may go yet",
                remedy="restore this node's link to the hub, bring the facts another way, or raise the bound",
            )
        self._db.run("INSERT INTO custody (digest, payload, at_ms) VALUES (?, ?, ?)", (digest, payload, now_ms))
        row = self._db.one("SELECT cid FROM custody WHERE digest=?", (digest,))
        cid = row[0] if row else 0
        self._spans.add(cid, spans, frame=payload[3:4] == _FRAME)
        self.kept_bytes += len(payload)
        self.taken += 1
        return True

    def covers(self, span: Span, known: Known = _unknown) -> bool:
        """Are these facts in custody already, in whatever payloads? So the same facts, cut anew, take no second room."""
        return self._covered_exactly(span) or self._inside(span, known)

    def _inside(self, span: Span, known: Known) -> bool:
        """Do they all lie in one payload of their branch?"""
        over = (kept.span.end for kept in self._spans.of(span.key).kept if kept.span.last >= span.last and kept.span.first <= span.first)
        return any(known(span.key, tip, span.end) for tip in over)

    def _covered_exactly(self, span: Span) -> bool:
        kept, at = self._spans.of(span.key).kept, span.end
        while at[0] >= span.first:
            found = _ending(kept, *at)
            if found is None:
                return False
            at = found.below
        return True

    # ------------------------------------------------------------ letting go

    def settled(self, key: StreamKey, points: Iterable[Point], known: Known = _unknown) -> int:
        """Let go of what is settled at these points of a stream (`StreamStated.settled`). Returns how many payloads went."""
        return self._drop(self._complete(key, points, known, waiting=True))

    def note_settled(self, key: StreamKey, points: Iterable[Point], hub_ms: int, known: Known = _unknown) -> int:
        """Custody of what is settled ends. The bytes of authors stay until `release`, those of the hub's feed until `release_feed`. Returns
        how many ended. `hub_ms`: the hub's time."""
        done = self._complete(key, points, known, waiting=True)
        if done:
            self._db.many("UPDATE custody SET settled_ms=? WHERE cid=?", [(hub_ms, cid) for cid in done])
        return len(done)

    def release_feed(self, key: StreamKey, points: Iterable[Point], known: Known = _unknown) -> int:
        """Delete messages of the hub's feed of which every span was found to lie at or below points that may be freed
        (`StreamStated.freeable`): settled, and in every backup of the store that could be restored. Returns how many went.

        No floor: their facts stand in the orders here, and nobody took them into custody from their author."""
        found = [kept for kept in self._below(key, points, known, done=SETTLED) if self._of_feed(kept.cid)]
        self._spans.mark(key, found, SAFE)
        return self._drop([cid for cid in dict.fromkeys(kept.cid for kept in found) if self._spans.all_done(cid, SAFE)])

    def _of_feed(self, cid: int) -> bool:
        row = self._db.one("SELECT substr(payload, 4, 1) FROM custody WHERE cid=?", (cid,))
        return row is not None and bytes(row[0]) == bytes((Kind.FEED,))

    def release(self, key: StreamKey, points: Iterable[Point], before_ms: int, known: Known = _unknown) -> int:
        """Delete what was settled before a time of the hub, as far as it may be freed at these points. Returns how many payloads went."""
        old = []
        for cid in self._complete(key, points, known, waiting=False):
            row = self._db.one("SELECT settled_ms FROM custody WHERE cid=?", (cid,))
            if row is not None and row[0] is not None and row[0] <= before_ms and not self._of_feed(cid):
                old.append(cid)
        return self._drop(old)

    def _complete(self, key: StreamKey, points: Iterable[Point], known: Known, *, waiting: bool) -> list[int]:
        """Payloads of which every span lies at or below one of these points, or was found to do so before. Remembers the spans that do.
        `waiting`: only of spans that were not yet."""
        found = self._below(key, points, known, done=WAITING if waiting else SETTLED)
        self._spans.mark(key, found, SETTLED)
        return [cid for cid in dict.fromkeys(kept.cid for kept in found) if self._spans.all_done(cid, SETTLED)]

    def _below(self, key: StreamKey, points: Iterable[Point], known: Known, *, done: int) -> list[Kept]:
        """Spans that lie at or below one of these points; of those that are `done` so far and no further."""
        here = self._spans.of(key).up_to(done)
        if not here:
            return []
        given = list(dict.fromkeys(points))
        below, most = dict.fromkeys(given), max((seq for seq, _ in given), default=0)
        found: list[Kept] = []
        for kept in here:
            _, first, h_before, last, h_last = kept.span
            if last > most:
                continue
            # The highest first: what is settled settles what it stands on.
            end = last, h_last
            if end in below or any(tip[0] > last and known(key, tip, end) for tip in given):
                below[first - 1, h_before] = None
                found.append(kept)
        return found

    def _drop(self, cids: Sequence[int]) -> int:
        for cid in cids:
            row = self._db.one("SELECT length(payload) FROM custody WHERE cid=?", (cid,))
            self.kept_bytes -= row[0] if row else 0
            self._spans.drop(cid)
            self._db.run("DELETE FROM custody WHERE cid=?", (cid,))
        return len(cids)

    # ------------------------------------------------------------ asking

    def held(self, turn: int = 0) -> list[tuple[StreamKey, tuple[Point, ...]]]:
        """Streams in custody, the oldest first, with points to ask the hub about: at most POINTS_HELD each, where branches end first. Where
        there are more of them, others at each turn."""
        named = ((key, _points(*self._spans.of(key).ends(), turn)) for key in self._spans.streams())
        return [(key, points) for key, points in named if points]

    def lacking(self, key: StreamKey, runs: Sequence[RunStated], known: Known = _unknown) -> list[bytes]:
        """Payloads with facts of this stream that the hub, by its absolute statement, does not hold: to be sent again, oldest first."""
        return [self.payload(cid) for cid in self.lacking_ids(key, runs, known)]

    def lacking_ids(
        self,
        key: StreamKey,
        runs: Sequence[RunStated],
        known: Known = _unknown,
        asked: Container[Point] | None = None,
        waiting: Container[int] = (),
    ) -> list[int]:
        """The same by their ids. `asked`: the points that the statement answers; of a branch whose end is none of them it says nothing, but
        what is `waiting` to be sent goes on waiting. None: it says all."""
        here = self._spans.of(key).up_to(SETTLED)
        if not here:
            return []
        data = [run for run in runs if run.kind is RunKind.DATA]
        below: dict[Point, dict[Point, None]] = {}
        ends: dict[Point, Point] = {}
        lacking: dict[int, None] = {}

        def surely(tip: Point, point: Point) -> bool:
            return point in below.get(tip, ())

        for cid, span, _ in here:  # the highest first: what is held is held with what it stands on
            end, beneath = span.end, span.below
            end = ends[beneath] = ends.get(end, end)
            way = held_by(span, data, known, surely)
            if way is not None:
                below.setdefault((way.last, way.h_last), {})[beneath] = None
            elif asked is None or end in asked or cid in waiting:
                lacking[cid] = None
        return sorted(lacking)

    def ids(self, key: StreamKey) -> list[int]:
        """Payloads with facts of a stream, oldest first."""
        return [int(cid) for (cid,) in self._db.query("SELECT DISTINCT cid FROM custody_spans WHERE node=? AND epoch=? AND cls=?", key)]

    def spans(self, cid: int) -> list[Span]:
        """What one payload covers; empty when it is not here any more."""
        return self._spans.of_payload(cid)

    def id_of(self, payload: bytes) -> int | None:
        """The id of these very bytes."""
        row = self._db.one("SELECT cid FROM custody WHERE digest=?", (blake2b(payload, digest_size=_DIGEST_BYTES).digest(),))
        return None if row is None else int(row[0])

    def page_of_points(self, key: StreamKey, most: int, turn: int) -> tuple[Point, ...]:
        """Points of a stream that are not known to be in every backup of the store, `most` at a time, others at each turn: for what no
        chain joins together."""
        count, points = self._spans.of(key).open()
        start = turn % max(1, -(-count // most)) * most
        return tuple(points[start : start + most])

    def carries(self, key: StreamKey) -> bool:
        """Is there a frame of this stream, as its author signed it?"""
        stream = self._spans.of(key)
        if stream.framed is None:
            row = self._db.one(
                f"""SELECT 1 FROM custody_spans s JOIN custody c USING (cid)
                    WHERE s.node=? AND s.epoch=? AND s.cls=? AND {_IS_FRAME} LIMIT 1""",
                key,
            )
            stream.framed = row is not None
        return stream.framed

    def frames(self, cids: Iterable[int]) -> dict[int, None]:
        """Which of these are frames, as their authors signed them."""
        rows = self._db.query(
            f"SELECT c.cid FROM json_each(?) j CROSS JOIN custody c ON c.cid=j.value WHERE {_IS_FRAME}", (json.dumps(list(cids)),)
        )
        return dict.fromkeys(int(cid) for (cid,) in rows)

    def payloads(self) -> list[tuple[int, int]]:
        """(id, bytes) of everything kept, oldest first: `payload` reads one."""
        return [(int(cid), int(size)) for cid, size in self._db.query("SELECT cid, length(payload) FROM custody ORDER BY cid")]

    def payload(self, cid: int) -> bytes:
        """The bytes of one."""
        row = self._db.one("SELECT payload FROM custody WHERE cid=?", (cid,))
        return bytes(row[0]) if row else b""

    def counts(self) -> CustodyCounts:
        """What is in custody and not settled. A fact that lies in two payloads counts twice."""
        events = self._db.one(
            "SELECT coalesce(sum(s.last - s.first + 1), 0) FROM custody_spans s JOIN custody c USING (cid) WHERE c.settled_ms IS NULL"
        )
        row = self._db.one("SELECT count(*), coalesce(sum(length(payload)), 0), min(at_ms) FROM custody WHERE settled_ms IS NULL")
        count, size, oldest = row if row else (0, 0, None)
        return CustodyCounts(int(events[0]) if events else 0, int(count), int(size), oldest)

    def waits(self) -> bool:
        """Is anything in custody that is not settled?"""
        return self._db.one("SELECT 1 FROM custody WHERE settled_ms IS NULL LIMIT 1") is not None

    def waiting(self) -> list[StreamKey]:
        """Streams of which something is not known to be settled, the one with the oldest payload first."""
        return [key for key in self._spans.streams() if self._spans.of(key).up_to(WAITING)]

    def by_author(self) -> list[tuple[str, int]]:
        """Facts in frames in custody and not settled, by author; most first. What came down the hub's feed is known there."""
        rows = self._db.query(
            "SELECT s.node, sum(s.last - s.first + 1) n FROM custody_spans s JOIN custody c USING (cid)"
            f" WHERE c.settled_ms IS NULL AND {_IS_FRAME} GROUP BY s.node ORDER BY n DESC, s.node"
        )
        return [(str(node), int(events)) for node, events in rows]


def single(log: StreamLog) -> Known:
    """What is known of facts that came down one by one: where nobody has said that their stream has branches, it is a line."""

    def known(key: StreamKey, tip: Point, point: Point) -> bool:
        stream = log.get(key)
        return stream is not None and not stream.chain.runs and stream.fork_point is None and point[0] <= tip[0]

    return known


def chained(log: StreamLog) -> Known:
    """What a log knows of chains: both points are logged, and no hole lies between them. Of what was freed there it says nothing."""

    def known(key: StreamKey, tip: Point, point: Point) -> bool:
        if tip == point:
            return True
        stream = log.get(key)
        if stream is None or point[0] < stream.freed_seq:
            return False
        return any(run.first <= point[0] <= last and stream.chain.locate(*point) is run for run, last in stream.chain.path(*tip))

    return known


def _points(tips: Sequence[Point], rest: Sequence[Point], turn: int) -> tuple[Point, ...]:
    """Where branches end, and others evenly below."""
    if len(tips) >= POINTS_HELD:
        start = turn * POINTS_HELD % len(tips)
        return tuple([*tips[start:], *tips[:start]][:POINTS_HELD])
    room = POINTS_HELD - len(tips)
    step = max(len(rest) // room, 1)
    spread = rest if len(rest) <= room else [rest[i * len(rest) // room + turn % step] for i in range(room)]
    return (*tips, *spread)


def _ending(kept: Sequence[Kept], seq: int, h: bytes) -> Span | None:
    """Of spans, the highest first, the longest that ends in a point."""
    found: Span | None = None
    for n in range(bisect_left(kept, -seq, key=_minus_last), len(kept)):
        span = kept[n].span
        if span.last != seq:
            break
        if span.h_last == h and (found is None or span.first < found.first):
            found = span
    return found


def _minus_last(kept: Kept) -> int:
    return -kept.span.last


def stated(span: Span, runs: Sequence[RunStated], known: Known) -> bool:
    """Does the hub hold all of a span?"""
    return held_by(span, runs, known, _never) is not None


def _never(tip: Point, point: Point) -> bool:
    return False


def held_by(span: Span, runs: Sequence[RunStated], known: Known, surely: Callable[[Point, Point], bool]) -> RunStated | None:
    """The lowest of the hub's runs that hold a span; None where it does not hold all of it. From its end downwards: each run that holds the
    point reached leads to where that run begins. `surely(tip, point)` is asked before `known`, which may have to read."""
    at, least = span.end, span.first
    while True:
        near = [r for r in runs if r.first <= at[0] <= r.last]
        if not near:
            return None
        if len(near) == 1 and near[0].first <= least:  # nearly always: without branches there is one run
            only = near[0].last, near[0].h_last
            return near[0] if only == at or surely(only, at) or known(span.key, only, at) else None
        over = [r for r in near if (r.last, r.h_last) == at or surely((r.last, r.h_last), at)]
        if len(over) < len(near) and not any(r.first <= least for r in over):
            over = [r for r in near if r in over or known(span.key, (r.last, r.h_last), at)]
        run = min(over, key=_first, default=None)
        if run is None or run.first <= least:
            return run
        at = (run.first - 1, run.h_before)


def _first(run: RunStated) -> int:
    return run.first
