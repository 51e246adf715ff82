"""msgpack, the envelope and the frame header: what comes in is bounded, and either what was sent or one DecodeError."""

from __future__ import annotations

import struct
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import limits
from protocols.codec import INT63_MAX, MAGIC, SIGNATURE_BYTES, FrameHeader, Kind, envelope, open_envelope, pack, unpack
from protocols.errors import DecodeError, TooLarge
from protocols.plain import is_plain
from tests.unit.protocols.plain_worlds import plain_values

MAX: Final = 1_000_000

# ------------------------------------------------------------------ msgpack


def test_packing_uses_the_shortest_forms() -> None:
    assert pack([1, 200, "é", b"b", None]) == b"\x95\x01\xcc\xc8\xa2\xc3\xa9\xc4\x01b\xc0"
    assert pack(2**32) == b"\xcf" + struct.pack(">Q", 2**32)


def test_a_value_that_cannot_be_packed_leaves_nothing_behind() -> None:
    for bad in ([1, object()], [1, 2**64], ["a", "\ud800"]):
        with pytest.raises((TypeError, OverflowError, UnicodeEncodeError)):
            pack(bad)
        assert pack(1) == b"\x01"


@given(plain_values.filter(lambda value: is_plain(value, 12)))
def test_what_is_packed_comes_back(value: object) -> None:
    assert unpack(pack(value), max_bytes=MAX) == value


@given(st.binary(max_size=200))
def test_any_bytes_unpack_or_raise_one_error(data: bytes) -> None:
    try:
        unpack(data, max_bytes=MAX)
    except DecodeError:
        pass


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not well-formed"),
        (b"\xc1", "not well-formed"),
        (b"\x92\x01", "not well-formed"),
        (b"\x01\x01", "1 bytes left over"),
        (b"\xa1\xff", "not well-formed"),
        (b"\xd4\x05x", "not well-formed"),
        (b"\xd6\xff\x00\x00\x00\x00", "ext type"),
        (b"\x81\x01\x01", "not well-formed"),
        (b"\x81\xc4\x01a\x01", "not text"),
        (b"\xdf\xff\xff\xff\xff", "not well-formed"),
        (b"\x91" * 13 + b"\x00", "nested deeper"),
        (b"\x81\xa1a" * 13 + b"\x00", "nested deeper"),
        (b"\x91" * 90_000 + b"\x00", "not well-formed"),
        (b"\xdd\x00\x00\xff\xff" * 18_000, "not well-formed"),
    ],
)
def test_damage_and_bombs_in_msgpack_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        unpack(data, max_bytes=MAX)


def test_twelve_containers_inside_one_another_are_read() -> None:
    assert unpack(b"\x91" * 12 + b"\x00", max_bytes=MAX)


def test_more_bytes_than_allowed_are_not_looked_at() -> None:
    with pytest.raises(DecodeError, match="6 bytes, at most 5"):
        unpack(pack("12345"), max_bytes=5)


# ------------------------------------------------------------------ envelope


def header(**other: Any) -> list[Any]:
    fields = {"author": "edge-1", "epoch": 5, "cls": 0, "first": 1, "count": 2, "h_before": b"8 before", "h_after": b"8 after."}
    return list((fields | {"dictionary": 1} | other).values())


def wire(kind: int = Kind.FRAME, body: bytes = b"body") -> bytes:
    return envelope(Kind(kind), header(), body) + b"s" * SIGNATURE_BYTES


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("body", [b"", b"body", b"\x00" * 500])
def test_an_envelope_opens_to_what_was_put_in(kind: Kind, body: bytes) -> None:
    opened = open_envelope(wire(kind, body))
    assert (opened.kind, opened.header, opened.body) == (kind, header(), body)
    assert opened.signed + opened.signature == wire(kind, body)
    assert opened.signature == b"s" * SIGNATURE_BYTES


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "0 bytes are too few"),
        (MAGIC + b"\x01\x01" + b"s" * 64, "too few"),
        (b"XX" + wire()[2:], "not a Longshore message"),
        (MAGIC + b"\x02" + wire()[3:], "version 2, this node reads 1"),
        (MAGIC + b"\x01\x63" + wire()[4:], "kind 99"),
        (MAGIC + b"\x01\x01" + pack({"a": 1}) + b"s" * 64, "not an array"),
        (MAGIC + b"\x01\x01\xc1" + b"s" * 64, "not well-formed"),
        (wire() + b"x" * limits.FRAME_WIRE_BYTES, "may travel"),
    ],
)
def test_a_message_that_is_not_one_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        open_envelope(data)


def test_size_is_judged_before_anything_else() -> None:
    with pytest.raises(DecodeError, match="at most 100000 may travel"):
        open_envelope(b"X" * (limits.FRAME_WIRE_BYTES + 1))


def test_what_would_be_too_large_is_not_made() -> None:
    room = limits.FRAME_WIRE_BYTES - SIGNATURE_BYTES - len(envelope(Kind.FRAME, [], b""))
    assert len(envelope(Kind.FRAME, [], b"x" * room)) + SIGNATURE_BYTES == limits.FRAME_WIRE_BYTES
    with pytest.raises(TooLarge):
        envelope(Kind.FRAME, [], b"x" * (room + 1))


@given(st.binary(max_size=300))
def test_any_bytes_open_or_raise_one_error(data: bytes) -> None:
    for message in (data, MAGIC + b"\x01\x01" + data + b"s" * 64):
        try:
            open_envelope(message)
        except DecodeError:
            pass


# ------------------------------------------------------------------ frame header


def test_a_header_comes_back_from_its_list() -> None:
    parsed = FrameHeader.parse(header())
    assert parsed == FrameHeader("edge-1", 5, 0, 1, 2, b"8 before", b"8 after.", 1)
    assert parsed.to_list() == header()


def test_elements_of_a_later_version_are_passed_over() -> None:
    assert FrameHeader.parse([*header(), "later"]) == FrameHeader.parse(header())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("author", "Edge"), ("author", ""), ("author", "a" * 33), ("author", b"edge"), ("author", "edge\n"), ("author", None),
        ("epoch", 0), ("epoch", 2**63), ("epoch", "5"), ("epoch", True), ("epoch", 5.0),
        ("cls", -1), ("cls", None), ("cls", 256),
        ("first", 0), ("first", INT63_MAX), ("first", None),
        ("count", 0), ("count", limits.FRAME_FACTS + 1), ("count", False),
        ("h_before", b"7 bytes"), ("h_before", "8 before"), ("h_after", b"9 bytes.."), ("h_after", None),
        ("dictionary", -1), ("dictionary", 256), ("dictionary", "1"),
    ],
)  # fmt: skip
def test_each_field_of_a_header_is_checked(field: str, value: object) -> None:
    with pytest.raises(DecodeError, match=field):
        FrameHeader.parse(header(**{field: value}))


def test_the_bounds_of_a_header_themselves_are_taken() -> None:
    FrameHeader.parse(header(author="0", epoch=1, first=INT63_MAX - 1))
    FrameHeader.parse(header(author="a" * 32, epoch=INT63_MAX, count=limits.FRAME_FACTS, cls=255, dictionary=255))


@pytest.mark.parametrize("length", [0, 7, 17])
def test_a_header_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(DecodeError, match=f"{length} elements"):
        FrameHeader.parse([1] * length)
