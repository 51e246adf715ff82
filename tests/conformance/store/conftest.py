"""Fixtures: each test of the suite runs over every kind of store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.store.port import CentralStore
from tests.conformance.store.kinds import KINDS, Databases, Processes, StoreKind, apart, on_postgres
from tests.support.engines.postgres import server


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """A PostgreSQL server for the tests of one process."""
    with server("fsync=off") as postgres:  # it is never killed: hundreds of small worlds need not wait for the disk
        yield Databases(postgres)


@pytest.fixture(scope="session")
def processes() -> Iterator[Processes]:
    """Processes that hold a store each, for the tests of one process."""
    made = Processes()
    yield made
    made.end()


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> StoreKind:
    """One implementation."""
    if isinstance(request.param, StoreKind):
        return request.param
    if request.param == "postgres":
        return on_postgres(request.getfixturevalue("databases"))
    return apart(request.getfixturevalue("processes"))


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
