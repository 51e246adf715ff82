"""A thousand edges that are connected and say little: an event each in ten seconds, which is a frame of its own. What that costs the hub.

Beside it each edge says what the product has it say: a heartbeat every ten seconds, and every thirty how far it has the feed of its
site; the hub answers each fact twice: received, settled.
What was really said to the hub is read off its counters and stands beside the figure.

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
EVERY_S: Final = 10.0
"""of an edge's events: each at once, so each in a frame of its own"""
ROUNDS: Final = 6
WARM_ROUNDS: Final = 3
COUNTED: Final = {
    "frames": "longshore_sync_frames_total",
    "facts": "longshore_sync_facts_total",
    "messages": "longshore_sync_messages_total",
    "receipts": "longshore_sync_sent_total",
    "turns": "longshore_hub_turns_total",
}
"""by the hub's own counters, none of which waits for a look at the fleet"""
NEAR: Final = 0.97
"""of the load that was wanted: below, what it cost is no figure"""
PROCESSES: Final = 2
CORE_SHARE: Final = 25
RSS_MB: Final = 300
PATIENCE_S: Final = 180.0


def run(edges: int = EDGES) -> Iterator[Figure]:
    """One run; every event is compared with PostgreSQL afterwards."""
    if engines.skipped(*line.ENGINES):
        return
    share, rss, rates = asyncio.run(_run(edges))
    met = share["hub"] <= CORE_SHARE
    yield Figure(f"{edges:,} connected edges, hub", share["hub"], "% core", target=f"<= {CORE_SHARE}", met=met, note=_told(edges, rates))
    yield Figure("hub peak RSS with them", rss, "MB", target=f"<= {RSS_MB} MB", met=rss <= RSS_MB)
    rest = {name: part for name, part in share.items() if name not in ("hub", "edge")}
    yield Figure("the engines beside it", sum(rest.values()), "% core", note=line.told(rest))


def _told(edges: int, rates: dict[str, float]) -> str:
    """The load, a second of it. Errors: AssertionError: less came than was wanted."""
    wanted, others = edges / EVERY_S, rates["messages"] - rates["frames"]
    if rates["frames"] < wanted * NEAR:
        raise AssertionError(f"{rates['frames']:.0f} frames a second, {wanted:.0f} wanted: no figure")
    came = f"{rates['frames']:.0f} frames ({wanted:.0f} wanted) of {rates['facts']:.0f} facts came, {others:.0f} heartbeats and follows"
    return f"a second: {came}, {rates['receipts']:.0f} receipts went, {rates['turns']:.0f} turns; load {os.getloadavg()[0]:.1f}"


async def _run(edges: int) -> tuple[dict[str, float], float, dict[str, float]]:
    async with line.line() as made:
        await line.start(made, made.hub)
        await herd.admit(made.hub, edges)
        await asyncio.to_thread(line.write_access, made.folder, made.hub)
        os.kill(made.pids["mosquitto"][0], signal.SIGHUP)
        where = herd.where_of(made.hub, edges, WARM_ROUNDS + ROUNDS)
        share, rates, said = await _live(made, where)
        asker = line.Asker(made.db)
        try:
            await line.held(asker, len(said), PATIENCE_S)
        finally:
            asker.close()
        line.check(made, said)
        return share, peak_rss_mb(made.pids["hub"][0]), rates


async def _live(made: line.Line, where: herd.Where) -> tuple[dict[str, float], dict[str, float], set[line.Fact]]:
    """Shares of a core in percent while they live, what was counted a second, and what they captured."""
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
        counted = await _counted(made.hub)
        before, began = made.cpu_s(), time.perf_counter()
        await asyncio.sleep(ROUNDS * EVERY_S)
        after, took = made.cpu_s(), time.perf_counter() - began
        rates = {name: (n - counted[name]) / took for name, n in (await _counted(made.hub)).items()}
        said = {fact for _ in processes for fact in await asyncio.to_thread(told.get, True, PATIENCE_S)}
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return {name: (after[name] - before[name]) / took * 100 for name in after}, rates, said


async def _counted(hub: Part) -> dict[str, float]:
    """What the hub has counted so far, by the names of COUNTED."""
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {hub.token}"}, timeout=30) as http:
        said = (await http.get(f"{hub.url}/metrics")).text
    found = dict(line.rsplit(" ", 1) for line in said.splitlines() if not line.startswith("#"))
    return {name: float(found[metric]) for name, metric in COUNTED.items()}


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
