"""A real Kafka for the session, where somebody asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engines.kafka import Kafka


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """One broker, with its second listener; tests name topics of their own and leave it running."""
    broker = Kafka(tmp_path_factory.mktemp("kafka"), secure=True)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Kafka]:
    """A broker for a test that kills it."""
    broker = Kafka(tmp_path / "kafka")
    broker.start()
    yield broker
    broker.stop()
