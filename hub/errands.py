"""Work for somebody whose answer is waited for elsewhere: one piece after the other, and the next may wait its turn there.

The engine's worker must not stand still while a central store in another process, or on another machine, writes a batch: it goes on taking
what edges send. What it wants of the store is begun here, and collected at one of its later turns; a second piece may be begun meanwhile,
so that the store need not wait for the worker either. A store in the same process would only take the interpreter from it: there the work
is done at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from protocols.errors import LedgerBroken

MOST: Final = 2
"""pieces that are begun and not collected: one that is done, one that waits"""


class Errands:
    """See the module. `beside`: in a thread of its own; `ended`: called from there when a piece is done. Not thread-safe itself. A piece
    that was begun after one that failed is not done, and fails, too."""

    def __init__(self, *, beside: bool, ended: Callable[[], None]) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store") if beside else None
        self._ended = ended
        self._works: deque[Future[Any]] = deque()
        self._failed = False

    @property
    def under_way(self) -> bool:
        """Was something begun that nobody has collected?"""
        return bool(self._works)

    @property
    def room(self) -> bool:
        """May another piece be begun before what is under way was collected?"""
        return self._thread is not None and len(self._works) < MOST

    def begin(self, work: Callable[[], Any]) -> None:
        """Have it done, after what was begun before. There must be room, or nothing under way."""
        assert not self._works or self.room
        if not self._works:
            self._failed = False
        if self._thread is not None:
            future = self._thread.submit(self._do, work)
            self._works.append(future)
            future.add_done_callback(lambda _: self._ended())
            return
        done: Future[Any] = Future()
        self._works.append(done)
        try:
            done.set_result(work())
        except Exception as error:  # boundary: raised where it is collected, as out of the thread
            done.set_exception(error)

    def _do(self, work: Callable[[], Any]) -> Any:
        if self._failed:
            raise LedgerBroken("what was begun before it failed")
        try:
            return work()
        except BaseException:  # boundary: noted, and told to who collects it
            self._failed = True
            raise

    def done(self) -> bool:
        """Is the next piece ready to be collected?"""
        return bool(self._works) and self._works[0].done()

    def all_done(self) -> bool:
        """Was something begun, and is nothing left to do?"""
        return bool(self._works) and self._works[-1].done()

    def collect(self) -> Any:
        """What came of the piece that was begun first. Errors: those of the work."""
        return self._works.popleft().result()

    def wait(self) -> None:
        """Return when nothing is being done; what was begun is still to be collected."""
        for work in self._works:
            work.exception()

    def forget(self) -> None:
        """Wait as above; nobody collects it."""
        self.wait()
        self._works.clear()

    def close(self) -> None:
        """Let go of the thread; what it still does, it ends. Idempotent."""
        if self._thread is not None:
            self._thread.shutdown()
