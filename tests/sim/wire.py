"""Messages of a world are taken apart once, however many read them: the hub that says one is overheard by a checker, a broker doubles it,
and twins and gateways take it, too. What comes out is not changed by anybody, and what is no message is looked at anew by everybody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from protocols import copies
from protocols.codec import Envelope, Kind
from protocols.messages import Message
from protocols.sync import seal
from protocols.sync.seal import Control
from tests.sim import downlink

Rows = list[tuple[bytes, list[Any]]]

KEPT: Final = 256
"""messages; all are forgotten when there are more"""


class Wire:
    """While it is open, everybody in this process reads messages through it. Not to be opened twice at a time."""

    def __init__(self) -> None:
        self._opened: dict[bytes, Envelope] = {}
        self._read: dict[tuple[Kind, bytes], Message] = {}
        self._bodies: dict[tuple[bytes, int, int], Rows] = {}
        self._open: Callable[[bytes], Envelope] = vars(seal)["open_envelope"]
        self._message: Callable[[Control], Message] = Control.message
        self._body: Callable[[bytes, int, int], Rows] = vars(copies)["decode_body"]
        self._put(self._once_opened, lambda control: self._once_read(control), self._once_decoded)

    def close(self) -> None:
        """Everybody reads by himself again."""
        self._put(self._open, self._message, self._body)

    def _put(self, open_envelope: Any, message: Any, decode_body: Any) -> None:
        vars(seal)["open_envelope"] = open_envelope
        vars(copies)["decode_body"] = vars(downlink)["decode_body"] = decode_body
        type.__setattr__(Control, "message", message)

    def _once_opened(self, data: bytes) -> Envelope:
        found = self._opened.get(data)
        if found is None:
            if len(self._opened) >= KEPT:
                self._opened.clear()
            found = self._opened[data] = self._open(data)
        return found

    def _once_read(self, control: Control) -> Message:
        at = control.envelope.kind, control.envelope.body
        found = self._read.get(at)
        if found is None:
            if len(self._read) >= KEPT:
                self._read.clear()
            found = self._read[at] = self._message(control)
        return found

    def _once_decoded(self, body: bytes, count: int, dictionary: int) -> Rows:
        """The facts of a feed."""
        at = body, count, dictionary
        found = self._bodies.get(at)
        if found is None:
            if len(self._bodies) >= KEPT:
                self._bodies.clear()
            found = self._bodies[at] = self._body(*at)
        return found
