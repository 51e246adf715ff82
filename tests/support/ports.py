"""Free ports on loopback for the processes that tests start."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from functools import lru_cache
from pathlib import Path
from random import SystemRandom
from typing import IO, Final

_given: Final[dict[int, None]] = {}
_LOWEST: Final = 15_000


def free_port() -> int:
    """A TCP port that nobody listens on and no other test is given, for a server that is started soon, and perhaps again and again.

    It lies below the ports that the system gives to outgoing connections: one of those could take it while its server is not there. Test
    processes side by side keep off each other's by a lock on the byte of that number in one file; it ends with the process.
    """
    ceiling = _first_outgoing()
    while True:
        port = SystemRandom().randrange(_LOWEST, ceiling)
        if port not in _given and _ours(port) and not listening(port):
            _given[port] = None
            return port


def lasting_port() -> int:
    """`free_port`, said where a server is killed and started again on its port."""
    return free_port()


def _ours(port: int) -> bool:
    try:
        fcntl.lockf(_locks(os.getpid()), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@lru_cache
def _locks(pid: int) -> IO[bytes]:
    """One file for all test processes of a user; opened once in each, because closing it would end all locks of the process."""
    return (Path(tempfile.gettempdir()) / f"longshore-ports-{os.getuid()}.lock").open("ab")


def _first_outgoing() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return 32_768


def listening(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody accepts connections there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0
