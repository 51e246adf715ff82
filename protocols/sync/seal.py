"""Signed envelopes around frames and control messages, and who may open them.

The header of a control message is [author, addressee], so that what was said to one node is never taken by another. A frame names its
author only: its bytes travel unchanged through relays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from protocols.codec import Envelope, FrameHeader, Kind, envelope, open_envelope, pack, unpack
from protocols.errors import DecodeError
from protocols.limits import FRAME_WIRE_BYTES
from protocols.messages import Message, parse_message
from protocols.sync.uplink import Out
from protocols.topics import is_node

Sign = Callable[[bytes], bytes]
Verify = Callable[[bytes, bytes, bytes], None]
"""(public key, signature, data) -> None, or raises NotVerified"""


class Control(NamedTuple):
    """A control message whose signature is still to be checked: `message()` only after that."""

    envelope: Envelope
    author: str
    addressee: str

    def message(self) -> Message:
        """The message, parsed. Errors: DecodeError."""
        return parse_message(self.envelope.kind, unpack(self.envelope.body, max_bytes=FRAME_WIRE_BYTES))


def seal(out: Out, author: str, addressee: str, sign: Sign) -> bytes:
    """The signed bytes of something to send."""
    if isinstance(out.body, bytes):
        unsigned = envelope(out.kind, out.header, out.body)
    else:
        unsigned = envelope(out.kind, [author, addressee], pack(out.body))
    return unsigned + sign(unsigned)


def unseal(data: bytes) -> tuple[Envelope, FrameHeader] | Control:
    """What came, split but not believed. Errors: DecodeError."""
    e = open_envelope(data)
    if e.kind is Kind.FRAME:
        return e, FrameHeader.parse(e.header)
    author, addressee = e.header[:2] if len(e.header) > 1 else (None, None)
    if type(author) is not str or type(addressee) is not str or len(author) > 64 or len(addressee) > 64:
        raise DecodeError("the header of a control message is [author, addressee]")
    if not is_node(author):
        raise DecodeError("the author of a control message is not a node name")
    return Control(e, author, addressee)
