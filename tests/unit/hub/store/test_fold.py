"""The fold of one order: plain and forked ways agree, liars leave a state, long histories stay cheap."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from hub.store.fold import Known, covers, fold_order
from protocols.lifecycle import Status
from protocols.merge import Head, refold
from tests.conformance.store.worlds import World, random_world


class Unforked:
    """An ancestry without forks, that counts how often it is asked about a chain."""

    asked = 0

    def fork_point(self, sid: int) -> int | None:
        return None

    def on_chain(self, sid: int, tip_seq: int, tip_h: bytes, seq: int, h: bytes) -> bool | None:
        self.asked += 1
        return None


class SaidToBeForked(Unforked):
    """The same world, but every stream is said to have a fork beyond its last fact: so each pair is compared."""

    def fork_point(self, sid: int) -> int | None:
        return 1_000_000


def known(world: World, order_id: str = "O-1") -> list[Known]:
    sids = {"hub": 1, "w1": 2, "w2": 3}
    out = []
    for s in world.said:
        if s.order_id == order_id:
            seen = [o for o in s.seen if o.given.stream != s.given.stream]
            top = [o for o in seen if not any(o in p.line for p in seen)]
            ctx = tuple(sorted((sids[o.given.stream.node], o.given.seq, o.given.h[:4]) for o in top))
            promise = s.given.received_ms if s.given.seq % 3 == 0 else None
            out.append(Known(Head(sids[s.given.stream.node], s.given.seq, s.given.h, int(s.status), ctx), promise))
    return out


@given(seed=st.integers(0, 2**32), steps=st.integers(3, 60))
def test_the_quick_way_and_the_way_for_forks_agree(seed: int, steps: int) -> None:
    facts = known(random_world(seed, steps, forks=False))
    if not facts:
        return
    quick, slow = fold_order(facts, Unforked()), fold_order(facts, SaidToBeForked())
    assert quick[:3] == slow[:3]
    assert list(quick.heads) == list(refold([k.head for k in facts], Unforked()))


@given(seed=st.integers(0, 2**32), steps=st.integers(3, 60))
def test_the_order_of_the_facts_does_not_matter(seed: int, steps: int) -> None:
    facts = known(random_world(seed, steps, forks=False))
    if not facts:
        return
    shuffled = list(facts)
    random.Random(seed).shuffle(shuffled)
    one, two = fold_order(facts, Unforked()), fold_order(shuffled, Unforked())
    assert (sorted(one.heads), sorted(one.abnormal), one.expected_ms, one.covered) == (
        sorted(two.heads),
        sorted(two.abnormal),
        two.expected_ms,
        two.covered,
    )


def head(sid: int, seq: int, status: Status, *ctx: tuple[int, int]) -> Head:
    return Head(sid, seq, bytes([sid, seq]) * 4, int(status), tuple((s, q, b"\0\0\0\0") for s, q in ctx))


def test_two_facts_that_each_claim_to_have_seen_the_other_leave_the_order_a_state() -> None:
    facts = [Known(head(1, 1, Status.PLACED, (2, 1)), None), Known(head(2, 1, Status.CANCELLED, (1, 1)), None)]
    for ancestry in (Unforked(), SaidToBeForked()):
        assert len(fold_order(facts, ancestry).heads) == 2


def test_a_promise_that_a_later_fact_took_back_is_not_shown_again() -> None:
    """The later of two promises holds, whatever the dates say; a fact without one leaves it."""
    facts = [Known(head(1, 1, Status.PLACED), 900), Known(head(1, 2, Status.HELD), 500), Known(head(1, 3, Status.PACKED), None)]
    assert fold_order(facts, Unforked()).expected_ms == 500


def test_a_fact_that_had_seen_nothing_is_never_abnormal() -> None:
    facts = [Known(head(1, 1, Status.DELIVERED), None), Known(head(2, 1, Status.PLACED), None)]
    assert fold_order(facts, Unforked()).abnormal == ()


def test_one_normal_way_in_is_enough() -> None:
    """It came after two facts that had not seen each other: delivered may not follow cancelled, but it may follow shipped."""
    two = [Known(head(1, 1, Status.CANCELLED), None), Known(head(2, 1, Status.SHIPPED), None)]
    after = Known(head(3, 1, Status.DELIVERED, (1, 1), (2, 1)), None)
    assert fold_order([*two, after], Unforked()).abnormal == ()
    only = Known(head(3, 1, Status.DELIVERED, (1, 1)), None)
    assert fold_order([two[0], only], Unforked()).abnormal == (only.head,)


def test_covers_asks_for_the_whole_context_not_only_for_the_fact() -> None:
    seen_two = head(1, 1, Status.PLACED, (2, 7))
    assert covers(head(3, 1, Status.PICKED, (1, 1), (2, 7)), seen_two)
    assert not covers(head(3, 1, Status.PICKED, (1, 1)), seen_two)
    assert not covers(head(3, 1, Status.PICKED, (1, 1), (2, 6)), seen_two)


def test_a_long_history_of_two_writers_is_folded_without_comparing_pairs() -> None:
    facts = [Known(head(n % 2 + 1, n // 2 + 1, Status.IN_TRANSIT), None) for n in range(510)]
    ancestry = Unforked()
    assert [(h.sid, h.seq) for h in fold_order(facts, ancestry).heads] == [(1, 255), (2, 255)]
    assert ancestry.asked == 0
