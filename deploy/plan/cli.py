"""`longshore-sim --edges 40 --days 30 --outage 7d`: will it hold, how large do the queues get, how long does catching up take?"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from deploy.plan.measure import Costs, measure
from deploy.plan.plot import svg
from deploy.plan.region import DAY_S, Outcome, Plan, play
from hub import __version__
from protocols.errors import InvalidInput

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": DAY_S, "w": 7 * DAY_S}
_SIZES: Final = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
HOLDS, HOLDS_NOT, BAD_INPUT = 0, 1, 2


def duration(text: str) -> float:
    """Seconds of `90s`, `15m`, `2h`, `7d`, `6w`. Errors: argparse's, naming the remedy."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 90s, 15m, 2h, 7d or 6w")
    return float(match[1]) * _UNITS[match[2]]


def size(text: str) -> float:
    """A number with k, M or G behind it."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 500k, 256M or 1G")
    return float(match[1]) * _SIZES[match[2]]


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="longshore-sim",
        description=__doc__,
        epilog="Exit code 0: it holds; 1: it does not (a disk is full, or catching up is not over by the end); 2: bad input. What an event "
        "costs is measured on this machine by running the product for a few seconds; run it on a machine like the planned hub.",
    )
    p.add_argument("--version", action="version", version=f"longshore-sim {__version__}")
    p.add_argument("--edges", type=int, default=40, metavar="N", help="edges of the region (default 40)")
    p.add_argument("--days", type=float, default=30, metavar="N", help="days to look at (default 30)")
    p.add_argument(
        "--outage", type=duration, metavar="DURATION", help="the long outage, such as 7d or 12h (default 7d, at most half of the days)"
    )
    p.add_argument("--outage-edges", type=int, metavar="N", help="how many edges it hits (default all: the worst case)")
    p.add_argument("--outage-from", type=duration, metavar="DURATION", help="when it begins (default: after a fifth of the days)")
    p.add_argument("--events-per-day", type=float, default=5_000, metavar="N", help="captured by each edge (default 5,000)")
    p.add_argument("--peak", type=float, default=2.0, metavar="X", help="busy hours against the mean, 1 to 3 (default 2)")
    p.add_argument("--link", type=size, default=256_000.0, metavar="BITS", help="uplink of an edge in bits per second (default 256k)")
    p.add_argument("--budget", type=size, default=1e9, metavar="BYTES", help="disk budget of an edge's ledger (default 1G)")
    p.add_argument("--hub-share", type=float, default=0.7, metavar="X", help="of one core that the hub may use, 0 to 1 (default 0.7)")
    p.add_argument("--flaky", type=float, default=0.2, metavar="X", help="short outages per edge and day (default 0.2)")
    p.add_argument("--flaky-for", type=duration, default=3_600.0, metavar="DURATION", help="how long they last on average (default 1h)")
    p.add_argument("--seed", type=int, default=1, metavar="N", help="of the short outages (default 1)")
    p.add_argument("--plot", type=Path, metavar="FILE", help="write the queues over time as SVG")
    p.add_argument("--json", action="store_true", help="the answer as JSON")
    return p


def _plan(a: argparse.Namespace) -> Plan:
    """Errors: InvalidInput."""
    bounds: dict[str, tuple[float, float]] = {
        "edges": (1, 100_000), "days": (0.1, 1_000), "events_per_day": (0, 100_000_000), "peak": (1, 3), "link": (1_000, 1e11),
        "budget": (1e5, 1e13), "hub_share": (0.01, 1), "flaky": (0, 24),
    }  # fmt: skip
    for name, (least, most) in bounds.items():
        if not least <= getattr(a, name) <= most:
            raise InvalidInput(f"--{name.replace('_', '-')}", f"is {getattr(a, name):g}.", remedy=f"Give {least:g} to {most:g}.")
    days_s = a.days * DAY_S
    begins = a.outage_from if a.outage_from is not None else days_s / 5
    outage = a.outage if a.outage is not None else max(0.0, min(7 * DAY_S, days_s / 2, days_s - begins))
    if outage > days_s:
        raise InvalidInput("--outage", f"is {_span(outage)}, longer than all days.", remedy=f"Give 0s to {_span(days_s)}, or more --days.")
    if begins > days_s:
        raise InvalidInput("--outage-from", f"is {_span(begins)}, after the last day.", remedy=f"Give 0s to {_span(days_s)}.")
    if begins + outage > days_s:
        raise InvalidInput("--outage", "ends after the last day.", remedy="Give more --days, or begin it earlier with --outage-from.")
    hit = a.edges if a.outage_edges is None else a.outage_edges
    if not 0 <= hit <= a.edges:
        raise InvalidInput("--outage-edges", f"is {hit}.", remedy=f"Give 0 to {a.edges}.")
    return Plan(a.edges, a.days, outage, begins, hit, a.events_per_day, a.peak, a.link, a.budget, a.hub_share, a.flaky, a.flaky_for, a.seed)


def answer(plan: Plan, costs: Costs, out: Outcome) -> dict[str, Any]:
    """Everything that there is to say, in units of the names."""
    worst = max(out.edges, key=lambda e: e.peak)
    full = [e for e in out.edges if e.full_s is not None]
    captured = sum(e.captured for e in out.edges)
    holds = not full and out.catch_up_s is not None
    return {
        "holds": holds,
        "edges": plan.edges,
        "eventsCaptured": round(captured),
        "largestQueueEvents": round(worst.peak),
        "largestQueueBytes": round(worst.peak * costs.edge_disk_bytes),
        "largestQueueAtDay": round(worst.peak_s / DAY_S, 2),
        "budgetUsedPercent": round(100 * worst.peak * costs.edge_disk_bytes / plan.budget_bytes, 1),
        "edgesFull": len(full),
        "firstFullAtDay": round(min((e.full_s or 0.0 for e in full), default=0.0) / DAY_S, 2) if full else None,
        "catchUpSeconds": None if out.catch_up_s is None else round(out.catch_up_s),
        "hubBusyPercent": round(100 * out.hub_busy * plan.hub_share, 1) if plan.hub_share else 0.0,
        "wireBytesPerEdgeAndDay": round(out.wire_bytes / plan.edges / plan.days),
        "hubDiskBytesPerDay": round(captured * costs.hub_disk_bytes / plan.days),
        "holdsOfflineDays": round(plan.budget_bytes / costs.edge_disk_bytes / plan.events_per_day, 1) if plan.events_per_day else None,
        "measured": {
            "edgeDiskBytesPerEvent": round(costs.edge_disk_bytes, 1),
            "hubDiskBytesPerEvent": round(costs.hub_disk_bytes, 1),
            "wireBytesPerEvent": round(costs.wire_bytes, 1),
            "edgeMicrosecondsPerEvent": round(costs.edge_s * 1e6, 1),
            "hubMicrosecondsPerEvent": round(costs.hub_s * 1e6, 1),
        },
    }


def words(plan: Plan, said: dict[str, Any]) -> str:
    """The same for people, the answer first."""
    m = said["measured"]
    reasons = []
    if said["edgesFull"]:
        reasons.append(f"{said['edgesFull']} edges have no room left, the first on day {said['firstFullAtDay']}")
    if said["catchUpSeconds"] is None:
        reasons.append("catching up is not over on the last day")
    lines = [
        "It holds." if said["holds"] else f"It does not hold: {'; '.join(reasons)}.",
        "",
        f"{plan.edges} edges, {plan.days:g} days, {plan.events_per_day:,.0f} events a day each; "
        f"no link for {_span(plan.outage_s)} at {plan.outage_edges}",
        f"  largest queue   {said['largestQueueEvents']:>12,} events, {_bytes(said['largestQueueBytes'])}"
        f" ({said['budgetUsedPercent']} % of an edge's budget), on day {said['largestQueueAtDay']}",
        f"  catching up     {_span(said['catchUpSeconds']):>12} until the last queue is empty",
        f"  hub             {said['hubBusyPercent']:>12} % of a core in its busiest hour, "
        f"{_bytes(said['hubDiskBytesPerDay'])} of disk a day",
        f"  on the wire     {_bytes(said['wireBytesPerEdgeAndDay']):>12} a day and edge, both ways",
        f"  alone           {said['holdsOfflineDays'] or 0:>12,} days until an edge without any link is full",
        "",
        f"An event costs, measured here: {m['edgeDiskBytesPerEvent']} B of disk and {m['edgeMicrosecondsPerEvent']} us at the edge, "
        f"{m['wireBytesPerEvent']} B on the wire, {m['hubMicrosecondsPerEvent']} us and {m['hubDiskBytesPerEvent']} B at the hub.",
    ]
    return "\n".join(lines)


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "not over"
    for unit, name in ((DAY_S, "d"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.1f} {name}".replace(".0 ", " ")
    return f"{seconds:.0f} s"


def _bytes(count: float) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} B"


def main(argv: list[str] | None = None, *, costs: Callable[[], Costs] = measure) -> int:
    """Measure, walk through the plan, say what becomes of it. See the epilog for exit codes."""
    args = _parser().parse_args(argv)
    tty = sys.stderr.isatty()
    try:
        plan = _plan(args)
    except InvalidInput as error:
        print(f"longshore-sim: {error}", file=sys.stderr)
        return BAD_INPUT
    print("measuring what an event costs here, a few seconds ...", file=sys.stderr)
    measured = costs()
    out = play(plan, measured, (lambda part: print(f"\r{part:4.0%} of the plan", end="", file=sys.stderr)) if tty else None)
    if tty:
        print("\r" + " " * 20 + "\r", end="", file=sys.stderr)
    said = answer(plan, measured, out)
    if args.plot is not None:
        try:
            args.plot.absolute().parent.mkdir(parents=True, exist_ok=True)
            args.plot.write_text(svg(plan, out, plan.budget_bytes / measured.edge_disk_bytes))
        except OSError as error:
            print(f"longshore-sim: --plot: {args.plot}: {error.strerror}", file=sys.stderr)
            return BAD_INPUT
    print(json.dumps(said, indent=2) if args.json else words(plan, said))
    return HOLDS if said["holds"] else HOLDS_NOT


if __name__ == "__main__":
    sys.exit(main())
