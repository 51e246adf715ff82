"""How long a client of Kafka is waited for, and what becomes of it then.

The library may wait for ever for a broker that is gone, and a client that is closed may let out the cancellation of a task of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")
STOP_S: Final = 5.0
GONE_S: Final = 1.0
"""for what was cancelled to end"""
log = logging.getLogger(__name__)


async def soon(doing: Awaitable[T], within_s: float) -> T:
    """Errors: TimeoutError; and those of `doing`."""
    async with asyncio.timeout(within_s):
        return await doing


@contextlib.asynccontextmanager
async def undone(close: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """What was begun in the block is closed where the block fails."""
    async with contextlib.AsyncExitStack() as begun:
        begun.push_async_callback(close)
        yield
        begun.pop_all()


async def let_go(stopping: Coroutine[Any, Any, Any]) -> None:
    """Close a client that may be wedged: it is given some seconds, and then left. Whatever it says to that, it is not used again.

    In a task of its own: a consumer whose fetch had failed a moment before lets the cancellation of that fetch out of `stop`, and whoever
    waited would take it for its own."""
    task = asyncio.create_task(stopping)
    task.add_done_callback(_told)
    try:
        await asyncio.wait([task], timeout=STOP_S)
    finally:
        if task.cancel():
            await asyncio.wait([task], timeout=GONE_S)


def _told(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.debug("closing: %s", error)
