"""Turns: whose backlog is sent now, in which order, and that nobody who is silent holds up the others."""

from __future__ import annotations

from collections.abc import Callable

from hub.turns import FRESH_MS, LEFT_MS, SPELL_TURNS, WAITING_BYTES, Turns

NODES = ["a", "b", "c", "d"]


def all_are(_: str) -> bool:
    return True


def given(turns: Turns, now_ms: int = 0, served: Callable[[str], bool] = all_are) -> list[str]:
    return list(turns.given(now_ms, served))


def four(facts: int = 50) -> Turns:
    """Of four nodes with a backlog two have their turn."""
    turns = Turns(20, turn=10, little=3)
    for node in NODES:
        turns.lacks(node, facts)
    assert given(turns) == ["a", "b"]
    return turns


def test_turns_come_in_the_order_of_asking_and_as_many_as_there_is_room_for() -> None:
    turns = four()
    assert [turns.has(n) for n in NODES] == [True, True, False, False]
    assert [turns.waits(n) for n in NODES] == [False, False, True, True]
    assert turns.waiting == 2
    assert given(turns) == []


def test_who_has_sent_all_of_it_makes_room_for_the_next() -> None:
    turns = four()
    turns.took("b", 50, 1)
    assert not turns.has("b") and not turns.waits("b")
    assert given(turns, 1) == ["c"]


def test_little_needs_no_turn_and_what_is_left_of_much_makes_room_early() -> None:
    turns = four()
    turns.lacks("e", 3)
    assert not turns.waits("e")
    turns.took("a", 45, 1)
    turns.took("b", 45, 1)
    assert given(turns, 1) == ["c"], "five and five of them are still to come, and ten of this one"


def test_after_a_good_deal_it_is_the_turn_of_others_if_there_are_any() -> None:
    turns = four(facts=500)
    turns.took("a", 10 * SPELL_TURNS, 1)
    assert turns.waits("a")
    assert given(turns, 1) == ["c"]
    for node in ("b", "c", "d"):
        turns.lacks(node, 0)
    assert given(turns, 1) == ["a"]
    turns.took("a", 10 * SPELL_TURNS, 2)
    assert turns.has("a"), "nobody else waits"


def test_the_silent_hold_up_nobody_for_long_and_lose_their_turn_in_the_end() -> None:
    turns = four()
    turns.took("b", 5, FRESH_MS - 1)
    assert given(turns, FRESH_MS - 1) == []
    assert turns.due_ms(FRESH_MS - 1) == FRESH_MS
    assert not turns.is_due(FRESH_MS - 1)
    assert turns.is_due(FRESH_MS)
    assert given(turns, FRESH_MS) == ["c"]
    assert not turns.is_due(FRESH_MS)
    assert turns.has("a")
    given(turns, LEFT_MS)
    assert not turns.has("a") and not turns.waits("a")
    turns.lacks("a", 50)
    assert turns.waits("a"), "it is heard again"


def test_nobody_is_asked_for_more_while_much_waits_to_be_taken() -> None:
    turns = four()
    turns.took("a", 50, 1)
    turns.waiting_bytes = WAITING_BYTES + 1
    assert given(turns, 1) == [] and not turns.is_due(1) and turns.due_ms(1) is None
    turns.waiting_bytes = 0
    assert turns.is_due(1)
    assert given(turns, 1) == ["c"]


def test_what_is_fresh_of_who_waits_counts_for_nothing() -> None:
    turns = four()
    turns.took("c", 50, 1)
    assert turns.waits("c")


def test_who_was_told_to_wait_is_told_to_go_on_however_little_is_left() -> None:
    turns = four()
    turns.lacks("c", 1)
    turns.lacks("d", 0)
    assert turns.waits("c") and not turns.waits("d"), "nothing is left of it to be sent"
    turns.took("a", 50, 1)
    assert given(turns, 1) == ["c"]


def test_who_asks_again_keeps_its_place_and_its_turn() -> None:
    turns = four()
    turns.lacks("c", 60)
    turns.lacks("a", 60)
    assert turns.has("a")
    turns.took("a", 60, 1)
    assert given(turns, 1) == ["c"]


def test_who_is_served_elsewhere_is_passed_over() -> None:
    turns = four()
    turns.took("a", 50, 1)
    assert given(turns, 1, lambda node: node != "c") == ["d"]
    assert not turns.waits("c")


def test_a_clock_that_goes_back_keeps_nobody_waiting() -> None:
    turns = Turns(20, turn=10, little=3)
    for node in NODES:
        turns.lacks(node, 50)
    assert given(turns, 1_000_000) == ["a", "b"]
    assert turns.is_due(5)
    assert given(turns, 5) == ["c", "d"]


def test_what_each_may_have_is_more_where_few_have_a_turn() -> None:
    turns = Turns(100, turn=10, little=3)
    assert turns.share() == 100
    for n in range(30):
        turns.lacks(f"n{n}", 50)
    given(turns)
    assert turns.share() == 10
