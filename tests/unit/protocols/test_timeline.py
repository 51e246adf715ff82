"""A timeline is in causal order, whatever the clocks say, and the same whatever order its facts come in."""

from __future__ import annotations

from random import Random

import pytest

from protocols.timeline import Step, causal_order


def test_causes_stand_before_effects_though_their_clock_was_ahead() -> None:
    steps = [Step("dock", 1, 2, (), 50), Step("dock", 1, 1, (), 900), Step("van", 7, 1, [["dock", 1, 2, b"hhhh"]], 10)]
    assert causal_order(steps) == [1, 0, 2]


def test_what_nobody_had_seen_of_each_other_stands_by_time() -> None:
    steps = [Step("b", 1, 1, (), 20), Step("a", 1, 1, (), 10), Step("c", 1, 1, (), 15)]
    assert causal_order(steps) == [1, 2, 0]


def test_an_entry_names_the_last_of_many_and_some_that_are_not_here() -> None:
    steps = [
        Step("van", 1, 1, [["dock", 1, 99, b"hhhh"], ["gone", 3, 4, b"hhhh"]], 0),
        Step("dock", 1, 5, (), 70),
        Step("dock", 1, 3, (), 90),
    ]
    assert causal_order(steps) == [2, 1, 0]


def test_authors_that_each_claim_to_have_seen_the_other_are_shown_all_the_same() -> None:
    steps = [Step("a", 1, 1, [["b", 1, 1, b"hhhh"]], 5), Step("b", 1, 1, [["a", 1, 1, b"hhhh"]], 4)]
    assert sorted(causal_order(steps)) == [0, 1]
    assert causal_order([]) == []


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_arrival_is_shown_alike(seed: int) -> None:
    rng = Random(seed)
    steps = [
        Step(node, 1, seq, [[rng.choice("abc"), 1, rng.randrange(1, 9), b"hhhh"]] if rng.random() < 0.3 else (), rng.randrange(50))
        for node in "abc"
        for seq in range(1, 8)
    ]
    wanted = [steps[i] for i in causal_order(steps)]
    for _ in range(5):
        rng.shuffle(steps)
        assert [steps[i] for i in causal_order(steps)] == wanted
    seen = [(s.node, s.seq) for s in wanted]
    acyclic = [s for s in wanted if not s.context]
    assert all(seen.index(("a", n)) < seen.index(("a", n + 1)) for n in range(1, 7)) or len(acyclic) < len(wanted)
