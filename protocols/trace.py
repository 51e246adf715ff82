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
_PARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def trace_id(node: str, epoch: int, seq: int, h: bytes) -> str:
    """32 hexadecimal digits, the same for a fact wherever they are asked for."""
    return blake2b(_CONTEXT + pack([node, epoch, seq, h]), digest_size=16).hexdigest()


def traceparent(node: str, epoch: int, seq: int, h: bytes) -> str:
    """The header `traceparent` of a fact: version 00, sampled."""
    return f"00-{trace_id(node, epoch, seq, h)}-{h.hex()}-01"


def frame_traceparent(header: FrameHeader) -> str:
    """The header `traceparent` of a frame: its last fact's."""
    return traceparent(header.author, header.epoch, header.first + header.count - 1, header.h_after)


def read_traceparent(text: object) -> str:
    """`text` if it is a traceparent of version 00, else empty: what comes from outside is shown, never believed."""
    return text if isinstance(text, str) and _PARENT.fullmatch(text) else ""
