"""The bridge's leg into Kafka: whole batches beside `send()` per event, against a real broker, same records, same durability.

Both are idempotent and wait for all replicas (`acks=all`); the peer is what a plain bridge on the same library does: a `send()` for each
event, and all answers awaited. Runs take turns, each with a topic of its own, which is read back: one that lost or doubled gives no rate.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, Final

from deploy.bench import engines
from deploy.bench.orders import events
from deploy.bench.table import Figure
from hub.bridge_config import Bridge
from hub.bridge_desk import BATCH_FACTS
from hub.bridge_records import Encoder
from hub.bus import BusRecord, TopicPlan
from hub.store.port import StoreFact
from protocols.codec import pack
from protocols.fact import FactRow, chain, from_row, genesis, to_row
from protocols.streams import StreamKey

RUNS: Final = 5
COUNT: Final = 20_000
PARTITIONS: Final = 6
TARGET: Final = 3.0


def run() -> Iterator[Figure]:
    """Skipped loudly where there is no Kafka to be had."""
    if engines.skipped("kafka"):
        return
    facts = facts_of(COUNT)
    with engines.folder() as root, engines.kafka(root) as broker:
        servers = broker.address
        records = [Encoder().fact(f) for f in facts]
        ours, peer, whole = [], [], []
        for _ in range(RUNS):
            peer.append(asyncio.run(_timed(servers, _send_each, records)))
            ours.append(asyncio.run(_timed(servers, _send_batches, records)))
            whole.append(asyncio.run(_timed(servers, _make_and_send, facts)))
    ratio = median(ours) / median(peer)
    note = f"{sum(len(r.value) for r in records) / COUNT:.0f} B of JSON, {len(records[0].headers)} headers"
    yield Figure(
        "bridge, records into Kafka", median(ours), "ev/s", "send() per event", median(peer), ratio, ">= 3x", ratio >= TARGET, note
    )
    yield Figure("the same, made from facts as well", median(whole), "ev/s")


def facts_of(count: int) -> list[StoreFact]:
    """So many events of real orders as facts of one stream, read."""
    key, now = StreamKey("dock-7", 0x1A2B3C4D5E6F, 0), 1_795_000_000_000
    prev, out = genesis(*key), []
    for seq, event in enumerate(events(count, now), 1):
        values = to_row(event, now, [])
        row = pack(values)
        h = chain(prev, [row])[0]
        fact: FactRow = from_row(values)
        out.append(StoreFact(key, seq, h, prev, row, now, "", fact))
        prev = h
    return out


# ------------------------------------------------------------------ runs


async def _timed(servers: str, work: Any, given: Sequence[Any]) -> float:
    from hub.kafka import Access, KafkaAdmin, quiet

    quiet()
    access = Access(Bridge("kafka", servers, "plaintext", "PLAIN", "", "", "", "bench", 60, PARTITIONS, 1, 7))
    topic, admin = f"bench{time.monotonic_ns()}", KafkaAdmin(access)
    await admin.create([TopicPlan(topic, PARTITIONS, 1, {"max.message.bytes": "4194304"})])
    gc.collect()
    took = await work(access, topic, given)
    found = [dict(one.headers)["ce_id"] for one in await admin.read_all([topic], COUNT)]
    await admin.close()
    if len(found) != len(given) or len(set(found)) != len(given):
        raise AssertionError(f"{len(given)} were sent, {len(found)} are there, {len(set(found))} different ones: no rate")
    return len(given) / float(took)


async def _send_batches(access: Any, topic: str, records: Sequence[BusRecord]) -> float:
    from hub.kafka import KafkaSender

    sender = KafkaSender(access, [topic])
    await sender.start()
    ready = [r._replace(topic=topic) for r in records]
    started = time.perf_counter()
    for at in range(0, len(ready), BATCH_FACTS):
        await sender.send(ready[at : at + BATCH_FACTS])
    took = time.perf_counter() - started
    await sender.close()
    return took


async def _make_and_send(access: Any, topic: str, facts: Sequence[StoreFact]) -> float:
    from hub.kafka import KafkaSender

    sender, encoder = KafkaSender(access, [topic]), Encoder()
    await sender.start()
    started = time.perf_counter()
    for at in range(0, len(facts), BATCH_FACTS):
        await sender.send([encoder.fact(f)._replace(topic=topic) for f in facts[at : at + BATCH_FACTS]])
    took = time.perf_counter() - started
    await sender.close()
    return took


async def _send_each(access: Any, topic: str, records: Sequence[BusRecord]) -> float:
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(**access.settings(), acks="all", enable_idempotence=True)
    await producer.start()
    await producer.partitions_for(topic)
    ready = [(r.value, r.key, r.timestamp_ms, list(r.headers)) for r in records]
    started = time.perf_counter()
    waiting = [await producer.send(topic, value, key=key, timestamp_ms=at, headers=pairs) for value, key, at, pairs in ready]
    await asyncio.gather(*waiting)
    took = time.perf_counter() - started
    await producer.stop()
    return took
