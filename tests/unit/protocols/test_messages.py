"""Control messages: what was sent is what is read, what is wrong is one error, and later versions may say more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocols import limits
from protocols.carried import CustodyStated, StreamCarried
from protocols.chains import RunKind
from protocols.clock import Shift
from protocols.clocked import ClockStated
from protocols.codec import DICTIONARIES, Kind, pack, unpack
from protocols.downlink import ROOT, Bucket, Compare, Differ, Doubt, FedHead, FedOrder, Feed, FeedDone, Follow, Leaf, Vector
from protocols.errors import DecodeError
from protocols.fact import Clock
from protocols.messages import (
    Answer,
    Heartbeat,
    Hello,
    Message,
    Pull,
    Receipt,
    Record,
    Refused,
    RunStated,
    StreamHeld,
    StreamQueue,
    StreamStated,
    parse_message,
)  # fmt: skip

H, N = b"hash-at-", b"nonce--8"
STATED = StreamStated(
    node="edge-1", epoch=5, cls=0, runs=(RunStated(1, H, 9, H), RunStated(10, b"", 12, H, RunKind.LOST)),
    settled=((9, H),), freeable=((4, H),), wants=((13, 14, H),), refused=((3, H, "why"),),
)  # fmt: skip
MESSAGES: list[Message] = [
    Hello(
        N, (StreamHeld(5, 0, (9, H), ((8, H), (7, H)), 2), StreamHeld(6, 1, (0, H))),
        held=(StreamCarried("phone-1", 7, 0, ((4, H), (2, H))),),
    ),
    Answer(N, N, 1_780_000_000_000, 500, (STATED, StreamStated("edge-1", 6, 1)), True, feed_epoch=N, feed_pos=9, followed=7),
    Receipt(N, 1_780_000_000_000, 0, (STATED,), False),
    Record(5, 0, 3, b"", 9, H, RunKind.PRUNED, 1_780_000_000_000),
    Refused(N, b"digest of 16 b..", "does not decompress"),
    Heartbeat(
        1_780_000_000_000, (StreamQueue(5, 0, (9, H), 4, 900, 1_700_000_000_000), StreamQueue(5, 1, (0, H), 0, 0, None)), "0.1", 3, 1,
        CustodyStated(7, 800, 1_700_000_000_000, (("phone-1", 7),)),
        clock=ClockStated(Clock.FLOOR, -7_200_000, 40, (Shift(5, 0, 3, 9, -7_200_000, 40),)),
    ),
    Pull(N, ((5, 0, 1, 9), (6, 1, 2, 2))),
    Follow(N, 77, 200, (("edge-1", 5, 0),)),
    Compare(N, (Vector(ROOT, tuple(range(1, 257))),), (Leaf(Bucket(8, 3), 9, ((50_331_650, 7), (50_331_651, 8))),)),
    Compare(N, (Vector(ROOT, tuple(range(1, 257))),), (), 2**48),
    Compare(N, (), (), 7, (Doubt("acme", "A-1", (("edge-1", 5, 0, 4, H), ("edge-2", 6, 0, 3, H))), Doubt("acme", "A-2", ()))),
    Differ(N, (ROOT,), (), 7),
    Differ(N, (ROOT, Bucket(8, 2)), (Bucket(8, 3), Bucket(14, 130))),
    Feed(
        N, True, 3, 9, True, (("edge-1", 5, 0, 0), ("edge-2", 6, 0, 4)), ((1, 4, H),), 1, b"rows",
        (FedOrder("acme", "A-1", (FedHead(1, 4, H, 3, ((0, 2, b"h4h4"),), (0, 7, H, 1)), FedHead(0, 4, H, 3)), ((0, 1, H),)),),
        (("acme", "A-2"),), (FeedDone(Bucket(8, 3), 0, 50_331_651),),
    ),
]  # fmt: skip
BY_NAME = pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
KINDS = [kind for kind in Kind if kind is not Kind.FRAME]
HUGE = 2**63


def wire(message: Message) -> Any:
    """As it is read on the other side."""
    return unpack(pack(message.to_list()), max_bytes=limits.FRAME_WIRE_BYTES)


def refused(kind: Kind, body: object) -> None:
    with pytest.raises(DecodeError) as caught:
        parse_message(kind, body)
    assert caught.value.reason


# ------------------------------------------------------------ round trips


@BY_NAME
def test_what_was_sent_is_what_is_read(message: Message) -> None:
    assert parse_message(message.KIND, wire(message)) == message


@BY_NAME
def test_elements_of_a_later_version_are_ignored_at_every_level(message: Message) -> None:
    assert parse_message(message.KIND, lengthened(wire(message))) == message


def lengthened(value: Any, level: int = 0) -> Any:
    """Append something to every record; lists of things of one kind (formats, points, runs…) stay as long as they are."""
    if not isinstance(value, list):
        return value
    inner = [lengthened(v, level + 1) for v in value]
    of_one_kind = all(isinstance(v, list) for v in value) or all(type(v) is int and (v < 2 or v in DICTIONARIES) for v in value)
    is_record = level == 0 or not of_one_kind
    return [*inner, {"later": 1}] if is_record else inner


APPENDED = {
    Kind.ANSWER: 4,
    Kind.RECEIPT: 1,
    Kind.HELLO: 1,
    Kind.HEARTBEAT: 2,
    Kind.RECORD: 1,
    Kind.COMPARE: 2,
    Kind.DIFFER: 1,
    Kind.FEED: 1,
}
"""elements at the end that a node of version 1 does not send"""


@BY_NAME
def test_a_message_that_lacks_an_element_is_refused(message: Message) -> None:
    body = wire(message)
    for length in range(len(body) - APPENDED.get(message.KIND, 0)):
        refused(message.KIND, body[:length])


@BY_NAME
def test_a_message_of_version_1_is_read(message: Message) -> None:
    body = wire(message)
    parse_message(message.KIND, body[: len(body) - APPENDED.get(message.KIND, 0)])


hashes = st.binary(min_size=8, max_size=8)
seqs = st.integers(1, 2**63 - 1)
wholes = st.integers(0, 2**63 - 1)
points = st.tuples(seqs, hashes)
run_list = st.lists(st.builds(RunStated, seqs, hashes | st.just(b""), seqs, hashes, st.sampled_from(RunKind)), max_size=5).map(tuple)
point_list = st.lists(points, max_size=5).map(tuple)
wants = st.lists(st.tuples(seqs, seqs, hashes), max_size=5).map(tuple)
refusals = st.lists(st.tuples(seqs, hashes, st.text(max_size=200)), max_size=5).map(tuple)
nodes = st.text(max_size=32)
stated = st.builds(StreamStated, nodes, seqs, st.integers(0, 255), run_list, point_list, point_list, wants, refusals)


@given(st.builds(Answer, hashes, hashes, wholes, wholes, st.lists(stated, max_size=3).map(tuple), st.booleans()))
def test_any_answer_survives_the_wire(message: Answer) -> None:
    assert Answer.parse(wire(message)) == message


@given(st.builds(Receipt, hashes, wholes, wholes, st.lists(stated, max_size=3).map(tuple), st.booleans()))
def test_any_receipt_survives_the_wire(message: Receipt) -> None:
    assert Receipt.parse(wire(message)) == message


# ------------------------------------------------------------ what is wrong


def test_a_frame_is_no_control_message() -> None:
    refused(Kind.FRAME, [])


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=9) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(st.sampled_from(KINDS), anything)
def test_nothing_but_a_decode_error_comes_out_of_anything(kind: Kind, body: object) -> None:
    try:
        parse_message(kind, body)
    except DecodeError:
        return


@given(st.sampled_from(MESSAGES), st.data())
def test_nothing_but_a_decode_error_comes_out_of_a_good_message_with_one_bad_part(message: Message, data: st.DataObject) -> None:
    body = wire(message)
    spot = body
    while True:
        at = data.draw(st.integers(0, len(spot) - 1))
        if not isinstance(spot[at], list) or not spot[at] or data.draw(st.booleans()):
            break
        spot = spot[at]
    spot[at] = data.draw(anything)
    try:
        read = parse_message(message.KIND, body)
    except DecodeError:
        return
    assert parse_message(message.KIND, wire(read)) == read, "what is let through is well formed"


def changed(message: Message, path: tuple[int, ...], value: object) -> Any:
    body = wire(message)
    spot = body
    for i in path[:-1]:
        spot = spot[i]
    spot[path[-1]] = value
    return body


HELLO, ANSWER, RECEIPT, RECORD, REFUSED, BEAT, PULL, *_ = MESSAGES


@pytest.mark.parametrize(
    ("message", "path", "value"),
    [
        (HELLO, (0,), b"seven.."),
        (HELLO, (0,), "nonce--8"),
        (HELLO, (1,), {}),
        (HELLO, (1, 0, 0), 0),
        (HELLO, (1, 0, 0), HUGE),
        (HELLO, (1, 0, 0), True),
        (HELLO, (1, 0, 1), 256),
        (HELLO, (1, 0, 2, 0), -1),
        (HELLO, (1, 0, 2, 1), b"short"),
        (HELLO, (1, 0, 3, 0, 0), 0),
        (HELLO, (1, 0, 4), None),
        (HELLO, (2,), [1.0]),
        (ANSWER, (1,), b""),
        (ANSWER, (2,), -1),
        (ANSWER, (3,), 1.5),
        (ANSWER, (4, 0, 0), "n" * (limits.NODE_CHARS + 1)),
        (ANSWER, (4, 0, 3, 0, 0), 0),
        (ANSWER, (4, 0, 3, 0, 1), b"1234567"),
        (ANSWER, (4, 0, 3, 0, 3), b""),
        (ANSWER, (4, 0, 3, 0, 4), 4),
        (ANSWER, (4, 0, 6, 0, 2), None),
        (ANSWER, (4, 0, 7, 0, 2), "x" * 201),
        (ANSWER, (5,), 1),
        (RECEIPT, (0,), None),
        (RECEIPT, (4,), None),
        (RECORD, (6,), 0),
        (RECORD, (6,), 9),
        (RECORD, (4,), 2),
        (RECORD, (3,), b"1"),
        (REFUSED, (1,), b"15 bytes only.."),
        (REFUSED, (2,), b"bytes"),
        (BEAT, (0,), None),
        (BEAT, (1, 0, 3), -1),
        (BEAT, (1, 0, 5), "old"),
        (BEAT, (2,), "v" * 65),
        (BEAT, (4,), -1),
        (PULL, (1, 0, 2), 0),
        (PULL, (1, 0), [5, 0, 1]),
    ],
)  # fmt: skip
def test_each_type_and_bound_is_checked(message: Message, path: tuple[int, ...], value: object) -> None:
    refused(message.KIND, changed(message, path, value))


def test_lists_are_bounded() -> None:
    run, point = RunStated(1, H, 9, H), (9, H)
    many = limits.SEGMENTS_STATED
    fits = replace(STATED, runs=(run,) * 2 * many, settled=(point,) * many, freeable=(point,) * many)
    assert isinstance(RECEIPT, Receipt)
    assert Receipt.parse(wire(replace(RECEIPT, streams=(fits,)))).streams == (fits,)
    for wrong in (
        replace(fits, runs=(run,) * (2 * many + 1)),
        replace(fits, settled=(point,) * (many + 1)),
        replace(fits, freeable=(point,) * (many + 1)),
        replace(fits, wants=((1, 2, H),) * (many + 1)),
        replace(fits, refused=((1, H, ""),) * (many + 1)),
    ):
        refused(Kind.RECEIPT, replace(RECEIPT, streams=(wrong,)).to_list())
    refused(Kind.RECEIPT, replace(RECEIPT, streams=(StreamStated("n", 1, 0),) * (limits.STREAMS_STATED + 1)).to_list())
    refused(Kind.PULL, Pull(N, ((1, 0, 1, 1),) * (many + 1)).to_list())


@given(st.binary(max_size=300))
@example(b"\x94\xc4\x08nonce--8\x90\x90\x90")
def test_bytes_of_any_kind_are_a_hello_or_damage(data: bytes) -> None:
    try:
        body = unpack(data, max_bytes=limits.FRAME_WIRE_BYTES)
        hello = parse_message(Kind.HELLO, body)
    except DecodeError:
        return
    assert isinstance(hello, Hello)
