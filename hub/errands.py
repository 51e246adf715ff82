"""One piece of work at a time for somebody whose answer is waited for elsewhere.

The engine's worker must not stand still while a central store in another process, or on another machine, writes a batch: it goes on taking
what edges send. What it wants of the store is begun here, and collected at one of its later turns. A store in the same process would only
take the interpreter from it: there the work is done at once.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Errands:
    """See the module. `beside`: in a thread of its own; `ended`: called from there when a piece is done. Not thread-safe itself."""

    def __init__(self, *, beside: bool, ended: Callable[[], None]) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store") if beside else None
        self._ended = ended
        self._work: Future[Any] | None = None

    @property
    def under_way(self) -> bool:
        """Was something begun that nobody has collected?"""
        return self._work is not None

    def begin(self, work: Callable[[], Any]) -> None:
        """Have it done. Before this, whatever was begun must have been collected."""
        assert self._work is None
        if self._thread is not None:
            self._work = self._thread.submit(work)
            self._work.add_done_callback(lambda _: self._ended())
            return
        self._work = Future()
        try:
            self._work.set_result(work())
        except Exception as error:  # boundary: raised where it is collected, as out of the thread
            self._work.set_exception(error)

    def done(self) -> bool:
        """Is it ready to be collected?"""
        return self._work is not None and self._work.done()

    def collect(self) -> Any:
        """What came of it. Errors: those of the work."""
        assert self._work is not None
        work, self._work = self._work, None
        return work.result()

    def wait(self) -> None:
        """Return when nothing is being done; what was begun is still to be collected."""
        if self._work is not None:
            self._work.exception()

    def close(self) -> None:
        """Let go of the thread; what it still does, it ends. Idempotent."""
        if self._thread is not None:
            self._thread.shutdown()
