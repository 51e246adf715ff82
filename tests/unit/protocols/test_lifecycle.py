"""The table against a picture drawn by hand, and what must hold of any such table."""

from __future__ import annotations

import re
from itertools import combinations, permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import lifecycle
from protocols.lifecycle import PATH, ROWS, STATUS_NAMES, TABLE, TERMINAL, Status, can_coexist, may_follow, sort_key

PAIRS = list(product(Status, Status))
statuses = st.sampled_from(Status)

# Row: the earlier one. Column: the later one, in the order of the codes. Drawn by hand from the meaning, not from the table.
NORMAL_BY_HAND = """
    PLACED           .xxxxxxxxxxxxxx
    APPROVED         .xxxxxxxxxxxxxx
    ALLOCATED        ..xxxxxxxxxxxxx
    PICKED           ...xxxxxxx.xx..
    PACKED           ....xxxxxx.xx..
    SHIPPED          .....xxxxx.xx..
    IN_TRANSIT       ......xxxx.xx..
    OUT_FOR_DELIVERY .......xxx.xx..
    DELIVERED        ........x...x.x
    HELD             .xxxxxxxxxxxxxx
    BACKORDERED      ..xxxxxxxxxxxxx
    DELIVERY_FAILED  ......xxxx.xx.x
    RETURNED         ............x.x
    CANCELLED        ............x.x
    REFUNDED         ............x.x
"""


def test_every_pair_is_as_drawn_by_hand() -> None:
    drawn = [line.split() for line in NORMAL_BY_HAND.strip().splitlines()]
    assert [name for name, _ in drawn] == list(STATUS_NAMES)
    expected = {(Status[name], later): mark == "x" for name, marks in drawn for later, mark in zip(Status, marks, strict=True)}
    assert {pair: may_follow(*pair) for pair in PAIRS} == expected


def test_codes_and_order_are_those_released() -> None:
    """On disk, on the wire, and in every node's choice of what to show: adding is allowed, changing is not."""
    assert {status.name: (int(status), *sort_key(status)) for status in Status} == {
        "PLACED": (1, 0, 10),
        "APPROVED": (2, 0, 20),
        "ALLOCATED": (3, 0, 30),
        "PICKED": (4, 0, 40),
        "PACKED": (5, 0, 50),
        "SHIPPED": (6, 0, 60),
        "IN_TRANSIT": (7, 0, 70),
        "OUT_FOR_DELIVERY": (8, 0, 80),
        "DELIVERED": (9, 3, 90),
        "HELD": (10, 1, 82),
        "BACKORDERED": (11, 0, 25),
        "DELIVERY_FAILED": (12, 1, 85),
        "RETURNED": (13, 3, 110),
        "CANCELLED": (14, 2, 100),
        "REFUNDED": (15, 3, 120),
    }


def test_table_has_each_status_once_and_a_rank_of_its_own() -> None:
    assert sorted(row.status for row in TABLE) == list(Status)
    ranks = [row.rank for row in TABLE]
    assert ranks == sorted(set(ranks))


def test_skipping_forward_is_normal_and_going_back_is_not() -> None:
    for earlier, later in combinations(PATH, 2):
        assert may_follow(earlier, later), (earlier, later)
        assert not may_follow(later, earlier), (later, earlier)


def test_only_placing_and_cancelling_happen_once() -> None:
    assert [status for status in Status if not may_follow(status, status)] == [Status.PLACED, Status.CANCELLED]


def test_nothing_comes_before_placed() -> None:
    assert not any(may_follow(earlier, Status.PLACED) for earlier in Status)


def test_every_status_is_reached_from_placed() -> None:
    reached = [Status.PLACED]
    for status in reached:
        reached += [later for later in Status if may_follow(status, later) and later not in reached]
    assert sorted(reached) == list(Status)


def test_only_the_end_of_work_follows_the_end_of_work() -> None:
    assert set(TERMINAL) == {Status.DELIVERED, Status.CANCELLED, Status.RETURNED, Status.REFUNDED}
    for earlier, later in PAIRS:
        if lifecycle.is_terminal(earlier) and may_follow(earlier, later):
            assert lifecycle.is_terminal(later), (earlier, later)


def test_whatever_is_open_can_still_end() -> None:
    for status in Status:
        if not lifecycle.is_terminal(status):
            assert any(may_follow(status, end) for end in TERMINAL), status


def test_these_pairs_conflict_and_no_others() -> None:
    out_of_stock = (Status.PICKED, Status.PACKED, Status.SHIPPED, Status.IN_TRANSIT, Status.OUT_FOR_DELIVERY)
    expected = [(moved, Status.CANCELLED) for moved in (*out_of_stock, Status.DELIVERED, Status.DELIVERY_FAILED)]
    expected += [(moved, Status.REFUNDED) for moved in out_of_stock]
    assert lifecycle.conflicts() == sorted(expected)


@pytest.mark.parametrize("status", Status)
def test_the_same_milestone_twice_is_no_conflict(status: Status) -> None:
    assert can_coexist(status, status)


def test_coexistence_has_no_first_and_second() -> None:
    for a, b in PAIRS:
        assert can_coexist(a, b) == can_coexist(b, a) == (a == b or may_follow(a, b) or may_follow(b, a))


def test_a_return_settles_every_conflict() -> None:
    for a, b in lifecycle.conflicts():
        assert may_follow(a, Status.RETURNED), a
        assert may_follow(b, Status.RETURNED), b


@given(statuses, statuses, statuses)
def test_the_order_is_total(a: Status, b: Status, c: Status) -> None:
    assert (sort_key(a) < sort_key(b)) + (sort_key(b) < sort_key(a)) == (a != b)
    if sort_key(a) <= sort_key(b) <= sort_key(c):
        assert sort_key(a) <= sort_key(c)


@given(st.lists(statuses, min_size=1, max_size=5))
def test_what_is_shown_does_not_depend_on_arrival(heads: list[Status]) -> None:
    assert len({max(order, key=sort_key) for order in permutations(heads)}) == 1


def test_of_concurrent_facts_the_weightier_is_shown() -> None:
    def shown(*heads: Status) -> Status:
        return max(heads, key=sort_key)

    assert shown(Status.CANCELLED, Status.PICKED) is Status.CANCELLED, "a decision to stop is seen before progress"
    assert shown(Status.CANCELLED, Status.DELIVERED) is Status.DELIVERED, "what the customer holds cannot be decided away"
    assert shown(Status.HELD, Status.OUT_FOR_DELIVERY) is Status.HELD, "an open problem is seen before progress"
    assert shown(Status.HELD, Status.CANCELLED) is Status.CANCELLED, "a cancelled order is no open problem"
    assert shown(Status.RETURNED, Status.DELIVERED) is Status.RETURNED, "a return comes after delivery"


def edges_of(diagram: str) -> set[tuple[Status, Status]]:
    """The arrows of a diagram, those from a group taken apart into its members."""
    groups = {key: body.split() for key, body in re.findall(r'subgraph (\w+) \[".*?"\]\n(.*?)  end', diagram, re.DOTALL)}
    arrows = re.findall(r"^  (\w+) --> (\w+)$", diagram, re.MULTILINE)
    return {(Status[source], Status[later]) for start, later in arrows for source in groups.get(start, [start])}


def test_the_diagram_says_exactly_what_the_table_says() -> None:
    edges = edges_of(lifecycle.mermaid())
    skipped = {(earlier, later) for earlier, reached in edges if reached in PATH for later in PATH[PATH.index(reached) :]}
    repeats = {(row.status, row.status) for row in TABLE if row.repeats}
    assert edges | skipped | repeats == {pair for pair in PAIRS if may_follow(*pair)}


def test_the_document_is_current() -> None:
    assert lifecycle.DOCUMENT.read_text(encoding="utf-8") == lifecycle.markdown(), "run: python -m protocols.lifecycle"


def test_the_document_tells_every_status_and_conflict() -> None:
    document = lifecycle.markdown()
    for status in Status:
        assert f"- **{status.name}**: {ROWS[status].meaning}" in document
        assert f"| {int(status)} | **{status.name}** |" in document
    for a, b in lifecycle.conflicts():
        assert f"- **{a.name} / {b.name}**" in document
