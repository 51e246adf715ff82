"""What goes beside messages, how large frames are, and how a silence is told: small machines, by themselves."""

from __future__ import annotations

from protocols.codec import FrameHeader, Kind, envelope
from protocols.ledger import ORDERS, TELEMETRY
from protocols.sync.aside import AGAIN_MS
from protocols.sync.beside import beside
from protocols.sync.frames import digest
from protocols.sync.framesize import RECOVER_MS, FrameSize
from protocols.sync.silence import Silence
from protocols.sync.uplink import Out, UplinkSettings
from protocols.topics import Channel
from protocols.trace import frame_traceparent, read_traceparent, trace_id, traceparent
from protocols.transport.port import PLAIN
from tests.unit.protocols.pair import Pair

HEADER = FrameHeader("dock-7", 7, ORDERS, 10, 3, bytes(8), b"\1" * 8, 0)


# ------------------------------------------------------------------ trace context


def test_a_frame_goes_by_the_trace_of_its_last_fact() -> None:
    assert frame_traceparent(HEADER) == traceparent("dock-7", 7, 12, b"\1" * 8)
    trace = trace_id("dock-7", 7, 12, b"\1" * 8)
    assert frame_traceparent(HEADER) == f"00-{trace}-{'01' * 8}-01"


def test_a_trace_is_the_same_wherever_it_is_asked_for_and_another_for_each_fact() -> None:
    zero, one = bytes(8), b"\1" * 8
    ids = [trace_id(*fact) for fact in [("a", 1, 1, zero), ("a", 1, 2, zero), ("a", 2, 1, zero), ("b", 1, 1, zero), ("a", 1, 1, one)]]
    assert len(dict.fromkeys(ids)) == 5
    assert ids[0] == trace_id("a", 1, 1, bytes(8))


def test_a_traceparent_from_outside_is_one_or_nothing() -> None:
    good = traceparent("a", 1, 1, b"\1" * 8)
    assert read_traceparent(good) == good
    zeros = (f"00-{'0' * 32}-{'1' * 16}-01", f"00-{'1' * 32}-{'0' * 16}-01")
    for bad in (None, 7, "", good + "x", good.upper(), good.replace("00-", "01-", 1), *zeros):
        assert read_traceparent(bad) == ""


# ------------------------------------------------------------------ expiry


def test_only_frames_of_telemetry_expire_and_later_than_they_are_sent_again() -> None:
    settings = UplinkSettings(retry_most_ms=300_000)
    telemetry = FrameHeader("dock-7", 7, TELEMETRY, 1, 1, bytes(8), b"\1" * 8, 0)
    expiry_s = beside(Out(Channel.LIVE, Kind.FRAME, telemetry.to_list(), b""), settings).expiry_s
    assert expiry_s is not None and expiry_s * 1_000 > 2 * settings.retry_most_ms
    assert beside(Out(Channel.LIVE, Kind.FRAME, HEADER.to_list(), b""), settings).expiry_s is None
    for kind in (Kind.HELLO, Kind.RECORD, Kind.RECEIPT, Kind.ANSWER):
        assert beside(Out(Channel.CONTROL, kind, [], []), settings) == PLAIN


# ------------------------------------------------------------------ frames that are too large for a broker


def test_frames_get_smaller_at_once_and_larger_again_slowly() -> None:
    size = FrameSize(500)
    size.too_large(500, now=0)
    size.too_large(250, now=10)
    assert size.most(10 + RECOVER_MS - 1) == 125
    assert size.most(10 + RECOVER_MS) == 250
    assert size.most(10 + 9 * RECOVER_MS) == 500
    size.too_large(1, now=0)
    assert size.most(0) == 1


def test_a_frame_that_is_too_large_is_cut_and_everything_arrives() -> None:
    pair = Pair(facts=8)
    pair.greet()
    first = next(out for out in pair.send(30) if out.kind is Kind.FRAME)
    assert FrameHeader.parse(first.header).count == 4
    pair.uplink.on_too_large(digest(envelope(first.kind, first.header, bytes(first.body))), pair.now)
    again = [FrameHeader.parse(out.header) for out in pair.send() if out.kind is Kind.FRAME]
    assert [(header.first, header.count) for header in again] == [(1, 2), (3, 2)]
    pair.say(4)
    assert [FrameHeader.parse(out.header).count for out in pair.send(30)] == [2, 2], "and so are those after it"


def test_a_single_fact_that_is_too_large_waits_and_keeps_nobody_waiting() -> None:
    pair = Pair(facts=1)
    pair.greet()
    only = next(out for out in pair.send(30) if out.kind is Kind.FRAME)
    pair.uplink.on_too_large(digest(envelope(only.kind, only.header, bytes(only.body))), pair.now)
    assert pair.send() == []
    pair.say(1)
    assert [FrameHeader.parse(out.header).first for out in pair.send(30)] == [2]
    pair.uplink.on_down()
    pair.greet()
    assert 1 not in [FrameHeader.parse(out.header).first for out in pair.send(30) if out.kind is Kind.FRAME], "nor is it sent on a new line"
    pair.uplink.on_down()
    pair.now += AGAIN_MS
    pair.greet()
    assert 1 in [FrameHeader.parse(out.header).first for out in pair.send(30) if out.kind is Kind.FRAME], "after an hour it is tried again"


# ------------------------------------------------------------------ silence


def test_silence_is_told_after_patience_or_a_stall_and_a_receipt_ends_it() -> None:
    silence = Silence()
    assert silence.lasts(9_999, 10) is None, "nothing was sent"
    silence.sent(100)
    silence.sent(200)
    assert silence.lasts(109, 10) is None
    assert silence.lasts(110, 10) == (2, 10)
    assert silence.lasts(105, 10) is None
    silence.stalled()
    assert silence.lasts(105, 10) == (2, 5), "a new connection is no answer"
    silence.broken()
    assert silence.lasts(9_999, 10) is None
