"""Playing seeds, in one process or several, and what is told about them."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple

from protocols.errors import LongshoreError
from tests.sim.golden import begin
from tests.sim.options import DAY
from tests.sim.profiles import BASES, profile_of, world_of
from tests.sim.shifted import Ending, clock_matters, comparable, ending
from tests.sim.world import World

FAILING: Final = Path(__file__).with_name("failing_seeds.txt")
TWICE: Final = 40
"""every so many seeds one is played twice: the same seed must give the same hash"""
YEAR: Final = 365 * DAY
TOLD_EVERY_S: Final = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """One seed played. `seconds`: of processor time; `edge_ms`: virtual time of all its edges together."""

    seed: int
    complaint: str
    seconds: float
    virtual_ms: int = 0
    edge_ms: int = 0
    facts: int = 0
    yes: int = 0
    hash: str = ""
    counts: tuple[tuple[str, int], ...] = ()


def attempt(seed: int) -> Outcome:
    """Play a seed; a complaint instead of an exception."""
    return _attempt(seed)[0]


def _attempt(seed: int) -> tuple[Outcome, Ending | None]:
    """The same, and how a world ended that can be compared with one whose clocks are elsewhere."""
    began = time.process_time()
    ended: Ending | None = None
    world = begin(world_of(seed))
    try:
        world.run()
        complaint = ""
        ended = ending(world) if type(world) is World and shifts(seed) else None
    except (AssertionError, LongshoreError, LookupError, ValueError, TypeError, AttributeError) as e:
        complaint = f"{type(e).__name__}: {e}"
    finally:
        seconds = time.process_time() - began
        world.close()
    outcome = Outcome(
        seed,
        complaint,
        seconds,
        world.now,
        world.now * len(world.edges),
        len(world.check.truth.facts),
        world.clients.yes,
        world.hash,
        tuple(sorted(world.counts.items())),
    )
    return outcome, ended


def shifts(seed: int) -> bool:
    """Is this the world of its stretch of seeds that is played with all clocks elsewhere, too? The first that can be compared."""
    if profile_of(seed) == "golden" or not comparable(world_of(seed)):
        return False
    return not any(comparable(world_of(earlier)) for earlier in range(seed - seed % TWICE, seed))


def judged(seed: int) -> Outcome:
    """Play a seed; every so many of them twice, and one of as many with all clocks elsewhere too (I9)."""
    outcome, ended = _attempt(seed)
    if outcome.complaint:
        return outcome
    if seed % TWICE == 0 and attempt(seed).hash != outcome.hash:
        return replace(outcome, complaint="determinism: the same seed gave another hash")
    if shifts(seed):
        return replace(outcome, complaint=clock_matters(world_of(seed), ended))
    return outcome


def remember(seed: int, complaint: str) -> None:
    """Keep a failing seed for good."""
    known = FAILING.read_text("utf-8") if FAILING.exists() else ""
    if not any(line.split()[:1] == [str(seed)] for line in known.splitlines()):
        FAILING.write_text(f"{known}{seed}  # {complaint[:120]}\n", "utf-8")


def mixed(count: int, first: int = 0) -> list[int]:
    """So many fortnights; for every eighth a small world, for every twentieth one that begins in version 1, one of several workers and one
    with phones, and for every fortieth a long one."""
    every = {"fortnight": 1, "small": 8, "long": 40, "golden": 20, "workers": 20, "phones": 20}
    return [BASES[name] + first + n for name, nth in every.items() for n in range(-(-count // nth))]


def many(seeds: Sequence[int], jobs: int) -> list[Outcome]:
    """Play seeds in so many processes (0: one for each core), with a line of progress now and then."""
    jobs = jobs or _cores()
    if jobs < 2:
        return list(_told((judged(seed) for seed in seeds), len(seeds)))
    with ProcessPoolExecutor(min(jobs, len(seeds)), get_context("spawn"), initializer=_settle) as pool:
        under_way = [pool.submit(judged, seed) for seed in seeds]
        return sorted(_told((done.result() for done in as_completed(under_way)), len(seeds)), key=lambda o: o.seed)


def _cores() -> int:
    """Those that this process may use, where the system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _settle() -> None:
    """The program stays to the end: the collector of garbage looks at worlds only, and not after every few hundred messages."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


def _told(outcomes: Iterable[Outcome], count: int) -> Iterator[Outcome]:
    said = began = time.monotonic()
    failed = 0
    for n, outcome in enumerate(outcomes, 1):
        if outcome.complaint:
            failed += 1
            print(
                f"seed {outcome.seed} FAILED: {outcome.complaint[:400]}\n  replay: python -m tests.sim --seed {outcome.seed} -v", flush=True
            )
            remember(outcome.seed, outcome.complaint)
        if time.monotonic() - said >= TOLD_EVERY_S and n < count:
            said = time.monotonic()
            left = (said - began) / n * (count - n)
            print(f"  {n} of {count} worlds, {failed} failed, about {left:.0f} s left", file=sys.stderr, flush=True)
        yield outcome


def sum_of_counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How often each thing happened in all these worlds, by name."""
    counts: dict[str, int] = {}
    for outcome in outcomes:
        for what, n in outcome.counts:
            counts[what] = counts.get(what, 0) + n
    return dict(sorted(counts.items()))


def report(outcomes: Sequence[Outcome], wall_seconds: float) -> None:
    """What was played, in a few lines."""
    for what, n in sum_of_counts(outcomes).items():
        print(f"  {n:8}  {what}")
    for profile in profiles_of(outcomes):
        each = f"{profile.mean_s:.2f} CPU s a seed (median {profile.median_s:.2f}, worst {profile.worst_s:.2f})"
        print(f"{profile.name:9} {profile.seeds:5} seeds {profile.first}..{profile.last}, {profile.edge_years:.1f} edge-years, {each}")
    print(f"{len(outcomes)} worlds in {wall_seconds:.0f} s; facts {sum(o.facts for o in outcomes)}, of them", end=" ")
    print(f"{sum(o.yes for o in outcomes)} answered yes to somebody who heard it")
    failed = [o.seed for o in outcomes if o.complaint]
    print(f"failed: {' '.join(map(str, failed))}" if failed else "all promises kept")


class Played(NamedTuple):
    """What was played of one profile; processor seconds of a seed."""

    name: str
    seeds: int
    first: int
    last: int
    edge_years: float
    facts: int
    mean_s: float
    median_s: float
    worst_s: float


def profiles_of(outcomes: Sequence[Outcome]) -> list[Played]:
    """Each profile that was played."""
    out = []
    for name in BASES:
        ours = [o for o in outcomes if profile_of(o.seed) == name]
        if ours:
            seeds, costs = sorted(o.seed for o in ours), sorted(o.seconds for o in ours)
            years, facts = sum(o.edge_ms for o in ours) / YEAR, sum(o.facts for o in ours)
            mean, median = sum(costs) / len(costs), costs[len(costs) // 2]
            out.append(Played(name, len(ours), seeds[0], seeds[-1], years, facts, mean, median, costs[-1]))
    return out
