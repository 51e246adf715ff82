"""Fixtures: servers of their own for the tests of one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.store.pg import Server
from tests.conformance.store.kinds import Databases
from tests.support.engines.postgres import Postgres, server


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """A server whose databases are used again and again."""
    with server("fsync=off") as postgres:  # it is never killed: hundreds of small worlds need not wait for the disk
        yield Databases(postgres)


@pytest.fixture
def one(databases: Databases, tmp_path: Path) -> Iterator[Server]:
    """An empty store's database."""
    yield databases.of(tmp_path)
    databases.give_back()


@pytest.fixture
def own() -> Iterator[Postgres]:
    """A server that a test may stop and kill: what it starts again is its own."""
    with server() as postgres:
        yield postgres
