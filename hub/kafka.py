"""Kafka behind the bus (`hub.bus`): the only module that knows aiokafka.

A sender is idempotent and waits for all replicas; it sends whole batches, never record by record. Whatever it raises, its owner throws it
away: after a partition was without a leader, the sequence numbers of aiokafka's idempotent producer may be ahead of the broker's, and every
further send fails with OutOfOrderSequenceNumber until the process is restarted (aiokafka#1017). Nothing here waits for ever: every call has
a deadline of its own above those of the library.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.conn import create_conn
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import KafkaError
from aiokafka.record.util import calc_crc32c

from hub.bridge_config import SASL, Bridge
from hub.bridge_topics import FACT, RECORD_BYTES
from hub.bus import Assigned, BusError, BusRecord, BusRefused, Place, Revoked, Taken, TopicFound, TopicPlan
from hub.kafka_findings import error_words
from hub.kafka_record import Batch, whole
from hub.kafka_waiting import STOP_S, let_go, soon, undone
from hub.partitioning import by_partition
from protocols.errors import LongshoreError
from protocols.transport.tls import client_context
from protocols.trust import MADE_BY_HAND, read_secret

T = TypeVar("T")
_make: Final = partial(tuple.__new__, Taken)
BATCH_BYTES: Final = 1_048_576
"""of one partition at once: what the bridge gives at once goes in one request, where it is spread evenly over six partitions"""
REQUEST_MS: Final = 5_000
START_S: Final = 15.0
SEND_S: Final = 15.0
FETCH_BYTES: Final = 1_048_576
"""of one partition at once: some thousand records, so that partitions take turns"""
SESSION_MS: Final = 6_000
"""after which a projector that says nothing is dead, and its partitions go to others; brokers allow no less by default"""
BEAT_MS: Final = 1_000
"""how often a projector says that it lives; by the answer it hears that another one came or went"""

_PROTOCOLS: Final = {"plaintext": "PLAINTEXT", "tls": "SSL", "sasl_plaintext": "SASL_PLAINTEXT", "sasl_tls": "SASL_SSL"}
_REFUSED: Final = (
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.AuthenticationFailedError,
    kafka_errors.AuthenticationMethodNotSupported,
    kafka_errors.SaslAuthenticationFailed,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.UnsupportedVersionError,
    kafka_errors.IncompatibleBrokerVersion,
    kafka_errors.UnrecognizedBrokerVersion,
)
_TOO_LARGE: Final = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordTooLargeError, kafka_errors.RecordListTooLargeError)


def quiet() -> None:
    """The library's own log is for those who look for its faults; what goes wrong is told once, by who called it."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


class Access:
    """How Kafka is reached: what every client of the library is given. Errors: ConfigError (a file cannot be read)."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self._context: ssl.SSLContext | None = None
        self._password = ""
        if bridge.security in ("tls", "sasl_tls"):
            self._context = client_context(bridge.ca_file or None)
        if bridge.security in SASL:
            self._password = read_secret(bridge.password_file, what="Kafka password", missing=MADE_BY_HAND).strip()

    def settings(self) -> dict[str, Any]:
        """Arguments of every client."""
        return {"bootstrap_servers": self.bridge.addresses, "request_timeout_ms": REQUEST_MS, **self._security()}

    def _security(self) -> dict[str, Any]:
        found: dict[str, Any] = {"security_protocol": _PROTOCOLS[self.bridge.security], "ssl_context": self._context}
        if self._password:
            found |= {
                "sasl_mechanism": self.bridge.mechanism,
                "sasl_plain_username": self.bridge.username,
                "sasl_plain_password": self._password,
            }
        return found

    async def why(self) -> LongshoreError:
        """Why nobody could be reached: the library only says that it failed."""
        reasons = []
        for address in self.bridge.addresses:
            host, _, port = address.rpartition(":")
            try:
                async with asyncio.timeout(STOP_S):
                    conn = await create_conn(host, int(port), request_timeout_ms=REQUEST_MS, **self._security())
            except (KafkaError, OSError, TimeoutError) as error:
                if isinstance(error, _REFUSED):
                    return self._refused(error)
                reasons.append(f"{address} {error_words(error)}")
            else:
                conn.close()
                reasons.append(f"{address} took the connection and said no more")
        return BusError(f"Kafka cannot be reached: {'; '.join(reasons)}", remedy="see bridge.servers and bridge.security")

    def _refused(self, error: Exception) -> BusRefused:
        return BusRefused(
            f"Kafka refused {self.bridge.username or 'this client'}: {error_words(error)}",
            remedy="see bridge.username, bridge.password_file and Kafka's ACLs",
        )

    async def told(self, error: BaseException) -> LongshoreError:
        """An error of the library as one of ours."""
        if isinstance(error, LongshoreError):
            return error
        if isinstance(error, kafka_errors.KafkaConnectionError | kafka_errors.NoBrokersAvailable):
            return await self.why()
        if isinstance(error, _REFUSED):
            return self._refused(error)
        if isinstance(error, TimeoutError | asyncio.TimeoutError):
            return BusError("Kafka does not answer in time", remedy="it is tried again")
        return BusError(f"Kafka: {error_words(error)}", remedy="it is tried again")

    @contextlib.asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """Turns whatever the library raises into BusError or BusRefused."""
        try:
            yield
        # boundary: the library raises its own errors, OSError, TimeoutError and, after a broker vanished, plain bugs; all mean: not done
        except Exception as error:
            raise await self.told(error) from error


# ------------------------------------------------------------------ sending


class KafkaSender:
    """See `hub.bus.Sender`. `topics`: those that must be there."""

    def __init__(self, access: Access, topics: Sequence[str]) -> None:
        self._access, self._topics = access, topics
        self._producer: AIOKafkaProducer | None = None
        self._partitions: dict[str, int] = {}

    async def start(self) -> None:
        """See `Sender.start`."""
        async with self._access.telling(), undone(self.close):
            producer = await self._open()
            there = await soon(producer.client.fetch_all_metadata(), START_S)
            for topic in self._topics:
                if not there.partitions_for_topic(topic):
                    raise missing(topic)
                self._partitions[topic] = len(await soon(producer.partitions_for(topic), START_S))

    async def _open(self) -> AIOKafkaProducer:
        await self.close()
        self._producer = AIOKafkaProducer(
            **self._access.settings(),
            acks="all",
            enable_idempotence=True,
            max_batch_size=BATCH_BYTES,
            max_request_size=RECORD_BYTES,
            client_id="longshore-hub",
        )
        await soon(self._producer.start(), START_S)
        return self._producer

    async def send(self, records: Sequence[BusRecord]) -> list[int]:
        """See `Sender.send`."""
        async with self._access.telling():
            outcomes = await self._send(records, range(len(records)))
            failed = [(places, error) for places, error in outcomes if error is not None]
            if failed and not any(isinstance(error, _TOO_LARGE) for _, error in failed):
                raise failed[0][1]
            return await self._one_by_one(records, sorted(n for places, _ in failed for n in places)) if failed else []

    async def _one_by_one(self, records: Sequence[BusRecord], places: Sequence[int]) -> list[int]:
        """What was in a batch with one that is too large, or behind it: after such a refusal the library counts on, and the broker refuses
        all that follows. So each refusal costs a producer."""
        refused: list[int] = []
        await self._open()
        for n in places:
            ((_, error),) = await self._send(records, [n])
            if isinstance(error, _TOO_LARGE):
                refused.append(n)
                await self._open()
            elif error is not None:
                raise error
        return refused

    async def _send(self, records: Sequence[BusRecord], places: Iterable[int]) -> list[tuple[list[int], BaseException | None]]:
        """Each batch's records, and how it failed."""
        assert self._producer is not None
        waiting: list[tuple[asyncio.Future[Any], list[int]]] = []
        for where, numbers in by_partition(records, places, self._partitions):
            for batch, held in _batches(records, numbers):
                waiting.append(await self._submit(TopicPartition(*where), batch, held))
                await asyncio.sleep(0)  # others have their turn
        outcomes: list[Any] = await soon(asyncio.gather(*(future for future, _ in waiting), return_exceptions=True), SEND_S)
        return [(places, one if isinstance(one, BaseException) else None) for one, (_, places) in zip(outcomes, waiting, strict=True)]

    async def _submit(self, where: TopicPartition, batch: Any, places: list[int]) -> tuple[asyncio.Future[Any], list[int]]:
        assert self._producer is not None
        return await soon(self._producer.send_batch(batch, where.topic, partition=where.partition), SEND_S), places

    async def check(self) -> None:
        """See `Sender.check`."""
        assert self._producer is not None
        async with self._access.telling():
            await soon(self._producer.client.fetch_all_metadata(), SEND_S)

    async def close(self) -> None:
        """See `Sender.close`."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _abandon(producer)


async def _abandon(producer: AIOKafkaProducer) -> None:
    """Close a producer without waiting for what it still holds: all that counts was acknowledged or is sent again. Its own way of closing
    waits, and where that is cut short goes on sending from behind."""
    producer._closed = True
    if producer._sender is not None:
        await let_go(producer._sender.close())
    await let_go(producer.client.close())


def _batches(records: Sequence[BusRecord], places: Sequence[int]) -> Iterator[tuple[Batch, list[int]]]:
    """Records of one partition in batches, each with the places of what it holds."""
    batch, held = Batch(BATCH_BYTES, calc_crc32c), list[int]()
    for n in places:
        _, key, value, headers, timestamp_ms = records[n]
        record = whole(key, value, headers)
        if not batch.add(record, timestamp_ms):
            yield batch, held
            batch, held = Batch(BATCH_BYTES, calc_crc32c), []
            batch.add(record, timestamp_ms)
        held.append(n)
    yield batch, held


def missing(topic: str) -> BusRefused:
    """A topic is not there."""
    return BusRefused(f"Kafka has no topic {topic}", remedy="make it with: longshore-hub topics create")


# ------------------------------------------------------------------ reading


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Tells the reader that its partitions have changed."""

    def __init__(self, reader: KafkaReader) -> None:
        self._reader = reader

    async def on_partitions_revoked(self, revoked: Any) -> None:
        await self._reader.revoked()

    async def on_partitions_assigned(self, assigned: Any) -> None:
        await self._reader.assigned([Place(tp.topic, tp.partition) for tp in sorted(assigned)])


class KafkaReader:
    """See `hub.bus.Reader`."""

    def __init__(self, access: Access, topics: Sequence[str]) -> None:
        self._access, self._topics = access, topics
        self._consumer: AIOKafkaConsumer | None = None
        self._assigned: Assigned | None = None
        self._revoked: Revoked | None = None

    async def start(self, assigned: Assigned, revoked: Revoked) -> None:
        """See `Reader.start`."""
        self._assigned, self._revoked = assigned, revoked
        async with self._access.telling(), undone(self.close):
            self._consumer = AIOKafkaConsumer(
                **self._access.settings(),
                group_id=self._access.bridge.group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_partition_fetch_bytes=FETCH_BYTES,
                session_timeout_ms=SESSION_MS,
                heartbeat_interval_ms=BEAT_MS,
                client_id="longshore-project",
            )
            await soon(self._consumer.start(), START_S)
            self._consumer._fetcher._records = _Fetched()
            there = await soon(self._consumer.topics(), START_S)
            for topic in self._topics:
                if topic not in there:
                    raise missing(topic)
            self._consumer.subscribe(list(self._topics), listener=_Listener(self))

    async def assigned(self, places: Sequence[Place]) -> None:
        """The group gave this reader these partitions, in place of those it had."""
        assert self._assigned is not None
        await self.seek(await self._assigned(places))

    async def revoked(self) -> None:
        """The group takes partitions away, once this returns."""
        if self._revoked is not None and self._consumer is not None and self._consumer.assignment():
            await self._revoked()

    async def seek(self, places: Mapping[Place, int | None]) -> None:
        """See `Reader.seek`. Beginnings are asked for all at once: each question may wait half a second behind a fetch, and a member that
        has been given partitions says nothing to its group before it has found its place in them. One after the other, 36 partitions took
        longer than a session: two projectors threw each other out for ever."""
        assert self._consumer is not None
        mine = self._consumer.assignment()
        known = {where: offset for place, offset in places.items() if (where := TopicPartition(*place)) in mine}
        for where, offset in known.items():
            if offset is not None:
                self._consumer.seek(where, offset)
        fresh = [where for where, offset in known.items() if offset is None]
        if fresh:
            await self._consumer.seek_to_beginning(*fresh)

    async def poll(self, timeout_ms: int) -> dict[Place, list[Taken]]:
        """See `Reader.poll`. What lies beyond the end or was deleted is not there: reading goes on from the oldest record that is."""
        assert self._consumer is not None
        async with self._access.telling():
            found = await soon(self._consumer.getmany(timeout_ms=timeout_ms), timeout_ms / 1_000 + SEND_S)
        return {Place(tp.topic, tp.partition): records for tp, records in found.items() if records}  # see `_Fetched`

    def places(self) -> list[Place]:
        """See `Reader.places`."""
        return [] if self._consumer is None else [Place(tp.topic, tp.partition) for tp in sorted(self._consumer.assignment())]

    def lag(self) -> dict[Place, int]:
        """See `Reader.lag`."""
        found: dict[Place, int] = {}
        for place in self.places():
            where = TopicPartition(*place)
            assert self._consumer is not None
            end, state = self._consumer.highwater(where), self._consumer._subscription.subscription.assignment.state_value(where)
            if end is not None and state is not None and state.has_valid_position:
                found[place] = max(0, end - state.position)
        return found

    async def close(self) -> None:
        """See `Reader.close`."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await _stopped(consumer)


async def _stopped(consumer: AIOKafkaConsumer) -> None:
    await let_go(consumer.stop())
    await let_go(consumer._client.close())  # its connections, which it may have come to nothing before (see `let_go`)


class _Fetched(OrderedDict[TopicPartition, Any]):
    """What was fetched and nobody has asked for yet, by partition. The library makes one object of a record for itself and of that another
    one for whoever asks; here a `Taken` is made of the first at once. All else about records and batches stays the library's."""

    def __setitem__(self, where: TopicPartition, fetched: Any) -> None:
        if isinstance(fetched, FetchResult):
            place = Place(where.topic, where.partition)
            fetched._partition_records._consumer_record = lambda _, record: _taken(record, place)
        super().__setitem__(where, fetched)


def _taken(r: Any, place: Place) -> Taken:
    headers = r.headers
    if not headers or headers[-1][0] != FACT:  # what is no fact of ours may have headers without a value
        headers = [(name, value or b"") for name, value in headers]
    return _make((place, r.offset, r.key or b"", r.value or b"", headers, r.timestamp))


# ------------------------------------------------------------------ topics


class KafkaAdmin:
    """See `hub.bus.Admin`."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._client: AIOKafkaAdminClient | None = None
        self._asker: AIOKafkaConsumer | None = None

    async def _open(self) -> AIOKafkaAdminClient:
        if self._client is None:
            self._client = AIOKafkaAdminClient(**self._access.settings(), client_id="longshore-hub")
            await soon(self._client.start(), START_S)
        return self._client

    async def topics(self, names: Sequence[str], settings: Sequence[str]) -> dict[str, TopicFound]:
        """See `Admin.topics`."""
        async with self._access.telling():
            client = await self._open()
            told = await soon(client.describe_topics(list(names)), START_S)
            there = {t["topic"]: t["partitions"] for t in told if not t["error_code"]}
            values = await self._settings(client, list(there), settings)
            return {
                name: TopicFound(name, len(parts), min((len(p["replicas"]) for p in parts), default=0), values[name])
                for name, parts in there.items()
            }

    async def _settings(self, client: AIOKafkaAdminClient, names: Sequence[str], settings: Sequence[str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {name: {} for name in names}
        if names:
            asked = [ConfigResource(ConfigResourceType.TOPIC, name, configs=dict.fromkeys(settings)) for name in names]
            for answer in await soon(client.describe_configs(asked), START_S):
                for resource in answer.to_object()["resources"]:
                    entries = resource["config_entries"]
                    found[resource["resource_name"]] = {e["config_names"]: e["config_value"] for e in entries}
        return found

    async def create(self, plans: Sequence[TopicPlan]) -> None:
        """See `Admin.create`."""
        async with self._access.telling():
            client = await self._open()
            new = [NewTopic(p.name, p.partitions, p.replicas, topic_configs=dict(p.settings)) for p in plans]
            answer = await soon(client.create_topics(new), START_S)
            for name, code, *said in answer.topic_errors:
                error = kafka_errors.for_code(code)
                if error not in (kafka_errors.NoError, kafka_errors.TopicAlreadyExistsError):
                    text = f"{name}: {(said[0] if said and said[0] else error.__name__)}"
                    raise (self._access._refused(error(text)) if issubclass(error, _REFUSED) else BusRefused(f"Kafka does not make {text}"))
            async with asyncio.timeout(START_S):  # brokers hear of a new topic one after the other
                while {p.name for p in plans} - set(await client.list_topics()):  # noqa: ASYNC110 (nobody tells)
                    await asyncio.sleep(0.05)

    async def ends(self, topic: str, partitions: int) -> list[int]:
        """The offset of the next record in each partition of a topic. Nothing is read: it may be asked again and again."""
        async with self._access.telling():
            if self._asker is None:
                async with undone(self.close):
                    self._asker = AIOKafkaConsumer(**self._access.settings(), enable_auto_commit=False)
                    await soon(self._asker.start(), START_S)
            found = await soon(self._asker.end_offsets([TopicPartition(topic, n) for n in range(partitions)]), SEND_S)
        return [end for _, end in sorted(found.items())]

    async def read_all(self, topics: Sequence[str], limit: int) -> list[Taken]:
        """See `Admin.read_all`."""
        found = await self.topics(topics, [])
        places = [TopicPartition(name, n) for name in sorted(found) for n in range(found[name].partitions)]
        async with self._access.telling():
            consumer = AIOKafkaConsumer(**self._access.settings(), enable_auto_commit=False, auto_offset_reset="earliest")
            try:
                await soon(consumer.start(), START_S)
                return await soon(_last_records(consumer, places, limit), 4 * SEND_S) if places else []
            finally:
                await _stopped(consumer)

    async def close(self) -> None:
        """See `Admin.close`."""
        client, self._client = self._client, None
        asker, self._asker = self._asker, None
        if asker is not None:
            await _stopped(asker)
        if client is not None:
            await let_go(client.close())


async def _last_records(consumer: AIOKafkaConsumer, places: Sequence[TopicPartition], limit: int) -> list[Taken]:
    consumer.assign(places)
    ends, begins = await consumer.end_offsets(places), await consumer.beginning_offsets(places)
    out: list[Taken] = []
    for where in places:
        at = max(begins[where], ends[where] - limit)
        consumer.seek(where, at)
        while at < ends[where]:
            for record in (await consumer.getmany(where, timeout_ms=1_000)).get(where, ()):
                out.append(_taken(record, Place(where.topic, where.partition)))
                at = record.offset + 1
            at = max(at, await consumer.position(where))
    return out
