"""How close turns follow each other: `hub.pace`, and the engine that keeps to it."""

from __future__ import annotations

import pytest

from hub.pace import BACKLOG_S, FEW_TIMES, LITTLE_BYTES, LITTLE_FACTS, RATE_S, WORTH_FACTS, Pace

APART_S = 0.04


@pytest.fixture
def pace() -> Pace:
    return Pace(APART_S)


def test_the_first_turn_begins_at_once(pace: Pace) -> None:
    assert pace.rest_s(0.0, 1) == 0.0


def test_after_a_turn_that_did_little_what_follows_is_gathered(pace: Pace) -> None:
    pace.turned(100.0, 1)
    assert pace.rest_s(100.01, 1) == pytest.approx(FEW_TIMES * APART_S - 0.01)
    assert pace.rest_s(100.0 + FEW_TIMES * APART_S, 1) == 0.0
    assert pace.rest_s(200.0, 1) == 0.0


def at_a_rate(pace: Pace, per_s: float) -> float:
    """How far apart the turns come to be in which so much moves, s."""
    now_s, rest_s = 100.0, APART_S
    for _ in range(200):
        pace.turned(now_s, round(per_s * rest_s))
        rest_s = pace.rest_s(now_s, 1)
        now_s += rest_s
    return rest_s


@pytest.mark.parametrize("per_s", [20, 250, 400, 1_000])
def test_the_less_there_is_to_do_the_longer_it_is_gathered(pace: Pace, per_s: int) -> None:
    worth_s = WORTH_FACTS / per_s
    assert at_a_rate(pace, per_s) == pytest.approx(min(max(APART_S, worth_s), FEW_TIMES * APART_S), rel=0.1)


def test_what_moved_long_ago_does_not_count(pace: Pace) -> None:
    at_a_rate(pace, 1_000)
    pace.turned(1_000.0, 1)
    assert pace.rest_s(1_000.0, 1) == pytest.approx(FEW_TIMES * APART_S)
    assert 1 / RATE_S < WORTH_FACTS / (FEW_TIMES * APART_S), "one fact is few"


def test_a_backlog_is_not_kept_waiting(pace: Pace) -> None:
    pace.turned(100.0, 1)
    assert pace.rest_s(100.01, LITTLE_BYTES) == 0.0


def test_nor_is_what_comes_within_a_moment_after_one(pace: Pace) -> None:
    pace.turned(100.0, LITTLE_FACTS)
    pace.turned(100.1, 0)
    assert pace.rest_s(100.11, 1) == 0.0
    pace.turned(100.0 + BACKLOG_S, LITTLE_FACTS - 1)
    assert pace.rest_s(100.0 + BACKLOG_S, 1) == pytest.approx(APART_S), "199 facts are little, and not few"
