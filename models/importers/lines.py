"""Bytes of a published CSV file as physical lines, in bounded memory: the part that knows nothing about any data set.

Published files end their lines with CR, LF or both, start with a byte order mark or not, and are UTF-8 or what a spreadsheet on
Windows wrote; a user keeps them plain or gzipped. Each physical line is read and decoded by itself, so that one damaged line costs
one row and not the rest of the file. A quoted cell may therefore not run over a line end.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final, cast

from protocols.errors import InvalidInput

CHUNK_BYTES: Final = 65_536
LINE_BYTES: Final = 65_536
"""The longest line taken for a row; a file with a longer one is no CSV file of orders."""

_GZIP_MAGIC: Final = b"\x1f\x8b"
_UTF8_MARK: Final = b"\xef\xbb\xbf"
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")


def physical_lines(stream: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield each line of `stream` (plain or gzip) without its end and without a leading UTF-8 mark; empty lines too.

    At most one chunk and one line are held. `name` is what errors call the file. Raises InvalidInput for what cannot be read or is
    not text in lines: damaged gzip, UTF-16, NUL bytes, a line over LINE_BYTES.
    """
    rest, first = b"", True
    for chunk in _chunks(stream, name):
        if first:
            chunk, first = _without_mark(chunk, name), False
        rest += chunk
        whole, rest = _cut(rest)
        yield from _checked(whole, name)
        _checked([rest], name)
    if rest:
        yield from _checked(_LINE_END.split(rest.removesuffix(b"\r")), name)


def decoded(line: bytes) -> tuple[str, bool]:
    """The text of one line, and whether it was UTF-8. Anything else is read as cp1252, and its undefined bytes as latin-1: never fails."""
    try:
        return line.decode("utf-8"), True
    except UnicodeDecodeError:
        pass
    try:
        return line.decode("cp1252"), False
    except UnicodeDecodeError:
        return line.decode("latin-1"), False


def cells(text: str) -> list[str]:
    """One line as its stripped cells. Raises ValueError where the quotes do not close."""
    try:
        found = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise ValueError(str(error)) from None
    return [cell.strip() for cell in found]


def _chunks(stream: BinaryIO, name: str) -> Iterator[bytes]:
    buffered = io.BufferedReader(cast(io.RawIOBase, stream), CHUNK_BYTES)
    try:
        zipped = buffered.peek(2)[:2] == _GZIP_MAGIC
        source: BinaryIO = cast(BinaryIO, gzip.GzipFile(fileobj=buffered)) if zipped else buffered
        while chunk := source.read(CHUNK_BYTES):
            yield chunk
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInput(name, f"damaged gzip ({error}).", remedy="Download it again, or unpack it first.") from None
    except OSError as error:
        raise InvalidInput(name, f"cannot be read ({error.strerror}).") from None
    finally:
        with contextlib.suppress(ValueError):  # the owner has closed it already; collecting our wrapper must not close the owner's
            buffered.detach()


def _without_mark(chunk: bytes, name: str) -> bytes:
    if chunk.startswith(_UTF16_MARKS):
        raise InvalidInput(name, "is UTF-16.", remedy="Save it again as 'CSV UTF-8'.")
    return chunk.removeprefix(_UTF8_MARK)


def _cut(buffer: bytes) -> tuple[list[bytes], bytes]:
    """The whole lines of the buffer and what is left. A CR at the very end stays: an LF may follow in the next chunk."""
    held = b"\r" if buffer.endswith(b"\r") else b""
    *whole, rest = _LINE_END.split(buffer.removesuffix(held))
    return whole, rest + held


def _checked(lines: list[bytes], name: str) -> list[bytes]:
    for line in lines:
        if len(line) > LINE_BYTES:
            raise InvalidInput(name, f"not a CSV file: a line is longer than {LINE_BYTES} bytes.")
        if b"\0" in line:
            raise InvalidInput(name, "not a CSV file: it holds NUL bytes.")
    return lines
