"""What lies in Kafka in the end, read with a consumer of no group, and what may not be so.

A fact may lie there several times: then every time with the same `ce_id`, key, value and row, in the same partition. There is nothing that
the store has not, and nothing in the store that never went this way; the JSON that others read says what the row says.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.chaos.oracle import Books, Fact
from tests.support.patience import WITHIN_S

EVENTS: Final = "longshore.orders.events.v1"
FACTS: Final = (EVENTS, "longshore.devices.telemetry.v1", "longshore.hub.records.v1")
DEAD: Final = tuple(f"{topic}.dlq" for topic in FACTS)
POLL_MS: Final = 5_000


class Record(NamedTuple):
    """One record."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: dict[str, bytes]

    @property
    def ce_id(self) -> str:
        """The identity it gives itself."""
        return self.headers["ce_id"].decode()

    @property
    def row(self) -> bytes:
        """The fact's row: behind 33 bytes, of which the last is the length of the stream between."""
        fact = self.headers.get("ls_fact", bytes(33))
        return fact[33 + fact[32] :]


def read(servers: str) -> list[Record]:
    """Every record of every topic of ours. Errors: TimeoutError."""
    return asyncio.run(asyncio.wait_for(_read(servers), WITHIN_S))


async def _read(servers: str) -> list[Record]:
    consumer = AIOKafkaConsumer(*FACTS, *DEAD, bootstrap_servers=servers, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        ends: dict[TopicPartition, int] = await consumer.end_offsets(list(consumer.assignment()))
        found: list[Record] = []
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            for polled in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                found += [Record(r.topic, r.partition, r.key, r.value, {k: bytes(v) for k, v in r.headers}) for r in polled]
        return found
    finally:
        await consumer.stop()


def repeated(records: Sequence[Record]) -> int:
    """How many lie there once more."""
    return len(records) - len({record.ce_id for record in records})


def compare(records: Sequence[Record], store: Books) -> list[str]:
    """Whatever is not as it must be once everything is quiet."""
    said = [f"topic: a dead letter in {r.topic}: {r.headers.get('dlq_error', b'')!r}" for r in records if r.topic in DEAD]
    facts = {f"{fid.node}/{fid.epoch:x}/{fid.seq}/{fid.h.hex()}": fact for fid, fact in store.facts.items()}
    first: dict[str, Record] = {}
    for record in records:
        if record.topic in DEAD:
            continue
        known = first.setdefault(record.ce_id, record)
        if known is record:
            said += [f"topic: {record.ce_id} {what}" for what in _wrong(record, facts.get(record.ce_id))]
        elif known._replace(headers={}) != record._replace(headers={}) or known.row != record.row:
            said.append(f"topic: {record.ce_id} lies there twice, and not the same")
    return said + [f"topic: {ce_id} is in the store and never was in Kafka" for ce_id in facts if ce_id not in first]


def _wrong(record: Record, fact: Fact | None) -> Iterator[str]:
    if "ls_record" in record.headers:
        return
    if fact is None:
        yield "is not in the store"
        return
    if record.row != fact.row:
        yield "has another row than in the store"
    if (fact.order is not None) != (record.topic == EVENTS):
        yield f"lies in {record.topic}"
    if fact.order is None:
        return
    value: dict[str, Any] = json.loads(record.value)
    if (value["org"], value["orderId"], value["status"]) != (*fact.order, fact.status.name) or record.key != "/".join(fact.order).encode():
        yield f"is {record.key!r}: {value['status']} of {value['orderId']}, and its row says otherwise"
