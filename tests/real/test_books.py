"""PostgreSQL read by the oracle says what the product wrote there, and a damaged view or log is seen; a transaction is met in its midst."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from itertools import count

import psycopg
import pytest

from hub.store.port import StoreFact
from hub.store.postgres import PostgresStore
from protocols.codec import pack
from protocols.event import OrderEvent, TimeQuality
from protocols.fact import chain, genesis, to_row
from protocols.lifecycle import Status
from protocols.streams import StreamKey
from tests.chaos.oracle import compare
from tests.real import books
from tests.real.midst import caught
from tests.support.engines.postgres import ADMIN, Postgres, server
from tests.support.needs import needs

pytestmark = [pytest.mark.slow, needs("postgres")]
KEY = StreamKey("dock", 5, 0)
NUMBERS = count()


def facts(many: int) -> list[StoreFact]:
    made, prev = [], genesis(*KEY)
    for n in range(many):
        event = OrderEvent("acme", f"O{n % 3}", "S", list(Status)[n % 4], 7, TimeQuality.STATED, None, None, None, {"op": f"t{n}"})
        row = pack(to_row(event, 9, []))
        h = chain(prev, [row])[0]
        made.append(StoreFact(KEY, n + 1, h, prev, row, 9))
        prev = h
    return made


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with server() as made:
        yield made


@pytest.fixture
def dsn(postgres: Postgres) -> Iterator[str]:
    """A store with some facts, for the administrator."""
    name = f"books{next(NUMBERS)}"
    store = PostgresStore(postgres.server(name))
    store.apply(facts(10), [], 9)
    store.close()
    yield f"host=127.0.0.1 port={postgres.port} user={ADMIN} dbname={name}"
    postgres.drop(name)


def test_what_a_store_wrote_is_right(postgres: Postgres, dsn: str) -> None:
    read = books.read(dsn, postgres.password)
    assert [fid.seq for fid in sorted(read.facts)] == list(range(1, 11))
    assert [(order, shown.facts) for (_, order), shown in sorted(read.view.items())] == [("O0", 4), ("O1", 3), ("O2", 3)]
    assert read.integrity == "ok"
    assert compare(read, read, [], put_back=["dock"]) == []


@pytest.mark.parametrize("statement", ["DELETE FROM states WHERE facts = 4", "UPDATE states SET status = 1", "UPDATE states SET facts = 9"])
def test_a_view_that_is_not_the_fold_is_named(postgres: Postgres, dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, password=postgres.password, autocommit=True) as db:
        db.execute(statement)
    read = books.read(dsn, postgres.password)
    assert any(said.startswith("view of O") for said in compare(read, read, [], put_back=["dock"]))


def test_a_fact_that_is_gone_leaves_a_hole(postgres: Postgres, dsn: str) -> None:
    with psycopg.connect(dsn, password=postgres.password, autocommit=True) as db:
        db.execute("DELETE FROM log WHERE seq = 4")
    read = books.read(dsn, postgres.password)
    assert any("hangs on nothing" in said for said in compare(read, read, [], put_back=["dock"]))


@pytest.mark.parametrize("column", ["facts", "orderly"])
def test_a_stream_that_counts_other_than_its_log_is_named(postgres: Postgres, dsn: str, column: str) -> None:
    with psycopg.connect(dsn, password=postgres.password, autocommit=True) as db:
        db.execute(f"UPDATE streams SET {column} = {column} - 1")  # type: ignore[arg-type]
    assert books.read(dsn, postgres.password).integrity.startswith("torn: ")


def test_a_server_is_met_in_the_midst_of_a_transaction_and_nothing_of_that_is_there_afterwards() -> None:
    stop = threading.Event()
    with server() as postgres:
        postgres.database("pairs")
        dsn, password = f"host=127.0.0.1 port={postgres.port} user={ADMIN} dbname=pairs", postgres.password
        postgres.sql("CREATE TABLE pairs (n integer)", "pairs")

        def write() -> None:
            with contextlib.suppress(psycopg.Error), psycopg.connect(dsn, password=password) as db:
                while not stop.is_set():
                    db.execute("INSERT INTO pairs VALUES (1)")
                    db.execute("INSERT INTO pairs VALUES (-1)")
                    db.commit()

        writer = threading.Thread(target=write)
        writer.start()
        try:
            met = caught(dsn, password)
            postgres.crash()
        finally:
            stop.set()
            writer.join()
        assert met
        postgres.start()
        assert postgres.sql("SELECT count(*) % 2, coalesce(sum(n), 0) FROM pairs", "pairs") == "0|0"
