"""The real Kafka of the tests: it answers, and what it acknowledged outlives its being killed."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.support.engines.kafka import Kafka, answers
from tests.support.needs import needs


async def _produce(servers: str, topic: str, values: list[bytes]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=True)
    await producer.start()
    for value in values:
        await producer.send_and_wait(topic, value)
    await producer.stop()


async def _consume(servers: str, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([TopicPartition(topic, 0)])
    values = [(await asyncio.wait_for(consumer.getone(), 20)).value for _ in range(count)]
    await consumer.stop()
    return [value for value in values if value is not None]


@needs("kafka")
def test_what_a_broker_acknowledged_outlives_its_being_killed(own_kafka: Kafka) -> None:
    values = [b"%d" % n for n in range(20)]
    asyncio.run(_produce(own_kafka.servers, "outlives", values))
    own_kafka.kill()
    assert not answers(own_kafka.servers)
    own_kafka.start()
    assert asyncio.run(_consume(own_kafka.servers, "outlives", 20)) == values
