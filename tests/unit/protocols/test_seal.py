"""Envelopes: who said it and to whom is outside, what was said is inside and believed only after the signature."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.codec import FrameHeader, Kind, envelope, pack
from protocols.errors import DecodeError, NotVerified, TooLarge
from protocols.messages import Pull
from protocols.sync.frames import digest
from protocols.sync.seal import Control, seal, unseal
from protocols.sync.uplink import Out
from protocols.topics import Channel
from protocols.trust import NodeKey, verify

KEY, OTHER = NodeKey(b"k" * 32), NodeKey(b"o" * 32)
PULL = Pull(b"8 bytes.", ((1, 0, 2, 3),))
HEADER = FrameHeader("edge-1", 5, 0, 1, 2, b"h-before", b"h-after-", 0)


def control(body: object = None) -> bytes:
    return seal(Out(Channel.RECEIPT, Kind.PULL, [], PULL.to_list() if body is None else body), "hub", "edge-1", KEY.sign)  # type: ignore[arg-type]


def test_a_control_message_says_from_whom_to_whom_and_opens_to_what_was_said() -> None:
    opened = unseal(control())
    assert isinstance(opened, Control)
    assert (opened.author, opened.addressee) == ("hub", "edge-1")
    verify(KEY.public, opened.envelope.signature, opened.envelope.signed)
    assert opened.message() == PULL


def test_a_frame_names_its_author_only_and_keeps_its_bytes() -> None:
    data = seal(Out(Channel.LIVE, Kind.FRAME, HEADER.to_list(), b"body"), "edge-1", "hub", KEY.sign)
    opened = unseal(data)
    assert not isinstance(opened, Control)
    e, header = opened
    assert (header, e.body) == (HEADER, b"body")
    verify(KEY.public, e.signature, e.signed)
    assert b"hub" not in data
    assert digest(e.signed) == digest(envelope(Kind.FRAME, HEADER.to_list(), b"body")), "a refusal finds it"


def test_a_signature_of_somebody_else_is_not_accepted() -> None:
    opened = unseal(control())
    assert isinstance(opened, Control)
    with pytest.raises(NotVerified):
        verify(OTHER.public, opened.envelope.signature, opened.envelope.signed)


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_no_changed_byte_verifies(at: int, flip: int) -> None:
    data = bytearray(control())
    data[at % len(data)] ^= flip
    try:
        opened = unseal(bytes(data))
    except DecodeError:
        return
    e = opened.envelope if isinstance(opened, Control) else opened[0]
    with pytest.raises(NotVerified):
        verify(KEY.public, e.signature, e.signed)


@pytest.mark.parametrize("header", [[], ["hub"], ["hub", 5], [b"hub", "edge-1"], ["h" * 65, "edge-1"]])
def test_a_control_message_without_author_and_addressee_is_damage(header: list[object]) -> None:
    unsigned = envelope(Kind.PULL, header, pack(PULL.to_list()))
    with pytest.raises(DecodeError, match="author, addressee"):
        unseal(unsigned + KEY.sign(unsigned))


def test_a_later_version_may_say_more_in_the_header() -> None:
    unsigned = envelope(Kind.PULL, ["hub", "edge-1", "later"], pack(PULL.to_list()))
    opened = unseal(unsigned + KEY.sign(unsigned))
    assert isinstance(opened, Control)
    assert opened.message() == PULL


def test_a_body_is_looked_at_only_when_it_is_asked_for() -> None:
    opened = unseal(control(["nonsense"]))
    assert isinstance(opened, Control)
    with pytest.raises(DecodeError):
        opened.message()


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda b: b"LS\x01\x02" + b))
def test_nothing_but_a_decode_error_comes_out_of_any_bytes(data: bytes) -> None:
    try:
        opened = unseal(data)
        if isinstance(opened, Control):
            opened.message()
    except DecodeError:
        return


def test_what_is_too_large_to_travel_is_not_sealed() -> None:
    with pytest.raises(TooLarge):
        control(["x" * 100_000])
