"""An event loop whose time stands still while anything can be done, and jumps when nothing can: a minute of back-off costs nothing."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, Final, TypeVar

from edge_agent.core import Now

T = TypeVar("T")
WALL_MS: Final = 1_780_000_000_000
THREAD_S: Final = 30.0
"""real seconds that a thread may take; then the loop goes on as if it had not been there"""


class _Jumping:
    """A selector that never waits for time, only for threads and sockets."""

    def __init__(self, loop: StillLoop) -> None:
        self._real = selectors.DefaultSelector()
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def select(self, timeout: float | None = None) -> Any:
        ready = self._real.select(0)
        if ready or timeout == 0:
            return ready
        if self._loop.threads or timeout is None:
            return self._real.select(THREAD_S)
        self._loop.passed_s += timeout
        return []


class StillLoop(asyncio.SelectorEventLoop):
    """See the module. `passed_s`: of its own time, since it was made."""

    def __init__(self) -> None:
        self.passed_s = 100.0
        self.threads = 0
        self.failures: list[str] = []
        super().__init__(_Jumping(self))  # type: ignore[arg-type]
        self.set_exception_handler(lambda _, context: self.failures.append(str(context.get("exception") or context["message"])))

    def time(self) -> float:
        """Seconds of this loop's own time."""
        return self.passed_s

    def now(self) -> Now:
        """Both clocks of a node in this loop."""
        ms = round(self.passed_s * 1_000)
        return Now(WALL_MS + ms, ms)

    def now_ms(self) -> int:
        """The wall clock of a hub in this loop."""
        return self.now().wall

    def run_in_executor(self, executor: Executor | None, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """As ever; while it runs, time does not."""
        self.threads += 1
        done = super().run_in_executor(executor, func, *args)
        done.add_done_callback(self._thread_ended)
        return done

    def _thread_ended(self, _: object) -> None:
        self.threads -= 1


def in_still_time(story: Callable[[StillLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a story to its end; what nobody caught in the loop fails it."""
    loop = StillLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        done = runner.run(story(loop))
    assert not loop.failures, f"nobody caught: {loop.failures}"
    return done
