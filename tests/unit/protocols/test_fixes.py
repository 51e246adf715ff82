"""A fix takes the causal place of what it replaces, whatever comes first, and whether or not the refused fact can be read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from random import Random

import pytest

from protocols.errors import Conflict, InvalidInput, NotKnown
from protocols.ledger import Ledger
from protocols.lifecycle import Status
from protocols.merge import Head, admit, dominates, dump_heads, load_heads, refold
from protocols.quarantine import State, discard, resubmit
from protocols.sqlite import Db
from tests.support.often import seeds
from tests.unit.protocols.fix_worlds import Author, Identity, Told, author, event, history, right, take

RNG = Random(7)


def views(facts: Sequence[Told], *, strict: bool) -> dict[str, set[Identity]]:
    """Which facts a fresh ledger shows as heads after these arrivals."""
    ledger = Ledger(Db(":memory:"), node="hub", new_epoch=lambda: 1)
    try:
        for fact in facts:
            take(ledger, fact, strict=strict)
        return heads_of(ledger)
    finally:
        ledger.db.close()


def heads_of(ledger: Ledger) -> dict[str, set[Identity]]:
    """Per order that has a state, as written down."""
    ledger.flush()
    out = {}
    for order_id, data, status in ledger.db.query("SELECT order_id, heads, status FROM orders"):
        heads = load_heads(data)
        assert bool(status) == bool(heads)
        if heads:
            out[order_id] = {(ledger.log.by_sid(h.fact[0]).key, h.fact[1], h.fact[2]) for h in heads}
    return out


@pytest.mark.parametrize("seed", seeds(60, quick=10))
def test_any_arrival_ends_in_the_truth_where_the_refused_can_be_read_and_where_not(seed: int) -> None:
    told = history(seed, 30)
    wanted, rng = right(told), Random(seed)
    for _ in range(4):
        arrivals = [*told, *rng.sample(told, min(3, len(told)))]
        rng.shuffle(arrivals)
        for strict in (True, False):
            assert views(arrivals, strict=strict) == wanted, f"seed {seed}, strict {strict}"


@pytest.mark.slow
def test_short_histories_in_every_order_of_arrival() -> None:
    checked = 0
    for seed in range(110):
        told = history(seed, 6)
        if not 2 <= len(told) <= 4 or not any(t.bad for t in told):
            continue
        checked += 1
        for arrivals in itertools.permutations(told):
            for strict in (True, False):
                assert views(arrivals, strict=strict) == right(told), f"seed {seed}, {[t.seq for t in arrivals]}, strict {strict}"
    assert checked > 8


def test_the_worlds_hold_what_they_are_for() -> None:
    """The comparison can fail: fixes, fixes of fixes, withdrawals and fixes across epochs are in them."""
    rows = [t for seed in range(60) for t in history(seed, 30)]
    assert sum(t.row[1] == 4 for t in rows) > 30
    assert sum(t.bad for t in rows) > 100


# ---------------------------------------------------------------- one after the other


@pytest.fixture
def dock() -> Author:
    return author("dock", Random(1))


def refused(dock: Author, order_id: str = "o1", status: Status = Status.SHIPPED) -> int:
    """The dock says something that is refused elsewhere; returns its number in the quarantine."""
    dock.ledger.begin()
    done = dock.ledger.append(event(order_id, status), 10)
    dock.bad[done.stream, done.seq, done.h] = None
    dock.ledger.quarantine(dock.ledger.own().sid, done.seq, done.h, "no code known here", 11)
    dock.ledger.commit()
    return dock.ledger.quarantine_rows.items(1)[0].qid


def said(dock: Author, order_id: str, status: Status) -> None:
    dock.ledger.begin()
    dock.ledger.append(event(order_id, status), 12)
    dock.ledger.commit()


def shows(ledger: Ledger, order_id: str) -> list[int]:
    found = ledger.book.get("acme", order_id)
    return [h.status for h in found.heads] if found is not None else []


def test_a_fix_stands_where_the_refused_fact_stood_so_what_came_after_it_still_comes_after(dock: Author) -> None:
    qid = refused(dock)
    said(dock, "o1", Status.DELIVERED)
    dock.ledger.begin()
    resubmit(dock.ledger, qid, event("o1", Status.PACKED), 20)
    dock.ledger.commit()
    assert shows(dock.ledger, "o1") == [Status.DELIVERED]
    assert views(dock.told(), strict=True) == heads_of(dock.ledger)


def test_a_discarded_fact_takes_the_state_back_and_one_alone_leaves_no_order(dock: Author) -> None:
    said(dock, "o1", Status.PLACED)
    qid, alone = refused(dock), refused(dock, "typo")
    assert (shows(dock.ledger, "o1"), shows(dock.ledger, "typo")) == ([Status.SHIPPED], [Status.SHIPPED])
    dock.ledger.begin()
    discard(dock.ledger, qid, "never left", 20, actor="kim")
    discard(dock.ledger, alone, "no such order", 21)
    dock.ledger.commit()
    assert (shows(dock.ledger, "o1"), shows(dock.ledger, "typo")) == ([Status.PLACED], [])
    item = dock.ledger.quarantine_rows.get(qid)
    assert item is not None and (item.state, item.who, item.note) == (State.DISCARDED, "kim", "never left")
    again = Ledger(dock.ledger.db, node="dock", new_epoch=lambda: 9)
    assert (shows(again, "o1"), shows(again, "typo")) == ([Status.PLACED], [])
    assert views(dock.told(), strict=True) == views(dock.told(), strict=False) == heads_of(again)


def test_a_fix_about_another_order_takes_the_refused_fact_out_of_its_own(dock: Author) -> None:
    said(dock, "o1", Status.PLACED)
    qid = refused(dock)
    dock.ledger.begin()
    resubmit(dock.ledger, qid, event("o2", Status.SHIPPED), 20)
    dock.ledger.commit()
    assert (shows(dock.ledger, "o1"), shows(dock.ledger, "o2")) == ([Status.PLACED], [Status.SHIPPED])


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_fix_about_another_order_has_seen_what_its_author_had_seen_of_that_one(dock: Author, epochs: int) -> None:
    """Else the order of arrival decides: the fix hides its author's earlier fact, and what only that one had seen comes back."""
    centre = author("centre", Random(2))
    said(centre, "o2", Status.PLACED)
    for fact in centre.told():
        take(dock.ledger, fact, strict=True)
    said(dock, "o2", Status.PICKED)
    for _ in range(epochs - 1):
        dock.ledger.begin()
        dock.ledger.start_new_epoch(13)
        dock.ledger.commit()
    qid = refused(dock)
    dock.ledger.begin()
    resubmit(dock.ledger, qid, event("o2", Status.PACKED), 20)
    dock.ledger.commit()
    told = [*centre.told(), *dock.told()]
    for arrivals in itertools.permutations(told):
        for strict in (True, False):
            assert views(arrivals, strict=strict) == heads_of(dock.ledger), [(t.key.node, t.seq) for t in arrivals]
    assert shows(dock.ledger, "o2") == [Status.PACKED]


def test_freeing_waits_for_what_is_open_only(dock: Author) -> None:
    first, second = refused(dock), refused(dock)
    own = dock.ledger.own()
    assert dock.ledger.first_quarantined(own) == 1
    dock.ledger.begin()
    resubmit(dock.ledger, first, event("o1"), 20)
    assert dock.ledger.first_quarantined(own) == 2
    discard(dock.ledger, second, "twice", 21)
    dock.ledger.commit()
    assert dock.ledger.first_quarantined(own) > 1_000
    assert dock.ledger.quarantine_rows.count_open() == 0


def test_a_fix_that_is_refused_is_fixed_in_turn_also_in_a_new_epoch(dock: Author) -> None:
    qid = refused(dock)
    said(dock, "o2", Status.PLACED)
    dock.ledger.begin()
    done = resubmit(dock.ledger, qid, event("o1", Status.PICKED), 20)
    dock.bad[done.stream, done.seq, done.h] = None
    dock.ledger.quarantine(dock.ledger.own().sid, done.seq, done.h, "still not", 21)
    dock.ledger.start_new_epoch(22)
    newest = dock.ledger.quarantine_rows.items(1)[0]
    last = resubmit(dock.ledger, newest.qid, event("o1", Status.PACKED), 23)
    dock.ledger.commit()
    assert last.seq < done.seq, "a lower seq, of a later epoch, and yet it holds the place"
    for arrivals in itertools.permutations(dock.told()):
        for strict in (True, False):
            assert views(arrivals, strict=strict)["o1"] == {(last.stream, last.seq, last.h)}
    assert [i.state for i in dock.ledger.quarantine_rows.items()] == [State.RESUBMITTED] * 2


def test_who_learns_of_the_fix_first_knows_the_pair_as_well(dock: Author) -> None:
    qid = refused(dock)
    dock.ledger.begin()
    done = resubmit(dock.ledger, qid, event("o1", Status.PACKED, actor="kim"), 20)
    dock.ledger.commit()
    for arrivals in itertools.permutations(dock.told()):
        hub = Ledger(Db(":memory:"), node="hub", new_epoch=lambda: 1)
        for fact in arrivals:
            take(hub, fact, strict=True)
        (item,) = hub.quarantine_rows.items()
        assert item.state is State.RESUBMITTED and item.who == "kim" and item.by is not None
        assert hub.fact_id(item.by) == done.fact_id
        hub.db.close()


def test_only_the_author_resolves_and_only_once(dock: Author) -> None:
    qid = refused(dock)
    hub = Ledger(Db(":memory:"), node="hub", new_epoch=lambda: 1)
    for fact in dock.told():
        take(hub, fact, strict=True)
    hub.begin()
    with pytest.raises(InvalidInput, match="only its author"):
        resubmit(hub, hub.quarantine_rows.items()[0].qid, event("o1"), 20)
    with pytest.raises(NotKnown, match="Nothing in quarantine"):
        discard(hub, 99, "no", 20)
    hub.commit()
    dock.ledger.begin()
    discard(dock.ledger, qid, "no", 20)
    with pytest.raises(Conflict, match="discarded already"):
        resubmit(dock.ledger, qid, event("o1"), 21)
    dock.ledger.commit()


def test_a_fix_that_names_what_is_not_before_it_steps_aside() -> None:
    """Else an author could claim all places to come."""
    from protocols.codec import pack
    from protocols.fact import Replaces, chain, genesis, to_row
    from protocols.streams import StreamKey

    key = StreamKey("liar", 3, 0)
    here = (3, 1, b"8 bytes!")
    hub = Ledger(Db(":memory:"), node="hub", new_epoch=lambda: 1)
    row = pack(to_row(event("o1"), 1, [], replaces=Replaces(here, 1, here)))
    before = genesis(*key)
    take(hub, Told(key, 1, chain(before, [row])[0], before, row, False), strict=False)
    assert [i.reason for i in hub.quarantine_rows.items()] == ["replaces seq 1, which is not before its own"]


def test_an_own_withdrawal_that_an_older_hub_refuses_is_resolved_by_itself(dock: Author) -> None:
    qid = refused(dock)
    dock.ledger.begin()
    done = discard(dock.ledger, qid, "no", 20)
    dock.ledger.quarantine(dock.ledger.own().sid, done.seq, done.h, "kind 4 is not an order event", 21)
    dock.ledger.commit()
    assert dock.ledger.quarantine_rows.count_open() == 0


# ---------------------------------------------------------------- the pure fold


class Unforked:
    def fork_point(self, sid: int) -> int | None:
        return None

    def on_chain(self, sid: int, tip_seq: int, tip_h: bytes, seq: int, h: bytes) -> bool | None:
        raise AssertionError("nothing is forked")


def test_of_heads_at_one_place_the_greatest_by_stands_in_any_order() -> None:
    ground = Head(1, 5, b"original", 6)
    fixes = [ground._replace(status=n, by=(turn, seq, b"8 bytes!", 1)) for n, (turn, seq) in enumerate([(1, 9), (1, 12), (2, 7)], 1)]
    later = Head(1, 6, b"after it", 9)
    for order in itertools.permutations([ground, *fixes]):
        heads: tuple[Head, ...] = ()
        for head in order:
            heads = admit(heads, head, Unforked()) or heads
        assert heads == (fixes[2],) == refold(order, Unforked())
        assert admit(heads, later, Unforked()) == (later,)
    assert dominates(fixes[0], ground, Unforked()) and not dominates(ground, fixes[0], Unforked())


def test_heads_of_before_are_read_and_a_fix_comes_back_as_it_was() -> None:
    assert load_heads(bytes.fromhex("9194010ac4083132333435363738" + "06")) == (Head(1, 10, b"12345678", 6),)
    fix = Head(1, 5, b"original", 6, ((2, 3, b"abcd"),), (2, 9, b"8 bytes!", 4))
    assert load_heads(dump_heads([fix, fix._replace(ctx=())])) == (fix, fix._replace(ctx=()))
    assert fix.fact == (4, 9, b"8 bytes!")


@pytest.mark.parametrize("seed", range(8))
def test_a_ledger_with_fixes_verifies(seed: int) -> None:
    """What was replaced is in the log, and no part of the fold that is checked."""
    from protocols.trust import verify
    from protocols.verify import verify_database

    ledger = Ledger(Db(":memory:"), node="hub", new_epoch=lambda: 1)
    for fact in history(seed, 30):
        take(ledger, fact, strict=seed % 2 == 0)
    assert verify_database(ledger.db, check=verify).troubles() == []
    ledger.db.close()
