"""Records in Kafka's own form (message format 2), written at once: there is one for each event of a backlog. Pure.

    record  = length attributes timestampDelta offsetDelta key value headers        numbers as zigzag varints
    headers = count, then of each: length of its name, its name, length of its value, its value

A general builder is given a list of pairs for each record, and looks at each of them twice; nearly all of what these records say is the
same for a whole stream, so whoever makes them joins bytes that are ready (`Packed`). `Batch` is what such records travel in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from typing import Final

from protocols.errors import DecodeError

_READY: Final = 8_192
_BEFORE: Final = Struct(">qiibI")
"""base offset, length, leader's epoch, magic, checksum"""
_HEAD: Final = Struct(">hiqqqhii")
"""attributes, last offset delta, first and last timestamp, producer's id and epoch, first sequence number, how many records"""
_MAGIC: Final = 2
_RECORD_BYTES: Final = 32
"""of a record beside what `whole` makes, at most"""


def varint(number: int) -> bytes:
    """A number as Kafka writes it: zigzag, seven bits in a byte, the lowest first."""
    return _VARINTS[number] if -1 < number < _READY else _varint(number)


def _varint(number: int) -> bytes:
    left = number << 1 if number >= 0 else ~(number << 1)
    out = bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


_VARINTS: Final = [_varint(number) for number in range(_READY)]
"""lengths and offsets, ready"""


class _Sizes(dict[int, str]):
    """`varint` as characters, one for each byte (ISO 8859-1), for who writes a record as text."""

    def __missing__(self, number: int) -> str:
        return _varint(number).decode("latin-1")


SIZES: Final = _Sizes((number, data.decode("latin-1")) for number, data in enumerate(_VARINTS[:256]))


def header(name: str, value: bytes) -> bytes:
    """One header."""
    return named(name) + varint(len(value)) + value


def named(name: str) -> bytes:
    """What stands before the length of a header's value."""
    data = name.encode()
    return varint(len(data)) + data


class Packed:
    """The headers of a record, ready to be sent. Who looks at them finds pairs, (name, value), as in a list."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        return iter(unpacked(self.data))

    def __len__(self) -> int:
        return _read(self.data, 0)[0]

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Packed | list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


class Whole(Packed):
    """Headers that lie behind key and value, as in a record: whoever makes many of them joins all of it at once. `at`: where they begin."""

    __slots__ = ("_at", "whole")

    def __init__(self, whole: bytes, at: int) -> None:
        self.whole, self._at = whole, at

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """As in `Packed`."""
        return self.whole[self._at :]


Headers = Sequence[tuple[str, bytes]] | Packed


def packed(headers: Headers) -> bytes:
    """Headers in Kafka's form."""
    if isinstance(headers, Packed):
        return headers.data
    return varint(len(headers)) + b"".join([header(name, value) for name, value in headers])


def whole(key: bytes, value: bytes, headers: Headers) -> bytes:
    """What a record ends with: all but its place and time."""
    if type(headers) is Whole:
        return headers.whole
    return b"".join((varint(len(key)), key, varint(len(value)), value, packed(headers)))


def unpacked(data: bytes) -> list[tuple[str, bytes]]:
    """What `packed` was given. Errors: DecodeError, for what it did not write."""
    count, at = _read(data, 0)
    out = []
    for _ in range(count):
        name, at = _taken(data, at)
        value, at = _taken(data, at)
        out.append((name.decode(), value))
    if at != len(data):
        raise DecodeError("headers: there is something behind them")
    return out


def _taken(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = _read(data, at)
    if not 0 <= size <= len(data) - at:
        raise DecodeError("headers: they end early")
    return data[at : at + size], at + size


def _read(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and where it ends."""
    value = shift = 0
    for at in range(at, len(data)):  # noqa: B020 (where it stands is where it began)
        value |= (data[at] & 0x7F) << shift
        shift += 7
        if data[at] < 0x80:
            return value >> 1 ^ -(value & 1), at + 1
    raise DecodeError("headers: they end early")


class Batch:
    """Records of one partition that go together, in the place of the library's own builder: it has that one's methods as far as a producer
    calls them. `crc`: CRC-32C."""

    def __init__(self, most_bytes: int, crc: Callable[[bytes], int]) -> None:
        self._most_bytes, self._crc = most_bytes, crc
        self._parts: list[bytes] = []
        self._size = _BEFORE.size + _HEAD.size
        self._count = self._first_ms = self._last_ms = 0
        self._producer = (-1, -1, 0)
        self._built: bytes | None = None

    def add(self, record: bytes, timestamp_ms: int) -> bool:
        """Whether there was room for one more; the first record always has it. `record`: as `whole` makes it."""
        count, length = self._count, len(record)
        size = self._size + length + _RECORD_BYTES
        if not count:
            self._first_ms = self._last_ms = timestamp_ms
        elif size > self._most_bytes:
            return False
        if timestamp_ms > self._last_ms:
            self._last_ms = timestamp_ms
        delta, offset = varint(timestamp_ms - self._first_ms), varint(count)
        self._parts += (varint(1 + len(delta) + len(offset) + length), b"\0", delta, offset, record)
        self._count, self._size = count + 1, size
        return True

    # ------------------------------------------------------------ as the library's producer wants it

    def record_count(self) -> int:
        """How many there are."""
        return self._count

    def closed(self) -> bool:
        """Nothing is added by the producer: it may go at once."""
        return True

    def close(self) -> None:
        """See `closed`."""

    def size(self) -> int:
        """In bytes, or a little more."""
        return self._size if self._built is None else len(self._built)

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._producer = producer_id, producer_epoch, base_sequence

    def _build(self) -> bytes:
        """The bytes of it, the same at every attempt: a batch that is sent again is known by its first sequence number."""
        if self._built is None:
            count = self._count
            head = _HEAD.pack(0, count - 1, self._first_ms, self._last_ms, *self._producer, count)
            covered = b"".join([head, *self._parts])
            before = _BEFORE.pack(0, len(covered) + _BEFORE.size - 12, -1, _MAGIC, self._crc(covered))
            self._built, self._parts = before + covered, []
        return self._built
