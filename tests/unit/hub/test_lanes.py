"""Lanes: whose message is taken next."""

from __future__ import annotations

import pytest

from hub.lanes import SPELL_BYTES, Lanes


def taken(lanes: Lanes[str], *, words_first: bool = True) -> list[str]:
    out = []
    while lanes:
        out.append(lanes.take(words_first=words_first)[0])
    return out


def test_lanes_take_turns_and_each_keeps_its_order() -> None:
    lanes: Lanes[str] = Lanes()
    for n in range(3):
        for node in ("a", "b"):
            lanes.put(node, f"{node}{n}", SPELL_BYTES, word=False)
    assert taken(lanes) == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_a_lane_keeps_its_turn_for_a_few_small_frames() -> None:
    lanes: Lanes[str] = Lanes()
    for n in range(4):
        for node in ("a", "b"):
            lanes.put(node, f"{node}{n}", SPELL_BYTES // 2, word=False)
    assert taken(lanes) == ["a0", "a1", "b0", "b1", "a2", "a3", "b2", "b3"]


def test_a_spell_that_ended_early_is_not_charged_to_the_next() -> None:
    lanes: Lanes[str] = Lanes()
    lanes.put("a", "a0", SPELL_BYTES // 2, word=False)
    for n in range(3):
        lanes.put("b", f"b{n}", SPELL_BYTES // 2, word=False)
    lanes.put("c", "c0", 1, word=False)
    assert taken(lanes) == ["a0", "b0", "b1", "c0", "b2"]


def test_words_go_before_facts_but_not_before_facts_of_the_same_node() -> None:
    lanes: Lanes[str] = Lanes()
    lanes.put("a", "a: facts", 9, word=False)
    lanes.put("a", "a: word", 1, word=True)
    lanes.put("a", "a: more facts", 9, word=False)
    lanes.put("b", "b: word", 1, word=True)
    assert taken(lanes) == ["b: word", "a: facts", "a: word", "a: more facts"]


def test_enough_of_words() -> None:
    lanes: Lanes[str] = Lanes()
    for node in "abc":
        lanes.put(node, f"{node}: word", 1, word=True)
    lanes.put("d", "d: facts", 9, word=False)
    assert lanes.take()[0] == "a: word"
    assert taken(lanes, words_first=False) == ["d: facts", "b: word", "c: word"]


def test_bytes_are_counted_by_node_and_forgotten_with_the_last() -> None:
    lanes: Lanes[str] = Lanes()
    lanes.put("a", "1", 5, word=False)
    lanes.put("a", "2", 7, word=True)
    assert lanes.bytes_of("a") == 12
    assert lanes.take() == ("1", 5)
    assert lanes.bytes_of("a") == 7
    lanes.take()
    assert (lanes.bytes_of("a"), bool(lanes)) == (0, False)
    lanes.put("b", "3", 1, word=True)
    lanes.clear()
    assert not lanes
    with pytest.raises(StopIteration):
        lanes.take()
