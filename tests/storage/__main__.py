"""Cut the power: `python -m tests.storage` at every point of the traces, `--cuts N` at so many more at random, `--seed N` another script.

`--only edge:POINT:NUMBER` (printed with each complaint) makes one cut again; `--controls` shows that weaker settings are found out;
`--calls` lets each system call of each kind fail in turn.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.storage.cuts import TRANSACTIONS, Plan, Tally, cut, played
from tests.storage.disk import crash_vfs
from tests.storage.sweep import all_series, sweep
from tests.storage.upgrade import KINDS, cut_upgrade

NODES = ("edge", "hub")


def one(node: str, plan: Plan, transactions: int, synchronous: str = "FULL") -> Tally:
    """A script, and its cuts."""
    if node.startswith("upgrade-"):
        with crash_vfs("crash-upgrade") as vfs, tempfile.TemporaryDirectory(prefix="longshore-cuts-") as folder:
            return cut_upgrade(vfs, Path(folder), node.removeprefix("upgrade-"), replace(plan, go_on=1))
    with played(f"crash-{node}", plan.seed, transactions, synchronous=synchronous) as world:
        return cut(world, node, plan)


def everything(seed: int, cuts: int, transactions: int, jobs: int) -> int:
    """All traces, in several processes. Returns how many promises were broken."""
    plans = [Plan(seed, shard, jobs, True, cuts // (2 * jobs)) for shard in range(jobs)]
    failed = 0
    with ProcessPoolExecutor(jobs) as pool:
        for node in NODES:
            tally = Tally()
            for part in pool.map(one, [node] * jobs, plans, [transactions] * jobs):
                points, tally.points = tally.points, 0
                tally.add(part)
                tally.points = max(points, part.points)
            failed += told(node, tally)
    for kind in KINDS:
        failed += told(f"upgrade-{kind}", one(f"upgrade-{kind}", Plan(seed, random=100), transactions))
    return failed


def told(name: str, tally: Tally) -> int:
    """Print it; how many promises were broken."""
    print(f"{name}: {tally.text()}")
    for complaint in tally.complaints[:10]:
        print(f"  {complaint}")
    return tally.failed


def controls(seed: int, cuts: int, transactions: int) -> int:
    """What the product does not use. Returns how many went unnoticed."""
    blind = 0
    for synchronous in ("NORMAL", "OFF"):
        for node in NODES:
            tally = one(node, Plan(seed, every_point=False, random=cuts), transactions, synchronous)
            tally.complaints = []
            told(f"synchronous={synchronous}, {node}: {100 * tally.failed / tally.cuts:.0f} % of the cuts break a promise", tally)
            blind += not tally.failed
    return blind


def calls(stride: int, jobs: int) -> int:
    """Each call of each kind fails, in a run of its own. Returns how many series broke a promise."""
    series, broken, runs, began_s = all_series(), 0, 0, time.perf_counter()
    with ProcessPoolExecutor(jobs) as pool:
        for swept in pool.map(partial(sweep, stride=stride), series):
            print(f"{swept.name}: {swept.failed} runs, {swept.refused} requests refused, {swept.seconds:.1f} s", flush=True)
            for complaint in swept.complaints:
                print(f"  {complaint}")
            broken += bool(swept.complaints)
            runs += swept.failed
    print(f"{runs:,} calls failed in {len(series)} series, in {time.perf_counter() - began_s:.0f} s; {broken} series broke a promise")
    return broken


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Exit code 1 when a promise was broken, or a control was not found out."""
    parser = argparse.ArgumentParser(prog="python -m tests.storage", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of script and survivals (default 0)")
    parser.add_argument("--cuts", type=int, default=0, help="so many more at random points (default 0)")
    parser.add_argument("--transactions", type=int, default=TRANSACTIONS, help=f"of each ledger's trace (default {TRANSACTIONS})")
    parser.add_argument("--jobs", type=int, default=2, help="in how many processes (default 2)")
    parser.add_argument("--only", metavar="NODE:POINT:NUMBER", help="make one cut again")
    parser.add_argument("--controls", action="store_true", help="weaker settings, which must be found out")
    parser.add_argument("--calls", action="store_true", help="system calls that fail, instead of power loss")
    parser.add_argument("--stride", type=int, default=1, help="with --calls: only each so-manieth (default 1)")
    args = parser.parse_args(argv)
    if args.calls:
        return min(1, calls(args.stride, args.jobs))
    if args.only:
        node, point, number = args.only.split(":")
        return min(1, told(args.only, one(node, Plan(args.seed, only=(int(point), int(number))), args.transactions)))
    if args.controls:
        return min(1, controls(args.seed, args.cuts or 300, args.transactions))
    print(f"seed {args.seed}")
    return min(1, everything(args.seed, args.cuts, args.transactions, args.jobs))


if __name__ == "__main__":
    sys.exit(main())
