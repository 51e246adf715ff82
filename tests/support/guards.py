"""What no test may do unseen: reach beyond loopback, or leave a child process behind.

The network guard is an audit hook, so it sees every socket that CPython opens in this process (not those of children, nor of
uvloop's C code). It refuses the call and remembers it: code that swallows the error still fails its test.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import sys
from typing import Any, Final

from tests.support import forks
from tests.support.procs import children

ALLOWED_HELPERS: Final = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
reached: Final[list[str]] = []
_installed: Final[list[bool]] = []


class ReachedOut(OSError):
    """A test tried to speak to something that is not this machine."""


def install_network_guard() -> None:
    """Once per process; audit hooks cannot be removed."""
    if not _installed:
        _installed.append(True)
        sys.addaudithook(_audit)


def is_loopback(address: Any) -> bool:
    """Whether a socket address stays on this machine: unix sockets, loopback literals, `localhost`."""
    if not isinstance(address, tuple):
        return True
    host = address[0]
    host = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if host in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        _refuse_beyond_loopback(event, args[1])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname") and _is_name(args[0]):
        _refuse_beyond_loopback(event, (args[0],))


def _is_name(host: Any) -> bool:
    """Literals need no look-up: 0.0.0.0 is bound to, never asked for."""
    try:
        ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host))
    except ValueError:
        return True
    return False


def _refuse_beyond_loopback(event: str, address: Any) -> None:
    if not is_loopback(address):
        reached.append(f"{event} {address!r}")
        raise ReachedOut(f"{event} {address!r}: tests speak to loopback only")


def present() -> dict[int, str]:
    """Children of this process, and the copies that were made for it."""
    found = children()
    for forge in forks.running:
        found.pop(forge.pid, None)
        found |= children(forge.pid)
    return found


def left_behind(before: dict[int, str]) -> dict[int, str]:
    """Those that were not there before and that nobody ended."""
    return {pid: line for pid, line in present().items() if pid not in before and not any(helper in line for helper in ALLOWED_HELPERS)}


def end_all(pids: dict[int, str]) -> None:
    """End children by their ids, so that one test's leak is not every later test's."""
    for pid in sorted(pids):
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            continue
