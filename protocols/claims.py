"""A worker's word to the other workers of its hub: the central store gave it a partition of the nodes, with this fence (hub/WORKERS.md).

Said over the broker, for a worker that cannot ask the store itself. A msgpack list and the hub's signature over it and a name of its own,
so that nothing else that the hub signs is taken for one. What is read is not believed before `Said.check`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from protocols.codec import pack, unpack
from protocols.elements import items, text, whole
from protocols.errors import DecodeError
from protocols.limits import NODE_CHARS

VERSION: Final = 1
SIGNATURE_BYTES: Final = 64
CLAIM_BYTES: Final = 256
"""no claim is longer"""
_NAME: Final = b"longshore claim\0"


@dataclass(frozen=True, slots=True)
class Claim:
    """Partition, the fence that its row has since, and the process that it is of: the worker's name and the number of its start."""

    partition: int
    fence: int
    worker: str
    boot: int


class Said(NamedTuple):
    """A claim as it came."""

    claim: Claim
    signed: bytes
    signature: bytes

    def check(self, public: bytes, verify: Callable[[bytes, bytes, bytes], None]) -> None:
        """Return if the hub with this key said it. Errors: NotVerified."""
        verify(public, self.signature, _NAME + self.signed)


def seal_claim(claim: Claim, sign: Callable[[bytes], bytes]) -> bytes:
    """The signed bytes."""
    body = pack([VERSION, claim.partition, claim.fence, claim.worker, claim.boot])
    return b"".join((body, sign(_NAME + body)))


def read_claim(data: bytes) -> Said:
    """What came, taken apart; elements that a later version appended are ignored. Errors: DecodeError."""
    if not SIGNATURE_BYTES < len(data) <= CLAIM_BYTES:
        raise DecodeError(f"{len(data)} bytes are no claim")
    signed, signature = data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
    version, partition, fence, worker, boot = items(unpack(signed, max_bytes=CLAIM_BYTES), 5)
    if version != VERSION:
        raise DecodeError("a claim of another version")
    return Said(Claim(whole(partition), whole(fence), text(worker, NODE_CHARS), whole(boot)), signed, signature)
