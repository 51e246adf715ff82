"""Rows in the binary format of COPY: each column four bytes of length and its bytes, big-endian, a length of -1 for null. Pure.

Packing a row with one call of `struct` costs a microsecond where a general driver takes ten; a batch has thousands.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from struct import Struct
from typing import Final

HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TAIL: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
_LENGTH: Final = Struct("!i")
_BIG: Final = Struct("!iq")

# seq, at_ms, received_ms, sid, h, prev, row, okey (or null at the end, so that all before has a fixed place)
LOG: Final = "log (seq, at_ms, received_ms, sid, h, prev, row, okey)"
_LOG: Final = Struct("!hiqiqiqiii8si8si")
_OKEY: Final = Struct("!iq")
_ORDER: Final = Struct("!hiq")

LogRow = tuple[int, int, bytes, bytes, int | None, int, bytes, int]
"""sid, seq, h, prev, okey, at_ms, row, received_ms"""


def log_rows(rows: Iterable[LogRow]) -> bytes:
    """For `COPY` into `LOG`. Hashes have 8 bytes. Errors: TypeError for values that are none of these columns."""
    out = [HEAD]
    add = out.append
    for row in rows:
        try:
            add(_log_row(*row))
        except struct.error as e:
            raise TypeError(f"a row of the log cannot be written: {e}") from None
    out.append(TAIL)
    return b"".join(out)


def _log_row(sid: int, seq: int, h: bytes, prev: bytes, okey: int | None, at_ms: int, row: bytes, received_ms: int) -> bytes:
    if len(h) != 8 or len(prev) != 8:
        raise TypeError(f"seq {seq}: a chain hash has 8 bytes")
    fixed = _LOG.pack(8, 8, seq, 8, at_ms, 8, received_ms, 4, sid, 8, h, 8, prev, len(row))
    return fixed + row + (_NULL if okey is None else _OKEY.pack(8, okey))


STATES: Final = (
    "okey", "pos", "received_ms", "version", "facts", "head_count", "status", "quality", "covered", "conflict", "abnormal", "held",
    "heads", "source", "node", "happened_ms", "expected_ms", "counted",
)  # fmt: skip
"""columns of `states`, in the order of `state_rows`"""
_STATE: Final = Struct("!hiqiqiqiiiiiiihihihihihihi")

StateRow = tuple[int, int, int, int, int, int, int, int, int, int, int, int, bytes, str, str, int | None, int | None, bytes | None]


def state_rows(rows: Iterable[StateRow]) -> bytes:
    """For `COPY` into a table with the columns of `STATES`."""
    out = [HEAD]
    add, pack = out.append, _STATE.pack
    for row in rows:
        okey, pos, received, version, facts, count, status, quality, covered, conflict, abnormal, held, heads = row[:13]
        source, node, happened, expected, counted = row[13:]
        fixed = pack(
            18, 8, okey, 8, pos, 8, received, 4, version, 4, facts, 4, count, 2, status, 2, quality, 2, covered, 2, conflict, 2, abnormal,
            2, held, len(heads),
        )  # fmt: skip
        add(fixed + heads + _text(source) + _text(node) + _big(happened) + _big(expected) + _bytes(counted))
    out.append(TAIL)
    return b"".join(out)


def _text(text: str) -> bytes:
    data = text.encode()
    return _LENGTH.pack(len(data)) + data


def _big(number: int | None) -> bytes:
    return _NULL if number is None else _BIG.pack(8, number)


def _bytes(data: bytes | None) -> bytes:
    return _NULL if data is None else _LENGTH.pack(len(data)) + data


def order_rows(rows: Iterable[tuple[int, str, str, str | None, str | None]]) -> bytes:
    """For `COPY` into orders (okey, org, order_id, region, site)."""
    out = [HEAD]
    for okey, *texts in rows:
        out.append(_ORDER.pack(5, 8, okey) + b"".join([_NULL if text is None else _text(text) for text in texts]))
    out.append(TAIL)
    return b"".join(out)
