"""Playing seeds, in one process or several, and what is told about them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from protocols.errors import LongshoreError
from tests.sim.options import DAY, draw
from tests.sim.world import World

FAILING: Final = Path(__file__).with_name("failing_seeds.txt")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One seed played."""

    seed: int
    complaint: str
    seconds: float
    virtual_ms: int = 0
    facts: int = 0
    yes: int = 0
    hash: str = ""
    counts: tuple[tuple[str, int], ...] = ()


def attempt(seed: int) -> Outcome:
    """Play a seed; a complaint instead of an exception."""
    began = time.perf_counter()
    world = World(draw(seed))
    try:
        world.run()
        complaint = ""
    except (AssertionError, LongshoreError, LookupError, ValueError, TypeError) as e:
        complaint = f"{type(e).__name__}: {e}"
    finally:
        world.close()
    counts = tuple(sorted(world.counts.items()))
    return Outcome(
        seed, complaint, time.perf_counter() - began, world.now, len(world.check.truth.facts), world.clients.yes, world.hash, counts
    )


def remember(seed: int, complaint: str) -> None:
    """Keep a failing seed for good."""
    known = FAILING.read_text("utf-8") if FAILING.exists() else ""
    if not any(line.split()[:1] == [str(seed)] for line in known.splitlines()):
        FAILING.write_text(f"{known}{seed}  # {complaint[:120]}\n", "utf-8")


def many(first: int, count: int, jobs: int) -> list[Outcome]:
    """Play seeds in so many processes."""
    seeds = range(first, first + count)
    if jobs < 2:
        return [_told(attempt(seed)) for seed in seeds]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        return [_told(outcome) for outcome in pool.map(attempt, seeds, chunksize=4)]


def _told(outcome: Outcome) -> Outcome:
    if outcome.complaint:
        print(f"seed {outcome.seed} FAILED: {outcome.complaint[:400]}\n  replay: python -m tests.sim --seed {outcome.seed} -v", flush=True)
        remember(outcome.seed, outcome.complaint)
    return outcome


def report(outcomes: Sequence[Outcome], wall_seconds: float) -> None:
    """What was played, in a few lines."""
    counts: dict[str, int] = {}
    for outcome in outcomes:
        for what, n in outcome.counts:
            counts[what] = counts.get(what, 0) + n
    seconds, days = sum(o.seconds for o in outcomes), sum(o.virtual_ms for o in outcomes) / DAY
    first, last = outcomes[0].seed, outcomes[-1].seed
    each = f"{seconds / len(outcomes):.2f} s a world"
    print(f"seeds {first}..{last}: {len(outcomes)} worlds, {days:.0f} virtual days in {wall_seconds:.1f} s ({each})")
    print(f"facts {sum(o.facts for o in outcomes)}, of them {sum(o.yes for o in outcomes)} answered yes to somebody who heard it")
    for what, n in sorted(counts.items()):
        print(f"  {n:8}  {what}")
    failed = [o.seed for o in outcomes if o.complaint]
    print(f"failed: {' '.join(map(str, failed))}" if failed else "all promises kept")
