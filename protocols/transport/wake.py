"""Waiting for a socket and for other threads at once."""

from __future__ import annotations

import selectors
import socket


class Wake:
    """A selector that other threads can interrupt."""

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._rung = False
        self.selector = selectors.DefaultSelector()
        self.selector.register(self._read, selectors.EVENT_READ)

    def ring(self) -> None:
        """Safe from any thread; once for all that rings before it is heard. A full buffer means that it has rung, a closed one that nobody
        listens any more."""
        if self._rung:
            return
        self._rung = True
        try:
            self._write.send(b"!")
        except OSError:
            return

    def wait(self, timeout_s: float) -> int:
        """Wait for the bell or for the socket of a line. Returns what is ready on the latter (`selectors.EVENT_*`). Who waits looks at what
        others left for it after each return: it may have been left without another ring."""
        mask = 0
        for key, events in self.selector.select(timeout_s):
            if key.fileobj is self._read:
                self._read.recv(4_096)
                self._rung = False
            else:
                mask |= events
        return mask

    def close(self) -> None:
        """Give the sockets back."""
        self.selector.close()
        self._read.close()
        self._write.close()
