"""Mutations without guidance: what a broken line, a broken disk and a spiteful neighbour do to good bytes."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

_NASTY: Final = (
    b"\xff" * 8,
    bytes(8),
    b"\xdd\x7f\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xcf" + b"\xff" * 8,
    b"\x91" * 40,
    b"\xc6\xff\xff\xff\xff",
    b"{[" * 30,
)
"""lengths that are only claimed, numbers beyond 63 bits, nesting"""


def mutated(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """A seed with one to six things done to it."""
    data = rng.choice(seeds)
    for _ in range(rng.randrange(1, 7)):
        data = _once(rng, data, seeds)
    return data


def _once(rng: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    match rng.randrange(7):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + bytes((rng.randrange(256),)) + data[at + 1 :]
        case 2:
            return data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at:]
        case 3:
            return data[:at] + data[at + rng.randrange(1, 9) :]
        case 4:
            return data[:at] + rng.choice(_NASTY) + data[at:]
        case 5:
            other = rng.choice(seeds)
            return data[:at] + other[rng.randrange(len(other) + 1) :]
        case _:
            flipped = bytes((data[at] ^ 1 << rng.randrange(8),)) if at < len(data) else b""
            return data[:at] + flipped + data[at + 1 :]
