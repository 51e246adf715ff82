"""The bus between hubs and projectors: a small port, Kafka behind it (`hub.kafka`), a stand-in in tests, one suite over both.

At least once: what was sent may be there twice, and nothing here decides what is settled. Methods that speak to the bus raise BusError when
it is away or said no, whatever the reason; a sender that raised is closed and another one is made, never used again: an idempotent producer
may be wedged for good (aiokafka#1017).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from hub.kafka_record import Headers
from protocols.errors import ConfigError, TransportError


class Place(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class BusRecord(NamedTuple):
    """A record on its way to the bus. `timestamp_ms`: when the hub received what it carries. `headers`: pairs of name and value."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers
    timestamp_ms: int


class Taken(NamedTuple):
    """A record that came from the bus."""

    place: Place
    offset: int
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]
    timestamp_ms: int


class BusError(TransportError):
    """The bus is away, or did not take or give what it was asked for: try again with a new sender or reader."""


class BusRefused(ConfigError):
    """The bus said no, and goes on saying no until somebody changes something: credentials, rights, a missing topic, a version."""


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """A topic as it should be. `settings` are the broker's own names and values."""

    name: str
    partitions: int
    replicas: int
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TopicFound:
    """A topic as it is; `settings` holds at least those that were asked for."""

    name: str
    partitions: int
    replicas: int
    settings: Mapping[str, str]


class Sender(Protocol):
    """Sends records, in batches. For one event loop. Errors of every method: BusError, BusRefused."""

    async def start(self) -> None:
        """Reach the bus, and see that the topics are there."""

    async def send(self, records: Sequence[BusRecord]) -> list[int]:
        """Returns when the bus has all of them on as many replicas as it promises, but for those that it refuses for their size: their
        places in `records`. After an error any of them may be there or not."""

    async def check(self) -> None:
        """See that the bus is there, while there is nothing to send."""

    async def close(self) -> None:
        """Let go of it; never hangs, never raises. Idempotent."""


Assigned = Callable[[Sequence[Place]], Awaitable[Mapping[Place, int | None]]]
"""called with all partitions that this reader has now; says where to read on (None: from the beginning)"""
Revoked = Callable[[], Awaitable[None]]
"""called before partitions go to others; those wait until it returns"""


class Reader(Protocol):
    """Reads as a member of a group: partitions come and go with the other members. For one event loop. Errors: BusError, BusRefused."""

    async def start(self, assigned: Assigned, revoked: Revoked) -> None:
        """Join the group."""

    async def poll(self, timeout_ms: int) -> dict[Place, list[Taken]]:
        """What has come, by partition, each in order; {} when nothing came in time."""

    async def seek(self, places: Mapping[Place, int | None]) -> None:
        """Read on from there. Places that this reader has lost meanwhile are left out."""

    def places(self) -> list[Place]:
        """The partitions that this reader has now."""

    def lag(self) -> dict[Place, int]:
        """Records beyond where each partition is read, as far as it is known."""

    async def close(self) -> None:
        """Leave the group; never hangs, never raises. Idempotent."""


class Admin(Protocol):
    """Makes and looks at topics. Errors: BusError, BusRefused."""

    async def topics(self, names: Sequence[str], settings: Sequence[str]) -> dict[str, TopicFound]:
        """Those of `names` that exist, with these settings."""

    async def create(self, plans: Sequence[TopicPlan]) -> None:
        """Make topics. One that has come into being meanwhile is no error."""

    async def read_all(self, topics: Sequence[str], limit: int) -> list[Taken]:
        """What lies in these topics now, oldest first within a partition, at most `limit` of each partition: the last ones."""

    async def close(self) -> None:
        """Let go of it. Idempotent."""
