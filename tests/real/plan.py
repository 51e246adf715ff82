"""What is done to a whole system and when, drawn from a seed: each kind of process in turn, then the long outages, then anybody. Pure.

The doings are those of `tests.chaos.plan`. Four are SIGKILLs: `kill`; `down`, after which nobody starts it again until `up`; `wipe`, after
which its disk is empty; `midst`, which waits until somebody is in the midst of a transaction and hits the server then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Final

from tests.chaos.plan import CONT, DOWN, KILL, MIDST, REST, STOP, UP, WIPE, Action, Pace
from tests.chaos.plan import plan as anybody

EDGE: Final = "edge"
BROKER: Final = "broker"
HUB: Final = "hub"
KAFKA: Final = "kafka"
PROJECTOR: Final = "projector"
POSTGRES: Final = "postgres"
KINDS: Final = (EDGE, BROKER, HUB, PROJECTOR, POSTGRES, KAFKA)
SIGKILLS: Final = (KILL, DOWN, WIPE, MIDST)
TURN_MS: Final = 800
STORE_DOWN_MS: Final = 4_000
BROKER_DOWN_MS: Final = 1_500
STOPPED_MS: Final = 3_000
PACE: Final = Pace(gap_ms=(400, 2_200), fault_percent=40)
IN_OUTAGE_MS: Final = 3_000
"""while Kafka is away somebody else is killed so often, or more seldom"""
MOST_IN_OUTAGE: Final = 12


def plan(seed: int, kinds: Mapping[str, Sequence[str]], lines: Mapping[str, bool], kills: int, down_ms: int) -> list[Action]:
    """Actions in their order of time, with `kills` SIGKILLs, or as many as one round of everything takes where that is more.

    `kinds`: process names by kind. `lines`: see `tests.chaos.plan`. `down_ms`: how long Kafka is away.
    """
    rng = Random(f"real/{seed}")
    actions = _in_turn(rng, kinds, down_ms)
    last_ms = max(action.at_ms for action in actions)
    left = kills - sum(killed(actions).values())
    if left > 0:
        later = anybody(seed, kinds, lines, left, PACE)
        actions += [replace(action, at_ms=action.at_ms + last_ms + TURN_MS) for action in later]
    return sorted(actions, key=lambda action: action.at_ms)


def killed(actions: Sequence[Action]) -> Counter[str]:
    """How often each doing that is a SIGKILL is in it."""
    return Counter(action.do for action in actions if action.do in SIGKILLS)


def _in_turn(rng: Random, kinds: Mapping[str, Sequence[str]], down_ms: int) -> list[Action]:
    one = {kind: rng.choice(list(names)) for kind, names in kinds.items()}
    hub, kafka, broker, store = one[HUB], one[KAFKA], one[BROKER], one[POSTGRES]
    steps: list[tuple[int, str, str]] = [(TURN_MS, KILL, one[kind]) for kind in (EDGE, BROKER, PROJECTOR, HUB)]
    steps += [(2 * TURN_MS, STOP, hub), (STOPPED_MS, CONT, hub), (TURN_MS, REST, hub)]
    steps += [(TURN_MS, MIDST, store), (TURN_MS, REST, store)]
    steps += [(TURN_MS, WIPE, broker), (BROKER_DOWN_MS, UP, broker), (TURN_MS, REST, broker)]
    steps += [(TURN_MS, DOWN, kafka), *_meanwhile(rng, kinds, down_ms), (TURN_MS, REST, kafka)]
    steps += [(TURN_MS, DOWN, store), (STORE_DOWN_MS, UP, store), (TURN_MS, REST, store)]
    actions, at_ms = [], 0
    for gap_ms, doing, who in steps:
        at_ms += gap_ms
        actions.append(Action(at_ms, doing, who))
    return actions


def _meanwhile(rng: Random, kinds: Mapping[str, Sequence[str]], down_ms: int) -> list[tuple[int, str, str]]:
    """While Kafka is away others die, but neither in the first nor in the last quarter: somebody must be there to say that it is away. Then
    it is back."""
    often = min(MOST_IN_OUTAGE, max(1, down_ms // 2 // IN_OUTAGE_MS))
    others = [EDGE, HUB, PROJECTOR, BROKER, POSTGRES]
    rng.shuffle(others)
    step_ms = down_ms // 2 // often
    hits = [rng.choice(list(kinds[others[n % len(others)]])) for n in range(often)]
    kills = [(down_ms // 4 if n == 0 else step_ms, KILL, who) for n, who in enumerate(hits)]
    return [*kills, (down_ms - down_ms // 4 - step_ms * (often - 1), UP, kinds[KAFKA][0])]
