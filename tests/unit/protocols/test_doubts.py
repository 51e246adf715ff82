"""What a node asks about heads that the hub did not name: each answer once, each silence a few times, and never without bounds."""

from __future__ import annotations

import pytest

from protocols.downlink import DOUBTED, Doubt, FedOrder, Feed
from protocols.streams import StreamKey
from protocols.sync import doubts as doubts_module
from protocols.sync.doubts import Doubts
from tests.unit.protocols.ledgers import ORG

RETRY_MS = 1_000
OTHERS = StreamKey("edge-2", 7, 0)


def doubt(order_id: str, *seqs: int) -> Doubt:
    return Doubt(ORG, order_id, tuple((*OTHERS, seq, bytes(8)) for seq in seqs))


def feed(*order_ids: str, tail: bool = False) -> Feed:
    """One that says all of these orders."""
    return Feed(b"an epoch", tail, 0, 0, False, (), (), 0, b"", tuple(FedOrder(ORG, order_id, ()) for order_id in order_ids))


def test_what_was_answered_is_not_asked_again_and_what_came_beside_it_is() -> None:
    asks = Doubts(RETRY_MS)
    asks.heard(feed("A"), [doubt("A", 1)], 10, answers=False)
    assert (asks.due(), asks.ask(10)) == (10, (doubt("A", 1),))
    asks.heard(feed("A"), [doubt("A", 1, 2)], 20, answers=True)
    assert asks.ask(20) == (doubt("A", 2),)
    asks.heard(feed("A"), [doubt("A", 1, 2)], 30, answers=True)
    assert asks.ask(30) == (doubt("A", 1),), "of each question its answer counts"
    asks.heard(feed("A"), [doubt("A", 1)], 40, answers=True)
    assert (asks.due(), asks.ask(10**9)) == (None, ())


def test_what_the_hub_names_meanwhile_is_not_asked() -> None:
    asks = Doubts(RETRY_MS)
    asks.heard(feed("A", "B"), [doubt("A", 1), doubt("B", 1)], 10, answers=False)
    asks.heard(feed("A", tail=True), [], 11, answers=False)
    assert asks.ask(12) == (doubt("B", 1),)


def test_silence_is_asked_three_times_at_growing_distances() -> None:
    asks = Doubts(RETRY_MS)
    asks.heard(feed("A"), [doubt("A", 1)], 0, answers=False)
    times = [now for now in range(0, 60_000, 500) if asks.ask(now)]
    assert times == [0, 2 * RETRY_MS, 6 * RETRY_MS]
    assert asks.due() is None


def test_a_question_is_short_and_the_others_follow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubts_module, "KEPT", 400)
    asks = Doubts(RETRY_MS)
    names = [f"A{n:03}" for n in range(500)]
    asks.heard(feed(*names), [doubt(name, *range(1, 40)) for name in names], 0, answers=False)
    asked: list[str] = []
    while found := asks.ask(1):
        assert sum(len(one.heads) for one in found) * 20 < doubts_module.ASK_BYTES
        assert all(len(one.heads) == DOUBTED for one in found)
        asked += [one.order_id for one in found]
        asks.heard(feed(*(one.order_id for one in found)), [], 1, answers=True)
    assert asked == names[:400]


def test_a_comparison_that_begins_finds_all_of_it_again() -> None:
    asks = Doubts(RETRY_MS)
    asks.heard(feed("A", "B"), [doubt("A", 1), doubt("B", 1)], 0, answers=False)
    asks.forget()
    assert asks.due() is None
