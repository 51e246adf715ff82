"""How close turns follow each other: `hub.pace`, and the engine that keeps to it."""

from __future__ import annotations

import pytest

from hub.pace import BACKLOG_S, LITTLE_BYTES, LITTLE_FACTS, Pace

APART_S = 0.04


@pytest.fixture
def pace() -> Pace:
    return Pace(APART_S)


def test_the_first_turn_begins_at_once(pace: Pace) -> None:
    assert pace.rest_s(0.0, 1) == 0.0


def test_after_a_turn_that_did_little_what_follows_is_gathered(pace: Pace) -> None:
    pace.turned(100.0, 1)
    assert pace.rest_s(100.01, 1) == pytest.approx(0.03)
    assert pace.rest_s(100.0 + APART_S, 1) == 0.0
    assert pace.rest_s(200.0, 1) == 0.0


def test_a_backlog_is_not_kept_waiting(pace: Pace) -> None:
    pace.turned(100.0, 1)
    assert pace.rest_s(100.01, LITTLE_BYTES) == 0.0


def test_nor_is_what_comes_within_a_moment_after_one(pace: Pace) -> None:
    pace.turned(100.0, LITTLE_FACTS)
    pace.turned(100.1, 0)
    assert pace.rest_s(100.11, 1) == 0.0
    pace.turned(100.0 + BACKLOG_S, LITTLE_FACTS - 1)
    assert pace.rest_s(100.0 + BACKLOG_S, 1) == pytest.approx(APART_S)
