"""The live feed: one bounded ring that all listeners read, and its server-sent events.

Listeners have no queue of their own, only a place in the ring. One that falls behind the ring's end, or comes back with an id from before
a restart, gets a `reset` event: what it shows may have a gap, so it fetches anew and goes on from now. So memory does not grow with
listeners, and a slow one slows nobody. Belongs to the event loop's thread.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

RING_ITEMS: Final = 2_000
RING_BYTES: Final = 4_000_000
BATCH_ITEMS: Final = 100
RETRY_MS: Final = 2_000
HEARTBEAT_S: Final = 10.0
TICK_S: Final = 1.0
STATE_EVERY_MS: Final = 1_000
TICK_EVERY_MS: Final = 500


@dataclass(frozen=True, slots=True)
class FeedItem:
    """One event of the feed. `at_ms`: when the hub received what it tells of; `text`: its data as one line of JSON."""

    id: int
    kind: str
    at_ms: int
    text: str


class Feed:
    """`boot` tells this run's ids from those of another: any short text that no other run of the hub uses."""

    def __init__(self, *, boot: str, keep: int = RING_ITEMS, keep_bytes: int = RING_BYTES) -> None:
        self.boot = boot
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._ring: deque[FeedItem] = deque()
        self._bytes = 0
        self._next = 1
        self._news = asyncio.Event()
        self.closed = False
        self.listeners = 0

    @property
    def newest(self) -> int:
        """The id of the last item; 0 before the first."""
        return self._next - 1

    def publish(self, kind: str, data: dict[str, Any], at_ms: int) -> int:
        """Append an item and wake the listeners. Returns its id."""
        item = FeedItem(self._next, kind, at_ms, json.dumps(data, ensure_ascii=False, separators=(",", ":")))
        self._next += 1
        self._ring.append(item)
        self._bytes += len(item.text)
        while len(self._ring) > self._keep or self._bytes > self._keep_bytes:
            self._bytes -= len(self._ring.popleft().text)
        self._wake()
        return item.id

    def recent(self, limit: int) -> list[FeedItem]:
        """The last items, newest first."""
        return [self._ring[-1 - n] for n in range(min(limit, len(self._ring)))]

    def after(self, last_id: int, limit: int = BATCH_ITEMS) -> list[FeedItem] | None:
        """Up to `limit` items after `last_id`, in order; None when some of them have left the ring."""
        oldest = self._ring[0].id if self._ring else self._next
        if last_id < oldest - 1:
            return None
        start = last_id - oldest + 1
        return [self._ring[n] for n in range(start, min(start + limit, len(self._ring)))]

    async def wait(self, last_id: int, timeout_s: float) -> None:
        """Until there is something after `last_id`, the feed is closed, or the time is over."""
        if self.newest > last_id or self.closed:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()

    def wire_id(self, number: int) -> str:
        """The id as it goes out: `boot-number`."""
        return f"{self.boot}-{number}"

    def read_id(self, text: str | None) -> int | None:
        """The number in a `Last-Event-ID`. None: absent, of another run, or not an id of ours."""
        boot, dash, number = (text or "").rpartition("-")
        if not dash or boot != self.boot or not number.isascii() or not number.isdigit() or len(number) > 18:
            return None
        return int(number) if int(number) <= self.newest else None

    def close(self) -> None:
        """End all listeners: the hub shuts down and must not wait for them."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def frame(event: str, text: str, wire_id: str = "") -> str:
    """One server-sent event; `text` is a single line."""
    lead = f"id: {wire_id}\n" if wire_id else ""
    return f"{lead}event: {event}\ndata: {text}\n\n"


@dataclass(slots=True)
class Listener:
    """One open stream: where it stands, and what it was told last."""

    feed: Feed
    now_ms: Callable[[], int]
    last_id: int
    state: Callable[[], Any] | None = None
    """an async function that gives (version, data) of what pages show besides the feed; None: this client did not ask"""
    told_version: int = -1
    told_at_ms: int = 0
    ticked_at_ms: int = 0
    behind_ms: int = 0

    async def events(self, *, lost: bool = False, heartbeat_s: float = HEARTBEAT_S, tick_s: float = TICK_S) -> AsyncGenerator[str, None]:
        """The text of the stream. `lost`: it asked to resume from a place that is not there."""
        if self.feed.closed:
            return
        self.feed.listeners += 1
        try:
            yield f"retry: {RETRY_MS}\n\n" + (self._reset() if lost else "")
            while not self.feed.closed:
                await self.feed.wait(self.last_id, tick_s if self.state else heartbeat_s)
                yield self._items() + (await self._state() if self.state else "") or ": still here\n\n"
        finally:
            self.feed.listeners -= 1

    def _reset(self) -> str:
        self.last_id = self.feed.newest
        return frame("reset", '{"why":"events may have been missed; fetch what you show again"}', self.feed.wire_id(self.last_id))

    def _items(self) -> str:
        items = self.feed.after(self.last_id)
        if items is None:
            return self._reset()
        self.behind_ms = max(self.now_ms() - items[0].at_ms, 0) if items else 0
        if items:
            self.last_id = items[-1].id
        return "".join(frame(item.kind, item.text, self.feed.wire_id(item.id)) for item in items)

    async def _state(self) -> str:
        """`state` when something a page shows has changed, at most once a second; else `tick`: the stream lives, and is so far behind."""
        assert self.state is not None
        now_ms = self.now_ms()
        if 0 <= now_ms - self.ticked_at_ms < TICK_EVERY_MS:
            return ""
        self.ticked_at_ms = now_ms
        clock = {"now": now_ms, "behindMs": self.behind_ms}
        if not 0 <= now_ms - self.told_at_ms < STATE_EVERY_MS:
            version, data = await self.state()
            self.told_at_ms = now_ms
            if version != self.told_version:
                self.told_version = version
                return frame("state", json.dumps({**clock, **data}, ensure_ascii=False, separators=(",", ":")))
        return frame("tick", json.dumps(clock, separators=(",", ":")))
