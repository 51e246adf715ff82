"""Facts as records of the bus and back; whatever else comes from there is refused with a reason."""

from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.bridge_records import Encoder, event_text, read, read_all
from hub.bridge_topics import DEAD_HEADERS, EVENTS, HEADERS, RECORDS, TELEMETRY, TOPICS, differences, plans, shown_state
from hub.bus import BusRecord, Place, Taken, TopicFound
from hub.store.port import StoreFact, StoreRecord
from protocols.chains import RunKind
from protocols.codec import pack
from protocols.errors import DecodeError
from protocols.event import EXAMPLES, EventDefaults, TimeQuality, event_json, format_time, parse_event
from protocols.fact import FactRow, chain, continues_row, genesis, to_row
from protocols.lifecycle import Status
from protocols.streams import StreamKey
from protocols.telemetry import Reading, telemetry_row
from tests.support.source import ROOT

NOW = 1_795_000_000_000
KEY = StreamKey("dock-7", 0x1A2B, 0)


def fact(row: list[Any], key: StreamKey = KEY, *, quarantined: str = "", seq: int = 1) -> StoreFact:
    packed, prev = pack(row), genesis(*key) if seq == 1 else b"12345678"
    return StoreFact(key, seq, chain(prev, [packed])[0], prev, packed, NOW, quarantined)


def event_row() -> list[Any]:
    return to_row(parse_event(EXAMPLES[0], defaults=EventDefaults("acme"), now_ms=NOW), NOW, [])


def came(record: BusRecord, **changed: bytes | None) -> Taken:
    headers = [(name, changed.get(name, value)) for name, value in record.headers]
    more = [(name, value) for name, value in changed.items() if name not in dict(record.headers)]
    kept = [(name, value) for name, value in [*headers, *more] if value is not None]
    return Taken(Place(record.topic, 0), 0, record.key, record.value, kept, record.timestamp_ms)


def test_an_event_is_a_cloud_event_for_others_and_a_fact_for_the_projector() -> None:
    given_fact = fact(event_row())
    record = Encoder().fact(given_fact)
    headers = dict(record.headers)
    assert (record.topic, record.key) == (EVENTS, b"acme/GLOBAL1234")
    event = parse_event(EXAMPLES[0], defaults=EventDefaults("acme"), now_ms=NOW)
    assert json.loads(record.value) == {k: v for k, v in event_json(event).items() if k != "idempotencyKey"}
    assert headers["ce_id"] == f"dock-7/1a2b/1/{given_fact.h.hex()}".encode()
    assert headers["ce_type"] == b"longshore.order.event.v1" and headers["ce_specversion"] == b"1.0"
    assert headers["ce_time"] == b"2026-05-21T14:05:12Z" and headers["ce_subject"] == b"acme/GLOBAL1234"
    assert headers["traceparent"].endswith(b"-" + given_fact.h.hex().encode() + b"-01")
    assert read(came(record)) == given_fact


_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_ITEMS = st.recursive(
    _TEXTS | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(
    _TEXTS, _TEXTS, st.sampled_from(Status), st.none() | st.integers(0, 2**42), st.sampled_from(TimeQuality),
    st.tuples(*[st.none() | _TEXTS] * 3), st.dictionaries(_TEXTS, _ITEMS, max_size=4),
)  # fmt: skip
def test_the_value_that_is_written_at_once_is_the_event_as_json(
    org: str, source: str, status: Status, when: int | None, quality: TimeQuality, more: tuple[Any, ...], details: dict[str, Any]
) -> None:
    region, site, actor = more
    event = FactRow(org, 'A/1 \u00e9"', source, status, when, quality, region, site, actor, details, NOW, [])
    text = event_text(event, format_time(NOW if when is None else when))
    assert text == json.dumps(event_json(event), ensure_ascii=False, separators=(",", ":"))


def test_a_reading_goes_by_its_device_whose_name_is_its_nodes() -> None:
    reading = Reading("scanner-3", "battery", None, TimeQuality.UNKNOWN, {"batteryPercent": 87})
    given_fact = fact(telemetry_row(reading, NOW), StreamKey("dock-7", 5, 1))
    record = Encoder().fact(given_fact)
    assert (record.topic, record.key) == (TELEMETRY, b"dock-7/scanner-3")
    assert dict(record.headers)["ce_subject"] == b"dock-7/scanner-3"
    other = Encoder().fact(fact(telemetry_row(reading, NOW), StreamKey("dock-8", 5, 1)))
    assert other.key != record.key
    assert json.loads(record.value)["values"] == {"batteryPercent": 87}
    assert read(came(record)) == given_fact


@pytest.mark.parametrize(
    ("row", "quarantined", "kind"),
    [
        pytest.param([*continues_row(3, 9, b"12345678")], "", "bookkeeping", id="bookkeeping"),
        pytest.param([99, "of a later version"], "", "unreadable", id="later"),
        pytest.param([1, "x"], "status: 99 is no code known here", "quarantined", id="quarantined"),
    ],
)
def test_what_is_no_event_goes_with_the_records(row: list[Any], quarantined: str, kind: str) -> None:
    given_fact = fact(row, quarantined=quarantined)
    record = Encoder().fact(given_fact)
    assert (record.topic, record.key) == (RECORDS, b"dock-7/1a2b/0")
    assert json.loads(record.value)["kind"] == kind
    assert read(came(record)) == given_fact


def test_bytes_in_quarantine_are_carried_as_they_are() -> None:
    given_fact = StoreFact(KEY, 4, b"abcdefgh", b"12345678", b"\xff\x00no msgpack", NOW, "does not decode")
    assert read(came(Encoder().fact(given_fact))) == given_fact


def test_an_authors_word_on_a_hole() -> None:
    word = StoreRecord(KEY, 3, b"12345678", 9, b"abcdefgh", RunKind.EVICTED, b"signed", NOW)
    record = Encoder().record(word)
    assert (record.topic, record.key) == (RECORDS, b"dock-7/1a2b/0")
    assert read(came(record)) == word


def test_every_header_is_in_the_table() -> None:
    told = {header.name for header in HEADERS}
    word = StoreRecord(KEY, 3, b"", 9, b"abcdefgh", RunKind.LOST, b"", NOW)
    made = [Encoder().fact(fact(event_row())), Encoder().fact(fact([99], quarantined="why")), Encoder().record(word)]
    assert {name for record in made for name, _ in record.headers} == told


def by_parts(f: StoreFact) -> Taken:
    """A fact as hubs wrote it before there was `ls_fact`: a header for each of its parts."""
    headers = {
        "ce_id": b"any", "ls_stream": pack(list(f.stream)), "ls_seq": b"%d" % f.seq, "ls_h": f.h, "ls_prev": f.prev, "ls_row": f.row,
        "ls_received_ms": b"%d" % f.received_ms, **({"ls_quarantined": f.quarantined.encode()} if f.quarantined else {}),
    }  # fmt: skip
    return Taken(Place(EVENTS, 0), 0, b"key", b"{}", list(headers.items()), f.received_ms)


def test_many_are_read_as_each_by_itself() -> None:
    good, refused = fact(event_row(), seq=7), fact([1, "x"], quarantined="status: 99 is no code known here")
    word = StoreRecord(KEY, 3, b"12345678", 9, b"87654321", RunKind.EVICTED, b"signed", NOW)
    made, bad = Encoder(), came(Encoder().fact(good), ls_fact=b"short")
    many = [
        came(made.fact(good)),
        bad,
        by_parts(good),
        came(made.fact(refused)),
        came(made.record(word)),
        came(made.fact(fact(event_row()))),
    ]
    assert read_all(many) == ([good, good, refused, fact(event_row())], [word], [(bad, "ls_fact: it ends early")])


def test_what_earlier_hubs_wrote_is_read() -> None:
    assert read(by_parts(fact(event_row()))) == fact(event_row())
    refused = fact([1, "x"], quarantined="status: 99 is no code known here")
    assert read(by_parts(refused)) == refused


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        pytest.param({"ls_stream": None}, "ls_stream: missing", id="no-stream"),
        pytest.param({"ls_stream": pack(["Not A Node", 1, 0])}, "cannot name a node", id="bad-node"),
        pytest.param({"ls_stream": pack(["dock-7", 0, 0])}, "no number of a stream", id="bad-epoch"),
        pytest.param({"ls_seq": b"0"}, "ls_seq: not a number from 1", id="zero"),
        pytest.param({"ls_seq": b"-1"}, "ls_seq: not a number", id="negative"),
        pytest.param({"ls_seq": "٣".encode()}, "ls_seq: not a number", id="other-digits"),
        pytest.param({"ls_h": b"short"}, "ls_h: 8 bytes", id="short-hash"),
        pytest.param({"ls_h": b"x" * 8}, "h: not the hash of prev and row", id="wrong-hash"),
        pytest.param({"ls_prev": b"x" * 8}, "does not follow its genesis", id="wrong-genesis"),
        pytest.param({"ls_row": b"x"}, "h: not the hash", id="another-row"),
        pytest.param({"ls_received_ms": b""}, "ls_received_ms: not a number", id="no-time"),
        pytest.param({"ls_quarantined": b"\xff"}, "ls_quarantined: not UTF-8", id="reason"),
        pytest.param({"ls_record": pack([1, b"", 2])}, "ls_record:", id="short-record"),
        pytest.param({"ls_record": pack([5, b"", 2, b"12345678", 2, b""])}, "ls_record: not a range", id="backwards"),
        pytest.param({"ls_record": pack([1, b"", 2, b"12345678", 0, b""])}, "ls_record: not a kind", id="data"),
    ],
)
def test_a_record_that_is_none_is_refused_by_name(changed: dict[str, bytes | None], says: str) -> None:
    given = by_parts(fact(event_row()))
    headers = [(name, value) for name, value in (dict(given.headers) | changed).items() if value is not None]
    with pytest.raises(DecodeError) as refused:
        read(given._replace(headers=headers))
    assert says in refused.value.reason


def in_one(seq: int = 1, at_ms: int = NOW, h: bytes = b"", prev: bytes = b"", stream: bytes = b"", size: int = -1) -> bytes:
    """A fact in one header, with something else in it."""
    f, key = fact(event_row()), stream or pack(list(KEY))
    return struct.pack(">QQ8s8sB", seq, at_ms, h or f.h, prev or f.prev, len(key) if size < 0 else size) + key + f.row


@pytest.mark.parametrize(
    ("header", "says"),
    [
        pytest.param(b"", "ls_fact: it ends early", id="empty"),
        pytest.param(in_one()[:32], "ls_fact: it ends early", id="short"),
        pytest.param(in_one(seq=0), "ls_fact: seq or time", id="zero"),
        pytest.param(in_one(seq=2**63), "ls_fact: seq or time", id="beyond"),
        pytest.param(in_one(at_ms=2**63), "ls_fact: seq or time", id="never"),
        pytest.param(in_one(h=b"x" * 8), "h: not the hash of prev and row", id="wrong-hash"),
        pytest.param(in_one(prev=b"x" * 8), "prev: the first fact of a stream does not follow", id="wrong-genesis"),
        pytest.param(in_one(seq=2, prev=b"x" * 8), "h: not the hash", id="another-before"),
        pytest.param(in_one()[:-1], "h: not the hash", id="another-row"),
        pytest.param(in_one(stream=pack(["Not A Node", 1, 0])), "cannot name a node", id="bad-node"),
        pytest.param(in_one(size=0), "not well-formed", id="no-stream"),
        pytest.param(in_one(size=255), "left over", id="long-stream"),
    ],
)
def test_a_fact_that_is_none_is_refused_by_name(header: bytes, says: str) -> None:
    taken = came(Encoder().fact(fact(event_row())), ls_fact=header)
    for headers in (taken.headers, [*taken.headers, ("more", b"")]):
        with pytest.raises(DecodeError) as refused:
            read(taken._replace(headers=headers))
        assert says in refused.value.reason
        dead = taken._replace(headers=headers)
        assert read_all([dead]) == ([], [], [(dead, refused.value.reason)])


@given(st.dictionaries(st.sampled_from([h.name for h in HEADERS]), st.binary(max_size=40)))
def test_no_bytes_make_it_fail_otherwise(changed: dict[str, bytes]) -> None:
    with contextlib.suppress(DecodeError):
        read(came(Encoder().fact(fact(event_row())), **changed))


def test_each_topic_states_its_retention_and_has_dead_letters_beside_it() -> None:
    made = {plan.name: plan for plan in plans(6, 3, 7)}
    assert set(made) == {name for topic in TOPICS for name in (topic.name, topic.dead)}
    assert all("retention.ms" in plan.settings or plan.settings["cleanup.policy"] == "compact" for plan in made.values())
    assert made[EVENTS].settings["retention.ms"] == str(7 * 86_400_000) and made[EVENTS].settings["min.insync.replicas"] == "2"
    plan = made[EVENTS]
    more, same = (TopicFound(EVENTS, count, 3, dict(plan.settings)) for count in (8, 6))
    assert differences(plan, more) == differences(plan, same) == []
    assert (shown_state(plan, more), shown_state(plan, same)) == (
        "as configured; more partitions than 6 are fine",
        "as configured",
    )
    assert differences(plan, TopicFound(EVENTS, 4, 1, {**plan.settings, "retention.ms": "5"})) == [
        "partitions is 4, not 6", "replicas is 1, not 3", "retention.ms is 5, not 604800000",
    ]  # fmt: skip


def test_the_operators_page_names_every_topic_header_and_command() -> None:
    page = (ROOT / "hub" / "KAFKA.md").read_text("utf-8")
    wanted = [
        *(topic.name for topic in TOPICS),
        *(header.name for header in (*HEADERS, *DEAD_HEADERS)),
        "topics create",
        "project",
        "dlq replay",
    ]
    assert [name for name in wanted if name not in page] == []
