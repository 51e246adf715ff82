"""`make bench`: all benchmarks, or those named (ARGS="drain wire"). Exit code 1 when a run was not clean or a target was missed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from deploy.bench import bridge, drain, herd, ingest, wire
from deploy.bench.table import Figure, machine

BENCHES: dict[str, Callable[[], Iterator[Figure]]] = {
    "wire": wire.run,
    "ingest": ingest.run,
    "drain": drain.run,
    "herd": herd.run,
    "bridge": bridge.run,
}


def main(argv: list[str] | None = None) -> int:
    """Run and print."""
    p = argparse.ArgumentParser(prog="make bench", description=__doc__)
    p.add_argument("names", nargs="*", choices=[*BENCHES, []], metavar="NAME", help=f"of {', '.join(BENCHES)}; default: all")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON, too")
    args = p.parse_args(argv)
    print(machine(), flush=True)
    figures: list[Figure] = []
    for name in args.names or BENCHES:
        print(f"{name}:", flush=True)
        for figure in BENCHES[name]():
            print(figure.line(), flush=True)
            figures.append(figure)
    if args.json:
        args.json.write_text(json.dumps([f.as_json() for f in figures], indent=2) + "\n")
    return int(any(f.met is False for f in figures))


if __name__ == "__main__":
    sys.exit(main())
