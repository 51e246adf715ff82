"""What the parts of a hub with several workers cost, each by itself, in processor time of one core, against the number of edges.

    python -m deploy.bench.workers --edges 500 1000 2000 4000

Measured with the product's classes on SQLite files in memory: an edge's frame of one fact with its receipt, a fact that another worker
took and that comes by way of the store, a hello with its answer, the store's whole statement, a round with the lease table. Processor
time, so a busy machine does little to it.
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
from collections.abc import Sequence
from random import Random
from typing import Final, NamedTuple

from hub.core import HubCore, HubIdentity
from hub.leasing import LeaseSettings, Leasing
from hub.store.leases import TABLES, Me, SqlLeases
from hub.store.sqlite import SqliteStore
from protocols.codec import FrameHeader, Kind, encode_body, envelope, pack
from protocols.fact import chain, genesis
from protocols.messages import Hello, StreamHeld
from protocols.schema import migrate
from protocols.sqlite import Db
from protocols.streams import StreamKey
from protocols.sync.seal import seal
from protocols.sync.uplink import Out
from protocols.topics import Channel
from protocols.trust import NodeCard, NodeKey, verify

SIZES: Final = (500, 1_000, 2_000, 4_000)
NOW_MS: Final = 1_780_000_000_000
ORDERS_EACH: Final = 4
LOOKS: Final = 5


class Row(NamedTuple):
    """Costs with so many edges: µs each, but where the name says otherwise."""

    edges: int
    frame_us: float
    from_store_us: float
    hello_us: float
    handed_over_us: float
    statement_us_per_stream: float
    reload_us_per_stream: float
    news_us_per_stream: float


class Edge(NamedTuple):
    """One edge, as far as the hub sees it."""

    name: str
    key: NodeKey
    stream: StreamKey

    def frame(self, seq: int, before: bytes, order: int) -> tuple[bytes, bytes]:
        """A signed frame of one fact, and the hash after it."""
        row = pack([1, "acme", f"{self.name}-{order}", "WMS", 1 + order % 8, NOW_MS, 1, NOW_MS + seq, "EMEA", self.name, None, {}, []])
        (after,) = chain(before, [row])
        header = FrameHeader(*self.stream, seq, 1, before, after, 0)
        unsigned = envelope(Kind.FRAME, header.to_list(), encode_body([row], dictionary=0, level=1))
        return unsigned + self.key.sign(unsigned), after

    def hello(self, head: tuple[int, bytes]) -> bytes:
        """What it says when it comes."""
        hello = Hello(b"8 bytes.", (StreamHeld(self.stream.epoch, 0, head, ()),))
        return seal(Out(Channel.CONTROL, Kind.HELLO, [], hello.to_list()), self.name, "hub-1", self.key.sign)


def _core(key: NodeKey) -> HubCore:
    return HubCore(Db(":memory:"), HubIdentity("acme", "EMEA", "hub-1", key.public), key.sign, verify, Random(1))


def _edges(count: int) -> list[Edge]:
    names = [f"dock-{n}" for n in range(count)]
    return [Edge(name, NodeKey(name.encode().ljust(32, b"-")), StreamKey(name, 1 + n, 0)) for n, name in enumerate(names)]


def _cpu_us(began_s: float, count: int) -> float:
    return (time.process_time() - began_s) / count * 1e6


def measure(count: int) -> Row:
    """Everything with so many edges."""
    hub_key = NodeKey(b"h" * 32)
    edges, taker, follower = _edges(count), _core(hub_key), _core(hub_key)
    for core in (taker, follower):
        core.begin()
        for edge in edges:
            core.take_card(NodeCard(edge.name, "acme", "EMEA", edge.name, edge.key.public, "scrypt$none"), NOW_MS)
        core.commit()
    heads = {edge.name: (0, genesis(*edge.stream)) for edge in edges}
    payloads: list[tuple[str, bytes]] = []
    for turn in range(ORDERS_EACH):
        for edge in edges:
            payload, after = edge.frame(turn + 1, heads[edge.name][1], turn)
            heads[edge.name] = (turn + 1, after)
            payloads.append((edge.name, payload))
    frame_us = _take(taker, payloads)
    hello_us = _take(taker, [(edge.name, edge.hello(heads[edge.name])) for edge in edges])
    store = SqliteStore(Db(":memory:"))
    handed_us = _hand_over(taker, store) / len(payloads)
    return Row(count, frame_us, _follow(follower, store), hello_us, handed_us, *_statements(taker, store, count))


def _take(core: HubCore, payloads: Sequence[tuple[str, bytes]]) -> float:
    """As a hub's loop does it: a hundred messages in a transaction, then what follows."""
    began = time.process_time()
    for i in range(0, len(payloads), 100):
        core.begin()
        for node, payload in payloads[i : i + 100]:
            core.take_message(node, payload, NOW_MS)
        core.commit()
        core.effects(NOW_MS)
    return _cpu_us(began, len(payloads))


def _hand_over(core: HubCore, store: SqliteStore) -> float:
    """Everything into the store, as the loop does it; µs in all."""
    began = time.process_time()
    core.begin()
    core.take_statement(store.statement(None), whole=True, now_ms=NOW_MS)
    core.commit()
    while True:
        facts, records = core.lacking_in_store(4_000)
        if not facts:
            return _cpu_us(began, 1)
        store.apply(facts, records, NOW_MS)
        core.begin()
        core.take_statement(store.statement(list(dict.fromkeys(f.stream for f in facts))), whole=False, now_ms=NOW_MS)
        core.commit()


def _follow(core: HubCore, store: SqliteStore) -> float:
    """What another worker took, stream by stream, as `Engine` takes it back; nobody whom it concerns is served here."""
    core.serving.only = lambda address: False
    core.begin()
    older = core.take_statement(store.statement(None), whole=True, now_ms=NOW_MS)
    core.commit()
    began, taken = time.process_time(), 0
    for key, run in older:
        facts = store.facts(key, run, 1_000)
        core.begin()
        core.take_from_store(facts, [], NOW_MS)
        core.commit()
        core.effects(NOW_MS)
        taken += len(facts)
    return _cpu_us(began, taken)


def _statements(core: HubCore, store: SqliteStore, streams: int) -> tuple[float, float, float]:
    """The whole statement with what the core makes of it; what a store does that finds its file written by another process; a look for
    news, of which there are none."""
    began = time.process_time()
    for _ in range(LOOKS):
        statement = store.statement(None)
        core.begin()
        core.take_statement(statement, whole=True, now_ms=NOW_MS)
        core.commit()
    statement_us = _cpu_us(began, LOOKS * streams)
    began = time.process_time()
    for _ in range(LOOKS):
        store._load()
    reload_us = _cpu_us(began, LOOKS * streams)
    began = time.process_time()
    for _ in range(LOOKS):
        store.news()
    return statement_us, reload_us, _cpu_us(began, LOOKS * streams)


def lease_round_ms(partitions: int = 64, workers: int = 8) -> float:
    """A renewal with its look at the table, for each of so many workers."""
    db = Db(":memory:")
    migrate(db, TABLES, part="workers")
    leases = SqlLeases(db, lambda: NOW_MS, partitions)
    cores = [Leasing(Me(f"w{n}", n + 1), LeaseSettings(partitions)) for n in range(workers)]
    began = time.process_time()
    for turn in range(LOOKS):
        for core in cores:
            core.begins(turn)
            plan = core.heard(leases.renew(core.me, 15_000), turn)
            leases.release(core.me, plan.release)
            core.took(leases.take(core.me, plan.take), turn)
    return _cpu_us(began, LOOKS * workers) / 1_000


def memory_kb(count: int = 1_000) -> float:
    """What a worker keeps in memory for each edge of the hub, its own and others'."""
    core, edges = _core(NodeKey(b"h" * 32)), _edges(count)
    payloads = [(edge.name, edge.frame(1, genesis(*edge.stream), 0)[0]) for edge in edges]
    tracemalloc.start()
    core.begin()
    for edge in edges:
        core.take_card(NodeCard(edge.name, "acme", "EMEA", edge.name, edge.key.public, "scrypt$none"), NOW_MS)
    core.commit()
    _take(core, payloads)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return used / count / 1_000


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="What the parts of a hub with several workers cost.")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--edges", type=int, nargs="*", default=SIZES, help="how many edges, several times")
    args = parser.parse_args()
    rows, round_ms, each_kb = [measure(count) for count in args.edges], lease_round_ms(), memory_kb()
    if args.json:
        print(json.dumps({"rows": [row._asdict() for row in rows], "leaseRoundMs": round_ms, "memoryKbPerEdge": each_kb}))
        return
    print("  ".join(f"{name:>24}" for name in Row._fields))
    for row in rows:
        print("  ".join(f"{value:24,.1f}" for value in row))
    print(f"a round with the lease table (64 partitions, 8 workers): {round_ms:.2f} ms; memory for each edge: {each_kb:.1f} kB")


if __name__ == "__main__":
    main()
