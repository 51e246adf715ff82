"""How long a fresh event takes to be visible in PostgreSQL, by way of Mosquitto, hub, Kafka and projectors, at a steady pace.

From the edge's answer (the event is on its disk) to a psql that sees it in another connection. The edge is given a few events at a time,
as programs of a site would; psql looks all the time, so what is measured is late by one look at most.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from typing import Any, Final

from deploy.bench import engines, line
from deploy.bench.orders import objects
from deploy.bench.table import Figure
from deploy.demo.parts import Part

PER_S: Final = 500
TOGETHER: Final = 5
WRITERS: Final = 4
PACE_KEPT: Final = 0.95
SECONDS: Final = 30
WARM_S: Final = 4
LOOK_S: Final = 0.005
LAST_S: Final = 20.0
P50_MS: Final = 100
P99_MS: Final = 500


def run(events: int = PER_S * SECONDS) -> Iterator[Figure]:
    """One run; every event is compared with PostgreSQL afterwards."""
    if engines.skipped(*line.ENGINES):
        return
    waits, cost, pace = asyncio.run(_run(events))
    p50, p99 = (sorted(waits)[int(len(waits) * share)] * 1000 for share in (0.5, 0.99))
    note = f"of {len(waits):,} at {pace:.0f} ev/s, the longest {max(waits) * 1000:.0f}; load {os.getloadavg()[0]:.1f}"
    kept = pace >= PACE_KEPT * PER_S
    note += "" if kept else f"; the machine was too busy for {PER_S} ev/s"
    yield Figure("edge commit to PostgreSQL, p50", p50, "ms", target=f"< {P50_MS} ms", met=kept and p50 < P50_MS, note=note)
    yield Figure("the same, p99", p99, "ms", target=f"< {P99_MS} ms", met=kept and p99 < P99_MS)
    yield Figure("processor time meanwhile", sum(cost.values()), "us/ev", note=line.told(cost))


async def _run(events: int) -> tuple[list[float], dict[str, float], float]:
    async with line.line() as made:
        await line.start(made, made.hub)
        await line.start(made, made.edge)
        asker = line.Asker(made.db)
        try:
            warm = PER_S * WARM_S
            committed: dict[int, float] = {}
            looking = asyncio.create_task(_look(asker, events + warm))
            await _write(made.edge, warm, committed)
            before, began, first = made.cpu_s(), time.perf_counter(), len(committed)
            await _write(made.edge, events, committed, first)
            pace = events / (time.perf_counter() - began)
            cost = line.costs(before, made.cpu_s(), events)
            async with asyncio.timeout(LAST_S):
                seen = await looking
        finally:
            asker.close()
        line.check(made, line.facts_of(made.edge.dir / "ledger.db"))
    return [seen[seq] - at for seq, at in committed.items() if seq > first], cost, pace


async def _write(edge: Part, events: int, committed: dict[int, float], skip: int = 0) -> None:
    """At the pace, a few at once, over some connections. `committed`: by place in the stream, when it was answered."""
    todo, began = list(objects(skip + events))[skip:], time.perf_counter()
    await asyncio.gather(*(_one(edge, todo, range(n * TOGETHER, events, WRITERS * TOGETHER), began, committed) for n in range(WRITERS)))


async def _one(edge: Part, todo: list[dict[str, Any]], mine: range, began: float, committed: dict[int, float]) -> None:
    host, port = edge.url.removeprefix("http://").rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    for n in mine:
        body = json.dumps(todo[n : n + TOGETHER]).encode()
        head = f"Authorization: Bearer {edge.token}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        await asyncio.sleep(max(0.0, began + n / PER_S - time.perf_counter()))
        writer.write(f"POST /v1/events HTTP/1.1\r\nHost: edge\r\n{head}\r\n\r\n".encode() + body)
        status = await reader.readuntil(b"\r\n\r\n")
        length = int(next(text for text in status.lower().split(b"\r\n") if text.startswith(b"content-length")).split(b":")[1])
        answer = json.loads(await reader.readexactly(length))
        now = time.perf_counter()
        if b" 201 " not in status.split(b"\r\n", 1)[0]:
            raise AssertionError(f"the edge said {answer}: no figure")
        for fact_id in answer["ids"]:
            committed[int(fact_id.split("/")[2])] = now
    writer.close()


async def _look(asker: line.Asker, events: int) -> dict[int, float]:
    """By place in the stream, when it was seen."""
    seen: dict[int, float] = {}
    below = 0
    while len(seen) < events:
        rows = await asyncio.to_thread(asker.ask, f"SELECT seq FROM log WHERE okey IS NOT NULL AND seq > {below}")
        now = time.perf_counter()
        for (seq,) in rows:
            seen.setdefault(int(seq), now)
        while below + 1 in seen:
            below += 1
        await asyncio.sleep(LOOK_S)
    return seen
