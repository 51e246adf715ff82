"""Rows that are looked at together are read as each would be by itself; whatever is not plain is left to who looks at each."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import DecodeError
from protocols.event import LAST_MS
from protocols.fact import Clock, FactRow, from_row
from protocols.fact_columns import from_rows

NOW: Final = 1_795_000_000_000


def row(n: int = 0, **changed: Any) -> list[Any]:
    """A plain row; `changed`: elements by `_n`, appended where there is none."""
    made: list[Any] = [1, "acme", f"O-{n}", "WMS", 4, NOW + n, 0, NOW, "EMEA", None, "ana", {"a": "b", "n": n, "t": True, "x": None}, []]
    for name, value in changed.items():
        place = int(name.removeprefix("_"))
        made[place : place + 1] = [value]
    return made


_ODD: Final[list[Any]] = [
    None, True, 0, 1,
    2, -1, 9, 99, 2**63, -(2**63) - 1, LAST_MS, LAST_MS + 1, 1.5, "", " ", " x", "x ", "a\nb", "\x7f", "\ud800", "x" * 128,
    "x" * 129, b"", [], ["x"], [[]], [["dock-7", 5, 1, b"abcd"]], [["dock-8", 5, 1, b"abcd"], ["dock-7", 5, 1, b"abcd"]], {}, {"": "x"},
    {1: "x"}, {"k": "a\nb"}, {"k": "\x00"}, {"k\n": "x"}, {"k": 2**63}, {"k": 1.5}, {"k": []}, {"k": {"l": "m"}}, {"k": "x" * 9_000},
    {f"k{n}": "x" for n in range(65)}, {"quantities": {"picked": 2}}, {"notes": ["x"]}, {"k": b""}, {"k" * 129: 1},
]  # fmt: skip
_CHANGES: Final = st.dictionaries(st.sampled_from([f"_{n}" for n in range(15)]), st.sampled_from(_ODD), max_size=2)
_ROWS: Final = st.lists(st.builds(lambda n, more: row(n, **more), st.integers(0, 9), _CHANGES), min_size=1, max_size=4)


def each(rows: list[Any]) -> list[FactRow] | None:
    """By itself; None where some row is none."""
    try:
        return [from_row(one) for one in rows]
    except DecodeError:
        return None


def same(some: list[FactRow], others: list[FactRow]) -> bool:
    """Equal, and of the same types."""
    return some == others and [list(map(type, one)) for one in some] == [list(map(type, one)) for one in others]


@given(_ROWS)
def test_together_they_are_read_as_each_by_itself(rows: list[Any]) -> None:
    together = from_rows(rows)
    if together is not None:
        alone = each(rows)
        assert alone is not None and same(together, alone)


@pytest.mark.parametrize("place", range(15))
def test_no_odd_element_gets_past(place: int) -> None:
    for odd in _ODD:
        rows = [row(1, **({"_13": 2} if place == 14 else {})), row(2, **({"_13": 2} if place == 14 else {}), **{f"_{place}": odd})]
        together, alone = from_rows(rows), each(rows)
        assert together is None or (alone is not None and same(together, alone)), odd


def test_plain_rows_are_read_together() -> None:
    plain = [row(n) for n in range(5)] + [row(6, _5=None, _6=1), row(7, _6=2), row(8, _11={}), row(9, _8=None, _10=None)]
    facts = from_rows(plain)
    assert facts is not None and same(facts, [from_row(one) for one in plain])
    clocked = [row(n, _13=n) for n in range(5)]
    told = from_rows(clocked)
    assert told is not None and [fact.clock for fact in told] == [Clock.UNSET, Clock.FLOOR, Clock.NTP, Clock.HUB, None]
    seen = from_rows([row(1), row(2, _12=[["dock-7", 5, 1, b"abcd"]])])
    assert seen is not None and seen[1].context


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([], id="none"),
        pytest.param([row(), row(_13=2)], id="two-widths"),
        pytest.param([row(), row(_13=2, _14=[1, 2, bytes(8)])], id="a-fix"),
        pytest.param([row(_11={"quantities": {"picked": 1}})], id="nested"),
        pytest.param([row(_5=None)], id="no-time"),
        pytest.param([row(_6=1)], id="a-time-that-is-unknown"),
        pytest.param([row(), (1, 2)], id="no-list"),
    ],
)
def test_what_is_not_plain_is_left_to_who_looks_at_each(rows: list[Any]) -> None:
    assert from_rows(rows) is None
