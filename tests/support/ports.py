"""Free ports on loopback for the processes that tests start."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path
from random import SystemRandom
from typing import IO, Final

_given: Final[dict[int, None]] = {}
_held: Final[list[IO[bytes]]] = []
_LOWEST: Final = 15_000


def free_port() -> int:
    """A TCP port nobody listens on now; never the same twice in one test run, so that neighbours do not race for it."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _given:
            _given[port] = None
            return port


def lasting_port() -> int:
    """A free TCP port for a server that is killed and started again on it.

    It lies below the ports that the system gives to outgoing connections: one of those could take it while its server is down. Test
    processes side by side keep off each other's by a lock that ends with them.
    """
    ceiling = _first_outgoing()
    while True:
        port = SystemRandom().randrange(_LOWEST, ceiling)
        lock = (Path(tempfile.gettempdir()) / f"longshore-port-{os.getuid()}-{port}.lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        _held.append(lock)
        if not listening(port):
            return port


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
