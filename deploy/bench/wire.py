"""MQTT payload per event for real orders in frames of 100: the whole uplink, beside JSON a message and JSON batches with zstd."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from random import Random
from typing import Any

import zstandard

from deploy.bench.orders import DEFAULTS, sample
from deploy.bench.table import Figure
from deploy.train_dictionary import trains
from edge_agent.core import EdgeCore, EdgeIdentity, EdgeSettings, Now
from hub.core import HubCore, HubIdentity
from hub.store.port import Statement
from hub.store.sqlite import SqliteStore
from protocols.codec import encode_body
from protocols.event import parse_event
from protocols.sqlite import Db
from protocols.sync.uplink import UplinkSettings
from protocols.topics import Address
from protocols.trust import NodeKey, hash_password, make_card, new_password, parse_card, verify

FRAME = 100


def run() -> Iterator[Figure]:
    """One edge captures those orders of the sample that did not train the dictionary, and sends frames of 100."""
    held_out = [e for e in sample() if not trains(e)]
    todo = held_out[: len(held_out) // FRAME * FRAME]
    texts = [json.dumps(e, separators=(",", ":"), ensure_ascii=False).encode() for e in todo]
    per_message = sum(map(len, texts)) / len(todo)
    batches = [b"\n".join(texts[i : i + FRAME]) for i in range(0, len(texts), FRAME)]
    zstd = sum(len(zstandard.ZstdCompressor(level=19).compress(b)) for b in batches) / len(todo)
    for level in (1, 6, 9):
        up, down, us = _sync(todo, level)
        yield Figure(
            f"uplink, zlib level {level}, {us:.1f} us to encode",
            up,
            "B/ev",
            "JSON a message",
            per_message,
            per_message / up,
            "<= 20 B",
            up <= 20,
        )
        yield Figure(
            f"both directions, zlib level {level}",
            up + down,
            "B/ev",
            "JSON batch + zstd 19",
            zstd,
            zstd / (up + down),
            "<= 22 B",
            up + down <= 22,
        )


def _sync(todo: list[dict[str, Any]], level: int) -> tuple[float, float, float]:
    """Bytes up and down per event, with hello, heartbeats, signatures, hashes and receipts in them; and us per event to encode a body."""
    edge, hub, store = _trio(level)
    now = 1_780_000_000_000
    up = down = at = 0
    for i in range(0, len(todo) + FRAME, FRAME):
        at += 1_000
        batch = [parse_event(e, defaults=DEFAULTS, now_ms=now) for e in todo[i : i + FRAME]]
        edge.begin()
        edge.take_events(batch, Now(now + at, at)) if batch else None
        edge.commit()
        for _ in range(3):
            a, b = _exchange(edge, hub, store, Now(now + at + 30, at + 30))
            up, down = up + a, down + b
    stream = edge.ledger.own()
    key = stream.key
    if hub.ledger.log.open(key).head != stream.head:
        raise AssertionError("the hub does not hold what the edge captured: no figure")
    rows = [r.row for r in edge.ledger.log.read(stream, 1, len(todo), max_bytes=10**9, max_facts=10**6)]
    started = time.perf_counter()
    for i in range(0, len(rows), FRAME):
        encode_body(rows[i : i + FRAME], level=level)
    return up / len(todo), down / len(todo), (time.perf_counter() - started) / len(rows) * 1e6


def _trio(level: int) -> tuple[EdgeCore, HubCore, SqliteStore]:
    hub_key, key = NodeKey.generate(), NodeKey.generate()
    address = Address.of("scms", "Africa", "Accra", "accra")
    settings = EdgeSettings(UplinkSettings(frame_facts=FRAME, level=level))
    edge = EdgeCore(Db(":memory:"), EdgeIdentity(address, "hub", hub_key.public), key.sign, verify, Random(1), settings)
    hub = HubCore(Db(":memory:"), HubIdentity("scms", "Africa", "hub", hub_key.public), hub_key.sign, verify, Random(2))
    hub.begin()
    password = hash_password(new_password())
    hub.take_card(parse_card(make_card(key, node="accra", org="scms", region="Africa", site="Accra", password_hash=password)), 1)
    hub.take_statement(Statement({}), whole=True)
    hub.commit()
    edge.begin()
    edge.take_up(Now(1_780_000_000_000, 0))
    edge.commit()
    store = SqliteStore(":memory:")
    for _ in range(2):
        _exchange(edge, hub, store, Now(1_780_000_000_000, 0))
    return edge, hub, store


def _exchange(edge: EdgeCore, hub: HubCore, store: SqliteStore, now: Now) -> tuple[int, int]:
    up = [e.payload for e in edge.effects(now)]  # type: ignore[union-attr]
    hub.begin()
    for payload in up:
        hub.take_message("accra", payload, now.wall)
    hub.commit()
    down = [e.payload for e in hub.effects(now.wall)]
    facts, records = hub.lacking_in_store()
    if facts:
        store.apply(facts, records, now.wall)
        hub.begin()
        hub.take_statement(store.statement(), whole=False)
        hub.commit()
        down += [e.payload for e in hub.effects(now.wall)]
    edge.begin()
    for payload in down:
        edge.take_message(payload, now)
    edge.commit()
    return sum(map(len, up)), sum(map(len, down))
