"""The contracts: what is committed is what the code says, it is well formed by the rules of others, and its examples hold both ways."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest

from deploy.contracts import arrays, documents, kafka, mqtt, schemas, world
from hub.bridge_records import read as read_record
from hub.bridge_topics import DEAD_HEADERS, HEADERS, TOPICS
from protocols import contracts
from protocols.claims import read_claim, seal_claim
from protocols.codec import FrameHeader, Kind, decode_body, encode_body, envelope, open_envelope, pack, unpack
from protocols.errors import InvalidInput
from protocols.event import EventDefaults, event_json, parse_event
from protocols.fact import chain
from protocols.limits import FRAME_WIRE_BYTES
from protocols.messages import parse_message
from protocols.sync.seal import unseal
from protocols.telemetry import parse_reading, reading_json
from protocols.topics import Address, Channel, claims_of, parse_topic
from protocols.trace import frame_traceparent, read_traceparent
from protocols.trust import verify
from tests.support.schemas import complaints, theirs

KINDS = tuple(mqtt.SAID)
NOBODY = EventDefaults("nobody")


def test_a_contract_that_is_old_is_found_and_mended(tmp_path: Path) -> None:
    documents.write(tmp_path)
    assert documents.stale(tmp_path) == []
    old = tmp_path / "order-event.schema.json"
    old.write_text(old.read_text("utf-8").replace("SHIPPED", "SHIPED"), "utf-8")
    (tmp_path / "nobodys.json").write_text("{}", "utf-8")
    (tmp_path / "openapi-hub.json").unlink()
    assert documents.stale(tmp_path) == ["nobodys.json", "openapi-hub.json", "order-event.schema.json"]
    documents.write(tmp_path)
    assert documents.stale(tmp_path) == []


def test_every_contract_is_listed_in_the_readme() -> None:
    readme = (documents.FOLDER / "README.md").read_text("utf-8")
    assert [name for name in documents.documents() if f"`{name}`" not in readme] == []


# ------------------------------------------------------------------ events


@pytest.mark.parametrize("name", ["order-event", "telemetry"])
def test_examples_of_events_hold_both_ways(name: str) -> None:
    schema = contracts.read(f"{name}.schema.json")
    assert schema["examples"]
    for example in schema["examples"]:
        assert complaints(schema, example) == []
        assert _again(name, example) == example


def _again(name: str, example: dict[str, Any]) -> dict[str, Any]:
    """Read by the code and written again."""
    if name == "telemetry":
        return reading_json(parse_reading(dict(example), now_ms=schemas.NOW_MS))
    return event_json(parse_event(dict(example), defaults=NOBODY, now_ms=schemas.NOW_MS))


BAD_EVENTS: tuple[dict[str, Any], ...] = (
    {"orderId": ""}, {"status": "SHIPED"}, {"timestamp": "yesterday"}, {"timestamp": "2026-05-21T14:05:12"}, {"timeQuality": "unknown"},
    {"org": "a/b"}, {"orderId": 7}, {"details": []}, {"colour": "red"}, {"actor": "x" * 1000},
)  # fmt: skip


@pytest.mark.parametrize("change", BAD_EVENTS, ids=[json.dumps(bad)[:40] for bad in BAD_EVENTS])
def test_schema_and_code_refuse_the_same_events(change: dict[str, Any]) -> None:
    schema = contracts.read("order-event.schema.json")
    bad = {**schema["examples"][0], **change}
    assert complaints(schema, bad) != []
    with pytest.raises(InvalidInput):
        parse_event(bad, defaults=NOBODY, now_ms=schemas.NOW_MS)


@pytest.mark.parametrize("schema", [schemas.order_event_out(), schemas.reading_out()], ids=["order-event", "telemetry"])
def test_what_is_given_out_names_no_keys_of_senders(schema: dict[str, Any]) -> None:
    assert "idempotencyKey" not in schema["properties"]
    assert all(complaints(schema, example) == [] for example in schema["examples"])
    assert complaints(schema, {**schema["examples"][0], "idempotencyKey": "x"}) != []


def test_readers_of_jeopardy_do_not_mind_what_comes_later() -> None:
    schema = contracts.read("jeopardy.schema.json")
    assert complaints(schema, {"org": "acme", "orderId": "1", "jeopardy": "High", "score": 0.7}) == []
    assert complaints(schema, {"orderId": "1"}) != []


# ------------------------------------------------------------------ MQTT


def test_the_mqtt_document_is_asyncapi() -> None:
    document = contracts.read("asyncapi-mqtt.json")
    assert complaints(theirs("asyncapi-3.0.0.json"), document) == []
    assert complaints(theirs("asyncapi-3.0.0.json"), {**document, "channels": {"x": {"adress": 1}}}) != []
    assert [ref for ref in _refs(document) if not _resolves(document, ref)] == []


def _refs(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [ref for value in node.values() for ref in _refs(value)]
    return [ref for value in node for ref in _refs(value)] if isinstance(node, list) else []


def _resolves(document: Any, ref: str) -> bool:
    node = document
    for part in ref.removeprefix("#/").split("/"):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def test_every_channel_and_every_kind_of_message_is_in_it() -> None:
    document = contracts.read("asyncapi-mqtt.json")
    names = {"org": "acme", "region": "EMEA", "site": "W8", "node": "dock-1"}
    filled = {name: channel["address"].format(**names, hub="hub", partition=3) for name, channel in document["channels"].items()}
    assert filled.pop("claim") == claims_of("acme", "hub", 3)
    found = {name: parse_topic(topic) for name, topic in filled.items()}
    assert {channel for _, channel in found.values()} == set(Channel)
    assert {address for address, _ in found.values()} == {Address("acme", "EMEA", "W8", "dock-1")}
    assert list(KINDS) == list(Kind)


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_messages_hold_both_ways(kind: Kind) -> None:
    """From the wire to the example, and from the example's words back to the very bytes that were signed."""
    message = contracts.read("asyncapi-mqtt.json")["components"]["messages"][kind.name.lower()]
    wire, example = bytes.fromhex(message[mqtt.WIRE]), message["examples"][0]["payload"]
    assert complaints({"$schema": "http://json-schema.org/draft-07/schema#", **message["payload"]}, example) == []
    assert json.loads(json.dumps(mqtt.decoded(wire))) == example
    opened = open_envelope(wire)
    verify((world.EDGE_KEY if example["header"][0] == world.ADDRESS.node else world.HUB_KEY).public, opened.signature, opened.signed)
    if kind is Kind.FRAME:
        header = FrameHeader.parse(opened.header)
        beside = message["examples"][0]["headers"]
        assert complaints({"$schema": "http://json-schema.org/draft-07/schema#", **message["headers"]}, beside) == []
        assert read_traceparent(beside["traceparent"]) == frame_traceparent(header)
        rows = [row for row, _ in decode_body(opened.body, header.count, header.dictionary)]
        assert chain(header.h_before, rows)[-1] == header.h_after
        assert decode_body(encode_body(rows, dictionary=header.dictionary), header.count, header.dictionary)
        return
    body = unpack(opened.body, max_bytes=FRAME_WIRE_BYTES)
    again = parse_message(kind, body).to_list()
    assert envelope(kind, opened.header, pack(again)) == opened.signed


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_a_message_cut_short_does_not_fit_its_schema(kind: Kind) -> None:
    message = contracts.read("asyncapi-mqtt.json")["components"]["messages"][kind.name.lower()]
    example = message["examples"][0]["payload"]
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", **message["payload"]}
    part = "header" if kind is Kind.FRAME else "body"
    assert complaints(schema, {**example, part: example[part][:-1]}) != []
    assert complaints(schema, {**example, part: [{}, *example[part][1:]]}) != []


def test_a_claim_holds_both_ways() -> None:
    message = contracts.read("asyncapi-mqtt.json")["components"]["messages"]["claim"]
    schema, example = {"$schema": "http://json-schema.org/draft-07/schema#", **message["payload"]}, message["examples"][0]["payload"]
    assert complaints(schema, example) == [] and complaints(schema, example[:-1]) != []
    said = read_claim(bytes.fromhex(message[mqtt.WIRE]))
    said.check(world.HUB_KEY.public, verify)
    assert example[1:] == list(astuple(said.claim)) and seal_claim(said.claim, world.HUB_KEY.sign).hex() == message[mqtt.WIRE]


def test_all_that_is_said_in_a_day_fits_the_document() -> None:
    document = contracts.read("asyncapi-mqtt.json")
    said = world.a_day().said
    assert {channel for channel, _ in said} >= {Channel.CONTROL, Channel.BACKFILL, Channel.RECEIPT, Channel.ORDERS}
    for channel, wire in said:
        name = open_envelope(wire).kind.name.lower()
        assert name in document["channels"][channel.name.lower()]["messages"], (channel, name)
        schema = {"$schema": "http://json-schema.org/draft-07/schema#", **document["components"]["messages"][name]["payload"]}
        assert complaints(schema, mqtt.decoded(wire)) == []
        unseal(wire)


def test_a_type_that_no_message_has_had_is_named() -> None:
    with pytest.raises(TypeError, match="complex"):
        arrays.of_type(complex)


# ------------------------------------------------------------------ Kafka


def test_the_kafka_document_is_asyncapi() -> None:
    document = contracts.read("asyncapi-kafka.json")
    assert complaints(theirs("asyncapi-3.0.0.json"), document) == []
    assert [ref for ref in _refs(document) if not _resolves(document, ref)] == []
    addresses = [channel["address"] for channel in document["channels"].values()]
    assert sorted(addresses) == sorted([topic.name for topic in TOPICS] + [topic.dead for topic in TOPICS])


RECORDS = [(topic, n) for topic, records in kafka.examples().items() for n in range(len(records))]


@pytest.mark.parametrize(("topic", "n"), RECORDS, ids=[f"{topic}-{n}" for topic, n in RECORDS])
def test_records_hold_both_ways(topic: str, n: int) -> None:
    """The committed example fits its schemas; a projector reads the same fact out of it that went in."""
    message = contracts.read("asyncapi-kafka.json")["components"]["messages"][kafka.MESSAGES[topic]]
    record, example = kafka.examples()[topic][n], message["examples"][n]
    draft = {"$schema": "http://json-schema.org/draft-07/schema#"}
    assert complaints({**draft, **message["payload"]}, example["payload"]) == []
    assert complaints({**draft, **message["headers"]}, example["headers"]) == []
    assert set(example["headers"]) <= set(message["headers"]["properties"])
    headers = [(name, bytes.fromhex(text) if name in kafka.BINARY else text.encode()) for name, text in example["headers"].items()]
    assert read_record(kafka.taken(record._replace(headers=headers))) == read_record(kafka.taken(record))


def test_every_topic_that_carries_something_has_an_example() -> None:
    messages = contracts.read("asyncapi-kafka.json")["components"]["messages"]
    assert [name for name, message in messages.items() if not message.get("examples")] == ["jeopardy"]
    given = {name for message in messages.values() for example in message.get("examples", []) for name in example["headers"]}
    assert given == {header.name for header in (*HEADERS, *DEAD_HEADERS)}


def test_what_a_reader_of_the_topic_sees_can_be_captured_again() -> None:
    messages = contracts.read("asyncapi-kafka.json")["components"]["messages"]
    for example in messages["orderEvent"]["examples"]:
        said = dict(example["payload"])
        assert event_json(parse_event(said, defaults=NOBODY, now_ms=schemas.NOW_MS)) == example["payload"]


# ------------------------------------------------------------------ APIs


@pytest.mark.parametrize("name", ["openapi-edge.json", "openapi-hub.json"])
def test_the_documents_of_the_apis_are_openapi(name: str) -> None:
    document = contracts.read(name)
    rules = theirs("openapi-3.1.json")
    assert complaints(rules, document) == []
    assert complaints(rules, {**document, "paths": {"/x": {"get": {"responses": 7}}}}) != []


@pytest.mark.parametrize("name", ["openapi-edge.json", "openapi-hub.json"])
def test_examples_in_openapi_fit_what_they_are_examples_of(name: str) -> None:
    document = contracts.read(name)
    pairs = list(_examples(document, ""))
    assert len(pairs) > 10
    for at, schema, value in pairs:
        whole = {**schema, "components": document["components"]}
        assert complaints(whole, value) == [], at


def _examples(node: Any, at: str) -> Any:
    """(where, schema, example) wherever a schema and its examples stand together."""
    if isinstance(node, list):
        for index, value in enumerate(node):
            yield from _examples(value, f"{at}/{index}")
    if not isinstance(node, dict):
        return
    schema = node.get("schema")
    if isinstance(schema, dict):
        if "example" in node:
            yield at, schema, int(node["example"]) if schema.get("type") == "integer" else node["example"]
        for name, example in (node["examples"] if isinstance(node.get("examples"), dict) else {}).items():
            yield f"{at}/{name}", schema, example["value"]
    if "type" in node and isinstance(node.get("examples"), list):
        yield from ((f"{at}/examples", node, example) for example in node["examples"])
    for name, value in node.items():
        if name not in ("example", "examples"):
            yield from _examples(value, f"{at}/{name}")
