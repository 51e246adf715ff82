"""Forks in a ledger: both branches are kept, and orders are folded again as more of them is known."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from protocols.ledger import Ledger
from protocols.lifecycle import Status
from protocols.streams import StreamKey
from tests.unit.protocols.ledgers import (
    NOW_MS,
    Range,
    clone,
    event,
    heads,
    ledger,
    offer,
    orders,
    range_of,
    say,
)  # fmt: skip

KEY = StreamKey("edge-1", 101, 0)


def forked() -> tuple[Ledger, Ledger]:
    """Two machines from one card: one common fact of A, then each its own."""
    left = ledger()
    say(left, event("A"))
    right = clone(left)
    say(left, event("L"), event("A", Status.SHIPPED))
    say(right, event("A", Status.CANCELLED), event("R"))
    return left, right


def test_both_branches_of_a_clone_are_kept_and_shown() -> None:
    left, right = forked()
    hub = ledger("hub")
    assert not offer(hub, range_of(left)).forked
    done = offer(hub, range_of(right))
    assert (done.new, done.known, done.forked) == (2, 1, True)
    assert hub.log.open(KEY).chain.fork_point == 1
    assert heads(hub, "A") == heads(left, "A") | heads(right, "A")
    assert {"L", "R"} <= set(orders(hub))


def test_an_order_is_folded_again_when_a_fork_of_its_author_comes_to_light() -> None:
    """Before the fork is known, seq 3 of the stream stands for everything below it; the order's own fact did not arrive again."""
    left, right = forked()
    hub = ledger("hub")
    offer(hub, range_of(left, 3, 3))
    offer(hub, range_of(right, 2, 2))
    offer(hub, range_of(left, 1, 2))
    assert heads(hub, "A") == heads(left, "A") | heads(right, "A")


def test_a_bad_fact_can_bring_a_fork_to_light() -> None:
    """The fork is seen at a fact that cannot be read: still the orders of that author are folded again."""
    left, right = forked()
    say(left, event("A", Status.DELIVERED))
    ours, theirs = range_of(left), range_of(right)
    straight, opaque = ledger("hub"), ledger("hub")
    offer(straight, theirs.part(1, 2))
    offer(straight, ours.part(4, 4))
    offer(opaque, ours.part(4, 4))
    offer(opaque, theirs.part(2, 2))
    for hub in (straight, opaque):
        hub.begin()
        hub.offer_opaque(KEY, 2, ours.hashes[0], ours.hashes[1], b"x", "bad", NOW_MS)
        hub.offer_opaque(KEY, 3, ours.hashes[1], ours.hashes[2], b"x", "bad", NOW_MS)
        hub.offer(KEY, 1, theirs.h_before, theirs.facts[:1], theirs.hashes[:1], NOW_MS)
        hub.commit()
    assert orders(opaque) == orders(straight)
    assert len(heads(opaque, "A")) == 2


def test_a_hole_that_closes_on_a_branch_shows_what_its_upper_end_had_seen() -> None:
    """Orders of which no fact arrives now depend on the facts that fill the hole: only they tell on which branch the upper end stands."""
    left, right = forked()
    say(left, event("B"), event("C"), event("L", Status.SHIPPED))
    hub, all_ = ledger("hub"), range_of(left)
    offer(hub, range_of(right))
    offer(hub, all_.part(2, 3))
    offer(hub, all_.part(6, 6))
    offer(hub, all_.part(4, 5))
    assert heads(hub, "L") == heads(left, "L")


def history(rng: Random) -> list[Range]:
    """Single facts of two clones and of an author that reads both, with contexts across them."""
    left, other = ledger(), ledger("other")
    right = None
    for step in range(rng.randint(8, 24)):
        if step == 3:
            right = clone(left)
        speaker = rng.choice([left, right or left, other])
        if rng.random() < 0.4:
            given = rng.choice([left, right or left])
            if given.own().head[0] and given is not other:
                offer(other, range_of(given))
            continue
        say(speaker, event(rng.choice("XY"), rng.choice([Status.PLACED, Status.SHIPPED, Status.CANCELLED])))
    return [r for led in (left, right, other) if led is not None and led.own().head[0] for r in range_of(led).singles()]


@given(st.integers(0, 2**32))
def test_forks_holes_and_contexts_in_any_order_fold_to_the_same_heads(seed: int) -> None:
    rng = Random(seed)
    facts = history(rng)
    one, two = ledger("hub"), ledger("hub")
    for fact in facts:
        offer(one, fact)
    rng.shuffle(facts)
    for fact in facts:
        offer(two, fact)
    assert orders(two) == orders(one)
