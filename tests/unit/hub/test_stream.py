"""The live feed: a bounded ring, listeners with a place in it, and what goes over the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hub.stream import Feed, Listener
from tests.support.fake_hub import NOW_MS


def filled(count: int, **bounds: int) -> Feed:
    feed = Feed(boot="b1", **bounds)
    for n in range(count):
        feed.publish("change", {"n": n + 1}, NOW_MS)
    return feed


def numbers(feed: Feed, last_id: int) -> list[int] | None:
    items = feed.after(last_id)
    return None if items is None else [json.loads(item.text)["n"] for item in items]


def test_the_ring_gives_what_came_after_an_id() -> None:
    feed = filled(5)
    assert numbers(feed, 0) == [1, 2, 3, 4, 5]
    assert numbers(feed, 3) == [4, 5]
    assert numbers(feed, 5) == []
    assert [item.id for item in feed.recent(2)] == [5, 4]


def test_the_ring_is_bounded_by_count_and_by_bytes() -> None:
    feed = filled(10, keep=4)
    assert numbers(feed, 6) == [7, 8, 9, 10]
    assert feed.after(5) is None
    feed = filled(10, keep_bytes=len('{"n":1}') * 3)
    assert len(feed.recent(99)) <= 3
    assert Feed(boot="b", keep_bytes=4).publish("change", {"long": "x" * 100}, 0) == 1


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("b1-3", 3),
        ("b1-0", 0),
        ("b1-6", None),  # from the future: another run with the same name
        ("b0-3", None),
        ("3", None),
        ("b1-", None),
        ("b1-x", None),
        ("b1--1", None),
        ("b1-٣", None),
        ("b1-" + "9" * 400, None),
        ("", None),
        (None, None),
    ],
)
def test_an_id_is_believed_only_if_it_is_of_this_run(text: str | None, number: int | None) -> None:
    assert filled(5).read_id(text) == number


async def take(events: AsyncIterator[str], count: int) -> list[str]:
    return [await asyncio.wait_for(anext(events), 5) for _ in range(count)]


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


def test_a_listener_gets_what_it_missed_then_what_comes() -> None:
    async def story() -> list[str]:
        feed = filled(3)
        events = Listener(feed, lambda: NOW_MS, 1).events()
        told = await take(events, 2)
        feed.publish("change", {"n": 4}, NOW_MS)
        told += await take(events, 1)
        await events.aclose()
        assert feed.listeners == 0
        return told

    assert run(story()) == [
        "retry: 2000\n\n",
        'id: b1-2\nevent: change\ndata: {"n":2}\n\nid: b1-3\nevent: change\ndata: {"n":3}\n\n',
        'id: b1-4\nevent: change\ndata: {"n":4}\n\n',
    ]


def test_a_quiet_stream_is_kept_alive_by_comments() -> None:
    async def story() -> list[str]:
        events = Listener(filled(1), lambda: NOW_MS, 1).events(heartbeat_s=0.01)
        told = await take(events, 2)
        await events.aclose()
        return told

    assert run(story())[1] == ": still here\n\n"


def test_a_listener_that_fell_behind_the_ring_is_reset_and_goes_on_from_now() -> None:
    async def story() -> list[str]:
        feed = filled(3, keep=4)
        events = Listener(feed, lambda: NOW_MS, 3).events()
        await take(events, 1)
        for n in range(9):
            feed.publish("change", {"n": n + 4}, NOW_MS)
        told = await take(events, 1)
        feed.publish("change", {"n": 13}, NOW_MS)
        told += await take(events, 1)
        await events.aclose()
        return told

    reset, then = run(story())
    assert reset.startswith("id: b1-12\nevent: reset\n")
    assert then == 'id: b1-13\nevent: change\ndata: {"n":13}\n\n'


def test_one_that_comes_back_from_before_a_restart_is_reset_at_once() -> None:
    async def story() -> str:
        events = Listener(filled(3), lambda: NOW_MS, 3).events(lost=True)
        first = (await take(events, 1))[0]
        await events.aclose()
        return first

    assert "event: reset\n" in run(story())


def test_closing_the_feed_ends_every_listener() -> None:
    async def rest(events: AsyncIterator[str]) -> list[str]:
        return [text async for text in events]

    async def story() -> list[str]:
        feed = filled(1)
        events = Listener(feed, lambda: NOW_MS, 1).events(heartbeat_s=60)
        await take(events, 1)
        waiting = asyncio.create_task(rest(events))
        await asyncio.sleep(0)
        feed.close()
        return await asyncio.wait_for(waiting, 5) + await rest(Listener(feed, lambda: NOW_MS, 1).events())

    assert all(text.startswith(":") for text in run(story()))


def test_state_is_told_when_it_changes_and_ticks_say_how_far_behind() -> None:
    async def story() -> list[str]:
        clock, version = [NOW_MS], [1]
        feed = filled(0)

        async def state() -> tuple[int, dict[str, Any]]:
            return version[0], {"totals": {"orders": version[0]}}

        listener = Listener(feed, lambda: clock[0], 0, state)
        events = listener.events(tick_s=0.01)
        told = await take(events, 2)
        clock[0] += 1_000
        told += await take(events, 1)
        clock[0] += 1_000
        version[0] = 2
        feed.publish("change", {"n": 1}, clock[0] - 400)
        told += await take(events, 1)
        await events.aclose()
        return told

    _, first, tick, both = run(story())
    assert first == f'event: state\ndata: {{"now":{NOW_MS},"behindMs":0,"totals":{{"orders":1}}}}\n\n'
    assert tick == f'event: tick\ndata: {{"now":{NOW_MS + 1000},"behindMs":0}}\n\n'
    assert both.startswith("id: b1-1\nevent: change\n")
    assert '"behindMs":400,"totals":{"orders":2}' in both
