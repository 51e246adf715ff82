"""AsyncAPI 3 of what nodes and hub say over MQTT, from the table of channels and the classes of the messages."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

from deploy.contracts import arrays, world
from edge_agent.serve import presence
from protocols import limits, topics
from protocols.chains import RunKind
from protocols.claims import CLAIM_BYTES, SIGNATURE_BYTES, VERSION, Claim, seal_claim
from protocols.codec import INT63_MAX, FrameHeader, Kind, decode_body, open_envelope, unpack
from protocols.downlink import Bucket, Compare, Differ, Feed, Follow
from protocols.messages import Answer, Heartbeat, Hello, Message, Pull, Receipt, Record, Refused
from protocols.sync.seal import seal
from protocols.sync.uplink import Out
from protocols.topics import CHANNELS, Channel, Direction
from protocols.trace import frame_traceparent

Json = dict[str, Any]
WIRE: Final = "x-longshore-wire"
"""the key of a message as it travels, in hexadecimal"""
MEDIA: Final = "application/vnd.longshore.envelope"

SAID: Final[dict[Kind, tuple[tuple[Channel, ...], type[Message] | None, str]]] = {
    Kind.FRAME: ((Channel.LIVE, Channel.BACKFILL), None, "A range of the facts of one stream, signed by their author."),
    Kind.HELLO: ((Channel.CONTROL,), Hello, "A node's greeting; the hub answers it."),
    Kind.ANSWER: ((Channel.RECEIPT,), Answer, "The hub's absolute statement, to one hello."),
    Kind.RECEIPT: ((Channel.RECEIPT,), Receipt, "The same statement for the streams that changed. Only this frees data."),
    Kind.RECORD: ((Channel.CONTROL,), Record, "An author's word that it has no data for a range of its own stream, and why."),
    Kind.REFUSED: ((Channel.RECEIPT,), Refused, "A message that moved nothing, by its digest."),
    Kind.HEARTBEAT: ((Channel.CONTROL,), Heartbeat, "What a node has, so that the hub knows what it does not have."),
    Kind.PULL: ((Channel.RECEIPT,), Pull, "The hub asks for ranges."),
    Kind.FOLLOW: ((Channel.CONTROL,), Follow, "A node asks for what the hub's feed of its site holds beyond its cursor."),
    Kind.COMPARE: ((Channel.CONTROL,), Compare, "What a node has of its site's orders, by digests."),
    Kind.DIFFER: ((Channel.ORDERS,), Differ, "Which parts of the digests are not the same at the hub."),
    Kind.FEED: ((Channel.ORDERS,), Feed, "Facts of others for a node's site."),
}
"""where each kind of message is said, its class, and its duty"""

_PARAMETERS: Final = {
    "org": "The organisation of the node.",
    "region": "Its region.",
    "site": "Its site.",
    "node": "Its name: 1 to 32 of a-z 0-9 - .",
}


@cache
def document() -> Json:
    """The whole document. Shared: not to be changed."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Longshore over MQTT",
            "version": "2.0.0",
            "description": "What a node says and hears. Payloads are signed binary envelopes; the schemas show what is in them, arrays as "
            f"arrays and byte strings as hexadecimal. At most {limits.FRAME_WIRE_BYTES} bytes each, QoS 1, clean sessions.",
            "license": {"name": "Apache-2.0"},
        },
        "servers": {
            "broker": {
                "host": "broker.example:8883",
                "protocol": "secure-mqtt",
                "protocolVersion": "3.1.1",
                "description": "MQTT 3.1.1 is enough; 5 is used where the broker has it.",
                "security": [{"$ref": "#/components/securitySchemes/node"}],
            }
        },
        "channels": {**{_id(channel): _channel(channel) for channel in CHANNELS}, "claim": _claim_channel()},
        "operations": {
            **{f"{_verb(channel)}{_id(channel).title()}": _operation(channel) for channel in CHANNELS},
            **{f"{verb}Claim": _claim_operation(verb) for verb in ("send", "receive")},
        },
        "components": {
            "messages": {**{_name(kind): _message(kind) for kind in SAID}, "presence": _presence(), "claim": _claim()},
            "securitySchemes": {
                "node": {"type": "userPassword", "description": "The node's name and the password whose hash its card carries."}
            },
        },
    }


def _id(channel: Channel) -> str:
    return channel.name.lower()


def _verb(channel: Channel) -> str:
    return "send" if CHANNELS[channel].direction is Direction.FROM_NODE else "receive"


def _name(kind: Kind) -> str:
    return kind.name.lower()


def _on(channel: Channel) -> list[str]:
    names = [_name(kind) for kind, (channels, _, _) in SAID.items() if channel in channels]
    return [*names, "presence"] if channel is Channel.STATE else names


def _channel(channel: Channel) -> Json:
    said, duty = _on(channel), CHANNELS[channel].duty
    return {
        "address": f"{topics.ROOT}/{'/'.join('{' + name + '}' for name in _PARAMETERS)}/{channel.value}",
        "title": duty,
        "description": duty if said else f"{duty}; reserved, nothing is said yet",
        "parameters": {name: {"description": text} for name, text in _PARAMETERS.items()},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in said},
    }


def _operation(channel: Channel) -> Json:
    return {
        "action": _verb(channel),
        "channel": {"$ref": f"#/channels/{_id(channel)}"},
        "messages": [{"$ref": f"#/channels/{_id(channel)}/messages/{name}"} for name in _on(channel)],
        "bindings": {"mqtt": {"qos": 1, "retain": CHANNELS[channel].retained, "bindingVersion": "0.2.0"}},
    }


def _message(kind: Kind) -> Json:
    _, cls, duty = SAID[kind]
    if cls is None:
        parts = {"header": arrays.of_message(FrameHeader), "rows": arrays.ROWS}
    else:
        pair = {"type": "array", "items": [{"title": "author", "type": "string"}, {"title": "addressee", "type": "string"}], "minItems": 2}
        parts = {"header": pair, "body": arrays.of_message(cls)}
    wire = _examples()[kind]
    beside = {"headers": _BESIDE} if cls is None else {}
    return {
        "name": _name(kind),
        "title": duty,
        "contentType": MEDIA,
        **beside,
        "payload": {"type": "object", "required": ["kind", *parts], "properties": {"kind": {"const": int(kind)}, **parts}},
        "examples": [{"name": _name(kind), **_told_beside(wire), "payload": decoded(wire)}],
        WIRE: wire.hex(),
    }


_BESIDE: Final[Json] = {
    "type": "object",
    "description": "User properties, on MQTT 5 only: decoration, on which nothing depends.",
    "properties": {
        "traceparent": {
            "type": "string",
            "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-01$",
            "description": "W3C trace context of the frame's last fact, computed from its identity.",
        }
    },
}


def _told_beside(wire: bytes) -> Json:
    """User properties of a frame as it is sent; nothing of other messages."""
    opened = open_envelope(wire)
    return {"headers": {"traceparent": frame_traceparent(FrameHeader.parse(opened.header))}} if opened.kind is Kind.FRAME else {}


def decoded(wire: bytes) -> Json:
    """What is in an envelope, as its schema shows it. Errors: DecodeError."""
    opened = open_envelope(wire)
    if opened.kind is Kind.FRAME:
        header = FrameHeader.parse(opened.header)
        rows = [row for _, row in decode_body(opened.body, header.count, header.dictionary)]
        return {"kind": int(opened.kind), "header": arrays.plain(opened.header), "rows": arrays.plain(rows)}
    body: Any = unpack(opened.body, max_bytes=limits.FRAME_WIRE_BYTES)
    if opened.kind is Kind.FEED:
        at, places, dictionary = 8, len(body[6]), body[7]
        body[at] = [row for _, row in decode_body(body[at], places, dictionary)] if places else []
    return {"kind": int(opened.kind), "header": arrays.plain(opened.header), "body": arrays.plain(body)}


def _presence() -> Json:
    text = {"type": "string"}
    return {
        "name": "presence",
        "title": "Birth, will and farewell of a node's line; each with its epoch, so that nobody takes a clone's for the node's.",
        "contentType": "application/json",
        "payload": {
            "type": "object",
            "required": ["state", "epoch", "version"],
            "properties": {
                "state": {"type": "string", "enum": ["online", "lost", "stopped"]},
                "epoch": {"type": "string", "pattern": "^[0-9a-f]{1,16}$"},
                "version": text,
            },
        },
        "examples": [{"name": said["state"], "payload": said} for said in _presences()],
    }


def _presences() -> list[Json]:
    said = presence(world.ADDRESS.topic(Channel.STATE), 0x5F3A9C01D2E4B6A7, "0.1.0")
    return [json.loads(text) for text in (said.birth, said.will, said.farewell or b"null")]


# ------------------------------------------------------------------ between the workers of a hub


def _claim_channel() -> Json:
    texts = {"org": "The organisation of the hub.", "hub": "Its name.", "partition": "The number of the partition."}
    return {
        "address": f"{topics.HUB_ROOT}/{{org}}/{{hub}}/claim/{{partition}}",
        "title": "which worker of a hub has a partition of the nodes",
        "description": "Between the workers of one hub, where it has several; no node reads or writes here.",
        "parameters": {name: {"description": text} for name, text in texts.items()},
        "messages": {"claim": {"$ref": "#/components/messages/claim"}},
    }


def _claim_operation(verb: str) -> Json:
    return {
        "action": verb,
        "channel": {"$ref": "#/channels/claim"},
        "messages": [{"$ref": "#/channels/claim/messages/claim"}],
        "bindings": {"mqtt": {"qos": 1, "retain": True, "bindingVersion": "0.2.0"}},
    }


def _claim() -> Json:
    number = {"type": "integer", "minimum": 0, "maximum": INT63_MAX}
    elements: dict[str, Json] = {
        "version": {"const": VERSION},
        "partition": number,
        "fence": number,
        "worker": {"type": "string"},
        "boot": number,
    }
    wire = seal_claim(Claim(17, 4, "w2", 0x5F3A9C01D2E4B6A), world.HUB_KEY.sign)
    return {
        "name": "claim",
        "title": "The central store gave this worker a partition, with this fence: msgpack, then the hub's signature (64 bytes).",
        "contentType": MEDIA,
        "payload": {
            "type": "array",
            "items": [{"title": name, **schema} for name, schema in elements.items()],
            "minItems": len(elements),
            "additionalItems": True,
        },
        "examples": [{"name": "claim", "payload": unpack(wire[:-SIGNATURE_BYTES], max_bytes=CLAIM_BYTES)}],
        WIRE: wire.hex(),
    }


# ------------------------------------------------------------------ examples


@cache
def _examples() -> dict[Kind, bytes]:
    """A message of each kind as it travels: what was said in a small world, and what is only said when something went wrong."""
    out: dict[Kind, bytes] = {}
    for _, wire in world.a_day().said:
        out.setdefault(open_envelope(wire).kind, wire)
    incarnation = bytes(range(8))
    rare: list[tuple[Message, bool]] = [
        (Record(7, 1, 3, bytes(8), 5, bytes(range(8)), RunKind.EVICTED, world.START_MS, "superseded 3"), True),
        (Refused(incarnation, bytes(range(16)), "the chain does not end where the frame says"), False),
        (Pull(incarnation, ((7, 0, 2, 9),)), False),
        (Differ(incarnation, (Bucket(0, 0),), (Bucket(8, 3), Bucket(8, 200))), False),
    ]
    for message, up in rare:
        author, addressee, key = (world.ADDRESS.node, world.HUB, world.EDGE_KEY) if up else (world.HUB, world.ADDRESS.node, world.HUB_KEY)
        channel = SAID[message.KIND][0][0]
        out.setdefault(message.KIND, seal(Out(channel, message.KIND, [], message.to_list()), author, addressee, key.sign))
    return out
