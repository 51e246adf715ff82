"""How long a line lets small packets gather."""

from __future__ import annotations

import pytest

from protocols.transport.gather import LITTLE_BYTES, MANY, PACKETS_MOST, Gather

LEAST_S = 0.005
LONGER_S = 0.015


def paused(gather: Gather, now_s: float, *sizes: int) -> float:
    """After reading packets of these sizes."""
    gather.begin()
    for size in sizes:
        gather.came(size)
    return gather.pause_s(now_s)


def after_rate(per_s: float, least_s: float = LEAST_S) -> float:
    """The pause where so many come in a second, one at each reading."""
    gather = Gather(least_s)
    for n in range(int(per_s * 8)):
        pause_s = paused(gather, 1_000 + n / per_s, 120)
    return pause_s


@pytest.mark.parametrize(("per_s", "pause_s"), [(20, LEAST_S), (100, LEAST_S), (200, LONGER_S), (2_000, LONGER_S)])
def test_where_many_come_the_moment_is_longer(per_s: float, pause_s: float) -> None:
    assert round(MANY / LONGER_S) == 133
    assert after_rate(per_s) == pytest.approx(pause_s)


def test_after_a_rest_few_come_again() -> None:
    gather = Gather(LEAST_S)
    for n in range(1_000):
        paused(gather, n / 500, 120)
    assert paused(gather, 2.1, 120) == pytest.approx(LONGER_S)
    assert paused(gather, 12.0, 120) == LEAST_S


@pytest.mark.parametrize(
    "sizes", [(LITTLE_BYTES,), (LITTLE_BYTES - 1, 1), (1,) * PACKETS_MOST, ()], ids=["large", "both", "many", "nothing"]
)
def test_a_backlog_waits_for_nothing_and_nothing_is_waited_for_where_nothing_came(sizes: tuple[int, ...]) -> None:
    gather = Gather(LEAST_S)
    assert paused(gather, 1.0, *sizes) == 0.0
    assert gather.much is bool(sizes)
    assert paused(gather, 1.1, LITTLE_BYTES - 1) == LEAST_S
    assert not gather.much


@pytest.mark.parametrize("per_s", [20, 2_000])
def test_a_line_that_is_not_to_gather_never_does(per_s: float) -> None:
    assert after_rate(per_s, 0.0) == 0.0
