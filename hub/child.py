"""A process of the hub's own, started beside it: what it inherits, and how it ends.

A child holds one end of a socket pair and ends when the other closes, whatever became of its owner. It inherits the lock of the data
directory: as long as it lives, no other hub or command believes the data, or the ports, free.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence


def start_child(command: Sequence[str], holds: Sequence[int]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Python with this command line, and behind it the number of its end of a line; returned is the other end. `holds`: descriptors that
    it inherits, by the same numbers."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            fds = (theirs.fileno(), *holds)
            process = subprocess.Popen(
                [sys.executable, *command, str(fds[0])],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=fds,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)},
            )
    except OSError:
        ours.close()
        raise
    return process, ours


def leave_signals_to_owner() -> None:
    """In the child: signals that end a whole group of processes are its owner's to answer."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def end_child(process: subprocess.Popen[bytes], within_s: float) -> None:
    """Its line is closed: wait for it, and kill it if it does not end."""
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
