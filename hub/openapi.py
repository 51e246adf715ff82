"""The OpenAPI 3.1 document of the hub, written from a table. A test holds it against the routes and against real answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from hub.device_views import SHOWN_STATES
from protocols import limits
from protocols.event import EXAMPLES, json_schema
from protocols.lifecycle import STATUS_NAMES
from protocols.sync.parcel import MEDIA_TYPE, PARCEL_BYTES, PARCEL_MESSAGES, WAIT_MOST_S

Json = dict[str, Any]
VERSION: Final = "1"


@dataclass(frozen=True, slots=True)
class Param:
    """A query or path parameter."""

    name: str
    description: str
    schema: Json
    example: str = ""
    place: str = "query"


def _text(description: str, name: str, example: str = "") -> Param:
    return Param(name, description, {"type": "string"}, example)


def _whole(name: str, default: int, most: int) -> Param:
    return Param(name, f"How many at most. Default {default}.", {"type": "integer", "minimum": 1, "maximum": most, "default": default})


CURSOR: Final = _text("Where the page before ended: its `cursor`, or the address in its `Link` header.", "cursor")
ORG: Final = _text("The organisation that the order belongs to; needed where several have an order with this id.", "org", "acme")
QID: Final = Param("id", "Its number in the list.", {"type": "integer", "minimum": 1}, "1", "path")
ORDER_ID: Final = Param("id", "The order's id, percent-encoded; a slash in it as %2F.", {"type": "string"}, "GLOBAL1234", "path")
BACKUP_ID: Final = Param("id", "The id that registering gave.", {"type": "string"}, "3f2a9c1e", "path")

CLASH_ID: Final = Param("id", "The conflict's id: the same at every node.", {"type": "string"}, "9f86d0818c2f1a3b", "path")


@dataclass(frozen=True, slots=True)
class Operation:
    """One address and method. `answers`: status, description, schema (a name of `_schemas`, or a media type that is not JSON)."""

    method: str
    path: str
    id: str
    summary: str
    description: str = ""
    params: Sequence[Param] = ()
    answers: Sequence[tuple[int, str, str]] = ()
    problems: Sequence[int] = ()
    body: str = ""
    open: bool = False


_SETTLE_TEXT: Final = (
    "Writes an ordinary event of this node, whose author has seen every fact that stands: what is true now, who says so, and a note; "
    "`details.settles` names the facts. 409 where the conflict is not open here (any more), or where `heads` is sent and others stand. "
    "The same `idempotencyKey` again gives the first answer."
)
_SYNC_TEXT: Final = (
    f"The body is a list of signed envelopes (protocols/README.md), each behind its length in four bytes, the highest first: at most "
    f"{PARCEL_MESSAGES} envelopes and {PARCEL_BYTES} bytes; it may be empty. A node signs in with its name and broker password (HTTP "
    "Basic) and is answered with what the hub said to it and to those it carries for, in the same form; receipts say what is on disk, the "
    "status of the answer does not. With a token (an operator with a stick) the answer is empty; with `Accept: application/json` it says, "
    "after the commit, what became of each message. 507: the hub's ledger is full, no frame was taken."
)
_ORDERS_TEXT: Final = (
    "Most recently received first, by cursor. `format=csv` gives up to 10,000 rows in one file; where there are more, "
    "the `Link` header leads on."
)
_JEOPARDY_TEXT: Final = "Reserved: nothing scores orders yet, so any value is refused with 422. It arrives with the jeopardy model."
_STREAM_TEXT: Final = (
    "Server-sent events. `change`: a fact was applied (ids; resume with `Last-Event-ID`, or `after=` on the first connect). `reset`: some "
    "were missed, fetch again what you show. With `state=1` also `state` (totals, when something changed, at most once a second) and "
    "`tick` (the hub's clock, and how many ms this stream is behind). A comment keeps a quiet stream alive every 10 s. Memory is bounded: "
    "a reader that falls 2,000 events behind gets `reset`. At most 200 streams, then 503."
)
_APPEND_TEXT: Final = (
    f"One event or a list of at most {limits.BATCH_EVENTS}, at most {limits.BATCH_BYTES} bytes, taken whole or not at all. The answer "
    "comes after the events are on disk. The same `idempotencyKey` with the same content again gives the first ids (200 where all were "
    "repeats); with other content 409."
)

_BACKUP_TEXT: Final = (
    "Before the first byte is copied, by whatever tool. From then on nodes keep what it may lack; once it is complete it is a cover, "
    "until it is expired."
)

OPERATIONS: Final = (
    Operation("get", "/v1/orders", "listOrders", "Orders of the consolidated view", _ORDERS_TEXT, (
        _text("Only orders last seen at this site.", "site", "W8-Madrid"),
        Param("status", "Only orders that show this status.", {"type": "string", "enum": list(STATUS_NAMES)}, "SHIPPED"),
        _text("Only orders of this region.", "region", "EMEA"),
        _text(_JEOPARDY_TEXT, "jeopardy"),
        _text("Any fragment of the order id.", "q", "1234"),
        CURSOR, ORG,
        Param("conflict", "Only orders with an open conflict, or only those without.", {"type": "boolean"}),
        Param("held", "Only orders that rest until a conflict is settled, or only the others.", {"type": "boolean"}),
        _whole("limit", 50, 500),
        Param("format", "How to answer.", {"type": "string", "enum": ["json", "csv"], "default": "json"}),
    ), ((200, "A page of orders.", "OrderPage"),), (422,)),
    Operation("get", "/v1/orders/{id}", "getOrder", "One order", "", (ORDER_ID, ORG),
              ((200, "The order, its conflicts, and what stands side by side.", "OrderFull"),), (404, 409)),
    Operation("get", "/v1/orders/{id}/events", "getOrderEvents", "The timeline of an order",
              "Facts as the store took them; bounded to the last 1,000 (`total` says how many there are).", (ORDER_ID, ORG),
              ((200, "The facts.", "Timeline"),), (404, 409)),
    Operation("get", "/v1/fleet", "getFleet", "Every node, with what is not here yet", "", (CURSOR, _whole("limit", 200, 500)),
              ((200, "The nodes, by name.", "Fleet"),), (422,)),
    Operation("get", "/v1/devices", "getDevices", "Devices of the fleet, by what their gateways told last",
              "By node and name. Of each word the latest reading that has it counts; what nobody said is null.", (
        _text("Only devices that this node told of.", "node", "dock-7"),
        Param("state", "Only devices in this state.", {"type": "string", "enum": list(SHOWN_STATES)}, "active"),
        CURSOR, _whole("limit", 200, 500),
    ), ((200, "The devices.", "Devices"),), (422,)),
    Operation("get", "/v1/workers", "getWorkers", "Who shares this hub's nodes, and who holds what",
              "As of this worker's last round with the lease table; empty lists where one process serves all nodes.", (),
              ((200, "The workers.", "Workers"),)),
    Operation("get", "/v1/balance", "getBalance", "Whether every captured fact is accounted for",
              "captured = settled + queued + inCustody + quarantined + evicted, per node and for the fleet. "
              "`balanced` is null while it is not known (right after a start, or without the central store); `unknown` says why.", (),
              ((200, "The balance.", "Balance"),)),
    Operation("get", "/v1/conflicts", "listConflicts", "Conflicts, newest first", "Bounded; `more` says whether there are others.", (
        Param("open", "Only those that nobody settled.", {"type": "boolean", "default": False}), _whole("limit", 200, 1000),
    ), ((200, "The conflicts.", "Conflicts"),), (422,)),
    Operation("get", "/v1/conflicts/{id}", "getConflict", "One conflict", "", (CLASH_ID,),
              ((200, "The conflict.", "Conflict"),), (404, 422)),
    Operation("post", "/v1/conflicts/{id}/settle", "settleConflict", "Settle a conflict", _SETTLE_TEXT, (CLASH_ID,),
              ((201, "Settled; on disk.", "Settled"), (200, "It was settled by this very request before.", "Settled")),
              (404, 409, 413, 415, 422, 503, 507), "Settlement"),
    Operation("get", "/v1/stream", "stream", "The live feed", _STREAM_TEXT, (
        _text("Resume after this event id where a `Last-Event-ID` header cannot be sent.", "after"),
        Param("state", "Also totals and ticks.", {"type": "string", "enum": ["1"]}),
    ), ((200, "A stream that does not end.", "text/event-stream"),), (503,)),
    Operation("post", "/v1/events", "appendEvents", "Take events of source systems", _APPEND_TEXT, (),
              ((201, "Taken; on disk.", "Taken"), (200, "All of them were taken before.", "Taken")),
              (409, 413, 415, 422, 503, 507), "Events"),
    Operation("get", "/v1/nodes", "listNodes", "The admitted nodes", "", (CURSOR, _whole("limit", 200, 500)),
              ((200, "The nodes, by name.", "Nodes"),), (422,)),
    Operation("post", "/v1/nodes", "admitNode", "Admit a node by its card",
              "The JSON that `longshore-edge init` printed. A taken name is refused.",
              (_text("Organisations that it may speak for beside its own, between commas; `*` for any. Facts of others are quarantined.",
                     "org"),),
              ((201, "Admitted.", "Node"),), (409, 413, 415, 422), "NodeCard"),
    Operation("get", "/v1/gaps", "getGaps", "What the hub knows that it does not have",
              "`holes`: below what is held, by the branch that they lie on. `beyond`: above it, by the heads that nodes named. Since when, "
              "how often the node was asked, and how the last ones were closed: with the data, or with its author's signed record.", (),
              ((200, "The gap ledger.", "Gaps"),)),
    Operation("get", "/v1/refused", "listRefused", "Frames kept as evidence, and who was not let in",
              f"Newest first; the last {limits.REFUSED_KEPT} frames are kept. `turnedAway`: names that the embedded broker "
              "refused since its start.", (),
              ((200, "The frames.", "Refused"),)),
    Operation("get", "/v1/quarantine", "listQuarantine", "Facts that stepped aside",
              "Newest first, at most 1,000, with their state; `ask` says who must act while one is open.", (),
              ((200, "The facts.", "Quarantine"),)),
    Operation("get", "/v1/quarantine/{id}", "getQuarantined", "One fact that stepped aside",
              "With its bytes (hex, at most 8,192 of them) and, where it can be read here, the event it states.", (QID,),
              ((200, "The fact.", "Quarantined"),), (404, 422, 503)),
    Operation("post", "/v1/quarantine/{id}/resubmit", "resubmitQuarantined", "Put a fact of the hub right",
              "The event as it should have been: it becomes a new fact that takes the causal place of the refused one. "
              "Only its author may, and once.", (QID,),
              ((201, "On disk.", "Resolved"),), (404, 409, 413, 415, 422, 503), "OrderEvent"),
    Operation("post", "/v1/quarantine/{id}/discard", "discardQuarantined", "Give a fact of the hub up",
              "A withdrawal is written; the fact, the reason and who decided stay in the history.", (QID,),
              ((201, "On disk.", "Resolved"),), (404, 409, 413, 415, 422, 503), "Discard"),
    Operation("get", "/v1/backups", "listBackups", "Backups of the central store", "Oldest first; expired ones for a while.", (),
              ((200, "The backups.", "Backups"),)),
    Operation("post", "/v1/backups", "beginBackup", "Register a backup of the central store that is about to begin", _BACKUP_TEXT, (),
              ((201, "Registered; copy now.", "Backup"),), (413, 415, 422, 503), "BackupBegun"),
    Operation("post", "/v1/backups/{id}", "changeBackup", "Say that a backup is complete, or will never be restored",
              "`expired` is final: facts that the backup lacks may be freed from then on. `complete` also applies retention.",
              (BACKUP_ID,), ((200, "As it is now, and what retention ended.", "BackupChanged"),), (413, 415, 422, 503), "BackupState"),
    Operation("post", "/v1/backups/retention", "retainBackups", "Expire what [backup] in hub.toml does not keep", "", (),
              ((200, "What was expired.", "BackupsExpired"),), (503,)),
    Operation("post", "/v1/sync", "sync", "Hand over signed messages, and fetch what the hub said", _SYNC_TEXT, (
        _text("The node that asks, where it says so; it must be the one that signed in.", "node", "phone-17"),
        Param("wait", "Seconds to wait for mail where there is none.",
              {"type": "integer", "minimum": 0, "maximum": WAIT_MOST_S, "default": 0}),
    ), ((200, "Envelopes for the node that signed in, perhaps none.", MEDIA_TYPE),), (413, 415, 422, 503, 507), MEDIA_TYPE),
    Operation("get", "/healthz", "healthz", "Alive", "", (), ((200, "The process answers.", "Alive"),), (), "", True),
    Operation("get", "/readyz", "readyz", "Ready", "", (), ((200, "Ready.", "Ready"), (503, "Not ready, and why.", "Ready")), (), "", True),
    Operation("get", "/metrics", "metrics", "Metrics in Prometheus' text format", "", (), ((200, "The samples.", "text/plain"),)),
    Operation("get", "/openapi.json", "openapi", "This document", "", (), ((200, "OpenAPI 3.1.", "Any"),), (), "", True),
)  # fmt: skip


@cache
def document() -> Json:
    """The whole document. Callers do not change it."""
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Longshore hub",
            "version": VERSION,
            "description": "One consolidated view of orders, and what is not here yet. Errors are RFC 9457 problem documents. Epochs are "
            "text: they use all 63 bits.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "In api.token, from `longshore-hub init`."},
                "node": {"type": "http", "scheme": "basic", "description": "An admitted node's name and its broker password."},
            },
            "schemas": _schemas(),
        },
    }


def _operation(operation: Operation) -> Json:
    out: Json = {"operationId": operation.id, "summary": operation.summary}
    if operation.description:
        out["description"] = operation.description
    if operation.open:
        out["security"] = []
    elif operation.body == MEDIA_TYPE:
        out["security"] = [{"token": []}, {"node": []}]
    if operation.params:
        out["parameters"] = [_param(param) for param in operation.params]
    if "/" in operation.body:
        out["requestBody"] = {"required": True, "content": {operation.body: {"schema": {"type": "string", "format": "binary"}}}}
    elif operation.body:
        out["requestBody"] = {"required": True, "content": {"application/json": _body(operation.body)}}
    refusals = [*operation.problems, *([] if operation.open else [401])]
    out["responses"] = {
        **{str(status): _answer(description, schema, operation) for status, description, schema in operation.answers},
        **{str(status): _problem(status) for status in sorted(refusals)},
    }
    return out


def _param(param: Param) -> Json:
    out: Json = {"name": param.name, "in": param.place, "description": param.description, "schema": param.schema}
    if param.place == "path":
        out["required"] = True
    return out | ({"example": param.example} if param.example else {})


def _body(name: str) -> Json:
    if name != "Events":
        return {"schema": _ref(name)}
    one, other = EXAMPLES
    return {"schema": _ref(name), "examples": {"one": {"value": one}, "several": {"value": [one, other]}}}


def _answer(description: str, schema: str, operation: Operation) -> Json:
    if "/" in schema:
        return {"description": description, "content": {schema: {"schema": {"type": "string"}}}}
    content: Json = {"application/json": {"schema": _ref(schema)}}
    if any(param.name == "format" for param in operation.params):
        content["text/csv"] = {"schema": {"type": "string"}}
    return {"description": description, "content": content}


_REFUSALS: Final = {
    401: "A token is needed.", 404: "There is no such thing.", 409: "It contradicts what was said before, or an id is ambiguous.",
    413: "Too large.", 415: "Not sent as application/json.", 422: "Malformed; names the field and what is allowed. Nothing was stored.",
    503: "Not now; send it again.", 507: "No room on disk. Nothing was stored.",
}  # fmt: skip


def _problem(status: int) -> Json:
    return {"description": _REFUSALS[status], "content": {"application/problem+json": {"schema": _ref("Problem")}}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


# ------------------------------------------------------------------ schemas

_STR: Final[Json] = {"type": "string"}
_INT: Final[Json] = {"type": "integer"}
_BOOL: Final[Json] = {"type": "boolean"}
_OPT: Final[Json] = {"type": ["string", "null"]}
_OPT_INT: Final[Json] = {"type": ["integer", "null"]}
_OPT_BOOL: Final[Json] = {"type": ["boolean", "null"]}
_WHEN: Final[Json] = {"type": ["string", "null"], "format": "date-time"}
_MAP: Final[Json] = {"type": "object"}


def _object(**properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(of: Json) -> Json:
    return {"type": "array", "items": of}


def _schemas() -> dict[str, Json]:
    event = {name: value for name, value in json_schema().items() if name != "$schema"}
    return {
        "Any": _MAP,
        "OrderEvent": event,
        "Events": {"oneOf": [_ref("OrderEvent"), {**_list(_ref("OrderEvent")), "minItems": 1, "maxItems": limits.BATCH_EVENTS}]},
        "Taken": _object(ids=_list({**_STR, "description": "node/epoch/seq/hash"}), accepted=_INT, repeated=_INT),
        "Problem": {
            **_object(type=_STR, title=_STR, status=_INT, detail=_STR),
            "examples": [
                {
                    "type": "urn:longshore:problem:invalid-input", "title": "The request cannot be taken as it is", "status": 422,
                    "detail": "status: 'SHIPED' is not a status.", "field": "status", "allowed": list(STATUS_NAMES),
                    "remedy": "Did you mean SHIPPED?",
                }
            ],
        },
        **_order_schemas(),
        **_fleet_schemas(),
        **_copies_and_gaps(),
        "Alive": _object(status=_STR),
        "Ready": _object(ready=_BOOL, reasons=_list(_STR), findings=_list(_STR), line=_line(), bridge=_bridge()),
    }  # fmt: skip


def _bridge() -> Json:
    """The way to the central store over Kafka; null where the hub applies to the store itself."""
    counts = ("backlog", "backlogAgeMs", "unsettled", "unsettledAgeMs", "produced", "producedAgain", "producers", "errors", "tooLarge")
    return {**_object(kind=_STR, up=_BOOL, error=_STR, **dict.fromkeys(counts, _INT)), "type": ["object", "null"]}


def _line() -> Json:
    """The hub's own line to its broker."""
    seen = _object(kind=_STR, topic=_STR, reason=_STR, count=_INT, since=_WHEN, last=_WHEN, remedy=_STR)
    return _object(connected=_BOOL, protocol=_STR, problem=_STR, refusals=_list(seen))


def _order_schemas() -> dict[str, Json]:
    quality = {"type": "string", "enum": ["stated", "unknown", "improbable"]}
    place = {"source": _STR, "region": _OPT, "site": _OPT, "node": _STR, "timestamp": _WHEN, "timeQuality": quality, "receivedAt": _WHEN}
    status = {"type": "string", "enum": list(STATUS_NAMES)}
    order = _object(
        org=_STR, orderId=_STR, status=status, **place, expectedDelivery=_WHEN, facts=_INT, heads=_INT, conflict=_BOOL, abnormal=_BOOL,
        held=_BOOL, quantities=_MAP, details=_MAP, links=_object(self=_STR, events=_STR, page=_STR),
    )  # fmt: skip
    fact = _object(
        factId=_STR, traceId=_STR, epoch=_STR, seq=_INT, status=status, **place, actor=_OPT, recordedAt=_WHEN, storedAt=_WHEN, isHead=_BOOL,
        abnormal=_BOOL, context=_list({"type": "array"}), details=_MAP, clock=_OPT, recordedAbout=_WHEN, replaces=_OPT, replacedBy=_OPT,
    )  # fmt: skip
    note = _object(text=_STR, by=_STR, factId=_STR)
    more = {"heldBecause": _OPT, "conflicts": _list(_ref("Conflict")), "credited": _list(_STR), "notes": _list(note)}
    return {
        "OrderFull": _object(**order["properties"], **more, concurrent=_list(_pair())),
        "Order": order,
        "OrderPage": _object(orders=_list(_ref("Order")), cursor=_OPT),
        "Fact": fact,
        "Timeline": _object(org=_STR, orderId=_STR, events=_list(_ref("Fact")), total=_INT, bound=_INT),
        **_conflict_schemas(status),
    }


def _pair(**more: Json) -> Json:
    """Two facts that did not see each other, as a policy judged them."""
    outcome = {"type": "string", "enum": ["accept", "task", "hold"]}
    return _object(id=_STR, outcome=outcome, policy=_STR, sentence=_STR, shownFact=_STR, otherFact=_STR, credited=_list(_STR), **more)


def _conflict_schemas(status: Json) -> dict[str, Json]:
    told = _object(factId=_STR, status=status, actor=_OPT, node=_STR, source=_OPT, site=_OPT, at=_WHEN, recordedAt=_WHEN, note=_OPT)
    assignee = {"type": "string", "enum": ["dock", "centre"]}
    task = _object(id=_STR, title=_STR, open=_BOOL, steps=_list(_object(record=status, words=_STR)), **{"for": assignee})
    conflict = _pair(
        org=_STR, orderId=_STR, open=_BOOL, state={"type": "string", "enum": ["open", "settled", "went-on"]}, held=_BOOL, facts=_list(told),
        task={**task, "type": ["object", "null"]}, raisedAt=_WHEN, settledAt=_WHEN, settledBy=_list(told),
        links=_object(order=_STR, settle=_STR), page=_STR,
    )  # fmt: skip
    fields = {
        "status": status, "actor": _STR, "note": _STR, "source": _STR, "site": _STR, "timestamp": _STR, "timeQuality": _STR,
        "heads": _list(_STR), "details": _MAP, "idempotencyKey": _STR,
    }  # fmt: skip
    settled = _object(factId=_STR, repeated=_BOOL, conflict=_STR, org=_STR, orderId=_STR, status=status, actor=_STR, settles=_list(_STR))
    return {
        "Conflict": conflict,
        "Conflicts": _object(
            conflicts=_list(_ref("Conflict")), policies=_object(name=_STR, digest=_STR, rules=_INT), bound=_INT, more=_BOOL
        ),
        "Settlement": {"type": "object", "required": ["status", "actor"], "properties": fields, "additionalProperties": False},
        "Settled": settled,
    }


def _fleet_schemas() -> dict[str, Json]:
    worker = _object(worker=_STR, here=_BOOL, place=_STR, partitions=_list(_INT), leaseLeftMs=_INT, aliveMs=_INT, lastChangeMs=_OPT_INT)
    missing = _object(facts=_OPT_INT, bytes=_OPT_INT, atLeast=_BOOL, sentence=_STR)
    catch_up = {**_object(done=_INT, total=_INT, leftMs=_OPT_INT), "type": ["object", "null"]}
    node = _object(
        node=_STR, org=_STR, region=_STR, site=_STR, fingerprint=_STR, admitted=_BOOL, online=_BOOL, lastSeenAt=_WHEN, clockSkewMs=_OPT_INT,
        clock=_OPT,
        head=_OPT_INT, received=_INT, settled=_INT, notHereYet=missing, oldestAgeMs=_OPT_INT, queuedBytes=_OPT_INT, catchUp=catch_up,
        holes=_INT, refused=_INT, waiting=_INT, forked=_BOOL, incarnations=_INT, version=_STR, diskFreeBytes=_OPT_INT,
        devices=_INT, telemetryAt=_WHEN,
        deviceSummary=_object(states=_MAP, lowBattery=_INT, weakSignal=_INT, first=_list(_ref("Device")), url=_STR),
    )  # fmt: skip
    device = _object(
        node=_STR, device=_STR, state=_OPT, mac=_OPT, serial=_OPT, firmware=_OPT, lastSeenAt=_WHEN, heardAt=_WHEN, signalDbm=_OPT_INT,
        batteryPercent=_OPT_INT,
    )  # fmt: skip
    custody = _object(events=_INT, bytes=_INT, oldestMs=_OPT_INT)
    balance = _object(
        node=_STR, captured=_INT, settled=_INT, queued=_INT, inCustody=_INT, quarantined=_INT, quarantinedResolved=_INT, custody=custody,
        evicted={"type": "object", "additionalProperties": _INT}, balanced=_OPT_BOOL, unknown=_OPT, notHereYet=_OPT_INT,
        accounted=_INT, sentence=_STR,
    )  # fmt: skip
    frame = _object(digest=_STR, node=_STR, reason=_STR, at=_WHEN, bytes=_INT)
    away = _object(node=_STR, count=_INT, reason=_STR, at=_WHEN)
    resolution = {**_object(factId=_STR, at=_WHEN, who=_OPT, why=_OPT), "type": ["object", "null"]}
    fact = _object(
        id=_INT, factId=_STR, node=_STR, author=_STR, mine=_BOOL, reason=_STR, at=_WHEN, state=_STR, resolution=resolution, ask=_OPT,
        **{"class": _STR},
    )  # fmt: skip
    whole = {
        **fact,
        "properties": {**fact["properties"], "bytes": _INT, "hex": _STR, "truncated": _BOOL, "event": {"type": ["object", "null"]}},
    }
    names = ("longshore", "node", "org", "region", "site", "publicKey", "brokerPassword", "signature")
    return {
        "FleetNode": node,
        "Workers": _object(worker=_STR, held=_INT, heldOver=_INT, workers=_list(worker), unheld=_list(_INT), troubles=_list(_STR)),
        "Fleet": _object(fleet=_list(_ref("FleetNode")), cursor=_OPT, asOf=_WHEN),
        "Device": device,
        "Devices": _object(devices=_list(_ref("Device")), cursor=_OPT),
        "BalanceRow": balance,
        "Balance": _object(asOf=_WHEN, fleet=_ref("BalanceRow"), nodes=_list(_ref("BalanceRow")), alarms=_list(_STR)),
        "NodeCard": {**_object(**dict.fromkeys(names, _STR)), "additionalProperties": False},
        "Node": {"type": "object", "required": ["node"], "properties": {"node": _STR}},
        "Nodes": _object(nodes=_list(_ref("Node")), cursor=_OPT),
        "Refused": _object(refused=_list(frame), bound=_INT, more=_BOOL, turnedAway=_list(away)),
        "Quarantined": whole,
        "Resolved": _object(factId=_STR, item=_ref("Quarantined")),
        "Discard": {
            "type": "object",
            "required": ["reason"],
            "additionalProperties": False,
            "properties": {"reason": {"type": "string", "minLength": 1, "maxLength": 200}, "actor": {"type": "string", "maxLength": 128}},
        },
        "Quarantine": _object(quarantined=_list(fact), bound=_INT, more=_BOOL),
    }


def _copies_and_gaps() -> dict[str, Json]:
    gap = {
        "node": _STR, "epoch": _STR, "class": _INT, "first": _INT, "last": _INT, "facts": _INT, "branch": _STR, "since": _WHEN,
        "asked": _INT, "lastAsked": _WHEN,
    }  # fmt: skip
    backup = _object(
        id=_STR, state={"type": "string", "enum": ["begun", "complete", "expired"]}, begunAt=_WHEN, finishedAt=_WHEN, expiredAt=_WHEN,
        tool=_STR, place=_STR, streams=_INT, facts=_INT,
    )  # fmt: skip
    listed = _list(_ref("Backup"))
    return {
        "Backup": backup,
        "Backups": _object(backups=listed),
        "BackupBegun": _object(tool=_STR, place=_STR),
        "BackupState": _object(state={"type": "string", "enum": ["complete", "expired"]}),
        "BackupChanged": _object(backup=_ref("Backup"), expired=listed),
        "BackupsExpired": _object(expired=listed),
        "Gap": _object(**gap),
        "ClosedGap": _object(**gap, closed=_WHEN, how=_STR),
        "Gaps": _object(
            asOf=_WHEN, facts=_INT, holes=_list(_ref("Gap")), beyond=_list(_ref("Gap")), closed=_list(_ref("ClosedGap")), more=_BOOL
        ),
    }
