"""A hub behind its HTTP face, empty or after a day at the docks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_hub import AppClient, FakeHub, a_day_at_the_docks


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    hub = FakeHub(tmp_path)
    yield hub
    hub.close()


@pytest.fixture
def day(hub: FakeHub) -> FakeHub:
    a_day_at_the_docks(hub)
    return hub


@pytest.fixture
def client(hub: FakeHub) -> AppClient:
    return AppClient(hub)
