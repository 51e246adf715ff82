"""Several statements in one message, and rows of several tables: each means what it means alone, also where the server says no."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hub.store import pg_values
from hub.store.pg import Pg, Raced, Server
from hub.store.pg_batch import PgBatch
from hub.store.pg_values import bigints, integers, smallints, texts
from hub.store.port import MayBeAway, StoreFact
from hub.store.postgres import DOUBT, PostgresStore
from protocols.errors import LedgerBroken
from tests.conformance.store.test_any_order import everything
from tests.conformance.store.test_exactly_once import NOW_MS, small_world
from tests.support.needs import needs

pytestmark = needs("postgres")


@pytest.fixture
def db(one: Server) -> Iterator[Pg]:
    opened = Pg(one)
    yield opened
    opened.close()


def test_arrays_arrive_as_they_were_given(db: Pg) -> None:
    big, small, words = [0, -1, None, 2**63 - 1, -(2**63)], [-32768, 0, 32767], ["", "ü", None, '{"a,b"}', "x" * 70_000]
    (answer,) = db.together(
        (
            "SELECT ?::bigint[], ?::integer[], ?::smallint[], ?::text[], ?::text[]",
            (bigints(big), integers([-1, 2**31 - 1]), smallints(small), texts(words), texts([])),
        )
    )
    assert answer.rows == [(big, [-1, 2**31 - 1], small, words, [])]


def test_each_statement_sees_what_those_before_it_did(db: Pg) -> None:
    db.run("CREATE TEMPORARY TABLE t (n bigint PRIMARY KEY)")
    insert, count = "INSERT INTO t SELECT unnest(?::bigint[])", "SELECT count(*) FROM t"
    for start in (0, 10, 20):  # the same statements again and again are prepared once
        answers = db.together((count, ()), (insert, (bigints(range(start, start + 10)),)), (count, ()))
        assert [(a.rows, a.written) for a in answers[::2]] == [([(start,)], 1), ([(start + 10,)], 1)]
        assert answers[1].written == 10
    assert db.query("SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'ls%'") == [(2,)]


def test_a_statement_that_fails_is_told_undoes_its_transaction_and_leaves_the_connection(db: Pg) -> None:
    db.run("CREATE TEMPORARY TABLE t (n bigint PRIMARY KEY)")
    insert = "INSERT INTO t SELECT unnest(?::bigint[])"
    db.begin()
    with pytest.raises(Raced, match="duplicate key"):
        db.together((insert, (bigints([1]),)), (insert, (bigints([1]),)), (insert, (bigints([2]),)))
    db.rollback()
    assert db.together(("SELECT count(*) FROM t", ()))[0].rows == [(0,)]
    db.together((insert, (bigints([3]),)))
    assert db.query("SELECT n FROM t") == [(3,)]


def test_rows_of_several_tables_go_with_one_message_and_all_or_none_of_them_stay(db: Pg) -> None:
    for name in ("t", "u"):
        db.run(f"CREATE TEMPORARY TABLE {name} (n bigint PRIMARY KEY)")
    rows = b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"".join(b"\0\1\0\0\0\x08" + n.to_bytes(8, "big") for n in range(60_000)) + b"\xff\xff"
    db.begin()
    db.copy_in(("t (n)", rows), ("u (n)", rows))
    db.commit()
    assert db.query("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM u)") == [(60_000, 60_000)]
    db.run("DELETE FROM t")
    with pytest.raises(Raced, match="duplicate key"):
        db.copy_in(("t (n)", rows), ("u (n)", rows))
    assert db.query("SELECT count(*) FROM t") == [(0,)]


def test_a_connection_that_is_lost_is_told(db: Pg, one: Server) -> None:
    other, third = Pg(one), Pg(one)
    for lost in (db, third):
        (pid,) = lost.one("SELECT pg_backend_pid()") or (0,)
        other.query("SELECT pg_terminate_backend(?, 10000)", (pid,))
    other.close()
    with pytest.raises(LedgerBroken):
        db.together(("SELECT 1", ()), ("SELECT 2", ()))
    with pytest.raises(LedgerBroken):
        third.copy_in(("meta (key)", b""))
    assert (db.alive, third.alive) == (False, False)
    third.close()


def test_a_batch_with_facts_that_are_logged_is_taken_right_when_nobody_expected_them(one: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while without any, what a batch brings is not looked for in the log before it is written."""
    _, facts = small_world()
    store, taken = PostgresStore(one), list[tuple[bool, bool]]()
    made = PgBatch.__init__

    def noted(self: PgBatch, *args: object, careful: bool, doubt: bool) -> None:
        taken.append((careful, doubt))
        made(self, *args, careful=careful, doubt=doubt)  # type: ignore[arg-type]

    monkeypatch.setattr(PgBatch, "__init__", noted)
    for n in range(DOUBT + 1):
        store.apply(facts[:1] if n == DOUBT - 1 else [], [], NOW_MS)
    assert taken == [(False, True)] * DOUBT + [(False, False)]
    again: list[StoreFact] = [*facts[:5], *facts[2:5]]
    assert (store.apply(again, [], NOW_MS).new, taken[-2:]) == (4, [(False, False), (True, True)])
    assert (store.apply(facts, [], NOW_MS).new, taken[-1]) == (len(facts) - 5, (False, True))
    once = PostgresStore(one)
    assert everything(once) == everything(store) and store.totals()["facts"] == len(facts)
    once.close()
    store.close()


def test_an_empty_array_is_one_of_no_dimensions() -> None:
    assert pg_values.array(20, []) == bytes(11) + b"\x14"


def test_a_server_that_went_away_has_no_word(one: Server, db: Pg) -> None:
    store = PostgresStore(one)
    patience_s = store._db._c.patience_s
    (pid,) = store._db.one("SELECT pg_backend_pid()") or (0,)
    store.still_there()
    assert isinstance(store, MayBeAway) and store._db._c.patience_s == patience_s, "work is waited for as before"
    db.query("SELECT pg_terminate_backend(?, 10000)", (pid,))
    with pytest.raises(LedgerBroken):
        store.still_there()
    store.close()
