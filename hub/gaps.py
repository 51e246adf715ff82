"""The gap ledger: what this hub knows that it does not have, since when, how often it asked for it, and how it was closed.

A *hole* is a stretch below something that is held, named by the point in which it ends (so that holes of two branches are two). Each answer
and each receipt asks for it by name. What lies *beyond* is what a node's heartbeat names above all that is held here: the next frames bring
it, or a pull asks for it. A hole closes with the data or with its author's signed record; the last closings are kept.

The streams themselves say which holes there are; this book only remembers when and how often. It is written with the hub's next commit,
so a crash may cost it a count, never a hole. Pure but for its database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from protocols.chains import Chain, RunKind
from protocols.messages import Heartbeat, Pull, StreamStated
from protocols.sqlite import Db
from protocols.streams import Stream, StreamKey, StreamLog
from protocols.sync.intervals import Intervals

CLOSED_KEPT: Final = 500
SHOWN: Final = 1_000
_CLOSED: Final = "node, epoch, cls, first, last, h_last, since_ms, asked, closed_ms, how"
Beats = Mapping[str, tuple[Heartbeat, int]]


@dataclass(frozen=True, slots=True)
class Gap:
    """first..last of a stream. `h_last`: the hash at `last`, which names the branch; empty where only a seq is known. `asked`: how often
    it was asked for, and when for the last time."""

    key: StreamKey
    first: int
    last: int
    h_last: bytes
    since_ms: int
    asked: int = 0
    asked_ms: int | None = None


class GapBook:
    """See the module. Methods other than `write` need no transaction."""

    def __init__(self, db: Db, log: StreamLog) -> None:
        self._db, self._log = db, log
        self._open: dict[StreamKey, list[Gap]] = {}
        self._beyond: dict[StreamKey, Gap] = {}
        self._dirty: dict[StreamKey, None] = {}
        self._closed: list[tuple[Gap, int, str]] = []
        sql = "SELECT node, epoch, cls, first, last, h_last, since_ms, asked, asked_ms FROM gaps ORDER BY first, last, h_last"
        for row in db.query(sql):
            key = StreamKey(*row[:3])
            self._open.setdefault(key, []).append(Gap(key, row[3], row[4], bytes(row[5]), row[6], row[7], row[8]))

    # ------------------------------------------------------------ what happens

    def stated(self, streams: Iterable[StreamStated], now_ms: int) -> None:
        """These statements go out; what they want is asked for by that."""
        for said in streams:
            key = StreamKey(said.node, said.epoch, said.cls)
            stream = self._log.get(key)
            if stream is None or not (said.wants or key in self._open):
                continue
            self._look(stream, now_ms)
            wanted = {(last, h) for _, last, h in said.wants}
            self._ask(key, [g for g in self._open.get(key, ()) if (g.last, g.h_last) in wanted], now_ms)

    def pulled(self, node: str, pull: Pull, now_ms: int) -> None:
        """A pull goes out for ranges of a node's streams."""
        for epoch, cls, first, last in pull.ranges:
            key = StreamKey(node, epoch, cls)
            self._ask(key, [g for g in self._open.get(key, ()) if g.first <= last and first <= g.last], now_ms)
            top = self._beyond.get(key)
            if top is None or top.last < last:
                top = Gap(key, first, last, b"", now_ms if top is None else top.since_ms, top.asked if top is not None else 0)
            self._beyond[key] = replace(top, asked=top.asked + 1, asked_ms=now_ms)

    def _ask(self, key: StreamKey, asked: Sequence[Gap], now_ms: int) -> None:
        if asked:
            named = {id(g) for g in asked}
            self._open[key] = [replace(g, asked=g.asked + 1, asked_ms=now_ms) if id(g) in named else g for g in self._open[key]]
            self._dirty[key] = None

    def _look(self, stream: Stream, now_ms: int) -> None:
        """Compare what is remembered of a stream with the holes that it has."""
        old = self._open.get(stream.key, [])
        holes = stream.chain.holes()
        if [(g.first, g.last, g.h_last) for g in old] == holes:
            return
        new = [_of_hole(stream.key, hole, old, now_ms) for hole in holes]
        still = Intervals(sorted((g.first, g.last) for g in new))
        for gap in old:
            if not any((g.last, g.h_last) == (gap.last, gap.h_last) and g.first <= gap.first for g in new):
                self._close(stream.chain, gap, list(still.missing(gap.first, gap.last)), now_ms)
        if new:
            self._open[stream.key] = new
        else:
            self._open.pop(stream.key, None)
        self._dirty[stream.key] = None

    def _close(self, chain: Chain, gap: Gap, parts: list[tuple[int, int]], now_ms: int) -> None:
        for first, last in parts:
            kinds = dict.fromkeys(r.kind for r in chain.runs if r.first <= last and first <= r.last)
            how = " and ".join("data" if kind is RunKind.DATA else f"a record: {kind.name.lower()}" for kind in kinds)
            self._closed.append((replace(gap, first=first, last=last), now_ms, how or "nothing that is still here"))

    def write(self) -> None:
        """Into the owner's open transaction."""
        for key in self._dirty:
            self._db.run("DELETE FROM gaps WHERE node=? AND epoch=? AND cls=?", tuple(key))
            rows = [(*key, g.last, g.h_last, g.first, g.since_ms, g.asked, g.asked_ms) for g in self._open.get(key, ())]
            self._db.many("INSERT INTO gaps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        if self._closed:
            ended = [(*g.key, g.first, g.last, g.h_last, g.since_ms, g.asked, at, how) for g, at, how in self._closed]
            self._db.many(f"INSERT INTO gaps_closed ({_CLOSED}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", ended)
            self._db.run("DELETE FROM gaps_closed WHERE pos <= (SELECT max(pos) FROM gaps_closed) - ?", (CLOSED_KEPT,))
        self._dirty, self._closed = {}, []

    # ------------------------------------------------------------ asking

    def seen(self, beats: Beats, now_ms: int) -> dict[str, Any]:
        """`{"open", "beyond", "closed"}` as lists of dicts, closings newest first; `holes` and `facts` count all that stand open."""
        for stream in self._log.all():
            if len(stream.chain.runs) > 1 or stream.key in self._open or (stream.chain.runs and stream.chain.runs[0].first > 1):
                self._look(stream, now_ms)
        holes = [g for key in sorted(self._open) for g in self._open[key]]
        beyond = self._tails(beats)
        rows = self._db.query(f"SELECT {_CLOSED} FROM gaps_closed ORDER BY pos DESC LIMIT ?", (SHOWN,))
        closed = [_row(Gap(StreamKey(*r[:3]), r[3], r[4], bytes(r[5]), r[6], r[7])) | {"closedMs": r[8], "how": r[9]} for r in rows]
        shown = {"open": [_row(g) for g in holes[:SHOWN]], "beyond": [_row(g) for g in beyond[:SHOWN]], "closed": closed}
        return shown | {"holes": len(holes), "facts": sum(g.last - g.first + 1 for g in [*holes, *beyond])}

    def _tails(self, beats: Beats) -> list[Gap]:
        """What heads name above all that is held; remembered from the heartbeat that named it first."""
        tails: dict[StreamKey, Gap] = {}
        get = self._log.get
        for node, (beat, at_ms) in beats.items():
            for q in beat.streams:
                key = StreamKey(node, q.epoch, q.cls)
                stream = get(key)
                runs = stream.chain.runs if stream is not None else ()
                top = runs[0].last if len(runs) == 1 else max((r.last for r in runs), default=0)
                if q.head[0] > top:
                    known = self._beyond.get(key) or Gap(key, 0, 0, b"", at_ms)
                    tails[key] = replace(known, first=top + 1, last=q.head[0], h_last=q.head[1])
        self._beyond = tails
        return [tails[key] for key in sorted(tails)]


def _of_hole(key: StreamKey, hole: tuple[int, int, bytes], old: Sequence[Gap], now_ms: int) -> Gap:
    """A hole as it is now; what is left of an older one goes on being asked for since then."""
    first, last, h = hole
    before = next((g for g in old if (g.last, g.h_last) == (last, h)), None) or next(
        (g for g in old if g.first <= first and last <= g.last), None
    )
    return Gap(key, first, last, h, now_ms) if before is None else replace(before, first=first, last=last, h_last=h)


def _row(g: Gap) -> dict[str, Any]:
    return {
        "node": g.key.node, "epoch": f"{g.key.epoch:x}", "class": g.key.cls, "first": g.first, "last": g.last,
        "facts": g.last - g.first + 1, "branch": g.h_last.hex(), "sinceMs": g.since_ms, "asked": g.asked, "askedMs": g.asked_ms,
    }  # fmt: skip
