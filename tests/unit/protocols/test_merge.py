"""The fold against the truth: every history of up to four facts by a writer, its clone, its second epoch and another node, in every order
of arrival (of the longest ones a sample), with `merge` as a ledger uses it, and through the ledger itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from random import Random

import pytest

from protocols.codec import unpack
from protocols.ledger import Ledger
from protocols.merge import Head, admit, conflicts, dominates, dump_heads, load_heads, refold, shown
from protocols.sqlite import Db
from protocols.streams import StreamKey
from tests.unit.protocols.fold_worlds import SIDS, History, Known, Told, shapes, told

ORDER = ("acme", "o")


def fold(arrivals: Sequence[Told]) -> frozenset[Head]:
    """As a ledger does it: each fact once; again from all facts when a fork is found and whenever facts of a forked author arrive."""
    known, facts, forked = Known(), list[Head](), dict[str, None]()
    heads: tuple[Head, ...] = ()
    for fact in arrivals:
        known.take(fact)
        if fact.head is not None and fact.head not in facts:
            facts.append(fact.head)
        if known.fork_point(SIDS[fact.key]) is not None:
            forked[fact.key[0]] = None
        if fact.key[0] in forked:
            heads = refold(facts, known)
        elif fact.head is not None:
            heads = admit(heads, fact.head, known) or heads
    return frozenset(heads)


def histories(count: int, *, links: bool, most: int, seed: int) -> Iterator[History]:
    """All, or a sample of so many."""
    found = list(shapes(count, links=links))
    for shape in found if len(found) <= most else Random(seed).sample(found, most):
        yield told(shape)


def orders(history: History, most: int, rng: Random) -> Iterator[Sequence[Told]]:
    """Orders of arrival: all, or a sample; each with something doubled now and then."""
    found = list(itertools.permutations(history.facts))
    for order in found if len(found) <= most else rng.sample(found, most):
        yield order if rng.random() < 0.8 else (*order, *rng.sample(order, 2 if len(order) > 1 else 1))


@pytest.mark.parametrize("links", [False, True], ids=["one order", "with links of another order"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_short_history_in_every_order_ends_in_the_truth(count: int, links: bool) -> None:
    for history in histories(count, links=links, most=10_000, seed=count):
        for order in orders(history, 6, Random(count)):
            assert fold(order) == history.heads, (history, order)


@pytest.mark.parametrize("links", [False, True], ids=["one order", "with links of another order"])
def test_longer_histories_in_shuffled_orders_end_in_the_truth(links: bool) -> None:
    rng = Random(4)
    for history in histories(4, links=links, most=1_500, seed=4):
        for order in orders(history, 6, rng):
            assert fold(order) == history.heads, (history, order)


def test_once_all_is_known_having_seen_is_exactly_the_past() -> None:
    for shape in shapes(3, links=False):
        history, known = told(shape), Known()
        for fact in history.facts:
            known.take(fact)
        for i, f in enumerate(history.facts):
            for j, g in enumerate(history.facts):
                assert f.head is not None and g.head is not None
                assert i == j or dominates(f.head, g.head, known) == (j in shape[i].past)


@pytest.mark.parametrize("links", [False, True], ids=["one order", "with links of another order"])
def test_a_ledger_ends_in_the_truth_whatever_came_first(links: bool) -> None:
    rng = Random(5)
    for history in [*histories(3, links=links, most=150, seed=5), *histories(4, links=links, most=250, seed=6)]:
        for order in orders(history, 3, rng):
            assert ledger_heads(order) == sorted((*_key(h), h.seq, h.h) for h in history.heads), (history, order)


def _key(head: Head) -> tuple[str, int]:
    return next(key for key, sid in SIDS.items() if sid == head.sid)


def ledger_heads(arrivals: Sequence[Told]) -> list[tuple[str, int, int, bytes]]:
    """What a real ledger makes of these facts, each in a frame and a transaction of its own."""
    db = Db(":memory:")
    try:
        ledger = Ledger(db, node="hub", new_epoch=lambda: 1)
        for fact in arrivals:
            ledger.begin()
            values = unpack(fact.row, max_bytes=1_000)
            assert isinstance(values, list)
            ledger.offer(StreamKey(*fact.key, 0), fact.seq, fact.prev, [(fact.row, values)], [fact.h], 1)
            ledger.commit()
        found = ledger.book.get(*ORDER)
        heads = found.heads if found is not None else ()
        return sorted((*ledger.log.by_sid(h.sid).key[:2], h.seq, h.h) for h in heads)
    finally:
        db.close()


def test_the_truth_would_notice_a_fold_by_arrival() -> None:
    """The comparison can fail."""
    assert any(frozenset([h.facts[-1].head]) != h.heads for h in histories(3, links=False, most=10_000, seed=0))


def test_what_is_shown_and_in_conflict_depends_on_the_set_only() -> None:
    heads = [Head(1, 1, b"a" * 8, 6), Head(2, 1, b"b" * 8, 14), Head(3, 1, b"c" * 8, 6)]
    for order in itertools.permutations(heads):
        assert shown(order) == heads[1]
        assert conflicts(order) == [(heads[1], heads[2]), (heads[1], heads[0])]


def test_heads_that_were_written_can_be_read_however_many_there_are() -> None:
    """One author with many epochs and long contexts makes megabytes of them; other authors' facts of that order must still be taken."""
    context = tuple((sid, 2**40, b"hhhh") for sid in range(1, 257))
    heads = tuple(Head(sid, 1, b"8 bytes!", 6, context) for sid in range(1_000, 1_600))
    stored = dump_heads(heads)
    assert len(stored) > 2_000_000
    assert load_heads(stored) == heads
