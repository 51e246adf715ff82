"""The receiving half: what a frame does, and that a statement never says more than the disk."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import limits
from protocols.chains import RunKind
from protocols.codec import FrameHeader, encode_body, pack
from protocols.errors import DecodeError
from protocols.ledger import Ledger
from protocols.messages import (
    Answer,
    Heartbeat,
    Hello,
    Pull,
    Receipt,
    Record,
    RunStated,
    StreamHeld,
    StreamQueue,
    StreamStated,
    parse_message,
)
from protocols.streams import StreamKey
from protocols.sync.receiver import Receiver, StoreSays, rooted_points
from tests.unit.protocols.ledgers import NOW_MS, Range, clone, event, ledger, orders, range_of, rows_range, say

KEY = StreamKey("edge-1", 101, 0)
INCARNATION, NONCE = b"hub is 1", b"nonce--8"


class Hub:
    """A receiver over a ledger in memory, one transaction for each thing that comes in."""

    def __init__(self, led: Ledger | None = None) -> None:
        self.ledger = led or ledger("hub")
        self.receiver = Receiver(self.ledger, INCARNATION, credit=77)

    def frame(self, given: Range, *, body: bytes | None = None, commit: bool = True) -> int:
        header = FrameHeader(*given.key, given.first, len(given.facts), given.h_before, given.hashes[-1], 0)
        self.ledger.begin()
        try:
            done = self.receiver.frame(header, body or encode_body([row for row, _ in given.facts], dictionary=0), NOW_MS)
        except DecodeError:
            self.ledger.db.rollback()
            raise
        if commit:
            self.ledger.commit()
        return done.new

    def record(self, given: Range, first: int, last: int, kind: RunKind = RunKind.LOST) -> bool:
        self.ledger.begin()
        word = Record(given.key.epoch, 0, first, b"", last, given.hashes[last - 1], kind, NOW_MS)
        closed = self.receiver.record("edge-1", word, b"signed", NOW_MS)
        self.ledger.commit()
        return closed

    def stated(self) -> StreamStated:
        return self.receiver.statement(KEY)

    def runs(self) -> list[tuple[int, int, int]]:
        return [(r.first, r.last, int(r.kind)) for r in self.stated().runs]

    def answer(self, *held: StreamHeld) -> Answer:
        return self.receiver.answer("edge-1", Hello(NONCE, held), NOW_MS)

    def beat(self, led: Ledger) -> list[tuple[int, int]]:
        """What is pulled after a heartbeat."""
        streams = tuple(StreamQueue(s.key.epoch, s.key.cls, s.head, 0, 0, None) for s in led.own_streams())
        pull = self.receiver.heartbeat("edge-1", Heartbeat(NOW_MS, streams, "0"))
        assert pull is None or Pull.parse(pull.to_list()) == pull
        return [] if pull is None else [(first, last) for _, _, first, last in pull.ranges]


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def author() -> Ledger:
    led = ledger()
    say(led, *(event("ABC"[i % 3]) for i in range(10)))
    return led


@pytest.fixture
def all_(author: Ledger) -> Range:
    return range_of(author)


# ------------------------------------------------------------ frames


def test_a_frame_is_logged_folded_and_stated(hub: Hub, author: Ledger, all_: Range) -> None:
    assert hub.frame(all_) == 10
    assert orders(hub.ledger) == orders(author)
    assert hub.stated() == StreamStated(*KEY, (RunStated(1, all_.h_before, 10, all_.hashes[-1]),))


def test_frames_in_any_order_are_stated_as_the_runs_they_make(hub: Hub, all_: Range) -> None:
    hub.frame(all_.part(8, 10))
    hub.frame(all_.part(1, 3))
    assert hub.runs() == [(1, 3, 0), (8, 10, 0)]
    assert hub.stated().wants == ((4, 7, all_.hashes[6]),)
    hub.frame(all_.part(4, 7))
    assert (hub.runs(), hub.stated().wants) == ([(1, 10, 0)], ())


def test_a_frame_that_does_not_decode_moves_nothing(hub: Hub, all_: Range) -> None:
    for body in (b"damage", encode_body([row for row, _ in all_.facts[:9]], dictionary=0), encode_body([b"x"] * 10, dictionary=0)):
        with pytest.raises(DecodeError):
            hub.frame(all_, body=body)
    assert hub.runs() == []
    assert hub.receiver.receipts(NOW_MS) == []


def test_a_single_fact_that_does_not_decode_is_kept_and_named_to_its_author(hub: Hub, all_: Range) -> None:
    hub.frame(all_.part(1, 4))
    assert hub.frame(all_.part(5, 5), body=b"damage") == 1
    hub.frame(all_.part(6, 10))
    assert hub.runs() == [(1, 10, 0)], "the stream behind it flows"
    ((seq, h, why),) = hub.stated().refused
    assert (seq, h) == (5, all_.hashes[4])
    assert why
    assert hub.ledger.db.one("SELECT row FROM log WHERE seq=5") == (b"damage",)
    assert hub.receiver.quarantine_reasons(1) == {(5, all_.hashes[4]): why}


def test_a_single_fact_that_contradicts_the_beginning_of_its_stream_is_refused(hub: Hub, all_: Range) -> None:
    with pytest.raises(DecodeError):
        hub.frame(all_.part(1, 1)._replace(h_before=b"12345678"), body=b"damage")
    assert hub.runs() == []


def test_what_was_quarantined_is_still_named_after_a_restart(hub: Hub, all_: Range) -> None:
    hub.frame(rows_range(KEY, [[99, "later"]]))
    again = Hub(ledger("hub", hub.ledger.db))
    assert again.stated().refused == hub.stated().refused != ()


# ------------------------------------------------------------ statements


def test_a_statement_never_names_what_is_not_committed(hub: Hub, all_: Range) -> None:
    hub.frame(all_.part(1, 4))
    hub.frame(all_.part(5, 10), commit=False)
    hub.ledger.db.rollback()
    again = Hub(ledger("hub", hub.ledger.db))
    assert again.runs() == [(1, 4, 0)]


def test_receipts_go_once_to_the_authors_of_what_changed(hub: Hub, all_: Range) -> None:
    hub.frame(all_.part(1, 4))
    hub.frame(all_.part(5, 10))
    other = rows_range(StreamKey("edge-2", 5, 0), [[99]])
    hub.frame(other)
    receipts = dict(hub.receiver.receipts(NOW_MS))
    assert sorted(receipts) == ["edge-1", "edge-2"]
    assert (receipts["edge-1"].incarnation, receipts["edge-1"].credit, receipts["edge-1"].hub_ms) == (INCARNATION, 77, NOW_MS)
    assert receipts["edge-1"].streams[0].runs[:1] == hub.stated().runs
    assert hub.receiver.receipts(NOW_MS) == []


def test_a_receipt_names_also_where_a_frame_ended_inside_a_longer_run(hub: Hub, all_: Range) -> None:
    """Its author may have gone another way above that point, and must see that it gets on."""
    hub.frame(all_)
    hub.receiver.receipts(NOW_MS)
    hub.frame(all_.part(2, 4))
    hub.frame(all_.part(3, 6))
    ((_, receipt),) = hub.receiver.receipts(NOW_MS)
    assert [(r.first, r.last, r.h_last) for r in receipt.streams[0].runs] == [(1, 10, all_.hashes[9]), (1, 6, all_.hashes[5])]


def test_a_frame_that_was_known_is_answered_all_the_same(hub: Hub, all_: Range) -> None:
    hub.frame(all_)
    hub.receiver.receipts(NOW_MS)
    hub.frame(all_)
    assert [node for node, _ in hub.receiver.receipts(NOW_MS)] == ["edge-1"], "its author may have lost the first receipt"


def test_an_answer_echoes_the_nonce_and_names_streams_that_hello_did_not(hub: Hub, all_: Range) -> None:
    hub.frame(all_)
    hub.frame(rows_range(KEY._replace(epoch=55), [[99]]))
    said = hub.answer(StreamHeld(101, 0, (10, all_.hashes[9])))
    assert (said.nonce, said.incarnation, said.credit, said.hub_ms) == (NONCE, INCARNATION, 77, NOW_MS)
    assert [(s.node, s.epoch) for s in said.streams] == [("edge-1", 101), ("edge-1", 55)]


def test_an_answer_to_a_node_that_is_new_here_is_empty(hub: Hub) -> None:
    assert hub.answer(StreamHeld(101, 0, (10, b"12345678"))).streams == ()


def test_streams_that_are_known_from_hearsay_only_are_not_stated(hub: Hub, all_: Range) -> None:
    """Another author's context named an epoch of this node; nothing of it is here."""
    other = ledger("edge-2")
    say(other, event("A"))
    fact = range_of(other).facts[0][1]
    hub.frame(rows_range(KEY._replace(node="edge-2"), [[*fact[:12], [["edge-1", 999, 3, b"hash"]]]]))
    assert hub.ledger.log.get(KEY._replace(epoch=999)) is not None
    assert hub.answer().streams == ()


def test_more_streams_than_fit_into_an_answer_follow_as_receipts(hub: Hub) -> None:
    epochs = limits.STREAMS_STATED + 10
    for epoch in range(1, epochs + 1):
        hub.frame(rows_range(KEY._replace(epoch=epoch), [[99], [98]]))
    hub.receiver.receipts(NOW_MS)
    named = StreamHeld(epochs, 0, (1, b"12345678"))
    said = hub.answer(named)
    assert said.streams[0].epoch == epochs, "what hello names comes first"
    more = [s.epoch for _, receipt in hub.receiver.receipts(NOW_MS) for s in receipt.streams]
    assert sorted([s.epoch for s in said.streams] + more) == list(range(1, epochs + 1))


def test_no_message_is_larger_than_what_may_travel(hub: Hub) -> None:
    """Streams full of holes and of facts that cannot be read."""
    for epoch in range(1, 40):
        rows = rows_range(KEY._replace(epoch=epoch), [[99, "x" * 50]] * 140)
        for seq in range(2, 140, 2):
            hub.frame(rows.part(seq, seq))
    messages: list[Answer | Receipt] = [hub.answer(), *(receipt for _, receipt in hub.receiver.receipts(NOW_MS))]
    assert len(messages) > 2
    for message in messages:
        wire = pack(message.to_list())
        assert len(wire) < limits.FRAME_WIRE_BYTES - 1_000
        assert parse_message(message.KIND, message.to_list()) == message
    assert {s.epoch for m in messages for s in m.streams} == set(range(1, 40))


def test_of_many_runs_the_lowest_and_the_highest_are_stated(hub: Hub) -> None:
    rows = rows_range(KEY, [[99]] * 200)
    for seq in range(1, 200, 2):
        hub.frame(rows.part(seq, seq))
    runs = hub.runs()
    assert len(runs) == limits.SEGMENTS_STATED
    assert (runs[0], runs[-1]) == ((1, 1, 0), (199, 199, 0))
    assert len(hub.stated().wants) <= limits.SEGMENTS_STATED


# ------------------------------------------------------------ nodes that went another way


def parted(common: int, left: int, right: int) -> tuple[Ledger, Ledger]:
    """Two machines from one card."""
    one = ledger()
    say(one, *(event("A") for _ in range(common)))
    two = clone(one)
    say(one, *(event("L") for _ in range(left)))
    say(two, *(event("R") for _ in range(right)))
    return one, two


def held(led: Ledger) -> StreamHeld:
    """A hello with every point there is."""
    stream = led.own()
    points = [(seq, led.log.hash_at(stream, seq) or b"") for seq in range(stream.head[0] - 1, 0, -1)]
    return StreamHeld(stream.key.epoch, 0, stream.head, tuple(points))


def test_a_diverged_node_learns_how_far_it_agrees_with_what_is_held(hub: Hub) -> None:
    one, two = parted(6, 3, 2)
    hub.frame(range_of(one))
    runs = [(r.first, r.last) for r in hub.answer(held(two)).streams[0].runs]
    assert runs == [(1, 9), (1, 6)]
    assert hub.answer(held(two)).streams[0].runs[1].h_last == two.log.hash_at(two.own(), 6)


def test_a_node_that_came_back_older_learns_that_its_head_is_held(hub: Hub) -> None:
    one, two = parted(6, 3, 0)
    hub.frame(range_of(one))
    assert [(r.first, r.last) for r in hub.answer(held(two)).streams[0].runs] == [(1, 9), (1, 6)]


def test_a_node_whose_head_is_the_end_of_a_run_is_told_nothing_twice(hub: Hub, author: Ledger, all_: Range) -> None:
    hub.frame(all_)
    assert [(r.first, r.last) for r in hub.answer(held(author)).streams[0].runs] == [(1, 10)]


def test_both_branches_are_stated_once_they_are_here(hub: Hub) -> None:
    one, two = parted(6, 3, 2)
    hub.frame(range_of(one))
    hub.frame(range_of(two))
    assert hub.runs() == [(1, 6, 0), (7, 8, 0), (7, 9, 0)]


# ------------------------------------------------------------ records


def test_a_record_closes_a_hole_and_is_stated_as_what_it_is(hub: Hub, all_: Range) -> None:
    hub.frame(all_.part(1, 3))
    hub.frame(all_.part(8, 10))
    assert hub.record(all_, 4, 7, RunKind.PRUNED)
    assert (hub.runs(), hub.stated().wants) == ([(1, 3, 0), (4, 7, 3), (8, 10, 0)], ())
    assert [node for node, _ in hub.receiver.receipts(NOW_MS)] == ["edge-1"]


def test_a_record_over_data_closes_nothing(hub: Hub, all_: Range) -> None:
    hub.frame(all_)
    assert not hub.record(all_, 4, 7)
    assert hub.runs() == [(1, 10, 0)]


# ------------------------------------------------------------ heartbeats


def test_a_heartbeat_pulls_exactly_what_is_missing(hub: Hub, author: Ledger, all_: Range) -> None:
    assert hub.beat(author) == [(1, 10)], "nothing of it was ever heard"
    hub.frame(all_.part(3, 4))
    assert hub.beat(author) == [(1, 2), (5, 10)]
    hub.frame(all_.part(9, 10))
    assert hub.beat(author) == [(1, 2), (5, 8)]
    hub.frame(all_.part(1, 8))
    assert hub.beat(author) == []


@given(st.sets(st.integers(1, 12)))
def test_whatever_is_here_the_rest_is_pulled(have: set[int]) -> None:
    led, hub = ledger(), Hub()
    say(led, *(event() for _ in range(12)))
    for seq in sorted(have):
        hub.frame(range_of(led, seq, seq))
    pulled = {n for first, last in hub.beat(led) for n in range(first, last + 1)}
    assert pulled == set(range(1, 13)) - have


def test_what_a_record_closed_is_not_pulled(hub: Hub, author: Ledger, all_: Range) -> None:
    hub.frame(all_.part(1, 3))
    hub.frame(all_.part(8, 10))
    hub.record(all_, 4, 7)
    assert hub.beat(author) == []


def test_what_is_held_of_another_branch_is_pulled_of_this_one(hub: Hub) -> None:
    one, two = parted(4, 4, 6)
    hub.frame(range_of(one))
    hub.frame(range_of(two, 9, 10))
    hub.frame(range_of(two, 5, 5))
    assert hub.beat(two) == [(5, 8)], "5 is here, but nobody can tell on which branch 9 stands"
    hub.frame(range_of(two, 6, 8))
    assert hub.beat(two) == []
    assert hub.beat(one) == []


def test_a_stream_that_said_nothing_yet_is_not_pulled(hub: Hub) -> None:
    led = ledger()
    led.begin()
    led.own()
    led.commit()
    assert hub.beat(led) == []


def test_a_pull_is_bounded(hub: Hub) -> None:
    led = ledger()
    say(led, *(event() for _ in range(200)))
    for seq in range(2, 200, 2):
        hub.frame(range_of(led, seq, seq))
    assert len(hub.beat(led)) == limits.SEGMENTS_STATED


# ------------------------------------------------------------ the store's word


def test_what_the_store_states_reaches_the_author_once(hub: Hub, all_: Range) -> None:
    hub.frame(all_)
    hub.receiver.receipts(NOW_MS)
    says = StoreSays(settled=((8, all_.hashes[7]),), freeable=((5, all_.hashes[4]),))
    for expected in (1, 0):
        hub.receiver.store_says([(KEY, says)], backed_up=True)
        receipts = hub.receiver.receipts(NOW_MS)
        assert len(receipts) == expected
    hub.receiver.store_says([(KEY, replace(says, settled=()))], backed_up=True)
    ((_, receipt),) = hub.receiver.receipts(NOW_MS)
    assert receipt.backed_up
    assert receipt.streams[0].settled == (), "a store that went back says less"
    assert receipt.streams[0].freeable == ((5, all_.hashes[4]),)


def test_received_is_not_settled(hub: Hub, all_: Range) -> None:
    hub.frame(all_)
    assert (hub.stated().settled, hub.stated().freeable) == ((), ())
    assert not hub.answer().backed_up


def test_a_node_whose_branch_ends_inside_what_is_settled_learns_how_far(hub: Hub) -> None:
    one, two = parted(6, 3, 0)
    hub.frame(range_of(one))
    end = one.own().head
    hub.receiver.store_says([(KEY, StoreSays((end,), (end,)))], backed_up=True)
    (said,) = hub.answer(held(two)).streams
    assert two.own().head in said.settled
    assert two.own().head in said.freeable


def run(first: int, before: bytes, last: int, h: bytes, kind: RunKind = RunKind.DATA) -> RunStated:
    return RunStated(first, before, last, h, kind)


@pytest.mark.parametrize(
    ("runs", "points"),
    [
        ([], []),
        ([run(1, b"gen", 5, b"e")], [5]),
        ([run(1, b"not", 5, b"e")], []),
        ([run(2, b"x", 5, b"e")], []),
        ([run(1, b"gen", 5, b"e"), run(6, b"e", 9, b"i")], [5, 9]),
        ([run(1, b"gen", 5, b"e"), run(7, b"f", 9, b"i")], [5]),
        ([run(1, b"gen", 5, b"e"), run(6, b"x", 9, b"i")], [5]),
        ([run(6, b"e", 7, b"g", RunKind.LOST), run(8, b"g", 9, b"i"), run(1, b"gen", 5, b"e")], [5, 7, 9]),
        ([run(1, b"gen", 5, b"e"), run(6, b"", 7, b"g", RunKind.LOST), run(8, b"g", 9, b"i")], [5, 7, 9]),
        ([run(1, b"gen", 5, b"e"), run(6, b"", 7, b"g"), run(8, b"g", 9, b"i")], [5]),
        ([run(1, b"gen", 5, b"e"), run(6, b"e", 7, b"g"), run(6, b"e", 8, b"h")], [5, 7, 8]),
    ],
)
def test_points_with_nothing_missing_below(runs: list[RunStated], points: list[int]) -> None:
    assert [seq for seq, _ in rooted_points(runs, b"gen")] == points
