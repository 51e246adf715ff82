"""A store says in which streams something was stored since it was asked last, by whomever."""

from __future__ import annotations

from pathlib import Path

from hub.asking import TellsNews
from hub.store.port import CentralStore
from tests.conformance.store.kinds import StoreKind
from tests.conformance.store.test_exactly_once import NOW_MS, small_world


def test_news_are_the_streams_that_moved_since_the_last_question(store: CentralStore) -> None:
    assert isinstance(store, TellsNews)
    _, facts = small_world()
    assert store.news() == []
    store.apply(facts[:6], [], NOW_MS)
    assert sorted(store.news()) == sorted(dict.fromkeys(f.stream for f in facts[:6]))
    assert store.news() == []
    store.apply(facts[:6], [], NOW_MS)
    assert store.news() == [], "nothing was new"
    store.apply(facts[6:7], [], NOW_MS)
    assert store.news() == [facts[6].stream]


def test_the_first_question_after_an_opening_has_no_news(kind: StoreKind, tmp_path: Path) -> None:
    _, facts = small_world()
    store = kind.open(tmp_path)
    store.apply(facts[:6], [], NOW_MS)
    store.close()
    store = kind.open(tmp_path)
    assert isinstance(store, TellsNews) and store.news() == []
    store.close()
