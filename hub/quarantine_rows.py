"""Facts that stepped aside, as the hub's core sees them: looked at whoever wrote them, put right or given up where the hub itself did.

Inside the hub's transaction. Of others' facts it is said who must act.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protocols.event import OrderEvent
from protocols.ledger import Appended, Ledger
from protocols.quarantine import discard, resubmit
from protocols.quarantine_view import item_json, whole_json

if TYPE_CHECKING:
    from hub.core import HubCore

Json = dict[str, Any]


def rows(ledger: Ledger, limit: int) -> list[Json]:
    """What stepped aside, newest first, as lists and pages show it; `atMs` beside `at`."""
    ledger.flush()
    items = ledger.quarantine_rows.items(limit)
    return [_named(item_json(ledger, item)) | {"atMs": item.at_ms} for item in items]


def _named(row: Json) -> Json:
    """With its author as other lists of the hub call it."""
    return {**row, "node": row["author"]}


def look(core: HubCore, qid: int) -> Json | None:
    """One of them, with its bytes."""
    core.ledger.flush()
    item = core.ledger.quarantine_rows.get(qid)
    return None if item is None else _named(whole_json(core.ledger, item))


def put_right(core: HubCore, now_ms: int, qid: int, event: OrderEvent) -> Json:
    """A new fact of the hub in the place of a refused one of the hub. Errors: InvalidInput (not its own), Conflict (resolved already)."""
    return _resolved(core, qid, resubmit(core.ledger, qid, event, now_ms))


def give_up(core: HubCore, now_ms: int, qid: int, why: str, actor: str | None) -> Json:
    """The hub gives up a fact of its own. Errors: as `put_right`."""
    return _resolved(core, qid, discard(core.ledger, qid, why, now_ms, actor=actor))


def _resolved(core: HubCore, qid: int, fact: Appended) -> Json:
    core.wrote(fact.stream)
    return {"factId": fact.fact_id, "item": look(core, qid)}
