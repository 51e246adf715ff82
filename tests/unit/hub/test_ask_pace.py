"""How often the store is asked what became of what went over the bus: `hub.ask_pace`."""

from __future__ import annotations

import pytest

from hub.ask_pace import ASK_FIRST_MS, ASK_MOST_MS, ASK_SHARE, AskPace


@pytest.fixture
def pace() -> AskPace:
    return AskPace()


def test_it_is_asked_soon_after_the_bus_took_something(pace: AskPace) -> None:
    pace.due_ms = 900_000
    pace.soon(100_000)
    assert pace.due_ms == 100_000 + ASK_FIRST_MS
    pace.soon(100_050)
    assert pace.due_ms == 100_000 + ASK_FIRST_MS, "more of it puts nothing off"


def test_while_nothing_comes_of_it_it_is_asked_less_and_less(pace: AskPace) -> None:
    now_ms, waits = 100_000, []
    for _ in range(8):
        pace.asked(now_ms)
        pace.answered(now_ms + 1)
        waits.append(pace.due_ms - now_ms)
        now_ms = pace.due_ms
    assert waits == sorted(waits)
    assert waits[0] == 2 * ASK_FIRST_MS
    assert waits[-1] == ASK_MOST_MS


@pytest.mark.parametrize("took_ms", [1, ASK_FIRST_MS, ASK_MOST_MS])
def test_what_takes_long_is_asked_seldom(pace: AskPace, took_ms: int) -> None:
    pace.asked(100_000)
    pace.answered(100_000 + took_ms)
    pace.due_ms = 900_000
    pace.soon(200_000)
    assert pace.due_ms - 200_000 == min(max(ASK_FIRST_MS, ASK_SHARE * took_ms), ASK_MOST_MS)


def test_a_quick_answer_ends_it(pace: AskPace) -> None:
    pace.asked(100_000)
    pace.answered(100_000 + ASK_MOST_MS)
    pace.asked(200_000)
    pace.answered(200_001)
    pace.due_ms = 900_000
    pace.soon(300_000)
    assert pace.due_ms == 300_000 + ASK_FIRST_MS


def test_a_clock_that_is_set_back_keeps_nobody_waiting(pace: AskPace) -> None:
    pace.asked(100_000)
    pace.answered(50_000)
    pace.soon(50_000)
    assert pace.due_ms == 50_000 + ASK_FIRST_MS
    pace.due_ms = 100_000
    pace.soon(10_000)
    assert pace.due_ms == 10_000 + ASK_FIRST_MS


@pytest.mark.parametrize("before", [False, True])
def test_what_nobody_asked_for_says_nothing(pace: AskPace, before: bool) -> None:
    if before:  # it was time, and there was nothing to ask
        pace.asked(100_000, something=False)
    pace.answered(500_000)
    pace.due_ms = 900_000
    pace.soon(100_000)
    assert pace.due_ms == 100_000 + ASK_FIRST_MS
