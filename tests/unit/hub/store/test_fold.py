"""The fold of one order: plain and forked ways agree, liars leave a state, long histories stay cheap."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from hub.store.fold import Known, covers, fold_order
from protocols.lifecycle import Status
from protocols.merge import Head, dominates, refold, shown
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


class Links:
    """Two streams, one with branches, as links from fact to fact. Where a way leads through a fact that is not here, nobody can tell."""

    def __init__(self, rng: random.Random, facts: int) -> None:
        self.links: dict[tuple[int, int, bytes], bytes] = {}
        self.ends: dict[int, list[tuple[int, bytes]]] = {1: [(0, b"genesis1")], 2: [(0, b"genesis2")]}
        self.forks: dict[int, int | None] = {1: rng.choice((0, 2, 5)), 2: None}
        for _ in range(facts):
            sid = rng.choice((1, 1, 2))
            fork, at = self.forks[sid], self.ends[sid][-1]
            if fork is not None and at[0] >= fork and rng.random() < 0.4:
                at = rng.choice([end for end in self.ends[sid] if end[0] >= fork])
            here = (at[0] + 1, rng.randbytes(8))
            self.links[sid, *here] = at[1]
            self.ends[sid].append(here)
        self.gone = {fact for fact in self.links if rng.random() < 0.1}

    def fork_point(self, sid: int) -> int | None:
        return self.forks[sid]

    def on_chain(self, sid: int, tip_seq: int, tip_h: bytes, seq: int, h: bytes) -> bool | None:
        at = next((fact[2] for fact in self.links if fact[:2] == (sid, tip_seq) and fact[2].startswith(tip_h)), None)
        for n in range(tip_seq, seq, -1):
            if at is None or (sid, n, at) in self.gone:
                return None
            at = self.links[sid, n, at]
        return at == h


@given(seed=st.integers(0, 2**32), facts=st.integers(2, 40))
def test_with_branches_each_fact_comes_after_what_a_comparison_of_all_pairs_says(seed: int, facts: int) -> None:
    rng = random.Random(seed)
    ancestry = Links(rng, facts)
    told: list[Head] = []
    for sid, seq, h in ancestry.links:
        if rng.random() < 0.7:
            others = [end for end in ancestry.ends[3 - sid] if end[0]]
            ctx = sorted((3 - sid, n, at[:4]) for n, at in rng.sample(others, min(len(others), rng.choice((0, 1, 2)))))
            told.append(Head(sid, seq, h, int(Status.PLACED), tuple(ctx)))
            if rng.random() < 0.1:
                told.append(told[-1]._replace(by=(rng.randrange(3), 1, rng.randbytes(8), sid)))
    if not any(sid == 1 for f in told for sid in (f.sid, *(entry[0] for entry in f.ctx))):
        return  # no branches in sight; and there a store folds what stands in a place, not what it replaced beside it
    rng.shuffle(told)
    seen = {f: [g for g in told if g is not f and dominates(f, g, ancestry)] for f in told}
    promised = [f for f in told if f.seq % 3 == 0]
    done = fold_order([Known(f, 7 + n if f in promised else None) for n, f in enumerate(told)], ancestry)
    assert list(done.heads) == list(refold(told, ancestry))
    direct = {f: [g for g in seen[f] if not any(g in seen[o] for o in seen[f])] for f in told}
    assert {f: sorted(before) for f, before in done.merges} == {f: sorted(before) for f, before in direct.items() if len(before) > 1}
    if promised:
        assert done.expected_ms == 7 + told.index(shown(refold(promised, ancestry)))


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
