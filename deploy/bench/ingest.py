"""Durable ingest at one edge: concurrent writers of single events, each answered after the sync, beside autocommit SQLite."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from deploy.bench.orders import DEFAULTS, objects
from deploy.bench.table import Figure
from deploy.demo.parts import Part, set_up_pair
from edge_agent.core import EdgeIdentity
from edge_agent.runtime import EdgeRuntime
from protocols.event import parse_event
from protocols.sqlite import Db
from protocols.topics import Address
from protocols.trust import NodeKey, verify

RUNS = 5
PEER_EVENTS = 4_000
WRITERS = ((8, 2.0, 12_000), (64, 5.0, 40_000))
HTTP_EVENTS = 8_000
HTTP_WRITERS = 32


def run() -> Iterator[Figure]:
    """Ours and the peer take turns, in the same folder; medians."""
    for writers, target, events in WRITERS:
        peer, ours, slow = [], [], []
        for _ in range(RUNS):
            with _folder() as folder:
                peer.append(_autocommit(folder / "peer.db"))
            with _folder() as folder:
                rate, p99 = asyncio.run(_group_commit(folder / "ledger.db", writers, events))
                ours.append(rate)
                slow.append(p99)
        ratio = median(o / p for o, p in zip(ours, peer, strict=True))
        name, note = f"durable ingest, {writers} writers", f"p99 answer {median(slow):.1f} ms"
        peer_rate = median(peer)
        yield Figure(name, median(ours), "ev/s", "autocommit SQLite", peer_rate, ratio, f">= {target:g}x", ratio >= target, note)
    rate, p99 = asyncio.run(_over_http())
    yield Figure(
        f"the same over HTTP, {HTTP_WRITERS} connections",
        rate,
        "ev/s",
        target=">= 2,000",
        met=rate >= 2000,
        note=f"p99 answer {p99:.1f} ms",
    )


@contextmanager
def _folder() -> Iterator[Path]:
    """On a real disk: a RAM disk syncs for nothing."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name:
        yield Path(name)


def _autocommit(path: Path) -> float:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, order_id TEXT, body TEXT)")
    todo = list(objects(PEER_EVENTS))
    started = time.perf_counter()
    for obj in todo:
        db.execute("INSERT INTO events (order_id, body) VALUES (?, ?)", (obj["orderId"], json.dumps(obj)))
    took = time.perf_counter() - started
    db.close()
    return PEER_EVENTS / took


async def _group_commit(path: Path, writers: int, events: int) -> tuple[float, float]:
    key = NodeKey.generate()
    identity = EdgeIdentity(Address.of("scms", "Africa", "Accra", "bench"), "hub", key.public)
    todo = iter(list(objects(events)))
    waits: list[float] = []

    async def write(runtime: EdgeRuntime) -> None:
        for obj in todo:
            asked = time.perf_counter()
            await runtime.append([parse_event(obj, defaults=DEFAULTS, now_ms=runtime.now().wall)])
            waits.append(time.perf_counter() - asked)

    async with EdgeRuntime(path, identity, key.sign, verify) as runtime:
        started = time.perf_counter()
        await asyncio.gather(*(write(runtime) for _ in range(writers)))
        took = time.perf_counter() - started
    _check(path, events)
    return events / took, _p99_ms(waits)


def _check(path: Path, events: int) -> None:
    db = Db(path, read_only=True)
    found = db.one("SELECT count(*), count(DISTINCT seq) FROM log")
    db.close()
    if found != (events, events):
        raise AssertionError(f"{events} events were answered, {found} are on disk: no rate")


def _p99_ms(waits: list[float]) -> float:
    return sorted(waits)[int(len(waits) * 0.99)] * 1000


async def _over_http() -> tuple[float, float]:
    with _folder() as folder:
        edge = set_up_pair(folder)[1]
        await edge.start()
        try:
            return await _post_all(edge)
        finally:
            await edge.stop()


async def _post_all(edge: Part) -> tuple[float, float]:
    todo: Iterator[dict[str, Any]] = iter(list(objects(HTTP_EVENTS)))
    headers = {"Authorization": f"Bearer {edge.token}", "Content-Type": "application/json"}
    waits: list[float] = []

    async def write() -> None:
        host, port = edge.url.removeprefix("http://").rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        for obj in todo:
            asked = time.perf_counter()
            body = json.dumps(obj).encode()
            head = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
            writer.write(f"POST /v1/events HTTP/1.1\r\nHost: edge\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            status = await reader.readuntil(b"\r\n\r\n")
            length = int(next(line for line in status.lower().split(b"\r\n") if line.startswith(b"content-length")).split(b":")[1])
            await reader.readexactly(length)
            if b" 201 " not in status.split(b"\r\n", 1)[0]:
                raise AssertionError(f"the edge said {status!r}: no rate")
            waits.append(time.perf_counter() - asked)
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(write() for _ in range(HTTP_WRITERS)))
    took = time.perf_counter() - started
    async with httpx.AsyncClient() as http:
        status = (await http.get(f"{edge.url}/v1/status", headers=headers)).json()
    if sum(s["captured"] for s in status["streams"]) != HTTP_EVENTS:
        raise AssertionError("the ledger holds another number of events: no rate")
    return HTTP_EVENTS / took, _p99_ms(waits)
