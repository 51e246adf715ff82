"""Free ports on loopback for the processes that tests start."""

from __future__ import annotations

import socket
from typing import Final

_given: Final[dict[int, None]] = {}


def free_port() -> int:
    """A TCP port nobody listens on now; never the same twice in one test run, so that neighbours do not race for it."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _given:
            _given[port] = None
            return port


def listening(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody accepts connections there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0
