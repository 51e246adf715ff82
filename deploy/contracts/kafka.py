"""AsyncAPI 3 of what a hub puts on Kafka, from the tables of topics and headers, with records that the bridge's own encoder made."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

from deploy.contracts import schemas, world
from hub.bridge_config import SETTINGS
from hub.bridge_records import Encoder
from hub.bridge_topics import DEAD_HEADERS, EVENTS, HEADERS, JEOPARDY, RECORDS, TELEMETRY, TOPICS, Header, Topic, plans
from hub.bus import BusRecord, Place, Taken, TopicPlan
from hub.projector import dead_letter
from hub.store.port import StoreRecord
from protocols.chains import RunKind
from protocols.streams import StreamKey

Json = dict[str, Any]
BINDING: Final = "0.5.0"
BINARY: Final = ("ls_fact", "ls_stream", "ls_record")
"""headers whose value is bytes: here in hexadecimal"""
MESSAGES: Final = {EVENTS: "orderEvent", JEOPARDY: "jeopardy", TELEMETRY: "reading", RECORDS: "record"}
_SHOWN: Final = ("cleanup.policy", "retention.ms", "max.message.bytes")


@cache
def document() -> Json:
    """The whole document. Shared: not to be changed."""
    made = {plan.name: plan for plan in plans(_default("partitions"), _default("replicas"), _default("retention_days"))}
    channels: Json = {}
    for topic in TOPICS:
        channels[_id(topic)] = _channel(topic.name, topic.holds, _message_ref(MESSAGES[topic.name]), made[topic.name])
        told = f"records of {topic.name} that could not be taken, as they were, with headers that say why"
        channels[f"{_id(topic)}Dead"] = _channel(topic.dead, told, _message_ref("deadLetter"), made[topic.dead])
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Longshore over Kafka",
            "version": "1.0.0",
            "description": "What a hub produces. At least once: a record that comes twice has the same ce_id. Of one order, by key, in the "
            "order in which each author said it. Values are JSON for everybody; the ls_ headers are for projectors. Header values that are "
            "bytes are shown in hexadecimal here. A record in a topic is no promise that the central store has it.",
            "license": {"name": "Apache-2.0"},
        },
        "servers": {"kafka": {"host": "kafka.example:9092", "protocol": "kafka", "description": "TLS and SASL by [bridge] in hub.toml."}},
        "channels": channels,
        "operations": {name: _operation(name) for name in channels},
        "components": {"messages": _messages()},
    }


def _default(name: str) -> int:
    return next(int(str(setting.default)) for setting in SETTINGS if setting.key == name)


def _id(topic: Topic) -> str:
    return "".join(part.title() if n else part for n, part in enumerate(topic.name.split(".")[1:-1]))


def _message_ref(name: str) -> Json:
    return {name: {"$ref": f"#/components/messages/{name}"}}


def _channel(name: str, about: str, messages: Json, plan: TopicPlan) -> Json:
    settings: Json = {key: int(value) if value.isdecimal() else value for key, value in plan.settings.items() if key in _SHOWN}
    settings["cleanup.policy"] = [settings["cleanup.policy"]]
    kafka = {
        "topic": name,
        "partitions": plan.partitions,
        "replicas": plan.replicas,
        "topicConfiguration": settings,
        "bindingVersion": BINDING,
    }
    return {"address": name, "description": about, "messages": messages, "bindings": {"kafka": kafka}}


def _operation(channel: str) -> Json:
    name = "deadLetter" if channel.endswith("Dead") else next(MESSAGES[topic.name] for topic in TOPICS if _id(topic) == channel)
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"}],
        "description": "By projectors." if channel.endswith("Dead") else "By hubs.",
    }


def _messages() -> Json:
    keys = {topic.name: topic.key for topic in TOPICS}
    told = examples()
    return {
        "orderEvent": _message("orderEvent", keys[EVENTS], HEADERS, schemas.order_event_out(), told[EVENTS]),
        "jeopardy": _message("jeopardy", keys[JEOPARDY], HEADERS, _bare(schemas.jeopardy()), []),
        "reading": _message("reading", keys[TELEMETRY], HEADERS, schemas.reading_out(), told[TELEMETRY]),
        "record": _message("record", keys[RECORDS], HEADERS, _RECORD, told[RECORDS]),
        "deadLetter": _message(
            "deadLetter",
            "as it was",
            (*HEADERS, *DEAD_HEADERS),
            {},
            [dead_letter(taken(told[EVENTS][0]), "ls_fact: gone", world.START_MS)],
        ),
    }


_RECORD: Final[Json] = {
    "type": "object",
    "description": "What is no event and belongs into the central store. Its value only says what it is; the fact is in the ls_ headers.",
    "required": ["kind", "node", "epoch", "class"],
    "properties": {
        "kind": {"type": "string"},
        "node": {"type": "string"},
        "epoch": {"type": "string", "pattern": "^[0-9a-f]{1,16}$"},
        "class": {"type": "integer"},
    },
}


def _bare(schema: Json) -> Json:
    return {name: value for name, value in schema.items() if name not in ("$schema", "$id")}


def _message(name: str, key: str, headers: tuple[Header, ...], payload: Json, told: list[BusRecord]) -> Json:
    return {
        "name": name,
        "contentType": "application/json",
        "headers": {"type": "object", "properties": {header.name: _header(header) for header in headers}},
        "payload": payload,
        "bindings": {"kafka": {"key": {"type": "string", "description": key}, "bindingVersion": BINDING}},
        **({"examples": [shown(record) for record in told]} if told else {}),
    }


def _header(header: Header) -> Json:
    form = {"pattern": "^([0-9a-f]{2})*$"} if header.name in BINARY else {}
    return {"type": "string", **form, "description": f"{header.meaning} ({header.form})"}


# ------------------------------------------------------------------ examples


def shown(record: BusRecord) -> Json:
    """A record as an example: headers as text, those that are bytes in hexadecimal."""
    headers = {name: value.hex() if name in BINARY else value.decode() for name, value in record.headers}
    return {"name": record.key.decode(), "headers": headers, "payload": json.loads(record.value)}


def taken(record: BusRecord) -> Taken:
    """A record as a projector reads it."""
    return Taken(Place(record.topic, 0), 17, record.key, record.value, list(record.headers), record.timestamp_ms)


@cache
def examples() -> dict[str, list[BusRecord]]:
    """What the bridge makes of a small world's facts, by topic; and of what is no event."""
    encoder = Encoder()
    facts = world.a_day().handed
    order = next(fact for fact in facts if fact.fact is not None or fact.stream.cls == 0)
    stream = StreamKey(world.ADDRESS.node, 7, 1)
    gap = StoreRecord(stream, 3, bytes(8), 5, bytes(range(8)), RunKind.EVICTED, b"signed", world.START_MS)
    records = [
        *(encoder.fact(fact) for fact in facts),
        encoder.fact(order._replace(quarantined="status: 99 is no code known here", fact=None)),
        encoder.record(gap),
    ]
    return {topic.name: [record for record in records if record.topic == topic.name] for topic in TOPICS}
