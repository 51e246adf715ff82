"""A stream is a tree of runs: which facts of one (node, epoch, class) are held, on which branch, and where the holes are.

A run is a stretch of one branch without a hole, named by its two ends: (first, hash before it) and (last, hash at it). A chain hash stands
for everything before it, so two participants who agree on a point agree on all that lies below. A branch point ends a run; a hole is a
run whose `h_before` no other run ends in. Records (evicted, pruned, lost) are runs too: they close a hole without the data (sync.md,
rules 1, 4, 9).

Pure: hashes at points inside a run come from a `Points` that the ledger implements over the primary key of its log.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

from protocols.sync.intervals import Intervals


class RunKind(IntEnum):
    """What stands behind a run: the facts themselves, or the author's signed word on why there are none."""

    DATA = 0
    LOST = 1
    EVICTED = 2
    PRUNED = 3


RUN_KINDS: Final = {int(kind): kind for kind in RunKind}


@dataclass(slots=True, eq=False)
class Run:
    """`first`..`last` of one branch; `h_before` is the hash at first - 1, `h_last` the hash at last."""

    first: int
    h_before: bytes
    last: int
    h_last: bytes
    kind: RunKind = RunKind.DATA


class Points(Protocol):
    """What is logged of one stream."""

    def has(self, seq: int, h: bytes) -> bool:
        """Is this very fact logged here?"""

    def have(self, points: Sequence[tuple[int, bytes]]) -> set[tuple[int, bytes]]:
        """Those of many for which `has` holds, asked together."""

    def walk(self, seq: int, h: bytes, down_to: int) -> bytes | None:
        """The hash at `down_to` on the chain that ends in (seq, h); None where the chain is not known so far down."""


class Chain:
    """The runs of one stream. `genesis` is the hash before its first fact."""

    __slots__ = ("genesis", "runs", "fork_point", "_points", "_met", "_end")

    def __init__(self, genesis: bytes, points: Points, runs: Sequence[Run] = ()) -> None:
        self.genesis = genesis
        self.runs = sorted(runs, key=lambda r: (r.first, r.last, r.h_last)) if len(runs) > 1 else list(runs)
        self._points = points
        self._met: tuple[int, bytes, Run] | None = None
        """what was located last, until any change but growth: who follows a stream asks for its end, and again when it has grown"""
        self._end: tuple[int, bytes, Run] | None = None
        """where the run that grew last ended before, until any change but growth"""
        self.fork_point: int | None = None
        """The highest seq up to which no two hashes are known; None where the stream is not forked."""
        for i, run in enumerate(self.runs):
            self._compare(run, self.runs[i + 1 :])

    # ------------------------------------------------------------ asking

    def data(self) -> list[Run]:
        """The runs with facts behind them, lowest first."""
        return [r for r in self.runs if r.kind is RunKind.DATA]

    def top(self) -> Run | None:
        """The run that reaches highest."""
        top: Run | None = None
        for run in self.runs:
            if run.kind is RunKind.DATA and (top is None or (run.last, run.h_last) > (top.last, top.h_last)):
                top = run
        return top

    def _compare(self, run: Run, others: Sequence[Run]) -> None:
        """Evidence of a fork only ever grows, so each run is compared once with those that were there."""
        for other in others:
            if run.kind is other.kind is RunKind.DATA:
                clash = self._clash(run, other)
                if clash is not None and (self.fork_point is None or clash - 1 < self.fork_point):
                    self.fork_point = clash - 1

    def _clash(self, a: Run, b: Run) -> int | None:
        """The lowest seq at which two runs are known to differ. Each also knows the hash before its first fact."""
        if a.first == b.first and a.h_before == b.h_before:
            return a.first
        low, high = max(a.first, b.first), min(a.last, b.last)
        edge = low - 1
        if edge >= 1:
            early, late = (a, b) if a.first <= b.first else (b, a)
            if late.first == low and early.first - 1 <= edge <= early.last:
                at = early.h_before if edge == early.first - 1 else early.h_last if edge == early.last else None
                same = (
                    at == late.h_before
                    if at is not None
                    else self._points.has(edge, late.h_before) and self._on(early, edge, late.h_before)
                )
                if not same:
                    return edge
        return low if low <= high else None

    def _on(self, run: Run, seq: int, h: bytes) -> bool:
        """Does (seq, h) lie on this run? Only asked inside the run; the walk is short or the stream is forked."""
        return self._points.walk(run.last, run.h_last, seq) == h

    def locate(self, seq: int, h: bytes) -> Run | None:
        """The run that holds this very fact."""
        found = [r for r in self.runs if r.first <= seq <= r.last and r.kind is RunKind.DATA]
        at = next((r for r in found if r.last == seq and r.h_last == h), None)
        if at is None:
            met = next((m[2] for m in (self._met, self._end) if m is not None and m[0] == seq and m[1] == h), None)
            at = next((r for r in found if r is met), None)
        if at is None and found and self._points.has(seq, h):
            at = found[0] if len(found) == 1 else next((r for r in found if self._on(r, seq, h)), None)
        if at is not None:
            self._met = seq, h, at
        return at

    def locate_all(self, points: Sequence[tuple[int, bytes]]) -> dict[tuple[int, bytes], Run]:
        """`locate` for many points, asked of the log together. Only of a stream without branches: {} for any other."""
        if self.fork_point is not None:
            return {}
        runs = self.data()
        firsts = [run.first for run in runs]
        inside = [(point, runs[at]) for point in points if (at := bisect_right(firsts, point[0]) - 1) >= 0 and point[0] <= runs[at].last]
        have = self._points.have([point for point, _ in inside])
        return {point: run for point, run in inside if point in have}

    def parent(self, run: Run) -> Run | None:
        """The run below: it ends exactly where this one begins. Data before a record."""
        below = [r for r in self.runs if r.last == run.first - 1 and r.h_last == run.h_before]
        return min(below, key=lambda r: r.kind, default=None)

    def path(self, seq: int, h: bytes) -> Iterator[tuple[Run, int]]:
        """The runs below a point that is held, highest first, each with the last seq of it that is on the way."""
        run, last = self.locate(seq, h), seq
        while run is not None:
            yield run, last
            last = run.first - 1
            run = self.parent(run)

    def covered(self, seq: int, h: bytes) -> Intervals:
        """Which seqs of the chain that ends in (seq, h) are held as data."""
        return Intervals(sorted((r.first, last) for r, last in self.path(seq, h) if r.kind is RunKind.DATA))

    def holes(self) -> list[tuple[int, int, bytes]]:
        """(first, last, hash at last) of every stretch below a run that is neither held nor recorded, ascending.

        Where a branch left a common trunk is not known before its data is here; `first` is then the lowest seq that may be missing.
        """
        ends = {(r.last, r.h_last) for r in self.runs}
        lasts = sorted(r.last for r in self.runs)
        found: dict[tuple[int, int, bytes], None] = {}
        for r in self.runs:
            if r.first > 1 and (r.first - 1, r.h_before) not in ends:
                below = bisect_left(lasts, r.first - 1)
                found[(lasts[below - 1] if below else 0) + 1, r.first - 1, r.h_before] = None
        return sorted(found)

    def prefix(self) -> int:
        """Up to which seq everything is held or recorded, from the beginning and without a fork."""
        at, h = 0, self.genesis
        while True:
            above = [r for r in self.runs if r.first == at + 1 and r.h_before in (h, b"")]
            if len(above) != 1:
                return at
            at, h = above[0].last, above[0].h_last

    def tips(self) -> list[Run]:
        """Runs whose branch is complete down to the beginning and goes no further: the prefix points of the stream."""
        out = []
        for r in self.runs:
            if self.rooted(r) and not any(c.first == r.last + 1 and c.h_before == r.h_last for c in self.runs):
                out.append(r)
        return out

    def rooted(self, run: Run) -> bool:
        """Is everything below this run held or recorded?"""
        at: Run | None = run
        while at is not None and at.first > 1:
            at = self.parent(at)
        return at is not None

    # ------------------------------------------------------------ changing

    def extends(self, first: int, h_before: bytes) -> Run | None:
        """The run that new facts from `first` on simply lengthen: the common case, decided without touching the log."""
        if not self.runs:
            return None
        top = self.runs[-1]
        if top.last != first - 1 or top.h_last != h_before or top.kind is not RunKind.DATA:
            return None
        alone = len(self.runs) == 1 or (self.fork_point is None and all(r.last < top.first for r in self.runs[:-1]))
        return top if alone else None

    def lengthen(self, run: Run, last: int, h: bytes) -> None:
        """New facts follow a run that `extends` found. Whoever had all of it names its end of before, and is not looked up for that."""
        self._end = run.last, run.h_last, run
        run.last, run.h_last = last, h

    def within(self, first: int, last: int) -> bool:
        """Is anything known of these seqs, on whatever branch? Where not, facts of them are all new: each one here lies in a run."""
        return any(r.first <= last and first <= r.last for r in self.runs)

    def apart(self, first: int, h_before: bytes, hashes: Sequence[bytes]) -> bool:
        """Would these new facts stand by themselves: neither the first to follow a run or the genesis, nor below a run that is here?

        The others may always come in, however many runs there are: each run can be followed first once, and joined from below once.
        """
        if not any(r.kind is RunKind.DATA and (r.first, r.h_before) == (first, h_before) for r in self.runs) and (
            (first == 1 and h_before == self.genesis) or any((r.last, r.h_last) == (first - 1, h_before) for r in self.runs)
        ):
            return False
        last = first + len(hashes) - 1
        return not any(first < r.first <= last + 1 and r.h_before == hashes[r.first - 1 - first] for r in self.runs)

    def add(self, first: int, h_before: bytes, hashes: Sequence[bytes]) -> None:
        """Take in facts that are all new (and logged): hang them where they belong, split at a branch point, close holes."""
        run = Run(first, h_before, first + len(hashes) - 1, hashes[-1])
        self._split_below(run)
        pieces = self._cut_at_children(run, hashes)
        for piece in pieces:
            self._compare(piece, self.runs)
        self.runs.extend(pieces)
        gone = self._shrink_records()  # first: a record that goes leaves its neighbours free to join
        for piece in pieces:
            self._join(piece)
        for record in gone:
            self._rejoin(record)
        self._sort()

    def close(self, first: int, h_before: bytes, last: int, h_last: bytes, kind: RunKind) -> bool:
        """Take in an author's record for a hole that ends in (last, h_last). A record never takes the place of data, and is kept once.
        False when there is no such hole, or when it is not said what lies below: nothing is closed that nobody misses.

        Where both ends are known here the record stands as it is, whatever other branches hold in between. Otherwise it reaches down to
        the highest data below: where a branch left the trunk cannot be told without its data.
        """
        lowest = next((lo for lo, hi, h in self.holes() if (hi, h) == (last, h_last)), None)
        if lowest is None:
            return False
        if h_before and (first > lowest or self._known(first - 1, h_before)):
            low, before = first, h_before
        elif first > lowest:
            return False
        else:
            below = self._likely_below(lowest)
            low, before = lowest, below.h_last if below is not None else self.genesis
        record = Run(low, before, last, h_last, kind)
        self._split_below(record)
        self.runs.append(record)
        self._sort()
        return True

    def _likely_below(self, seq: int) -> Run | None:
        """The run that a record from `seq` on hangs on where nobody says on which: one that itself stands on a hole, if any does. A record
        on the trunk would say of the branch with the hole that nothing is missing."""
        ends = [r for r in self.runs if r.last == seq - 1]
        tops = {(r.last, r.h_last) for r in self.runs} | {(0, self.genesis)}
        loose = (r for r in ends if (r.first - 1, r.h_before) not in tops and self.locate(r.first - 1, r.h_before) is None)
        return next(loose, ends[0] if ends else None)

    def evict(self, first: int, h_before: bytes, last: int, h_last: bytes) -> Run | None:
        """The author lets go of first..last of its own branch: their place becomes a record, joined with records that it meets. The run
        that stands there then; None where they are not within one run of an unforked stream, or are its head, which is never let go.
        """
        run, top = next((r for r in self.data() if r.first <= first and last <= r.last), None), self.top()
        if run is None or top is None or last >= top.last or self.fork_point is not None:
            return None
        pieces = [Run(run.first, run.h_before, first - 1, h_before), Run(last + 1, h_last, run.last, run.h_last)]
        self.runs = [*(r for r in self.runs if r is not run), *(p for p in pieces if p.first <= p.last)]
        record = Run(first, h_before, last, h_last, RunKind.EVICTED)
        below = next((r for r in self.runs if r.kind is RunKind.EVICTED and (r.last, r.h_last) == (first - 1, h_before)), None)
        if below is not None:
            below.last, below.h_last = last, h_last
            record = below
        else:
            self.runs.append(record)
        above = next((r for r in self.runs if r.kind is RunKind.EVICTED and (r.first - 1, r.h_before) == (last, h_last)), None)
        if above is not None:
            record.last, record.h_last = above.last, above.h_last
            self.runs = [r for r in self.runs if r is not above]
        self._sort()
        return record

    def forget(self, first: int, h_before: bytes, last: int, h_last: bytes, hashes: Mapping[int, bytes]) -> None:
        """The facts first..last of one chain are not held any more: a hole, or the end of what is known. `h_before` and `h_last` are its
        hashes at first - 1 and last, `hashes` those between. Records stay, and runs of other branches."""
        kept: list[Run] = []
        for run in self.runs:
            low, high = max(run.first, first), min(run.last, last)
            at_high = run.h_last if high == run.last else h_last if high == last else None
            if run.kind is not RunKind.DATA or low > high or at_high != (h_last if high == last else hashes.get(high)):
                kept.append(run)
                continue
            if run.last > last and not self._on(run, last, h_last):
                kept.append(run)
                continue
            if run.first < first:
                kept.append(Run(run.first, run.h_before, first - 1, h_before))
            if run.last > last:
                kept.append(Run(last + 1, h_last, run.last, run.h_last))
        self.runs = kept
        self._sort()

    def _known(self, seq: int, h: bytes) -> bool:
        """Is there data at this point, or does a record end in it?"""
        if seq == 0:
            return h == self.genesis
        return any((r.last, r.h_last) == (seq, h) for r in self.runs) or self.locate(seq, h) is not None

    def _sort(self) -> None:
        """After each change but a run's growing at its end, which leaves it all that it holds."""
        self._met = self._end = None
        self.runs.sort(key=lambda r: (r.first, r.last, r.h_last))

    def _split_below(self, run: Run) -> None:
        """Where new facts leave the middle of a run, that run ends there and its rest becomes a branch."""
        if run.first == 1:
            return
        at = self.locate(run.first - 1, run.h_before)
        if at is None or at.last == run.first - 1:
            return
        self.runs.append(Run(run.first, run.h_before, at.last, at.h_last))
        at.last, at.h_last = run.first - 1, run.h_before

    def _cut_at_children(self, run: Run, hashes: Sequence[bytes]) -> list[Run]:
        """A branch that was held already may leave the new facts in their middle: end a run at each such point."""
        edges = {c.first - 1: c.h_before for c in self.runs if run.first <= c.first - 1 < run.last}
        cuts = sorted(c for c in edges if any(r.first - 1 == c and r.h_before == hashes[c - run.first] for r in self.runs))
        pieces, first, before = [], run.first, run.h_before
        for cut in [*cuts, run.last]:
            h = hashes[cut - run.first]
            pieces.append(Run(first, before, cut, h))
            first, before = cut + 1, h
        return pieces

    def _join(self, piece: Run) -> None:
        """Two runs that meet, with nothing else leaving between them, are one."""
        if not any(r is piece for r in self.runs):
            return
        below = next((r for r in self.data() if r.last == piece.first - 1 and r.h_last == piece.h_before), None)
        if below is not None and len(self._children(below)) == 1:
            self._merge(below, piece)
            piece = below
        above = self._children(piece)
        if len(above) == 1 and above[0].kind is RunKind.DATA:
            self._merge(piece, above[0])

    def _children(self, run: Run) -> list[Run]:
        return [c for c in self.runs if c.first == run.last + 1 and c.h_before == run.h_last]

    def _merge(self, low: Run, high: Run) -> None:
        self.runs = [r for r in self.runs if r is not high]
        low.last, low.h_last = high.last, high.h_last

    def _shrink_records(self) -> list[Run]:
        """Data supersedes a record from its upper end downwards, where the hash says that it is the same branch. Returns those gone."""
        gone = [rec for rec in self.runs if rec.kind is not RunKind.DATA and self._shrink(rec)]
        self.runs = [r for r in self.runs if not any(r is g for g in gone)]
        return gone

    def _shrink(self, rec: Run) -> bool:
        """Lower the upper end of a record to what is still missing; True when nothing is. Where another record ends by then, it goes on
        below that one: each seq is closed once, and no word about what lies deeper is dropped."""
        moved = False
        while rec.first <= rec.last:
            low, before = self._held_below(rec)
            other = next(
                (r for r in self.runs if r is not rec and r.kind is not RunKind.DATA and (r.last, r.h_last) == (low - 1, before)), None
            )
            if other is not None and (moved or low <= rec.last):
                low, before = other.first, other.h_before
            if low > rec.last:
                return False
            rec.last, rec.h_last, moved = low - 1, before, True
        return True

    def _held_below(self, rec: Run) -> tuple[int, bytes]:
        """How far data reaches down from the upper end of a record: the lowest seq of it, and the hash before."""
        low, before = rec.last + 1, rec.h_last
        for run, _ in self.path(rec.last, rec.h_last):
            if run.kind is not RunKind.DATA:
                break
            low, before = run.first, run.h_before
        return low, before

    def _rejoin(self, gone: Run) -> None:
        """Where a record left the middle of a run and is no more, the run is one again."""
        below = next((r for r in self.data() if (r.last, r.h_last) == (gone.first - 1, gone.h_before)), None)
        above = self._children(below) if below is not None else []
        if below is not None and len(above) == 1 and above[0].kind is RunKind.DATA:
            self._merge(below, above[0])
