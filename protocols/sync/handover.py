"""What one holder lacks of a stream, judged by the runs it stated (sync.md, rules 10 and 12)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from protocols.chains import Chain, Run, RunKind
from protocols.messages import RunStated
from protocols.sync.intervals import Intervals

FEW: Final = 8
"""pieces that are looked up one by one"""


class Gap(NamedTuple):
    """Facts first..last of one of our runs that the other side does not state."""

    run: Run
    first: int
    last: int


def lacking(chain: Chain, stated: Sequence[RunStated]) -> list[Gap]:
    """What we hold as data and the other side does not say that it holds, lowest first.

    A store that several write holds a thousand pieces for a while, nearly all within what is known to be on its way. Where there are no
    branches they are looked up together, and those within a longer one not at all.
    """
    covered: dict[int, Intervals] = {}
    plain = chain.fork_point is None
    said_data = [said for said in stated if said.kind is RunKind.DATA]
    if plain and len(said_data) > FEW:
        said_data = _not_inside(chain, said_data, covered)
    for said in said_data:
        for run, last in chain.path(said.last, said.h_last):
            if last < said.first:
                break
            covered.setdefault(id(run), Intervals()).add(max(run.first, said.first), last)
    return [Gap(run, lo, hi) for run in chain.data() for lo, hi in covered.get(id(run), Intervals()).missing(run.first, run.last)]


def _not_inside(chain: Chain, stated: Sequence[RunStated], covered: dict[int, Intervals]) -> list[RunStated]:
    """The pieces that do not lie each within one run of ours; those that do are noted in `covered`, without a question for each."""
    known, left = Intervals(), []
    longest = sorted(stated, key=lambda said: (said.first - said.last, said.first))
    for said in longest[:FEW]:
        run = chain.locate(said.last, said.h_last)
        if run is not None and run.first <= said.first:
            covered.setdefault(id(run), Intervals()).add(said.first, said.last)
            known.add(said.first, said.last)
        else:
            left.append(said)
    others = sorted((said for said in longest[FEW:] if not known.covers(said.first, said.last)), key=lambda said: said.first)
    found = chain.locate_all([(said.last, said.h_last) for said in others])
    for said in others:
        inside = found.get((said.last, said.h_last))
        if inside is not None and inside.first <= said.first:
            covered.setdefault(id(inside), Intervals()).add(said.first, said.last)
        else:
            left.append(said)
    return left


def records_lacking(chain: Chain, stated: Sequence[RunStated]) -> list[Run]:
    """Records of ours that the other side neither has nor has data for."""
    known = {(s.last, s.h_last) for s in stated if s.kind is not RunKind.DATA}
    data = [s for s in stated if s.kind is RunKind.DATA]
    records = [r for r in chain.runs if r.kind is not RunKind.DATA and (r.last, r.h_last) not in known]
    return [r for r in records if not any(_has_data_for(r, chain, s) for s in data)]


def _has_data_for(record: Run, chain: Chain, said: RunStated) -> bool:
    """Does a run of the other side hold all that our record says there is no data for?"""
    if said.first > record.first:
        return False
    return (said.last, said.h_last) == (record.last, record.h_last) or any(run is record for run, _ in chain.path(said.last, said.h_last))


def ahead(chain: Chain, stated: Sequence[RunStated]) -> list[RunStated]:
    """Runs of the other side that reach facts we do not hold, and its records of what is a hole here: we came back older than it is, and
    take them from there."""
    holes = dict.fromkeys((last, h) for _, last, h in chain.holes())
    said_data = [s for s in stated if s.kind is RunKind.DATA]
    if chain.fork_point is None and len(said_data) > FEW:
        found = chain.locate_all([(s.last, s.h_last) for s in said_data])
        said_data = [s for s in said_data if (run := found.get((s.last, s.h_last))) is None or run.first > s.first]
    data = [s for s in said_data if not chain.covered(s.last, s.h_last).covers(s.first, s.last)]
    return data + [s for s in stated if s.kind is not RunKind.DATA and (s.last, s.h_last) in holes]


def went_back(before: Sequence[RunStated], now: Sequence[RunStated]) -> bool:
    """Does a statement lack something that an earlier one named? Its maker came back older, or lost rows. Runs may have joined, parted at a
    branch, or grown; data may stand where a record stood."""
    data = Intervals(sorted((r.first, r.last) for r in now if r.kind is RunKind.DATA))
    known = Intervals(sorted((r.first, r.last) for r in now))
    ends = dict.fromkeys((r.last, r.h_last) for r in now)
    inside = Intervals(sorted((r.first, r.last - 1) for r in now))
    return any(
        not (data if r.kind is RunKind.DATA else known).covers(r.first, r.last)
        or ((r.last, r.h_last) not in ends and r.last not in inside)  # no run ends in this point or goes on beyond it: a branch is gone
        for r in before
    )
