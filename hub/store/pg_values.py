"""Parameters of statements in PostgreSQL's binary form: arrays of numbers, texts and rows. Pure.

    array = dimensions (1, or 0 for an empty one), whether it has nulls, the type of its items, how many there are, the first index (1),
            then of each item four bytes of length and its bytes; a length of -1 is null

A general driver looks at each item to find out what it is; who asks knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

_HEAD: Final = Struct("!iiIii")
_EMPTY: Final = Struct("!iiI")
_LENGTH: Final = Struct("!i")
_NULL: Final = b"\xff\xff\xff\xff"
_SMALL, _INT, _BIG = Struct("!ih"), Struct("!ii"), Struct("!iq")
_INT2, _INT4, _INT8, _TEXT = 21, 23, 20, 25
"""the numbers of types: the same in every database"""


def smallints(values: Sequence[int]) -> bytes:
    """smallint[]."""
    return array(_INT2, [_SMALL.pack(2, value) for value in values])


def integers(values: Sequence[int]) -> bytes:
    """integer[]."""
    return array(_INT4, [_INT.pack(4, value) for value in values])


def bigints(values: Sequence[int | None]) -> bytes:
    """bigint[]."""
    return array(_INT8, [_NULL if value is None else _BIG.pack(8, value) for value in values])


def texts(values: Sequence[str | None]) -> bytes:
    """text[]."""
    return array(_TEXT, [_NULL if value is None else text(value) for value in values])


def text(value: str) -> bytes:
    """One item."""
    data = value.encode()
    return _LENGTH.pack(len(data)) + data


def array(kind: int, items: Sequence[bytes]) -> bytes:
    """Items of one type, each with its length."""
    if not items:
        return _EMPTY.pack(0, 0, kind)
    return b"".join([_HEAD.pack(1, 1, kind, len(items), 1), *items])
