"""What an edge knows of its orders, as JSON for people and programs. Reads the ledger between the turns of the loop; writes nothing.

*Local truth*: the fold of the facts that are here. What happened elsewhere is seen once it has come down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from edge_agent.conflicts import disputed_json
from protocols.clock import quality_word
from protocols.devices import Latest
from protocols.errors import DecodeError, InvalidInput
from protocols.event import format_time, iso
from protocols.fact import FactRow
from protocols.ledger import Ledger, fact_id
from protocols.lifecycle import Status, may_follow
from protocols.merge import Head, dominates, refold, shown
from protocols.orderbook import Order
from protocols.streams import LogRow, StreamKey
from protocols.telemetry import reading_json
from protocols.timeline import Step, causal_order
from protocols.trace import trace_id

Json = dict[str, Any]
TIMELINE_FACTS: Final = 1_000
JUDGED_FACTS: Final = 200
"""of an order with more facts, by several authors, nobody asks which step was abnormal"""
JEOPARDY_NOTE: Final = "Nothing scores orders yet: jeopardy arrives with the model."


@dataclass(frozen=True, slots=True)
class OrderQuery:
    """Filters of the list; `limit` orders a page, after `cursor`."""

    status: Status | None = None
    q: str | None = None
    conflict: bool | None = None
    cursor: str | None = None
    limit: int = 50
    held: bool | None = None


def list_orders(ledger: Ledger, query: OrderQuery) -> Json:
    """A page of orders, newest acquaintance first, and the cursor of the next one (null at the end). Errors: InvalidInput, LedgerError."""
    wheres, params = _filters(query)
    rows = ledger.db.query(
        f"SELECT okey, org, order_id, status, conflict, held, at_ms FROM orders WHERE {' AND '.join(wheres)} ORDER BY okey DESC LIMIT ?",
        (*params, query.limit + 1),
    )
    page = rows[: query.limit]
    return {"orders": [_listed(*row[1:]) for row in page], "cursor": f"{page[-1][0]:x}" if len(rows) > query.limit else None}


def list_devices(ledger: Ledger, cursor: str | None, limit: int) -> Json:
    """A page of devices in the order of their names, each with its latest reading of every kind; the cursor is the last one's name."""
    ledger.flush()
    found = ledger.devices.page(cursor or "", limit + 1)
    names = list(dict.fromkeys(one.reading.device for one in found))
    shown = names[:limit]
    devices = [{"device": name, "latest": [_reading(one) for one in found if one.reading.device == name]} for name in shown]
    return {"devices": devices, "cursor": shown[-1] if len(names) > limit else None}


def _reading(one: Latest) -> Json:
    said = {key: value for key, value in reading_json(one.reading).items() if key != "device"}
    return {**said, "node": one.node, "recordedAt": format_time(one.recorded_ms)}


def _filters(query: OrderQuery) -> tuple[list[str], list[int | str]]:
    wheres, params = ["status > 0"], list[int | str]()
    if query.status is not None:
        wheres.append("status = ?")
        params.append(int(query.status))
    if query.conflict is not None:
        wheres.append("conflict = ?")
        params.append(int(query.conflict))
    if query.held is not None:
        wheres.append("held = ?")
        params.append(int(query.held))
    if query.q is not None:
        wheres.append("order_id LIKE ? ESCAPE '~'")
        params.append("%" + query.q.replace("~", "~~").replace("%", "~%").replace("_", "~_") + "%")
    if query.cursor is not None:
        wheres.append("okey < ?")
        params.append(_okey(query.cursor))
    return wheres, params


def _okey(cursor: str) -> int:
    if not 1 <= len(cursor) <= 15 or cursor.strip("0123456789abcdef"):
        raise InvalidInput("cursor", "is none that this address gave.", remedy="Begin again without it.")
    return int(cursor, 16)


def _listed(org: str, order_id: str, status: int, conflict: int, held: int, at_ms: int) -> Json:
    path = f"/v1/orders/{quote(order_id, safe='')}?{urlencode({'org': org})}"
    return {
        "org": org, "orderId": order_id, "status": Status(status).name, "conflict": bool(conflict), "held": bool(held),
        "updatedAt": format_time(at_ms), "links": {"self": path},
    }  # fmt: skip


# ------------------------------------------------------------ one order


About = Callable[[int, int, int, int], int | None]
"""(epoch, class, seq, recorded_ms) of an own fact → when it was, where its stamp is known to be off"""


def order_json(ledger: Ledger, org: str, order_id: str, about: About | None = None) -> Json | None:
    """Everything that is known here of an order; None when nothing is. Errors: LedgerError."""
    order = ledger.book.get(org, order_id)
    if order is None or not order.heads:
        return None
    facts = [(row, fact) for row, fact in ledger.events(order)][-TIMELINE_FACTS:]
    return {
        "org": org,
        "orderId": order_id,
        "status": Status(shown(order.heads).status).name,
        "updatedAt": format_time(order.at_ms),
        **disputed_json(ledger, order),
        "heads": [_head_json(ledger, order, head) for head in order.heads],
        "timeline": _timeline(ledger, order, facts, about),
        "jeopardy": None,
        "jeopardyNote": JEOPARDY_NOTE,
    }


def _id(ledger: Ledger, head: Head | LogRow) -> str:
    return ledger.fact_id(head.fact if isinstance(head, Head) else (head.sid, head.seq, head.h))


def _fact(ledger: Ledger, order: Order, head: Head) -> FactRow | None:
    """The fact behind a head, also where it is a copy that came down; None when it was freed, or is not readable here."""
    try:
        return ledger.fact_of(order, *head.fact)
    except DecodeError:
        return None


def _head_json(ledger: Ledger, order: Order, head: Head) -> Json:
    fact = _fact(ledger, order, head)
    said = {} if fact is None else {"source": fact.source, "site": fact.site, "actor": fact.actor, "timestamp": iso(fact.happened_ms)}
    return {"factId": _id(ledger, head), "status": Status(head.status).name} | said


def _timeline(ledger: Ledger, order: Order, facts: list[tuple[LogRow, FactRow]], about: About | None) -> list[Json]:
    """In causal order, then by time as far as it is known."""
    times = [_about(ledger, row, fact, about) for row, fact in facts]
    shown_as = causal_order([_step(ledger, *at) for at in zip(facts, times, strict=True)])
    facts, times = [facts[i] for i in shown_as], [times[i] for i in shown_as]
    heads = [ledger.book.as_head(row.sid, row.seq, row.h, fact) for row, fact in facts]
    standing = [head for head in heads if not ledger.book.fixes.overruled(head)]
    odd = dict(zip(standing, _abnormal(ledger, standing), strict=True))
    return [
        _fact_json(ledger, row, fact, head in order.heads, odd.get(head)) | {"recordedAbout": iso(time)}
        for (row, fact), head, time in zip(facts, heads, times, strict=True)
    ]


def _about(ledger: Ledger, row: LogRow, fact: FactRow, about: About | None) -> int | None:
    stream = ledger.log.by_sid(row.sid)
    return about(stream.key.epoch, stream.key.cls, row.seq, fact.recorded_ms) if about is not None and stream.own else None


def _step(ledger: Ledger, at: tuple[LogRow, FactRow], about_ms: int | None) -> Step:
    row, fact = at
    key = ledger.log.by_sid(row.sid).key
    place = fact.replaces.place[:2] if fact.replaces is not None else (key.epoch, row.seq)
    return Step(key.node, *place, fact.context, fact.recorded_ms if about_ms is None else about_ms)


def _abnormal(ledger: Ledger, facts: list[Head]) -> list[bool | None]:
    """Per fact, whether by the lifecycle table it may normally follow none of those it came directly after; None: too many to judge."""
    if all(f.sid == facts[0].sid and not f.ctx and not f.by for f in facts) and facts and ledger.log.fork_point(facts[0].sid) is None:
        return [i > 0 and not may_follow(Status(facts[i - 1].status), Status(f.status)) for i, f in enumerate(facts)]
    if len(facts) > JUDGED_FACTS:
        return [None] * len(facts)
    return [_strange(ledger, f, [g for g in facts if g is not f and dominates(f, g, ledger.log)]) for f in facts]


def _strange(ledger: Ledger, fact: Head, seen: list[Head]) -> bool:
    before = refold(seen, ledger.log)
    return bool(before) and not any(may_follow(Status(g.status), Status(fact.status)) for g in before)


def _fact_json(ledger: Ledger, row: LogRow, fact: FactRow, is_head: bool, abnormal: bool | None) -> Json:
    key = ledger.log.by_sid(row.sid).key
    return {
        "factId": _id(ledger, row), "traceId": trace_id(key.node, key.epoch, row.seq, row.h), "node": key.node,
        "epoch": f"{key.epoch:x}", "seq": row.seq, "status": fact.status.name,
        "source": fact.source, "region": fact.region, "site": fact.site, "actor": fact.actor,
        "timestamp": iso(fact.happened_ms), "timeQuality": fact.quality.name.lower(),
        "recordedAt": iso(fact.recorded_ms), "clock": quality_word(fact.clock), "receivedAt": iso(row.at_ms),
        "isHead": is_head, "abnormal": abnormal, "details": fact.details, **_pair(ledger, row, fact),
    }  # fmt: skip


def _pair(ledger: Ledger, row: LogRow, fact: FactRow) -> Json:
    """The refused fact that this one puts right, and the fact that stands in its place, where there are such."""
    stream, fix = ledger.log.by_sid(row.sid), ledger.book.fixes.of((row.sid, row.seq, row.h))
    said = {} if fix is None else {"replacedBy": ledger.fact_id(fix.fact)}
    if fact.replaces is not None:
        epoch, seq, h = fact.replaces.target
        said["replaces"] = fact_id(StreamKey(stream.key.node, epoch, stream.key.cls), seq, h)
    return said
