"""A quarantined fact as people and programs see it, at edge and hub, and what they send to put it right. Reads; writes nothing."""

from __future__ import annotations

from typing import Any, Final

from protocols.details import check_text, json_type
from protocols.errors import InvalidInput
from protocols.event import event_json, format_time
from protocols.fact import WHY_CHARS
from protocols.ledger import Ledger
from protocols.limits import TEXT_CHARS
from protocols.quarantine import Item, State, order_event

Json = dict[str, Any]
RAW_BYTES: Final = 8_192
"""of a refused fact that are shown"""
STATES: Final = tuple(state.name.lower() for state in State)
_CLASSES: Final = ("orders", "telemetry")
_DISCARD_FIELDS: Final = ("reason", "actor")


def item_json(ledger: Ledger, item: Item) -> Json:
    """One line of the list. `mine`: this node wrote it, so it is to be resolved here; `ask` says where, otherwise."""
    key = ledger.log.by_sid(item.identity[0]).key
    mine = key.node == ledger.node
    return {
        "id": item.qid, "factId": ledger.fact_id(item.identity), "author": key.node, "mine": mine,
        "class": _CLASSES[key.cls] if key.cls < len(_CLASSES) else str(key.cls),
        "reason": item.reason, "at": format_time(item.at_ms), "state": item.state.name.lower(),
        "resolution": _resolution(ledger, item), "ask": None if item.state is not State.OPEN else _ask(key.node, mine=mine),
    }  # fmt: skip


def _resolution(ledger: Ledger, item: Item) -> Json | None:
    if item.by is None or item.resolved_ms is None:
        return None
    return {"factId": ledger.fact_id(item.by), "at": format_time(item.resolved_ms), "who": item.who, "why": item.note}


def _ask(author: str, *, mine: bool) -> str:
    return (
        "resubmit or discard it here" if mine else f"only {author} can put it right or give it up: longshore-edge queue quarantine, there"
    )


def whole_json(ledger: Ledger, item: Item) -> Json:
    """Everything about one: also its bytes, bounded, and what it says where it can be read here, ready to be changed and resubmitted."""
    data = ledger.quarantine_rows.bytes_of(item)
    fact = order_event(data)
    return item_json(ledger, item) | {
        "bytes": len(data), "hex": data[:RAW_BYTES].hex(), "truncated": len(data) > RAW_BYTES,
        "event": None if fact is None else event_json(fact),
    }  # fmt: skip


def list_json(ledger: Ledger, limit: int, state: str | None = None) -> list[Json]:
    """The newest, perhaps only those of one state."""
    ledger.flush()
    items = ledger.quarantine_rows.items(limit, state=None if state is None else State[state.upper()])
    return [item_json(ledger, item) for item in items]


def parse_discard(obj: object) -> tuple[str, str | None]:
    """(reason, actor) from the JSON of a request. Errors: InvalidInput."""
    if type(obj) is not dict:
        raise InvalidInput("body", f"must be an object with a reason, not {json_type(obj)}.", allowed=_DISCARD_FIELDS)
    for name in obj:
        if name not in _DISCARD_FIELDS:
            raise InvalidInput(str(name)[:64], "is not a field of this request.", allowed=_DISCARD_FIELDS)
    reason, actor = obj.get("reason"), obj.get("actor")
    if reason is None:
        raise InvalidInput("reason", "is required.", remedy="Say why the fact is given up; it is kept for good.")
    return check_text(reason, "reason", "", WHY_CHARS), None if actor is None else check_text(actor, "actor", "", TEXT_CHARS)


def parse_id(text: str) -> int:
    """The number of an item in an address. Errors: InvalidInput."""
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise InvalidInput("id", "is not the number of a quarantined fact.", remedy="Take the id from the list.")
    return int(text)
