"""`python -m tests.fuzz [TARGET …] --seconds 60`: each target in a process of its own, guided by coverage (atheris); crashers are kept.

Where atheris has no wheel the inputs are only mutated, without guidance, and it says so. A crasher is written to
tests/fuzz/crashers/TARGET/; from then on the test suite replays it.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import time
from pathlib import Path
from random import Random

from tests.fuzz.mutate import mutated
from tests.fuzz.targets import TARGETS, any_target

HERE = Path(__file__).parent
CRASHERS = HERE / "crashers"


def main(argv: list[str] | None = None) -> int:
    """Exit code 1 when something was found."""
    p = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    p.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    p.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    p.add_argument("--seed", type=int, default=0, help="of the unguided mutations (default: by the clock)")
    args = p.parse_args(argv)
    found = 0
    for name in args.targets or TARGETS:
        found += _fuzz(any_target(name).name, args.seconds, args.seed or time.time_ns())
    print(f"{found} crashers" if found else "no crasher", flush=True)
    return int(found > 0)


def _fuzz(name: str, seconds: int, seed: int) -> int:
    try:
        import atheris  # noqa: F401
    except ImportError:
        print(f"{name}: atheris is not installed here: mutations only, seed {seed}", flush=True)
        return _unguided(name, seconds, Random(seed))
    before = set(CRASHERS.glob(f"{name}/*"))
    command = [sys.executable, "-m", "tests.fuzz.guided", name, str(seconds)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    runs = [line for line in done.stderr.splitlines() if line.startswith("Done ")]
    new = sorted(set(CRASHERS.glob(f"{name}/*")) - before)
    print(f"{name}: {runs[-1] if runs else f'ended after {time.monotonic() - began:.0f} s'}; {len(new)} new crashers", flush=True)
    if new or done.returncode:
        print(done.stderr[-3_000:], flush=True)
    return len(new) + (done.returncode != 0 and not new)


def _unguided(name: str, seconds: int, rng: Random) -> int:
    target, ends, runs = TARGETS[name], time.monotonic() + seconds, 0
    seeds = list(target.seeds())
    while time.monotonic() < ends:
        data = mutated(rng, seeds)
        runs += 1
        try:
            target.run(data)
        # boundary: whatever comes out is the finding
        except Exception as error:
            folder = CRASHERS / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
            return 1
    print(f"{name}: {runs} inputs, nothing found", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
