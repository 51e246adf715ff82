"""JSON in and out: what is taken, what is refused, and that the refusal names the field and helps."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import limits
from protocols.errors import InvalidInput, TooLarge
from protocols.event import (
    CLOCKS_WORK_FROM_MS,
    DAY_MS,
    EXAMPLES,
    FIELDS,
    LAST_MS,
    EventDefaults,
    OrderEvent,
    TimeQuality,
    event_json,
    format_time,
    json_schema,
    load_json,
    parse_batch,
    parse_event,
    parse_time,
)
from protocols.lifecycle import STATUS_NAMES, Status
from tests.unit.protocols.event_worlds import NOW_MS, events, json_values

DEFAULTS = EventDefaults("acme", "EMEA", "W8-Madrid")
GOOD: dict[str, Any] = {"orderId": "GLOBAL1234", "source": "FULFILLMENT", "status": "SHIPPED", "timestamp": "2026-05-21T14:05:12Z"}


def parse(at: str = "", **changes: Any) -> OrderEvent:
    return parse_event({**GOOD, **changes}, defaults=DEFAULTS, now_ms=NOW_MS, at=at)


def refused(at: str = "", **changes: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse(at, **changes)
    return caught.value


def without(field: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse_event({name: value for name, value in GOOD.items() if name != field}, defaults=DEFAULTS, now_ms=NOW_MS)
    return caught.value


# ------------------------------------------------------------------ taken


def test_a_full_event_is_taken_field_by_field() -> None:
    event = parse_event(EXAMPLES[0], defaults=EventDefaults("other"), now_ms=NOW_MS)
    assert event == OrderEvent(
        org="acme",
        order_id="GLOBAL1234",
        source="FULFILLMENT",
        status=Status.SHIPPED,
        happened_ms=1_779_372_312_000,
        quality=TimeQuality.STATED,
        region="EMEA",
        site="W8-Madrid",
        actor="staff-17",
        details=EXAMPLES[0]["details"],  # type: ignore[arg-type]
        idempotency_key="scan-20260521-000317",
    )


def test_what_an_event_leaves_out_or_sends_as_null_is_the_nodes_own() -> None:
    nulls: dict[str, Any] = {name: None for name in FIELDS if name not in GOOD}
    for event in (parse(), parse(**nulls)):
        assert (event.org, event.region, event.site, event.actor) == ("acme", "EMEA", "W8-Madrid", None)
        assert (event.details, event.idempotency_key) == ({}, None)


def test_what_an_event_says_outranks_the_defaults() -> None:
    event = parse(org="globex", region="APAC", site="W2")
    assert (event.org, event.region, event.site) == ("globex", "APAC", "W2")


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        parse().status = Status.DELIVERED  # type: ignore[misc]


@pytest.mark.parametrize("text", ["Ωmega-17", "order no. 5 / b", "订单", "a\u00a0b", "x" * 128, "\U0001f4e6"])
def test_any_text_a_person_can_read_is_an_order_id(text: str) -> None:
    assert parse(orderId=text).order_id == text


@given(events())
def test_json_out_reads_back_as_the_same_event(event: OrderEvent) -> None:
    text = json.dumps(event_json(event))
    assert parse_event(load_json(text.encode()), defaults=EventDefaults("unused"), now_ms=NOW_MS) == event


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize("field", ["orderId", "source", "status", "timestamp"])
def test_what_is_required_is_named_when_missing(field: str) -> None:
    error = without(field)
    assert error.field == field
    assert "is required" in error.reason


@pytest.mark.parametrize("field", ["org", "orderId", "source", "region", "site", "actor", "idempotencyKey"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (17, "must be text, not a number"),
        (1.5, "must be text, not a number"),
        (True, "must be text, not a boolean"),
        (["a"], "must be text, not a list"),
        ({}, "must be text, not an object"),
        ("", "is empty"),
        (" \u3000 ", "is empty"),
        ("x" * 129, "is 129 characters long"),
        ("a\nb", "a control character (U+000A) at position 1"),
        ("a\x9fb", "a control character (U+009F) at position 1"),
        ("ab\ud800", "half of a surrogate pair, which is not a character (U+D800) at position 2"),
    ],
)
def test_text_that_cannot_be_taken_is_refused_by_name(field: str, value: object, reason: str) -> None:
    error = refused("", **{field: value})
    assert error.field == field
    assert reason in error.reason
    assert refused("[7]", **{field: value}).field == f"[7].{field}"


@pytest.mark.parametrize("org", ["a b", "acme/eu", "-acme", "_", "a" * 65, "ácme", "a+", "#"])
def test_an_org_is_a_topic_level(org: str) -> None:
    assert refused(org=org).field == "org"


@pytest.mark.parametrize(
    ("status", "meant"),
    [("shipped", "SHIPPED"), ("Out for delivery", "OUT_FOR_DELIVERY"), ("CANCELED", "CANCELLED"), ("in-transit", "IN_TRANSIT")],
)
def test_a_status_written_otherwise_is_refused_with_the_one_meant(status: str, meant: str) -> None:
    error = refused(status=status)
    assert (error.field, error.allowed, error.remedy) == ("status", STATUS_NAMES, f"Did you mean {meant}?")


@pytest.mark.parametrize("status", ["", "FROBNICATED", 6, None, ["SHIPPED"], {"SHIPPED": 1}, True, "SHIPPED\n", "\ud800", "Q" * 10_000])
def test_any_other_status_is_refused_with_the_allowed_values(status: object) -> None:
    error = refused(status=status)
    assert (error.field, error.allowed) == ("status", STATUS_NAMES)
    assert "mean" not in error.remedy or status == "SHIPPED\n"
    assert len(str(error)) < 400


def test_an_unknown_field_is_refused_with_the_one_meant() -> None:
    assert (refused(order_id="x").remedy, refused(time_stamp="x").remedy) == ("Did you mean orderId?", "Did you mean timestamp?")
    error = refused("[2]", carrier="FedEx")
    assert (error.field, error.allowed, error.remedy) == ("[2].carrier", FIELDS, "Put what is your own inside details.")


@pytest.mark.parametrize("name", ["\ud800", "a\nb", "", "x" * 100_000])
def test_an_unknown_field_of_any_name_can_be_reported(name: str) -> None:
    error = refused("", **{name: 1})
    assert len(error.field) < 100
    assert error.reason.encode().decode().isprintable()


@pytest.mark.parametrize("body", [None, 17, "text", True, 1.5])
def test_what_is_no_object_is_no_event(body: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_event(body, defaults=DEFAULTS, now_ms=NOW_MS)
    assert caught.value.field == "body"


# ------------------------------------------------------------------ details


@pytest.mark.parametrize("value", [0, -(2**63), 2**63 - 1, True, None, "", "two\nlines\tand a tab\r\n", [], {}, [[["deep"]]], "12.50"])
def test_plain_values_are_taken_in_details(value: object) -> None:
    assert parse(details={"a": value}).details == {"a": value}


@pytest.mark.parametrize(
    ("details", "field", "reason"),
    [
        ([], "details", "must be an object, not a list"),
        ("x", "details", "must be an object, not text"),
        ({"weight": 1.5}, "details.weight", "floating-point"),
        ({"lines": [{"qty": 1}, {"qty": 2.0}]}, "details.lines[1].qty", "floating-point"),
        ({"n": float("nan")}, "details.n", "floating-point"),
        ({"n": float("inf")}, "details.n", "floating-point"),
        ({"n": 2**63}, "details.n", "64 bit"),
        ({"n": [0, -(2**63) - 1]}, "details.n[1]", "64 bit"),
        ({"a": {"b": "x\x00"}}, "details.a.b", "control character (U+0000)"),
        ({"a": "\udc80"}, "details.a", "surrogate"),
        ({"\ud800": 1}, "details.\\ud800", "surrogate"),
        ({"a\x1b[31m": 1}, "details.a\\u001b[31m", "control character"),
        ({"": 1}, "details", "a key of 0 characters"),
        ({"k" * 129: 1}, "details", "a key of 129 characters"),
        ({"a": dict.fromkeys(map(str, range(65)))}, "details.a", "has 65 keys"),
        ({"a": b"raw"}, "details.a", "must be a JSON value, not bytes"),
        ({"a": {1: 2}}, "details.a", "has a key that is a number"),
    ],
)
def test_details_that_cannot_be_taken_are_refused_by_path(details: Any, field: str, reason: str) -> None:
    error = refused(details=details)
    assert error.field == field
    assert reason in error.reason
    assert error.reason.encode(), "the message can be sent"


def nested(levels: int, wrap: str) -> object:
    value: object = "core"
    for _ in range(levels):
        value = {"a": value} if wrap == "object" else [value]
    return value


@pytest.mark.parametrize("wrap", ["object", "list"])
def test_details_may_nest_to_the_bound_and_no_deeper(wrap: str) -> None:
    assert parse(details={"a": nested(limits.NESTING - 1, wrap)})
    error = refused(details={"a": nested(limits.NESTING, wrap)})
    assert "nested deeper than 8 levels" in error.reason
    assert error.field.startswith("details.a")


def test_details_may_fill_the_bound_and_no_more() -> None:
    room = limits.DETAILS_BYTES - len(b"\x81\xa1a\xda\x00\x00")
    assert parse(details={"a": "x" * room})
    error = refused(details={"a": "x" * (room + 1)})
    assert isinstance(error, TooLarge)
    assert (error.field, "8193 bytes" in error.reason) == ("details", True)
    assert parse(details={"a": "ü" * (room // 2)}), "bytes are counted, not characters"
    assert isinstance(refused(details={"a": "ü" * (room // 2 + 1)}), TooLarge)


def test_a_list_too_long_for_the_bound_is_refused_before_it_is_walked() -> None:
    error = refused(details={"a": [0.5] * (limits.DETAILS_BYTES + 1)})
    assert isinstance(error, TooLarge)
    assert error.field == "details.a"


# ------------------------------------------------------------------ times


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-05-21T14:05:12Z", 1_779_372_312_000),
        ("2026-05-21t14:05:12z", 1_779_372_312_000),
        ("2026-05-21 16:05:12+02:00", 1_779_372_312_000),
        ("2026-05-21T16:05:12+0200", 1_779_372_312_000),
        ("2026-05-21T16:05:12+02", 1_779_372_312_000),
        ("2026-05-21T14:05Z", 1_779_372_300_000),
        ("2026-05-21T14:05:12.3Z", 1_779_372_312_300),
        ("2026-05-21T14:05:12,345Z", 1_779_372_312_345),
        ("2026-05-21T14:05:12.345999999Z", 1_779_372_312_345),
        ("2026-05-21T14:05:12-00:00", 1_779_372_312_000),
        ("2026-05-22T14:04:12+23:59", 1_779_372_312_000),
        ("2026-05-20T14:06:12-23:59", 1_779_372_312_000),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000),
        ("9999-12-31T23:59:59.999999Z", LAST_MS),
    ],
)
def test_a_time_with_an_offset_is_read_to_the_millisecond(text: str, ms: int) -> None:
    assert parse_time(text, "timestamp") == ms


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2026-05-21T14:05:12", "no offset"),
        ("2026-05-21 14:05", "no offset"),
        ("2026-05-21", "not a time"),
        ("yesterday", "not a time"),
        ("", "not a time"),
        ("2026-05-21T14:05:12Z ", "not a time"),
        ("2026-05-21T14:05:12Z\n", "not a time"),
        ("2026-W21-4T14:05:12Z", "not a time"),
        ("20260521T140512Z", "not a time"),
        ("٢٠٢٦-٠٥-٢١T١٤:٠٥:١٢Z", "not a time"),
        ("2026-05-21T14:05:12+02:00:30", "not a time"),
        ("2026-05-21T14:05:12 CEST", "not a time"),
        ("1779372312", "not a time"),
        ("2026-05-21T14:05:12." + "0" * 13 + "Z", "not a time"),
        ("2026-02-29T00:00:00Z", "does not exist"),
        ("2026-13-01T00:00:00Z", "does not exist"),
        ("2026-05-21T24:00:00Z", "not a time"),
        ("2026-12-31T23:59:60Z", "does not exist"),
        ("2026-05-21T14:05:12+24:00", "does not exist"),
        ("2026-05-21T14:05:12+10:60", "not a time"),
        ("0000-01-01T00:00:00Z", "does not exist"),
        ("1969-12-31T23:59:59Z", "outside the years"),
        ("1970-01-01T00:00:00+00:01", "outside the years"),
        ("9999-12-31T23:59:59-00:01", "outside the years"),
        (1_779_372_312, "not a number"),
        (["2026-05-21T14:05:12Z"], "not a list"),
    ],
)
def test_anything_else_is_no_time(text: object, reason: str) -> None:
    error = refused(timestamp=text)
    assert error.field == "timestamp"
    assert reason in error.reason
    assert "2026-05-21T14:05:12Z" in error.remedy


@given(st.integers(0, LAST_MS))
def test_a_written_time_reads_back(ms: int) -> None:
    text = format_time(ms)
    assert parse_time(text, "timestamp") == ms
    assert re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{3})?Z", text)
    assert (".000" in text, "." in text) == (False, ms % 1000 != 0)


@given(st.datetimes(datetime(1971, 1, 1), datetime(9998, 1, 1)), st.integers(-1439, 1439))
def test_the_same_moment_in_any_zone_is_the_same_time(moment: datetime, offset_minutes: int) -> None:
    here = moment.replace(tzinfo=UTC)
    there = here.astimezone(timezone(timedelta(minutes=offset_minutes)))
    assert (
        parse_time(there.isoformat(), "t")
        == parse_time(here.isoformat(), "t")
        == (here - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    )


def test_an_improbable_time_is_kept_and_marked() -> None:
    for ms, quality in [
        (0, TimeQuality.IMPROBABLE),
        (CLOCKS_WORK_FROM_MS - 1, TimeQuality.IMPROBABLE),
        (CLOCKS_WORK_FROM_MS, TimeQuality.STATED),
        (NOW_MS + DAY_MS, TimeQuality.STATED),
        (NOW_MS + DAY_MS + 1, TimeQuality.IMPROBABLE),
    ]:
        event = parse(timestamp=format_time(ms))
        assert (event.happened_ms, event.quality) == (ms, quality)


def test_who_doubts_his_own_clock_is_not_overruled() -> None:
    assert parse(timeQuality="improbable").quality is TimeQuality.IMPROBABLE
    assert parse(timeQuality="stated").quality is TimeQuality.STATED
    assert parse(timeQuality="stated", timestamp="1971-01-01T00:00:00Z").quality is TimeQuality.IMPROBABLE


def test_an_unknown_time_is_left_out_and_said_to_be_unknown() -> None:
    event = parse(timestamp=None, timeQuality="unknown")
    assert (event.happened_ms, event.quality) == (None, TimeQuality.UNKNOWN)
    assert refused(timeQuality="unknown").field == "timestamp"
    assert '"timeQuality": "unknown"' in without("timestamp").remedy
    assert refused(timestamp=None, timeQuality="stated").field == "timestamp"


@pytest.mark.parametrize("said", ["Unknown", "guessed", "", 1, True, ["unknown"], {}])
def test_any_other_time_quality_is_refused(said: object) -> None:
    error = refused(timeQuality=said)
    assert (error.field, error.allowed) == ("timeQuality", ("stated", "unknown", "improbable"))


# ------------------------------------------------------------------ batches and bodies


def test_a_batch_is_one_event_or_a_list() -> None:
    assert [e.order_id for e in parse_batch(GOOD, defaults=DEFAULTS, now_ms=NOW_MS)] == ["GLOBAL1234"]
    several = parse_batch([GOOD, {**GOOD, "orderId": "B"}], defaults=DEFAULTS, now_ms=NOW_MS)
    assert [e.order_id for e in several] == ["GLOBAL1234", "B"]


def batch_refused(batch: object) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse_batch(batch, defaults=DEFAULTS, now_ms=NOW_MS)
    return caught.value


def test_a_batch_names_the_event_that_is_wrong() -> None:
    assert batch_refused([GOOD, GOOD, GOOD, {**GOOD, "status": "SENT"}]).field == "[3].status"
    assert batch_refused([GOOD, {**GOOD, "details": {"w": 1.5}}]).field == "[1].details.w"
    assert batch_refused([GOOD, [GOOD]]).field == "[1]"
    assert batch_refused([GOOD, {**GOOD, "timestamp": "now"}]).field == "[1].timestamp"


def test_a_batch_has_at_least_one_event_and_a_bound() -> None:
    assert batch_refused([]).field == "body"
    assert len(parse_batch([GOOD] * limits.BATCH_EVENTS, defaults=DEFAULTS, now_ms=NOW_MS)) == limits.BATCH_EVENTS
    error = batch_refused([GOOD] * (limits.BATCH_EVENTS + 1))
    assert isinstance(error, TooLarge)
    assert "1001 events" in error.reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"a": "\xff"}', "not UTF-8 (byte 7)"),
        (b'{"a": 1,\n}', "line 2, column 1"),
        (b"", "not JSON"),
        (b"[" * 100_000, "beyond any bound"),
        (b"1" * 5_000, "beyond any bound"),
        (b'"' + b"a" * limits.BATCH_BYTES, "bytes long"),
    ],
)
def test_a_body_that_is_not_json_is_refused_with_the_place(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_json(body)
    assert caught.value.field == "body"
    assert reason in caught.value.reason
    assert caught.value.remedy or "beyond any bound" in reason


def test_a_file_that_is_not_json_is_named_with_what_to_give_instead() -> None:
    with pytest.raises(InvalidInput, match=r"^edge\.toml: is not JSON") as caught:
        load_json(b"[node]", "edge.toml", "Give a card.")
    assert (caught.value.field, caught.value.remedy) == ("edge.toml", "Give a card.")


# ------------------------------------------------------------------ anything


@given(json_values)
def test_any_json_value_is_events_or_a_refusal(value: object) -> None:
    try:
        taken = parse_batch(value, defaults=DEFAULTS, now_ms=NOW_MS)
    except InvalidInput as error:
        str(error).encode()
    else:
        assert all(isinstance(event, OrderEvent) for event in taken)


@given(st.sampled_from(FIELDS), json_values)
def test_any_value_in_any_field_is_taken_or_refused_by_that_name(field: str, value: object) -> None:
    try:
        event = parse_event({**EXAMPLES[0], field: value}, defaults=DEFAULTS, now_ms=NOW_MS)
    except InvalidInput as error:
        blamed = error
    else:
        json.dumps(event_json(event), allow_nan=False).encode()
        return
    named = "timestamp" if (field, value) == ("timeQuality", "unknown") else field
    assert re.match(rf"{named}($|[.\[])", blamed.field), blamed.field
    str(blamed).encode()


@given(st.binary())
def test_any_bytes_are_json_or_a_refusal(body: bytes) -> None:
    with suppress(InvalidInput):
        json.dumps(load_json(body))


# ------------------------------------------------------------------ the schema


def test_the_schema_names_what_the_parser_knows() -> None:
    schema: Any = json_schema()
    assert (list(schema["properties"]), schema["additionalProperties"]) == ([*FIELDS[:9], "idempotencyKey", "details"], False)
    assert schema["properties"]["status"]["enum"] == list(STATUS_NAMES)
    for field in schema["required"]:
        assert without(field).field == field
    for field, most_chars in [(name, rule["maxLength"]) for name, rule in schema["properties"].items() if "maxLength" in rule]:
        assert parse(**{field: "x" * most_chars})
        assert refused(**{field: "x" * (most_chars + 1)}).field == field
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_in_the_schema_is_a_valid_event(example: dict[str, object]) -> None:
    event = parse_event(example, defaults=DEFAULTS, now_ms=NOW_MS)
    assert example.items() <= event_json(event).items()


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"orderId": "A", "orderId": "B", "source": "S", "status": "PLACED"}', "orderId"),
        (b'[{"orderId": "A"}, {"details": {"a": {"weight": 1, "b": 2, "weight": 3}}}]', "weight"),
        (b'{"a\\u0001": 1, "a\\u0001": 1}', "a\\u0001"),
    ],
)
def test_a_key_twice_in_one_object_is_refused_by_its_name(body: bytes, key: str) -> None:
    with pytest.raises(InvalidInput, match="stands twice in one object") as caught:
        load_json(body)
    assert caught.value.field == key
    assert load_json(b'[{"a": 1}, {"a": 2}]') == [{"a": 1}, {"a": 2}]


def test_quantities_of_an_event_are_checked_where_it_comes_in() -> None:
    event = {"orderId": "A", "source": "S", "status": "PICKED", "timeQuality": "unknown"}
    with pytest.raises(InvalidInput) as caught:
        parse_event({**event, "details": {"quantities": {"picked": "3"}}}, defaults=EventDefaults("acme"), now_ms=0, at="[3]")
    assert caught.value.field == "[3].details.quantities.picked"
    taken = parse_event({**event, "details": {"quantities": {"picked": 3}}}, defaults=EventDefaults("acme"), now_ms=0)
    assert taken.details == {"quantities": {"picked": 3}}
