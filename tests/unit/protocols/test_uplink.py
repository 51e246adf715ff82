"""The sending half: whom it greets, what it sends when, and how it cuts what was refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocols.chains import RunKind
from protocols.codec import FrameHeader, Kind
from protocols.event import TimeQuality
from protocols.limits import STREAMS_STATED
from protocols.messages import Hello, Pull, Receipt, Refused, StreamStated
from protocols.sync.uplink import Out
from protocols.telemetry import Reading
from tests.unit.protocols.ledgers import NOW_MS, clone, event, ledger, offer, range_of
from tests.unit.protocols.pair import SMALL, Pair, answer, frames, greeted, hello_of, kinds, refusal, stated

# ------------------------------------------------------------ hello and answer


def test_nothing_is_said_before_the_link_is_up() -> None:
    pair = Pair(facts=5)
    assert pair.send() == []
    assert pair.uplink.next_deadline() is None


def test_the_first_word_on_a_new_link_is_hello_and_nothing_else() -> None:
    pair = Pair(facts=5)
    pair.uplink.on_up(pair.now)
    assert kinds(pair.send()) == ["HELLO"]
    assert pair.send() == []


def test_hello_names_head_and_points_at_doubling_distances() -> None:
    pair = Pair(facts=40)
    pair.uplink.on_up(pair.now)
    (held,) = hello_of(pair.send()).streams
    stream = pair.edge.own()
    assert (held.epoch, held.cls, held.head) == (101, 0, stream.head)
    assert [seq for seq, _ in held.points] == [39, 38, 36, 32, 24, 8]
    assert all(pair.edge.log.hash_at(stream, seq) == h for seq, h in held.points)


def test_hello_names_every_epoch_but_never_more_than_a_hub_reads() -> None:
    pair = Pair(facts=1)
    for _ in range(STREAMS_STATED + 5):
        pair.edge.begin()
        pair.edge.start_new_epoch(NOW_MS)
        pair.edge.commit()
    pair.uplink.on_up(pair.now)
    hello = hello_of(pair.send())
    assert len(hello.streams) == STREAMS_STATED
    assert hello.streams[-1].epoch == pair.edge.own().key.epoch, "the newest are what matters"
    assert Hello.parse(hello.to_list()) == hello


def test_after_the_answer_everything_the_hub_lacks_is_sent_and_nothing_else() -> None:
    pair = Pair(facts=10)
    offer(pair.hub, range_of(pair.edge).part(3, 6))
    pair.greet()
    assert frames(pair.send()) == [("backfill", 1, 2), ("backfill", 7, 10)]


def test_an_answer_to_an_older_hello_is_ignored() -> None:
    pair = Pair(facts=3)
    pair.uplink.on_up(pair.now)
    old = hello_of(pair.send())
    new = hello_of(pair.send(SMALL.retry_ms))
    assert old.nonce != new.nonce
    pair.hear(answer(pair, old))
    assert pair.uplink.incarnation is None
    assert frames(pair.send()) == []
    pair.hear(answer(pair, new))
    assert frames(pair.send()) == [("backfill", 1, 3)]


def test_an_answer_is_believed_once() -> None:
    pair = Pair(facts=3)
    pair.uplink.on_up(pair.now)
    said = answer(pair, hello_of(pair.send()))
    pair.hear(said)
    pair.send()
    pair.hear(replace(said, incarnation=b"another1"))
    assert pair.uplink.incarnation == b"hub is 1"


def test_an_answer_from_before_a_broken_link_is_ignored_after_it() -> None:
    pair = Pair(facts=3)
    pair.uplink.on_up(pair.now)
    old = hello_of(pair.send())
    pair.uplink.on_down()
    pair.hear(answer(pair, old))
    pair.uplink.on_up(pair.now)
    pair.hear(answer(pair, old))
    assert pair.uplink.incarnation is None
    assert kinds(pair.send()) == ["HELLO"]


def test_a_receipt_before_the_answer_is_ignored() -> None:
    pair = Pair(facts=3)
    pair.uplink.on_up(pair.now)
    said = answer(pair, hello_of(pair.send()))
    pair.hear(Receipt(b"hub is 1", NOW_MS, 100, (stated(pair.edge, (1, 3)),)))
    pair.hear(said)
    assert frames(pair.send()) == [("backfill", 1, 3)]


def test_a_receipt_of_another_incarnation_leads_to_hello_and_frees_nothing_for_sending() -> None:
    pair = greeted(3)
    pair.send()
    pair.hear(Receipt(b"another1", NOW_MS, 100, (stated(pair.edge, (1, 3)),)))
    assert kinds(pair.send()) == ["HELLO"]
    assert pair.uplink.unreceived(pair.edge.own()) == 3


def test_a_hub_that_restarted_is_greeted_and_told_what_it_had_not_committed() -> None:
    pair = greeted(8)
    pair.run()
    older = clone(ledger("hub"))
    offer(older, range_of(pair.edge).part(1, 5))
    pair.restart_hub(older)
    pair.say(1)
    outs = pair.send(SMALL.linger_ms)
    assert frames(outs) == [("live", 9, 9)]
    pair.hear(*pair.hub_takes(outs))
    pair.run()
    assert pair.missing() == []


def test_hello_is_repeated_when_nothing_was_heard_for_long() -> None:
    pair = greeted(2)
    pair.run()
    due = pair.uplink.next_deadline()
    assert due is not None
    assert pair.send(due - pair.now - 1) == []
    assert kinds(pair.send(1)) == ["HELLO"]


# ------------------------------------------------------------ what is not held is sent


@pytest.mark.parametrize("facts", [1, 7, 40])
def test_everything_arrives_once_and_then_there_is_silence(facts: int) -> None:
    pair = greeted(facts)
    pair.run()
    assert pair.missing() == []
    assert pair.uplink.unreceived(pair.edge.own()) == 0
    assert list(pair.uplink.streams_under_way()) == []


def test_what_is_not_named_in_an_answer_is_not_held() -> None:
    pair = greeted(8)
    pair.run()
    pair.uplink.on_down()
    pair.uplink.on_up(pair.now)
    pair.hear(answer(pair, hello_of(pair.send()), stated(pair.edge, (1, 4))))
    assert frames(pair.send()) == [("backfill", 5, 8)]


def test_points_of_another_branch_do_not_count_as_received() -> None:
    pair = Pair(facts=4)
    pair.uplink.on_up(pair.now)
    said = stated(pair.edge, (1, 4))
    foreign = replace(said, runs=(replace(said.runs[0], h_last=b"elsewher"),))
    pair.hear(answer(pair, hello_of(pair.send()), foreign))
    assert frames(pair.send()) == [("backfill", 1, 4)]


def test_a_record_in_place_of_data_does_not_keep_data_from_being_offered() -> None:
    pair = Pair(facts=4)
    pair.uplink.on_up(pair.now)
    said = stated(pair.edge, (1, 2), (3, 4))
    lost = replace(said, runs=(said.runs[0], replace(said.runs[1], kind=RunKind.LOST)))
    pair.hear(answer(pair, hello_of(pair.send()), lost))
    assert frames(pair.send()) == [("backfill", 3, 4)]


def test_a_statement_about_another_node_moves_nothing() -> None:
    pair = greeted(4)
    pair.send()
    said = stated(pair.edge, (1, 4))
    other = StreamStated("edge-2", said.epoch, said.cls, said.runs, settled=((4, said.runs[0].h_last),))
    pair.hear(Receipt(pair.receiver.incarnation, NOW_MS, 100, (other,)))
    assert pair.uplink.unreceived(pair.edge.own()) == 4
    assert pair.edge.own().settled_seq == 0


def test_a_lost_frame_leads_to_hello_and_only_what_is_missing_is_sent_again() -> None:
    pair = greeted(12)
    outs = pair.send()
    assert frames(outs) == [("backfill", 1, 4), ("backfill", 5, 8)]
    pair.hear(*pair.hub_takes(outs[1:]))
    again: list[Out] = []
    while not any(o.kind is Kind.HELLO for o in again):
        due = pair.uplink.next_deadline()
        assert due is not None
        assert due <= pair.now + SMALL.retry_ms
        again = pair.send(due - pair.now)
        pair.hear(*pair.hub_takes(again))
    assert frames(pair.send()) == [("backfill", 1, 4), ("backfill", 9, 12)], "5 to 8 arrived"


def test_a_lost_receipt_costs_a_hello_and_no_frame() -> None:
    pair = greeted(4)
    pair.hub_takes(pair.send())
    outs = pair.send(SMALL.retry_ms)
    assert kinds(outs) == ["HELLO"]
    pair.hear(*pair.hub_takes(outs))
    assert pair.send() == []
    assert pair.uplink.unreceived(pair.edge.own()) == 0


def test_a_pull_makes_what_was_believed_received_travel_again() -> None:
    pair = greeted(8)
    pair.run()
    pair.hear(Pull(pair.receiver.incarnation, ((101, 0, 3, 5),)))
    assert frames(pair.send()) == [("backfill", 3, 5)]
    pair.hear(Pull(pair.receiver.incarnation, ((999, 0, 1, 5),)))
    assert frames(pair.send()) == [], "what is under way is not sent twice, and other epochs are not this node's"


def test_a_pull_of_another_incarnation_leads_to_hello() -> None:
    pair = greeted(4)
    pair.run()
    pair.hear(Pull(b"another1", ((101, 0, 1, 4),)))
    assert kinds(pair.send()) == ["HELLO"]


def test_a_pull_below_what_was_freed_leaves_the_rest_as_it_was() -> None:
    pair = greeted(8)
    pair.run()
    pair.edge.begin()
    pair.edge.free(pair.edge.own(), 6, NOW_MS)
    pair.edge.commit()
    pair.hear(Pull(pair.receiver.incarnation, ((101, 0, 1, 4), (101, 0, 5, 7))))
    assert pair.uplink.unreceived(pair.edge.own()) == 1
    assert frames(pair.send()) == [("backfill", 7, 7)]


def test_what_was_freed_counts_as_received_whatever_a_hub_says_that_came_back_empty() -> None:
    pair = greeted(8)
    pair.run()
    pair.edge.begin()
    pair.edge.free(pair.edge.own(), 6, NOW_MS)
    pair.edge.commit()
    pair.restart_hub(ledger("hub"))
    pair.uplink.on_down()
    pair.greet()
    assert pair.uplink.unreceived(pair.edge.own()) == 2
    assert frames(pair.send()) == [("backfill", 7, 8)]


# ------------------------------------------------------------ window, credit, lanes


def test_no_more_is_under_way_than_the_window() -> None:
    pair = greeted(100)
    sent = frames(pair.send())
    assert sum(last - first + 1 for _, first, last in sent) == 8, (
        "a quarter of 12 is kept for what is live, and one fact alone is not worth a frame"
    )
    assert pair.send() == []


def test_credit_below_the_window_is_what_counts() -> None:
    pair = greeted(100, credit=4)
    assert frames(pair.send()) == [("backfill", 1, 3)]
    pair.say(4)
    assert frames(pair.send(SMALL.linger_ms)) == [], "a frame of one would be a sliver"


def test_without_credit_nothing_travels_until_there_is_some() -> None:
    pair = greeted(5, credit=0)
    assert pair.send() == []
    pair.hear(Receipt(pair.receiver.incarnation, NOW_MS, 100, ()))
    assert frames(pair.send()) == [("backfill", 1, 4), ("backfill", 5, 5)]


def test_credit_that_shrinks_stops_the_sender_at_once() -> None:
    pair = greeted(100)
    outs = pair.send()
    receipts = [m for m in pair.hub_takes(outs) if isinstance(m, Receipt)]
    pair.hear(*(replace(r, credit=0) for r in receipts))
    assert pair.send() == []


def test_a_backlog_waits_for_its_turn_and_what_is_fresh_does_not() -> None:
    pair = greeted(100)
    pair.hear(Receipt(pair.receiver.incarnation, NOW_MS, 100, (), later=True))
    assert pair.send() == []
    assert not pair.uplink.stalled(pair.now + SMALL.stall_ms), "nothing is expected of the hub"
    pair.say(3)
    outs = pair.send(SMALL.linger_ms)
    assert frames(outs) == [("live", 101, 103)]
    pair.hear(*(replace(r, later=True) for r in pair.hub_takes(outs) if isinstance(r, Receipt)))
    assert pair.send() == []
    pair.hear(Receipt(pair.receiver.incarnation, NOW_MS, 100, ()))
    assert {lane for lane, _, _ in frames(pair.send())} == {"backfill"}


def test_live_facts_pass_a_backlog_that_fills_its_share() -> None:
    pair = greeted(100)
    assert {lane for lane, _, _ in frames(pair.send())} == {"backfill"}
    pair.say(3)
    assert frames(pair.send(SMALL.linger_ms)) == [("live", 101, 103)]


def test_live_facts_are_sent_before_backlog_when_there_is_room_for_both() -> None:
    pair = greeted(6)
    pair.say(2)
    assert frames(pair.send(SMALL.linger_ms))[0] == ("live", 7, 8)


def test_new_facts_linger_so_that_a_busy_moment_makes_one_frame() -> None:
    pair = greeted()
    pair.say(1)
    assert pair.send(SMALL.linger_ms - 1) == []
    pair.say(1)
    assert pair.uplink.next_deadline() == pair.now + 1, "the first of them is not kept waiting"
    assert frames(pair.send(1)) == [("live", 1, 2)]


def test_what_is_not_committed_yet_is_sent_by_nobody_but_outputs() -> None:
    pair = greeted()
    pair.edge.begin()
    pair.edge.append_all([event()], NOW_MS)
    pair.uplink.on_appended(pair.now)
    pair.edge.db.rollback()
    again = Pair(edge=ledger(db=pair.edge.db), hub=pair.hub)
    again.greet()
    assert again.send(SMALL.linger_ms) == []
    assert hello_of_new_link(again).streams == ()


def hello_of_new_link(pair: Pair) -> Hello:
    pair.uplink.on_down()
    pair.uplink.on_up(pair.now)
    return hello_of(pair.send())


# ------------------------------------------------------------ refusals


def test_a_refused_frame_is_cut_by_halves_down_to_the_one_bad_fact() -> None:
    pair = greeted(8)
    seen: list[tuple[int, int]] = []
    outs = pair.send()
    for _ in range(6):
        seen += [(a, b) for _, a, b in frames(outs)]
        pair.hear(*pair.hub_takes(outs, poison=[6]))
        outs = pair.send()
    assert seen == [(1, 4), (5, 8), (5, 6), (7, 8), (5, 5), (6, 6)]
    assert pair.missing() == [(6, 6)]
    assert pair.uplink.refusals == 3


def test_a_single_refused_fact_waits_for_the_next_hello() -> None:
    pair = greeted(1)
    pair.hear(*pair.hub_takes(pair.send(), poison=[1]))
    assert pair.send() == []
    due = pair.uplink.next_deadline()
    assert due is not None
    assert pair.now < due <= pair.now + SMALL.retry_most_ms
    assert kinds(pair.send(due - pair.now)) == ["HELLO"]


def test_a_refusal_of_a_frame_that_was_never_sent_moves_nothing() -> None:
    pair = greeted(4)
    pair.send()
    pair.hear(Refused(pair.receiver.incarnation, b"never sent 16 by", "damaged on its way"))
    assert pair.uplink.refusals == 0
    assert [(a, b) for _, a, b in pair.uplink.streams_under_way()] == [(1, 4)]


def test_a_refusal_that_comes_twice_halves_once() -> None:
    pair = greeted(4)
    (out,) = pair.send()
    no = refusal(out, pair.receiver.incarnation)
    pair.hear(no, no)
    assert frames(pair.send()) == [("backfill", 1, 2), ("backfill", 3, 4)]


def test_a_refusal_of_another_incarnation_is_a_sign_of_it() -> None:
    pair = greeted(4)
    (out,) = pair.send()
    pair.hear(refusal(out, b"another1"))
    outs = pair.send()
    assert kinds(outs) == ["HELLO"]
    pair.hear(*pair.hub_takes(outs))
    assert frames(pair.send()) == [("backfill", 1, 4)], "not halved: it was sent to somebody else"


def test_facts_refused_for_good_are_named_to_the_core() -> None:
    pair = Pair(facts=3)
    pair.uplink.on_up(pair.now)
    stream = pair.edge.own()
    h = pair.edge.log.hash_at(stream, 2) or b""
    said = stated(pair.edge, (1, 3), refused=((2, h, "why"), (3, b"not mine", "why")))
    heard = pair.hear(answer(pair, hello_of(pair.send()), said))
    assert [(s.sid, seq, why) for s, seq, _, why in heard.refused] == [(stream.sid, 2, "why")]


# ------------------------------------------------------------ classes


def tell(pair: Pair, count: int) -> None:
    """So many readings of devices, committed."""
    pair.edge.begin()
    pair.edge.append_telemetry([Reading(f"d{i}", "health", NOW_MS, TimeQuality.STATED, {"n": i}) for i in range(count)], NOW_MS)
    pair.uplink.on_appended(pair.now)
    pair.edge.commit()


def classes(outs: list[Out]) -> list[int]:
    return [FrameHeader.parse(o.header).cls for o in outs if isinstance(o.body, bytes)]


def test_a_telemetry_backlog_never_delays_facts_of_orders() -> None:
    """Neither fresh ones nor a backlog, nor those of a new epoch, whose stream became known after that of the telemetry."""
    pair = Pair(settings=replace(SMALL, turn_frames=4, frame_facts=10, window_facts=100))
    tell(pair, 500)
    pair.say(30)
    pair.edge.begin()
    pair.edge.start_new_epoch(NOW_MS)
    pair.edge.commit()
    pair.say(30)
    pair.restart_hub(credit=100)
    pair.greet()
    first = pair.send()
    assert classes(first) == [0, 0, 0, 0]
    pair.hear(*pair.hub_takes(first))
    outs = [o for _ in range(20) for o in pair.send(SMALL.linger_ms)]
    assert classes(outs)[-1] == 1, "then telemetry flows too"
    pair.say(5)
    assert classes(pair.send(SMALL.linger_ms))[:1] == [0], "there is always room for what is fresh"


def test_telemetry_gets_through_behind_orders_with_any_credit() -> None:
    for credit in (1, 2, 7):
        pair = Pair(facts=3, settings=SMALL)
        tell(pair, 6)
        pair.restart_hub(credit=credit)
        pair.greet()
        pair.run(200)
        assert all(pair.uplink.unreceived(s) == 0 for s in pair.edge.own_streams()), credit


def test_without_credit_no_telemetry_is_sent() -> None:
    pair = greeted(credit=0)
    tell(pair, 5)
    assert frames(pair.send(SMALL.linger_ms)) == []
