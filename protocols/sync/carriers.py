"""Who carries whose facts to a hub (sync.md, rule 16): what the hub says to an author is said along the same ways, in the same bytes.

In memory: a relay that still has something names it in its next hello, and is known again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from protocols.chains import Chain, Run
from protocols.messages import Point, RunStated

CARRIERS_MOST: Final = 8
"""of one author; of more, those that brought something last"""
ASKED_ALONE: Final = 2
"""points that are looked for one by one in the log; more are asked for together"""


class Carriers:
    """Relays by author. Bounded by the number of admitted nodes: its owner notes nobody else."""

    def __init__(self) -> None:
        self._by_author: dict[str, dict[str, None]] = {}
        self._ways: dict[str, str] = {}

    def note(self, author: str, relay: str) -> None:
        """`relay` brought a signed message of `author`, or says that it has one."""
        known = self._by_author.setdefault(author, {})
        known.pop(relay, None)
        known[relay] = None  # the last one last
        if len(known) > CARRIERS_MOST:
            del known[next(iter(known))]

    def speaks(self, author: str, way: str) -> None:
        """An author said something now, not only facts of whenever, by itself or through a relay."""
        self._ways[author] = way

    def way(self, author: str) -> str:
        """On whose topics the author spoke last: its own, or a relay's."""
        return self._ways.get(author, author)

    def of(self, author: str) -> tuple[str, ...]:
        """Who carries for an author; whoever brought something last comes last."""
        return tuple(self._by_author.get(author, ()))


def held_points(chain: Chain, points: Sequence[Point]) -> tuple[RunStated, ...]:
    """Of points that were asked about, those inside a run that is here: by itself a run names its end only."""
    found = []
    for seq, h in points:
        run = chain.locate(seq, h)
        if run is not None and seq < run.last:
            found.append(RunStated(run.first, run.h_before, seq, h))
    return tuple(found)


def reached(chain: Chain, points: Sequence[Point], stated: Sequence[Point]) -> tuple[Point, ...]:
    """Of points that were asked about, those that lie below a stated one on its own branch."""
    on_way = [(run, last) for tip in stated for run, last in chain.path(*tip)] if points else []
    highest = max((last for _, last in on_way), default=0)
    asked = [point for point in points if point[0] <= highest and point not in stated]
    if chain.fork_point is None and len(asked) > ASKED_ALONE:
        there, found = chain.locate_all(asked), []
        for point in asked:
            run = there.get(point)
            if run is not None and any(one is run and point[0] <= last for one, last in on_way):
                found.append(point)
        return tuple(found)
    return tuple(point for point in asked if _below(chain, point, on_way))


def _below(chain: Chain, point: Point, on_way: Sequence[tuple[Run, int]]) -> bool:
    near = [run for run, last in on_way if run.first <= point[0] <= last]
    at = chain.locate(*point) if near else None  # it may have to read
    return at is not None and any(run is at for run in near)
