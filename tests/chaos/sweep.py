"""Every byte of a conversation: one edge, whose line is reset, or changes a byte, one place further on each time.

The edge is the product but for its patience (`tests.chaos.sabotage.hasty`): it comes back at once. What it said yes to meanwhile arrives.
"""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Final

from tests.chaos.clients import Chronicle, Writer
from tests.chaos.faults import Fault
from tests.chaos.run import Options, Outcome, await_quiet, judge, on_site
from tests.chaos.site import EDGE, Layout, Site
from tests.chaos.waiting import ask, until
from tests.support.patience import WITHIN_S

SWEEP_S: Final = 600.0
CHANGE_S: Final = WITHIN_S
REQUESTS: Final = 8
_UP: Final = ("up", "notReceived")
_DOWN: Final = ("down", "events")
"""a direction, and which queue of the edge is empty once everything came through it"""


def sweep_resets(options: Options, folder: Path, *, step: int) -> Outcome:
    """Each connection is reset `step` bytes later than the one before: on the way up from the first byte until a frame comes through whole,
    then on the way down until a receipt does.
    """
    return on_site(options, _layout(options), folder, lambda site, outcome: _resets(site, outcome, step))


def sweep_changes(options: Options, folder: Path, *, step: int) -> Outcome:
    """On each connection one byte is changed, `step` bytes further than on the one before; on the way up, then on the way down. Whatever
    the byte meant (a length, a topic, a password, a signature), the edge gets on by itself.
    """
    return on_site(options, _layout(options), folder, lambda site, outcome: _changes(site, outcome, step))


def _layout(options: Options) -> Layout:
    return Layout(options.engine, 1, options.seed, freeing=0, sabotage=(EDGE, "hasty"))


def _resets(site: Site, outcome: Outcome, step: int) -> None:
    chronicle, line = Chronicle(site.supervisor.journal), site.lines[f"{site.first}>broker"]
    for way, queue in (_UP, _DOWN):
        line.set(Fault(reset_up_at=0, step=step) if way == "up" else Fault(reset_down_at=0, step=step))
        line.cut()
        before = line.counts["resets"]
        _writer(site, chronicle, way).hand_over(REQUESTS)
        if not until(partial(_empty, site, queue), SWEEP_S):
            outcome.complaints.append(f"resets that walk {way} by {step} never let a frame through: {line.counts}")
        outcome.counts[f"resets {way}"] = line.counts["resets"] - before
    _end(site, outcome, chronicle)


def _changes(site: Site, outcome: Outcome, step: int) -> None:
    chronicle, line = Chronicle(site.supervisor.journal), site.lines[f"{site.first}>broker"]
    for way, queue in (_UP, _DOWN):
        at, said = 0, 1
        while at < said:  # until the place lies beyond all that is said on one connection
            line.set(Fault(corrupt_up_at=at) if way == "up" else Fault(corrupt_down_at=at))
            line.cut()
            before = line.counts[way]
            _writer(site, chronicle, f"{way}{at}").hand_over(1)
            if not until(partial(_empty, site, queue), CHANGE_S):
                outcome.complaints.append(f"a changed byte {at} on the way {way}: nothing came through in {CHANGE_S} s")
            said = min(line.counts[way] - before, MOST_BYTES)
            outcome.counts[f"changes {way}"] += 1
            at += step
    _end(site, outcome, chronicle)


MOST_BYTES: Final = 1_500


def _writer(site: Site, chronicle: Chronicle, name: str) -> Writer:
    node, unused = site.first, threading.Event()
    return Writer(f"{node}/{name}", node, site.ports[node], site.layout.seed, chronicle, unused, unused, site.supervisor.complain)


def _empty(site: Site, queue: str) -> bool:
    status = ask(f"{site.url(site.first)}/v1/status")
    return status is not None and status["queue"][queue] == 0


def _end(site: Site, outcome: Outcome, chronicle: Chronicle) -> None:
    site.lines[f"{site.first}>broker"].heal()
    await_quiet(site, outcome)
    judge(site, chronicle, outcome)
