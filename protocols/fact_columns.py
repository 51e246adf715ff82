"""Many order events at once: what `protocols.fact.from_row` says of each row, asked of columns.

A frame or a batch holds hundreds of rows of which nearly all are plain, and most of what a column holds is the same few texts. Looked at
together they take a fraction of the time. Whatever is not plain (a nested object in the details, a fix, a row that is to be refused) is
left to `from_row`, which alone knows the reasons. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, Final

from protocols import limits
from protocols.details import INT64_MAX, INT64_MIN, check_text
from protocols.errors import DecodeError, InvalidInput
from protocols.event import LAST_MS, TimeQuality, check_org
from protocols.fact import CLOCKS, ORDER_EVENT, QUALITIES, STATUSES, FactRow, check_context

_PLAIN_ITEMS: Final = 13
"""of a row whose author had nothing to say of its clock"""
_SCALARS: Final[set[type]] = {str, int, bool, type(None)}
_MAYBE_TEXT: Final[set[type]] = {str, type(None)}
_MAYBE_NUMBER: Final[set[type]] = {int, type(None)}
_UNKNOWN: Final = int(TimeQuality.UNKNOWN)
_ITEM_BYTES: Final = 18
"""that a key and its value take beside their characters, at most"""
_UTF8_MOST: Final = 4
_first: Final = itemgetter(0)
_make: Final = partial(tuple.__new__, FactRow)

Columns = Sequence[Sequence[Any]]


def from_rows(rows: Sequence[Any]) -> list[FactRow] | None:
    """The order events in these rows, as `from_row` reads each: none of them is a fix, and no details hold lists or objects. None: some row
    has to be looked at by itself."""
    if not rows or set(map(type, rows)) != {list}:
        return None
    widths = set(map(len, rows))
    if widths not in ({_PLAIN_ITEMS}, {_PLAIN_ITEMS + 1}):
        return None
    columns = list(zip(*rows, strict=True))
    try:
        if not (_numbers_fit(columns) and _texts_fit(columns) and _details_fit(columns[11])):
            return None
        for context in columns[12] if columns[12].count([]) != len(rows) else ():
            check_context(context)
    except (DecodeError, InvalidInput):
        return None
    clocks = map(CLOCKS.get, columns[13]) if len(columns) > _PLAIN_ITEMS else repeat(None)
    return list(map(_make, zip(
        *columns[1:4], map(STATUSES.__getitem__, columns[4]), columns[5], map(QUALITIES.__getitem__, columns[6]), *columns[8:12],
        columns[7], columns[12], repeat(()), clocks, repeat(None),
    )))  # fmt: skip


def _types(column: Sequence[Any]) -> set[type]:
    return set(map(type, column))


def _numbers_fit(columns: Columns) -> bool:
    """Kind, status, quality and the two times; and what is said of the clock."""
    if not all(_types(columns[n]) == {int} for n in (0, 4, 6, 7)) or columns[0].count(ORDER_EVENT) != len(columns[0]):
        return False
    if len(columns) > _PLAIN_ITEMS and not _types(columns[13]) <= _MAYBE_NUMBER:
        return False
    known = set(columns[4]) <= STATUSES.keys() and set(columns[6]) <= QUALITIES.keys()
    return known and _times_fit(columns[7]) and _happened_fit(columns[5], columns[6])


def _happened_fit(happened: Sequence[Any], qualities: Sequence[int]) -> bool:
    """There is a time exactly where it is not said to be unknown."""
    if TimeQuality.UNKNOWN not in qualities:
        return _types(happened) == {int} and _times_fit(happened)
    if not _types(happened) <= _MAYBE_NUMBER or [at is None for at in happened] != [quality == _UNKNOWN for quality in qualities]:
        return False
    return _times_fit([at for at in happened if at is not None] or (0,))


def _times_fit(times_ms: Sequence[int]) -> bool:
    return min(times_ms) >= 0 and max(times_ms) <= LAST_MS


def _texts_fit(columns: Columns) -> bool:
    """Names: the order's own are many, of the others each is looked at once. Errors: InvalidInput, for one that is not taken."""
    orgs, order_ids, sources, places = columns[1], columns[2], columns[3], (columns[8], columns[9], columns[10])
    if not all(_types(column) == {str} for column in (orgs, order_ids, sources)) or not all(_types(one) <= _MAYBE_TEXT for one in places):
        return False
    if not _printable(order_ids, limits.ORDER_ID_CHARS) or " " in set(map(_first, order_ids)):
        return False
    for org in dict.fromkeys(orgs):
        check_org(org)
    for text in dict.fromkeys(chain(sources, *places)):
        if text is not None:
            check_text(text, "text", "", limits.TEXT_CHARS)
    return True


def _details_fit(details: Sequence[Any]) -> bool:
    """Objects of plain values, each far from the bound of its bytes."""
    if _types(details) != {dict}:
        return False
    most = max(map(len, details))
    if not most:
        return True
    keys, values = dict.fromkeys(chain.from_iterable(details)), list(chain.from_iterable(map(dict.values, details)))
    if most > limits.DETAILS_KEYS or _types(list(keys)) != {str} or not _printable(list(keys), limits.TEXT_CHARS):
        return False
    types = _types(values)
    if not types <= _SCALARS:
        return False
    texts = values if types == {str} else [value for value in values if type(value) is str]
    numbers = [value for value in values if type(value) is int] if int in types else ()
    if numbers and not INT64_MIN <= min(numbers) <= max(numbers) <= INT64_MAX:
        return False
    longest = max(map(len, keys)) + max(map(len, texts), default=0)
    return most * (_UTF8_MOST * longest + _ITEM_BYTES) <= limits.DETAILS_BYTES and "".join(texts).isprintable()


def _printable(texts: Sequence[str], most_chars: int) -> bool:
    """All are texts of 1 to so many printable characters."""
    return all(texts) and max(map(len, texts)) <= most_chars and "".join(texts).isprintable()
