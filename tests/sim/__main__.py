"""Play worlds: `python -m tests.sim --seed N -v` replays one with its trace, `--seeds N` plays N fortnights of 8 edges, an eighth as many
small worlds and some others; `--world` plays N of one kind. `--planted` shows what the world catches.

A seed that fails is told with its complaint and kept in `failing_seeds.txt`, which the tests replay for good.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from protocols.errors import LongshoreError
from tests.sim import document
from tests.sim.golden import begin
from tests.sim.planted import PLANTS, catch, table
from tests.sim.profiles import BASES, world_of
from tests.sim.runner import many, mixed, report
from tests.sim.world import play


def replay(seed: int, *, verbose: bool) -> int:
    """One seed, readable."""
    options = world_of(seed)
    if verbose:
        print(options)
    try:
        world = play(options, print if verbose else None, begin)
    except (AssertionError, LongshoreError) as e:
        print(f"seed {seed} FAILED: {e}")
        return 1
    print(f"seed {seed}: {len(world.check.truth.facts)} facts, healed in {world.heal_steps} steps, hash {world.hash}")
    for what, n in sorted(world.counts.items()):
        print(f"  {n:8}  {what}")
    return 0


def planted(*, write: bool) -> int:
    """Every planted bug, and how soon it is caught; into RELIABILITY.md too."""
    caught = []
    print(table([])[0], flush=True)
    for plant in PLANTS:
        caught.append(catch(plant))
        print(table(caught[-1:])[1], flush=True)
    if write:
        rows = [document.Caught(c.name, c.worlds, c.seed, c.complaint) for c in caught]
        document.write(planted_bugs=document.planted(rows))
    return 0 if all(c.worlds and not c.control for c in caught) else 1


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Exit code 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("-v", "--verbose", action="store_true", help="with its trace")
    parser.add_argument("--seeds", type=int, default=100, help="how many to play (default 100)")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them, counted within each kind (default 0)")
    parser.add_argument("--world", choices=list(BASES), help="worlds of this kind only")
    parser.add_argument("--jobs", type=int, default=0, help="in how many processes (default: one for each core)")
    parser.add_argument("--planted", action="store_true", help="plant bugs and show how soon each is caught")
    parser.add_argument("--write", action="store_true", help="write the figures into RELIABILITY.md")
    args = parser.parse_args(argv)
    if args.planted:
        return planted(write=args.write)
    if args.seed is not None:
        return replay(args.seed, verbose=args.verbose)
    began = time.perf_counter()
    if args.world is not None:
        seeds = [BASES[args.world] + args.first + n for n in range(args.seeds)]
    else:
        seeds = mixed(args.seeds, args.first)
    outcomes = many(seeds, args.jobs)
    report(outcomes, time.perf_counter() - began)
    if args.write:
        document.write(worlds=document.worlds(outcomes))
    return 1 if any(o.complaint for o in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
