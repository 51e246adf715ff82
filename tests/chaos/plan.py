"""What is done to whom and when, drawn from a seed: kills, stops and faults on lines. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from tests.chaos.faults import draw

KILL: Final = "kill"
TERM: Final = "term"
STOP: Final = "stop"
CONT: Final = "cont"
FAULT: Final = "fault"
HEAL: Final = "heal"
CUT: Final = "cut"
BACKUP: Final = "backup"
RESTORE: Final = "restore"
ROAM: Final = "roam"
DOWN: Final = "down"
UP: Final = "up"
WIPE: Final = "wipe"
MIDST: Final = "midst"
REST: Final = "rest"
DOINGS: Final = (KILL, TERM, STOP, CONT, FAULT, HEAL, CUT, BACKUP, RESTORE, ROAM, DOWN, UP, WIPE, MIDST, REST)
PUT_BACK: Final = ("hub", "store", "both")
SIGNALS: Final = (KILL, TERM, STOP)


@dataclass(frozen=True, slots=True)
class Action:
    """One thing done: to a process (SIGKILL, SIGTERM, SIGSTOP, SIGCONT) or to a line (a fault begins, all heals, connections are cut)."""

    at_ms: int
    do: str
    who: str
    fault: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """Times in ms, drawn evenly between the two."""

    gap_ms: tuple[int, int] = (150, 1_300)
    stop_ms: tuple[int, int] = (100, 2_500)
    fault_ms: tuple[int, int] = (200, 3_000)
    fault_percent: int = 60
    """of the steps that also begin a fault on some line"""

    def stretched(self, times: int) -> Pace:
        """Everything takes so many times longer."""
        gap, stop, fault = ((lo * times, hi * times) for lo, hi in (self.gap_ms, self.stop_ms, self.fault_ms))
        return Pace(gap, stop, fault, self.fault_percent)


def plan(
    seed: int, kinds: Mapping[str, Sequence[str]], lines: Mapping[str, bool], kills: int, pace: Pace, *, favour: str = ""
) -> list[Action]:
    """Actions in their order of time, with exactly `kills` SIGKILLs; terms and stops come on top.

    `kinds`: process names by kind; each kind gets each signal (within `kills`). `lines`: by name, whether bytes on it may be changed.
    `favour`: a kind that is killed first, and hit more than twice as often as its share.
    """
    rng = Random(f"chaos/{seed}")
    actions: list[Action] = []
    at_ms, killed = 0, 0
    due = [(kind, signal) for kind in kinds for signal in SIGNALS]
    rng.shuffle(due)
    if favour in kinds:
        due.append((favour, KILL))  # the first of all, when most is under way
    names = [*kinds, *([favour] * len(kinds) if favour in kinds else [])]
    while killed < kills:
        at_ms += rng.randint(*pace.gap_ms)
        kind, signal = due.pop() if due else (rng.choice(names), rng.choices(SIGNALS, (6, 2, 2))[0])
        who = rng.choice(list(kinds[kind]))
        actions.append(Action(at_ms, signal, who))
        killed += signal == KILL
        if signal == STOP:
            actions.append(Action(at_ms + rng.randint(*pace.stop_ms), CONT, who))
        if rng.random() * 100 < pace.fault_percent:
            actions += _fault(rng, at_ms, lines, pace)
    return sorted(actions, key=lambda a: a.at_ms)


def restores(seed: int, n: int, edges: Sequence[str], span_ms: int) -> list[Action]:
    """Copies of everything early on, more of them on the way, and `n` times somebody who is put back to one: hub, store, both, an edge."""
    rng = Random(f"restores/{seed}")
    if not n:
        return []
    actions = [Action(span_ms * i // 20, BACKUP, name) for i, name in enumerate(("hub", *edges), 1)]
    for _ in range(n):
        at_ms = rng.randint(span_ms * 6 // 20, span_ms)
        who = rng.choice([*PUT_BACK, *PUT_BACK, *edges])
        if rng.random() < 0.5:
            actions.append(Action(at_ms - span_ms // 20, BACKUP, "hub" if who in PUT_BACK else who))
        actions.append(Action(at_ms, RESTORE, who, {"age": rng.choice((0, 0, 1))}))
    return sorted(actions, key=lambda a: a.at_ms)


def roams(seed: int, roads: Sequence[str], gateways: Sequence[str], span_ms: int) -> list[Action]:
    """Every phone goes from one gateway to another every few seconds."""
    rng = Random(f"roams/{seed}")
    actions = []
    for road in roads:
        at_ms = rng.randint(500, 3_000)
        while at_ms < span_ms:
            actions.append(Action(at_ms, ROAM, road, {"to": rng.choice(list(gateways))}))
            at_ms += rng.randint(1_000, 5_000)
    return actions


def _fault(rng: Random, at_ms: int, lines: Mapping[str, bool], pace: Pace) -> list[Action]:
    line = rng.choice(list(lines))
    begin_ms = at_ms + rng.randint(0, pace.gap_ms[1])
    if rng.random() < 0.1:
        return [Action(begin_ms, CUT, line)]
    fault = draw(rng, integrity=lines[line])
    return [Action(begin_ms, FAULT, line, fault.as_json()), Action(begin_ms + rng.randint(*pace.fault_ms), HEAL, line)]
