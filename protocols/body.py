"""The body of a frame before compression: rows of facts to columns and back, exactly.

    body = texts RS signs RS figures [RS extras]       RS = the record separator, 0x1e; extras = msgpack array

`protocols.columns` describes the three streams and the forms a column can take, `protocols.figures` what numbers look like.
A frame of order events is written as

    groups      rows with the same (status, quality, has a time, keys of details in their order): how many groups there are, the distinct
                keys, per group its members, then for each row of the frame its group. One beyond the last group: a row as it is.
    recorded    a column of numbers, one per order event, in the order of the frame
    the rest    in the order of the groups: happened (of those that have it), org, source, region, site, actor, order id, context; then a
                column per key of details: its kind (0 numbers, 1 texts, 2 other, as an extra), and the values of all rows that have it
    as it is    the bytes of the rows that are no order events of version 1, as the last extra

Columns of like things lie side by side where the frame's rows alternate between two or three shapes; a key that only some rows have
costs the others nothing. Where both ends know *clocks* (version 2), a row may have a 14th element from 0 to 3, and its group's quality
stands for both: quality + 8 * (clock + 1).

Whatever does not fit exactly travels as it is: unknown kinds, elements of a later version, odd types, texts
with control characters. Nothing here interprets an event: what a row may say is decided where facts are read (`protocols.fact`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, islice, repeat
from typing import Any, Final

from protocols import limits
from protocols.columns import LINE, Reader, Writer
from protocols.errors import DecodeError
from protocols.figures import read_numbers, write_numbers
from protocols.plain import is_plain

Row = list[Any]

RS: Final = "\x1e"

_ORG, _ORDER_ID, _SOURCE, _STATUS, _HAPPENED, _QUALITY, _RECORDED, _REGION, _SITE, _ACTOR, _DETAILS, _CONTEXT = range(1, 13)
_WIDTH: Final = 13
_CLOCKS: Final = range(4)
_QUALITIES: Final = 8
"""what a group's quality is below where it says nothing of a clock"""
_TEXTS: Final = (_ORG, _SOURCE, _REGION, _SITE, _ACTOR, _ORDER_ID)
_MAYBE: Final[set[type]] = {str, type(None)}
_TYPES: Final[dict[int, set[type]]] = {
    0: {int},
    _ORG: {str},
    _ORDER_ID: {str},
    _SOURCE: {str},
    _STATUS: {int},
    _HAPPENED: {int, type(None)},
    _QUALITY: {int},
    _RECORDED: {int},
    _REGION: _MAYBE,
    _SITE: _MAYBE,
    _ACTOR: _MAYBE,
    _DETAILS: {dict},
    _CONTEXT: {list},
}
_NUMBERS, _STRINGS, _OTHER = range(3)
_CODE_MOST: Final = 2**64 - 1
_ENTRY_LEAST_BYTES: Final = 9
"""of a context's entry in a packed row"""


# ------------------------------------------------------------------ out


def write_rows(
    rows: Sequence[bytes], values: Sequence[Row | None], *, clocks: bool = False, fit: bool = False
) -> tuple[str, str, str, list[Any]]:
    """(texts, signs, figures, extras) of a body. `values` has for each row what it holds, or None for a row that must travel as it is.

    `clocks`: who reads it knows of the clocks of version 2. `fit`: each of the values is known to be an order event to the letter (`fits`).
    """
    writer = Writer()
    events = list(values) if fit else _events(values, clocks)
    groups, places = _grouped(events)
    _write_groups(writer, groups, places)
    if groups:
        writer.numbers([event[_RECORDED] for event in events if event is not None])
        _write_columns(writer, groups)
    if None in events:
        writer.extras.append([row for row, event in zip(rows, events, strict=True) if event is None])
    return LINE.join((*writer.texts, "")), *write_numbers(writer.signs, writer.figures), writer.extras


def fits(row: Row, clocks: bool) -> bool:
    """Is this row an order event to the letter, that columns can hold?"""
    return _fits([row], clocks)


def _events(values: Sequence[Row | None], clocks: bool) -> list[Row | None]:
    """The rows that are order events to the letter, None for the others."""
    rows = [row for row in values if row is not None]
    if len(rows) == len(values) and _fits(rows, clocks):
        return rows  # type: ignore[return-value]
    return [row if row is not None and _fits([row], clocks) else None for row in values]


def _fits(rows: list[Row], clocks: bool) -> bool:
    """Columns can hold all of these rows exactly. Looks at columns, not rows: a frame of good rows takes a tenth of the time."""
    widths = set(map(len, rows))
    if widths != {_WIDTH} and not (clocks and widths == {_WIDTH + 1}):
        return False
    columns = list(zip(*rows, strict=True))
    if clocks and max(map(_small_code, columns[_QUALITY])) >= _QUALITIES:
        return False
    if len(columns) > _WIDTH and not all(type(clock) is int and clock in _CLOCKS for clock in columns[_WIDTH]):
        return False
    if not all(set(map(type, columns[place])) <= types for place, types in _TYPES.items()):
        return False
    if columns[0].count(1) != len(rows) or min(columns[_STATUS]) < 0 or min(columns[_QUALITY]) < 0:
        return False
    return _details_fit(columns[_DETAILS]) and _contexts_fit(columns[_CONTEXT])


def _small_code(value: object) -> int:
    return value if type(value) is int else _QUALITIES


def _details_fit(details: Sequence[dict[Any, Any]]) -> bool:
    keys = dict.fromkeys(chain.from_iterable(details))
    if not set(map(type, keys)) <= {str} or not "".join(keys).isprintable() or max(map(len, details)) > limits.DETAILS_KEYS:
        return False
    kinds = set(map(type, chain.from_iterable(map(dict.values, details))))
    return kinds.isdisjoint((list, dict)) or all(
        is_plain(value, limits.NESTING) for value in chain.from_iterable(map(dict.values, details))
    )


def _contexts_fit(contexts: Sequence[list[Any]]) -> bool:
    entries = list(chain.from_iterable(contexts))
    return not entries or (max(map(len, contexts)) <= limits.CONTEXT_ENTRIES and all(map(_entry_fits, entries)))


def _entry_fits(entry: object) -> bool:
    if type(entry) is not list or len(entry) != 4:
        return False
    node, epoch, seq, h = entry
    return type(node) is str and type(epoch) is int and type(seq) is int and type(h) is bytes and len(h) == 4


Groups = dict[tuple[Any, ...], list[Row]]
"""(status, quality, has a time, *keys of details) → its rows"""


def _grouped(events: list[Row | None]) -> tuple[Groups, list[int]]:
    """The groups, and the place of each event's group; -1 for what is no event."""
    groups: dict[tuple[Any, ...], tuple[int, list[Row]]] = {}
    places = []
    for event in events:
        if event is None:
            places.append(-1)
            continue
        quality = event[_QUALITY]
        if len(event) > _WIDTH:
            quality, event = quality + _QUALITIES * (event[_WIDTH] + 1), event[:_WIDTH]
        key = (event[_STATUS], quality, event[_HAPPENED] is not None, *event[_DETAILS])
        found = groups.get(key)
        if found is None:
            found = groups[key] = (len(groups), [])
        found[1].append(event)
        places.append(found[0])
    return {key: rows for key, (_, rows) in groups.items()}, places


def _write_groups(writer: Writer, groups: Groups, places: list[int]) -> None:
    keys = _keys(groups)
    numbers = {key: number for number, key in enumerate(keys)}
    writer.texts += keys
    writer.signs += (len(groups), len(keys))
    for status, quality, timed, *names in groups:
        writer.signs += (status, quality, int(timed), len(names))
        writer.signs += map(numbers.__getitem__, names)
    writer.signs += places if -1 not in places else (place if place >= 0 else len(groups) for place in places)


def _keys(groups: Groups) -> list[str]:
    return list(dict.fromkeys(chain.from_iterable(group[3:] for group in groups)))


def _write_columns(writer: Writer, groups: Groups) -> None:
    columns = list(zip(*chain.from_iterable(groups.values()), strict=True))
    happened = columns[_HAPPENED]
    writer.numbers([at_ms for at_ms in happened if at_ms is not None])
    for place in _TEXTS:
        writer.strings(columns[place])
    _write_contexts(writer, columns[_CONTEXT])
    times_ms = [at_ms or 0 for at_ms in happened]
    starts = accumulate(map(len, groups.values()), initial=0)
    parts: dict[str, list[tuple[Sequence[Any], int]]] = {}
    for group, rows, start in zip(groups, groups.values(), starts, strict=False):
        for key, values in zip(group[3:], zip(*(row[_DETAILS].values() for row in rows), strict=True), strict=True):
            parts.setdefault(key, []).append((values, start))
    for found in parts.values():
        times = chain.from_iterable(times_ms[start : start + len(values)] for values, start in found)
        _write_values(writer, list(chain.from_iterable(values for values, _ in found)), list(times))


def _write_values(writer: Writer, values: list[Any], times_ms: list[int]) -> None:
    """A column of details: its kind, then its values."""
    types = set(map(type, values))
    if types == {int}:
        writer.signs.append(_NUMBERS)
        writer.numbers(values)
    elif types == {str}:
        writer.signs.append(_STRINGS)
        writer.strings(values, times_ms)
    else:
        writer.signs.append(_OTHER)
        writer.extras.append(values)


def _write_contexts(writer: Writer, contexts: Sequence[list[list[Any]]]) -> None:
    """How many entries each row has; then nodes, epochs, seqs and hashes, entry after entry."""
    writer.numbers(list(map(len, contexts)))
    entries = list(chain.from_iterable(contexts))
    if not entries:
        return
    nodes, epochs, seqs, hashes = zip(*entries, strict=True)
    distinct = list(dict.fromkeys(epochs))
    numbers = {epoch: number for number, epoch in enumerate(distinct)}
    writer.strings(nodes)
    writer.signs.append(len(distinct))
    writer.figures += distinct
    writer.signs += map(numbers.__getitem__, epochs)
    writer.numbers(seqs)
    writer.numbers([int.from_bytes(h, "big") for h in hashes])


# ------------------------------------------------------------------ in


def read_rows(texts: str, signs: bytes, figures: str, extras: list[Any], count: int, *, clocks: bool = False) -> list[Row | bytes]:
    """The `count` rows that `write_rows` wrote: values of an order event, or the bytes of a row that travelled as it is.

    Bounded whatever the arguments hold. Raises only `DecodeError`, or what `protocols.codec` turns into one.
    """
    reader = Reader(texts.split(LINE)[:-1], *read_numbers(signs, figures), extras)
    groups = _read_groups(reader, count, clocks)
    places = reader.indices(count, len(groups) + 1)
    uses = Counter(places)
    for place, group in enumerate(groups):
        group.size = uses[place]
    found: list[Any] = []
    recorded: Iterator[int] = iter(())
    if groups:
        recorded = iter(reader.numbers(count - uses[len(groups)]))
        found = _read_columns(reader, groups)
    found.append(iter(_read_bytes(reader, uses[len(groups)])))
    reader.close()
    rows = []
    for place in places:
        row = next(found[place])
        if place < len(groups):
            row[_RECORDED] = next(recorded)
        rows.append(row)
    return rows


@dataclass(slots=True)
class _Group:
    """A group being read: `columns` collects its part of each column of details, in the order of `keys`."""

    status: int
    quality: int
    timed: int
    keys: list[str]
    clock: int | None = None
    size: int = 0
    columns: dict[str, list[Any]] = field(default_factory=dict)


def _read_groups(reader: Reader, count: int, clocks: bool) -> list[_Group]:
    groups_total, keys_total = reader.sign(count), reader.sign(count * limits.DETAILS_KEYS)
    keys = reader.words(keys_total)
    groups = []
    for _ in range(groups_total):
        status, quality, timed = reader.sign(_CODE_MOST), reader.sign(_CODE_MOST), reader.sign(1)
        numbers = reader.indices(reader.sign(limits.DETAILS_KEYS), keys_total)
        if len(set(numbers)) != len(numbers):
            raise DecodeError("the body names a key of details twice")
        said, quality = divmod(quality, _QUALITIES) if clocks else (0, quality)
        if said > len(_CLOCKS):
            raise DecodeError(f"the body names a clock of kind {said - 1}")
        groups.append(_Group(status, quality, timed, [keys[number] for number in numbers], said - 1 if said else None))
    return groups


def _read_columns(reader: Reader, groups: list[_Group]) -> list[Any]:
    """For each group its rows, without the time they were recorded at."""
    total = sum(group.size for group in groups)
    timed = reader.numbers(sum(group.size for group in groups if group.timed))
    happened: list[int | None] = []
    at = 0
    for group in groups:
        end = at + group.size * group.timed
        happened += timed[at:end] if group.timed else [None] * group.size
        at = end
    texts = {place: reader.strings(total) for place in _TEXTS}
    contexts = _read_contexts(reader, total)
    _read_details(reader, groups, [at_ms or 0 for at_ms in happened])
    heads = zip(texts[_ORG], texts[_ORDER_ID], texts[_SOURCE], happened, texts[_REGION], texts[_SITE], texts[_ACTOR], contexts, strict=True)
    return [iter(_group_rows(group, list(islice(heads, group.size)))) for group in groups]


def _group_rows(group: _Group, heads: list[tuple[Any, ...]]) -> list[Row]:
    status, quality, keys = group.status, group.quality, group.keys
    values: Iterable[tuple[Any, ...]] = zip(*(group.columns[key] for key in keys), strict=True) if keys else repeat((), group.size)
    details = map(dict, map(zip, repeat(keys), values))  # each as long as the keys
    rows = [
        [1, org, order_id, source, status, happened, quality, 0, region, site, actor, said, context]
        for (org, order_id, source, happened, region, site, actor, context), said in zip(heads, details, strict=True)
    ]
    if group.clock is not None:
        for row in rows:
            row.append(group.clock)
    return rows


def _read_details(reader: Reader, groups: list[_Group], times_ms: list[int]) -> None:
    starts = list(accumulate((group.size for group in groups), initial=0))
    for key in dict.fromkeys(chain.from_iterable(group.keys for group in groups)):
        having = [(group, start) for group, start in zip(groups, starts, strict=False) if key in group.keys]
        times = list(chain.from_iterable(times_ms[start : start + group.size] for group, start in having))
        values = iter(_read_values(reader, times))
        for group, _ in having:
            group.columns[key] = list(islice(values, group.size))


def _read_values(reader: Reader, times_ms: list[int]) -> list[Any]:
    kind = reader.sign(_OTHER)
    if kind == _NUMBERS:
        return reader.numbers(len(times_ms))
    return reader.strings(len(times_ms), times_ms) if kind == _STRINGS else reader.extra(len(times_ms))


def _read_contexts(reader: Reader, total: int) -> list[list[list[Any]]]:
    sizes = reader.numbers(total)
    entries_total = sum(sizes)
    if total and not 0 <= min(sizes) <= max(sizes) <= limits.CONTEXT_ENTRIES:
        raise DecodeError("the body has a context of a size that none has")
    reader.spend(entries_total * _ENTRY_LEAST_BYTES)
    if not entries_total:
        return [[] for _ in sizes]
    nodes = reader.strings(entries_total)
    epochs = reader.figures(reader.sign(entries_total))
    epochs = [epochs[index] for index in reader.indices(entries_total, len(epochs))]
    seqs = reader.numbers(entries_total)
    hashes = [h.to_bytes(4, "big") for h in reader.numbers(entries_total)]
    entries = map(list, zip(nodes, epochs, seqs, hashes, strict=True))
    return [list(islice(entries, size)) for size in sizes]


def _read_bytes(reader: Reader, total: int) -> list[bytes]:
    rows = reader.extra(total) if total else []
    if not all(type(row) is bytes for row in rows):
        raise DecodeError("the body has something else where a row should stand")
    return rows
