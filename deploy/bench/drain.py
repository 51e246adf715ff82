"""A backlog drains: edge, embedded broker, hub, SQLite store, as real processes; what an edge needs to be ready; and how fresh the central
view is meanwhile."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import SystemRandom

import httpx

from deploy.bench.fresh import Fresh, capturing
from deploy.bench.orders import events
from deploy.bench.table import Figure, peak_rss_mb
from deploy.demo import report
from deploy.demo.parts import Part, set_up_pair
from protocols.ledger import Ledger
from protocols.sqlite import Db

BACKLOG = 200_000
_BATCH = 1_000
_PATIENCE_S = 300.0


def run(backlog: int = BACKLOG) -> Iterator[Figure]:
    """One run; every event is compared with the central store afterwards."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        yield from asyncio.run(_run(Path(folder), backlog))


async def _run(folder: Path, backlog: int) -> list[Figure]:
    hub, edge = set_up_pair(folder)
    fill(edge.dir / "ledger.db", backlog)
    await hub.start()
    started = time.perf_counter()
    try:
        await edge.start()
        ready = time.perf_counter() - started
        async with capturing(edge, hub.dir / "store.db") as fresh:
            await _drained(hub, backlog)
        await _drained(hub, backlog + len(fresh.waits_s))  # fresh events go before the last of the backlog
        rss = {p.name: peak_rss_mb(p.process.pid) for p in (hub, edge) if p.process is not None}
    finally:
        await asyncio.gather(edge.stop(), hub.stop())
    return [*_figures(folder, backlog, ready, rss), *_freshness(fresh)]


def fill(path: Path, backlog: int) -> None:
    """What an edge captured while it was alone, written with the edge's own ledger."""
    rng = SystemRandom()
    ledger = Ledger(Db(path), node="bench", new_epoch=lambda: rng.getrandbits(62) + 1)
    now_ms = time.time_ns() // 1_000_000
    todo = events(backlog, now_ms)
    for _ in range(0, backlog, _BATCH):
        ledger.begin()
        for _, event in zip(range(_BATCH), todo, strict=False):
            ledger.append(event, now_ms)
        ledger.commit()
    ledger.db.checkpoint()
    ledger.db.close()


async def _drained(hub: Part, backlog: int) -> None:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {hub.token}"}) as http, asyncio.timeout(_PATIENCE_S):
        while True:
            fleet = (await http.get(f"{hub.url}/v1/balance")).json()["fleet"]
            if fleet["settled"] >= backlog:
                return
            await asyncio.sleep(0.5)


def _figures(folder: Path, backlog: int, ready: float, rss: dict[str, float]) -> list[Figure]:
    counted = report.count(folder / "hub", [folder / "bench"])
    if counted["lost"] or counted["appliedTwice"] or counted["settled"] < backlog:
        raise AssertionError(f"lost {counted['lost']}, twice {counted['appliedTwice']}, settled {counted['settled']}: no rate")
    store = Db(folder / "hub" / "store.db", read_only=True)
    first, last = store.one("SELECT min(received_ms), max(at_ms) FROM log WHERE seq<=?", (backlog,)) or (0, 0)
    store.close()
    rate = backlog * 1000 / (last - first)
    per_fact = Db(folder / "bench" / "ledger.db", read_only=True).file_bytes() / backlog
    return [
        Figure(
            f"drain of {backlog:,} events to the store",
            rate,
            "ev/s",
            target=">= 15,000",
            met=rate >= 15_000,
            note="first received to last settled",
        ),
        Figure("of it on the wire, uplink", counted["bytesPerEvent"], "B/ev", note=f"{counted['sentAgain']} sent again"),
        Figure("edge ready after", ready, "s", target="< 1.5 s", met=ready < 1.5),
        Figure("edge peak RSS", rss.get("bench", 0.0), "MB", target="<= 80 MB", met=rss.get("bench", 0.0) <= 80),
        Figure("hub peak RSS", rss.get("hub", 0.0), "MB"),
        Figure("edge disk per event", per_fact, "B"),
    ]


def _freshness(fresh: Fresh) -> list[Figure]:
    p95 = fresh.percentile(0.95)
    return [
        Figure(
            "fresh events while it drains, p95",
            p95,
            "s",
            target="< 2 s",
            met=p95 < 2,
            note=f"of {len(fresh.waits_s)}, answered to seen in the view; p50 {fresh.percentile(0.5):.2f}",
        )
    ]
