"""A thousand edges come back within ten seconds: how fast the hub drains them, how fairly, and what it needs for it.

The hub is a real process with its embedded broker and store; the edges are the product's edge runtimes, many in a process, each with a
ledger of its own (in memory) and a connection of its own. Beside it one edge with a backlog, in the same run: the single-edge rate.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx

from deploy.bench import drain
from deploy.bench.orders import events
from deploy.bench.table import Figure, peak_rss_mb
from deploy.demo.parts import Part, set_up_pair
from edge_agent.core import EdgeIdentity, EdgeSettings
from edge_agent.runtime import EdgeRuntime
from protocols import mosquitto
from protocols.sqlite import Db
from protocols.topics import Address
from protocols.transport.mqtt import MqttSettings, MqttTransport
from protocols.trust import NodeKey, hash_password, make_card, verify

EDGES: Final = 1_000
EVENTS: Final = 1_000
WITHIN_S: Final = 10.0
PROCESSES: Final = 2
_PATIENCE_S: Final = 900.0
PASSWORD: Final = "of-the-benchmark-only"


@dataclass(frozen=True, slots=True)
class Where:
    """What an edge process must know."""

    broker_port: int
    hub: str
    hub_public: bytes
    edges: int
    events: int


def run(edges: int = EDGES, each: int = EVENTS) -> Iterator[Figure]:
    """One run, after a run of `drain` for comparison; every event is counted in the store afterwards."""
    single = next(iter(drain.run(edges * each // 5))).figure
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        yield from asyncio.run(_run(Path(folder), edges, each, single))


async def _run(folder: Path, edges: int, each: int, single: float) -> list[Figure]:
    hub, _ = set_up_pair(folder)
    await hub.start()
    try:
        await admit(hub, edges)
        times = await asyncio.to_thread(_herd, where_of(hub, edges, each))
        await _settled(hub, edges * each)
        rss = peak_rss_mb(hub.process.pid) if hub.process is not None else 0.0
    finally:
        await hub.stop()
    return _figures(folder, edges, each, single, times, rss)


def where_of(hub: Part, edges: int, each: int) -> Where:
    """From the hub's own files."""
    key, named = NodeKey.load(hub.dir / "hub.key"), tomllib.loads((hub.dir / "hub.toml").read_text())
    return Where(int(hub.env["LONGSHORE_BROKER__PORT"]), named["hub"]["node"], key.public, edges, each)


async def admit(hub: Part, edges: int) -> None:
    """By the hub's API, as an operator's script would."""
    hashed, by_mosquitto = hash_password(PASSWORD), mosquitto.password_hash(PASSWORD, bytes(mosquitto.SALT_BYTES))
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {hub.token}"}, timeout=60) as http:
        for n in range(edges):
            card = make_card(
                key_of(n), node=name_of(n), org="scms", region="Africa", site=site_of(n), password_hash=hashed, mosquitto_hash=by_mosquitto
            )
            answer = await http.post(f"{hub.url}/v1/nodes", json=card)
            answer.raise_for_status()


def name_of(n: int) -> str:
    """Of the n-th edge."""
    return f"edge-{n:04}"


def site_of(n: int) -> str:
    """Each at a site of its own: what nodes of one site tell each other by way of the hub is no drain, and would be a multiple of it."""
    return f"site-{n}"


def key_of(n: int) -> NodeKey:
    """The same in every process."""
    return NodeKey(name_of(n).encode().ljust(32, b"-"))


# ------------------------------------------------------------ the edges


def _herd(where: Where) -> list[float]:
    """Seconds from coming back to everything settled, per edge, in the order in which they come back."""
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    barrier = context.Barrier(PROCESSES)
    parts = [range(p, where.edges, PROCESSES) for p in range(PROCESSES)]
    processes = [context.Process(target=_edges, args=(where, part, barrier, results)) for part in parts]
    for process in processes:
        process.start()
    try:
        found = dict(pair for _ in processes for pair in results.get(timeout=_PATIENCE_S))
        return [found[n] for n in range(where.edges)]
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _edges(where: Where, numbers: range, barrier: Any, results: Any) -> None:
    results.put(asyncio.run(_live(where, numbers, barrier)))


async def _live(where: Where, numbers: range, barrier: Any) -> list[tuple[int, float]]:
    images = {n: await _filled(where, n) for n in numbers}
    barrier.wait()
    times = await asyncio.gather(*(_one(where, n, images.pop(n)) for n in numbers))
    return list(zip(numbers, times, strict=True))


def runtime_of(where: Where, n: int, image: bytes | None, *, line: bool) -> EdgeRuntime:
    """The product's edge with a ledger in memory; `line`: with a connection of its own."""
    address = Address("scms", "Africa", site_of(n), name_of(n))
    key = key_of(n)
    settings = MqttSettings(
        "127.0.0.1", where.broker_port, name_of(n), PASSWORD, answer_timeout_s=60, connect_timeout_s=30, backoff_max_s=10
    )
    return EdgeRuntime(
        ":memory:",
        EdgeIdentity(address, where.hub, where.hub_public),
        key.sign,
        verify,
        settings=EdgeSettings(),
        make_transport=(lambda _: MqttTransport(settings, subscriptions=address.subscriptions())) if line else None,
        open_db=lambda _: Db(":memory:") if image is None else Db.load(image),
    )


async def _filled(where: Where, n: int) -> bytes:
    """A ledger with what an edge captured while it was away."""
    async with runtime_of(where, n, None, line=False) as edge:
        now_ms = time.time_ns() // 1_000_000
        own = [replace(e, order_id=f"{e.order_id}/{n}", site=site_of(n)) for e in events(where.events, now_ms)]  # nobody else's orders
        await edge.append(own)
        return edge.core.ledger.db.dump()


async def _one(where: Where, n: int, image: bytes) -> float:
    await asyncio.sleep(WITHIN_S * n / where.edges)
    began = time.perf_counter()
    async with runtime_of(where, n, image, line=True) as edge:
        async with asyncio.timeout(_PATIENCE_S):
            while edge.core.ledger.own().settled_seq < where.events:  # noqa: ASYNC110 - the edge tells nobody but its status
                await asyncio.sleep(0.25)
        return time.perf_counter() - began


# ------------------------------------------------------------ what came of it


async def _settled(hub: Part, expected: int) -> None:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {hub.token}"}, timeout=60) as http, asyncio.timeout(_PATIENCE_S):
        while (await http.get(f"{hub.url}/v1/balance")).json()["fleet"]["settled"] < expected:  # noqa: ASYNC110 - it is asked over HTTP
            await asyncio.sleep(0.5)


def _figures(folder: Path, edges: int, each: int, single: float, times: list[float], rss: float) -> list[Figure]:
    store = Db(folder / "hub" / "store.db", read_only=True)
    rows, distinct, first, last = store.one(
        "SELECT count(*), (SELECT count(*) FROM (SELECT DISTINCT sid, seq FROM log)), min(received_ms), max(at_ms) FROM log"
    ) or (0, 0, 0, 0)
    store.close()
    if rows != edges * each or distinct != rows:
        raise AssertionError(f"{rows} rows, {distinct} places, {edges * each} expected: no rate")
    rate = rows * 1000 / (last - first)
    late = times[len(times) // 2 :]  # who comes first finds the hub idle; fairness shows among those who found it busy
    spread = max(late) / min(late)
    return [
        Figure(
            f"herd of {edges:,} edges, {each:,} events each", rate, "ev/s", "one edge", single, rate / single,
            ">= 0.7x", rate / single >= 0.7, "first received to last settled",
        ),
        Figure("slowest edge to fastest edge", spread, "x", target="<= 3", met=spread <= 3,
            note=f"of the later half to come back: {min(late):.1f} to {max(late):.1f} s; of all from {min(times):.1f} s"),
        Figure("hub peak RSS in the herd", rss, "MB", target="< 1,000 MB", met=rss < 1_000),
    ]  # fmt: skip
