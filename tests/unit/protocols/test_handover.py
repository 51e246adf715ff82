"""What one holder lacks, by the runs it stated: for handing over to the store, and for taking back from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.chains import Chain, RunKind
from protocols.ledger import Ledger
from protocols.messages import RunStated
from protocols.streams import StreamKey
from protocols.sync.handover import ahead, lacking, records_lacking
from tests.unit.protocols.ledgers import NOW_MS, Range, clone, event, ledger, offer, range_of, say

KEY = StreamKey("edge-1", 101, 0)


@pytest.fixture(scope="module")
def all_() -> Range:
    led = ledger()
    say(led, *(event(f"order-{i}") for i in range(10)))
    return range_of(led)


def holding(*parts: Range) -> Ledger:
    led = ledger("hub")
    for part in parts:
        offer(led, part)
    return led


def chain(led: Ledger) -> Chain:
    return led.log.open(KEY).chain


def stated(led: Ledger) -> list[RunStated]:
    return [RunStated(r.first, r.h_before, r.last, r.h_last, r.kind) for r in chain(led).runs]


def gaps(ours: Ledger, theirs: Ledger) -> list[tuple[int, int]]:
    return [(g.first, g.last) for g in lacking(chain(ours), stated(theirs))]


def close(led: Ledger, all_: Range, first: int, last: int, kind: RunKind = RunKind.LOST) -> None:
    led.begin()
    assert led.close_hole(KEY, first, b"", last, all_.hashes[last - 1], kind, b"signed", NOW_MS)
    led.commit()


def test_who_states_nothing_lacks_everything(all_: Range) -> None:
    assert gaps(holding(all_), ledger("store")) == [(1, 10)]


def test_who_holds_the_same_lacks_nothing(all_: Range) -> None:
    assert gaps(holding(all_), holding(all_)) == []


def test_where_a_stated_run_hangs_is_known_only_by_its_upper_end(all_: Range) -> None:
    """A run that ends in a fact that is not here may be of any branch: better handed over twice than not at all."""
    assert gaps(holding(all_.part(1, 4)), holding(all_)) == [(1, 4)]
    assert gaps(holding(all_.part(1, 3), all_.part(10, 10)), holding(all_)) == [(1, 3)]


@given(st.sets(st.integers(1, 10)), st.sets(st.integers(1, 10)))
def test_what_is_lacking_is_the_difference(all_: Range, ours: set[int], theirs: set[int]) -> None:
    """Never less; more only where the place of a stated run is not known here."""
    a, b = (holding(*(all_.part(n, n) for n in sorted(held))) for held in (ours, theirs))
    named = {n for g in gaps(a, b) for n in range(g[0], g[1] + 1)}
    assert ours - theirs <= named <= ours
    if ours == set(range(1, len(ours) + 1)) and all(r.last in ours for r in chain(b).runs):
        assert named == ours - theirs


def test_a_branch_that_the_other_side_has_not_is_lacking_above_the_fork(all_: Range) -> None:
    left = ledger()
    say(left, event("A"), event("B"))
    right = clone(left)
    say(left, event("L"))
    say(right, event("R"), event("S"))
    both = holding(range_of(left), range_of(right))
    assert gaps(both, holding(range_of(left))) == [(3, 4)]
    assert [g.run.h_last for g in lacking(chain(both), stated(holding(range_of(left))))] == [right.own().head[1]]
    assert gaps(both, holding(range_of(right))) == [(3, 3)]


def test_a_record_of_the_other_side_is_no_data(all_: Range) -> None:
    theirs = holding(all_.part(1, 3), all_.part(7, 10))
    close(theirs, all_, 4, 6)
    assert gaps(holding(all_), theirs) == [(4, 6)]


def test_a_record_is_lacking_until_the_other_side_states_it(all_: Range) -> None:
    ours = holding(all_.part(1, 3), all_.part(7, 10))
    close(ours, all_, 4, 6)
    theirs = holding(all_.part(1, 3), all_.part(7, 10))
    assert [(r.first, r.last) for r in records_lacking(chain(ours), stated(theirs))] == [(4, 6)]
    close(theirs, all_, 4, 6)
    assert records_lacking(chain(ours), stated(theirs)) == []


def test_a_record_is_not_handed_to_who_has_the_data(all_: Range) -> None:
    ours = holding(all_.part(1, 3), all_.part(7, 10))
    close(ours, all_, 4, 6)
    assert records_lacking(chain(ours), stated(holding(all_))) == []
    assert records_lacking(chain(ours), stated(holding(all_.part(4, 10)))) == []
    assert records_lacking(chain(ours), stated(holding(all_.part(2, 6)))) == []
    part = holding(all_.part(5, 10))
    assert [(r.first, r.last) for r in records_lacking(chain(ours), stated(part))] == [(4, 6)], "4 is missing there still"


def test_who_came_back_older_sees_what_the_other_side_is_ahead_by(all_: Range) -> None:
    older, store = holding(all_.part(1, 6)), holding(all_)
    assert [(s.first, s.last) for s in ahead(chain(older), stated(store))] == [(1, 10)]
    assert ahead(chain(store), stated(older)) == []
    assert ahead(chain(older), stated(older)) == []


def test_a_hole_below_a_point_that_both_hold_is_ahead_too(all_: Range) -> None:
    older = holding(all_.part(1, 3), all_.part(7, 10))
    assert [(s.first, s.last) for s in ahead(chain(older), stated(holding(all_)))] == [(1, 10)]


def test_records_are_not_taken_for_data_to_fetch(all_: Range) -> None:
    store = holding(all_.part(1, 3), all_.part(7, 10))
    close(store, all_, 4, 6, RunKind.EVICTED)
    older = holding(all_.part(1, 3))
    assert [(s.first, s.last, s.kind) for s in ahead(chain(older), stated(store))] == [(7, 10, RunKind.DATA)]


LONG = 60
_PIECES = st.lists(st.tuples(st.integers(1, LONG), st.integers(0, 8), st.integers(0, 9)), min_size=9, max_size=70)
"""first, how many more, and 0 for one of another history"""


@pytest.fixture(scope="module")
def long() -> Range:
    led = ledger()
    say(led, *(event(f"order-{i}") for i in range(LONG)))
    return range_of(led)


@given(_PIECES, st.lists(st.tuples(st.integers(1, LONG), st.integers(0, 30)), min_size=1, max_size=4))
def test_many_pieces_are_looked_up_together_and_mean_the_same(
    long: Range, pieces: list[tuple[int, int, int]], held: list[tuple[int, int]]
) -> None:
    led = holding(*(long.part(first, min(LONG, first + more)) for first, more in held))
    said = []
    for first, more, right in pieces:
        last = min(LONG, first + more)
        said.append(
            RunStated(first, long.hashes[first - 2] if first > 1 else long.h_before, last, long.hashes[last - 1] if right else b"stranger")
        )
    here = {seq for first, more in held for seq in range(first, min(LONG, first + more) + 1)}
    covered: set[int] = set()
    beyond = []
    for run in said:
        at = run.last if run.h_last != b"stranger" else 0
        while at >= run.first and at in here:
            covered.add(at)
            at -= 1
        if at >= run.first or run.h_last == b"stranger":
            beyond.append(run)
    found = lacking(chain(led), said)
    assert {seq for gap in found for seq in range(gap.first, gap.last + 1)} == here - covered
    assert all(gap.run.first <= gap.first <= gap.last <= gap.run.last for gap in found)
    assert ahead(chain(led), said) == beyond
