"""What is in a database, as JSON that means the same in every version: identities and hashes, no local numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hub.registry import Registry
from hub.store.port import OrderQuery
from hub.store.sqlite import SqliteStore
from protocols.ledger import Ledger, fact_id
from protocols.merge import Head, conflicts, shown
from protocols.messages import StreamStated
from protocols.sqlite import Db
from protocols.streams import LogRow, Stream
from protocols.sync.receiver import Receiver


def no_epoch() -> int:
    """Opening a database never begins an epoch."""
    raise AssertionError("a new epoch")


def edge(path: Path) -> dict[str, Any]:
    """An edge's ledger."""
    db = Db(path)
    led = Ledger(db, node="w8-madrid", new_epoch=no_epoch)
    found = {**_ledger(led), "keys": [list(row) for row in db.query("SELECT key, seq FROM idempotency ORDER BY key")]}
    db.close()
    return found


def hub(path: Path) -> dict[str, Any]:
    """A hub's ledger and registry."""
    db = Db(path)
    led, registry = Ledger(db, node="hub-emea", new_epoch=no_epoch), Registry(db)
    receiver = Receiver(led, b"golden!!")
    found = {
        **_ledger(led),
        "statements": [_stated(receiver.statement(s.key)) for s in led.log.all()],
        "records": [[n, first, last, kind, bytes(signed).hex()] for n, first, last, kind, signed in db.query(
            "SELECT node, first, last, kind, signed FROM records JOIN streams USING (sid) ORDER BY node, epoch, last")],
        "nodes": [[n.address.node, n.address.org, n.address.region, n.address.site, n.public_key.hex(), n.password_hash, n.added_ms]
                  for n in registry.all()],
        "beats": {
            node: [beat.version, [[q.head[0], q.head[1].hex()] for q in beat.streams], at_ms]
            for node, (beat, at_ms) in registry.beats().items()
        },
        "waiting": registry.waiting(),
        "refused": registry.refused(),
        "counters": registry.counters(),
    }  # fmt: skip
    db.close()
    return found


def store(path: Path) -> dict[str, Any]:
    """The central store."""
    central = SqliteStore(path)
    orders = central.orders(OrderQuery(limit=500)).orders
    found = {
        "orders": [
            [o.org, o.order_id, o.status, o.source, o.site, o.node, o.received_ms, o.facts, o.heads, o.conflict, o.abnormal] for o in orders
        ],
        "events": {
            o.order_id: [[e.fact_id, e.status, e.is_head, e.abnormal, e.details] for e in central.events(o.org, o.order_id)] for o in orders
        },
        "conflicts": [[c.order_id, c.shown_fact, c.other_fact, c.sentence, c.raised_ms, c.settled_ms] for c in central.conflicts()],
        "counts": [[*c.stream, c.facts, c.quarantined, c.records, c.twins] for c in central.counts()],
        "statement": [
            [*key, [[r.first, r.h_before.hex(), r.last, r.h_last.hex(), int(r.kind)] for r in runs]]
            for key, runs in sorted(central.statement().streams.items())
        ],
        "totals": central.totals(),
        "search": [o.order_id for o in central.orders(OrderQuery(text="global-3")).orders],
    }
    central.close()
    return found


READERS: Final[dict[str, Callable[[Path], dict[str, Any]]]] = {"edge": edge, "hub": hub, "store": store}


def read(name: str, path: Path) -> dict[str, Any]:
    """The contents of the database `name`, as they look after a way through JSON."""
    found: dict[str, Any] = json.loads(json.dumps(READERS[name](path)))
    return found


def tables(path: Path) -> list[str]:
    """The schema, one statement each, spaces made alike."""
    db = Db(path)
    rows = db.query("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'order_text%' ORDER BY type, name")
    db.close()
    return [" ".join(str(sql).split()) for (sql,) in rows]


def _ledger(led: Ledger) -> dict[str, Any]:
    return {
        "streams": [_stream(led, s) for s in led.log.all()],
        "orders": [_order(led, *row) for row in led.db.query("SELECT org, order_id, status, conflict FROM orders ORDER BY org, order_id")],
        "quarantined": [[q["fact"], q["reason"], q["atMs"]] for q in led.quarantined()],
        "log": [[_id(led, row), bytes(row.row).hex()] for row in _rows(led)],
    }


def _rows(led: Ledger) -> list[LogRow]:
    return [LogRow(*r) for r in led.db.query("SELECT sid, seq, h, prev, okey, at_ms, row FROM log ORDER BY sid, seq, h")]


def _id(led: Ledger, row: LogRow | Head) -> str:
    return fact_id(led.log.by_sid(row.sid).key, row.seq, row.h)


def _stream(led: Ledger, s: Stream) -> dict[str, Any]:
    return {
        "key": list(s.key),
        "own": s.own,
        "head": [s.head[0], s.head[1].hex()],
        "settled": s.settled_seq,
        "freed": [s.freed_seq, s.freed_h.hex()],
        "forkPoint": s.chain.fork_point,
        "runs": [[r.first, r.h_before.hex(), r.last, r.h_last.hex(), int(r.kind)] for r in s.chain.runs],
        "holes": [[first, last, h.hex()] for first, last, h in s.chain.holes()],
    }


def _order(led: Ledger, org: str, order_id: str, status: int, conflict: int) -> dict[str, Any]:
    order = led.book.get(org, order_id)
    assert order is not None
    assert shown(order.heads).status == status
    assert bool(conflicts(order.heads)) is bool(conflict)
    heads = sorted([_id(led, h), h.status, [[led.log.by_sid(sid).key.node, seq, h4.hex()] for sid, seq, h4 in h.ctx]] for h in order.heads)
    return {"order": [org, order_id], "status": status, "conflict": bool(conflict), "heads": heads}


def _stated(s: StreamStated) -> dict[str, Any]:
    return {
        "stream": [s.node, s.epoch, s.cls],
        "runs": [[r.first, r.last, int(r.kind)] for r in s.runs],
        "wants": [[first, last, h.hex()] for first, last, h in s.wants],
        "refused": [[seq, h.hex(), why] for seq, h, why in s.refused],
    }
