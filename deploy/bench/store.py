"""The central store by itself: facts applied in batches to PostgreSQL, beside the same facts and batches applied to SQLite.

Each run begins with an empty store, on the same disk, durable at each commit; they take turns. Facts come as a projector hands them over,
not yet read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final

from deploy.bench import engines
from deploy.bench.bridge import facts_of
from deploy.bench.table import Figure
from hub.store.port import CentralStore, StoreFact
from hub.store.sqlite import SqliteStore

COUNT: Final = 40_000
BATCH: Final = 4_000
RUNS: Final = 3


def run(events: int = COUNT) -> Iterator[Figure]:
    """Skipped loudly where there is no PostgreSQL."""
    if engines.skipped("postgres"):
        return
    facts = [f._replace(fact=None) for f in facts_of(events)]
    ours, peer, cpu, server_cpu = [], [], [], []
    with engines.folder() as root, engines.postgres(root) as server:
        for n in range(RUNS):
            rate, _ = _timed(SqliteStore(root / f"{n}.db"), facts)
            peer.append(rate)
            before = engines.cpu_s(server.pid)
            rate, own = _timed(_postgres(server, n), facts)
            server_cpu.append((engines.cpu_s(server.pid) - before) / events * 1e6)
            ours.append(rate)
            cpu.append(own)
            found = server.ask(f"n{n}", "SELECT count(*), count(DISTINCT (sid, seq, h)), (SELECT sum(facts) FROM states) FROM log")
            if found != [[str(events)] * 3]:
                raise AssertionError(f"{events} were applied, {found} are there: no rate")
    note = f"us a fact: {median(cpu):.0f} in the writer, {median(server_cpu):.0f} in the server; load {os.getloadavg()[0]:.1f}"
    ratio = median(ours) / median(peer)
    yield Figure(f"PostgreSQL, batches of {BATCH:,}", median(ours), "ev/s", "SQLite", median(peer), ratio, note=note)


def _postgres(server: engines.Postgres, n: int) -> CentralStore:
    from hub.store.pg import Server
    from hub.store.postgres import PostgresStore

    return PostgresStore(Server(server.make(f"n{n}"), str(server.password_file)))


def _timed(store: CentralStore, facts: Sequence[StoreFact]) -> tuple[float, float]:
    """Facts a second, and microseconds of this process for each."""
    now_ms, began, cpu = time.time_ns() // 1_000_000, time.perf_counter(), time.process_time()
    for start in range(0, len(facts), BATCH):
        store.apply(facts[start : start + BATCH], [], now_ms)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    if sum(one.facts for one in store.counts()) != len(facts):
        raise AssertionError("the store counts another number of facts: no rate")
    store.close()
    return len(facts) / took, cpu / len(facts) * 1e6
