"""The plan hits every kind of process, lets the hub say what it lacks, and is the same for the same seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import pytest

from tests.chaos.plan import CONT, DOWN, KILL, MIDST, REST, STOP, UP, WIPE, Action
from tests.real.plan import BROKER, HUB, KAFKA, KINDS, POSTGRES, killed, plan

NAMES: Final[Mapping[str, Sequence[str]]] = {
    kind: [kind] if kind in (BROKER, HUB, KAFKA, POSTGRES) else [f"{kind}-1", f"{kind}-2"] for kind in KINDS
}
LINES: Final = {"edge-1>broker": True}
SEEDS: Final = range(30)


def kind_of(action: Action) -> str:
    return action.who.rpartition("-")[0] or action.who


def drawn(seed: int, kills: int = 0, down_ms: int = 60_000) -> list[Action]:
    return plan(seed, NAMES, LINES, kills, down_ms)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_kind_is_killed_and_the_engines_also_in_their_own_ways(seed: int) -> None:
    actions = drawn(seed)
    assert {kind_of(a) for a in actions if a.do in (KILL, DOWN, WIPE, MIDST)} == {*KINDS}
    assert [kind_of(a) for a in actions if a.do in (DOWN, WIPE, MIDST)] == [POSTGRES, BROKER, KAFKA, POSTGRES]


@pytest.mark.parametrize("down_ms", [8_000, 20_000, 180_000])
def test_kafka_is_away_as_long_as_said_and_others_die_only_in_the_middle_half(down_ms: int) -> None:
    for seed in SEEDS:
        actions = drawn(seed, down_ms=down_ms)
        gone = next(n for n, a in enumerate(actions) if a.do == DOWN and a.who == KAFKA)
        back = next(n for n, a in enumerate(actions) if a.do == UP and a.who == KAFKA)
        assert actions[back].at_ms - actions[gone].at_ms == down_ms
        meanwhile = [a.at_ms - actions[gone].at_ms for a in actions[gone + 1 : back]]
        assert meanwhile
        assert all(down_ms // 4 <= at_ms <= down_ms * 3 // 4 for at_ms in meanwhile)


@pytest.mark.parametrize("kills", [0, 12, 40])
def test_there_are_as_many_kills_as_asked_for_or_one_round(kills: int) -> None:
    for seed in SEEDS:
        round_of_all = killed(drawn(seed)).total()
        assert killed(drawn(seed, kills)).total() == max(kills, round_of_all)


def test_who_is_held_or_stopped_goes_on_and_the_times_rise() -> None:
    for seed in SEEDS:
        actions = drawn(seed, 40)
        assert [a.at_ms for a in actions] == sorted(a.at_ms for a in actions)
        for begin, end in ((DOWN, UP), (WIPE, UP), (STOP, CONT)):
            for n, a in enumerate(actions):
                assert a.do != begin or any((b.do, b.who) == (end, a.who) for b in actions[n:]), a


def test_before_the_engines_are_hit_everybody_serves() -> None:
    for seed in SEEDS:
        actions = drawn(seed)
        for n, a in enumerate(actions):
            assert a.do not in (DOWN, WIPE, MIDST) or actions[n - 1].do == REST, a


def test_the_same_seed_is_the_same_plan() -> None:
    assert drawn(3, 40) == drawn(3, 40)
    assert drawn(3, 40) != drawn(4, 40)
