"""What a value from outside may be made of: one check for every reader."""

from __future__ import annotations

from typing import Any, Final

from protocols.errors import DecodeError

_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
_TEXT: Final = frozenset({str})


def check_plain(value: object, nesting: int) -> None:
    """Raise `DecodeError` unless `value` is nil, bool, int, float, text, bytes, or lists and maps of them, at most `nesting` containers
    deep, with text as keys. Walks level by level: no depth of nesting costs stack."""
    level: list[Any] = [value]
    for _ in range(nesting + 1):
        if _SCALARS.issuperset(map(type, level)):
            return
        inner: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is list:
                inner += item
            elif kind is dict:
                if not _TEXT.issuperset(map(type, item)):
                    raise DecodeError("a map with a key that is not text")
                inner += item.values()
            elif kind not in _SCALARS:
                raise DecodeError("an ext type")
        if not inner:
            return
        level = inner
    raise DecodeError(f"nested deeper than {nesting}")


def is_plain(value: object, nesting: int) -> bool:
    """`check_plain` as a question."""
    try:
        check_plain(value, nesting)
    except DecodeError:
        return False
    return True
