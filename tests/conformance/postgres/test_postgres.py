"""What only a store on a server can get into: several writers at once, a server that goes away in the middle, other people's settings."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest

from hub.store import pg_batch, pg_held
from hub.store.offsets import Advance, Move
from hub.store.pg import Answer, Asked, Pg, Raced, Server
from hub.store.pg_schema import migrate
from hub.store.port import Applied, StoreFact
from hub.store.postgres import PostgresStore
from hub.store.sqlite import SqliteStore
from hub.store.view import ViewBook
from protocols.errors import ConfigError, Fenced, LedgerBroken, LedgerError
from protocols.lifecycle import Status
from protocols.sqlite import Db
from protocols.streams import Stream, StreamKey
from tests.conformance.store.kinds import Databases
from tests.conformance.store.test_any_order import everything
from tests.conformance.store.test_exactly_once import NOW_MS, small_world
from tests.conformance.store.test_fixes import given, pair
from tests.conformance.store.worlds import World, random_world
from tests.support.certificates import make_certificates
from tests.support.engines.postgres import Postgres, server, until
from tests.support.needs import needs
from tests.support.patience import WITHIN_S
from tests.unit.protocols.fix_worlds import author

pytestmark = needs("postgres")
TOPIC = "orders"


def lanes_of(facts: Sequence[StoreFact], writers: int) -> list[list[StoreFact]]:
    """Whole orders to each writer, as partitions give them; all of them share the streams."""
    lanes: list[list[StoreFact]] = [[] for _ in range(writers)]
    places: dict[str, int] = {}
    for fact in facts:
        order = bytes(fact.row).split(b"O-")[1][:3].decode("latin-1")
        lanes[places.setdefault(order, len(places)) % writers].append(fact)
    return lanes


def busy_world(seed: int, orders: int, facts: int) -> list[StoreFact]:
    """Three authors who take turns at many orders, each seeing some of what the others said."""
    chance, world = Random(seed), World()
    authors = [world.author(node) for node in ("w1", "w2", "w3")]
    for _ in range(facts):
        author, order = chance.choice(authors), f"O-{chance.randrange(orders):03d}"
        if chance.random() < 0.5:
            world.learn(author, chance.choice(authors), order)
        world.say(author, order, chance.choice(list(Status)))
    return [said.given for said in world.said]


def as_sqlite_says(facts: Sequence[StoreFact]) -> dict[str, Any]:
    store = SqliteStore(Db(":memory:"))
    store.apply(facts, [], NOW_MS)
    says = everything(store)
    store.close()
    return says


def drain(where: Server, facts: Sequence[StoreFact], size: int, *, again: bool = False) -> int:
    """One writer with a connection of its own. `again`: a writer that is told of a failure opens the store again and goes on."""
    store, new, at = reopened(where) if again else PostgresStore(where), 0, 0
    try:
        while at < len(facts):
            try:
                new += store.apply(facts[at : at + size], [], NOW_MS).new
                at += size
            except LedgerError:
                if not again:
                    raise
                store.close()
                store = reopened(where)
    finally:
        store.close()
    return new


def reopened(where: Server) -> PostgresStore:
    found: list[PostgresStore] = []

    def opens() -> bool:
        try:
            found.append(PostgresStore(where))
        except LedgerError:
            return False
        return True

    until(opens)
    return found[0]


# ---------------------------------------------------------------- several writers


@pytest.mark.parametrize("seed", [1, 2])
def test_writers_of_different_orders_share_their_streams(one: Server, seed: int) -> None:
    facts = busy_world(seed, 40, 600)
    with ThreadPoolExecutor(3) as pool:
        new = list(pool.map(lambda lane: drain(one, lane, 16), lanes_of(facts, 3)))
    store = PostgresStore(one)
    assert sum(new) == len(facts)
    assert everything(store) == as_sqlite_says(facts)
    store.close()


def test_writers_that_bring_the_same_facts_apply_each_once(one: Server) -> None:
    facts = busy_world(3, 12, 60)
    orders = [list(facts), list(reversed(facts)), Random(3).sample(facts, len(facts))]
    with ThreadPoolExecutor(3) as pool:
        new = list(pool.map(lambda mine: drain(one, mine, 10, again=True), orders))
    store = PostgresStore(one)
    assert sum(new) == len(facts)
    assert everything(store) == as_sqlite_says(facts)
    store.close()


@pytest.mark.parametrize("seed", [4, 5, 6])
def test_a_fork_whose_branches_come_by_two_writers_is_found(one: Server, seed: int) -> None:
    facts = [said.given for said in random_world(seed, 80, forks=True).said]
    with ThreadPoolExecutor(2) as pool:
        new = list(pool.map(lambda mine: drain(one, mine, 3, again=True), (facts[::2], facts[1::2])))
    store = PostgresStore(one)
    assert sum(new) == len(facts)
    assert everything(store) == as_sqlite_says(facts)
    store.close()


def at_once(monkeypatch: pytest.MonkeyPatch, stores: Sequence[PostgresStore], facts: Sequence[StoreFact]) -> list[Applied]:
    """Each store is given its fact in a thread of its own; both have logged and folded before either commits."""
    both = threading.Barrier(len(stores), timeout=WITHIN_S)
    finish = ViewBook.finish
    waited: dict[int, None] = {}

    def meets(self: Any, now_ms: int) -> None:
        finish(self, now_ms)
        if threading.get_ident() not in waited:
            waited[threading.get_ident()] = None
            both.wait()

    with monkeypatch.context() as patched, ThreadPoolExecutor(len(stores)) as pool:
        patched.setattr(ViewBook, "finish", meets)
        return list(pool.map(lambda store, fact: store.apply([fact], [], NOW_MS), stores, facts))


def test_branches_of_two_transactions_at_once_are_seen_by_the_second(one: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have logged their fact before either commits: neither sees the other's, but for the look under the lock."""
    world = World()
    author = world.author("w1")
    first = world.say(author, "O-0", Status.PLACED)
    clone = world.fork(author)
    facts = [world.say(author, "O-1", Status.PLACED), world.say(clone, "O-2", Status.PLACED)]
    stores = [PostgresStore(one), PostgresStore(one)]
    stores[0].apply([first], [], NOW_MS)
    applied = at_once(monkeypatch, stores, facts)
    assert [done.new for done in applied] == [1, 1]
    assert stores[0]._db.query("SELECT fork_seq FROM streams") == [(1,)]
    assert everything(stores[0]) == as_sqlite_says([first, *facts])
    for store in stores:
        store.close()


def test_a_fix_that_comes_while_the_refused_fact_is_applied_overrules_it(one: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refused fact can be read here, and is folded by a transaction that cannot see the fix yet, nor the fix's the fact."""
    placed, refused, fix = (given(told, strict=False) for told in pair(author("dock", Random(1)), order_id="o2"))
    stores = [PostgresStore(one), PostgresStore(one)]
    stores[0].apply([placed], [], NOW_MS)
    at_once(monkeypatch, stores, (refused, fix))
    assert [(o.status, o.facts) for o in stores[0].find("o1")] == [("PLACED", 1)]
    assert everything(stores[0]) == as_sqlite_says([placed, refused, fix])
    for store in stores:
        store.close()


def test_an_order_that_two_writers_change_is_folded_from_what_both_brought(one: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    authors = [world.author("w1"), world.author("w2")]
    first = [world.say(author, "O-1", Status.PLACED) for author in authors]
    second = [world.say(authors[0], "O-1", Status.PICKED), world.say(authors[1], "O-1", Status.CANCELLED)]
    both = threading.Barrier(2, timeout=WITHIN_S)
    together = Pg.together
    waited: dict[int, None] = {}

    def meets(self: Pg, *asked: Asked) -> list[Answer]:
        if any(sql.startswith("UPDATE states") for sql, _ in asked) and threading.get_ident() not in waited:
            waited[threading.get_ident()] = None
            both.wait()
        return together(self, *asked)

    stores = [PostgresStore(one), PostgresStore(one)]
    stores[0].apply(first, [], NOW_MS)
    monkeypatch.setattr(Pg, "together", meets)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda store, fact: store.apply([fact], [], NOW_MS), stores, second))
    monkeypatch.undo()
    assert everything(stores[0]) == as_sqlite_says([*first, *second])
    for store in stores:
        store.close()


def test_a_zombie_that_wakes_in_mid_batch_changes_nothing(one: Server) -> None:
    _, facts = small_world()
    zombie, heir = PostgresStore(one), PostgresStore(one)
    zombie.claim(TOPIC, 0, 1)
    zombie.apply(facts[:4], [], NOW_MS, Advance((Move(TOPIC, 0, 1, None, 4),)))
    assert heir.claim(TOPIC, 0, 2) == 4
    heir.apply(facts[4:8], [], NOW_MS, Advance((Move(TOPIC, 0, 2, 4, 8),)))
    before = everything(heir)
    with pytest.raises(Fenced):
        zombie.apply(facts[4:], [], NOW_MS, Advance((Move(TOPIC, 0, 1, 4, 12),)))
    assert everything(heir) == before
    zombie.close()
    heir.close()


def test_a_statement_and_the_list_of_backups_are_of_one_moment(one: Server) -> None:
    _, facts = small_world()
    writer, reader = PostgresStore(one), PostgresStore(one, read_only=True)
    writer.apply(facts[:6], [], NOW_MS)
    with reader._db.moment():
        assert reader.totals()["facts"] == 6
        writer.apply(facts[6:], [], NOW_MS)
        writer.begin_backup("b1", "pg_dump", "s3", NOW_MS)
        assert (reader.totals()["facts"], reader.backups()) == (6, [])
    assert reader.statement().backed_up is not None
    writer.close()
    reader.close()


# ---------------------------------------------------------------- a server that goes away


def test_a_backend_killed_in_mid_transaction_loses_nothing(one: Server, databases: Databases) -> None:
    _, facts = small_world()
    store = PostgresStore(one)
    store.apply(facts[:4], [], NOW_MS)
    before = everything(store)
    store._db.begin()
    pg_batch.PgBatch(store._db, store.judged_by(), NOW_MS, careful=False).take(facts[4:], [], [(None, "x")] * 8)
    (pid,) = store._db.one("SELECT pg_backend_pid()") or (0,)
    databases.postgres.sql(f"SELECT pg_terminate_backend({pid})")
    with pytest.raises(LedgerBroken):
        store._db.commit()
    store.close()
    again = PostgresStore(one)
    assert everything(again) == before
    assert again.apply(facts, [], NOW_MS).new == 8
    again.close()


@pytest.mark.parametrize("how", ["stop", "crash"])
def test_a_server_restarted_under_writers_ends_with_every_fact_once(own: Postgres, how: str) -> None:
    where = own.server(f"restarted-{how}")
    facts = busy_world(7, 30, 900)
    PostgresStore(where).close()
    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(drain, where, lane, 5, again=True) for lane in lanes_of(facts, 2)]
        for _ in range(3):
            getattr(own, how)()
            own.start()
        for writer in writers:
            writer.result(60)
    store = PostgresStore(where)
    assert everything(store) == as_sqlite_says(facts)
    assert sum(c.facts for c in store.counts()) == len(facts)
    store.close()


def test_what_was_said_yes_to_is_there_after_a_crash(own: Postgres) -> None:
    where = own.server("durable")
    _, facts = small_world()
    store = PostgresStore(where)
    store.apply(facts, [], NOW_MS)
    own.crash()
    own.start()
    store.close()
    again = reopened(where)
    assert again.totals()["facts"] == 12
    again.close()


def test_a_frozen_server_is_given_up_and_not_waited_for(own: Postgres) -> None:
    where = own.server("frozen")
    store = PostgresStore(where)
    store._db._c.patience_s = 0.3
    with pytest.raises(LedgerBroken, match=r"has not answered for 0\.3 s"):
        store._db.run("SELECT pg_sleep(30)")
    assert not store._db.alive
    store.close()


# ---------------------------------------------------------------- what is held


def test_a_reader_sees_what_other_writers_brought_into_holes_and_above(one: Server) -> None:
    world = World()
    author = world.author("w1")
    facts = [world.say(author, f"O-{n}", Status.PLACED) for n in range(40)]
    writer, reader = PostgresStore(one), PostgresStore(one, read_only=True)
    for i in Random(8).sample(range(40), 40):
        writer.apply([facts[i]], [], NOW_MS)
        runs = reader.statement([author.key]).streams[author.key]
        fresh = PostgresStore(one, read_only=True)
        assert runs == fresh.statement([author.key]).streams[author.key]
        fresh.close()
    assert [(r.first, r.last) for r in runs] == [(1, 40)]
    writer.close()
    reader.close()


@pytest.mark.parametrize("lost", [1, 20, 40])
def test_a_row_that_is_gone_takes_the_statement_down(one: Server, lost: int) -> None:
    """The last row is looked for at each question, the others when it is their turn at the regular ones."""
    world = World()
    author = world.author("w1")
    facts = [world.say(author, f"O-{n}", Status.PLACED) for n in range(40)]
    store = PostgresStore(one)
    store.apply(facts, [], NOW_MS)
    assert [(r.first, r.last) for r in store.statement().streams[author.key]] == [(1, 40)]
    store._db.run("DELETE FROM log WHERE seq=?", (lost,))
    runs = store.statement([author.key] if lost == 40 else None).streams[author.key]
    assert sum(r.last - r.first + 1 for r in runs) == 39
    store.close()


def test_a_count_that_went_back_has_a_stream_read_whole(one: Server) -> None:
    """As after a restore that left everything else as it was."""
    world = World()
    author = world.author("w1")
    facts = [world.say(author, f"O-{n}", Status.PLACED) for n in range(40)]
    store = PostgresStore(one)
    store.apply(facts, [], NOW_MS)
    store.statement()
    store._db.run("DELETE FROM log WHERE seq BETWEEN 11 AND 30")
    store._db.run("UPDATE streams SET facts=20")
    runs = store.statement([author.key]).streams[author.key]
    assert [(r.first, r.last) for r in runs] == [(1, 10), (31, 40)]
    store.close()


def test_regular_questions_read_all_again_in_turn(one: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pg_held, "PERIODIC_FACTS", 10)
    world = World()
    authors = [world.author(f"w{n}") for n in range(4)]
    store = PostgresStore(one)
    store.apply([world.say(a, f"O-{a.key.node}-{n}", Status.PLACED) for a in authors for n in range(10)], [], NOW_MS)
    store.statement()
    read: list[StreamKey] = []
    anew = pg_held.Held._anew

    def noted(self: pg_held.Held, stream: Stream) -> None:
        read.append(stream.key)
        anew(self, stream)

    monkeypatch.setattr(pg_held.Held, "_anew", noted)
    for _ in range(4):
        store.statement()
    assert sorted(read) == [a.key for a in authors]
    store.close()


def test_a_store_put_back_from_a_dump_says_what_the_dump_had(databases: Databases, one: Server) -> None:
    postgres, name = databases.postgres, one.dsn.rpartition("dbname=")[2]
    _, facts = small_world()
    store = PostgresStore(one)
    store.apply(facts[:5], [], NOW_MS)
    dump = str(postgres.folder / "old.dump")
    postgres.tool("pg_dump", *postgres.reach, "-Fc", "-f", dump, name, password=True)
    store.apply(facts[5:], [], NOW_MS)
    assert sum(r.last for runs in store.statement().streams.values() for r in runs) == 12
    postgres.tool("pg_restore", *postgres.reach, "--clean", "--no-owner", "--role=longshore", "-d", name, dump, password=True)
    with pytest.raises(LedgerBroken, match="is not the database it was"):
        store.statement()
    store.close()
    again = PostgresStore(one)
    assert again.totals()["facts"] == 5
    assert again.apply(facts, [], NOW_MS).new == 7
    again.close()


# ---------------------------------------------------------------- other people's settings


def secret(folder: Path, text: str = "not the password") -> str:
    path = folder / "secret"
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_a_wrong_password_is_one_line_without_any_password(one: Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the password is not that of this user") as caught:
        PostgresStore(Server(one.dsn, secret(tmp_path)))
    assert "not the password" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "password_file" in caught.value.remedy


def test_a_database_that_is_not_there_is_named(one: Server) -> None:
    gone = Server(one.dsn.rpartition("dbname=")[0] + "dbname=nowhere", one.password_file)
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:\d+/nowhere: there is no such database"):
        PostgresStore(gone)


def test_a_server_that_is_not_there_is_tried_again(tmp_path: Path, own: Postgres) -> None:
    where = own.server("away")
    own.stop()
    with pytest.raises(LedgerBroken, match="cannot be reached"):
        PostgresStore(where)
    own.start()
    PostgresStore(where).close()


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        ("host=x password=hunter2 dbname=y", "holds a password"),
        ("postgresql://me:hunter2@host/db", "holds a password"),
        ("host=x nonsense=hunter2", "is not a connection string"),
        ("  ", "is empty"),
    ],
)
def test_a_bad_dsn_is_refused_without_quoting_it(dsn: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        PostgresStore(Server(dsn))
    assert "hunter2" not in str(caught.value)


def test_a_store_of_a_later_version_is_refused_and_left_alone(one: Server) -> None:
    store = PostgresStore(one)
    store._db.run("UPDATE versions SET version=99")
    for read_only in (False, True):
        with pytest.raises(ConfigError, match="of version 99, this program knows up to"):
            PostgresStore(one, read_only=read_only)
    store._db.run("UPDATE versions SET version=1")
    store.close()


def test_a_reader_of_an_empty_database_says_what_to_do(databases: Databases) -> None:
    empty = databases.postgres.server("empty")
    with pytest.raises(ConfigError, match="not made yet") as caught:
        PostgresStore(empty, read_only=True)
    assert "store migrate" in caught.value.remedy


def test_processes_that_start_at_once_make_one_schema(databases: Databases) -> None:
    fresh = databases.postgres.server("raced")
    with ThreadPoolExecutor(6) as pool:
        for store in pool.map(lambda _: PostgresStore(fresh), range(6)):
            store.close()
    db = Pg(fresh)
    assert db.query("SELECT part, version FROM versions") == [("store", 1)]
    assert migrate(db) == (1, 1)
    db.close()


def test_tls_checks_who_answers(tmp_path: Path) -> None:
    made, other = tmp_path / "a", tmp_path / "b"
    made.mkdir()
    other.mkdir()
    certificates, strangers = make_certificates(made), make_certificates(other)
    with server() as postgres:
        postgres.with_tls(certificates)
        good = postgres.server("tls", sslmode="verify-full", sslrootcert=certificates.ca)
        store = PostgresStore(good)
        assert store._db.one("SELECT ssl FROM pg_stat_ssl WHERE pid=pg_backend_pid()") == (True,)
        store.close()
        with pytest.raises(ConfigError, match="no connection by TLS"):
            PostgresStore(Server(good.dsn, good.password_file, "verify-full", strangers.ca))


def test_raced_is_told_apart(one: Server) -> None:
    db = Pg(one)
    db.run("CREATE TEMPORARY TABLE twice (n int PRIMARY KEY)")
    db.run("INSERT INTO twice VALUES (1)")
    with pytest.raises(Raced):
        db.run("INSERT INTO twice VALUES (1)")
    db.close()
