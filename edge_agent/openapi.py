"""The OpenAPI 3.1 document of the LAN API, written from a table. A test holds it against the routes."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from edge_agent.openapi_conflicts import OPERATIONS as CONFLICTS
from edge_agent.openapi_conflicts import SETTLEMENT
from edge_agent.openapi_sync import CARD
from edge_agent.openapi_sync import OPERATIONS as SYNC
from edge_agent.operation import Operation, Param
from protocols import limits, telemetry
from protocols.event import EXAMPLES, json_schema
from protocols.lifecycle import STATUS_NAMES
from protocols.problem import KINDS

Json = dict[str, Any]


_TEXT: Final[Json] = {"type": "string"}
_LIMIT: Final = Param("limit", "How many at most, 1 to 500. Default 50.", {"type": "integer", "minimum": 1, "maximum": 500, "default": 50})
_CURSOR: Final = Param("cursor", "Where the page before ended: its `cursor`, or the address in its `Link` header.", _TEXT)
_FACT: Final = "w8-madrid-1/5f3a9c01d2e4b6a7/17/9f86d081"
_TAKEN: Final = {"ids": [_FACT], "accepted": 1, "repeated": 0}
_LISTED: Final = {
    "org": "acme",
    "orderId": "GLOBAL1234",
    "status": "SHIPPED",
    "conflict": False,
    "held": False,
    "updatedAt": "2026-05-21T14:05:13.204Z",
    "links": {"self": "/v1/orders/GLOBAL1234?org=acme"},
}
_ORDER: Final = {
    "org": "acme",
    "orderId": "GLOBAL1234",
    "status": "SHIPPED",
    "updatedAt": "2026-05-21T14:05:13.204Z",
    "conflict": False,
    "held": False,
    "heldBecause": None,
    "conflicts": [],
    "concurrent": [],
    "credited": ["staff-17"],
    "notes": [],
    "quantities": {},
    "heads": [
        {
            "factId": _FACT,
            "status": "SHIPPED",
            "source": "FULFILLMENT",
            "site": "W8-Madrid",
            "actor": "staff-17",
            "timestamp": "2026-05-21T14:05:12Z",
        }
    ],
    "timeline": [
        {
            "factId": _FACT,
            "traceId": "0af7651916cd43dd8448eb211c80319c",
            "node": "w8-madrid-1",
            "epoch": "5f3a9c01d2e4b6a7",
            "seq": 17,
            "status": "SHIPPED",
            "source": "FULFILLMENT",
            "region": "EMEA",
            "site": "W8-Madrid",
            "actor": "staff-17",
            "timestamp": "2026-05-21T14:05:12Z",
            "timeQuality": "stated",
            "recordedAt": "2026-05-21T14:05:13.204Z",
            "receivedAt": "2026-05-21T14:05:13.204Z",
            "isHead": True,
            "abnormal": False,
            "clock": "hub",
            "recordedAbout": None,
            "details": {"carrier": "FedEx"},
        }
    ],
    "jeopardy": None,
    "jeopardyNote": "Nothing scores orders yet: jeopardy arrives with the model.",
}
_STATUS: Final = {
    "node": "w8-madrid-1",
    "org": "acme",
    "region": "EMEA",
    "site": "W8-Madrid",
    "version": "0.1.0",
    "api": "v1",
    "uptimeMs": 86_400_000,
    "ready": True,
    "link": {
        "connected": True,
        "answered": True,
        "lastHeardAgoMs": 1_200,
        "credit": 10_000,
        "waitsForTurn": False,
        "refused": 0,
        "damaged": 0,
        "unanswered": None,
        "problem": "",
        "protocol": "MQTT 5",
        "refusals": [],
    },
    "queue": {"events": 12, "bytes": 1_840, "oldestAgeMs": 3_400, "notReceived": 4, "quarantined": 0},
    "waiting": {"requests": 0, "events": 0},
}
_QID: Final = Param("id", "Its number in the list.", {"type": "integer", "minimum": 1}, "1", "path")
_STEPPED_ASIDE: Final = {
    "id": 1,
    "factId": _FACT,
    "author": "w8-madrid-1",
    "mine": True,
    "class": "orders",
    "reason": "status: 99 is no code known here",
    "at": "2026-05-21T14:05:13Z",
    "state": "open",
    "resolution": None,
    "ask": "resubmit or discard it here",
}
_STEPPED_ASIDE_WHOLE: Final = _STEPPED_ASIDE | {"bytes": 14, "hex": "9d01a16fa131a1450ac00101c0c0", "truncated": False, "event": None}
_POST_TEXT: Final = (
    f"One event or a list of at most {limits.BATCH_EVENTS}, at most {limits.BATCH_BYTES} bytes, taken whole or not at all. "
    "The answer comes after the events are on disk. The same `idempotencyKey` with the same content again gives the first ids "
    "(200 where all were repeats); with other content 409. After 503 it is not known whether it was stored: send it again with its keys."
)
_TELEMETRY_TEXT: Final = (
    f"One reading or a list of at most {limits.BATCH_EVENTS}, taken whole or not at all; answered after it is on disk. Telemetry has a "
    "stream of its own: order facts travel before it, and where room is short it goes first, superseded readings before all, "
    "as signed records of what is missing."
)
_DEVICE: Final = {
    "device": "scanner-7",
    "latest": [
        {
            "kind": "health",
            "timestamp": "2026-05-21T14:05:12Z",
            "values": {"batteryPercent": 87, "signalDbm": -61, "temperature": "21.5"},
            "node": "w8-madrid-1",
            "recordedAt": "2026-05-21T14:05:13.204Z",
        }
    ],
}
_RESUBMIT_TEXT: Final = (
    "The event as it should have been. It becomes a new fact that takes the causal place of the refused one, which stays in the "
    "history. Only its author may, and once (409). A list is not taken."
)
_DISCARD_TEXT: Final = (
    "A withdrawal is written, so that the hub and the central store know that nothing stands in its place; reason and actor are kept."
)


def _taking(path: str, name: str, summary: str, text: str, body: str) -> Operation:
    """Something is captured, one or many at once."""
    repeated = {**_TAKEN, "accepted": 0, "repeated": 1}
    answers = {201: ("On disk.", _TAKEN), 200: ("All of it was on disk already.", repeated)}
    return Operation("post", path, name, summary, text, answers, problems=(401, 403, 409, 413, 415, 422, 503, 507), body=body)


def _resolving(verb: str, summary: str, text: str, body: str) -> Operation:
    """What becomes of a fact that stepped aside."""
    answers = {201: ("On disk.", {"factId": _FACT, "item": _STEPPED_ASIDE_WHOLE})}
    problems = (401, 403, 404, 409, 413, 415, 422, 503)
    return Operation("post", f"/v1/quarantine/{{id}}/{verb}", f"{verb}Quarantined", summary, text, answers, (_QID,), problems, body=body)


OPERATIONS: Final = (
    _taking("/v1/events", "appendEvents", "Take one or many events", _POST_TEXT, "OrderEvent"),
    Operation(
        "get",
        "/v1/orders",
        "listOrders",
        "Orders known here",
        "Newest acquaintance first, by cursor.",
        {200: ("A page.", {"orders": [_LISTED], "cursor": None})},
        (
            Param("status", "Only orders that show this status.", {"type": "string", "enum": list(STATUS_NAMES)}, "SHIPPED"),
            Param("q", "Any fragment of the order id.", _TEXT, "1234"),
            Param("conflict", "Only orders in conflict, or only the others.", {"type": "string", "enum": ["true", "false"]}),
            Param(
                "held", "Only orders that rest until a conflict is settled, or the others.", {"type": "string", "enum": ["true", "false"]}
            ),
            _CURSOR,
            _LIMIT,
        ),
        (401, 403, 422, 503),
    ),
    Operation(
        "get",
        "/v1/orders/{id}",
        "getOrder",
        "Local truth about one order",
        "Status, heads, conflicts in plain words, timeline.",
        {200: ("The order.", _ORDER)},
        (
            Param("id", "The order's id, percent-encoded.", _TEXT, "GLOBAL1234", "path"),
            Param("org", "The organisation that the order belongs to. Default: the node's own.", _TEXT, "acme"),
        ),
        (401, 403, 404, 422, 503),
    ),
    _taking("/v1/telemetry", "appendTelemetry", "Take readings of devices", _TELEMETRY_TEXT, "Reading"),
    Operation(
        "get",
        "/v1/devices",
        "listDevices",
        "The latest of every device",
        "The latest reading per device and kind, by cursor. It stays when the facts behind it were freed or evicted.",
        {200: ("A page.", {"devices": [_DEVICE], "cursor": None})},
        (_CURSOR, _LIMIT),
        (401, 403, 422, 503),
    ),
    Operation("get", "/v1/status", "getStatus", "Queue, link, clock, disk, versions", "", {200: ("Now.", _STATUS)}),
    Operation(
        "get",
        "/v1/quarantine",
        "listQuarantine",
        "Facts that stepped aside",
        "Refused by the hub or unreadable here, newest first. `state`: open until its author resubmitted or discarded it.",
        {200: ("The newest.", {"quarantine": [_STEPPED_ASIDE]})},
        (Param("state", "Only those.", {"type": "string", "enum": ["open", "resubmitted", "discarded"]}), _LIMIT),
        (401, 403, 422, 503),
    ),
    Operation(
        "get",
        "/v1/quarantine/{id}",
        "getQuarantined",
        "One fact that stepped aside",
        "With its bytes (hex, at most 8,192 of them) and, where it can be read here, the event it states.",
        {200: ("The fact.", _STEPPED_ASIDE_WHOLE)},
        (_QID,),
        (401, 403, 404, 422, 503),
    ),
    _resolving("resubmit", "Put a refused fact right", _RESUBMIT_TEXT, "OrderEvent"),
    _resolving("discard", "Give a refused fact up", _DISCARD_TEXT, "Discard"),
    *CONFLICTS,
    *SYNC,
    Operation("get", "/healthz", "getHealth", "The process runs", "", {200: ("It does.", {"healthy": True})}, problems=(), open=True),
    Operation(
        "get",
        "/readyz",
        "getReady",
        "Events would be taken",
        "Whether the hub is in reach does not matter to that.",
        {200: ("They would.", {"ready": True})},
        problems=(503,),
        open=True,
    ),
    Operation(
        "get",
        "/metrics",
        "getMetrics",
        "Prometheus metrics",
        "",
        {200: ("Text format 0.0.4.", "longshore_edge_ready 1.0\n")},
        problems=(401, 403),
        media="text/plain",
    ),
    Operation("get", "/openapi.json", "getOpenapi", "This document", "", {200: ("OpenAPI 3.1.", None)}, problems=(), open=True),
)


@cache
def document() -> Json:
    """The whole document. Shared: not to be changed."""
    paths: Json = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Longshore edge",
            "version": "1",
            "description": "The LAN API of a node at the edge: capture with or without a link.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "What `longshore-edge init` wrote to api.token."}
            },
            "schemas": {
                "OrderEvent": json_schema(),
                "Reading": telemetry.json_schema(),
                "Discard": _DISCARD,
                "Settlement": SETTLEMENT,
                "NodeCard": CARD,
                "Problem": _problem_schema(),
            },
        },
    }


def _operation(o: Operation) -> Json:
    out: Json = {"operationId": o.id, "summary": o.summary}
    if o.description:
        out["description"] = o.description
    if o.open:
        out["security"] = []
    if o.params:
        out["parameters"] = [_param(p) for p in o.params]
    if o.body:
        out["requestBody"] = _binary(o.body) if "/" in o.body else _one_body(o.body) if o.id in _SINGLE else _body(o.body)
    out["responses"] = {str(status): _answer(o.media, text, example) for status, (text, example) in o.answers.items()}
    out["responses"] |= {str(status): _refusal(status) for status in o.problems}
    return out


def _param(p: Param) -> Json:
    out: Json = {"name": p.name, "in": p.place, "description": p.description, "schema": p.schema, "required": p.place == "path"}
    return out | {"example": p.example} if p.example else out


_EXAMPLES: Final = {"OrderEvent": ("One event", EXAMPLES), "Reading": ("One reading", telemetry.EXAMPLES)}
_SINGLE: Final = ("resubmitQuarantined", "discardQuarantined", "addPeer", "settleConflict")
_DISCARD: Final[Json] = {
    "type": "object",
    "required": ["reason"],
    "additionalProperties": False,
    "properties": {"reason": {"type": "string", "minLength": 1, "maxLength": 200}, "actor": {"type": "string", "maxLength": 128}},
    "examples": [{"reason": "scanned twice", "actor": "staff-17"}],
}


def _body(name: str) -> Json:
    title, sent = _EXAMPLES[name]
    one: Json = {"$ref": f"#/components/schemas/{name}"}
    schema = {"oneOf": [one, {"type": "array", "items": one, "minItems": 1, "maxItems": limits.BATCH_EVENTS}]}
    examples = {"one": {"summary": title, "value": sent[0]}, "many": {"summary": "A batch", "value": list(sent)}}
    return {"required": True, "content": {"application/json": {"schema": schema, "examples": examples}}}


def _one_body(name: str) -> Json:
    return {"required": True, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}}


def _binary(media: str) -> Json:
    return {"required": True, "content": {media: {"schema": {"type": "string", "format": "binary"}}}}


def _answer(media: str, text: str, example: Any) -> Json:
    content: Json = {"schema": {"type": "object"} if media == "application/json" else {"type": "string"}}
    if example is not None:
        content["example"] = example
    return {"description": text, "content": {media: content}}


def _refusal(status: int) -> Json:
    title = next(kind.title for kind in KINDS if kind.status == status)
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": f"{title}.", "content": {"application/problem+json": {"schema": schema, "example": _problem_example(status)}}}


def _problem_example(status: int) -> Json:
    kind = next(kind for kind in KINDS if kind.status == status)
    return {"type": f"urn:longshore:problem:{kind.slug}", "title": kind.title, "status": status, "detail": f"{kind.title}."}


def _problem_schema() -> Json:
    """RFC 9457, with what this API adds."""
    text = {"type": "string"}
    return {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": text,
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "field": {"type": "string", "description": "JSON path of what is wrong, such as [3].status."},
            "allowed": {"type": "array", "items": text},
            "remedy": {"type": "string", "description": "What to do about it."},
        },
        "examples": [
            {
                "type": "urn:longshore:problem:invalid-input",
                "title": "The request cannot be taken as it is",
                "status": 422,
                "detail": "status: 'SHIPED' is not a status.",
                "field": "status",
                "allowed": list(STATUS_NAMES),
                "remedy": "Did you mean SHIPPED?",
            }
        ],
    }
