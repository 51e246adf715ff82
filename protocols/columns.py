"""Columns of numbers and texts, small and quick: what the body of a frame is made of.

A body is three streams that are read front to back: `texts` (lines), `signs` (small numbers: which form a column has, indices into
tables, short steps) and `figures` (all other numbers: times, amounts, counters). Small and large numbers differ so much in their digits
that Huffman codes of their own pay for themselves; a `Writer` fills the streams, a `Reader` empties them.

`protocols.figures` says how the numbers are written.

    numbers   0 all equal · 1 as they are · 2 differences · 3 as 1, scaled · 4 as 2, scaled · 5 relative, scaled · 6 relative, all equal
              The code written is twice the form, plus one where the column's numbers are in `figures` instead of `signs`.
              Scaled by (g, r): each value is g times the number, plus r. Relative: the value minus the row's reference.
    texts     0 all absent · 1 all equal · 2 table and indices · 3 as 2, the last index means absent · 4 dates · 5 seconds · 6 milliseconds
              7 numbered: a table of patterns (`SCMS-#-L#`), which one each text has, then per pattern and place a column of numbers
              8 other: the values themselves stand among the extras
"""

from __future__ import annotations

import datetime
import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from operator import sub
from typing import Any, Final

from protocols import limits
from protocols.errors import DecodeError
from protocols.figures import SIGN_LEAST, SIGN_MOST

NUMBER_EQUAL, NUMBER_PLAIN, NUMBER_STEPS, NUMBER_PLAIN_SCALED, NUMBER_STEPS_SCALED, NUMBER_RELATIVE, NUMBER_OFFSET = range(7)
TEXT_ABSENT, TEXT_EQUAL, TEXT_TABLE, TEXT_TABLE_ABSENT, TEXT_DATE, TEXT_SECOND, TEXT_MILLI, TEXT_NUMBERED, TEXT_OTHER = range(9)

LINE: Final = "\n"
MARK: Final = "#"
"""stands for a number in a pattern"""
UNIT_MS: Final = {TEXT_DATE: 86_400_000, TEXT_SECOND: 1_000, TEXT_MILLI: 1}

_NUMBER: Final = re.compile("(0|[1-9][0-9]{0,17})")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{3})?Z)?")
_TIME_FORMS: Final = {10: TEXT_DATE, 20: TEXT_SECOND, 24: TEXT_MILLI}
_EPOCH: Final = datetime.datetime(1970, 1, 1)  # noqa: DTZ001  texts without an offset against a moment without one: only their distance counts
_MILLISECOND: Final = datetime.timedelta(milliseconds=1)


class Writer:
    """The three streams of a body being written, and the `extras` that fit none of them."""

    __slots__ = ("extras", "figures", "signs", "texts")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.signs: list[int] = []
        self.figures: list[int] = []
        self.extras: list[Any] = []

    def numbers(self, column: Sequence[int], reference: Sequence[int] | None = None) -> None:
        """Write a column of whole numbers in the form with the fewest bits. `reference`: a number for each row it may follow closely."""
        if not column:
            return
        if column.count(column[0]) == len(column):
            self.signs.append(NUMBER_EQUAL * 2)
            self.figures.append(column[0])
            return
        steps: Sequence[int] = list(map(sub, column[1:], column))
        scale, plain = math.gcd(*steps), column
        if scale > 1:
            plain, steps = [value // scale for value in column], [step // scale for step in steps]
        plain_bits = _bits(plain)
        steps_bits = _bits(steps) + plain[0].bit_length()
        if reference and self._relative(column, reference, min(plain_bits, steps_bits)):
            return
        stepwise = steps_bits < plain_bits * 0.9  # steps come with minus signs
        form = (NUMBER_STEPS if stepwise else NUMBER_PLAIN) + (2 if scale > 1 else 0)
        self._payload(form, (scale, column[0] % scale) if scale > 1 else (), plain[:1] if stepwise else (), steps if stepwise else plain)

    def _relative(self, column: Sequence[int], reference: Sequence[int], best_bits: int) -> bool:
        """Write the column as distances from the reference, if that takes fewer than `best_bits`."""
        apart = list(map(sub, column, reference))
        scale = math.gcd(*map(sub, apart[1:], apart))
        if scale == 0:
            self.signs.append(NUMBER_OFFSET * 2)
            self.figures.append(apart[0])
            return True
        scaled = [value // scale for value in apart] if scale > 1 else apart
        if _bits(scaled) >= best_bits:
            return False
        self._payload(NUMBER_RELATIVE, (scale, apart[0] % scale), (), scaled)
        return True

    def _payload(self, form: int, scale: tuple[int, ...], first: Sequence[int], numbers: Sequence[int]) -> None:
        wide = _bits(numbers) > 3 * len(numbers) or min(numbers) < SIGN_LEAST or max(numbers) > SIGN_MOST
        self.signs.append(form * 2 + wide)
        self.figures += scale
        self.figures += first
        if wide:
            self.figures += numbers
        else:
            self.signs += numbers

    def strings(self, column: Sequence[str | None], times_ms: Sequence[int] | None = None) -> None:
        """Write a column of texts, some of them perhaps absent. `times_ms`: for each row a time that texts with a time may follow."""
        if not column:
            return
        first = column[0]
        if column.count(first) == len(column) and (first is None or first.isprintable()):
            self.signs.append(TEXT_ABSENT if first is None else TEXT_EQUAL)
            self.texts += () if first is None else (first,)
            return
        distinct = dict.fromkeys(column)
        absent = None in distinct
        distinct.pop(None, None)
        words: list[str] = list(distinct)  # type: ignore[arg-type]
        if not "".join(words).isprintable():
            self.signs.append(TEXT_OTHER)
            self.extras.append(list(column))
        elif absent or not (self._times(column, words, times_ms) or self._numbered(column, words)):
            self._table(column, words, absent)

    def _table(self, column: Sequence[str | None], words: list[str], absent: bool) -> None:
        places: dict[str | None, int] = {word: place for place, word in enumerate(words)}
        places[None] = len(words)
        self.signs += (TEXT_TABLE_ABSENT if absent else TEXT_TABLE, len(words))
        self.signs += map(places.__getitem__, column)
        self.texts += words

    def _times(self, column: Sequence[Any], words: list[str], times_ms: Sequence[int] | None) -> bool:
        """Write the column as times, if all are canonical times of one precision."""
        size = len(words[0])
        if size not in _TIME_FORMS or not _TIME.fullmatch(words[0]):
            return False
        moments = {word: _time(word) for word in words}
        if any(len(word) != size or moment is None for word, moment in moments.items()):
            return False
        form = _TIME_FORMS[size]
        self.signs.append(form)
        reference = [at_ms // UNIT_MS[form] for at_ms in times_ms] if times_ms else None
        self.numbers([moments[word] for word in column], reference)  # type: ignore[misc]
        return True

    def _numbered(self, column: Sequence[Any], words: list[str]) -> bool:
        """Write the column as patterns and their numbers, if the words are many, the patterns few, and the way back is exact."""
        if len(words) * 3 <= len(column):
            return False
        joined = LINE.join(column)
        if MARK in joined:
            return False
        between, found = (parts := _NUMBER.split(joined))[0::2], parts[1::2]
        patterns = MARK.join(between).split(LINE)
        table = list(dict.fromkeys(patterns))
        if not found or len(table) * 3 > len(words) * 2:
            return False
        self.signs += (TEXT_NUMBERED, len(table))
        self.texts += table
        self._places(table, patterns, list(map(int, found)))
        return True

    def _places(self, table: list[str], patterns: list[str], figures: list[int]) -> None:
        """The index of each row's pattern, then for each pattern a column per place."""
        if len(table) == 1:
            found = [figures]
        else:
            places = {pattern: place for place, pattern in enumerate(table)}
            indices = [places[pattern] for pattern in patterns]
            self.signs += indices
            found = _parted(indices, [pattern.count(MARK) for pattern in table], figures)
        for pattern, numbers in zip(table, found, strict=True):
            width = pattern.count(MARK)
            for place in range(width):
                self.numbers(numbers[place::width])


def _parted(indices: list[int], widths: list[int], figures: list[int]) -> list[list[int]]:
    """The figures, row after row, dealt out to the patterns they belong to."""
    found: list[list[int]] = [[] for _ in widths]
    at = 0
    for index in indices:
        end = at + widths[index]
        found[index] += figures[at:end]
        at = end
    return found


class Reader:
    """Reads back what a `Writer` wrote. Every method raises `DecodeError` where the streams do not hold what they should.

    `room_bytes` bounds what repeated texts may grow to: a column of a thousand rows can be a dozen bytes.
    """

    __slots__ = ("_extras", "_figures", "_signs", "_texts", "room_bytes")

    def __init__(self, texts: list[str], signs: list[int], figures: list[int], extras: list[Any]) -> None:
        self._texts = Stream(texts)
        self._signs = Stream(signs)
        self._figures = Stream(figures)
        self._extras = Stream(extras)
        self.room_bytes = limits.FRAME_UNPACKED_BYTES

    def sign(self, most: int) -> int:
        """One small number from 0 to `most`."""
        value: int = self._signs.one()
        if not 0 <= value <= most:
            raise DecodeError(f"the body has {value} where at most {most} can stand")
        return value

    def indices(self, count: int, length: int) -> list[int]:
        """`count` indices into a table of `length`."""
        found = self._signs.take(count)
        if found and not 0 <= min(found) <= max(found) < length:
            raise DecodeError("the body has an index beyond its table")
        return found

    def words(self, count: int) -> list[str]:
        """The next `count` texts."""
        return self._texts.take(count)

    def figures(self, count: int) -> list[int]:
        """The next `count` large numbers."""
        return self._figures.take(count)

    def extra(self, count: int) -> list[Any]:
        """The next extra, which must be a list of `count`."""
        found = self._extras.one()
        if not isinstance(found, list) or len(found) != count:
            raise DecodeError("the body's extras do not fit its rows")
        return found

    def spend(self, size_bytes: int) -> None:
        """Raise once everything spent exceeds the room."""
        self.room_bytes -= size_bytes
        if self.room_bytes < 0:
            raise DecodeError(f"the body grows beyond {limits.FRAME_UNPACKED_BYTES} bytes")

    def close(self) -> None:
        """Nothing may be left over."""
        if not all(stream.is_empty() for stream in (self._texts, self._signs, self._figures, self._extras)):
            raise DecodeError("the body has something left over")

    def numbers(self, count: int, reference: Sequence[int] | None = None) -> list[int]:
        """A column of `count` numbers, written with the same reference."""
        if not count:
            return []
        form, wide = divmod(self.sign(NUMBER_OFFSET * 2 + 1), 2)
        if form in (NUMBER_EQUAL, NUMBER_OFFSET):
            value = self._figures.one()
            return [value] * count if form == NUMBER_EQUAL else [value + base for base in _needed(reference)]
        scale, rest = self._figures.take(2) if form >= NUMBER_PLAIN_SCALED else (1, 0)
        stepwise = form in (NUMBER_STEPS, NUMBER_STEPS_SCALED)
        first = self._figures.take(1) if stepwise else []
        payload = (self._figures if wide else self._signs).take(count - len(first))
        numbers = list(accumulate(first + payload)) if stepwise else payload
        if form == NUMBER_RELATIVE:
            return [number * scale + rest + base for number, base in zip(numbers, _needed(reference), strict=True)]
        return [number * scale + rest for number in numbers] if form >= NUMBER_PLAIN_SCALED else numbers

    def strings(self, count: int, times_ms: Sequence[int] | None = None) -> list[Any]:
        """A column of `count` texts or absences, written with the same times."""
        if not count:
            return []
        form = self.sign(TEXT_OTHER)
        if form == TEXT_ABSENT:
            return [None] * count
        if form == TEXT_EQUAL:
            return self.words(1) * count
        if form in (TEXT_TABLE, TEXT_TABLE_ABSENT):
            return self._table(count, form == TEXT_TABLE_ABSENT)
        if form == TEXT_NUMBERED:
            return self._numbered(count)
        if form == TEXT_OTHER:
            return self._other(count)
        reference = [at_ms // UNIT_MS[form] for at_ms in times_ms] if times_ms else None
        return [_time_text(form, moment) for moment in self.numbers(count, reference)]

    def _table(self, count: int, absent: bool) -> list[Any]:
        words: list[Any] = self.words(self._signs.one())
        if absent:
            words.append(None)
        return [words[index] for index in self.indices(count, len(words))]

    def _other(self, count: int) -> list[Any]:
        values = self.extra(count)
        if not all(value is None or type(value) is str for value in values):
            raise DecodeError("the body has something else where a text should stand")
        return values

    def _numbered(self, count: int) -> list[str]:
        table = self.words(self._signs.one())
        if len(table) == 1:
            return self._filled(table[0], count)
        indices = self.indices(count, len(table))
        uses = Counter(indices)
        filled = [iter(self._filled(pattern, uses[place])) for place, pattern in enumerate(table)]
        return [next(filled[index]) for index in indices]

    def _filled(self, pattern: str, count: int) -> list[str]:
        """`count` texts of the pattern, with the numbers of its places."""
        self.spend(len(pattern) * count)
        width = pattern.count(MARK)
        if not width:
            return [pattern] * count
        columns = [self.numbers(count) for _ in range(width)]
        form = pattern.replace("%", "%%").replace(MARK, "%d")
        return [form % row for row in zip(*columns, strict=True)]


class Stream:
    """A list that is read front to back."""

    __slots__ = ("_at", "_items")

    def __init__(self, items: list[Any]) -> None:
        self._items = items
        self._at = 0

    def one(self) -> Any:
        """The next item."""
        if self._at >= len(self._items):
            raise DecodeError("the body ends early")
        self._at += 1
        return self._items[self._at - 1]

    def take(self, count: int) -> list[Any]:
        """The next `count` items."""
        end = self._at + count
        if not self._at <= end <= len(self._items):
            raise DecodeError("the body ends early")
        found = self._items[self._at : end]
        self._at = end
        return found

    def is_empty(self) -> bool:
        """Everything was read."""
        return self._at == len(self._items)


def _needed(reference: Sequence[int] | None) -> Sequence[int]:
    if reference is None:
        raise DecodeError("the body has a relative column that nothing is relative to")
    return reference


def _bits(numbers: Sequence[int]) -> int:
    """Roughly how many bits the numbers need, in units of one stride: of many, every fourth is looked at."""
    if len(numbers) > 40:
        return sum(map(int.bit_length, numbers[::4])) * 4
    return sum(map(int.bit_length, numbers))


@lru_cache(maxsize=4_096)
def _time(text: str) -> int | None:
    """The moment in its own unit (days, seconds or ms since 1970), if writing it again gives the same text."""
    if not _TIME.fullmatch(text):
        return None
    try:
        since = datetime.datetime.fromisoformat(text.removesuffix("Z")) - _EPOCH
    except ValueError:
        return None
    form = _TIME_FORMS[len(text)]
    moment = since // _MILLISECOND // UNIT_MS[form]
    return moment if _time_text(form, moment) == text else None


@lru_cache(maxsize=4_096)
def _time_text(form: int, moment: int) -> str:
    try:
        at = _EPOCH + datetime.timedelta(milliseconds=moment * UNIT_MS[form])
    except OverflowError as error:
        raise DecodeError("the body has a time beyond the calendar") from error
    if form == TEXT_DATE:
        return at.date().isoformat()
    return at.isoformat(timespec="seconds" if form == TEXT_SECOND else "milliseconds") + "Z"
