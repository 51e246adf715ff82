"""What a transaction of the hub took in, for the log of traces: said only once it is on disk."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from protocols.codec import FrameHeader, Kind, decode_body, open_envelope
from protocols.errors import DecodeError
from protocols.fact import chain
from protocols.ledger import Appended, Offered
from protocols.streams import StreamKey
from protocols.trace_log import Named, traced, tracing


class Place(NamedTuple):
    """A fact by its name."""

    stream: StreamKey
    seq: int
    h: bytes


class Fresh:
    """Facts of the transaction that is open."""

    def __init__(self) -> None:
        self._facts: list[Named] = []

    def begin(self) -> None:
        """Another transaction: what the last one held was said, or never was on disk."""
        self._facts.clear()

    def came(self, payload: bytes, done: Offered | None) -> int:
        """A message that was taken in, and what became of it. Returns how many facts were new."""
        if done is None or not done.new:
            return 0
        if tracing():
            self._facts += places(payload)
        return done.new

    def committed(self, answers: Iterable[object]) -> None:
        """They are on disk, and so is what these answers say."""
        if tracing():
            own = [
                one for answer in answers if isinstance(answer, list) for one in answer if isinstance(one, Appended) and not one.repeated
            ]
            traced("received", [*self._facts, *own])


def places(payload: bytes) -> list[Place]:
    """The facts that a frame carries; none where it is no frame, or its facts cannot be told apart."""
    try:
        opened = open_envelope(payload)
        if opened.kind is not Kind.FRAME:
            return []
        header = FrameHeader.parse(opened.header)
        rows = [row for row, _ in decode_body(opened.body, header.count, header.dictionary)]
    except DecodeError:
        return []
    stream = StreamKey(header.author, header.epoch, header.cls)
    return [Place(stream, header.first + n, h) for n, h in enumerate(chain(header.h_before, rows))]
