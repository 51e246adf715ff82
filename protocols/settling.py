"""Settling a conflict: an ordinary event of an order whose author has seen both facts, and says so.

It is not a kind of fact of its own. Whatever dominates both facts ends their conflict; this is the form in which a person does so on
purpose: with the actor, the status that is true now, a note, and the facts that it settles (`details.settles`). It is refused when the
conflict is not open where it is taken, so that nobody settles what somebody else has settled already; said twice with one idempotencyKey,
it is said once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Final, Protocol

from protocols.clashes import SETTLED_AT, SETTLES, Clash, State
from protocols.codec import pack
from protocols.details import check_details, check_text, json_type
from protocols.errors import Conflict, InvalidInput
from protocols.event import EventDefaults, OrderEvent, TimeQuality, iso, parse_event
from protocols.limits import TEXT_CHARS
from protocols.merge import Head, ranked
from protocols.merged import NOTES
from protocols.orderbook import OrderBook
from protocols.policy import CENTRE
from protocols.streams import StreamLog

FIELDS: Final = ("status", "actor", "note", "source", "site", "timestamp", "timeQuality", "heads", "details", "idempotencyKey")
NOTE_CHARS: Final = 400
HEADS_MOST: Final = 64
SOURCE: Final = "SETTLEMENT"

Identity = tuple[str, int, int, bytes]
"""(node, epoch, seq, h) of a fact"""


@dataclass(frozen=True, slots=True)
class Settlement(OrderEvent):
    """An event that settles. `facts`: the two that must both stand; `heads`: ids of all that the person saw standing, if it is said.

    `request`: what makes two requests the same.
    """

    facts: tuple[Identity, ...] = ()
    heads: tuple[str, ...] = ()
    request: bytes = b""


def parse_settlement(obj: object, clash: Clash, org: str, order_id: str, *, defaults: EventDefaults, now_ms: int) -> Settlement:
    """The settlement of a conflict from a JSON value. Errors: InvalidInput naming the field."""
    if type(obj) is not dict:
        raise InvalidInput("body", f"must be an object, not {json_type(obj)}.", remedy='Send {"status": "RETURNED", "actor": "…"}.')
    unknown = next((str(key) for key in obj if key not in FIELDS), None)
    if unknown is not None:
        raise InvalidInput(unknown[:64], "is no field of a settlement.", allowed=FIELDS)
    steps = tuple(step.record.name for step in clash.task.steps) if clash.task is not None else ()
    if obj.get("status") is None:
        raise InvalidInput("status", "is required: what is true now.", remedy=f"Proposed: {', '.join(steps)}." if steps else "")
    details = check_details(obj.get("details") or {})
    for own in (SETTLES, SETTLED_AT, NOTES):
        if own in details:
            raise InvalidInput(f"details.{own}", "is written by the settlement itself.", remedy="Use note, or leave it out.")
    timed = {name: obj[name] for name in ("timestamp", "timeQuality") if obj.get(name) is not None}
    event: dict[str, object] = {
        "org": org, "orderId": order_id, "source": obj.get("source") or SOURCE, "status": obj["status"],
        "actor": _actor(obj.get("actor")), "site": obj.get("site"), "idempotencyKey": obj.get("idempotencyKey"),
        "details": details, **(timed or {"timeQuality": "unknown"}),
    }  # fmt: skip
    parsed = parse_event(event, defaults=defaults, now_ms=now_ms)
    note = "" if obj.get("note") is None else check_text(obj["note"], "note", "", NOTE_CHARS)
    heads = _heads(obj.get("heads"))
    said = [clash.id, int(parsed.status), parsed.actor, note, parsed.source, parsed.site, parsed.happened_ms, int(parsed.quality), details]
    return Settlement(
        org, order_id, parsed.source, parsed.status, parsed.happened_ms if timed else now_ms,
        parsed.quality if timed else TimeQuality.STATED, parsed.region, parsed.site, parsed.actor,
        {**parsed.details, NOTES: note} if note else parsed.details, parsed.idempotency_key,
        tuple((t.node, t.epoch, t.seq, t.h) for t in (clash.shown, clash.other)), heads,
        blake2b(pack(said), digest_size=16).digest(),
    )  # fmt: skip


def at_centre(event: Settlement, region: str | None, site: str | None) -> Settlement:
    """The same, made at the centre, for an order that stands at this site: so the lists of the site keep the order, and its history says
    where it was settled. What makes two requests the same is left as it was: that which was said."""
    if event.site is not None or site is None:
        return event
    return replace(event, region=region or event.region, site=site, details={**event.details, SETTLED_AT: CENTRE})


def _actor(said: object) -> str:
    if said is None:
        raise InvalidInput("actor", "is required: whoever settles is named.", remedy="Send the name or number of the person.")
    return check_text(said, "actor", "", TEXT_CHARS)


def _heads(said: object) -> tuple[str, ...]:
    if said is None:
        return ()
    if type(said) is not list or len(said) > HEADS_MOST or not all(type(one) is str for one in said):
        raise InvalidInput("heads", f"must be a list of at most {HEADS_MOST} fact ids.", remedy="Send those that the order showed.")
    return tuple(said)


class Settled(Protocol):
    """What of a ledger is asked here."""

    log: StreamLog
    book: OrderBook

    def remembers(self, key: str) -> bool:
        """Was something said under this idempotencyKey?"""


def resolved(ledger: Settled, events: Sequence[OrderEvent]) -> Sequence[OrderEvent]:
    """Events as they are to be written, in the transaction that writes them: a settlement names every fact that stands now.

    Errors: Conflict where what it settles is not open here (any more), or more stands than its author saw.
    """
    return [_resolved(ledger, event) if isinstance(event, Settlement) else event for event in events]


def _resolved(ledger: Settled, event: Settlement) -> Settlement:
    if event.idempotency_key is not None and ledger.remembers(event.idempotency_key):
        return event  # the same request again: it gets its first answer, or hears that the key was used for something else
    order = ledger.book.get(event.org, event.order_id)
    heads = ranked(order.heads) if order is not None else []
    standing = {_identity(ledger, head): head for head in heads}
    if not all(fact in standing for fact in event.facts):
        raise Conflict("this conflict is not open here any more: somebody settled it, or the order went on", remedy="Look at it again.")
    ids = [_fact_id(identity) for identity in standing]
    if event.heads and set(event.heads) != set(ids):
        raise Conflict("the order has changed since it was looked at: other facts stand now", remedy="Look at it again, then settle.")
    return replace(event, details={**event.details, SETTLES: ids[:HEADS_MOST]})


def _identity(ledger: Settled, head: Head) -> Identity:
    sid, seq, h = head.fact
    key = ledger.log.by_sid(sid).key
    return key.node, key.epoch, seq, h


def _fact_id(fact: Identity) -> str:
    return f"{fact[0]}/{fact[1]:x}/{fact[2]}/{fact[3][:4].hex()}"


def closed_words(clash: Clash) -> str:
    """Why a conflict that is not open cannot be settled."""
    if clash.state is State.WENT_ON:
        return "This conflict is closed: one of the two went on without knowing of the other, which is a conflict of its own now."
    by = "; ".join(f"{told.words()} ({iso(told.happened_ms) or 'time unknown'}, {told.fact_id})" for told in clash.settled_by)
    return f"This conflict was settled already: {by}."


def settlement_json(event: Settlement, clash: Clash, fact_id: str, *, repeated: bool) -> dict[str, object]:
    """What is answered once a settlement is on disk."""
    return {
        "factId": fact_id, "repeated": repeated, "conflict": clash.id, "org": event.org, "orderId": event.order_id,
        "status": event.status.name, "actor": event.actor, "settles": [clash.shown.fact_id, clash.other.fact_id],
    }  # fmt: skip
