"""What a run of the kill test is worth saying of, for people and as JSON: everything counted, nothing assumed."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from tests.chaos.plan import KILL, STOP, TERM
from tests.chaos.run import COMPLAINTS_SHOWN, Outcome
from tests.real.plan import KINDS
from tests.real.run import AWAY, NAMED, PART

_S: Final = 1_000


def as_json(outcome: Outcome) -> dict[str, Any]:
    """One run."""
    c = outcome.counts
    return {
        "seed": outcome.options.seed,
        "workers": getattr(outcome.options, "workers", 1),
        "kills": {kind: c[f"{KILL} {kind}"] for kind in KINDS},
        "stopped": c[STOP],
        "askedToEnd": c[TERM],
        "inTheMidstOfATransaction": c["met in the midst of a transaction"],
        "filesWiped": c["files wiped"],
        "restarts": c["restarts"],
        "requests": {what: c[what] for what in ("invoke", "ok", "fail", "info")},
        "answered": c["answered"],
        "found": c["found"],
        "stored": c["stored"],
        "inTopics": c["in topics"],
        "repeatedInTopics": c["repeated"],
        "longestOutageSeconds": _seconds(c, AWAY),
        "namedAfterSeconds": _seconds(c, NAMED),
        "edgesJudgedWithoutTheStore": c["edges judged without the store"],
        "partsSeconds": _seconds(c, PART),
        "quietSeconds": round(outcome.quiet_s, 1),
        "seconds": round(outcome.seconds, 1),
        "complaints": outcome.complaints,
    }


def _seconds(counts: Counter[str], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): round(counts[name] / _S, 1) for name in sorted(counts) if name.startswith(prefix)}


def text(outcome: Outcome) -> str:
    """For people."""
    said = as_json(outcome)
    kills = ", ".join(f"{n} {kind}" for kind, n in said["kills"].items())
    away, named, parts = (
        ", ".join(f"{name} {seconds} s" for name, seconds in said[key].items())
        for key in ("longestOutageSeconds", "namedAfterSeconds", "partsSeconds")
    )
    lines = [
        f"seed {said['seed']}, {said['workers']} hub worker(s): {sum(said['kills'].values())} SIGKILLs ({kills}), "
        f"{said['stopped']} SIGSTOPs, {said['askedToEnd']} SIGTERMs; "
        f"{said['inTheMidstOfATransaction']} of PostgreSQL's in the midst of a transaction, {said['filesWiped']} files of the broker wiped",
        f"  {said['answered']} facts answered with yes, {said['found']} of them found in PostgreSQL, which holds {said['stored']}; "
        f"{said['inTopics']} records in Kafka, {said['repeatedInTopics']} of them repeated",
        f"  longest that each did not serve: {away}; quiet after {said['quietSeconds']} s",
        f"  named by the hub when away: {named or 'nobody'}; {said['edgesJudgedWithoutTheStore']} edges settled nothing without the store; "
        f"{said['seconds']} s in all: {parts}",
    ]
    more = len(outcome.complaints) - COMPLAINTS_SHOWN
    lines += [f"  FAILED {complaint}" for complaint in outcome.complaints[:COMPLAINTS_SHOWN]]
    return "\n".join([*lines, *([f"  … and {more} more"] if more > 0 else [])])
