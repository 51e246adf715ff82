"""Holes, records that close them, and data that comes after all."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.store.port import CentralStore, StoreFact, StoreRecord
from protocols.chains import RunKind
from protocols.fact import genesis
from protocols.lifecycle import Status
from tests.conformance.store.kinds import StoreKind, reference
from tests.conformance.store.test_any_order import everything
from tests.conformance.store.worlds import START_MS, Author, World

NOW_MS = START_MS + 10_000_000


def line(length: int = 10) -> tuple[Author, list[StoreFact]]:
    world = World()
    author = world.author("w1")
    return author, [world.say(author, f"O-{n % 3}", Status.PLACED) for n in range(length)]


def record(author: Author, first: int, last: int, kind: RunKind = RunKind.LOST) -> StoreRecord:
    h_before = author.line[first - 2].given.h if first > 1 else genesis(*author.key)
    return StoreRecord(author.key, first, h_before, last, author.line[last - 1].given.h, kind, b"signed", NOW_MS)


def stated(store: CentralStore, author: Author) -> list[tuple[int, int, RunKind]]:
    return [(r.first, r.last, r.kind) for r in store.statement([author.key]).streams[author.key]]


def test_what_lies_beyond_a_hole_is_applied_and_stated(store: CentralStore) -> None:
    author, facts = line()
    assert store.apply([*facts[:3], *facts[6:]], [], NOW_MS).new == 7
    assert stated(store, author) == [(1, 3, RunKind.DATA), (7, 10, RunKind.DATA)]
    assert store.totals()["facts"] == 7


def test_a_hole_that_fills_from_both_sides_leaves_one_run(store: CentralStore) -> None:
    author, facts = line()
    for i in (9, 0, 4, 8, 1, 5, 3, 2, 6, 7):
        store.apply([facts[i]], [], NOW_MS)
    (run,) = store.statement().streams[author.key]
    assert (run.first, run.h_before, run.last, run.h_last) == (1, genesis(*author.key), 10, facts[-1].h)


def test_a_record_closes_a_hole_and_data_takes_its_place(store: CentralStore) -> None:
    author, facts = line()
    given = record(author, 4, 6, RunKind.EVICTED)
    store.apply([*facts[:3], *facts[6:]], [given], NOW_MS)
    assert stated(store, author) == [(1, 3, RunKind.DATA), (4, 6, RunKind.EVICTED), (7, 10, RunKind.DATA)]
    assert store.counts()[0].records == {"evicted": 3}
    assert store.records(author.key) == [given]
    assert store.apply(facts, [], NOW_MS).new == 3
    assert stated(store, author) == [(1, 10, RunKind.DATA)]
    assert (store.counts()[0].records, store.counts()[0].facts, store.records(author.key)) == ({}, 10, [])


@pytest.mark.parametrize("late", [[5], [4, 5], [3], [3, 4], [4]])
def test_seqs_are_accounted_for_once_while_data_takes_the_place_of_a_record(store: CentralStore, late: list[int]) -> None:
    author, facts = line()
    store.apply([*facts[:3], *facts[6:]], [record(author, 4, 6)], NOW_MS)
    store.apply([facts[i] for i in late], [], NOW_MS)
    (counts,) = store.counts()
    assert (counts.facts, counts.records) == (7 + len(late), {"lost": 3 - len(late)})


def test_a_record_that_comes_before_the_facts_around_its_hole_waits_for_them(store: CentralStore) -> None:
    author, facts = line()
    store.apply([], [record(author, 4, 6)], NOW_MS)
    assert stated(store, author) == []
    store.apply(facts[6:], [], NOW_MS)
    store.apply(facts[:3], [], NOW_MS)
    assert stated(store, author) == [(1, 3, RunKind.DATA), (4, 6, RunKind.LOST), (7, 10, RunKind.DATA)]


def test_a_record_of_what_is_held_changes_nothing(store: CentralStore) -> None:
    author, facts = line()
    store.apply(facts, [], NOW_MS)
    store.apply([], [record(author, 4, 6)], NOW_MS)
    assert stated(store, author) == [(1, 10, RunKind.DATA)]
    assert (store.counts()[0].records, store.records(author.key)) == ({}, [])


def test_a_record_from_the_beginning_on_roots_the_stream(store: CentralStore) -> None:
    author, facts = line()
    store.apply(facts[6:], [record(author, 1, 6, RunKind.PRUNED)], NOW_MS)
    first, second = store.statement().streams[author.key]
    assert (first.first, first.h_before, first.last, first.kind) == (1, genesis(*author.key), 6, RunKind.PRUNED)
    assert (second.h_before, second.last) == (first.h_last, 10)


def test_records_stand_after_a_restart(kind: StoreKind, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("store")
    author, facts = line()
    store = kind.open(folder)
    store.apply(facts[6:], [record(author, 4, 6)], NOW_MS)
    store.close()
    again = kind.open(folder)
    again.apply(facts[:3], [], NOW_MS)
    assert stated(again, author) == [(1, 3, RunKind.DATA), (4, 6, RunKind.LOST), (7, 10, RunKind.DATA)]
    assert again.records(author.key) == [record(author, 4, 6)]
    again.close()


@given(seed=st.integers(0, 2**32))
def test_records_and_data_in_any_order_end_alike(kind: StoreKind, seed: int) -> None:
    if kind.leaves(seed):
        return
    chance = random.Random(seed)
    author, facts = line(12)
    first = chance.randint(1, 10)
    word = record(author, first, chance.randint(first, 11))
    missing = [f.seq for f in facts if word.first <= f.seq <= word.last and chance.random() < 0.6]
    rest = [f for f in facts if f.seq not in missing]
    results = []
    for make in (kind.scratch, reference):
        store = make()
        steps: list[StoreFact | StoreRecord] = [*rest, word]
        chance.shuffle(steps)
        for step in steps:
            store.apply([step] if isinstance(step, StoreFact) else [], [step] if isinstance(step, StoreRecord) else [], NOW_MS)
        store.apply(rest, [word], NOW_MS)
        results.append(everything(store))
        (counts,) = store.counts()
        assert (counts.facts, sum(counts.records.values())) == (len(rest), len(missing))
        store.close()
    assert results[0]["counts"] == results[1]["counts"]
    assert results[0]["orders"] == results[1]["orders"]
