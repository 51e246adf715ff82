"""The elements of messages from outside, each checked for type and bound: what is not as it must be is a DecodeError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from protocols.codec import INT63_MAX
from protocols.errors import DecodeError

T = TypeVar("T")
HASH: Final = 8


def items(value: object, least: int, *absent: object) -> list[Any]:
    """The first `least` elements of an array, and those that a later version appended: `absent` where it did not. Others are ignored."""
    if type(value) is not list or len(value) < least:
        raise DecodeError(f"expected an array of at least {least} elements")
    if not absent:
        return value[:least]
    return value[:least] + [value[i] if i < len(value) else default for i, default in enumerate(absent, least)]


def tuple_of(value: object, parse: Callable[[object], T], most: int) -> tuple[T, ...]:
    """Every element parsed, at most `most` of them."""
    if type(value) is not list or len(value) > most:
        raise DecodeError(f"expected an array of at most {most} elements")
    return tuple([parse(v) for v in value])


def point(value: object) -> tuple[int, bytes]:
    """A place in a stream: (seq, chain hash at it)."""
    number, h = items(value, 2)
    return seq(number), fixed(h, HASH)


def points(value: object, most: int) -> tuple[tuple[int, bytes], ...]:
    """Many of them, at most so many: `tuple_of` of points, in a third of its time."""
    if type(value) is not list or len(value) > most:
        raise DecodeError(f"expected an array of at most {most} elements")
    return tuple([
        (v[0], v[1])
        if type(v) is list and len(v) > 1 and type(v[0]) is int and 1 <= v[0] <= INT63_MAX and type(v[1]) is bytes and len(v[1]) == HASH
        else point(v)  # which says what is wrong
        for v in value
    ])  # fmt: skip


def whole(value: object) -> int:
    """A number of 0..2^63-1."""
    if type(value) is not int or not 0 <= value <= INT63_MAX:
        raise DecodeError("expected a whole number of 63 bits")
    return value


def seq(value: object) -> int:
    """A number of 1..2^63-1."""
    if type(value) is not int or not 1 <= value <= INT63_MAX:
        raise DecodeError("expected a sequence number from 1")
    return value


epoch = seq


def small(value: object) -> int:
    """A number of 0..255."""
    if type(value) is not int or not 0 <= value <= 255:
        raise DecodeError("expected a number of 0..255")
    return value


def flag(value: object) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise DecodeError("expected true or false")
    return value


def fixed(value: object, length: int) -> bytes:
    """Exactly so many bytes."""
    if type(value) is not bytes or len(value) != length:
        raise DecodeError(f"expected {length} bytes")
    return value


def hash_or_none(value: object) -> bytes:
    """8 bytes, or none where it is unknown."""
    return b"" if value == b"" else fixed(value, HASH)


def text(value: object, most: int) -> str:
    """A text of at most so many characters."""
    if type(value) is not str or len(value) > most:
        raise DecodeError(f"expected a text of at most {most} characters")
    return value
