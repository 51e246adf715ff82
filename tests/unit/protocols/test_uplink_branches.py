"""The sending half where chains part: records for what is not here, forks, and what counts as settled."""

from __future__ import annotations

from dataclasses import replace

from protocols.chains import RunKind
from protocols.messages import Receipt, StreamStated
from protocols.sync.uplink import Out
from tests.unit.protocols.ledgers import NOW_MS, clone, event, ledger, offer, range_of, say
from tests.unit.protocols.pair import Pair, answer, frames, greeted, hello_of, kinds, record_of, stated

# ------------------------------------------------------------ records


def wanting(pair: Pair, first: int, last: int, h: bytes, epoch: int = 101) -> list[Out]:
    said = StreamStated(pair.edge.node, epoch, 0, wants=((first, last, h),))
    pair.hear(Receipt(pair.receiver.incarnation, NOW_MS, 100, (said,)))
    return pair.send()


def test_a_wish_for_facts_of_another_branch_is_answered_by_a_signed_lost() -> None:
    pair = greeted(5)
    pair.run()
    record = record_of(wanting(pair, 3, 4, b"elsewher"))
    assert (record.epoch, record.first, record.last, record.h_last, record.kind) == (101, 3, 4, b"elsewher", RunKind.LOST)
    assert record_of(wanting(pair, 7, 9, b"beyond h")).kind is RunKind.LOST
    assert pair.send() == [], "said once for each time that it is wanted"


def test_a_wish_for_an_epoch_that_went_with_another_disk_is_answered_by_a_signed_lost() -> None:
    pair = Pair(facts=1)
    pair.uplink.on_up(pair.now)
    old = StreamStated(pair.edge.node, 55, 0, wants=((1, 2, b"forgotte"),))
    pair.hear(answer(pair, hello_of(pair.send()), old, stated(pair.edge, (1, 1))))
    record = record_of(pair.send())
    assert (record.epoch, record.first, record.last, record.kind) == (55, 1, 2, RunKind.LOST)


def test_a_wish_for_what_was_freed_is_answered_by_a_signed_pruned() -> None:
    pair = greeted(5)
    pair.run()
    h = pair.edge.log.hash_at(pair.edge.own(), 3) or b""
    pair.edge.begin()
    pair.edge.free(pair.edge.own(), 4, NOW_MS)
    pair.edge.commit()
    assert record_of(wanting(pair, 2, 3, h)).kind is RunKind.PRUNED


def test_a_wish_for_what_is_here_is_answered_by_the_data() -> None:
    pair = greeted(5)
    h = pair.edge.log.hash_at(pair.edge.own(), 4) or b""
    outs = wanting(pair, 2, 4, h)
    assert "RECORD" not in kinds(outs)
    assert frames(outs) == [("backfill", 1, 4), ("backfill", 5, 5)]


def test_no_record_leaves_before_the_answer_to_a_new_hello() -> None:
    pair = greeted(2)
    pair.run()
    pair.hear(Receipt(pair.receiver.incarnation, NOW_MS, 9, (StreamStated(pair.edge.node, 101, 0, wants=((1, 1, b"elsewher"),)),)))
    pair.hear(Receipt(b"another1", NOW_MS, 9, ()))
    assert kinds(pair.send()) == ["HELLO"]


# ------------------------------------------------------------ forks


def test_a_point_of_the_current_stream_that_is_not_on_its_chain_is_a_fork() -> None:
    pair = greeted(4)
    said = stated(pair.edge, (1, 4))
    other = replace(said, runs=(replace(said.runs[0], h_last=b"elsewher"),))
    assert pair.hear(Receipt(pair.receiver.incarnation, NOW_MS, 9, (other,))).fork


def test_a_point_beyond_the_head_is_a_fork() -> None:
    """This node's disk came back older than what the hub holds."""
    edge = ledger()
    say(edge, event("A"), event("B"))
    restored = clone(edge)
    say(edge, event("C"))
    pair = Pair(edge=restored)
    offer(pair.hub, range_of(edge))
    pair.uplink.on_up(pair.now)
    assert pair.hear(*pair.hub_takes(pair.send())).fork
    assert pair.uplink.unreceived(restored.own()) == 0, "up to its head both agree: nothing is sent again"


def test_a_fork_of_an_epoch_that_is_over_is_no_news() -> None:
    pair = greeted(4)
    said = stated(pair.edge, (1, 4))
    pair.edge.begin()
    pair.edge.start_new_epoch(NOW_MS)
    pair.edge.commit()
    other = replace(said, runs=(replace(said.runs[0], h_last=b"elsewher"),))
    assert not pair.hear(Receipt(pair.receiver.incarnation, NOW_MS, 9, (other,))).fork


def test_own_words_coming_back_are_no_fork() -> None:
    pair = greeted(4)
    assert not pair.hear(Receipt(pair.receiver.incarnation, NOW_MS, 9, (stated(pair.edge, (1, 2), (4, 4)),))).fork


def freed_below_an_end() -> tuple[Pair, StreamStated]:
    """A node that freed all it wrote, and a statement of it that names a point below."""
    pair = greeted(6)
    pair.run()
    said = stated(pair.edge, (1, 6), (1, 4))
    pair.edge.begin()
    pair.edge.free(pair.edge.own(), 6, NOW_MS)
    pair.edge.commit()
    return pair, said


def test_a_receipt_that_names_a_point_freed_meanwhile_is_no_fork_before_the_answer_says_so() -> None:
    pair, said = freed_below_an_end()
    assert not pair.hear(Receipt(pair.receiver.incarnation, NOW_MS, 9, (said,))).fork
    outs = pair.send()
    assert kinds(outs) == ["HELLO"]
    assert not pair.hear(*pair.hub_takes(outs)).fork
    assert pair.uplink.incarnation == pair.receiver.incarnation, "the answer counts"


def test_an_answer_that_names_another_branch_below_what_was_freed_is_a_fork() -> None:
    pair, said = freed_below_an_end()
    pair.hear(Receipt(pair.receiver.incarnation, NOW_MS, 9, (said,)))
    other = replace(said, runs=(said.runs[0], replace(said.runs[1], h_last=b"elsewher")))
    assert pair.hear(answer(pair, hello_of(pair.send()), other)).fork


# ------------------------------------------------------------ settled


def test_settled_rises_with_receipts_and_only_an_answer_lowers_it() -> None:
    pair = greeted(6)
    pair.run()
    for settled in (4, 2):
        pair.store_has(settled)
        pair.hear(*pair.hub_takes([]))
        assert pair.edge.own().settled_seq == 4
    pair.uplink.on_down()
    pair.greet()
    assert pair.edge.own().settled_seq == 2
    assert ledger(db=pair.edge.db).own().settled_seq == 2


def test_a_settled_point_off_the_own_chain_does_not_count() -> None:
    pair = greeted(6)
    pair.run()
    pair.hear(Receipt(pair.receiver.incarnation, NOW_MS, 9, (stated(pair.edge, settled=((4, b"elsewher"), (9, b"beyond h"))),)))
    assert pair.edge.own().settled_seq == 0


def test_freeable_is_what_was_said_last_and_nothing_after_a_new_answer() -> None:
    pair = greeted(6)
    pair.run()
    for freeable in (5, 3):
        pair.store_has(6, freeable=freeable)
        pair.hear(*pair.hub_takes([]))
        assert pair.uplink.freeable(pair.edge.own()) == freeable
    pair.restart_hub()
    pair.uplink.on_down()
    pair.greet()
    assert pair.uplink.freeable(pair.edge.own()) == 0
