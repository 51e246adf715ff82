"""What the terminal shows while the play runs: a live table where there is a terminal, a line now and then where there is none."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deploy.demo.player import Scene

_PLAIN_EVERY_S = 2.0


class Screen:
    """`show` may be called often; it draws at a rate that people can read."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=8, transient=True) if self._console.is_terminal else None
        self._said = 0
        self._last = 0.0

    def __enter__(self) -> Screen:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)

    def show(self, scene: Scene) -> None:
        """Draw the scene."""
        for note in scene.notes[self._said :]:
            self._print(note)
        self._said = len(scene.notes)
        if self._live is not None:
            self._live.update(self._table(scene))
        elif time.monotonic() - self._last >= _PLAIN_EVERY_S:
            self._last = time.monotonic()
            if scene.edges:
                self._print("  " + "; ".join(_plain(node, e) for node, e in scene.edges.items()))

    def _print(self, text: str) -> None:
        (self._live.console if self._live is not None else self._console).print(text, highlight=False, soft_wrap=True)
        sys.stderr.flush()

    def _table(self, scene: Scene) -> Group:
        table = Table(box=None, pad_edge=False, padding=(0, 2))
        for name, justify in (
            ("edge", "left"),
            ("link", "left"),
            ("captured", "right"),
            ("settled", "right"),
            ("waiting", "right"),
            ("oldest", "right"),
            ("", "left"),
        ):
            table.add_column(name, justify=justify, style="bold" if name == "edge" else None)  # type: ignore[arg-type]
        for node, e in scene.edges.items():
            captured, settled = e.get("captured", 0), e.get("settled", 0)
            bar = ProgressBar(total=max(1, captured), completed=settled, width=28)
            table.add_row(node, _link(e), f"{captured:,}", f"{settled:,}", f"{e.get('queued', 0):,}", _age(e.get("oldestAgeMs")), bar)
        day = time.strftime("%-d %B %Y", time.gmtime(scene.day_ms / 1000)) if scene.day_ms else ""
        return Group(Text(f"{scene.act}    {day}", style="bold"), table, Text(f"web page: {self._url}", style="dim"))


def _link(e: dict[str, Any]) -> Text:
    if not e.get("alive"):
        return Text("✗ process down", style="red")
    return Text("● up", style="green") if e.get("link") else Text("○ cut off", style="yellow")


def _age(ms: int | None) -> str:
    return "" if ms is None else f"{ms / 1000:.1f} s"


def _plain(node: str, e: dict[str, Any]) -> str:
    state = "down" if not e.get("alive") else "up" if e.get("link") else "cut"
    return f"{node} {state}: {e.get('captured', 0)} captured, {e.get('queued', 0)} waiting"


def render(report: dict[str, Any]) -> str:
    """The report as people read it."""
    lines = [
        ("captured", f"{report['captured']:,} facts at {len(report['nodes'])} nodes"),
        ("settled", f"{report['settled']:,}  (read back from the central store, one by one)"),
        ("lost", f"{report['lost']:,}"),
        ("applied twice", f"{report['appliedTwice']:,}"),
        ("quarantined", f"{report['quarantined']:,}"),
        ("conflicts", f"{report['conflicts']:,}  (for people to settle)"),
        ("longest outage", f"{report['longestOutageMs'] / 1000:.1f} s from capture to arrival"),
        ("catch-up", f"{report['backlog']:,} facts in {report['catchUpMs'] / 1000:.2f} s"),
        ("rate", f"{report['eventsPerSecond']:,} events/s while catching up" if report["eventsPerSecond"] else "no backlog to measure"),
        ("on the wire", f"{report['bytesPerEvent']} bytes per event, everything in it" if report["bytesPerEvent"] else "nothing was sent"),
        ("balance", "closes" if report["balanced"] else "DOES NOT CLOSE"),
    ]
    return "\n".join(f"  {name:<15} {text}" for name, text in lines)
