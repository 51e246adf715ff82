"""How a process of the hub's runs its event loop: the same for all that compute for long in a worker thread."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Coroutine
from typing import Any, Final

GC_THRESHOLDS: Final = (100_000, 20, 50)
SWITCH_S: Final = 0.002
"""how long one thread may keep the others waiting; see `run`"""


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` to its end."""
    # The loop's worker computes for long stretches; the loop's thread must not wait 5 ms (the default) for each of its short ones.
    sys.setswitchinterval(SWITCH_S)
    # Facts in flight are many and free of cycles: looking through them again and again took a third of the time.
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        import uvloop
    except ImportError:  # a platform without it
        asyncio.run(main)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
