"""Bodies of requests: whole or refused, within a bound for each and one for all; what is held is given back however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from protocols.bodies import Bodies
from protocols.errors import InvalidInput, LedgerBusy, TooLarge
from protocols.problem import MEDIA, Problem


class HungUp(Exception):
    """What the web framework of these tests raises."""


class Sent:
    """A request; `HungUp` in the place of a chunk: the caller has gone."""

    def __init__(self, chunks: Sequence[bytes | None], headers: Mapping[str, str] | None = None) -> None:
        self.headers = headers or {"content-type": "application/json"}
        self.read: list[bytes] = []
        self._chunks = chunks

    async def stream(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            if chunk is None:
                raise HungUp
            self.read.append(chunk)
            yield chunk


def whole(bodies: Bodies, sent: Sent, most_bytes: int = 10) -> bytes:
    async def read() -> bytes:
        async with bodies.whole(sent, most_bytes) as data:
            assert bodies.held_bytes == len(data), "it counts as held until its request is answered"
            return data

    return asyncio.run(read())


def value(bodies: Bodies, sent: Sent) -> object:
    async def read() -> object:
        async with bodies.json(sent) as found:
            return found

    return asyncio.run(read())


def test_a_body_arrives_whole_and_what_was_held_is_given_back() -> None:
    bodies = Bodies(100, HungUp)
    assert whole(bodies, Sent([b"12345", b"", b"67890"])) == b"1234567890"
    assert bodies.held_bytes == 0


@pytest.mark.parametrize("declared", ["11", "9" * 4_300])
def test_a_body_that_says_that_it_is_too_long_is_refused_unread(declared: str) -> None:
    sent = Sent([b"1"], {"content-length": declared})
    with pytest.raises(TooLarge, match="at most 10 bytes"):
        whole(Bodies(100, HungUp), sent)
    assert sent.read == []


@pytest.mark.parametrize("declared", ["", "³", "-1", "1e9"], ids=["none", "superscript", "negative", "exponent"])
def test_what_is_declared_is_not_trusted(declared: str) -> None:
    bodies, sent = Bodies(100, HungUp), Sent([b"123456", b"789012", b"never"], {"content-length": declared})
    with pytest.raises(TooLarge, match="at most 10 bytes"):
        whole(bodies, sent)
    assert sent.read == [b"123456", b"789012"], "it was read on"
    assert bodies.held_bytes == 0


def test_many_together_are_refused_before_they_fill_the_memory() -> None:
    async def two() -> None:
        bodies = Bodies(15, HungUp)
        async with bodies.whole(Sent([b"1234567890"]), 10):
            with pytest.raises(LedgerBusy, match="other requests"):
                async with bodies.whole(Sent([b"123456"]), 10):
                    pytest.fail("there was no room")
            assert bodies.held_bytes == 10
            async with bodies.whole(Sent([b"12345"]), 10) as data:
                assert data == b"12345"
        assert bodies.held_bytes == 0

    asyncio.run(two())


def test_a_caller_who_hangs_up_is_at_fault_and_holds_nothing() -> None:
    bodies = Bodies(100, HungUp)
    with pytest.raises(InvalidInput, match="ended before it was whole"):
        whole(bodies, Sent([b"123", None]))
    assert bodies.held_bytes == 0


@pytest.mark.parametrize("stated", ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"])
def test_json_is_taken_under_its_names(stated: str) -> None:
    assert value(Bodies(100, HungUp), Sent([b'{"a": 1}'], {"content-type": stated})) == {"a": 1}


@pytest.mark.parametrize("stated", ["", "text/plain", "application/x-www-form-urlencoded", "application/json2"])
def test_another_type_is_refused_unread(stated: str) -> None:
    sent = Sent([b"{}"], {"content-type": stated})
    with pytest.raises(Problem) as refused:
        value(Bodies(100, HungUp), sent)
    assert (refused.value.kind, refused.value.extra["remedy"], sent.read) == (MEDIA, "Send it with Content-Type: application/json.", [])


def test_json_under_another_name_is_no_parcel() -> None:
    with pytest.raises(Problem, match="The body is application/x"):
        Bodies(100, HungUp).of_type(Sent([b""], {"content-type": "application/x+json"}), "application/x-parcel")
