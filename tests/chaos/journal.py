"""The journal of a run: one JSON object a line, written and flushed as it happens, so that it is whole up to the moment of a failure.

One line says how the run was begun (`"do": "begin"`); before it stands only what was started to get so far. `tests.chaos.plan.DOINGS`
(`kill`, `stop`, `fault` …) are what was done and are done again by a replay, at their `at_ms`; everything else (`invoke` … `info` of
requests, ends and starts of processes, complaints) is for the reader.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.chaos.plan import DOINGS, Action

REPLAYED: Final = tuple(DOINGS)


class Journal:
    """See the module. Methods may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w", encoding="utf-8")
        self._lock = threading.Lock()
        self._began_s = time.monotonic()

    def begin(self, **how: Any) -> None:
        """The clock of the run starts here."""
        self._began_s = time.monotonic()
        self.write("begin", **how)

    def now_ms(self) -> int:
        """Since the beginning."""
        return int((time.monotonic() - self._began_s) * 1_000)

    def write(self, do: str, **what: Any) -> None:
        """One line. After `close` nobody listens any more."""
        with self._lock:
            if not self._file.closed:
                self._file.write(json.dumps({"at_ms": self.now_ms(), "do": do, **what}, ensure_ascii=False) + "\n")
                self._file.flush()

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            self._file.close()


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines. A last line that was cut off is left out."""
    for line in path.read_text("utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def began(path: Path) -> dict[str, Any]:
    """How the run was begun. Errors: ValueError when this is no journal."""
    for line in read(path):
        if line.get("do") == "begin":
            return line
    raise ValueError(f"{path} is not a journal of a run that began: no line says how it was begun")


def actions(path: Path) -> list[Action]:
    """What was done, to be done again."""
    return [Action(e["at_ms"], e["do"], e["who"], e.get("fault")) for e in read(path) if e["do"] in REPLAYED]
