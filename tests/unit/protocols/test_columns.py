"""Columns: each form is chosen where it is the shortest, comes back exactly, and cannot be made to grow."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import columns, limits
from protocols.columns import Reader, Writer
from protocols.errors import DecodeError
from protocols.figures import read_numbers, write_numbers

DAY_MS = 86_400_000


def reader_of(writer: Writer) -> Reader:
    signs, figures = write_numbers(writer.signs, writer.figures)
    return Reader(writer.texts, *read_numbers(signs.encode(), figures), writer.extras)


def numbers_form(column: list[int], reference: list[int] | None = None) -> int:
    """The form the column was written in, once it has come back."""
    writer = Writer()
    writer.numbers(column, reference)
    reader = reader_of(writer)
    assert reader.numbers(len(column), reference) == column
    reader.close()
    return writer.signs[0] // 2


def strings_form(column: list[str | None], times_ms: list[int] | None = None) -> int:
    """The form the column was written in, once it has come back."""
    writer = Writer()
    writer.strings(column, times_ms)
    reader = reader_of(writer)
    assert reader.strings(len(column), times_ms) == column
    reader.close()
    return writer.signs[0]


@pytest.mark.parametrize(
    ("column", "form"),
    [
        ([7] * 9, columns.NUMBER_EQUAL),
        ([3, 1, 4, 1, 5, 9, 2, 6], columns.NUMBER_PLAIN),
        ([100_001, 100_003, 100_004, 100_008], columns.NUMBER_STEPS),
        ([3_000, 1_000, 4_000, 1_000], columns.NUMBER_PLAIN_SCALED),
        ([5 * DAY_MS + 7, 6 * DAY_MS + 7, 9 * DAY_MS + 7, 8 * DAY_MS + 7, 10 * DAY_MS + 7], columns.NUMBER_STEPS_SCALED),
    ],
)
def test_numbers_take_the_shortest_form(column: list[int], form: int) -> None:
    assert numbers_form(column) == form


def test_numbers_follow_a_reference_that_they_stay_close_to() -> None:
    reference = [5_000_000, 17, 900_000, 4, 123_456_789]
    assert numbers_form([at + 3 for at in reference], reference) == columns.NUMBER_OFFSET
    assert numbers_form([at + 3 + n % 2 for n, at in enumerate(reference)], reference) == columns.NUMBER_RELATIVE
    assert numbers_form([at + 7 + n * 60 for n, at in enumerate(reference)], reference) == columns.NUMBER_RELATIVE
    assert numbers_form([3, 1, 4, 1, 5], reference) == columns.NUMBER_PLAIN


@pytest.mark.parametrize(
    ("column", "form"),
    [
        ([None, None], columns.TEXT_ABSENT),
        (["a", "a"], columns.TEXT_EQUAL),
        (["a", "b", "a"], columns.TEXT_TABLE),
        (["a", None, "a"], columns.TEXT_TABLE_ABSENT),
        (["2026-01-01", "2026-01-03"], columns.TEXT_DATE),
        (["2026-01-01T10:00:00Z", "2026-01-03T10:00:00Z"], columns.TEXT_SECOND),
        (["2026-01-01T10:00:00.001Z", "2026-01-03T10:00:00.000Z"], columns.TEXT_MILLI),
        (["SO-1-L5", "SO-2-L7", "SO-10-L1"], columns.TEXT_NUMBERED),
        (["13", "13.5", "7.25", "8"], columns.TEXT_NUMBERED),
        (["007", "008", "9"], columns.TEXT_NUMBERED),
        (["a\n1", "a\n2", "a\n3"], columns.TEXT_OTHER),
        (["#1", "#2", "#3"], columns.TEXT_TABLE),
        (["2026-02-29", "2026-02-28", "2026-02-27"], columns.TEXT_NUMBERED),
        (["2026-01-01", "2026-01-01T10:00:00Z", "x"], columns.TEXT_TABLE),
    ],
)
def test_texts_take_the_form_that_fits(column: list[str | None], form: int) -> None:
    assert strings_form(column) == form


def test_times_follow_the_time_of_their_row() -> None:
    happened = [0, 100 * DAY_MS, 3 * DAY_MS]
    writer = Writer()
    writer.strings(["1970-01-08", "1970-04-18", "1970-01-11"], happened)
    assert writer.signs == [columns.TEXT_DATE, columns.NUMBER_OFFSET * 2]
    assert writer.figures == [7]


@given(st.lists(st.integers(-(2**63), 2**64 - 1) | st.integers(-99, 99), min_size=1, max_size=60), st.data())
def test_any_numbers_come_back(column: list[int], data: st.DataObject) -> None:
    reference = data.draw(st.none() | st.lists(st.integers(-(2**63), 2**64), min_size=len(column), max_size=len(column)))
    numbers_form(column, reference)


@given(st.lists(st.none() | st.text(max_size=8) | st.from_regex(r"[A#]?[0-9]{1,4}[-.]?[0-9]?", fullmatch=True), min_size=1, max_size=30))
def test_any_texts_come_back(column: list[str | None]) -> None:
    strings_form(column)


@given(st.lists(st.integers(-(2**65), 2**65)), st.lists(st.integers(-(2**65), 2**65)))
def test_signs_and_figures_come_back(signs: list[int], figures: list[int]) -> None:
    small, large = write_numbers(signs, figures)
    assert read_numbers(small.encode(), large) == (signs, figures)


def test_a_sign_is_one_character_and_a_figure_has_its_first_digit_marked() -> None:
    assert write_numbers([0, -32, 62], [12, 0, -7, 305]) == ("@ ~", ";2:K=05")
    assert write_numbers([63, 1, -33], [5]) == ("\x7fA\x7f", "@3G3?")


@pytest.mark.parametrize(("signs", "figures"), [(b"\x1f", ""), (b"\x80", ""), (b"", "N"), (b"", " "), (b"", ":" + "0" * 21), (b"\x7f", "")])
def test_characters_that_are_no_numbers_are_refused(signs: bytes, figures: str) -> None:
    with pytest.raises(DecodeError):
        read_numbers(signs, figures)


def reading(texts: list[str], signs: list[int], figures: list[int], extras: list[Any] | None = None) -> Reader:
    return Reader(texts, signs, figures, extras or [])


@pytest.mark.parametrize(
    ("texts", "signs", "figures"),
    [
        ([], [], []),
        ([], [columns.TEXT_EQUAL], []),
        (["a"], [columns.TEXT_TABLE, 1, 0, 1], []),
        (["a"], [columns.TEXT_TABLE, 1, 0, -1], []),
        (["a"], [columns.TEXT_TABLE, -1, 0, 0], []),
        (["a"], [columns.TEXT_TABLE, 2**70, 0, 0], []),
        (["a"], [columns.TEXT_TABLE, 1, 0], []),
        ([], [columns.TEXT_TABLE, 0, 0, 0], []),
        ([], [columns.TEXT_SECOND, 0], []),
        ([], [columns.TEXT_SECOND, 0], [2**63]),
        ([], [columns.TEXT_DATE, columns.NUMBER_OFFSET * 2], [5]),
        (["#"], [columns.TEXT_NUMBERED, 1, columns.NUMBER_PLAIN * 2, 5], []),
        ([], [columns.TEXT_OTHER], []),
        ([], [9], []),
        ([], [-1], []),
    ],
)
def test_streams_that_hold_something_else_are_refused(texts: list[str], signs: list[int], figures: list[int]) -> None:
    with pytest.raises(DecodeError):
        reading(texts, signs, figures).strings(2)


@pytest.mark.parametrize("extras", [[1], [["a"]], [["a", 1]], [["a", ["b"]]]])
def test_extras_that_are_no_texts_are_refused(extras: list[Any]) -> None:
    with pytest.raises(DecodeError):
        reading([], [columns.TEXT_OTHER], [], extras).strings(2)


def test_a_long_pattern_cannot_grow_beyond_a_frame() -> None:
    pattern = "x" * (limits.FRAME_UNPACKED_BYTES // 1_000 - 1) + "#"
    signs = [columns.TEXT_NUMBERED, 1, columns.NUMBER_EQUAL * 2]
    assert len(reading([pattern], signs, [5]).strings(1_000)) == 1_000
    with pytest.raises(DecodeError, match="grows beyond"):
        reading(["x" + pattern], signs, [5]).strings(1_000)


def test_what_is_left_over_is_refused() -> None:
    with pytest.raises(DecodeError, match="left over"):
        reading([], [1], []).close()
