"""A worker's claim: there and back, and whatever else comes is an error and nothing worse."""

from __future__ import annotations

import pytest

from protocols.claims import CLAIM_BYTES, SIGNATURE_BYTES, Claim, read_claim, seal_claim
from protocols.codec import pack
from protocols.errors import DecodeError, NotVerified
from protocols.trust import NodeKey, verify

HUB, STRANGER = NodeKey(b"h" * 32), NodeKey(b"s" * 32)
CLAIM = Claim(17, 4, "w2", 2**62 - 1)
NOBODY = bytes(SIGNATURE_BYTES)


def test_a_claim_comes_as_it_was_said_and_is_believed_of_the_hub_alone() -> None:
    said = read_claim(seal_claim(CLAIM, HUB.sign))
    assert said.claim == CLAIM
    said.check(HUB.public, verify)
    with pytest.raises(NotVerified):
        said.check(STRANGER.public, verify)


def test_no_byte_of_it_can_be_another() -> None:
    wire = seal_claim(CLAIM, HUB.sign)
    for at in range(len(wire)):
        with pytest.raises(DecodeError):
            read_claim(wire[:at] + bytes((wire[at] ^ 1,)) + wire[at + 1 :]).check(HUB.public, verify)


def test_what_the_hub_signed_for_another_purpose_is_no_claim() -> None:
    body = pack([1, 17, 4, "w2", 5])
    with pytest.raises(NotVerified):
        read_claim(body + HUB.sign(body)).check(HUB.public, verify)


def test_elements_of_a_later_version_are_ignored() -> None:
    assert read_claim(pack([1, 17, 4, "w2", 5, {"more": 1}]) + NOBODY).claim == Claim(17, 4, "w2", 5)


@pytest.mark.parametrize(
    "data",
    [b"", NOBODY, b"\xc1" + NOBODY, bytes(CLAIM_BYTES + 1), pack({"a": 1}) + NOBODY, pack([2, 1, 1, "w", 1]) + NOBODY,
     pack([1, -1, 1, "w", 1]) + NOBODY, pack([1, 1, True, "w", 1]) + NOBODY, pack([1, 1, 1, "w" * 33, 1]) + NOBODY,
     pack([1, 1, 1, "w"]) + NOBODY],
    ids=["empty", "signature only", "no msgpack", "too long", "no list", "version 2", "negative", "no number", "long name", "too few"],
)  # fmt: skip
def test_what_is_no_claim_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        read_claim(data)
