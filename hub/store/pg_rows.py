"""Rows in the binary format of COPY: each column four bytes of length and its bytes, big-endian, a length of -1 for null. Pure.

Packing a row with one call of `struct` costs a microsecond where a general driver takes ten; a batch has thousands.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from struct import Struct
from typing import Final

from hub.store.pg_values import array

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


_ITEM: Final = Struct("!ii" + 3 * "Iiq" + 3 * "Iii" + 6 * "Iih" + "Ii")
_INT2, _INT4, _INT8, _TEXT, _BYTES = 21, 23, 20, 25, 17
"""the numbers of types: the same in every database"""
_KIND: Final = Struct("!I")


def state_array(kind: int, rows: Iterable[StateRow]) -> bytes:
    """Rows as an array of the type `kind`, which has the columns of `STATES`."""
    return array(kind, [_state_item(*row) for row in rows])


def _state_item(
    okey: int, pos: int, received: int, version: int, facts: int, count: int, status: int, quality: int, covered: int, conflict: int,
    abnormal: int, held: int, heads: bytes, source: str, node: str, happened: int | None, expected: int | None, counted: bytes | None,
) -> bytes:  # fmt: skip
    rest = heads + b"".join([
        _typed(_TEXT, _text(source)), _typed(_TEXT, _text(node)), _typed(_INT8, _big(happened)), _typed(_INT8, _big(expected)),
        _typed(_BYTES, _bytes(counted)),
    ])  # fmt: skip
    return _ITEM.pack(
        _ITEM.size - 4 + len(rest), 18, _INT8, 8, okey, _INT8, 8, pos, _INT8, 8, received, _INT4, 4, version, _INT4, 4, facts,
        _INT4, 4, count, _INT2, 2, status, _INT2, 2, quality, _INT2, 2, covered, _INT2, 2, conflict, _INT2, 2, abnormal, _INT2, 2, held,
        _BYTES, len(heads),
    ) + rest  # fmt: skip


def _typed(kind: int, item: bytes) -> bytes:
    return _KIND.pack(kind) + item


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
