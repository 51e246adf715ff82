"""A client of Kafka that is closed: whatever it does, whoever closes it goes on, and is cancelled only by others."""

from __future__ import annotations

import asyncio
import logging

import pytest

from hub import kafka_waiting
from hub.kafka_waiting import let_go


def test_a_cancellation_that_a_client_lets_out_is_not_ours() -> None:
    async def closing() -> None:
        raise asyncio.CancelledError

    async def story() -> str:
        await let_go(closing())
        return "went on"

    assert asyncio.run(story()) == "went on"


def test_what_a_client_says_to_being_closed_is_told_to_nobody_but_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def closing() -> None:
        raise ValueError("halfway")

    with caplog.at_level(logging.DEBUG, logger=kafka_waiting.__name__):
        asyncio.run(let_go(closing()))
    assert "halfway" in caplog.text


def test_a_wedged_client_is_cancelled_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_waiting, "STOP_S", 0.01)
    ended: list[bool] = []

    async def closing() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    asyncio.run(let_go(closing()))
    assert ended == [True]


def test_whoever_closes_can_be_cancelled_and_the_client_is_with_it() -> None:
    ended: list[bool] = []
    begun = asyncio.Event()

    async def closing() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def story() -> None:
        closer = asyncio.create_task(let_go(closing()))
        await begun.wait()
        closer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closer
        assert ended == [True]

    asyncio.run(story())
