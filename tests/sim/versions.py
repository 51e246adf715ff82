"""Nodes that know version 1 only (I12): what they are told is cut down to what version 1 reads, and they say no more than it said.

Kinds of messages that came later do not exist for them, and no elements after those of version 1. The rest of such a node is today's code,
which has to get on with that little.
"""

from __future__ import annotations

from typing import Any, Final

from protocols.codec import Kind, envelope, pack, unpack
from protocols.errors import DecodeError
from protocols.limits import FRAME_WIRE_BYTES
from protocols.sync.seal import Control, unseal
from tests.sim.keys import Keys

ITEMS: Final[dict[Kind, int]] = {
    Kind.HELLO: 4,
    Kind.ANSWER: 8,
    Kind.RECEIPT: 5,
    Kind.RECORD: 8,
    Kind.REFUSED: 3,
    Kind.HEARTBEAT: 5,
    Kind.PULL: 2,
}
"""elements of each message of version 1; a frame is a frame"""


def as_version_1(payload: bytes, keys: Keys) -> bytes | None:
    """The message as version 1 would have said it, signed anew by its author; None where version 1 has no such message."""
    try:
        opened = unseal(payload)
    except DecodeError:
        return payload  # rubbish is the same in every version
    if not isinstance(opened, Control):
        return payload
    kind = opened.envelope.kind
    if kind not in ITEMS:
        return None
    body: Any = unpack(opened.envelope.body, max_bytes=FRAME_WIRE_BYTES)
    unsigned = envelope(kind, [opened.author, opened.addressee], pack(body[: ITEMS[kind]]))
    return unsigned + keys.signer(opened.author)(unsigned)
