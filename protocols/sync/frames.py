"""Cutting frames from a ledger, and opening them again: a frame is a range of one branch (sync.md, rule 4)."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final, NamedTuple

from protocols.codec import FrameHeader, decode_body, encode_body
from protocols.errors import DecodeError, TooLarge
from protocols.fact import chain
from protocols.limits import FRAME_UNPACKED_BYTES, FRAME_WIRE_BYTES
from protocols.streams import LogRow, Stream, StreamLog

DIGEST_BYTES: Final = 16
_ENVELOPE_BYTES: Final = 512
"""room for prefix, header and signature beside the body"""
_READ_BYTES: Final = FRAME_UNPACKED_BYTES // 2
"""of rows a frame; the positional body is smaller than its rows, and the receiver's bound counts both"""


class Cut(NamedTuple):
    """A frame ready to be signed."""

    header: FrameHeader
    body: bytes
    first: int
    last: int


class Opened(NamedTuple):
    """A frame whose chain holds: each fact's canonical bytes, its values, and its hash."""

    facts: list[tuple[bytes, list[Any]]]
    hashes: list[bytes]


def digest(signed: bytes) -> bytes:
    """What a refusal names a frame by: its bytes without the signature."""
    return blake2b(signed, digest_size=DIGEST_BYTES).digest()


def cut(log: StreamLog, stream: Stream, first: int, last: int, *, facts: int, dictionary: int, level: int) -> Cut | None:
    """The frame that begins at `first` and takes as many of first..last as fit; None when there is no data for `first`."""
    rows = log.read(stream, first, last, max_bytes=_READ_BYTES, max_facts=facts)
    if not rows or rows[0].seq != first:
        return None
    body = _body(rows, dictionary, level, stream.own)
    while body is None and len(rows) > 1:
        rows = rows[: len(rows) // 2]
        body = _body(rows, dictionary, level, stream.own)
    return None if body is None else Cut(_header(stream, rows, dictionary), body, first, rows[-1].seq)


def _body(rows: list[LogRow], dictionary: int, level: int, own: bool) -> bytes | None:
    """The compressed rows; None when they are more than a frame carries or a reader takes."""
    try:
        body = encode_body([r.row for r in rows], dictionary=dictionary, level=level, own=own)
    except TooLarge:
        return None
    return body if len(body) <= FRAME_WIRE_BYTES - _ENVELOPE_BYTES else None


def _header(stream: Stream, rows: list[LogRow], dictionary: int) -> FrameHeader:
    node, epoch, cls = stream.key
    return FrameHeader(node, epoch, cls, rows[0].seq, len(rows), rows[0].prev, rows[-1].h, dictionary)


def open_frame(header: FrameHeader, body: bytes) -> Opened:
    """Unpack within bounds and recompute the chain from `h_before` to `h_after`. Errors: DecodeError; nothing of it is to be believed."""
    facts = decode_body(body, header.count, header.dictionary)
    hashes = chain(header.h_before, [row for row, _ in facts])
    if hashes[-1] != header.h_after:
        raise DecodeError("the facts do not lead from the frame's first hash to its last")
    return Opened(facts, hashes)
