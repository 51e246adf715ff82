"""Every call of a kind fails once, in a run of its own: the n-th, for n until there is no n-th any more."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.storage.edge_story import run_edge
from tests.storage.faults import HOWS, KINDS, SYNC, Calls, Plan
from tests.storage.hub_story import run_hub
from tests.storage.world import EDGE_FILE, HUB_FILE, STORE_FILE

Run = Callable[[Path, Plan], tuple[Calls, Any]]
RUNS: Final[dict[str, Run]] = {EDGE_FILE: run_edge, HUB_FILE: run_hub, STORE_FILE: run_hub}
SELDOM: Final = {"fcntl": 40}
"""a lock that fails makes SQLite wait in real time"""


@dataclass(frozen=True, slots=True)
class Series:
    """One file of one node, one kind of call, one answer, once or for a minute."""

    file: str
    kind: str
    how: str
    for_good: bool

    @property
    def name(self) -> str:
        """For people, and for the names of tests."""
        return f"{self.file}-{self.kind}-{self.how}-{'for-a-minute' if self.for_good else 'once'}"


def all_series() -> list[Series]:
    """Whatever can fail."""
    return [
        Series(file, kind, how, for_good)
        for file in RUNS
        for kind in KINDS
        for how in HOWS.get(kind, ("EIO",))
        for for_good in (False, True)
        if kind != "fallocate"  # not in this build of SQLite: see the test of the table
    ]


@dataclass(slots=True)
class Swept:
    """What came of a series."""

    name: str
    failed: int = 0
    refused: int = 0
    seconds: float = 0.0
    complaints: list[str] = field(default_factory=list)


def sweep(series: Series, *, stride: int = 1, first: int = 1) -> Swept:
    """Let the n-th call fail for n = first, first + stride, … until none fails. What was broken is in `complaints`."""
    done, began_s, nth = Swept(series.name), time.perf_counter(), first
    stride *= SELDOM.get(series.kind, 1)
    logging.disable(logging.CRITICAL)
    try:
        while True:
            plan = Plan(series.kind, nth, series.how, series.for_good, series.file)
            with tempfile.TemporaryDirectory(prefix="longshore-calls-", dir=_fast()) as folder:
                try:
                    calls, told = RUNS[series.file](Path(folder), plan)
                except AssertionError as e:
                    done.complaints.append(f"{plan}: {e}")
                    if len(done.complaints) >= 5:
                        break
                else:
                    if not calls.struck:
                        break
                    done.refused += told.refused
            done.failed += 1
            nth += stride
    finally:
        logging.disable(logging.NOTSET)
    done.seconds = time.perf_counter() - began_s
    return done


def _fast() -> str | None:
    """Memory, where there is some: nothing is proved here about the disk of this machine."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


__all__ = ["SYNC", "Series", "Swept", "all_series", "sweep"]
