"""The spans of payloads in custody: the table that keeps them, and in memory those of the streams that were asked about last.

A node that carries for others, or keeps what came down to it, is told about the same streams again and again, and names them in each of
its hellos; what it keeps of them changes far less often. Whatever is written goes to the table at once. Every method runs inside a
transaction of the owner, who throws it away after an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from protocols.messages import Point
from protocols.sqlite import Db
from protocols.streams import StreamKey

WAITING: Final = 0
SETTLED: Final = 1
SAFE: Final = 2
"""how far a span is done: it waits for the store, the store has it, every backup of the store has it too"""
CACHED_SPANS: Final = 4_096
"""in memory at most, about 300 bytes each"""


class Span(NamedTuple):
    """`first`..`last` of one branch of a stream; `h_before` is the hash at first - 1, `h_last` the hash at last."""

    key: StreamKey
    first: int
    h_before: bytes
    last: int
    h_last: bytes

    @property
    def end(self) -> Point:
        """The point that stands for all of it."""
        return self.last, self.h_last

    @property
    def below(self) -> Point:
        """The point that it stands on."""
        return self.first - 1, self.h_before


class Kept(NamedTuple):
    """A span of the payload `cid`, and how far it is done."""

    cid: int
    span: Span
    done: int


@dataclass(slots=True)
class OfStream:
    """What is kept of one stream, the highest first, and what was found out about it since it last changed."""

    kept: Sequence[Kept]
    framed: bool | None = None
    """does the owner know that there is a frame among the payloads? None: it has not looked"""
    _ends: tuple[list[Point], list[Point]] | None = None
    _open: tuple[int, list[Point]] | None = None
    _up_to: dict[int, list[Kept]] = field(default_factory=dict)

    def up_to(self, done: int) -> list[Kept]:
        """Those that are done so far and no further."""
        found = self._up_to.get(done)
        if found is None:
            found = self._up_to[done] = [kept for kept in self.kept if kept.done <= done]
        return found

    def ends(self) -> tuple[list[Point], list[Point]]:
        """The ends of what is not safe yet: those that nothing here stands on, and the others."""
        if self._ends is None:
            spans = [kept.span for kept in self.kept if kept.done < SAFE]
            stood_on = {span.below: None for span in spans}
            ends = dict.fromkeys(span.end for span in spans)
            self._ends = [end for end in ends if end not in stood_on], [end for end in ends if end in stood_on]
        return self._ends

    def open(self) -> tuple[int, list[Point]]:
        """The same ends ascending, after how many places they are at."""
        if self._open is None:
            ends = sorted({kept.span.end: None for kept in self.kept if kept.done < SAFE})
            self._open = len(dict.fromkeys(seq for seq, _ in ends)), ends
        return self._open


class Spans:
    """See the module."""

    def __init__(self, db: Db) -> None:
        self._db = db
        self._streams: dict[StreamKey, OfStream] = {}
        self._cached = 0
        self._keys: list[StreamKey] | None = None

    # ------------------------------------------------------------ asking

    def of(self, key: StreamKey) -> OfStream:
        """Those of one stream."""
        found = self._streams.get(key)
        if found is None:
            rows: list[Any] = self._db.query(
                """SELECT cid, first, h_before, last, h_last, done FROM custody_spans
                   WHERE node=? AND epoch=? AND cls=? ORDER BY last DESC, cid, h_last DESC""",
                key,
            )
            kept = [Kept(int(cid), Span(key, int(a), bytes(h), int(b), bytes(end)), int(done)) for cid, a, h, b, end, done in rows]
            found = OfStream(kept)
            self._remember(key, found)
        return found

    def streams(self) -> Sequence[StreamKey]:
        """Streams of which anything is kept, the one with the oldest payload first."""
        if self._keys is None:
            rows: list[Any] = self._db.query(
                "SELECT node, epoch, cls FROM custody_spans GROUP BY node, epoch, cls ORDER BY min(cid), 1, 2, 3"
            )
            self._keys = [StreamKey(*row) for row in rows]
        return self._keys

    def of_payload(self, cid: int) -> list[Span]:
        """What one payload covers; empty when it is not here any more."""
        rows = self._db.query("SELECT node, epoch, cls, first, h_before, last, h_last FROM custody_spans WHERE cid=?", (cid,))
        return [Span(StreamKey(n, e, c), int(a), bytes(h), int(b), bytes(end)) for n, e, c, a, h, b, end in rows]

    def all_done(self, cid: int, done: int) -> bool:
        """Is every span of a payload done so far?"""
        return self._db.one("SELECT 1 FROM custody_spans WHERE cid=? AND done<?", (cid, done)) is None

    # ------------------------------------------------------------ writing

    def add(self, cid: int, spans: Sequence[Span], *, frame: bool = False) -> None:
        """A payload came, and covers these; of two with one end the first counts. `frame`: is it one, as its author signed it?"""
        self._db.many(
            "INSERT OR IGNORE INTO custody_spans (cid, node, epoch, cls, first, h_before, last, h_last) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(cid, *s.key, s.first, s.h_before, s.last, s.h_last) for s in spans],
        )
        self._keys = None
        by_key: dict[StreamKey, dict[Point, Span]] = {}
        for span in spans:
            by_key.setdefault(span.key, {}).setdefault(span.end, span)
        if self._cached + len(spans) > CACHED_SPANS:
            self._streams, self._cached = {}, 0
        for key, new in by_key.items():
            cached = self._streams.get(key)
            if cached is not None:
                newest = sorted((Kept(cid, span, WAITING) for span in new.values()), key=_h_last, reverse=True)
                kept = sorted([*cached.kept, *newest], key=_last, reverse=True)
                self._streams[key] = OfStream(kept, frame or cached.framed)
                self._cached += len(new)

    def mark(self, key: StreamKey, found: Iterable[Kept], done: int) -> None:
        """These are done so far, if they were not."""
        new = {(kept.cid, kept.span.end): None for kept in found if kept.done < done}
        if not new:
            return
        self._db.many(
            "UPDATE custody_spans SET done=? WHERE cid=? AND node=? AND epoch=? AND cls=? AND last=? AND h_last=?",
            [(done, cid, *key, *end) for cid, end in new],
        )
        cached = self._streams.get(key)
        if cached is not None:
            kept = [k._replace(done=done) if (k.cid, k.span.end) in new else k for k in cached.kept]
            self._streams[key] = OfStream(kept, cached.framed)

    def drop(self, cid: int) -> None:
        """A payload goes."""
        self._keys = None
        for key in dict.fromkeys(span.key for span in self.of_payload(cid)):
            cached = self._streams.get(key)
            if cached is not None:
                kept = [one for one in cached.kept if one.cid != cid]
                self._cached -= len(cached.kept) - len(kept)
                self._streams[key] = OfStream(kept, None if cached.framed else cached.framed)
        self._db.run("DELETE FROM custody_spans WHERE cid=?", (cid,))

    # ------------------------------------------------------------ memory

    def _remember(self, key: StreamKey, found: OfStream) -> None:
        if self._cached + len(found.kept) > CACHED_SPANS:
            self._streams, self._cached = {}, 0
        if len(found.kept) <= CACHED_SPANS:
            self._streams[key] = found
            self._cached += len(found.kept)


def _last(kept: Kept) -> int:
    return kept.span.last


def _h_last(kept: Kept) -> bytes:
    return kept.span.h_last
