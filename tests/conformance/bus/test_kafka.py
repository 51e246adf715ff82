"""What only a real Kafka can show: credentials and TLS, a producer that is wedged, a broker that hangs or is away."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition

from hub import kafka as kafka_module
from hub.bridge_config import Bridge
from hub.bus import BusError, BusRefused, TopicPlan
from hub.kafka import Access, KafkaAdmin, KafkaReader, KafkaSender
from protocols.errors import ConfigError, LongshoreError
from tests.conformance.bus.test_bus import from_start, nothing, record, settings, taken
from tests.support.certificates import make_certificates
from tests.support.engines.kafka import Kafka
from tests.support.needs import needs
from tests.support.ports import free_port

pytestmark = needs("kafka")


def told(story: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(90):
            await story()

    asyncio.run(whole())


async def topic(access: Access, name: str) -> str:
    admin = KafkaAdmin(access)
    await admin.create([TopicPlan(name, 1, 1, {})])
    await admin.close()
    return name


def secured(kafka: Kafka, folder: Path, **changed: Any) -> Bridge:
    assert kafka.secure is not None
    password = folder / "kafka.password"
    password.write_text(changed.pop("password", kafka.secure.password) + "\n")
    password.chmod(0o600)
    given = {"security": "sasl_tls", "username": kafka.secure.username, "password_file": str(password), "ca_file": kafka.secure.ca_file}
    return settings(kafka.secure.servers, "secured", **given | changed)


def test_credentials_over_tls(kafka: Kafka, tmp_path: Path) -> None:
    async def story() -> None:
        access = Access(secured(kafka, tmp_path))
        name = await topic(access, "secured")
        sender, reader = KafkaSender(access, [name]), KafkaReader(access, [name])
        await sender.start()
        assert await sender.send([record(name, "k", b"1")]) == []
        await reader.start(from_start, nothing)
        assert [one.value for one in await taken(reader, 1)] == [b"1"]
        await reader.close()
        await sender.close()

    told(story)


def test_a_reader_whose_fetch_failed_a_moment_ago_is_closed_like_any_other(kafka: Kafka) -> None:
    """The library then waits before it fetches again, and lets the end of that waiting out of `stop` as a cancellation: a projector that
    rejoined its group after Kafka had been away took it for its own, and ended."""

    async def story() -> None:
        access = Access(settings(kafka.servers, "failed"))
        name = await topic(access, "failed")
        reader = KafkaReader(access, [name])
        await reader.start(from_start, nothing)
        consumer = reader._consumer
        assert consumer is not None
        consumer._fetcher._pending_tasks.add(asyncio.create_task(asyncio.sleep(60)))
        await reader.close()
        assert consumer._client._conns == {} or all(not conn.connected() for conn in consumer._client._conns.values())

    told(story)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the library leaves refused sockets to the collector
@pytest.mark.parametrize(
    ("changed", "kind", "says"),
    [
        pytest.param({"password": "wrong"}, BusRefused, "Kafka refused hub: ", id="password"),
        pytest.param({"username": "nobody"}, BusRefused, "Kafka refused nobody: ", id="user"),
        pytest.param({"security": "tls", "username": "", "password_file": ""}, BusError, "Kafka cannot be reached: ", id="no-sasl"),
        pytest.param({"ca": True}, BusError, "has a certificate that cannot be trusted", id="authority"),
    ],
)
def test_wrong_credentials_are_one_clear_line(
    kafka: Kafka, tmp_path: Path, changed: dict[str, Any], kind: type[LongshoreError], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    kafka_module.quiet()
    if changed.pop("ca", False):
        changed = {"ca_file": make_certificates(tmp_path).ca}
    access = Access(secured(kafka, tmp_path, **changed))

    async def story() -> None:
        for client in (KafkaSender(access, ["x"]), KafkaReader(access, ["x"])):
            with pytest.raises(kind) as refused:
                await (client.start() if isinstance(client, KafkaSender) else client.start(from_start, nothing))
            assert says in refused.value.reason and "\n" not in str(refused.value) and "a-long-password" not in str(refused.value)
            assert refused.value.remedy
            await client.close()
        admin = KafkaAdmin(access)
        with pytest.raises(kind):
            await admin.topics(["x"], [])
        await admin.close()

    told(story)
    gc.collect()


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        Access(settings("127.0.0.1:1", "g", security="tls", ca_file=str(tmp_path / "nowhere")))
    with pytest.raises(ConfigError, match="Kafka password"):
        Access(settings("127.0.0.1:1", "g", security="sasl_plaintext", username="hub", password_file=str(tmp_path / "nowhere")))


def test_where_a_topic_ends_is_asked_again_and_again_without_reading_it(kafka: Kafka) -> None:
    async def story() -> None:
        access = Access(settings(kafka.servers, "ends"))
        name = await topic(access, "ends")
        admin, sender = KafkaAdmin(access), KafkaSender(access, [name])
        assert await admin.ends(name, 1) == [0]
        await sender.start()
        for n in (1, 2):
            await sender.send([record(name, "k", b"1")] * 3)
            assert await admin.ends(name, 1) == [3 * n]
        await sender.close()
        await admin.close()
        await admin.close()

    told(story)


def test_a_producer_that_is_wedged_stays_so_and_a_new_one_goes_on(kafka: Kafka) -> None:
    """aiokafka#1017: once its sequence numbers are ahead of the broker's, every send of that producer is refused."""

    async def story() -> None:
        access = Access(settings(kafka.servers, "wedged"))
        name = await topic(access, "wedged")
        sender = KafkaSender(access, [name])
        await sender.start()
        await sender.send([record(name, "k", b"1")])
        producer: Any = sender._producer
        producer._txn_manager._sequence_numbers[TopicPartition(name, 0)] += 3
        for _ in range(2):
            with pytest.raises(BusError, match=r"(?i)out ?of ?order"):
                await sender.send([record(name, "k", b"2")])
        await sender.close()
        assert producer._sender.sender_task.done(), "it does not go on from behind"
        another = KafkaSender(access, [name])
        await another.start()
        assert await another.send([record(name, "k", b"2")]) == []
        await another.close()

    told(story)


def test_nobody_there_is_told_at_once() -> None:
    async def story() -> None:
        access = Access(settings(f"127.0.0.1:{free_port()},127.0.0.1:{free_port()}", "g"))
        with pytest.raises(BusError, match=r"cannot be reached: .*refuses connections; .*refuses connections"):
            await KafkaSender(access, ["x"]).start()

    told(story)


def test_a_broker_that_hangs_is_waited_for_no_longer_than_said(own_kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_module, "SEND_S", 1.0)
    monkeypatch.setattr(kafka_module, "STOP_S", 0.5)

    async def story() -> None:
        access = Access(settings(own_kafka.servers, "hangs"))
        name = await topic(access, "hangs")
        sender = KafkaSender(access, [name])
        await sender.start()
        await sender.check()
        own_kafka.freeze()
        try:
            async with asyncio.timeout(10):
                with pytest.raises(BusError, match="does not answer in time"):
                    await sender.send([record(name, "k", b"1")])
                with pytest.raises(BusError):
                    await sender.check()
                await sender.close()
        finally:
            own_kafka.thaw()

    told(story)
