"""Frames: cut from a ledger within bounds, opened again only if the chain holds."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import limits
from protocols.codec import Kind, envelope
from protocols.errors import DecodeError
from protocols.ledger import Ledger
from protocols.sync.frames import Cut, cut, digest, open_frame
from tests.unit.protocols.ledgers import clone, event, ledger, offer, range_of, say


def cut_of(led: Ledger, first: int = 1, last: int = 10**6, *, facts: int = limits.FRAME_FACTS, dictionary: int = 1) -> Cut | None:
    return cut(led.log, led.own(), first, last, facts=facts, dictionary=dictionary, level=1)


def made(led: Ledger, first: int = 1, last: int = 10**6, *, facts: int = limits.FRAME_FACTS, dictionary: int = 1) -> Cut:
    frame = cut_of(led, first, last, facts=facts, dictionary=dictionary)
    assert frame is not None
    return frame


@pytest.fixture(scope="module")
def author() -> Ledger:
    led = ledger()
    say(led, *(event(f"order-{i}", carrier="DHL", n=i) for i in range(30)))
    return led


@pytest.fixture(scope="module")
def noisy() -> Ledger:
    """Facts that no compressor makes smaller, near the largest there can be."""
    led, rng = ledger(), Random(1)
    for _ in range(3):
        say(led, *(event(f"order-{i}", noise=rng.randbytes(3_500).hex()) for i in range(25)))
    return led


@pytest.mark.parametrize("dictionary", [0, 1])
def test_what_is_cut_is_what_is_opened(author: Ledger, dictionary: int) -> None:
    frame = made(author, 3, 12, dictionary=dictionary)
    all_ = range_of(author)
    assert (frame.first, frame.last, frame.header.dictionary) == (3, 12, dictionary)
    assert (frame.header.h_before, frame.header.h_after) == (all_.hashes[1], all_.hashes[11])
    opened = open_frame(frame.header, frame.body)
    assert opened.facts == all_.facts[2:12]
    assert opened.hashes == all_.hashes[2:12]


def test_what_was_damaged_where_it_lies_is_never_taken_for_the_fact_that_it_was() -> None:
    """Ones own rows are not compared with what packing them again gives: whoever opens the frame has their hashes."""
    led = ledger()
    say(led, *(event(f"order-{i}", carrier="DHL", n=300 + i, weightKg="12.50") for i in range(20)))
    ((sound,),) = led.db.query("SELECT row FROM log WHERE seq=12")
    expected = range_of(led)
    for at in range(len(sound)):
        for bit in (1, 8, 128):
            led.db.run("UPDATE log SET row=? WHERE seq=12", (sound[:at] + bytes([sound[at] ^ bit]) + sound[at + 1 :],))
            frame = made(led)
            with pytest.raises(DecodeError):
                open_frame(frame.header, frame.body)
    led.db.run("UPDATE log SET row=? WHERE seq=12", (sound,))
    frame = made(led)
    assert open_frame(frame.header, frame.body).facts == expected.facts


def test_a_frame_holds_no_more_facts_than_asked_for(author: Ledger) -> None:
    assert made(author, 1, facts=7).last == 7
    assert made(author, 29, facts=7).last == 30
    assert made(author, 5, 5).header.count == 1


def test_there_is_no_frame_of_what_is_not_held(author: Ledger) -> None:
    assert cut_of(author, 31) is None
    hub, all_ = ledger("hub"), range_of(author)
    offer(hub, all_.part(1, 3))
    offer(hub, all_.part(6, 9))
    stream = hub.log.open(all_.key)
    assert cut(hub.log, stream, 4, 9, facts=9, dictionary=0, level=1) is None
    frame = cut(hub.log, stream, 2, 9, facts=9, dictionary=0, level=1)
    assert frame is not None
    assert frame.last == 3, "it ends at the hole"


def test_there_is_no_frame_of_what_was_freed(author: Ledger) -> None:
    led = clone(author)
    led.begin()
    led.free(led.own(), 10, 0)
    led.commit()
    assert cut_of(led, 10) is None
    assert made(led, 11).header.h_before == range_of(author).hashes[9]


def test_large_facts_are_cut_until_the_frame_may_travel(noisy: Ledger) -> None:
    first, frames = 1, 0
    while (frame := cut_of(noisy, first)) is not None:
        wire = envelope(Kind.FRAME, frame.header.to_list(), frame.body)
        assert len(wire) + 64 <= limits.FRAME_WIRE_BYTES
        assert len(open_frame(frame.header, frame.body).facts) == frame.header.count
        first, frames = frame.last + 1, frames + 1
    assert first == 76
    assert frames >= 3


@given(st.integers(1, 75), st.integers(1, 75), st.integers(1, 80))
def test_any_cut_keeps_to_its_bounds_and_opens(noisy: Ledger, first: int, last: int, facts: int) -> None:
    frame = cut_of(noisy, first, last, facts=facts)
    assert (frame is None) == (last < first)
    if frame is not None:
        assert first == frame.first <= frame.last <= min(last, first + facts - 1)
        assert len(envelope(Kind.FRAME, frame.header.to_list(), frame.body)) + 64 <= limits.FRAME_WIRE_BYTES
        assert open_frame(frame.header, frame.body).hashes[-1] == frame.header.h_after


def test_a_chain_that_does_not_lead_from_first_to_last_is_refused(author: Ledger) -> None:
    frame = made(author)
    for header in (replace(frame.header, h_before=b"12345678"), replace(frame.header, h_after=b"12345678")):
        with pytest.raises(DecodeError, match="do not lead"):
            open_frame(header, frame.body)


def test_a_body_of_other_facts_is_refused(author: Ledger) -> None:
    with pytest.raises(DecodeError):
        open_frame(made(author, 1, 5).header, made(author, 2, 6).body)


@pytest.mark.parametrize("count", [29, 31])
def test_a_body_with_more_or_fewer_facts_than_its_header_says_is_refused(author: Ledger, count: int) -> None:
    frame = made(author)
    with pytest.raises(DecodeError):
        open_frame(replace(frame.header, count=count), frame.body)


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_one_changed_byte_of_a_body_is_refused_or_changes_nothing(author: Ledger, at: int, flip: int) -> None:
    frame = made(author)
    body = bytearray(frame.body)
    body[at % len(body)] ^= flip
    try:
        opened = open_frame(frame.header, bytes(body))
    except DecodeError:
        return
    assert opened == open_frame(frame.header, frame.body)


def test_a_refusal_names_a_frame_by_all_its_bytes() -> None:
    assert len(digest(b"a")) == 16
    assert digest(b"a") != digest(b"b")
