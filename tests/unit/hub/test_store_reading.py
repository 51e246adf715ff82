"""Rows of a batch that are read together say what each says by itself, whatever stands among them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hub.store.port import StoreFact
from hub.store.reading import read_all, read_fact
from protocols.codec import pack, unpack_together
from protocols.event import EXAMPLES, EventDefaults, parse_event
from protocols.fact import continues_row, to_row
from protocols.streams import StreamKey

NOW = 1_795_000_000_000
KEY = StreamKey("dock-7", 5, 0)
ORDER = to_row(parse_event(EXAMPLES[0], defaults=EventDefaults("acme"), now_ms=NOW), NOW, [])


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


ROWS: dict[str, bytes] = {
    "order": pack(ORDER),
    "with a clock": pack([*ORDER, 1]),
    "with a clock that is no number": pack([*ORDER, nested(20)]),
    "with more than is known": pack([*ORDER, 1, None, nested(20)]),
    "a fix": pack([*ORDER, 1, [5, 1, b"12345678"]]),
    "of an unknown status": pack([*ORDER[:4], 99, *ORDER[5:]]),
    "details too deep": pack([*ORDER[:11], {"a": nested(9)}, ORDER[12]]),
    "details with many keys": pack([*ORDER[:11], {f"k{n}": n for n in range(400)}, ORDER[12]]),
    "large": pack([*ORDER[:11], {"a": "x" * 5_000}, ORDER[12]]),
    "bookkeeping": pack(continues_row(3, 9, b"12345678")),
    "no row": pack("text"),
    "two values": pack(1) + pack(2),
    "nothing": b"",
    "a value in a longer form": b"\xcc\x01",
    "cut": pack(ORDER)[:-1],
    "an ext type": b"\xd4\x01\x00",
    "keys that are no text": b"\x81\x01\x02",
}


def facts(names: list[str]) -> list[StoreFact]:
    return [StoreFact(KEY, n, bytes(8), bytes(8), ROWS[name], NOW) for n, name in enumerate(names, 1)]


@given(st.lists(st.sampled_from(sorted(ROWS)), max_size=6))
def test_a_batch_says_what_each_of_its_facts_says(names: list[str]) -> None:
    batch = facts([*names, "order", "with a clock"])
    assert read_all(batch) == [read_fact(fact) for fact in batch]


def test_common_rows_are_read_together() -> None:
    assert unpack_together([ROWS["order"]] * 500) == [ORDER] * 500


def test_two_values_beside_none_are_not_taken_for_two_rows() -> None:
    assert unpack_together([ROWS["two values"], ROWS["nothing"]]) is None


def test_what_was_read_before_and_what_is_in_quarantine_stay_as_they_are() -> None:
    first, second, third = facts(["order", "order", "order"])
    fact = read_fact(first)[0]
    batch = [first, second._replace(quarantined="because"), third._replace(fact=fact)]
    assert read_all(batch) == [(fact, ""), (None, "because"), (fact, "")]
