"""A wall clock that a test sets, under a real process: libfaketime before its C library. The machine's own clock is never touched.

clock = Clock(tmp_path / "offset", -BEFORE_1970_ENDED_S)
started(python("-m", "edge_agent.cli", "run", …), env=clock.env)
clock.ahead(7_200)      # from now on, while the process runs
"""

from __future__ import annotations

import time
from glob import glob
from pathlib import Path


class Clock:
    """See the module. Clocks that never step, and times of files, stay as they are."""

    def __init__(self, file: Path, seconds: float = 0.0) -> None:
        self._file = file
        self.ahead(seconds)

    def ahead(self, seconds: float) -> None:
        """From now on it is so many seconds ahead of this machine's clock (behind it: negative)."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+.3f}\n")
        fresh.replace(self._file)

    @property
    def env(self) -> dict[str, str]:
        """For the process that is to see it."""
        (library,) = glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
        return {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }


def since_1970() -> float:
    """By how many seconds a board is behind that has just been switched on and begins with 1970."""
    return 60.0 - time.time()
