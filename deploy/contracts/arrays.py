"""Positional messages as JSON Schema (draft 7, which AsyncAPI speaks): read off the dataclasses that are the messages.

On the wire a message is a msgpack array in the order of its fields. Here arrays stay arrays and byte strings become hexadecimal text.
"""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from enum import IntEnum
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from protocols import clock
from protocols.codec import INT63_MAX
from protocols.downlink import Bucket, Feed, FeedDone, Leaf, Vector

Json = dict[str, Any]
_PLAIN: Final[dict[object, Json]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": -INT63_MAX, "maximum": INT63_MAX},
    str: {"type": "string"},
    bytes: {"type": "string", "pattern": "^([0-9a-f]{2})*$", "description": "bytes, in hexadecimal"},
}
_BUCKET: Final = ("depth", "prefix")
ROWS: Final[Json] = {
    "type": "array",
    "description": "canonical rows of facts, taken out of the compressed body",
    "items": {"type": "array", "items": [{"type": "integer", "description": "kind of row"}], "minItems": 1, "additionalItems": True},
}


def plain(value: object) -> object:
    """A value of a message as JSON: lists stay lists, bytes become hexadecimal."""
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return value.hex() if isinstance(value, bytes) else value


def of_message(cls: type) -> Json:
    """The array that this message is. Whoever reads it ignores elements after the known ones."""
    return _array([(name, ROWS if (cls, name) == (Feed, "body") else of_type(hint)) for name, hint in _elements(cls)])


def of_type(hint: Any) -> Json:
    """The schema of one element by its type. Errors: TypeError for a type that no message has had so far."""
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    if get_origin(hint) in (Union, types.UnionType):
        return _either([of_type(inner) for inner in get_args(hint) if inner is not type(None)], get_args(hint))
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return {"type": "array", "items": of_type(inner[0])}
        return _array([("", of_type(part)) for part in inner]) if inner else {"type": "array", "maxItems": 0}
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        meaning = ", ".join(f"{int(member)} {member.name.lower()}" for member in hint)
        return {"type": "integer", "enum": [int(member) for member in hint], "description": meaning}
    if is_dataclass(hint) or hasattr(hint, "_fields"):
        return of_message(hint)
    raise TypeError(f"{hint!r} has no schema yet: add it to {__name__}")


def _elements(cls: Any) -> list[tuple[str, Any]]:
    """Names and types in the order of the wire, where a bucket is written flat and digests as one byte string."""
    hints = get_type_hints(cls, vars(clock) if cls.__module__ == clock.__name__ else None)
    names = [field.name for field in fields(cls)] if is_dataclass(cls) else list(cls._fields)
    out: list[tuple[str, Any]] = []
    for name in names:
        if hints[name] is Bucket and cls in (Vector, Leaf, FeedDone):
            out += [(part, int) for part in _BUCKET]
        else:
            out.append((name, bytes if (cls, name) == (Vector, "digests") else hints[name]))
    return out


def _either(schemas: list[Json], hints: tuple[Any, ...]) -> Json:
    null = [{"type": "null"}] if type(None) in hints else []
    found = [*schemas, *null]
    return found[0] if len(found) == 1 else {"oneOf": found}


def _array(elements: list[tuple[str, Json]]) -> Json:
    items = [({"title": name} if name else {}) | schema for name, schema in elements]
    return {"type": "array", "items": items, "minItems": len(items), "additionalItems": True}
