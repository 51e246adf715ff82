"""Bounds on text and on the free part of an event (`details`), for JSON from callers and for rows from the wire alike.

`details` is a JSON object of text, whole numbers within 64 bit, booleans, null, lists and objects. Floats are refused: amounts and
quantities travel as integers or decimal strings (reliability.md, rule 10), so that no machine rounds what another one wrote.

Everything here raises only `InvalidInput`, which names the field. The checks run for every event: the common case costs a few type tests.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

from protocols import limits
from protocols.errors import InvalidInput, TooLarge

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1

_Path: TypeAlias = "tuple[_Path, str] | None"
"""where in the details we are, innermost last; a linked pair, because making one costs nothing until there is something to report"""

_BAD_IN_TEXT: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_BAD_IN_DETAILS: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""details may hold a note of several lines"""

_HEAD_BYTES: Final = 9
"""the longest head msgpack puts before a value"""
_UTF8_MOST: Final = 4


def check_text(value: object, field: str, at: str, most_chars: int) -> str:
    """`value` if it is text of 1 to `most_chars` characters, not blank, without control characters or lone surrogates."""
    if type(value) is str and value and len(value) <= most_chars:
        if value.isprintable() and value[0] != " ":
            return value
        if not _BAD_IN_TEXT.search(value) and not value.isspace():
            return value
    raise _text_fault(value, join(at, field), most_chars)


def _text_fault(value: object, field: str, most_chars: int) -> InvalidInput:
    if not isinstance(value, str):
        return InvalidInput(field, f"must be text, not {json_type(value)}.")
    if len(value) > most_chars:
        return InvalidInput(field, f"is {len(value)} characters long, at most {most_chars} are taken.")
    bad = _BAD_IN_TEXT.search(value)
    if bad is not None:
        return InvalidInput(field, f"holds {_name_of(bad[0])} at position {bad.start()}.", remedy="Remove it.")
    return InvalidInput(field, "is empty.", remedy="Leave the field out, or give it a value.")


def _name_of(char: str) -> str:
    what = "half of a surrogate pair, which is not a character" if "\ud800" <= char <= "\udfff" else "a control character"
    return f"{what} (U+{ord(char):04X})"


def check_details(value: object, at: str = "") -> dict[str, object]:
    """`value` itself (not a copy) if it is an object within the bounds. Raises InvalidInput, TooLarge where only the size is wrong."""
    if type(value) is not dict:
        raise InvalidInput(join(at, "details"), f"must be an object, not {json_type(value)}.")
    most_bytes = _check_map(value, (None, join(at, "details")), 1)
    if most_bytes > limits.DETAILS_BYTES:
        size_bytes = packed_bytes(value)
        if size_bytes > limits.DETAILS_BYTES:
            raise TooLarge(join(at, "details"), f"takes {size_bytes} bytes, at most {limits.DETAILS_BYTES} are taken.", remedy=_BIG_REMEDY)
    return value


_BIG_REMEDY: Final = "Keep the document elsewhere and send its reference."


def _check_map(value: dict[object, object], path: _Path, depth: int) -> int:
    """Check an object and all within; how many bytes it packs to at the very most."""
    if len(value) > limits.DETAILS_KEYS:
        raise InvalidInput(_field(path), f"has {len(value)} keys, at most {limits.DETAILS_KEYS} are taken.")
    most_bytes = _HEAD_BYTES
    for key, item in value.items():
        if type(key) is not str or not key or not key.isprintable() or len(key) > limits.TEXT_CHARS:
            key = _check_key(key, path)
        if type(item) is str and item.isprintable():
            most_bytes += _UTF8_MOST * (len(key) + len(item)) + 2 * _HEAD_BYTES
        else:
            most_bytes += _UTF8_MOST * len(key) + _HEAD_BYTES + _check_item(item, (path, f".{key}"), depth)
    return most_bytes


def _check_list(value: list[object], path: _Path, depth: int) -> int:
    if len(value) > limits.DETAILS_BYTES:
        raise TooLarge(_field(path), f"has {len(value)} items, which cannot fit in {limits.DETAILS_BYTES} bytes.", remedy=_BIG_REMEDY)
    most_bytes = _HEAD_BYTES
    for index, item in enumerate(value):
        most_bytes += _check_item(item, (path, f"[{index}]"), depth)
    return most_bytes


def _check_item(item: Any, path: _Path, depth: int) -> int:
    kind: type[object] = type(item)
    if kind is str:
        return _check_string(item, path)
    if kind is int:
        if not INT64_MIN <= item <= INT64_MAX:
            raise InvalidInput(_field(path), "does not fit in 64 bit.", remedy="Send it as text.")
        return _HEAD_BYTES
    if item is None or kind is bool:
        return 1
    if kind is dict or kind is list:
        if depth >= limits.NESTING:
            raise InvalidInput(_field(path), f"is nested deeper than {limits.NESTING} levels.", remedy="Flatten it.")
        return _check_map(item, path, depth + 1) if kind is dict else _check_list(item, path, depth + 1)
    if kind is float:
        raise InvalidInput(_field(path), "is a floating-point number.", remedy='Send it as a decimal string, such as "12.50".')
    raise InvalidInput(_field(path), f"must be a JSON value, not {json_type(item)}.")


def _check_string(item: str, path: _Path) -> int:
    if not item.isprintable():
        bad = _BAD_IN_DETAILS.search(item)
        if bad is not None:
            raise InvalidInput(_field(path), f"holds {_name_of(bad[0])} at position {bad.start()}.", remedy="Remove it.")
    return _UTF8_MOST * len(item) + _HEAD_BYTES


def _check_key(key: object, path: _Path) -> str:
    if type(key) is not str:
        raise InvalidInput(_field(path), f"has a key that is {json_type(key)}, keys are text.")
    if not 1 <= len(key) <= limits.TEXT_CHARS:
        raise InvalidInput(_field(path), f"has a key of {len(key)} characters, keys have 1 to {limits.TEXT_CHARS}.")
    bad = _BAD_IN_TEXT.search(key)
    if bad is not None:
        raise InvalidInput(_field((path, f".{key}")), f"its name holds {_name_of(bad[0])}.", remedy="Remove it.")
    return key


def packed_bytes(value: object) -> int:
    """How many bytes a checked value takes in msgpack's shortest form. (Packing it would say the same; this needs no library.)"""
    if isinstance(value, str):
        size_bytes = len(value.encode())
        return size_bytes + (1 if size_bytes < 32 else 2 if size_bytes < 256 else 3 if size_bytes < 65536 else 5)
    if value is None or isinstance(value, bool):
        return 1
    if isinstance(value, int):
        return _packed_int_bytes(value)
    assert isinstance(value, (dict, list))
    head_bytes = 1 if len(value) < 16 else 3 if len(value) < 65536 else 5
    if isinstance(value, dict):
        return head_bytes + sum(packed_bytes(key) + packed_bytes(item) for key, item in value.items())
    return head_bytes + sum(packed_bytes(item) for item in value)


def _packed_int_bytes(value: int) -> int:
    if -32 <= value < 128:
        return 1
    bits = value.bit_length() if value > 0 else (~value).bit_length() + 1
    return 2 if bits <= 8 else 3 if bits <= 16 else 5 if bits <= 32 else 9


def join(at: str, field: str) -> str:
    """`field` below `at`, which is where in a batch we are (empty for a single event)."""
    return f"{at}.{field}" if at else field


def shown(text: str, most_chars: int = 64) -> str:
    """Foreign text, fit for a message to people: short, and nothing in it that a terminal or a JSON writer chokes on."""
    cut = text if len(text) <= most_chars else text[:most_chars] + "…"
    return _BAD_IN_TEXT.sub(lambda found: f"\\u{ord(found[0]):04x}", cut)


def _field(path: _Path) -> str:
    names: list[str] = []
    while path is not None:
        path, name = path
        names.append(shown(name))
    return "".join(reversed(names))


_JSON_TYPES: Final = {
    dict: "an object",
    list: "a list",
    str: "text",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


def json_type(value: object) -> str:
    """What a caller calls the type of this value."""
    return _JSON_TYPES.get(type(value), type(value).__name__)
