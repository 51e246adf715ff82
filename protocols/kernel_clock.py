"""What the kernel says of its clock: whether something (an NTP client, a time server, a GPS receiver) keeps it in step. Linux only.

`adjtimex` with nothing to set reads that; the standard library does not have it, and it needs no rights.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Final

_TIMEX_BYTES: Final = 512
"""more than any kernel's struct timex; zeroed, so that `modes` asks for nothing to be set"""
_UNSYNCHRONISED: Final = 5
"""TIME_ERROR"""


class KernelClock:
    """Asked at most every few seconds."""

    def __init__(self, every_ms: int = 5_000) -> None:
        self._every_ms = every_ms
        self._asked_mono: int | None = None
        self._said: bool | None = None
        self._call = _adjtimex()

    def synchronised(self, mono: int) -> bool | None:
        """True, False, or None where the kernel does not say. `mono` ms of a clock that never steps."""
        if self._asked_mono is None or mono - self._asked_mono >= self._every_ms:
            self._asked_mono = mono
            self._said = self._ask()
        return self._said

    def _ask(self) -> bool | None:
        if self._call is None:
            return None
        state = int(self._call(ctypes.create_string_buffer(_TIMEX_BYTES)))
        return None if state < 0 else state != _UNSYNCHRONISED


def _adjtimex() -> ctypes._NamedFuncPointer | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):  # another libc
        return None
