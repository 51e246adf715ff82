"""What a service manager is told: ready, alive, stopping (systemd's sd_notify, which others speak too). Silent where nobody listens.

`NOTIFY_SOCKET` names a datagram socket, `WATCHDOG_USEC` after how long a silent process is ended and started again. Nothing here keeps a
process from running: who listens may be gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

log = logging.getLogger(__name__)
_SHARE: Final = 3
"""how often within the time allowed it is said that the process is alive"""
_LEAST_S: Final = 0.05


class Supervisor:
    """The other end of `NOTIFY_SOCKET`, if there is one. `pid`: of this process; a watchdog may be meant for another one."""

    def __init__(self, environ: Mapping[str, str] | None = None, pid: int | None = None) -> None:
        environ = os.environ if environ is None else environ
        name = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self.every_s: float | None = _every_s(environ, os.getpid() if pid is None else pid) if self._address else None
        """how often `tell("WATCHDOG=1")` is due; None: nobody watches"""

    def tell(self, *words: str) -> bool:
        """Send words such as READY=1. Returns whether somebody was there to be told."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(words).encode(), self._address)
        except OSError as error:
            log.debug("the service manager does not listen: %s", error)
            return False
        return True


def _every_s(environ: Mapping[str, str], pid: int) -> float | None:
    allowed, meant = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not allowed.isdecimal() or not int(allowed) or (meant and meant != str(pid)):
        return None
    return max(int(allowed) / 1_000_000 / _SHARE, _LEAST_S)


@contextlib.asynccontextmanager
async def supervised(alive: Callable[[], bool] = lambda: True, supervisor: Supervisor | None = None) -> AsyncIterator[None]:
    """The process is ready inside the block, and stopping after it. While it is in there, and as long as `alive()`, its loop says so: a
    loop that does not turn any more falls silent by itself."""
    supervisor = supervisor or Supervisor()
    supervisor.tell("READY=1")
    beating = asyncio.create_task(_beat(supervisor, supervisor.every_s, alive)) if supervisor.every_s is not None else None
    try:
        yield
    finally:
        supervisor.tell("STOPPING=1")
        if beating is not None:
            beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beating


async def _beat(supervisor: Supervisor, every_s: float, alive: Callable[[], bool]) -> None:
    while True:
        if alive():
            supervisor.tell("WATCHDOG=1")
        await asyncio.sleep(every_s)


class Progress:
    """Whether something still moves: `count` has another value than `most_s` before. `now_s` never steps."""

    def __init__(self, count: Callable[[], int], most_s: float, now_s: Callable[[], float]) -> None:
        self._count, self._most_s, self._now_s = count, most_s, now_s
        self._last, self._since_s = count(), now_s()

    def __call__(self) -> bool:
        """Ask now."""
        count, now_s = self._count(), self._now_s()
        if count != self._last:
            self._last, self._since_s = count, now_s
        return now_s - self._since_s < self._most_s
