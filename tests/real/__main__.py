"""Everything on the real engines: conformance suites, end-to-end scenarios, and a kill test; each starts what it needs on free ports, and
ends it. `python -m tests.real --kills 40 --down 300`; `--replay JOURNAL` does again what a journal says was done.

The kill test: edges, Mosquitto, hub, Kafka, projectors and PostgreSQL are killed (SIGKILL) in turn and then in random order, Kafka is
away for long, PostgreSQL is hit in the midst of a transaction, the broker loses its disk, all while clients hand over orders. Then
everything must come to rest by itself, and PostgreSQL must hold each fact that was answered with yes, once and in order, with the right
views. A run that fails keeps its folder, with the journal and everybody's log.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import SystemRandom
from types import FrameType
from typing import Any, Final, TextIO
from xml.etree import ElementTree

from tests.chaos.plan import Action
from tests.real.report import as_json, text
from tests.real.run import RealOptions, recorded, run
from tests.real.sabotage import SABOTAGES
from tests.support.needs import verdict
from tests.support.patience import END_S
from tests.support.procs import python

PARTS: Final = ("mosquitto", "kafka", "postgres")
SUITES: Final = {"conformance": "tests/conformance", "scenarios": "tests/scenarios"}
"""of which those tests are run that need a part of the system"""
A_RUN: Final = 40
"""kills of one run at the most; more are several runs, each with a seed of its own"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Exit code 1 when a promise was broken, or a part is missing under CI=true."""
    args = _parser().parse_args(argv)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # that a Kafka which was killed is away is no news
    code = _missing()
    if code is not None:
        return code
    try:
        again = recorded(args.replay) if args.replay else None
    except ValueError as error:
        print(f"real: {error}", file=sys.stderr)
        return 2
    only = args.only or ("kills" if args.replay or args.sabotage else "")
    results: list[dict[str, Any]] = []
    for name, folder in SUITES.items():
        if only in ("", "suites", name):
            results.append(_suite(name, folder, args))
    if only in ("", "kills"):
        results += [_one(*again, args=args)] if again else _kill_test(args)
    _sum_up(results, as_json=args.json)
    return int(any(result["failed"] for result in results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.real", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["suites", *SUITES, "kills"], help="this part only (default: all)")
    parser.add_argument("--kills", type=int, default=30, metavar="N", help="SIGKILLs (default 30; a run takes ten or more)")
    parser.add_argument("--down", type=float, default=120.0, metavar="SECONDS", help="how long Kafka is away in each run (default 120)")
    parser.add_argument("--seed", type=int, help="of the first run (default: drawn, and printed)")
    parser.add_argument("--edges", type=int, default=3, help="how many edges (default 3)")
    parser.add_argument("--projectors", type=int, default=2, help="how many projectors, in one group (default 2)")
    parser.add_argument(
        "--workers",
        type=int,
        help="hub workers that share the nodes by leases (default: in one run 1, without leases, in the next 2)",
    )
    parser.add_argument("--sabotage", metavar="NAME[+NAME]", help=f"break promises, which must be found: {', '.join(SABOTAGES)}")
    parser.add_argument("--replay", type=Path, metavar="JOURNAL", help="do again what was done")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep folders of failed runs there (default: the system's)")
    parser.add_argument("--jobs", default="2", metavar="N", help="processes for the suites (default 2)")
    parser.add_argument("--json", action="store_true", help="the results as one JSON object a line")
    return parser


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(130)


def _missing() -> int | None:
    """The exit code where a part is missing, which is said loudly; None where all are there."""
    said = [(action, reason) for action, reason in map(verdict, PARTS) if action != "run"]
    for action, reason in said:
        print(f"!! {'FAILED' if action == 'fail' else 'NOT RUN'}: {reason}; `make system` installs what is missing", file=sys.stderr)
    return None if not said else int(any(action == "fail" for action, _ in said))


# ------------------------------------------------------------ suites


def _suite(name: str, folder: str, args: argparse.Namespace) -> dict[str, Any]:
    """Those of its tests that need a part of the system, by pytest, which says how far it is."""
    print(f"real: {name} on the real engines", flush=True)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="longshore-real-") as temporary:
        found = Path(temporary) / "found.xml"
        jobs = ["-n", args.jobs, "--dist", "worksteal"] if args.jobs != "0" else []
        command = python("-m", "pytest", "-q", folder, "-m", "needs", *jobs, "--durations=0", "--durations-min=60", f"--junitxml={found}")
        code = _run_whole(command, sys.stderr if args.json else None)
        suite = ElementTree.parse(found).getroot().find("testsuite") if found.exists() else None
    counts = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")} if suite is not None else {}
    return {"part": name, "failed": code != 0, "code": code, **counts, "seconds": round(time.monotonic() - began_s, 1)}


def _run_whole(command: Sequence[str], out: TextIO | None) -> int:
    """Its exit code. When this process is asked to end meanwhile, all that it started is asked, too, and ends."""
    suite = subprocess.Popen(command, stdout=out, start_new_session=True)
    try:
        return suite.wait()
    finally:
        if suite.poll() is None:
            for number, within_s in ((signal.SIGINT, END_S), (signal.SIGKILL, END_S)):
                with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(suite.pid, number)
                    suite.wait(within_s)


# ------------------------------------------------------------ kills


def _kill_test(args: argparse.Namespace) -> list[dict[str, Any]]:
    seed = args.seed if args.seed is not None else SystemRandom().randrange(1_000_000)
    workers = [args.workers] if args.workers else [1, 2]
    runs: int = max(len(workers), -(-args.kills // A_RUN))
    kills = [args.kills // runs + (n < args.kills % runs) for n in range(runs)]
    drawn = RealOptions(edges=args.edges, projectors=args.projectors, down_ms=int(args.down * 1_000), sabotage=args.sabotage or "")
    return [
        _one(replace(drawn, seed=seed + n, kills=many, workers=workers[n % len(workers)], edges=args.edges), args=args)
        for n, many in enumerate(kills)
    ]


def _one(options: RealOptions, again: Sequence[Action] | None = None, *, args: argparse.Namespace) -> dict[str, Any]:
    hubs = f"{options.workers} hub workers" if options.workers > 1 else "one hub"
    print(f"real: kill test, seed {options.seed}, {hubs}, Kafka away for {options.down_ms / 1_000:g} s", file=sys.stderr, flush=True)
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"longshore-real-{options.seed}-", dir=args.keep))
    outcome = run(options, folder, again=again, tell=lambda said: print(said, file=sys.stderr, flush=True))
    print(text(outcome), file=sys.stderr, flush=True)
    if outcome.complaints:
        replay = f"  kept: {folder}; replay: python -m tests.real --replay {folder / 'journal.jsonl'}"
        print(replay, file=sys.stderr, flush=True)
    else:
        shutil.rmtree(folder)
    return {"part": "kills", "failed": bool(outcome.complaints), **as_json(outcome), "text": text(outcome)}


def _sum_up(results: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    for result in results:
        said = result.pop("text", "")
        if as_json:
            print(json.dumps(result), flush=True)
        elif said:
            print(said, flush=True)
        else:
            failed = result.get("failures", 0) + result.get("errors", 0)
            print(
                f"{result['part']}: {result.get('tests', 0)} tests on the real engines, {failed} failed, "
                f"{result.get('skipped', 0)} skipped, exit code {result['code']}; {result['seconds']:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)  # so that everything that was started is ended
    sys.exit(main())
