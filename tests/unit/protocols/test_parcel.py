"""Parcels of envelopes are read within bounds or not at all; mailboxes keep the newest; who waits is let go when there is something."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import DecodeError, LedgerBusy
from protocols.limits import FRAME_WIRE_BYTES
from protocols.sync.mailbox import Mailboxes
from protocols.sync.parcel import PARCEL_BYTES, PARCEL_MESSAGES, PREFIX, SENT_BYTES, read_parcel, room_in, write_parcel
from protocols.transport.longpoll import LongPoll


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_what_goes_in_comes_out(payloads: list[bytes]) -> None:
    assert read_parcel(write_parcel(payloads)) == payloads


@given(st.binary(max_size=400))
def test_any_bytes_are_a_parcel_or_a_decode_error(body: bytes) -> None:
    try:
        assert write_parcel(read_parcel(body)) == body
    except DecodeError as error:
        assert error.reason  # noqa: PT017


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 10])
def test_what_is_cut_off_is_no_parcel(cut: int) -> None:
    with pytest.raises(DecodeError, match="message 1"):
        read_parcel(write_parcel([b"first", b"0123456789"])[: PREFIX + 5 + cut])


def test_bounds_hold_for_bytes_messages_and_each_of_them() -> None:
    with pytest.raises(DecodeError, match="at once"):
        read_parcel(b"\0" * (PARCEL_BYTES + 1))
    with pytest.raises(DecodeError, match="messages"):
        read_parcel(write_parcel([b"x"] * (PARCEL_MESSAGES + 1)))
    with pytest.raises(DecodeError, match="longer than"):
        read_parcel(write_parcel([b"x" * (FRAME_WIRE_BYTES + 1)]))
    assert len(read_parcel(write_parcel([b"x"] * PARCEL_MESSAGES))) == PARCEL_MESSAGES


def test_a_sender_fills_a_parcel_so_far_that_nobody_waits_long_for_it() -> None:
    assert not room_in(0, PARCEL_MESSAGES, b"x")
    assert room_in(SENT_BYTES - PREFIX - 3, 1, b"xyz")
    assert not room_in(SENT_BYTES - PREFIX - 2, 1, b"xyz")
    assert room_in(0, 0, bytes(FRAME_WIRE_BYTES))
    assert SENT_BYTES + FRAME_WIRE_BYTES < PARCEL_BYTES


# ------------------------------------------------------------ mailboxes


def test_a_mailbox_keeps_the_newest_within_its_bounds() -> None:
    boxes = Mailboxes(most_bytes=10, most_messages=3)
    for text in (b"aaaa", b"bbbb", b"cccc"):
        boxes.put("phone-1", text)
    assert (boxes.take("phone-1", 100), boxes.forgotten) == ([b"bbbb", b"cccc"], 1)
    for i in range(5):
        boxes.put("phone-1", b"%d" % i)
    assert boxes.take("phone-1", 100) == [b"2", b"3", b"4"]
    boxes.put("phone-1", b"longer than ten")
    assert boxes.take("phone-1", 100) == [b"longer than ten"], "the newest is kept, whatever it weighs"
    assert not boxes.waits("phone-1")


def test_mail_is_taken_oldest_first_as_much_as_fits_and_once() -> None:
    boxes = Mailboxes()
    for text in (b"aaaa", b"bbbb", b"cccc"):
        boxes.put("phone-1", text)
    assert boxes.take("phone-1", 1) == [b"aaaa"]
    assert boxes.take("phone-1", 8) == [b"bbbb", b"cccc"]
    assert boxes.take("phone-1", 8) == []
    assert boxes.take("phone-2", 8) == []


def test_of_too_many_mailboxes_the_one_written_to_longest_ago_is_forgotten() -> None:
    boxes = Mailboxes(most_nodes=2)
    for node in ("a", "b", "a", "c"):
        boxes.put(node, b"x")
    assert [boxes.waits(node) for node in "abc"] == [True, False, True]


# ------------------------------------------------------------ who waits


def test_a_caller_waits_until_there_is_something_for_it() -> None:
    async def story() -> None:
        boxes = Mailboxes()
        poll = LongPoll(boxes.waits)
        waits = asyncio.create_task(poll.until("phone-1", 30))
        other = asyncio.create_task(poll.until("phone-2", 30))
        while poll.callers < 2:
            await asyncio.sleep(0)
        poll.ring()
        boxes.put("phone-1", b"x")
        poll.ring()
        await waits
        assert not other.done()
        await poll.until("phone-1", 30)  # there is something: nobody waits
        poll.close()
        await other
        await poll.until("phone-3", 30)
        assert poll.callers == 0

    asyncio.run(asyncio.wait_for(story(), 10))


def test_nobody_waits_for_ever_and_not_too_many_do() -> None:
    async def story() -> None:
        poll = LongPoll(lambda _: False, callers_most=1)
        await poll.until("phone-1", 0)
        await poll.until("phone-1", 0.01)
        first = asyncio.create_task(poll.until("phone-1", 30))
        while not poll.callers:
            await asyncio.sleep(0)
        with pytest.raises(LedgerBusy):
            await poll.until("phone-2", 30)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert poll.callers == 0

    asyncio.run(asyncio.wait_for(story(), 10))
