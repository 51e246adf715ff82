"""What the store is asked when: everything regularly, and among workers what others brought."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hub.asking import SHARE, Asking
from hub.engine_ports import Rhythm
from hub.store.port import CentralStore, StoreFact
from hub.store.sqlite import SqliteStore
from protocols.errors import LedgerBroken
from tests.unit.hub.hand_streams import KEY, Branch, fact
from tests.unit.hub.test_engine import Doors, in_loop, running, until


class Clock:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def __call__(self) -> int:
        return self.ms


def facts(count: int) -> list[StoreFact]:
    rows, hashes = Branch.of(fact(n) for n in range(count))
    return [StoreFact(KEY, n + 1, hashes[n + 1], hashes[n], row, 1) for n, row in enumerate(rows)]


def test_alone_a_hub_asks_for_everything_in_its_rhythm_and_after_each_opening(tmp_path: Path) -> None:
    clock, store = Clock(), SqliteStore(tmp_path / "store.db")
    asking = Asking(Rhythm(store_check_ms=60_000))
    said = asking.ask(store, clock)
    assert said is not None and said[1] and asking.due_ms == clock.ms + 60_000
    clock.ms += 59_999
    assert asking.ask(store, clock) is None
    asking.at_once()
    assert asking.ask(store, clock) is not None and asking.ask(store, clock) is None
    store.close()
    store = SqliteStore(tmp_path / "store.db")
    assert asking.ask(store, clock) is not None, "a store that was opened since has said nothing yet"
    store.close()


def test_what_another_process_stored_is_asked_about_and_nothing_else(tmp_path: Path) -> None:
    clock, (mine, others) = Clock(), [SqliteStore(tmp_path / "store.db", shared=True) for _ in range(2)]
    asking, given = Asking(Rhythm(store_check_ms=60_000, follow_ms=2_000)), facts(9)
    others.apply(given[:3], [], 1)
    said = asking.ask(mine, clock)
    assert said is not None and said[1] and [r.last for r in said[0].streams[KEY]] == [3]
    clock.ms += 2_000
    assert asking.ask(mine, clock) is None and asking.due_ms == clock.ms + 2_000
    others.apply(given[3:7], [], 2)
    assert asking.ask(mine, clock) is None, "not before its time"
    clock.ms += 2_000
    said = asking.ask(mine, clock)
    assert said is not None and not said[1] and [r.last for r in said[0].streams[KEY]] == [7]
    clock.ms += 2_000
    assert asking.ask(mine, clock) is None
    for store in (mine, others):
        store.close()


def test_a_store_that_answers_slowly_is_asked_seldom(tmp_path: Path) -> None:
    clock = Clock()

    class Slow(SqliteStore):
        def statement(self, streams: Any = None) -> Any:
            clock.ms += 9_000
            return super().statement(streams)

    store, asking, began = Slow(tmp_path / "store.db"), Asking(Rhythm(store_check_ms=60_000, follow_ms=2_000)), clock.ms
    assert asking.ask(store, clock) is not None
    assert asking.due_ms == began + SHARE * 9_000
    store.close()


def test_a_server_is_asked_for_one_word_only_where_nothing_else_was_asked_of_it(tmp_path: Path) -> None:
    clock = Clock()

    class Away(SqliteStore):
        words = 0

        def still_there(self) -> None:
            self.words += 1

    store, asking = Away(tmp_path / "store.db"), Asking(Rhythm(store_check_ms=60_000, word_ms=3_000))
    assert asking.ask(store, clock) is not None
    asking.answered(clock.ms)
    assert asking.due_ms == clock.ms + 3_000 and asking.word_of(store, clock.ms + 2_999) is None
    clock.ms += 2_000
    asking.answered(clock.ms)  # it took a batch
    assert asking.word_of(store, clock.ms + 2_999) is None, "that was word enough"
    clock.ms += 3_000
    assert not asking.wants(store, clock.ms), "what it holds was asked a moment ago"
    word = asking.word_of(store, clock.ms)
    assert word is not None and asking.ask(store, clock) is None
    word()
    asking.answered(clock.ms)
    assert (store.words, asking.due_ms) == (1, clock.ms + 3_000)
    store.close()
    file = SqliteStore(tmp_path / "store.db")
    assert asking.ask(file, clock) is not None and asking.due_ms == clock.ms + 60_000
    assert asking.word_of(file, clock.ms + 50_000) is None, "a file does not go away"
    file.close()


@pytest.mark.parametrize("beside", [False, True], ids=["here", "beside"])
def test_an_idle_hub_notices_that_the_stores_server_went_away_and_that_it_came_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    doors = Doors(tmp_path, beside=beside)
    for name, ms in (("hub.store_side.BACKOFF_FIRST_MS", 20), ("hub.store_side.BACKOFF_MOST_MS", 50), ("hub.lookout.LOOK_EVERY_MS", 5)):
        monkeypatch.setattr(name, ms)
    there: list[Exception] = []

    def still_there(_: CentralStore) -> None:
        if there:
            doors.store_error = there[0]
            raise there[0]

    async def story() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SqliteStore, "still_there", still_there, raising=False)
            async with running(doors, Rhythm(store_check_ms=3_600_000, word_ms=20)) as engine:
                await until(lambda: engine.seen.balance["fleet"]["balanced"] is True, "asked")
                assert engine.troubles() == []
                there.append(LedgerBroken("the server is gone"))
                await until(lambda: engine.troubles() == ["the central store is not open: the server is gone"], "missed")
                await until(lambda: engine.seen.balance["fleet"]["balanced"] is None, "nobody says that it closes")
                there.clear()
                doors.store_error = None
                await until(lambda: engine.troubles() == [] and engine.seen.balance["fleet"]["balanced"] is True, "found again")

    in_loop(story)
