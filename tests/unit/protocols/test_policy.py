"""What the table of policies says of pairs: every pair, in either order, in words; and merged quantities in any order of arrival."""

from __future__ import annotations

from functools import reduce
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import merged
from protocols.errors import InvalidInput
from protocols.lifecycle import Status, can_coexist, conflicts
from protocols.policies import DOCUMENT, FILE, load, markdown, parse, shipped
from protocols.policy import Outcome, Told, clash_id, coverage, in_order

PAIRS = list(product(Status, Status))

facts = st.builds(
    Told,
    node=st.sampled_from(["dock-1", "dock-2", "hub"]),
    epoch=st.integers(1, 3),
    seq=st.integers(1, 9),
    h=st.binary(min_size=8, max_size=8),
    status=st.sampled_from(Status),
    source=st.sampled_from(["DOCK", "ERP"]),
    site=st.sampled_from([None, "W8", "W9"]),
    actor=st.sampled_from([None, "ana", "ben"]),
    settles=st.sampled_from([(), ("a", "b")]),
    known=st.booleans(),
)


def told(status: Status, node: str = "dock-1", **more: object) -> Told:
    base = {"site": None if node == "hub" else "W8", "source": "ERP" if node == "hub" else "DOCK", "actor": None}
    return Told(node, 1, 1, f"{node:8}"[:8].encode(), status, **{**base, **more})  # type: ignore[arg-type]


# ------------------------------------------------------------ the shipped table

IN_HAND, ROAD = (Status.PICKED, Status.PACKED), (Status.SHIPPED, Status.IN_TRANSIT, Status.OUT_FOR_DELIVERY)
EXPECTED = {
    **{(Status.CANCELLED, s): ("cancelled-in-hand", Outcome.HOLD, "dock") for s in IN_HAND},
    **{(Status.CANCELLED, s): ("cancelled-on-the-road", Outcome.TASK, "centre") for s in ROAD},
    (Status.CANCELLED, Status.DELIVERY_FAILED): ("cancelled-undelivered", Outcome.HOLD, "centre"),
    (Status.CANCELLED, Status.DELIVERED): ("cancelled-delivered", Outcome.TASK, "centre"),
    **{(Status.REFUNDED, s): ("refunded-in-hand", Outcome.HOLD, "dock") for s in IN_HAND},
    **{(Status.REFUNDED, s): ("refunded-on-the-road", Outcome.TASK, "centre") for s in ROAD},
}


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=[f"{a.name}-{b.name}" for a, b in PAIRS])
def test_every_pair_has_the_outcome_that_was_meant(a: Status, b: Status) -> None:
    verdict = shipped().judge(told(a), told(b, "hub"))
    policy, outcome, assignee = (
        EXPECTED.get((a, b)) or EXPECTED.get((b, a)) or (("same-step" if a is b else "one-follows-the-other"), Outcome.ACCEPT, None)
    )
    assert (verdict.rule.id, verdict.outcome) == (policy, outcome)
    assert (verdict.rule.task.assignee if verdict.rule.task else None) == assignee
    assert (verdict.outcome is Outcome.ACCEPT) is can_coexist(a, b)
    assert verdict.sentence.endswith(".")
    assert "{" not in verdict.sentence
    for side in (told(a), told(b, "hub")):
        assert side.words() in verdict.sentence[:1].lower() + verdict.sentence[1:]


def test_the_pairs_by_hand_are_all_that_conflict() -> None:
    assert sorted(tuple(sorted(pair)) for pair in EXPECTED) == conflicts()


def test_a_cancellation_at_the_centre_and_a_pick_at_the_dock_are_told_so_that_a_picker_understands() -> None:
    verdict = shipped().judge(told(Status.PICKED, actor="ana"), told(Status.CANCELLED, "hub", actor="desk-2"))
    assert verdict.sentence == (
        "Cancelled at the centre by desk-2 while picked at W8 by ana, neither knowing of the other. Stop the goods before they leave. If "
        "the cancellation stands, put them back to stock and record RETURNED; if it does not, record the next step."
    )
    assert verdict.rule.task is not None
    assert verdict.rule.task.title == "Stop the goods of a cancelled order"
    assert [step.record for step in verdict.rule.task.steps] == [Status.RETURNED, Status.PACKED]
    assert verdict.shown.status is Status.CANCELLED


def test_two_staff_the_same_step_is_nobodys_conflict_and_the_maximum_is_shown() -> None:
    ana, ben = told(Status.PICKED, "dock-1", actor="ana"), told(Status.PICKED, "dock-2", actor="ben")
    verdict = shipped().judge(ana, ben)
    assert (verdict.rule.id, verdict.outcome, verdict.shown, verdict.other) == ("same-step", Outcome.ACCEPT, ben, ana)
    assert {"ana", "ben"} <= set(verdict.sentence.replace(":", " ").split())


@pytest.mark.parametrize(
    ("a", "b", "policy"),
    [
        (Status.RETURNED, Status.RETURNED, "settled-alike"),
        (Status.RETURNED, Status.PACKED, "settled-differently"),
        (Status.CANCELLED, Status.PICKED, "settled-differently"),
    ],
)
def test_two_settlements_are_a_pair_of_their_own(a: Status, b: Status, policy: str) -> None:
    one, other = told(a, settles=("x", "y")), told(b, "hub", settles=("x", "y"))
    assert shipped().judge(one, other).rule.id == policy
    assert shipped().judge(one, told(b, "hub")).rule.id != policy


def test_every_step_that_is_proposed_settles_and_is_a_normal_step() -> None:
    """It must not raise the next conflict by itself: it may follow one of the two, and none of the others is refused."""
    for a, b in EXPECTED:
        task = shipped().judge(told(a), told(b, "hub")).rule.task
        assert task is not None
        for step in task.steps:
            assert can_coexist(step.record, a) or can_coexist(step.record, b)


# ------------------------------------------------------------ what holds of any pair


@given(a=facts, b=facts)
def test_the_outcome_is_the_same_in_either_order(a: Told, b: Told) -> None:
    there, back = shipped().judge(a, b), shipped().judge(b, a)
    assert (there.rule, there.outcome, there.id) == (back.rule, back.outcome, back.id)
    assert in_order(a, b) == in_order(b, a) or a.identity == b.identity
    if a.identity != b.identity:
        assert (there.sentence, there.shown, there.other) == (back.sentence, back.shown, back.other)


@given(a=facts, b=facts, c=facts)
def test_a_name_belongs_to_one_pair(a: Told, b: Told, c: Told) -> None:
    assert clash_id(a, b) == clash_id(b, a)
    assert (clash_id(a, b) == clash_id(a, c)) is (b.identity == c.identity)


def test_the_shipped_table_covers_every_case_and_each_rule_is_reached() -> None:
    found = coverage(shipped().rules)
    assert (found.missing, [rule.id for rule in found.unreachable]) == ((), [])
    assert parse(FILE.read_text("utf-8"), "shipped").digest == shipped().digest == load("").digest


def test_the_document_is_current() -> None:
    assert DOCUMENT.read_text("utf-8") == markdown(shipped()), "run: make docs"


# ------------------------------------------------------------ quantities and notes


class Author:
    """Somebody who counts: a node with what it knows, and facts that others may hear of."""

    def __init__(self, name: str, *, carries: bool = True) -> None:
        self.name, self.known, self.carries, self.seq = name, merged.Counted(), carries, 0

    def says(self, **quantities: int) -> merged.Counted:
        self.seq += 1
        details: dict[str, object] = {"quantities": dict(quantities)} if quantities else {}
        if self.carries and (quantities or self.known):
            details = merged.with_seen(details, self.known)
        fact = merged.counted(details, self.name, f"{self.name}/{self.seq}/x")
        self.known = merged.join(self.known, fact)
        return fact


@given(seed=st.randoms(use_true_random=False), steps=st.integers(1, 40))
def test_quantities_add_up_exactly_in_any_order_of_arrival(seed: object, steps: int) -> None:
    from random import Random

    rng = Random(seed.getrandbits(64))  # type: ignore[attr-defined]
    authors = [Author("a/1"), Author("b/1"), Author("c/1", carries=False)]
    said: list[merged.Counted] = []
    total = 0
    for _ in range(steps):
        author = rng.choice(authors)
        if rng.random() < 0.5 and said:
            author.known = merged.join(author.known, rng.choice(said))
        number = rng.randint(-3, 9)
        total += number
        said.append(author.says(picked=number))
    for _ in range(3):
        rng.shuffle(said)
        assert merged.totals(reduce(merged.join, [*said, *said[: len(said) // 2]])) == {"picked": total}


@given(counts=st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=3, max_size=3))
def test_joining_is_commutative_associative_and_idempotent(counts: list[list[int]]) -> None:
    a, b, c = [{"n": {f"x{i}": (n, n // 2) for i, n in enumerate(row)}} for row in counts]
    assert merged.join(a, b) == merged.join(b, a)
    assert merged.join(merged.join(a, b), c) == merged.join(a, merged.join(b, c))
    assert merged.join(a, a) == a
    assert merged.load(merged.dump(a)) == a


def test_the_newest_fact_alone_carries_the_sum() -> None:
    ana, ben = Author("a/1"), Author("b/1")
    ana.says(picked=3)
    ben.says(picked=2, damaged=1)
    ana.known = merged.join(ana.known, ben.known)
    assert merged.totals(ana.says(picked=-1)) == {"damaged": 1, "picked": 4}
    assert merged.totals(ana.says()) == {"damaged": 1, "picked": 4}


@pytest.mark.parametrize(
    ("details", "field"),
    [
        ({"quantities": [3]}, "details.quantities"),
        ({"quantities": {"picked": "3"}}, "details.quantities.picked"),
        ({"quantities": {"picked": True}}, "details.quantities.picked"),
        ({"quantities": {"picked": 10**13}}, "details.quantities.picked"),
        ({"quantities": {f"n{i}": 1 for i in range(17)}}, "details.quantities"),
        ({"quantitiesSeen": {}}, "details.quantitiesSeen"),
    ],
)
def test_quantities_that_could_not_be_added_are_refused(details: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        merged.check_quantities(details)
    assert caught.value.field == field


def test_what_an_older_node_let_in_counts_for_nothing() -> None:
    odd: list[dict[str, object]] = [
        {"quantities": 3},
        {"quantities": {"a": "3"}},
        {"quantitiesSeen": {"a": {"b": [1, -2]}}},
        {"quantitiesSeen": 7},
    ]
    assert [merged.totals(merged.counted(one, "n/1", "n/1/1/x")) for one in odd] == [{}, {}, {}, {}]


def test_a_sum_that_does_not_fit_beside_the_details_begins_anew() -> None:
    full: dict[str, object] = {"text": "x" * 8_150, "quantities": {"picked": 1}}
    assert merged.with_seen(full, {"picked": {"a/1": (3, 0)}}) == full


def test_notes_are_texts() -> None:
    assert merged.notes({"notes": "a"}) == ("a",)
    assert merged.notes({"notes": ["a", 3, "b"]}) == ("a", "b")
    assert merged.notes({"notes": {"a": 1}}) == merged.notes({}) == ()
