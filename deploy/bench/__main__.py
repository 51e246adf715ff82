"""`make bench`: all benchmarks, or those named (ARGS="drain wire"). Exit code 1 when a run was not clean or a target was missed."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from deploy.bench import bridge, connected, drain, freshness, herd, ingest, slope, store, telegraf, whole, wire
from deploy.bench.table import Figure, machine

BENCHES: dict[str, Callable[[], Iterator[Figure]]] = {
    "wire": wire.run,
    "ingest": ingest.run,
    "drain": drain.run,
    "herd": herd.run,
    "bridge": bridge.run,
    "whole": whole.run,
    "freshness": freshness.run,
    "connected": connected.run,
    "store": store.run,
    "telegraf": telegraf.run,
    "slope": slope.run,
}
SIZED: dict[str, Callable[[int], Iterator[Figure]]] = {
    "drain": drain.run, "whole": whole.run, "freshness": freshness.run, "connected": connected.run, "store": store.run,
    "telegraf": telegraf.run, "slope": slope.run,
}  # fmt: skip
"""those that can be asked for fewer: of events, and `connected` of edges"""


def main(argv: list[str] | None = None) -> int:
    """Run and print."""
    p = argparse.ArgumentParser(prog="make bench", description=__doc__)
    p.add_argument("names", nargs="*", choices=[*BENCHES, []], metavar="NAME", help=f"of {', '.join(BENCHES)}; default: all")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON, too")
    p.add_argument("--size", type=int, metavar="N", help=f"events (connected: edges), fewer or more than usual; of {', '.join(SIZED)}")
    p.add_argument("--cores", type=int, metavar="N", help="let everything run on so many cores")
    args = p.parse_args(argv)
    if args.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended, too
    print(machine(), flush=True)
    figures: list[Figure] = []
    for name in args.names or BENCHES:
        print(f"{name}:", flush=True)
        for figure in SIZED[name](args.size) if args.size and name in SIZED else BENCHES[name]():
            print(figure.line(), flush=True)
            figures.append(figure)
    if args.json:
        args.json.write_text(json.dumps([f.as_json() for f in figures], indent=2) + "\n")
    return int(any(f.met is False for f in figures))


if __name__ == "__main__":
    sys.exit(main())
