"""A bus in memory: topics, partitions, groups, and the ways in which a real one fails. Same port and same suite as Kafka.

bus = MemoryBus({"orders": 2})
bus.fail = [Failure.BEFORE]      # the next send fails and nothing of it is there
bus.fail = [Failure.AFTER]       # … fails, and all of it is there
bus.fail = [Failure.WEDGED]      # … fails, and so does every further send of this very sender (aiokafka#1017)
bus.silence()                    # sends are not answered until `answer`
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from zlib import crc32

from hub.bus import Assigned, BusError, BusRecord, BusRefused, Place, Revoked, Taken, TopicFound, TopicPlan


class Failure(Enum):
    """What befalls a send."""

    BEFORE = auto()
    AFTER = auto()
    WEDGED = auto()


@dataclass
class MemoryBus:
    """See the module. `sent`: how often each sender was used, by its number."""

    partitions: dict[str, int]
    most_bytes: int = 1_000_000
    away: bool = False
    answering: asyncio.Event | None = None
    fail: list[Failure] = field(default_factory=list)
    plans: dict[str, TopicPlan] = field(default_factory=dict)
    log: dict[Place, list[Taken]] = field(default_factory=dict)
    groups: dict[str, list[MemoryReader]] = field(default_factory=dict)
    generation: int = 0
    senders: int = 0
    came: asyncio.Event | None = None

    def __post_init__(self) -> None:
        for topic, count in self.partitions.items():
            self.log |= {Place(topic, n): [] for n in range(count)}

    def put(self, record: BusRecord) -> None:
        """As the broker does it."""
        place = Place(record.topic, crc32(record.key) % self.partitions[record.topic])
        lies = self.log[place]
        offset = lies[-1].offset + 1 if lies else 0
        lies.append(Taken(place, offset, record.key, record.value, list(record.headers), record.timestamp_ms))

    def all(self, topic: str) -> list[Taken]:
        """Every record of a topic."""
        return [one for place, lies in self.log.items() if place.topic == topic for one in lies]

    def silence(self) -> None:
        """From now on sends are not answered."""
        self.answering = asyncio.Event()

    def answer(self) -> None:
        """Now they are."""
        if self.answering is not None:
            self.answering.set()

    def check(self) -> None:
        """Whether it can be reached."""
        if self.away:
            raise BusError("the bus is away")

    # ------------------------------------------------------------ groups

    def members(self, group: str) -> list[MemoryReader]:
        return self.groups.setdefault(group, [])

    def share(self, reader: MemoryReader) -> list[Place]:
        """What this reader has."""
        members = self.members(reader.group)
        if reader not in members:
            return []
        places = sorted(place for place in self.log if place.topic in reader.topics)
        return [place for n, place in enumerate(places) if n % len(members) == members.index(reader)]

    def expire(self, reader: MemoryReader) -> None:
        """The group takes this reader for dead; it does not know."""
        self.members(reader.group).remove(reader)
        self.generation += 1


class MemorySender:
    """See `hub.bus.Sender`."""

    def __init__(self, bus: MemoryBus, topics: Sequence[str]) -> None:
        self.bus, self.topics, self.wedged, self.closed = bus, topics, False, False
        bus.senders += 1

    async def start(self) -> None:
        self.bus.check()
        _there(self.bus, self.topics)

    async def send(self, records: Sequence[BusRecord]) -> list[int]:
        await asyncio.sleep(0)
        assert not self.closed, "a sender that was closed is not used again"
        if self.bus.answering is not None:
            await self.bus.answering.wait()
        self.bus.check()
        failure = self.bus.fail.pop(0) if self.bus.fail and not self.wedged else None
        self.wedged = self.wedged or failure is Failure.WEDGED
        if self.wedged:
            raise BusError("out of order sequence number")
        if failure is Failure.BEFORE:
            raise BusError("not sent")
        refused = [n for n, r in enumerate(records) if len(r.value) + sum(len(v) for _, v in r.headers) > self.bus.most_bytes]
        for n, record in enumerate(records):
            if n not in refused:
                self.bus.put(record)
        if failure is Failure.AFTER:
            raise BusError("no answer")
        return refused

    async def check(self) -> None:
        self.bus.check()

    async def close(self) -> None:
        self.closed = True


class MemoryReader:
    """See `hub.bus.Reader`. Partitions change hands when a member polls."""

    def __init__(self, bus: MemoryBus, topics: Sequence[str], group: str = "group", at_once: int = 1_000) -> None:
        self.bus, self.topics, self.group, self.at_once = bus, topics, group, at_once
        self._mine: list[Place] = []
        self._at: dict[Place, int] = {}
        self._generation = -1
        self._assigned: Assigned | None = None
        self._revoked: Revoked | None = None

    async def start(self, assigned: Assigned, revoked: Revoked) -> None:
        self.bus.check()
        _there(self.bus, self.topics)
        self._assigned, self._revoked = assigned, revoked
        self.bus.members(self.group).append(self)
        self.bus.generation += 1

    async def poll(self, timeout_ms: int) -> dict[Place, list[Taken]]:
        await asyncio.sleep(0)
        self.bus.check()
        if self in self.bus.members(self.group) and self._generation != self.bus.generation:
            await self._rebalance()
        found = {}
        for place in self._mine:
            records = [one for one in self.bus.log[place] if one.offset >= self._at[place]][: self.at_once]
            if records:
                found[place], self._at[place] = records, records[-1].offset + 1
        if not found:
            await asyncio.sleep(min(timeout_ms, 2) / 1_000)
        return found

    async def _rebalance(self) -> None:
        assert self._assigned is not None and self._revoked is not None
        if self._mine:
            await self._revoked()
        self._generation, self._mine = self.bus.generation, self.bus.share(self)
        self._at = dict.fromkeys(self._mine, 0)
        await self.seek(await self._assigned(self._mine))

    async def seek(self, places: Mapping[Place, int | None]) -> None:
        self._at |= {place: at or 0 for place, at in places.items() if place in self._mine}

    def places(self) -> list[Place]:
        return list(self._mine)

    def lag(self) -> dict[Place, int]:
        return {place: sum(one.offset >= self._at[place] for one in self.bus.log[place]) for place in self._mine}

    async def close(self) -> None:
        if self in self.bus.members(self.group):
            self.bus.expire(self)
        self._mine = []


class MemoryAdmin:
    """See `hub.bus.Admin`."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus

    async def topics(self, names: Sequence[str], settings: Sequence[str]) -> dict[str, TopicFound]:
        self.bus.check()
        found = {}
        for name in names:
            if name in self.bus.partitions:
                plan = self.bus.plans.get(name, TopicPlan(name, 1, 1, {}))
                found[name] = TopicFound(name, self.bus.partitions[name], plan.replicas, plan.settings)
        return found

    async def create(self, plans: Sequence[TopicPlan]) -> None:
        self.bus.check()
        for plan in plans:
            if plan.name not in self.bus.partitions:
                self.bus.partitions[plan.name], self.bus.plans[plan.name] = plan.partitions, plan
                self.bus.log |= {Place(plan.name, n): [] for n in range(plan.partitions)}

    async def read_all(self, topics: Sequence[str], limit: int) -> list[Taken]:
        self.bus.check()
        return [one for place in sorted(self.bus.log) if place.topic in topics for one in self.bus.log[place][-limit:]]

    async def close(self) -> None:
        """Nothing to let go of."""


def _there(bus: MemoryBus, topics: Sequence[str]) -> None:
    for topic in topics:
        if topic not in bus.partitions:
            raise BusRefused(f"Kafka has no topic {topic}", remedy="make it with: longshore-hub topics create")
