"""Bytes on the wire and on disk: canonical msgpack, the signed envelope, the header and the body of a frame.

The only module that imports msgpack. Whatever comes in is bounded before it is looked at, and everything that is wrong
with it is one error, `DecodeError`: damage is the sender's and moves nothing (sync.md, rule 8).

    envelope = b"LS" u8 version u8 kind | msgpack header array | body | 64 bytes of Ed25519 over all before

`protocols.body` describes what the body of a frame looks like before it is compressed, `WIRE_FRAME.md` both in full.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib import resources
from typing import Any, Final

import msgpack

from protocols import limits
from protocols.errors import DecodeError, TooLarge

MAGIC: Final = b"LS"
VERSION: Final = 1
SIGNATURE_BYTES: Final = 64
INT63_MAX: Final = 2**63 - 1
MESSAGE_NESTING: Final = limits.NESTING + 4
"""containers inside one another in any message: a fact's details, and the row, the list and the message around them"""
CONTAINER_ITEMS: Final = 65_536
"""in one array or map: msgpack reserves memory for a length that is only claimed"""

_HASH_BYTES: Final = 8
_HEADER_EXTRAS: Final = 8
_PREFIX_BYTES: Final = len(MAGIC) + 2
_NODE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_BROKEN: Final = (ValueError, TypeError, RecursionError, OverflowError, MemoryError, UnicodeError, msgpack.UnpackException)

# One packer for all: it keeps its buffer, and holds the GIL for the whole of a pack() of plain values.
pack: Final = msgpack.Packer(use_bin_type=True).pack


def unpack(data: bytes, *, max_bytes: int) -> object:
    """The one msgpack value in `data`: nil, bool, int, float, str, bytes, list, or dict with str keys.

    Raises only `DecodeError`: longer than `max_bytes`, not msgpack, bytes left over, an ext type, other keys, nested too deep.
    """
    if len(data) > max_bytes:
        raise DecodeError(f"{len(data)} bytes, at most {max_bytes} are read here")
    value, end = _unpack_first(data)
    if end != len(data):
        raise DecodeError(f"{len(data) - end} bytes left over after the message")
    return value


def _unpack_first(data: bytes) -> tuple[object, int]:
    """The first value in `data`, checked, and where it ends."""
    items = min(len(data), CONTAINER_ITEMS)
    try:
        reader = msgpack.Unpacker(
            max_buffer_size=max(len(data), 1), max_array_len=items, max_map_len=items, ext_hook=_refuse_ext, strict_map_key=True
        )
        reader.feed(data)
        value = reader.unpack()
        end = reader.tell()
    except _BROKEN as error:
        raise DecodeError(f"not well-formed msgpack ({type(error).__name__})") from error
    check_plain(value)
    return value, end


def _refuse_ext(code: int, data: bytes) -> object:
    raise ValueError("ext type")


def check_plain(value: object, nesting: int = MESSAGE_NESTING) -> None:
    """Raise `DecodeError` unless `value` is made of plain types only, with str keys, at most `nesting` containers deep."""
    level: list[Any] = [value]
    for _ in range(nesting + 1):
        inner: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is list:
                inner.extend(item)
            elif kind is dict:
                if not all(type(key) is str for key in item):
                    raise DecodeError("a map with a key that is not text")
                inner.extend(item.values())
            elif kind not in _SCALARS:
                raise DecodeError("an ext type")
        if not inner:
            return
        level = inner
    raise DecodeError(f"nested deeper than {nesting}")


_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})


class Kind(IntEnum):
    """What an envelope carries; the second byte after the magic."""

    FRAME = 1
    HELLO = 2
    ANSWER = 3
    RECEIPT = 4
    RECORD = 5
    REFUSED = 6
    HEARTBEAT = 7
    PULL = 8


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message as it came: nothing in it is verified yet. `signature` is over `signed`, the wire bytes before it."""

    kind: Kind
    header: list[Any]
    body: bytes
    signed: bytes
    signature: bytes


def envelope(kind: Kind, header: list[Any], body: bytes) -> bytes:
    """The bytes to sign; the wire carries them and then the 64 bytes of the signature. Raises `TooLarge`."""
    signed: bytes = MAGIC + bytes((VERSION, kind)) + pack(header) + body
    wire_bytes = len(signed) + SIGNATURE_BYTES
    if wire_bytes > limits.FRAME_WIRE_BYTES:
        raise TooLarge("envelope", f"{wire_bytes} bytes, at most {limits.FRAME_WIRE_BYTES} may travel", remedy="cut it smaller")
    return signed


def open_envelope(data: bytes) -> Envelope:
    """Take the wire bytes apart; neither the signature nor the body is looked at. Raises only `DecodeError`."""
    if len(data) > limits.FRAME_WIRE_BYTES:
        raise DecodeError(f"{len(data)} bytes, at most {limits.FRAME_WIRE_BYTES} may travel")
    if len(data) <= _PREFIX_BYTES + SIGNATURE_BYTES:
        raise DecodeError(f"{len(data)} bytes are too few for an envelope")
    if data[: len(MAGIC)] != MAGIC:
        raise DecodeError("not a Longshore message")
    if data[2] != VERSION:
        raise DecodeError(f"format version {data[2]}, this node reads {VERSION}")
    if data[3] not in _KINDS:
        raise DecodeError(f"message kind {data[3]}, this node reads {', '.join(str(kind) for kind in _KINDS)}")
    signed = data[:-SIGNATURE_BYTES]
    header, end = _unpack_first(signed[_PREFIX_BYTES:])
    if not isinstance(header, list):
        raise DecodeError("the header is not an array")
    return Envelope(_KINDS[data[3]], header, signed[_PREFIX_BYTES + end :], signed, data[-SIGNATURE_BYTES:])


_KINDS: Final = {int(kind): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """Which range of which branch a frame carries: `count` facts from seq `first` of stream (author, epoch, cls).

    `h_before` and `h_after` are the chain hashes before its first and after its last fact; `dictionary` the preset
    dictionary of its body (0 is none).
    """

    author: str
    epoch: int
    cls: int
    first: int
    count: int
    h_before: bytes
    h_after: bytes
    dictionary: int

    def to_list(self) -> list[Any]:
        """The header array, in the order of the fields."""
        return [self.author, self.epoch, self.cls, self.first, self.count, self.h_before, self.h_after, self.dictionary]

    @classmethod
    def parse(cls, header: Sequence[Any]) -> FrameHeader:
        """Check types and bounds; later versions may append elements, they are ignored here. Raises only `DecodeError`."""
        if not 8 <= len(header) <= 8 + _HEADER_EXTRAS:
            raise DecodeError(f"a frame header of {len(header)} elements")
        author, epoch, class_, first, count, h_before, h_after, dictionary = header[:8]
        if type(author) is not str or not _NODE.fullmatch(author):
            raise DecodeError("frame header: author is not a node name")
        _whole("epoch", epoch, 1, INT63_MAX)
        _whole("cls", class_, 0, 255)
        _whole("count", count, 1, limits.FRAME_FACTS)
        _whole("first", first, 1, INT63_MAX - count + 1)
        _whole("dictionary", dictionary, 0, 255)
        for name, value in (("h_before", h_before), ("h_after", h_after)):
            if type(value) is not bytes or len(value) != _HASH_BYTES:
                raise DecodeError(f"frame header: {name} is not {_HASH_BYTES} bytes")
        return cls(author, epoch, class_, first, count, h_before, h_after, dictionary)


def _whole(name: str, value: object, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise DecodeError(f"frame header: {name} is not a whole number from {least} to {most}")


def encode_body(rows: Sequence[bytes], *, dictionary: int = 1, level: int = 6) -> bytes:
    """The compressed body of a frame of these canonical rows, byte for byte recoverable whatever they hold.

    `dictionary` is one the reader has announced, 0 for none; `level` is zlib's, 1 to 9. Raises `TooLarge` beyond
    `limits.FRAME_FACTS` or `limits.FRAME_UNPACKED_BYTES`.
    """
    rows_bytes = sum(map(len, rows))
    if len(rows) > limits.FRAME_FACTS or rows_bytes > limits.FRAME_UNPACKED_BYTES:
        raise TooLarge("frame", f"{len(rows)} facts of {rows_bytes} bytes", remedy="cut it smaller")
    deflate = zlib.compressobj(level, zlib.DEFLATED, -15)
    return deflate.compress(pack(list(rows))) + deflate.flush()


def decode_body(body: bytes, count: int, dictionary: int) -> list[tuple[bytes, list[Any]]]:
    """For each of the `count` facts its canonical row, byte for byte as it was hashed, and the row's values.

    Bounded in time and memory whatever the bytes are. Raises only `DecodeError`.
    """
    inflate = zlib.decompressobj(-15)
    try:
        plain = inflate.decompress(body, limits.FRAME_UNPACKED_BYTES * 2)
    except zlib.error as error:
        raise DecodeError("the body does not decompress") from error
    if not inflate.eof or inflate.unused_data:
        raise DecodeError("the body is cut off, too large, or has bytes behind it")
    rows = unpack(plain, max_bytes=limits.FRAME_UNPACKED_BYTES * 2)
    if not isinstance(rows, list) or len(rows) != count or not all(type(row) is bytes for row in rows):
        raise DecodeError("the body is not a list of rows")
    return [(row, _values(row)) for row in rows]


def _values(row: bytes) -> list[Any]:
    """The values of a row that travelled as it is; none for bytes nobody can read, which quarantine is for."""
    try:
        values = unpack(row, max_bytes=limits.FRAME_UNPACKED_BYTES)
    except DecodeError:
        return []
    return values if isinstance(values, list) else []
