"""The bound on runs of one stream: what would stand apart waits, everything else comes in, and in the end all is here."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import protocols.ledger
from protocols.chains import RunKind
from protocols.ledger import Ledger
from protocols.messages import Receipt
from protocols.streams import StreamKey
from tests.unit.protocols.ledgers import NOW_MS, clone, event, ledger, offer, orders, range_of, runs, say
from tests.unit.protocols.pair import SMALL, Pair

KEY = StreamKey("edge-1", 101, 0)
HELD = 3


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols.ledger, "RUNS_HELD", HELD)


def author(facts: int = 20) -> Ledger:
    led = ledger()
    say(led, *(event(f"order-{i % 4}") for i in range(facts)))
    return led


def full() -> tuple[Ledger, Ledger]:
    """A hub that holds 4, 8 and 12 of a stream of 20, and its author."""
    hub, left = ledger("hub"), author()
    for seq in (4, 8, 12):
        offer(hub, range_of(left).part(seq, seq))
    return hub, left


def test_a_run_too_many_waits_and_nothing_of_it_is_logged() -> None:
    hub, left = full()
    done = offer(hub, range_of(left).part(16, 17))
    assert (done.new, done.known, done.deferred) == (0, 0, 2)
    assert runs(hub, KEY) == [(4, 4, 0), (8, 8, 0), (12, 12, 0)]
    assert offer(hub, range_of(left).part(12, 13))[:2] == (1, 1)


@pytest.mark.parametrize(("first", "last"), [(1, 1), (1, 2), (5, 5), (3, 3), (5, 7), (13, 20), (1, 20)])
def test_what_begins_lengthens_joins_or_closes_comes_in_at_any_time(first: int, last: int) -> None:
    hub, left = full()
    assert offer(hub, range_of(left).part(first, last)).deferred == 0
    assert hub.log.has(1, last, range_of(left).hashes[last - 1])


def test_a_branch_too_many_waits_and_the_branches_that_are_here_go_on() -> None:
    left = author(4)
    others = [clone(left) for _ in range(3)]
    for i, other in enumerate(others):
        say(other, event(f"branch-{i}"))
    say(left, event("left"))
    hub = ledger("hub")
    assert [offer(hub, range_of(led)).deferred for led in (left, *others)] == [0, 0, 1, 1]
    say(left, event("left"))
    say(others[2], event("later"))
    assert [offer(hub, range_of(led)).deferred for led in (left, others[2])] == [0, 2]


def test_bytes_that_do_not_decode_wait_like_any_fact() -> None:
    hub, left = full()
    all_ = range_of(left)
    hub.begin()
    assert hub.offer_opaque(KEY, 16, all_.hashes[14], all_.hashes[15], b"x", "bad", NOW_MS).deferred == 1
    assert hub.offer_opaque(KEY, 13, all_.hashes[11], all_.hashes[12], b"x", "bad", NOW_MS).new == 1
    hub.commit()
    assert [q["fact"].split("/")[2] for q in hub.quarantined()] == ["13"]


def test_data_comes_in_above_and_at_the_foot_of_a_record() -> None:
    hub, left = full()
    all_ = range_of(left)
    hub.begin()
    assert hub.close_hole(KEY, 5, b"", 7, all_.hashes[6], RunKind.LOST, b"signed", NOW_MS)
    hub.commit()
    assert offer(hub, all_.part(5, 5)).deferred == 0
    assert offer(hub, all_.part(6, 7)).deferred == 0
    assert runs(hub, KEY) == [(4, 8, 0), (12, 12, 0)]


@given(st.integers(0, 2**32))
def test_facts_offered_again_and_again_in_any_order_all_arrive_and_the_runs_stay_few(seed: int) -> None:
    rng, left = Random(seed), author(24)
    right = clone(left)
    say(left, event("A"), event("B"))
    say(right, event("B"), event("A"))
    waiting = [*range_of(left).singles(), *range_of(right).singles()]
    hub, straight = ledger("hub"), ledger("straight")
    for led in (left, right):
        offer(straight, range_of(led))
    for _ in range(60):
        rng.shuffle(waiting)
        waiting = [r for r in waiting if offer(hub, r).deferred]
        assert len(runs(hub, KEY)) <= 2 * HELD
    assert not waiting
    assert orders(hub) == orders(straight)
    assert runs(hub, KEY) == runs(straight, KEY)


@given(st.integers(0, 2**32))
def test_an_uplink_whose_frames_come_shuffled_and_get_lost_is_through_in_the_end(seed: int) -> None:
    """Each frame that waits gets a receipt that does not name it; it is sent again after a retry and not at once."""
    rng, pair = Random(seed), Pair(facts=60)
    pair.greet()
    sent = 0
    for _ in range(400):
        outs = pair.send(SMALL.linger_ms)
        sent += len(outs)
        rng.shuffle(outs)
        messages = pair.hub_takes(o for o in outs if rng.random() < 0.6)
        pair.hear(*messages)
        if not pair.missing():
            break
        pair.now += SMALL.retry_ms if not outs else 0
    assert not pair.missing()
    assert sent < 400


def test_a_frame_that_waits_as_a_whole_is_answered_with_what_is_held() -> None:
    pair = Pair(facts=20)
    pair.greet()
    all_ = range_of(pair.edge)
    for seq in (10, 14, 18):
        offer(pair.hub, all_.part(seq, seq))
    (second,) = [o for o in pair.send() if isinstance(o.body, bytes) and o.header[3] == 5]
    (receipt,) = pair.hub_takes([second])
    assert isinstance(receipt, Receipt)
    assert [(r.first, r.last) for r in receipt.streams[0].runs] == [(10, 10), (14, 14), (18, 18)]
