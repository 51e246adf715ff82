"""What the store is asked when: everything regularly, and among workers what others brought."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hub.asking import SHARE, Asking
from hub.engine_ports import Rhythm
from hub.store.port import StoreFact
from hub.store.sqlite import SqliteStore
from tests.unit.hub.hand_streams import KEY, Branch, fact


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
