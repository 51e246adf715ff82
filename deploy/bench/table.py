"""Printing figures: name, figure, peer, ratio, target."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from protocols.sqlite import DRIVERS, Db


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the result. `ratio` is against the peer of the same run; `met` is None where there is no target."""

    name: str
    figure: float
    unit: str
    peer: str = ""
    peer_figure: float | None = None
    ratio: float | None = None
    target: str = ""
    met: bool | None = None
    note: str = ""

    def line(self) -> str:
        """As people read it."""
        peer = f"  {self.peer} {_number(self.peer_figure)}" if self.peer_figure is not None else ""
        ratio = f"  = {self.ratio:.2f}x" if self.ratio is not None else ""
        target = f"  [{'ok' if self.met else 'MISSED' if self.met is not None else '-'}: {self.target}]" if self.target else ""
        note = f"  ({self.note})" if self.note else ""
        return f"  {self.name:<44} {_number(self.figure):>10} {self.unit:<6}{peer}{ratio}{target}{note}"

    def as_json(self) -> dict[str, Any]:
        """As programs read it."""
        return asdict(self)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.2f}".rstrip("0").rstrip(".")


def machine() -> str:
    """The set-up, in one line."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "?"
    )
    db = Db(":memory:")
    version = db.one("SELECT sqlite_version()")
    db.close()
    sqlite = f"SQLite {version[0] if version else '?'} by {DRIVERS[0]}"
    return f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}, {sqlite}, load {os.getloadavg()[0]:.1f}"


def peak_rss_mb(pid: int) -> float:
    """The largest resident size of a running process so far, and of those that it started (a hub's store has a process of its own)."""
    peak_mb = 0.0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            peak_mb = int(line.split()[1]) / 1024
    started = [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]
    return peak_mb + sum(map(peak_rss_mb, started))
