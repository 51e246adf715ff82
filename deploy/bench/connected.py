"""A thousand edges that are connected and say little: one frame each in ten seconds, beside a heartbeat. What that costs the hub.

The edges are the product's edge runtimes, many in a process, each with a ledger in memory and a connection of its own to Mosquitto; the
hub bridges to Kafka, and projectors apply to PostgreSQL, where all that was captured is looked for afterwards.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import httpx

from deploy.bench import engines, herd, line
from deploy.bench.orders import events
from deploy.bench.table import Figure, peak_rss_mb
from deploy.demo.parts import Part
from edge_agent.runtime import EdgeRuntime

EDGES: Final = 1_000
FRAME_S: Final = 10.0
EVERY_S: Final = 15.0
"""of an edge's events: two of an order's make three frames, one of them of what the edge reckons about it"""
ROUNDS: Final = 4
WARM_ROUNDS: Final = 2
FRAMES: Final = "longshore_wire_up_frames_total"
PROCESSES: Final = 2
CORE_SHARE: Final = 25
RSS_MB: Final = 300
PATIENCE_S: Final = 180.0


def run(edges: int = EDGES) -> Iterator[Figure]:
    """One run; every event is compared with PostgreSQL afterwards."""
    if engines.skipped(*line.ENGINES):
        return
    share, rss, rate = asyncio.run(_run(edges))
    note = f"{rate:.0f} frames a second, {edges / FRAME_S:.0f} wanted, load {os.getloadavg()[0]:.1f}"
    yield Figure(
        f"{edges:,} connected edges, hub", share["hub"], "% core", target=f"<= {CORE_SHARE}", met=share["hub"] <= CORE_SHARE, note=note
    )
    yield Figure("hub peak RSS with them", rss, "MB", target=f"<= {RSS_MB} MB", met=rss <= RSS_MB)
    rest = {name: part for name, part in share.items() if name not in ("hub", "edge")}
    yield Figure("the engines beside it", sum(rest.values()), "% core", note=line.told(rest))


async def _run(edges: int) -> tuple[dict[str, float], float, float]:
    async with line.line() as made:
        await line.start(made, made.hub)
        await herd.admit(made.hub, edges)
        await asyncio.to_thread(line.write_access, made.folder, made.hub)
        os.kill(made.pids["mosquitto"][0], signal.SIGHUP)
        where = herd.where_of(made.hub, edges, WARM_ROUNDS + ROUNDS)
        share, rate, said = await _live(made, where)
        asker = line.Asker(made.db)
        try:
            await line.held(asker, len(said), PATIENCE_S)
        finally:
            asker.close()
        line.check(made, said)
        return share, peak_rss_mb(made.pids["hub"][0]), rate


async def _live(made: line.Line, where: herd.Where) -> tuple[dict[str, float], float, set[line.Fact]]:
    """Shares of a core in percent while they live, frames a second, and what they captured."""
    context = multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    parts = [range(p, where.edges, PROCESSES) for p in range(PROCESSES)]
    begin: Any = context.Event()
    processes = [context.Process(target=_edges, args=(where, part, begin, told)) for part in parts]
    for process in processes:
        process.start()
    try:
        for _ in processes:
            await asyncio.to_thread(told.get, True, PATIENCE_S)  # all are connected
        begin.set()
        await asyncio.sleep(WARM_ROUNDS * EVERY_S)
        before, frames, began = made.cpu_s(), await _frames(made.hub), time.perf_counter()
        await asyncio.sleep(ROUNDS * EVERY_S)
        after, took = made.cpu_s(), time.perf_counter() - began
        frames = await _frames(made.hub) - frames
        said = {fact for _ in processes for fact in await asyncio.to_thread(told.get, True, PATIENCE_S)}
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return {name: (after[name] - before[name]) / took * 100 for name in after}, frames / took, said


async def _frames(hub: Part) -> float:
    """How many the hub has taken so far, by its own count."""
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {hub.token}"}, timeout=30) as http:
        said = (await http.get(f"{hub.url}/metrics")).text
    return float(next(line.split()[-1] for line in said.splitlines() if line.startswith(FRAMES)))


# ------------------------------------------------------------ in a process of edges


def _edges(where: herd.Where, numbers: range, begin: Any, told: Any) -> None:
    asyncio.run(_all(where, numbers, begin, told))


async def _all(where: herd.Where, numbers: range, begin: Any, told: Any) -> None:
    edges = {n: herd.runtime_of(where, n, None, line=True) for n in numbers}
    for edge in edges.values():
        await edge.start()
    while not all(edge.connected for edge in edges.values()):  # noqa: ASYNC110 - they tell nobody
        await asyncio.sleep(0.1)
    told.put("connected")
    await asyncio.to_thread(begin.wait)
    began = time.perf_counter()
    await asyncio.gather(*(_one(where, n, edge, began) for n, edge in edges.items()))
    while not all(edge.core.ledger.own().settled_seq >= where.events for edge in edges.values()):  # noqa: ASYNC110 - they tell nobody
        await asyncio.sleep(0.2)
    told.put({fact for edge in edges.values() for fact in _facts(edge)})
    for edge in edges.values():
        await edge.stop()


async def _one(where: herd.Where, n: int, edge: EdgeRuntime, began: float) -> None:
    """An event in each round, each edge at a moment of its own."""
    todo = list(events(where.events, time.time_ns() // 1_000_000))
    for turn, event in enumerate(todo):
        await asyncio.sleep(max(0.0, began + (turn + n / where.edges) * EVERY_S - time.perf_counter()))
        await edge.append([replace(event, order_id=f"{event.order_id}/{n}", site=herd.site_of(n))])


def _facts(edge: EdgeRuntime) -> set[line.Fact]:
    own = edge.core.ledger.db.query("SELECT node, epoch, seq, h FROM log JOIN streams USING (sid) WHERE own=1 AND cls=0")
    return {(str(node), int(epoch), int(seq), bytes(h).hex()) for node, epoch, seq, h in own}
