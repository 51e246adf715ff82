"""Fixtures: each test of the suite runs over every kind of store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.store.port import CentralStore
from tests.conformance.store.kinds import KINDS, Databases, StoreKind, on_postgres
from tests.support.engines.postgres import server


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """A PostgreSQL server for the tests of one process."""
    with server("fsync=off") as postgres:  # it is never killed: hundreds of small worlds need not wait for the disk
        yield Databases(postgres)


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> StoreKind:
    """One implementation."""
    return request.param if isinstance(request.param, StoreKind) else on_postgres(request.getfixturevalue("databases"))


@pytest.fixture(autouse=True)
def _give_back(kind: StoreKind) -> Iterator[None]:
    yield
    kind.give_back()


@pytest.fixture
def store(kind: StoreKind, tmp_path: Path) -> Iterator[CentralStore]:
    """An empty store that lasts in `tmp_path`."""
    opened = kind.open(tmp_path)
    yield opened
    opened.close()
