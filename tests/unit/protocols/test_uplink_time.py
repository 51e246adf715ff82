"""The sending half in time: back-off, stalls, and that every deadline leads on."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from protocols.codec import Kind
from protocols.messages import Message, Pull, Receipt
from protocols.sync.uplink import Out, Uplink
from tests.unit.protocols.ledgers import NOW_MS
from tests.unit.protocols.pair import SMALL, Pair, frames, greeted, kinds, refusal

# ------------------------------------------------------------ time


def test_hellos_without_answer_back_off_within_bounds_and_not_in_step() -> None:
    waits: dict[int, list[int]] = {}
    for seed in range(20):
        pair = Pair(facts=1)
        pair.uplink._rng.seed(seed)
        pair.uplink.on_up(pair.now)
        pair.send()
        waits[seed] = []
        for _ in range(10):
            due = pair.uplink.next_deadline()
            assert due is not None
            waits[seed].append(due - pair.now)
            assert kinds(pair.send(due - pair.now)) == ["HELLO"]
    most = [SMALL.retry_ms << min(n, 3) for n in range(10)]
    assert all(m // 2 <= w <= m for ws in waits.values() for w, m in zip(ws, most, strict=True))
    assert len({ws[0] for ws in waits.values()}) > 10, "a thousand nodes must not return in step"


def test_back_off_begins_anew_with_each_link() -> None:
    pair = Pair(facts=1)
    for _ in range(2):
        pair.uplink.on_up(pair.now)
        for _ in range(6):
            pair.send(SMALL.retry_most_ms)
        pair.uplink.on_down()
    pair.uplink.on_up(pair.now)
    pair.send()
    due = pair.uplink.next_deadline()
    assert due is not None
    assert due <= pair.now + SMALL.retry_ms


def test_a_deaf_hub_is_a_stall_and_the_new_client_gets_its_time() -> None:
    pair = Pair(facts=1)
    pair.uplink.on_up(pair.now)
    pair.send()
    assert not pair.uplink.stalled(pair.now + SMALL.stall_ms - 1)
    assert pair.uplink.stalled(pair.now + SMALL.stall_ms)
    pair.uplink.restarted(pair.now + SMALL.stall_ms)
    assert not pair.uplink.stalled(pair.now + SMALL.stall_ms)


def test_frames_that_never_arrive_are_a_stall_though_every_hello_is_answered() -> None:
    """A broker that refuses the topic of frames lets an MQTT 3.1.1 client believe that all is well."""
    pair = greeted(4)
    began = pair.now
    while not pair.uplink.stalled(pair.now):
        outs = pair.send(100)
        pair.hear(*pair.hub_takes(o for o in outs if o.kind is Kind.HELLO))
        assert pair.now - began <= SMALL.stall_ms
    assert pair.now - began == SMALL.stall_ms


def test_a_quiet_hour_is_no_stall_and_neither_is_the_first_frame_after_it() -> None:
    pair = greeted(4)
    pair.run()
    pair.now += 3_600_000
    assert not pair.uplink.stalled(pair.now)
    outs = pair.send()
    assert kinds(outs) == ["HELLO"], "nothing was heard for long"
    assert not pair.uplink.stalled(pair.now), "its answer is on the way"
    pair.hear(*pair.hub_takes(outs))
    pair.send()
    pair.now += SMALL.stall_ms + 1
    pair.say(1)
    assert frames(pair.send(SMALL.linger_ms)) == [("live", 5, 5)]
    assert not pair.uplink.stalled(pair.now)
    assert pair.uplink.stalled(pair.now + SMALL.stall_ms)


def test_a_hub_without_credit_is_no_stall() -> None:
    pair = greeted(4, credit=0)
    pair.send()
    assert not pair.uplink.stalled(pair.now + 10 * SMALL.stall_ms)


def test_another_incarnation_after_a_quiet_hour_is_no_stall() -> None:
    pair = greeted(4)
    pair.run()
    pair.now += SMALL.stall_ms * 2
    pair.hear(Receipt(b"another1", NOW_MS, 9, ()))
    assert not pair.uplink.stalled(pair.now)


STEPS = st.lists(
    st.sampled_from(["say", "answer", "receipts", "lose", "refuse", "pull", "other", "down", "up", "wait", "due"]), min_size=4, max_size=40
)


@given(STEPS)
def test_each_deadline_leads_on(steps: list[str]) -> None:
    """When outputs has run at a deadline, the next one lies ahead: no owner of this machine ever spins."""
    pair = Pair(facts=5)
    pair.uplink.on_up(pair.now)
    way: list[Out] = []
    for step in steps:
        play(pair, step, way)
        due = pair.uplink.next_deadline()
        if step == "due" and due is not None:
            pair.now = max(pair.now, due)
        way += pair.send()
        after = pair.uplink.next_deadline()
        assert after is None or after > pair.now
        assert pair.uplink.connected or after is None


def play(pair: Pair, step: str, way: list[Out]) -> None:
    if step == "say":
        pair.say(2)
    elif step in ("answer", "receipts"):
        pair.hear(*pair.hub_takes(way, poison=[3]))
        way.clear()
    elif step == "lose":
        way.clear()
    elif step == "refuse":
        pair.hear(*(refusal(o, pair.receiver.incarnation) for o in way if isinstance(o.body, bytes)))
    elif step == "pull":
        pair.hear(Pull(pair.receiver.incarnation, ((101, 0, 1, 4),)))
    elif step == "other":
        pair.restart_hub()
        pair.hear(Receipt(pair.receiver.incarnation, NOW_MS, 9, ()))
    elif step == "down":
        pair.uplink.on_down()
    elif step == "up":
        pair.uplink.on_up(pair.now)
    elif step == "wait":
        pair.now += 700


@given(STEPS)
def test_after_any_mishap_everything_arrives_by_deadlines_alone(steps: list[str]) -> None:
    pair = Pair(facts=5)
    pair.uplink.on_up(pair.now)
    way: list[Out] = []
    for step in steps:
        play(pair, step, way)
        way += pair.send()
    if not pair.uplink.connected:
        pair.uplink.on_up(pair.now)
    for _ in range(60):
        while outs := pair.send():
            pair.hear(*pair.hub_takes(outs))
        due = pair.uplink.next_deadline()
        assert due is not None
        if not pair.missing() and pair.uplink.unreceived(pair.edge.own()) == 0:
            return
        pair.now = max(pair.now, due)
    raise AssertionError(f"missing {pair.missing()}")


def test_messages_are_heard_in_any_order_and_any_number() -> None:
    pair = greeted(8)
    outs = pair.send()
    messages: list[Message] = pair.hub_takes(outs) + pair.hub_takes(reversed(outs))
    pair.hear(*reversed(messages), *messages)
    pair.run()
    assert pair.missing() == []


# ------------------------------------------------------------ those who capture meanwhile


def test_a_backlog_is_cut_a_few_frames_at_a_time_and_goes_on_by_itself() -> None:
    pair = Pair(facts=40, settings=replace(SMALL, frame_facts=2, window_facts=1_000, turn_frames=3))
    pair.uplink.on_up(pair.now)
    pair.hear(*pair.hub_takes(pair.send()))
    assert len(frames(pair.send())) == 3
    due = pair.uplink.next_deadline()
    assert due == pair.now + 1
    assert len(frames(pair.send(1))) == 3


def test_what_is_settled_does_not_count_as_not_received_while_there_is_no_line() -> None:
    pair = greeted(facts=5)
    pair.run()
    stream = pair.edge.own()
    stream.settled_seq = 3
    pair.uplink.on_down()
    restarted = Uplink(pair.edge, Random(1), SMALL)
    assert restarted.unreceived(stream) == 2
