"""Waiting for the hub's word: as long as the way is, so that no question is asked again whose answer is on its way."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from random import Random

import pytest

from protocols.codec import FrameHeader, Kind
from protocols.messages import Message, Receipt
from protocols.sync.patience import Patience
from protocols.sync.uplink import Out
from tests.unit.protocols.ledgers import NOW_MS, offer, range_of
from tests.unit.protocols.pair import SMALL, Pair, answer, frames, greeted, hello_of, kinds, refusal

RETRY = SMALL.retry_ms
MINUTE = 60_000


@dataclass
class Way:
    """A pair with a way between: each message takes half a round trip; frames go one after the other, each for so long."""

    round_trip_ms: int
    frame_ms: int = 0
    pair: Pair = field(default_factory=lambda: Pair(facts=60))
    hellos: list[int] = field(default_factory=list)
    sent: list[tuple[int, int]] = field(default_factory=list)
    swallows: bool = False
    """frames are lost, each of them"""
    under_way: list[tuple[int, int, Out | Message]] = field(default_factory=list)
    order: Iterator[int] = field(default_factory=count)

    def run(self, for_ms: int, *, say_every: int) -> None:
        """The edge captures one fact at a time, and is woken at its deadlines."""
        pair, way, free, ends, says = self.pair, self.under_way, 0, self.pair.now + for_ms, self.pair.now + say_every
        pair.uplink.on_up(pair.now)
        while pair.now < ends:
            for out in pair.send():
                self._note(out)
                free = max(pair.now, free) + (self.frame_ms if out.kind is Kind.FRAME else 0)
                if not (self.swallows and out.kind is Kind.FRAME):
                    self._send(free, out)
            due = pair.uplink.next_deadline()
            pair.now = max(pair.now, min([says, *([due] if due is not None else []), *([way[0][0]] if way else [])]))
            while way and way[0][0] <= pair.now:
                self._arrived(heapq.heappop(way)[2])
            if pair.now >= says:
                pair.say(1)
                says += say_every

    def _send(self, at_ms: int, thing: Out | Message) -> None:
        heapq.heappush(self.under_way, (at_ms + self.round_trip_ms // 2, next(self.order), thing))

    def _arrived(self, thing: Out | Message) -> None:
        if isinstance(thing, Out):
            for reply in self.pair.hub_takes([thing]):
                self._send(self.pair.now, reply)
        else:
            self.pair.hear(thing)

    def _note(self, out: Out) -> None:
        if out.kind is Kind.HELLO:
            self.hellos.append(self.pair.now)
        elif out.kind is Kind.FRAME:
            header = FrameHeader.parse(out.header)
            self.sent.append((header.first, header.first + header.count - 1))


def hello_at_deadline(pair: Pair) -> list[Out]:
    """The clock goes on to the next deadline, at which there is a hello."""
    due = pair.uplink.next_deadline()
    assert due is not None
    pair.now = due
    outs = pair.send()
    assert kinds(outs) == ["HELLO"]
    return outs


@pytest.mark.parametrize("times", [0.2, 1.5, 3, 7])
def test_a_long_way_costs_a_few_hellos_and_no_frame_twice(times: float) -> None:
    way = Way(round_trip_ms=int(times * RETRY))
    way.run(10 * MINUTE, say_every=5_000)
    assert len(way.hellos) <= 5, f"a storm: {len(way.hellos)} hellos"
    assert way.hellos[-1] < MINUTE
    facts = [seq for first, last in way.sent for seq in range(first, last + 1)]
    assert len(facts) == len(set(facts)) >= way.pair.edge.own().head[0] - 1


def test_frames_that_are_longer_on_their_way_than_any_hello_are_waited_for() -> None:
    way = Way(round_trip_ms=RETRY // 5, frame_ms=3 * RETRY)
    way.run(10 * MINUTE, say_every=5_000)
    assert len(way.hellos) <= 20
    assert [at for at in way.hellos if at > 5 * MINUTE] == []


def test_frames_that_are_swallowed_are_asked_for_less_and_less_often() -> None:
    way = Way(round_trip_ms=RETRY // 5, swallows=True)
    way.run(MINUTE, say_every=10 * MINUTE)
    gaps = [b - a for a, b in zip(way.hellos, way.hellos[1:], strict=False)]
    assert gaps[:2] == [gaps[0]] * 2, "what is lost once is asked for at the same pace"
    assert gaps[-1] >= SMALL.retry_most_ms
    assert len(way.hellos) < 15


def test_the_wait_is_short_again_once_something_arrived() -> None:
    pair = greeted(4)
    for _ in range(6):
        pair.send()
        pair.hear(*pair.hub_takes(hello_at_deadline(pair)))
    pair.hear(*pair.hub_takes(pair.send()))
    pair.say(1)
    assert frames(pair.send(SMALL.linger_ms)) == [("live", 5, 5)]
    assert pair.uplink.next_deadline() == pair.now + RETRY


def test_a_receipt_shows_how_long_the_way_is() -> None:
    pair = greeted(4)
    receipts = pair.hub_takes(pair.send())
    pair.now += RETRY - 100
    pair.hear(*receipts)
    pair.say(1)
    assert len(frames(pair.send(SMALL.linger_ms))) == 1
    assert pair.uplink.next_deadline() == pair.now + 2 * (RETRY - 100)


def test_a_frame_that_arrived_although_its_receipt_did_not_come_in_time_shows_it_too() -> None:
    pair = greeted(4)
    pair.hub_takes(pair.send())
    answers = pair.hub_takes(pair.send(RETRY))
    pair.now += RETRY // 2
    pair.hear(*answers)
    pair.say(1)
    assert len(frames(pair.send(SMALL.linger_ms))) == 1
    assert pair.uplink.next_deadline() == pair.now + 2 * (RETRY + RETRY // 2)


def test_an_answer_that_names_more_than_before_makes_the_wait_short_again() -> None:
    pair = greeted(4)
    for _ in range(4):
        pair.send()
        pair.hear(*pair.hub_takes(hello_at_deadline(pair)))
    pair.send()
    offer(pair.hub, range_of(pair.edge).part(1, 2))  # a relay brought them
    pair.hear(*pair.hub_takes(hello_at_deadline(pair)))
    assert frames(pair.send()) == [("backfill", 3, 4)]
    assert pair.uplink.next_deadline() == pair.now + RETRY


def test_a_hello_after_one_that_was_answered_is_as_patient_as_the_first() -> None:
    pair = Pair()
    pair.uplink.on_up(pair.now)
    pair.send()
    for _ in range(5):
        hello = hello_at_deadline(pair)
    pair.hear(*pair.hub_takes(hello))
    pair.hear(Receipt(b"another1", NOW_MS, 9, ()))
    assert kinds(pair.send()) == ["HELLO"]
    due = pair.uplink.next_deadline()
    assert due is not None
    assert due <= pair.now + RETRY


def test_a_fact_that_is_refused_again_and_again_is_sent_less_and_less_often() -> None:
    pair, waits = greeted(1), []
    for _ in range(6):
        (out,) = pair.send()
        pair.hear(refusal(out, pair.receiver.incarnation))
        began = pair.now
        pair.hear(*pair.hub_takes(hello_at_deadline(pair)))
        waits.append(pair.now - began)
    assert waits[0] <= RETRY
    assert waits[4] > 3 * RETRY
    assert max(waits) <= SMALL.retry_most_ms


def test_an_answer_that_comes_too_late_shows_how_long_the_way_is() -> None:
    """It is not believed (rule 6), but the answer to the latest hello is given the time that this one took."""
    pair = Pair(facts=3)
    pair.uplink.on_up(pair.now)
    began, old = pair.now, hello_of(pair.send())
    hello_of(pair.send(RETRY))
    asked = pair.now
    pair.now = began + 2 * RETRY - 1
    pair.hear(answer(pair, old))
    assert pair.uplink.incarnation is None
    assert pair.uplink.next_deadline() == asked + 2 * (2 * RETRY - 1)


def test_an_answer_of_an_earlier_link_tells_nothing_of_this_one() -> None:
    pair = Pair(facts=3)
    pair.uplink.on_up(pair.now)
    old = hello_of(pair.send())
    pair.uplink.on_down()
    pair.now += 5 * RETRY
    pair.uplink.on_up(pair.now)
    pair.send()
    due = pair.uplink.next_deadline()
    pair.hear(answer(pair, old))
    assert pair.uplink.next_deadline() == due


# ------------------------------------------------------------ by itself


def patience(*took: int) -> Patience:
    one = Patience(Random(1), 1_000, 8_000)
    for ms in took:
        one.took(ms)
    return one


def test_waits_are_twice_the_slowest_round_trip_of_late_within_bounds() -> None:
    assert [patience(*took).receipt_ms() for took in ((), (100,), (900,), (900, 10), (3_600_000,))] == [1_000, 1_000, 1_800, 1_576, 8_000]


def test_one_slow_round_trip_is_forgotten_also_one_that_took_an_hour() -> None:
    one = patience(3_600_000)
    for _ in range(20):
        one.took(100)
    assert one.receipt_ms() == 1_000


def test_questions_without_answer_double_the_wait_which_is_jittered() -> None:
    one, waits = patience(), []
    for n in range(6):
        waits.append(sorted(one.answer_ms() for _ in range(50)))
        one.asked(bytes([n]), 0)
    for n, drawn in enumerate(waits):
        most = min(1_000 << n, 8_000)
        assert most // 2 <= drawn[0] < drawn[-1] <= most
        assert len(set(drawn)) > 20
    one.answered()
    assert one.answer_ms() <= 1_000


def test_an_answer_counts_once_and_only_to_what_was_asked() -> None:
    one = patience()
    one.asked(b"a", 100)
    assert [one.heard(b"b", 900), one.heard(b"a", 900), one.heard(b"a", 5_000)] == [False, True, False]
    assert one.receipt_ms() == 1_600
    one.asked(b"c", 1_000)
    one.reset()
    assert not one.heard(b"c", 5_000)
    assert one.receipt_ms() == 1_000


def test_questions_that_were_never_answered_are_not_kept_for_ever() -> None:
    one = patience()
    for n in range(1_000):
        one.asked(n.to_bytes(2, "big"), n)
    assert sum(one.heard(n.to_bytes(2, "big"), 1_000) for n in range(1_000)) == 16
