"""Orders that more streams touched than one context may name; facts in quarantine; what waits, as it is weighed."""

from __future__ import annotations

import pytest

from protocols import ledger as ledger_module
from protocols.codec import unpack
from protocols.event import EventDefaults, OrderEvent, parse_event
from protocols.fact import chain
from protocols.ledger import Ledger, readable
from protocols.sqlite import Db
from protocols.streams import StreamKey

NOW = 1_780_000_000_000
DEFAULTS = EventDefaults("acme", "EMEA", "W8")


def event(status: str) -> OrderEvent:
    said = {"orderId": "A1", "source": "DOCK", "status": status, "timestamp": "2026-05-21T14:05:12Z"}
    return parse_event(said, defaults=DEFAULTS, now_ms=NOW)


def said_by(node: str, status: str) -> Ledger:
    ledger = Ledger(Db(":memory:"), node=node, new_epoch=lambda: 7)
    ledger.begin()
    ledger.append(event(status), NOW)
    ledger.commit()
    return ledger


def copy(source: Ledger, target: Ledger) -> None:
    stream = source.own()
    rows = source.log.read(stream, 1, 9, max_bytes=10**6, max_facts=9)
    facts = [(r.row, unpack(r.row, max_bytes=10**6)) for r in rows]
    target.offer(StreamKey(*stream.key), 1, rows[0].prev, facts, chain(rows[0].prev, [r.row for r in rows]), NOW)  # type: ignore[arg-type]


def test_a_fact_that_has_seen_more_than_a_context_names_is_readable_and_claims_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "CONTEXT_ENTRIES", 2)
    hub = Ledger(Db(":memory:"), node="hub", new_epoch=lambda: 9)
    hub.begin()
    for i in range(4):
        copy(said_by(f"dock-{i}", "SHIPPED"), hub)
    done = hub.append(event("DELIVERED"), NOW)
    hub.commit()
    order = hub.book.get("acme", "A1")
    assert order is not None
    row = hub.db.one("SELECT row FROM log WHERE sid=? AND seq=?", (hub.own().sid, done.seq))
    fact, why = readable(unpack(row[0], max_bytes=10**6)) if row else (None, "missing")
    assert why == ""
    assert fact is not None
    assert len(fact.context) == 2
    assert len(order.heads) == 3, "its own fact and the two it does not claim to have seen"


def test_the_author_keeps_what_stands_in_quarantine() -> None:
    ledger = said_by("dock-1", "SHIPPED")
    stream = ledger.own()
    assert ledger.first_quarantined(stream) > 10**15
    ledger.begin()
    ledger.quarantine(stream.sid, 1, stream.head[1], "refused by the hub", NOW)
    ledger.commit()
    assert ledger.first_quarantined(stream) == 1


def test_what_waits_is_weighed_right_when_facts_were_settled_and_freed_between_two_looks() -> None:
    ledger = said_by("dock-1", "SHIPPED")
    stream = ledger.own()
    ledger.begin()
    ledger.append_all([event("IN_TRANSIT"), event("DELIVERED")], NOW)
    ledger.commit()
    assert ledger.unsettled(stream)[0] == 3
    ledger.begin()
    stream.settled_seq, stream.dirty = 2, True
    ledger.free(stream, 2, NOW)
    ledger.commit()
    count, size, oldest = ledger.unsettled(stream)
    rest = ledger.db.one("SELECT count(*), sum(length(row)), min(at_ms) FROM log WHERE seq > 2")
    assert (count, size, oldest) == rest
