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
from functools import cache, lru_cache, partial
from importlib import resources
from typing import Any, Final

import msgpack

from protocols import limits
from protocols.body import RS, fits, read_rows, write_rows
from protocols.errors import DecodeError, TooLarge
from protocols.plain import check_plain
from protocols.remembered import remembered

MAGIC: Final = b"LS"
VERSION: Final = 1
SIGNATURE_BYTES: Final = 64
CLOCKS: Final = 128
"""added to a dictionary's number: rows of the body may say what their authors thought of their clocks (version 2)"""
DICTIONARIES: Final = (0, 1, CLOCKS, CLOCKS + 1)
"""ids of the preset dictionaries this version reads, to be announced; none is ever removed"""
DICTIONARY: Final = 1
PLAIN_BYTES: Final = limits.FRAME_UNPACKED_BYTES + 65_536
"""of a body before compression: rows need a few bytes more each when they stand among the extras"""
INT63_MAX: Final = 2**63 - 1
MESSAGE_NESTING: Final = limits.NESTING + 4
"""containers inside one another in any message: a fact's details, and the row, the list and the message around them"""
CONTAINER_ITEMS: Final = 65_536
"""in one array or map: msgpack reserves memory for a length that is only claimed"""

_TOGETHER_ITEMS: Final = 256
_FEW_ROWS: Final = 8
_EVENTS_KEPT: Final = 2_048
"""rows of short messages that were taken apart and checked lately, some hundred bytes each"""
_HASH_BYTES: Final = 8
_HEADER_EXTRAS: Final = 8
_TWO_STREAMS_FACTS: Final = 5
_RS: Final = RS.encode()
_ARRAY_32: Final = b"\xdd"
_PREFIX_BYTES: Final = len(MAGIC) + 2
_NODE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_BROKEN: Final = (ValueError, TypeError, RecursionError, OverflowError, MemoryError, UnicodeError, msgpack.UnpackException)


def _refuse_ext(code: int, data: bytes) -> object:
    raise ValueError("ext type")


# One packer for all: it keeps its buffer, and holds the GIL for the whole of a pack() of plain values.
pack: Final = msgpack.Packer(use_bin_type=True).pack
_unpackb: Final = partial(
    msgpack.unpackb, strict_map_key=True, max_array_len=CONTAINER_ITEMS, max_map_len=CONTAINER_ITEMS, ext_hook=_refuse_ext
)


def unpack(data: bytes, *, max_bytes: int) -> object:
    """The one msgpack value in `data`: nil, bool, int, float, str, bytes, list, or dict with str keys.

    Raises only `DecodeError`: longer than `max_bytes`, not msgpack, bytes left over, an ext type, other keys, nested too deep.
    """
    if len(data) > max_bytes:
        raise DecodeError(f"{len(data)} bytes, at most {max_bytes} are read here")
    most = min(len(data), CONTAINER_ITEMS)
    try:
        value = msgpack.unpackb(data, strict_map_key=True, max_array_len=most, max_map_len=most, ext_hook=_refuse_ext)
    except msgpack.ExtraData as error:
        raise DecodeError(f"{len(error.extra)} bytes left over after the message") from error
    except _BROKEN as error:
        raise DecodeError(f"not well-formed msgpack ({type(error).__name__})") from error
    check_plain(value, MESSAGE_NESTING)
    return value


def unpack_together(rows: Sequence[bytes]) -> list[Any] | None:
    """The values of many rows in one go, a fraction of the cost of each by itself; None where some row is not one value, or has a container
    of more items than there are rows here: then ask for each. Depth is not looked at."""
    most, end, values = max(len(rows), _TOGETHER_ITEMS), 0, []
    try:
        reader = msgpack.Unpacker(strict_map_key=True, max_array_len=most, max_map_len=most, ext_hook=_refuse_ext)
        reader.feed(b"".join(rows))
        unpack_next, tell = reader.unpack, reader.tell
        for row in rows:
            values.append(unpack_next())
            end += len(row)
            if tell() != end:
                return None
    except _BROKEN:
        return None
    return values


def unpack_own(data: bytes) -> object:
    """A value that was unpacked and found plain before it was kept: out of this node's own log, the check is not made again.

    Raises `DecodeError` for bytes that are damaged.
    """
    try:
        return _unpackb(data)
    except _BROKEN as error:
        raise DecodeError(f"not well-formed msgpack ({type(error).__name__})") from error


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
    check_plain(value, MESSAGE_NESTING)
    return value, end


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
    FOLLOW = 9
    COMPARE = 10
    DIFFER = 11
    FEED = 12


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


def encode_body(rows: Sequence[bytes], *, dictionary: int = DICTIONARY, level: int = 6, own: bool = False) -> bytes:
    """The compressed body of a frame of these canonical rows, byte for byte recoverable whatever they hold.

    `dictionary` is one the reader has announced, 0 for none; `level` is zlib's, 1 to 9. `own`: these rows were written here, by `pack`, so
    they need not be looked at for other forms of the same values: a row that has one was damaged since, and no hash is that of its bytes.
    Raises `TooLarge` beyond `limits.FRAME_FACTS` or `limits.FRAME_UNPACKED_BYTES`.
    """
    rows_bytes = sum(map(len, rows))
    if len(rows) > limits.FRAME_FACTS or rows_bytes > limits.FRAME_UNPACKED_BYTES:
        raise TooLarge("frame", f"{len(rows)} facts of {rows_bytes} bytes", remedy="cut it smaller")
    plain = plain_body(rows, clocks=dictionary >= CLOCKS, own=own)
    plain_bytes = len(plain[0]) + len(plain[1])
    if plain_bytes > PLAIN_BYTES:
        raise TooLarge("frame", f"{plain_bytes} bytes before compression", remedy="cut it smaller")
    return deflated(plain, len(rows), preset_dictionary(dictionary), level)


def plain_body(rows: Sequence[bytes], *, clocks: bool = False, own: bool = False) -> tuple[bytes, bytes]:
    """What is compressed: the texts, and all that follows them. Golden tests compare it, because builds of zlib differ in their output."""
    if len(rows) <= _FEW_ROWS:  # a fact goes to several nodes, and once more where a message was lost
        values = [_event_values(row, clocks) for row in rows]
        texts, signs, figures, extras = write_rows(rows, values, clocks=clocks, fit=True)
    else:
        texts, signs, figures, extras = write_rows(rows, _all_exact_values(rows, own), clocks=clocks)
    rest = f"{RS}{signs}{RS}{figures}".encode()
    return texts.encode(), rest + _RS + pack(extras) if extras else rest


def _all_exact_values(rows: Sequence[bytes], own: bool = False) -> Sequence[list[Any] | None]:
    """`_exact_values` of each; in one go, because nearly always all of them are exact."""
    try:
        values: list[Any] = _unpackb(_ARRAY_32 + len(rows).to_bytes(4, "big") + b"".join(rows))
        if set(map(type, values)) == {list} and (own or list(map(pack, values)) == list(rows)):
            return values
    except _BROKEN:
        pass
    return [_exact_values(row) for row in rows]


@remembered(_EVENTS_KEPT)
def _event_values(row: bytes, clocks: bool) -> list[Any] | None:
    """`_exact_values` of an order event to the letter, which nobody changes; None of all else."""
    values = _exact_values(row)
    return values if values is not None and fits(values, clocks) else None


def _exact_values(row: bytes) -> list[Any] | None:
    """The values of a row, if packing them again gives the same bytes."""
    try:
        values = _unpackb(row)
        return values if type(values) is list and pack(values) == row else None
    except _BROKEN:
        return None


def deflated(plain: tuple[bytes, bytes], count: int, dictionary: bytes, level: int) -> bytes:
    """A `plain_body` of `count` facts, compressed.

    Few rows in one stream: all can lean on the dictionary. Many in two: numbers do better with short matches only (Z_FILTERED), and
    with other Huffman codes for the small ones than for the large ones (Z_BLOCK begins new codes).
    """
    texts, rest = plain
    first = _compressor(dictionary, level, zlib.Z_DEFAULT_STRATEGY).copy()
    if count < _TWO_STREAMS_FACTS:
        return b"".join((first.compress(texts), first.compress(rest), first.flush()))
    numbers = _compressor(b"", level, zlib.Z_FILTERED).copy()
    figures = rest.find(_RS, 1)
    return b"".join((
        first.compress(texts), first.flush(),
        numbers.compress(rest[:figures]), numbers.flush(zlib.Z_BLOCK), numbers.compress(rest[figures:]), numbers.flush(),
    ))  # fmt: skip


@lru_cache(maxsize=32)
def _compressor(dictionary: bytes, level: int, strategy: int) -> Any:
    """A fresh compressor to copy: copying is ten times as fast as reading the dictionary again."""
    return zlib.compressobj(level, zlib.DEFLATED, -15, 8, strategy, dictionary)


@cache
def preset_dictionary(dictionary: int) -> bytes:
    """The bytes of a shipped dictionary; b"" for 0. Raises `DecodeError` for one that this version does not have."""
    if dictionary not in DICTIONARIES:
        raise DecodeError(f"dictionary {dictionary}, this node has {', '.join(map(str, DICTIONARIES))}")
    number = dictionary % CLOCKS
    return resources.files("protocols").joinpath("dictionaries", f"{number}.bin").read_bytes() if number else b""


def decode_body(body: bytes, count: int, dictionary: int) -> list[tuple[bytes, list[Any]]]:
    """For each of the `count` facts its canonical row, byte for byte as it was hashed, and the row's values.

    A row whose bytes are no readable array has no values: []. Bounded in time and memory whatever the bytes are. Raises only `DecodeError`.
    """
    plain = _inflated(body, preset_dictionary(dictionary))
    try:
        texts, signs, figures, *rest = plain.split(_RS, 3)
        extras = unpack(rest[0], max_bytes=len(rest[0])) if rest else []
        if not isinstance(extras, list):
            raise DecodeError("the body's extras are not an array")
        rows = read_rows(texts.decode(), signs, figures.decode("ascii"), extras, count, clocks=dictionary >= CLOCKS)
        return _packed(rows)
    except _BROKEN as error:
        raise DecodeError(f"the body does not hold {count} facts ({type(error).__name__})") from error


def _packed(rows: list[Any]) -> list[tuple[bytes, list[Any]]]:
    """Each row's bytes beside its values; stops before they outgrow the bound."""
    facts = []
    room_bytes = limits.FRAME_UNPACKED_BYTES
    for row in rows:
        fact = (pack(row), row) if type(row) is list else (row, _values(row))
        room_bytes -= len(fact[0])
        if room_bytes < 0:
            raise DecodeError(f"the body grows beyond {limits.FRAME_UNPACKED_BYTES} bytes")
        facts.append(fact)
    return facts


def _values(row: bytes) -> list[Any]:
    """The values of a row that travelled as it is; none for bytes nobody can read, which quarantine is for."""
    try:
        values = unpack(row, max_bytes=limits.FRAME_UNPACKED_BYTES)
    except DecodeError:
        return []
    return values if isinstance(values, list) else []


def _inflated(body: bytes, dictionary: bytes) -> bytes:
    """One or two raw deflate streams, one after the other, each with the dictionary before it."""
    plain = b""
    for _ in range(2):
        inflate = zlib.decompressobj(-15, dictionary)
        try:
            plain += inflate.decompress(body, PLAIN_BYTES + 1 - len(plain))
        except zlib.error as error:
            raise DecodeError("the body does not decompress") from error
        if len(plain) > PLAIN_BYTES:
            raise DecodeError(f"the body decompresses to more than {PLAIN_BYTES} bytes")
        if not inflate.eof:
            raise DecodeError("the body is cut off")
        body = inflate.unused_data
        if not body:
            return plain
    raise DecodeError("the body has bytes behind it")
