"""What every bus behind the bridge does: the stand-in in memory, and a real Kafka."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from hub.bridge_config import Bridge
from hub.bus import Admin, BusRecord, BusRefused, Place, Reader, Sender, Taken, TopicPlan
from hub.kafka import Access, KafkaAdmin, KafkaReader, KafkaSender
from tests.support.engines.kafka import Kafka
from tests.support.memory_bus import MemoryAdmin, MemoryBus, MemoryReader, MemorySender
from tests.support.needs import needs
from tests.support.patience import WITHIN_S

_numbers = itertools.count(1)


@dataclass
class Kind:
    """One bus: how its parts are made."""

    sender: Callable[[Sequence[str]], Sender]
    reader: Callable[[Sequence[str]], Reader]
    admin: Callable[[], Admin]

    async def topic(self, partitions: int = 2, **settings: str) -> str:
        """A new topic, of its own name."""
        name = f"t{next(_numbers)}"
        admin = self.admin()
        await admin.create([TopicPlan(name, partitions, 1, {"max.message.bytes": "1000000"} | settings)])
        await admin.close()
        return name


def settings(servers: str, group: str, **more: Any) -> Bridge:
    given: dict[str, Any] = {
        "kind": "kafka", "servers": servers, "security": "plaintext", "mechanism": "PLAIN", "username": "", "password_file": "",
        "ca_file": "", "group": group, "produce_again_s": 60, "partitions": 2, "replicas": 1, "retention_days": 7,
    }  # fmt: skip
    return Bridge(**given | more)


@pytest.fixture(scope="session", params=["memory", pytest.param("kafka", marks=needs("kafka"))])
def broker(request: pytest.FixtureRequest) -> Kafka | None:
    """Of the session, so that it is there before the tests' own fixtures look which processes run."""
    found: Kafka | None = request.getfixturevalue("kafka") if request.param == "kafka" else None
    return found


@pytest.fixture
def bus(broker: Kafka | None) -> Kind:
    group = f"g{next(_numbers)}"
    if broker is None:
        memory = MemoryBus({})
        return Kind(lambda t: MemorySender(memory, t), lambda t: MemoryReader(memory, t, group), lambda: MemoryAdmin(memory))
    access = Access(settings(broker.servers, group))
    return Kind(lambda t: KafkaSender(access, t), lambda t: KafkaReader(access, t), lambda: KafkaAdmin(access))


def record(topic: str, key: str, value: bytes = b"{}", **headers: bytes) -> BusRecord:
    return BusRecord(topic, key.encode(), value, list(headers.items()), 1_795_000_000_000)


async def from_start(places: Sequence[Place]) -> Mapping[Place, int | None]:
    return dict.fromkeys(places, None)


async def nothing() -> None:
    """Nobody minds."""


async def taken(reader: Reader, count: int) -> list[Taken]:
    """So many records, however they come."""
    out: list[Taken] = []
    async with asyncio.timeout(WITHIN_S):
        while len(out) < count:
            for records in (await reader.poll(200)).values():
                out += records
    return out


async def holds(condition: Callable[[], bool], *polled: Reader) -> None:
    """Until it does, while these go on reading."""
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            for reader in polled:
                await reader.poll(50)


def told(story: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(2 * WITHIN_S):
            await story()

    asyncio.run(whole())


def test_what_was_sent_comes_as_it_was_and_records_of_one_key_in_their_order(bus: Kind) -> None:
    async def story() -> None:
        topic = await bus.topic(3)
        sender, reader = bus.sender([topic]), bus.reader([topic])
        await sender.start()
        sent = [record(topic, f"k{n % 7}", b'{"n":%d}' % n, ls_h=bytes([n, 0, 255]), ce_id=b"x") for n in range(100)]
        assert await sender.send(sent[:60]) == []
        assert await sender.send(sent[60:]) == []
        await reader.start(from_start, nothing)
        got = await taken(reader, 100)
        await reader.close()
        await sender.close()
        for key in {one.key for one in sent}:
            assert [one.value for one in got if one.key == key] == [one.value for one in sent if one.key == key]
            assert len({one.place for one in got if one.key == key}) == 1, "one key, one partition"
        first = next(one for one in got if one.value == b'{"n":0}')
        assert first.headers == [("ls_h", bytes([0, 0, 255])), ("ce_id", b"x")]
        assert first.timestamp_ms == 1_795_000_000_000

    told(story)


def test_a_topic_that_is_missing_is_refused_with_what_to_do(bus: Kind) -> None:
    async def story() -> None:
        sender, reader = bus.sender(["nobody-made-this"]), bus.reader(["nobody-made-this"])
        with pytest.raises(BusRefused, match=r"no topic nobody-made-this.*longshore-hub topics create"):
            await sender.start()
        with pytest.raises(BusRefused, match=r"no topic nobody-made-this.*longshore-hub topics create"):
            await reader.start(from_start, nothing)
        await sender.close()
        await reader.close()

    told(story)


def test_a_record_that_is_too_large_keeps_back_no_other(bus: Kind) -> None:
    async def story() -> None:
        topic = await bus.topic(1)
        sender, reader = bus.sender([topic]), bus.reader([topic])
        await sender.start()
        values = [b"a", b"b" * 1_500_000, b"c", b"d" * 900_000, b"e"]
        assert await sender.send([record(topic, "k", value) for value in values]) == [1]
        assert await sender.send([record(topic, "k", b"f")]) == []
        await reader.start(from_start, nothing)
        assert sorted(len(one.value) for one in await taken(reader, 5)) == [1, 1, 1, 1, 900_000]
        await sender.close()
        await reader.close()

    told(story)


def test_readers_of_a_group_share_partitions_and_who_leaves_is_followed(bus: Kind) -> None:
    async def story() -> None:
        topic = await bus.topic(4)
        sender, one, two = bus.sender([topic]), bus.reader([topic]), bus.reader([topic])
        await sender.start()
        given: list[list[Place]] = []
        gone: list[int] = []

        async def assigned(places: Sequence[Place]) -> Mapping[Place, int | None]:
            given.append(list(places))
            return dict.fromkeys(places, 1)

        async def revoked() -> None:
            gone.append(len(given))

        await sender.send([record(topic, f"k{n}", b"%d" % n) for n in range(40)])
        await one.start(assigned, revoked)
        await holds(lambda: len(one.places()) == 4, one)
        assert given[0] == [Place(topic, n) for n in range(4)]
        await two.start(from_start, nothing)
        await holds(lambda: len(one.places()) == 2 == len(two.places()), one, two)
        assert gone and sorted([*one.places(), *two.places()]) == [Place(topic, n) for n in range(4)]
        await two.close()
        await holds(lambda: len(one.places()) == 4, one)
        assert all(records[0].offset >= 1 for records in (await one.poll(10)).values()), "it reads from where it was told"
        await one.close()
        await sender.close()

    told(story)


def test_readers_share_many_partitions_of_which_nothing_was_read_yet(bus: Kind) -> None:
    """Who takes longer to find its place in them than its session lasts is thrown out, and so is the next one, for ever."""

    async def story() -> None:
        topic = await bus.topic(40)
        one, two = bus.reader([topic]), bus.reader([topic])
        await one.start(from_start, nothing)
        await holds(lambda: len(one.places()) == 40, one)
        await two.start(from_start, nothing)
        await holds(lambda: len(one.places()) == 20 == len(two.places()), one, two)
        await one.close()
        await two.close()

    told(story)


def test_who_seeks_reads_again_from_there_and_the_lag_says_how_much_is_left(bus: Kind) -> None:
    async def story() -> None:
        topic = await bus.topic(1)
        sender, reader = bus.sender([topic]), bus.reader([topic])
        await sender.start()
        await sender.send([record(topic, "k", b"%d" % n) for n in range(10)])
        await reader.start(from_start, nothing)
        assert [one.offset for one in await taken(reader, 10)] == list(range(10))
        await reader.seek({Place(topic, 0): 7, Place("another", 0): 3})
        assert [one.offset for one in await taken(reader, 3)] == [7, 8, 9]
        assert reader.lag() == {Place(topic, 0): 0}
        await reader.close()
        await sender.close()

    told(story)


def test_topics_are_made_once_with_their_settings_and_read_to_their_end(bus: Kind) -> None:
    async def story() -> None:
        name = await bus.topic(3, **{"retention.ms": "86400000"})
        admin, sender = bus.admin(), bus.sender([name])
        await admin.create([TopicPlan(name, 5, 1, {})])
        found = await admin.topics([name, "not-there"], ["retention.ms"])
        assert [(t.name, t.partitions, t.replicas, t.settings["retention.ms"]) for t in found.values()] == [(name, 3, 1, "86400000")]
        assert await admin.read_all([name, "not-there"], 5) == []
        await sender.start()
        await sender.send([record(name, "k", b"%d" % n) for n in range(12)])
        assert [one.value for one in await admin.read_all([name], 5)] == [b"7", b"8", b"9", b"10", b"11"]
        await sender.close()
        await admin.close()

    told(story)
