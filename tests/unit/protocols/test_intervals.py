"""Intervals behave as the sets of numbers that they stand for, and stay normal: sorted, disjoint, never touching."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocols.sync.intervals import Intervals

SMALL = st.integers(1, 24)
RANGES = st.tuples(SMALL, SMALL)
STEPS = st.lists(st.tuples(st.booleans(), SMALL, SMALL), max_size=12)


def numbers(i: Intervals) -> set[int]:
    return {n for lo, hi in i for n in range(lo, hi + 1)}


def played(steps: list[tuple[bool, int, int]]) -> tuple[Intervals, set[int]]:
    """The same additions and removals done to both."""
    intervals, model = Intervals(), set[int]()
    for add, lo, hi in steps:
        if add:
            intervals.add(lo, hi)
            model |= set(range(lo, hi + 1))
        else:
            intervals.remove(lo, hi)
            model -= set(range(lo, hi + 1))
    return intervals, model


@given(STEPS)
@example([(True, 1, 20), (False, 15, 9)])
@example([(True, 1, 20), (False, 11, 10)])
def test_any_additions_and_removals_give_what_sets_give(steps: list[tuple[bool, int, int]]) -> None:
    intervals, model = played(steps)
    assert numbers(intervals) == model
    assert intervals.count() == len(model)
    assert bool(intervals) is bool(model)


@given(STEPS)
@example([(True, 1, 20), (False, 15, 9)])
@example([(True, 1, 20), (False, 11, 10)])
def test_ranges_stay_sorted_and_never_touch(steps: list[tuple[bool, int, int]]) -> None:
    ranges = list(played(steps)[0])
    assert all(lo <= hi for lo, hi in ranges)
    assert all(a_hi + 1 < b_lo for (_, a_hi), (b_lo, _) in pairwise(ranges))


@given(STEPS, RANGES)
def test_every_question_is_answered_as_by_a_set(steps: list[tuple[bool, int, int]], asked: tuple[int, int]) -> None:
    intervals, model = played(steps)
    lo, hi = asked
    wanted = set(range(lo, hi + 1))
    assert intervals.covers(lo, hi) is (wanted <= model)
    assert (lo in intervals) is (lo in model)
    assert {n for a, b in intervals.missing(lo, hi) for n in range(a, b + 1)} == wanted - model
    assert intervals.prefix(lo) == next(n for n in range(lo - 1, 30) if n + 1 not in model)


@given(STEPS, RANGES)
def test_what_is_missing_comes_in_ascending_ranges_as_long_as_they_can_be(
    steps: list[tuple[bool, int, int]], asked: tuple[int, int]
) -> None:
    gaps = list(played(steps)[0].missing(*asked))
    assert all(a_hi + 1 < b_lo for (_, a_hi), (b_lo, _) in pairwise(gaps))


@given(st.lists(RANGES, max_size=8))
def test_order_of_arrival_makes_no_difference(ranges: list[tuple[int, int]]) -> None:
    assert Intervals(ranges) == Intervals(reversed(ranges))


def test_equal_sets_are_equal_and_nothing_else_is() -> None:
    assert Intervals([(1, 3), (4, 6)]) == Intervals([(1, 6)])
    assert Intervals([(1, 5)]) != Intervals([(1, 6)])
    assert Intervals([(1, 5)]) != [(1, 5)]


def test_a_set_that_changes_cannot_be_a_key() -> None:
    with pytest.raises(TypeError):
        hash(Intervals())


def test_it_prints_as_ranges() -> None:
    assert repr(Intervals([(1, 3), (7, 7)])) == "Intervals(1..3, 7..7)"
