"""A file of signed envelopes, to be carried by hand: one more transport (sync.md, rule 16).

    stick   = "LSSTICK" u8 version = 1  u32 count  part*  "LSEND" blake2b-16 over every part and then the count
    part    = B7 "LSP"  u32 length  u32 crc32  envelope          numbers with the highest byte first

What it says is signed by its authors, so a stick may be left anywhere. Each part is marked and sums up by itself: where a part is damaged,
it is named and the next one is looked for. Reading holds one part in memory, however long the file is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import BinaryIO, Final, NamedTuple
from zlib import crc32

from protocols.errors import InvalidInput
from protocols.limits import FRAME_WIRE_BYTES

MAGIC: Final = b"LSSTICK"
VERSION: Final = 1
_HEAD_BYTES: Final = len(MAGIC) + 5
_MARK: Final = b"\xb7LSP"
_PART_HEAD_BYTES: Final = len(_MARK) + 8
_END: Final = b"LSEND"
_SUM_BYTES: Final = 16
_CHUNK_BYTES: Final = 65_536


class Part(NamedTuple):
    """An envelope as it was written, and at which byte of the file it stands."""

    at: int
    payload: bytes


class Damage(NamedTuple):
    """Something of the file that cannot be used: at which byte, and what is wrong."""

    at: int
    reason: str


def write_stick(file: BinaryIO, payloads: Iterable[bytes]) -> int:
    """Write a stick into a file that can seek. Returns how many parts it has."""
    file.write(MAGIC + bytes((VERSION,)) + bytes(4))
    total, count = blake2b(digest_size=_SUM_BYTES), 0
    for payload in payloads:
        part = _MARK + len(payload).to_bytes(4, "big") + crc32(payload).to_bytes(4, "big") + payload
        total.update(part)
        file.write(part)
        count += 1
    total.update(count.to_bytes(4, "big"))
    file.write(_END + total.digest())
    file.seek(len(MAGIC) + 1)
    file.write(count.to_bytes(4, "big"))
    return count


def read_stick(file: BinaryIO) -> Iterator[Part | Damage]:
    """Every part that is whole, in order, and what is wrong with the rest. Errors: InvalidInput: no stick, or of a later version."""
    head = file.read(_HEAD_BYTES)
    if len(head) < _HEAD_BYTES or not head.startswith(MAGIC):
        raise InvalidInput("file", "is no file of `longshore-edge queue export`.", remedy="Give the file that it wrote.")
    if head[len(MAGIC)] != VERSION:
        raise InvalidInput("file", f"is of version {head[len(MAGIC)]}, this program reads {VERSION}.", remedy="Upgrade Longshore here.")
    count = int.from_bytes(head[-4:], "big")
    return _Reader(file, count).parts()


class _Reader:
    """A window that slides over the file: never longer than two chunks and a part."""

    def __init__(self, file: BinaryIO, count: int) -> None:
        self._file, self._count = file, count
        self._window = b""
        self._base = _HEAD_BYTES
        """where in the file the window begins"""
        self._total = blake2b(digest_size=_SUM_BYTES)

    def parts(self) -> Iterator[Part | Damage]:
        found = damaged = 0
        while True:
            step = self._next()
            if step is None:
                break
            found += isinstance(step, Part)
            damaged += isinstance(step, Damage)
            yield step
            if isinstance(step, Damage):
                self._seek_mark()
        yield from self._ending(found, damaged)

    def _next(self) -> Part | Damage | None:
        """The part at the beginning of the window; None at the end of the file or of the parts."""
        self._fill(_PART_HEAD_BYTES)
        if not self._window or self._window.startswith(_END):
            return None
        at, head = self._base, self._window[:_PART_HEAD_BYTES]
        if not head.startswith(_MARK):
            return Damage(at, "no part begins here")
        if len(head) < _PART_HEAD_BYTES:
            return Damage(at, "the file is cut off here")
        length, crc = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:], "big")
        if length > FRAME_WIRE_BYTES:
            return Damage(at, f"a part of {length} bytes, at most {FRAME_WIRE_BYTES} travel")
        self._fill(_PART_HEAD_BYTES + length)
        payload = self._window[_PART_HEAD_BYTES : _PART_HEAD_BYTES + length]
        if len(payload) < length:
            return Damage(at, "the file is cut off here")
        if crc32(payload) != crc:
            return Damage(at, "this part does not sum up")
        self._total.update(head + payload)
        self._drop(_PART_HEAD_BYTES + length)
        return Part(at, payload)

    def _seek_mark(self) -> None:
        """Slide from what is damaged to the next mark, or to the end."""
        self._drop(1)
        while True:
            self._fill(_CHUNK_BYTES)
            found = [i for i in (self._window.find(_MARK), self._window.find(_END)) if i >= 0]
            if found:
                self._drop(min(found))
                return
            if len(self._window) <= len(_END):
                self._drop(len(self._window))
                return
            self._drop(len(self._window) - len(_END) if len(self._window) >= _CHUNK_BYTES else len(self._window))

    def _ending(self, found: int, damaged: int) -> Iterator[Damage]:
        """Is this all that was written?"""
        self._total.update(self._count.to_bytes(4, "big"))
        self._fill(len(_END) + _SUM_BYTES)
        if not damaged and self._window[: len(_END) + _SUM_BYTES] != _END + self._total.digest():
            yield Damage(self._base, "the file ends early, or its parts do not sum up")
        elif found != self._count:
            yield Damage(self._base, f"{self._count} parts were written, {found} of them are whole")

    def _fill(self, least: int) -> None:
        while len(self._window) < least:
            chunk = self._file.read(max(_CHUNK_BYTES, least - len(self._window)))
            if not chunk:
                return
            self._window += chunk

    def _drop(self, count: int) -> None:
        self._window = self._window[count:]
        self._base += count


_WORDS: Final = {
    "known": "known before",
    "taken": "taken note of",
    "waiting": "waiting for their author",
    "stranger": "of strangers",
    "noRoom": "without room",
}


def counted(counts: Mapping[str, int]) -> str:
    """What became of a stick, for people. `counts`: messages by verdict, and `newFacts`, the facts that were new to who took them."""
    told = {name: value for name, value in counts.items() if value and name != "newFacts"}
    if not told:
        return "nothing is on it"
    total, new = sum(told.values()), counts.get("newFacts", 0)
    became = ", ".join(f"{value:,} {_WORDS.get(name, name)}" for name, value in told.items())
    facts = f"{new:,} facts were" if new > 1 else f"{'1' if new else 'no'} fact was"
    return f"{total:,} {'message' if total == 1 else 'messages'}: {became}; {facts} new here"
