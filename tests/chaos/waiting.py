"""Waiting for a thing itself, with a bound; nobody sleeps and hopes."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, Final

from tests.support.patience import ANSWER_S

STEP_S: Final = 0.05


def until(so: Callable[[], bool], within_s: float, *, step_s: float = STEP_S) -> bool:
    """Whether it is so before time is up; looks again and again."""
    deadline, pause = time.monotonic() + within_s, threading.Event()
    while not so():
        if time.monotonic() > deadline:
            return False
        pause.wait(step_s)
    return True


def ask(url: str) -> Any:
    """JSON of a GET, or None."""
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
            return json.loads(answer.read())
    except (urllib.error.URLError, OSError, ValueError):
        return None
