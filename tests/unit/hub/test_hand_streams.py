"""Streams that arrive in an odd order, with records between their frames: nothing is asked, counted or forgotten that should not be."""

from __future__ import annotations

import pytest

from protocols.chains import RunKind
from protocols.messages import Pull
from protocols.streams import StreamLog
from protocols.sync.seal import Control, unseal
from tests.unit.hub.hand_streams import KEY, Branch, Hand, fact
from tests.unit.hub.hub_world import World, straight


@pytest.fixture
def hand() -> Hand:
    return Hand(World(), Branch.of(fact(n) for n in range(11)))


def one_turn(world: World, *payloads: bytes) -> list[Pull]:
    """Messages that the hub takes in one transaction, and what it asks for after it."""
    world.hub.begin()
    for payload in payloads:
        world.hub.take_message(KEY.node, payload, world.now_ms)
    world.hub.commit()
    opened = [unseal(effect.payload) for effect in world.hub.effects(world.now_ms)]
    messages = [control.message() for control in opened if isinstance(control, Control)]
    return [message for message in messages if isinstance(message, Pull)]


# ------------------------------------------------------------------ records


def test_a_record_that_data_shortens_to_where_another_ends_is_gone(hand: Hand) -> None:
    """Two records with one end could not be written: the hub fell, came up, and fell over the same frame again."""
    hand.send(3, 6)
    hand.record(1, 2, RunKind.PRUNED)
    hand.send(9, 11)
    hand.record(1, 8, RunKind.PRUNED)
    hand.send(7, 8)
    assert hand.at_hub() == ["1-2 PRUNED", "3-11 DATA"]
    hand.world.restart()
    hand.world.run(3)
    assert hand.at_hub() == hand.at_store() == ["1-2 PRUNED", "3-11 DATA"]


def test_a_record_that_data_shortened_reaches_the_store_with_what_its_author_signed(hand: Hand) -> None:
    hand.send(1, 2)
    hand.send(9, 10)
    hand.record(3, 8)
    hand.send(7, 8)
    hand.world.run(3)
    (record,) = hand.world.store.records(KEY)
    assert (record.first, record.last, record.received_ms > 0) == (3, 6, True)
    signed = unseal(record.signed)
    assert isinstance(signed, Control)
    assert (signed.author, signed.message().to_list()[2:6:2]) == (KEY.node, [3, 8])


def test_a_hub_that_came_back_older_takes_the_records_back_too(hand: Hand) -> None:
    """The author may be gone: nobody else could close the hole again."""
    hand.send(1, 2)
    hand.send(9, 10)
    hand.world.run(3)
    backup = hand.world.db.dump()
    hand.record(3, 8)
    hand.world.run(3)
    hand.world.restart(backup)
    assert hand.chain.holes() != []
    hand.world.run(3)
    assert hand.at_hub() == hand.at_store() == ["1-2 DATA", "3-8 LOST", "9-10 DATA"]
    assert hand.world.row(KEY.node)["balanced"]


def test_a_seq_that_records_close_on_two_branches_is_counted_once(hand: Hand) -> None:
    other = Branch.of([*hand.trunk.rows[:2], *(fact(n) for n in range(20, 28))])
    hand.send(1, 2)
    for branch in (hand.trunk, other):
        hand.send(6, 8, branch)
        hand.record(3, 5, RunKind.LOST, branch)
    hand.world.run(3)
    assert hand.at_store().count("1-2 DATA") == 1 and len(hand.at_store()) == 5
    counts = hand.world.counts(KEY)
    assert counts is not None and counts.records == {"lost": 3}
    assert hand.world.row(KEY.node)["balanced"]


# ------------------------------------------------------------------ pulls, bytes, pages


def test_what_came_behind_the_heartbeat_is_not_asked_for(hand: Hand) -> None:
    assert one_turn(hand.world, hand.frame(1, 2), hand.beat(4), hand.frame(3, 4)) == []


def test_what_did_not_come_with_the_heartbeat_is_asked_for_once(hand: Hand) -> None:
    asked = one_turn(hand.world, hand.frame(1, 2), hand.beat(6), hand.frame(5, 6))
    assert [pull.ranges for pull in asked] == [((KEY.epoch, KEY.cls, 3, 4),)]
    assert one_turn(hand.world) == []


def test_the_bytes_of_what_waited_for_its_card_count_once() -> None:
    world = World()
    dock = world.edge("dock-7", admitted=False)
    arrived: list[bytes] = []

    def listen(_node: str, payload: bytes) -> list[bytes]:
        arrived.append(payload)
        return [payload]

    world.bend = listen
    world.run(1)
    world.bend = straight
    assert arrived and world.hub.registry.waiting_frames() == {"dock-7": len(arrived)}
    world.admit(dock)
    assert world.hub.registry.waiting_frames() == {}
    assert world.hub.registry.counters()["up_bytes"] == sum(map(len, arrived))


def test_a_page_of_a_backlog_is_found_by_its_key(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a fork nothing is walked from the head down to each page."""
    hand.send(1, 11)
    monkeypatch.setattr(StreamLog, "walk", lambda *_: pytest.fail("walked"))
    stream = hand.world.hub.ledger.log.open(KEY)
    (run,) = stream.chain.runs
    pages = [hand.world.hub.ledger.log.read_branch(stream, run, first, first + 2) for first in (1, 4, 7)]
    assert [[row.seq for row in page] for page in pages] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
