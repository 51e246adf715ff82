"""Packets of MQTT as bytes, where the library takes ten times as long: what comes with a fact, what goes beside one, and many that go
together. Pure.

Only what is common here is read: a message that is acknowledged once, with the properties that this product sends. Anything else is left to
the library, which knows all of the protocol and names what is malformed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from protocols.trace import read_traceparent
from protocols.transport.port import Extra

TRACE: Final = "traceparent"
"""the user property that carries the trace context"""
_TRACED: Final = b"\x26" + len(TRACE).to_bytes(2, "big") + TRACE.encode()
"""A user property of that name."""
_TRACE_MOST: Final = 64
_EXPIRY: Final = b"\x02"
_ONCE: Final = 1
"""the quality of service that all topics of this product have"""


_TOGETHER_BYTES: Final = 16_384
"""in one piece to the socket: some hundred receipts, and little to copy again where a line takes it slowly"""
_DISCONNECT: Final = 0xE0
_PUBLISH: Final = 0x30


class Beside:
    """What goes beside a message, packed. The library takes 150 µs to pack the same, for each frame."""

    def __init__(self, packed: bytes) -> None:
        self._packed = bytes((len(packed),)) + packed  # below 128: the length is one byte

    def pack(self) -> bytes:
        """The length, and the properties (MQTT 5, 2.2.2)."""
        return self._packed


def beside(extra: Extra) -> Beside | None:
    """The properties of a message that goes; None: it has none."""
    packed = b"" if extra.expiry_s is None else _EXPIRY + extra.expiry_s.to_bytes(4, "big")
    if extra.traceparent:
        trace = extra.traceparent.encode()[:_TRACE_MOST]
        packed += _TRACED + len(trace).to_bytes(2, "big") + trace
    return Beside(packed) if packed else None


class Came(NamedTuple):
    """A message as it came. `mid`: under which number it is acknowledged."""

    topic: str
    payload: bytes
    retain: bool
    mid: int
    trace: str


def read_publish(head: int, packet: bytes | bytearray, *, five: bool) -> Came | None:
    """The message in a PUBLISH packet: its first byte, and all behind its length. None: it is for the library to read."""
    if head >> 1 & 3 != _ONCE or len(packet) < 4:
        return None
    at = 2 + int.from_bytes(packet[:2], "big")
    mid = int.from_bytes(packet[at : at + 2], "big")
    end = at + 2
    trace: str | None = ""
    if five:
        if len(packet) <= end or packet[end] > 127:
            return None
        start, end = end + 1, end + 1 + packet[end]
        trace = _trace(bytes(packet[start:end])) if end > start else ""
    if end > len(packet) or at == 2 or trace is None:
        return None
    try:
        return Came(packet[2:at].decode(), bytes(packet[end:]), bool(head & 1), mid, trace)
    except UnicodeDecodeError:
        return None


def _trace(properties: bytes) -> str | None:
    """The trace context among properties that are an expiry and a user property of that name, each at most once; None: there are others."""
    if properties[:1] == _EXPIRY and len(properties) >= 5:
        properties = properties[5:]
    if not properties:
        return ""
    start = len(_TRACED) + 2
    if properties[: len(_TRACED)] != _TRACED or len(properties) < start:
        return None
    if len(properties) != start + int.from_bytes(properties[start - 2 : start], "big"):
        return None
    try:
        return read_traceparent(properties[start:].decode())
    except UnicodeDecodeError:
        return None


def join(waiting: deque[Any]) -> None:
    """Make fewer of the packets that wait to be sent, in the library's own shape: each costs a call of the system, and its turn in the
    library. One that was sent in part keeps its place and its rest. What the library does something about once it is sent (the farewell, a
    message that nobody acknowledges) stays by itself.
    """
    if len(waiting) < 2:
        return
    groups: list[list[Any]] = []
    room = 0
    for packet in waiting:
        if packet["to_process"] <= room and not _alone(packet):
            groups[-1].append(packet)
        else:
            groups.append([packet])
            room = 0 if _alone(packet) else _TOGETHER_BYTES
        room -= packet["to_process"]
    waiting.clear()
    waiting.extend(_one(group) if len(group) > 1 else group[0] for group in groups)


def _alone(packet: Any) -> bool:
    kind: int = packet["command"] & 0xF0
    return kind == _DISCONNECT or (kind == _PUBLISH and not packet["qos"])


def _one(packets: Sequence[Any]) -> Any:
    left = b"".join(packet["packet"][packet["pos"] :] for packet in packets)
    return {**packets[0], "pos": 0, "to_process": len(left), "packet": left}
