"""Fixtures: each test of the suite runs over every kind of store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.store.port import CentralStore
from tests.conformance.store.kinds import KINDS, StoreKind


@pytest.fixture(scope="session", params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> StoreKind:
    """One implementation."""
    found: StoreKind = request.param
    return found


@pytest.fixture
def store(kind: StoreKind, tmp_path: Path) -> Iterator[CentralStore]:
    """An empty store that lasts in `tmp_path`."""
    opened = kind.open(tmp_path)
    yield opened
    opened.close()
