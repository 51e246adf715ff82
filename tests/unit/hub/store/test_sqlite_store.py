"""What is particular to the SQLite store: damage, a full disk, a reader beside the writer, builds without trigrams, its migrations."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.store import schema
from hub.store.port import OrderQuery, StoreFact
from hub.store.sqlite import SqliteStore
from protocols.errors import ConfigError, LedgerBroken, LedgerError, LedgerFull
from protocols.lifecycle import Status
from protocols.schema import LEDGER
from protocols.sqlite import DRIVERS, Db
from tests.conformance.store.test_any_order import everything
from tests.conformance.store.worlds import START_MS, Author, World, deliveries, worlds

NOW_MS = START_MS + 10_000_000


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def line(length: int = 10) -> tuple[Author, list[StoreFact]]:
    world = World()
    author = world.author("w1")
    return author, [world.say(author, f"O-{n % 3}", Status.PLACED if n < 3 else Status.PICKED) for n in range(length)]


def lose(path: Path, driver: str, *seqs: int) -> None:
    """Take rows out of the log by hand: what a damaged file is."""
    db = Db(path, driver=driver)
    db.begin()
    for seq in seqs:
        db.run("DELETE FROM log WHERE seq=?", (seq,))
    db.commit()
    db.close()


def stated(store: SqliteStore, author: Author) -> list[tuple[int, int]]:
    return [(r.first, r.last) for r in store.statement([author.key]).streams[author.key]]


# ---------------------------------------------------------------- the statement


@pytest.mark.parametrize(
    ("gone", "runs"),
    [((5,), [(1, 4), (6, 10)]), ((10,), [(1, 9)]), ((1,), [(2, 10)]), ((3, 4, 8), [(1, 2), (5, 7), (9, 10)]), (range(1, 11), [])],
)
def test_rows_that_are_gone_are_not_stated_and_can_be_handed_over_again(
    path: Path, driver: str, gone: tuple[int, ...], runs: list[tuple[int, int]]
) -> None:
    author, facts = line()
    store = SqliteStore(path, driver=driver)
    store.apply(facts, [], NOW_MS)
    whole = everything(store)
    store.close()
    lose(path, driver, *gone)
    again = SqliteStore(path, driver=driver)
    assert stated(again, author) == runs
    assert again.apply(facts, [], NOW_MS).new == len(gone)
    assert stated(again, author) == [(1, 10)]
    assert everything(again) == whole
    again.close()


def test_a_row_that_goes_after_the_statement_is_missed_by_the_next_start(path: Path) -> None:
    author, facts = line()
    store = SqliteStore(path)
    store.apply(facts[:6], [], NOW_MS)
    assert stated(store, author) == [(1, 6)]
    store.apply(facts[6:], [], NOW_MS)
    lose(path, DRIVERS[0], 8)
    assert stated(store, author) == [(1, 7), (9, 10)]  # not counted before
    lose(path, DRIVERS[0], 3)
    store.close()
    again = SqliteStore(path)
    assert stated(again, author) == [(1, 2), (4, 7), (9, 10)]
    again.close()


def test_a_reader_does_not_state_what_is_gone_either(path: Path, driver: str) -> None:
    author, facts = line()
    store = SqliteStore(path, driver=driver)
    store.apply(facts, [], NOW_MS)
    store.close()
    lose(path, driver, 5)
    reader = SqliteStore(path, read_only=True, driver=driver)
    assert stated(reader, author) == [(1, 4), (6, 10)]
    reader.close()


def test_a_row_missing_on_one_branch_is_found_although_the_other_has_its_seq(path: Path) -> None:
    world = World()
    author = world.author("w1")
    world.say(author, "O-1", Status.PLACED)
    clone = world.fork(author)
    for n in range(4):
        world.say(author, f"A-{n}", Status.PLACED)
        world.say(clone, f"B-{n}", Status.PLACED)
    store = SqliteStore(path)
    store.apply([s.given for s in world.said], [], NOW_MS)
    store.close()
    db = Db(path)
    db.run("DELETE FROM log WHERE h=?", (clone.line[2].given.h,))
    db.close()
    again = SqliteStore(path)
    ends = [(r.first, r.last, r.h_last) for r in again.statement().streams[author.key]]
    assert sorted(ends) == sorted(
        [(1, 1, author.line[0].given.h), (2, 5, author.line[4].given.h), (2, 2, clone.line[1].given.h), (4, 5, clone.line[4].given.h)]
    )
    assert again.apply([clone.line[2].given], [], NOW_MS).new == 1
    assert [(r.first, r.last) for r in again.statement().streams[author.key]] == [(1, 1), (2, 5), (2, 5)]
    again.close()


# ---------------------------------------------------------------- the disk, and memory


def test_a_full_disk_stores_nothing_of_the_batch_and_the_next_one_finds_room(path: Path, driver: str) -> None:
    world = World()
    author = world.author("w1")
    store = SqliteStore(path, driver=driver)
    store.apply([world.say(author, "O-1", Status.PLACED)], [], NOW_MS)
    before = everything(store)
    batch = [world.say(author, f"O-{n}", Status.PICKED, details={"note": "x" * 500}) for n in range(200)]
    store._db.query("PRAGMA max_page_count=40")
    with pytest.raises(LedgerFull):
        store.apply(batch, [], NOW_MS)
    assert everything(store) == before
    store._db.query("PRAGMA max_page_count=1000000")
    assert store.apply(batch, [], NOW_MS).new == 200
    store.close()


def test_after_a_commit_that_failed_nothing_is_applied_any_more(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, facts = line()
    store = SqliteStore(path)

    def fail() -> None:
        raise LedgerFull("no space left")

    monkeypatch.setattr(store._db, "commit", fail)
    with pytest.raises(LedgerBroken, match="commit failed"):
        store.apply(facts, [], NOW_MS)
    monkeypatch.undo()
    with pytest.raises(LedgerBroken, match="earlier batch"):
        store.apply(facts, [], NOW_MS)
    assert store.totals()["facts"] == 0
    store.close()


@given(data=st.data())
def test_a_memory_of_one_order_gives_the_same_view(data: st.DataObject) -> None:
    world = data.draw(worlds(forks=True))
    batches = data.draw(deliveries([s.given for s in world.said]))
    results = []
    for cached in (1, 1000):
        store = SqliteStore(Db(":memory:"), cached=cached)
        for batch in batches:
            store.apply(batch, [], NOW_MS)
        results.append(everything(store))
        store.close()
    assert results[0] == results[1]


# ---------------------------------------------------------------- a reader beside the writer


def test_readers_in_other_threads_see_whole_batches_while_the_writer_applies(path: Path, driver: str) -> None:
    """Each batch adds one fact to each of ten orders: a reader never sees some of a batch."""
    world = World()
    author = world.author("w1")
    batches = [[world.say(author, f"O-{n}", Status.PICKED) for n in range(10)] for _ in range(30)]
    store = SqliteStore(path, driver=driver)
    store.apply(batches[0], [], NOW_MS)
    torn: list[object] = []
    done = threading.Event()

    def read() -> None:
        reader = SqliteStore(path, read_only=True, driver=driver)
        while not done.is_set():
            orders = reader.orders(OrderQuery()).orders
            runs = reader.statement().streams[author.key]
            events = len(reader.events("acme", "O-3"))
            if len({o.facts for o in orders}) != 1 or len(orders) != 10 or runs[0].last % 10 or events < orders[0].facts:
                torn.append((orders, runs, events))
        reader.close()

    threads = [threading.Thread(target=read) for _ in range(2)]
    for t in threads:
        t.start()
    for batch in batches[1:]:
        store.apply(batch, [], NOW_MS)
    done.set()
    for t in threads:
        t.join(30)
    assert torn == []
    assert store.totals()["facts"] == 300
    store.close()


def test_a_reader_answers_everything_and_writes_nothing(path: Path, driver: str) -> None:
    _, facts = line()
    store = SqliteStore(path, driver=driver)
    store.apply(facts, [], NOW_MS)
    reader = SqliteStore(path, read_only=True, driver=driver)
    assert everything(reader) == everything(store)
    assert reader.facts(facts[0].stream, reader.statement().streams[facts[0].stream][0], 3) == facts[:3]
    with pytest.raises(LedgerError):
        reader.apply(facts, [], NOW_MS)
    reader.close()
    store.close()


def test_a_reader_refuses_a_file_of_another_version(path: Path) -> None:
    store = SqliteStore(path)
    store._db.run("UPDATE versions SET version=77")
    store.close()
    with pytest.raises(ConfigError, match="this version"):
        SqliteStore(path, read_only=True)
    with pytest.raises(ConfigError, match="upgrade"):
        SqliteStore(path)


# ---------------------------------------------------------------- schema


def test_orders_are_found_by_fragment_without_trigrams_and_after_an_upgrade_that_has_them(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    author = world.author("w1")
    monkeypatch.setattr("hub.store.sqlite.make_text_index", lambda db: False)
    old = SqliteStore(path)
    assert not old._text_index
    old.apply([world.say(author, "GLOBAL-1234", Status.PLACED)], [], NOW_MS)
    assert [o.order_id for o in old.orders(OrderQuery(text="al-12")).orders] == ["GLOBAL-1234"]
    old.close()
    monkeypatch.undo()
    new = SqliteStore(path)
    new.apply([world.say(author, "GLOBAL-9", Status.PLACED)], [], NOW_MS)
    assert new._text_index
    assert [o.order_id for o in new.orders(OrderQuery(text="al-12")).orders] == ["GLOBAL-1234"]
    assert [o.order_id for o in new.orders(OrderQuery(text="global")).orders] == ["GLOBAL-9", "GLOBAL-1234"]
    new.close()


def test_the_store_takes_each_step_of_the_ledgers_migrations() -> None:
    """Its log, streams and runs are the ledger's: a new step there needs one here."""
    assert len(schema.STORE) >= len(LEDGER)
    for step, (ours, ledgers) in enumerate(zip(schema.STORE, LEDGER, strict=False)):
        assert ours[: len(ledgers)] == ledgers, f"step {step + 1}"


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [({}, "view_pos"), ({"status": "SHIPPED"}, "view_pos"), ({"conflict": True}, "view_conflict")],
)
def test_common_pages_walk_an_index_and_sort_nothing(monkeypatch: pytest.MonkeyPatch, filters: dict[str, object], wanted: str) -> None:
    store = SqliteStore(Db(":memory:"))
    asked: list[tuple[str, Any]] = []
    query = store._db.query

    def spy(sql: str, params: Any = ()) -> list[Any]:
        asked.append((sql, params))
        return query(sql, params)

    monkeypatch.setattr(store._db, "query", spy)
    store.orders(OrderQuery(**filters))  # type: ignore[arg-type]
    sql, params = asked[-1]
    plan = " / ".join(str(r[-1]) for r in query(f"EXPLAIN QUERY PLAN {sql}", params))
    assert wanted in plan
    assert "TEMP B-TREE" not in plan
    store.close()
