"""Sets of sequence numbers as sorted, disjoint, closed ranges: what is held, sent, missing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator


class Intervals:
    """A set of positive ints. Cheap when it is a few long runs, which is what sequences of facts are."""

    __slots__ = ("_lo", "_hi")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._lo: list[int] = []
        self._hi: list[int] = []
        for lo, hi in ranges:
            self.add(lo, hi)

    def add(self, lo: int, hi: int) -> None:
        """Take in lo..hi, both included."""
        if hi < lo:
            return
        los, his = self._lo, self._hi
        if not los or lo > his[-1] + 1:  # the common case: beyond the end
            los.append(lo)
            his.append(hi)
            return
        i = bisect_right(his, lo - 2)
        j = bisect_right(los, hi + 1)
        if i < j:
            lo, hi = min(lo, los[i]), max(hi, his[j - 1])
        los[i:j] = [lo]
        his[i:j] = [hi]

    def remove(self, lo: int, hi: int) -> None:
        """Take out lo..hi, both included."""
        if hi < lo:
            return
        kept = [(a, b) for a, b in self if b < lo or a > hi]
        for a, b in self:
            if a < lo <= b:
                kept.append((a, lo - 1))
            if a <= hi < b:
                kept.append((hi + 1, b))
        kept.sort()
        self._lo, self._hi = [a for a, _ in kept], [b for _, b in kept]

    def missing(self, lo: int, hi: int) -> Iterator[tuple[int, int]]:
        """The ranges of lo..hi that are not in the set, ascending."""
        at = lo
        for i in range(bisect_right(self._hi, lo - 1), len(self._lo)):
            if self._lo[i] > hi:
                break
            if self._lo[i] > at:
                yield at, self._lo[i] - 1
            at = self._hi[i] + 1
        if at <= hi:
            yield at, hi

    def covers(self, lo: int, hi: int) -> bool:
        """Is every number of lo..hi in the set?"""
        i = bisect_right(self._lo, lo) - 1
        return hi < lo or (i >= 0 and self._hi[i] >= hi)

    def count(self) -> int:
        """How many numbers."""
        return sum(b - a + 1 for a, b in self)

    def prefix(self, start: int = 1) -> int:
        """The last number of the run that contains `start`; start - 1 when it is not in the set."""
        i = bisect_right(self._lo, start) - 1
        return self._hi[i] if i >= 0 and self._hi[i] >= start else start - 1

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._lo, self._hi, strict=True)

    def __contains__(self, n: int) -> bool:
        return self.covers(n, n)

    def __bool__(self) -> bool:
        return bool(self._lo)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Intervals) and self._lo == other._lo and self._hi == other._hi

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Intervals(" + ", ".join(f"{a}..{b}" for a, b in self) + ")"
