"""Rows: what goes into the chain, and that nothing else comes out of one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import limits
from protocols.codec import pack, unpack
from protocols.details import check_details, packed_bytes
from protocols.errors import DecodeError
from protocols.event import EXAMPLES, LAST_MS, EventDefaults, OrderEvent, event_json, parse_event
from protocols.fact import CONTINUES, Context, Continues, FactRow, chain, continues_row, from_row, genesis, read_continues, to_row
from protocols.lifecycle import Status
from tests.unit.protocols.event_worlds import NOW_MS, details, events, json_values

EVENT = parse_event(EXAMPLES[0], defaults=EventDefaults("acme"), now_ms=NOW_MS)
CONTEXT: Context = [["centre", 1, 7, b"abcd"], ["w8", 2**63 - 1, 1, b"\0\0\0\0"]]
FIELDS = (
    "kind", "org", "order_id", "source", "status", "happened_ms", "quality", "recorded_ms", "region", "site", "actor", "details", "context",
)  # fmt: skip

nodes = st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True)
counters = st.integers(1, 2**63 - 1)
contexts = st.lists(st.tuples(nodes, counters, counters, st.binary(min_size=4, max_size=4)), max_size=4, unique=True).map(
    lambda entries: [list(entry) for entry in sorted(entries)]
)
packables = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


def changed(**changes: Any) -> list[Any]:
    row = to_row(EVENT, NOW_MS, CONTEXT)
    for field, value in changes.items():
        row[FIELDS.index(field)] = value
    return row


def refused(row: object) -> str:
    with pytest.raises(DecodeError) as caught:
        from_row(row)
    assert type(caught.value) is DecodeError
    return caught.value.reason


# ------------------------------------------------------------------ rows out and in


def test_a_row_is_what_the_specification_draws() -> None:
    assert to_row(EVENT, NOW_MS, CONTEXT) == [
        1, "acme", "GLOBAL1234", "FULFILLMENT", 6, 1_779_372_312_000, 0, NOW_MS,
        "EMEA", "W8-Madrid", "staff-17", EXAMPLES[0]["details"], CONTEXT,
    ]  # fmt: skip


def test_the_bytes_of_a_row_are_those_released() -> None:
    """Codes are plain numbers in the row, not enumerations: the packed bytes are what every node hashes."""
    unknown = parse_event(
        {"orderId": "1", "source": "E", "status": "HELD", "timeQuality": "unknown"}, defaults=EventDefaults("o"), now_ms=0
    )
    assert pack(to_row(unknown, 1, [])).hex() == "9d01a16fa131a1450ac00101c0c0c08090"


@given(events(), st.integers(0, LAST_MS), contexts)
def test_json_event_row_bytes_and_back(event: OrderEvent, recorded_ms: int, context: Context) -> None:
    fact = from_row(unpack(pack(to_row(event, recorded_ms, context)), max_bytes=100_000))
    assert (fact.recorded_ms, fact.context, fact.extra) == (recorded_ms, context, ())
    said = event_json(event)
    said.pop("idempotencyKey", None)
    assert event_json(fact) == said
    assert to_row(fact, fact.recorded_ms, fact.context) == to_row(event, recorded_ms, context)


def test_elements_of_a_later_version_are_kept() -> None:
    fact = from_row([*changed(), None, None, "signature", {"b": [1]}])
    assert fact.extra == ("signature", {"b": [1]})
    assert fact.status is Status.SHIPPED


# ------------------------------------------------------------------ rows refused


CENTRE = ["centre", 1, 7, b"abcd"]
NOT_NUMBERS = (0, -1, 2**63, True, 1.0, "1", None)
WRONG: dict[str, Sequence[Any]] = {
    **dict.fromkeys(("org", "order_id", "source"), (None, 7, b"acme", "", "x" * 129, "a\x00", "\ud800", ["a"])),
    **dict.fromkeys(("region", "site", "actor"), (7, b"a", "", "x" * 129, "a\x00", "\ud800", [])),
    "status": [0, 16, -1, 2**63, "SHIPPED", None, True, 6.0, []],
    "happened_ms": [None, -1, LAST_MS + 1, "2026-05-21T14:05:12Z", 1.5, True, []],
    "quality": [3, -1, None, False, "stated", 0.0, []],
    "recorded_ms": [None, -1, LAST_MS + 1, 1.5, True, "now"],
    "details": [None, [], "x", {"a": 1.5}, {"a": b"raw"}, {1: 2}, {"": 1}, {"a": 2**63}, {"a": "x" * 8192}],
    "context": [
        *(None, {}, (), "", 0, [[]], ["centre"], [None], [CENTRE[:3]], [tuple(CENTRE)], [[*CENTRE, 1]]),
        *([*reversed(CONTEXT)], [CENTRE, CENTRE]),
        *([[node, 1, 7, b"abcd"]] for node in ("", "Centre", "a/b", "-a", "n" * 33, b"centre", None, 1)),
        *([["centre", number, 7, b"abcd"]] for number in NOT_NUMBERS),
        *([["centre", 1, number, b"abcd"]] for number in NOT_NUMBERS),
        *([["centre", 1, 7, h]] for h in (b"abc", b"abcde", "abcd", None, 7)),
    ],
}


@pytest.mark.parametrize(("field", "value"), [("org", "a/b"), *((field, value) for field, values in WRONG.items() for value in values)])
def test_an_element_that_is_not_what_it_should_be_is_named(field: str, value: object) -> None:
    reason = refused(changed(**{field: value}))
    assert reason.startswith((f"{field}:", f"{field}.")), reason
    assert len(reason) < 200
    reason.encode()


def test_an_unknown_time_and_a_time_exclude_each_other() -> None:
    assert from_row(changed(happened_ms=None, quality=1)).happened_ms is None
    assert refused(changed(quality=1)).startswith("happened_ms")
    assert refused(changed(happened_ms=None)).startswith("happened_ms")


def test_a_context_may_fill_its_bound_and_no_more() -> None:
    entries = [["centre", 1, seq, b"abcd"] for seq in range(1, limits.CONTEXT_ENTRIES + 2)]
    assert len(from_row(changed(context=entries[:-1])).context) == limits.CONTEXT_ENTRIES
    assert "257 entries" in refused(changed(context=entries))


def test_two_branches_of_one_author_may_both_have_been_seen() -> None:
    context = [["centre", 1, 7, b"aaaa"], ["centre", 1, 7, b"bbbb"]]
    assert from_row(changed(context=context)).context == context


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([], "kind missing"),
        ([3, "x"], "kind 3 is not an order event"),
        ([True, *changed()[1:]], "kind bool"),
        ([1.0, *changed()[1:]], "kind float"),
        (changed()[:-1], "12 elements"),
        ({}, "not dict"),
        (b"", "not bytes"),
        (tuple(changed()), "not tuple"),
        (None, "not NoneType"),
    ],
)
def test_another_kind_of_fact_is_for_those_who_know_it(row: object, reason: str) -> None:
    assert reason in refused(row)


@given(packables)
def test_any_value_is_a_fact_or_a_decode_error(value: object) -> None:
    try:
        from_row(value)
    except DecodeError as error:
        error.reason.encode()


@given(st.sampled_from(FIELDS), packables | json_values | contexts | details)
def test_any_value_in_any_element_is_a_fact_fit_for_json_or_a_decode_error(field: str, value: object) -> None:
    try:
        fact = from_row(changed(**{field: value}))
    except DecodeError as error:
        error.reason.encode()
    else:
        assert isinstance(fact, FactRow)
        json.dumps(event_json(fact), allow_nan=False).encode()
        pack(to_row(fact, fact.recorded_ms, fact.context))


@given(details)
def test_the_size_of_details_is_what_they_take_on_the_wire(value: dict[str, object]) -> None:
    assert packed_bytes(check_details(value)) == len(pack(value))


@pytest.mark.parametrize(
    "value",
    [127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63 - 1, -32, -33, -128, -129, -32_768, -32_769, -(2**31), -(2**31) - 1],
)
def test_the_size_of_a_number_is_its_shortest_form(value: int) -> None:
    assert packed_bytes(value) == len(pack(value))


@pytest.mark.parametrize("length", [0, 15, 16, 31, 32, 255, 256, 65_535, 65_536])
def test_the_size_of_what_has_a_length_counts_its_head(length: int) -> None:
    for value in ("x" * length, [None] * length, {str(i): None for i in range(length)}):
        assert packed_bytes(value) == len(pack(value))


# ------------------------------------------------------------------ the chain


def test_no_two_streams_begin_alike() -> None:
    beginnings = {genesis(node, epoch, cls) for node in ("w8", "w9") for epoch in (1, 2) for cls in (0, 1)}
    assert len(beginnings) == 8
    assert genesis("w8", 1, 0) == blake2b(b"longshore/stream/1\x93\xa2w8\x01\x00", digest_size=8).digest()


def test_each_hash_stands_for_all_before_it() -> None:
    start = genesis("w8", 1, 0)
    rows = [pack(to_row(EVENT, recorded_ms, [])) for recorded_ms in range(5)]
    hashes = chain(start, rows)
    assert hashes[0] == blake2b(start + rows[0], digest_size=8).digest()
    assert hashes[2:] == chain(hashes[1], rows[2:]), "a range can be hashed from the point before it"
    assert chain(start, [rows[1], rows[0], *rows[2:]])[-1] != hashes[-1]
    assert chain(start, []) == []
    assert len(set(hashes)) == 5


def test_a_new_epoch_names_where_it_continues() -> None:
    row = continues_row(5, 9, b"12345678")
    assert row == [CONTINUES, 5, 9, b"12345678"]
    assert read_continues(unpack(pack([*row, "later"]), max_bytes=100)) == Continues(5, 9, b"12345678")


@pytest.mark.parametrize(
    "row",
    [None, [], [2, 5, 9], [1, 5, 9, b"12345678"], [2, 0, 9, b"12345678"], [2, 5, 0, b"12345678"], [2, True, 9, b"12345678"],
     [2, 5, 2**63, b"12345678"], [2, 5, 9, b"1234567"], [2, 5, 9, "12345678"], [2.0, 5, 9, b"12345678"], (2, 5, 9, b"12345678")],
)  # fmt: skip
def test_a_malformed_continuation_is_a_decode_error(row: object) -> None:
    with pytest.raises(DecodeError):
        read_continues(row)


@given(packables)
def test_any_value_is_a_continuation_or_a_decode_error(value: object) -> None:
    try:
        read_continues(value)
    except DecodeError:
        pass
