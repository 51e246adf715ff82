"""The part of the OpenAPI document about conflicts. Its example is made by the code that answers, so that it cannot drift."""

from __future__ import annotations

from typing import Any, Final

from edge_agent.operation import Operation, Param
from protocols.clashes import Clash, State, clash_json, policies_json
from protocols.lifecycle import STATUS_NAMES, Status
from protocols.policies import shipped
from protocols.policy import Told

_PICKED: Final = Told(
    "w8-madrid-1", 0x5F3A9C01D2E4B6A7, 17, bytes.fromhex("9f86d081884c7d65"), Status.PICKED, "WMS", "W8-Madrid", "staff-17",
    1_779_372_312_000, 1_779_372_313_204, 1_779_372_313_204,
)  # fmt: skip
_CANCELLED: Final = Told(
    "hub", 0x11D2E4B6A75F3A9C, 4_711, bytes.fromhex("2c26b46b68ffc68f"), Status.CANCELLED, "ERP", None, "desk-2", 1_779_371_100_000,
    1_779_371_100_350, 1_779_379_000_000,
)  # fmt: skip


def _example() -> dict[str, Any]:
    verdict = shipped().judge(_PICKED, _CANCELLED)
    clash = Clash(
        verdict.id, 1, State.OPEN, verdict.outcome, verdict.rule.id, verdict.sentence, verdict.shown, verdict.other, verdict.rule.task, (),
        1_779_379_000_000, None,
    )  # fmt: skip
    return clash_json(clash, "acme", "GLOBAL1234")


CONFLICT: Final = _example()
_LIST: Final = {"conflicts": [CONFLICT], "policies": policies_json(shipped()), "bound": 200, "more": False}
_SETTLED: Final = {
    "factId": "w8-madrid-1/5f3a9c01d2e4b6a7/18/60303ae2",
    "repeated": False,
    "conflict": CONFLICT["id"],
    "org": "acme",
    "orderId": "GLOBAL1234",
    "status": "RETURNED",
    "actor": "staff-17",
    "settles": [CONFLICT["shownFact"], CONFLICT["otherFact"]],
}
_TEXT: Final = {"type": "string"}
SETTLEMENT: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["status", "actor"],
    "additionalProperties": False,
    "properties": {
        "status": {"type": "string", "enum": list(STATUS_NAMES), "description": "What is true now; the task proposes some."},
        "actor": {"type": "string", "maxLength": 128, "description": "Who settles it."},
        "note": {"type": "string", "maxLength": 400, "description": "For the others; it is appended to the order's notes."},
        "source": _TEXT,
        "site": _TEXT,
        "timestamp": {"type": "string", "format": "date-time", "description": "Default: now."},
        "timeQuality": _TEXT,
        "heads": {"type": "array", "items": _TEXT, "description": "Ids of the facts that stood when you looked; others now: 409."},
        "details": {"type": "object"},
        "idempotencyKey": _TEXT,
    },
    "examples": [{"status": "RETURNED", "actor": "staff-17", "note": "put back on shelf 3", "idempotencyKey": "settle-1"}],
}
_ID: Final = Param("id", "The conflict's id: the same at every node.", _TEXT, CONFLICT["id"], "path")

OPERATIONS: Final = (
    Operation(
        "get",
        "/v1/conflicts",
        "listConflicts",
        "Facts that did not know of each other, and people must look at",
        "Newest first, with policy, outcome, task, who did what, and who settled it. `policies` names the table that judged them.",
        {200: ("The newest.", _LIST)},
        (
            Param("open", "Only those that nobody has settled.", {"type": "string", "enum": ["true", "false"]}),
            Param("limit", "How many at most.", {"type": "integer", "minimum": 1, "maximum": 1_000, "default": 200}),
        ),
        (401, 403, 422, 503),
    ),
    Operation(
        "get", "/v1/conflicts/{id}", "getConflict", "One conflict", "", {200: ("The conflict.", CONFLICT)}, (_ID,), (401, 403, 404, 503)
    ),
    Operation(
        "post",
        "/v1/conflicts/{id}/settle",
        "settleConflict",
        "Settle a conflict",
        "Writes an ordinary event of this node, whose author has seen every fact that stands; `details.settles` names them. 409 where the "
        "conflict is not open here (any more). The same `idempotencyKey` again gives the first answer (200).",
        {201: ("On disk.", _SETTLED), 200: ("It was settled by this very request before.", {**_SETTLED, "repeated": True})},
        (_ID,),
        (401, 403, 404, 409, 413, 415, 422, 503, 507),
        body="Settlement",
    ),
)
