"""Kill things: `python -m tests.chaos --kills 100 --engine mosquitto`; `--replay JOURNAL` does again what a journal says was done.

Engines: amqtt (the broker inside the hub), mosquitto (as Debian ships it), mosquitto-cut (its queue cut), mosquitto-forgetful (without
persistence), all (each in turn, the kills shared out). A run that fails keeps its folder, with the journal and everybody's log.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import SystemRandom
from types import FrameType
from typing import Final

from tests.chaos.journal import actions, began
from tests.chaos.run import Options, Outcome, run
from tests.chaos.site import ENGINES
from tests.chaos.sweep import sweep_changes, sweep_resets

A_RUN: Final = 40
"""kills of one run at the most; more are several runs, each with a seed of its own"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Exit code 1 when a promise was broken."""
    args = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _end)  # so that everything that was started is ended
    if args.replay:
        how = {k: v for k, v in began(args.replay).items() if k not in ("at_ms", "do")}
        return 0 if _one(Options.from_json(how), args, again=args.replay) else 1
    seed = args.seed if args.seed is not None else SystemRandom().randrange(1_000_000)
    fine = True
    for options in _runs(args, seed):
        fine = _one(options, args) and fine
    return 0 if fine else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kills", type=int, default=100, metavar="N", help="SIGKILLs (default 100); SIGTERM, SIGSTOP and faults come on top"
    )
    parser.add_argument("--engine", choices=[*ENGINES, "all"], default="all", help="the broker (default: all, in turn)")
    parser.add_argument("--seed", type=int, help="of the first run (default: drawn, and printed)")
    parser.add_argument("--edges", type=int, default=3, help="how many edges (default 3)")
    parser.add_argument("--stretch", type=int, default=1, metavar="N", help="stops and faults last N times longer (5: beyond keep-alives)")
    parser.add_argument("--restores", type=int, default=0, metavar="N", help="per run, put hub, store, both or an edge back to a backup")
    parser.add_argument("--phones", type=int, default=0, metavar="N", help="that sync over HTTP through two edges, now this, now that")
    parser.add_argument("--sweep", type=int, metavar="STEP", help="instead: reset an edge's line after 0, STEP, 2*STEP … bytes, both ways")
    parser.add_argument("--change", action="store_true", help="with --sweep: change the byte there instead")
    parser.add_argument("--replay", type=Path, metavar="JOURNAL", help="do again what was done")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep folders of failed runs there (default: the system's for temporary files)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a run")
    return parser


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(130)


def _runs(args: argparse.Namespace, seed: int) -> Iterator[Options]:
    """The kills shared out over runs, the runs over engines."""
    engines = list(ENGINES) if args.engine == "all" else [args.engine]
    runs = len(engines) if args.sweep else max(len(engines), -(-args.kills // A_RUN))
    for n in range(runs):
        kills = args.kills // runs + (n < args.kills % runs)
        yield Options(
            seed + n, engines[n % len(engines)], max(1, kills), args.edges, stretch=args.stretch, restores=args.restores, phones=args.phones
        )


def _one(options: Options, args: argparse.Namespace, *, again: Path | None = None) -> bool:
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"longshore-chaos-{options.engine}-{options.seed}-", dir=args.keep))
    if args.sweep:
        outcome = (sweep_changes if args.change else sweep_resets)(options, folder, step=args.sweep)
    else:
        outcome = run(options, folder, again=actions(again) if again else None)
    _tell(outcome, folder, as_json=args.json)
    if not outcome.complaints:
        shutil.rmtree(folder)
    return not outcome.complaints


def _tell(outcome: Outcome, folder: Path, *, as_json: bool) -> None:
    if as_json:
        said = {"seed": outcome.options.seed, "engine": outcome.options.engine, **outcome.counts, "seconds": round(outcome.seconds, 1)}
        print(json.dumps({**said, "quietSeconds": round(outcome.quiet_s, 1), "complaints": outcome.complaints}), flush=True)
        return
    print(outcome.text(), flush=True)
    if outcome.complaints:
        print(f"  kept: {folder}; replay: python -m tests.chaos --replay {folder / 'journal.jsonl'}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
