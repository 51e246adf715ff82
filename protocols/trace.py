"""Trace context (W3C Trace Context 1) of facts: computed from a fact's identity, so that every place computes the same, and none keeps it.

    trace id    blake2b-16("longshore/trace/1" + msgpack([node, epoch, seq, h]))      one per fact, from its commit to the store
    parent id   h, the 8 bytes of its chain hash

A frame goes by the trace of its last fact, the only one whose identity its header holds whole.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

from protocols.codec import FrameHeader, pack

_CONTEXT: Final = b"longshore/trace/1"
_OF_FOUR: Final = b"\x94"
"""how msgpack begins an array of four"""
_PARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def trace_id(node: str, epoch: int, seq: int, h: bytes) -> str:
    """32 hexadecimal digits, the same for a fact wherever they are asked for."""
    return trace_id_in(stream_part(node, epoch), seq, h)


def stream_part(node: str, epoch: int) -> bytes:
    """What the traces of all facts of one node's epoch are computed from, for `trace_id_in`: there is one for each event of a backlog."""
    return b"".join((_CONTEXT, _OF_FOUR, pack(node), pack(epoch)))


def trace_id_in(stream: bytes, seq: int, h: bytes) -> str:
    """`trace_id`, from a `stream_part`."""
    return blake2b(stream + pack(seq) + pack(h), digest_size=16).hexdigest()


def traceparent(node: str, epoch: int, seq: int, h: bytes) -> str:
    """The header `traceparent` of a fact: version 00, sampled."""
    return f"00-{trace_id(node, epoch, seq, h)}-{h.hex()}-01"


def frame_traceparent(header: FrameHeader) -> str:
    """The header `traceparent` of a frame: its last fact's."""
    return traceparent(header.author, header.epoch, header.first + header.count - 1, header.h_after)


def read_traceparent(text: object) -> str:
    """`text` if it is a traceparent of version 00, else empty: what comes from outside is shown, never believed."""
    return text if isinstance(text, str) and _PARENT.fullmatch(text) else ""
