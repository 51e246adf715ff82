"""What waits for the hub's loop, within bounds: frames from the transport, events of source systems, admissions.

Belongs to the event loop's thread. A frame that finds no room is dropped and counted: its author has no receipt for it and sends it again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hub.lanes import Lanes
from hub.registry import Node
from protocols.codec import Kind
from protocols.errors import LedgerBusy
from protocols.event import OrderEvent
from protocols.ledger import Appended
from protocols.trust import NodeCard

if TYPE_CHECKING:
    from hub.core import HubCore

WAITING_BYTES: Final = 64_000_000
"""of frames; credit keeps it far below with hundreds of edges"""
WAITING_EVENTS: Final = 64_000
"""of source systems; who comes beyond is told to come again"""
TURN_MESSAGES: Final = 100
TURN_WORDS: Final = 60
"""of them before anybody's facts: a thousand hellos must not wait for longer than their nodes have patience, nor keep all facts waiting"""
TURN_BYTES: Final = 45_000
"""of them: about 3,000 facts, or 0.15 s"""
TURN_EVENTS: Final = 4_000


_BEAR_FACTS: Final = (bytes((Kind.FRAME,)), bytes((Kind.FEED,)))
"""the fourth byte of an envelope"""


class Came(NamedTuple):
    """Bytes on a topic of a node."""

    node: str
    payload: bytes


class Append(NamedTuple):
    """A batch of events, and who waits for its answer."""

    events: Sequence[OrderEvent]
    answer: asyncio.Future[list[Appended]]


class Admit(NamedTuple):
    """A node's card, and who waits for its admission."""

    card: NodeCard
    orgs: Sequence[str] | None
    answer: asyncio.Future[Node]


class Do(NamedTuple):
    """Anything else that is done in the hub's transaction, with its core and the hub's clock; refused before it writes, or done."""

    work: Callable[[HubCore, int], Any]
    answer: asyncio.Future[Any]


Asked = Append | Admit | Do
Input = Came | Asked


@dataclass(slots=True)
class InputCounts:
    """Totals since the start, for metrics."""

    frames_total: int = 0
    dropped_total: int = 0


class Inputs:
    """Requests that somebody waits for do not stand behind a backlog of frames, nor before it. Each node has a lane (`hub.lanes`): one that
    floods stands in its own way only, and may hold half of the room."""

    def __init__(self) -> None:
        self.counts = InputCounts()
        self.bytes = 0
        self._lanes: Lanes[Came] = Lanes()
        self._first: deque[Came] = deque()
        """put back: before all others"""
        self._frames = 0
        self._requests: deque[Asked] = deque()
        self._events = 0

    def __len__(self) -> int:
        return self._frames + len(self._requests)

    @property
    def asked(self) -> bool:
        """Does somebody wait for an answer?"""
        return bool(self._requests)

    def came(self, node: str, payload: bytes) -> bool:
        """Keep a frame; False when there is no room for it."""
        self.counts.frames_total += 1
        if self.bytes + len(payload) > WAITING_BYTES or self._lanes.bytes_of(node) + len(payload) > WAITING_BYTES // 2:
            self.counts.dropped_total += 1
            return False
        self.bytes += len(payload)
        self._frames += 1
        self._lanes.put(node, Came(node, payload), len(payload), word=payload[3:4] not in _BEAR_FACTS)
        return True

    def append(self, item: Append) -> None:
        """Keep a batch. Errors: LedgerBusy when too many wait."""
        if self._events + len(item.events) > WAITING_EVENTS:
            raise LedgerBusy("too many events wait to be stored", remedy="send it again in a moment")
        self._events += len(item.events)
        self._requests.append(item)

    def ask(self, item: Admit | Do) -> None:
        """Keep an admission, or what else is to be done."""
        self._requests.append(item)

    def take(self) -> list[Input]:
        """What goes into the next transaction: some of both. Whoever gave up waiting is left out."""
        return [*self._take_requests(), *self._take_frames()]

    def _take_requests(self) -> Iterator[Input]:
        events = 0
        while self._requests and events < TURN_EVENTS:
            item = self._requests.popleft()
            if isinstance(item, Append):
                events += len(item.events)
                self._events -= len(item.events)
            if not item.answer.done():
                yield item

    def _take_frames(self) -> Iterator[Input]:
        size = 0
        for n in range(TURN_MESSAGES):
            if not self._frames or size >= TURN_BYTES:
                return
            item = self._first.popleft() if self._first else self._lanes.take(words_first=n < TURN_WORDS)[0]
            size += len(item.payload)
            self.bytes -= len(item.payload)
            self._frames -= 1
            yield item

    def put_back(self, items: Sequence[Input]) -> None:
        """Items that were taken, and about which nothing was decided, come first again."""
        for item in reversed(items):
            if isinstance(item, Came):
                self.bytes += len(item.payload)
                self._frames += 1
                self._first.appendleft(item)
                continue
            if isinstance(item, Append):
                self._events += len(item.events)
            self._requests.appendleft(item)

    def fail(self, error: Exception) -> None:
        """Tell everybody who waits; frames are forgotten."""
        for item in self._requests:
            if not item.answer.done():
                item.answer.set_exception(error)
        self._requests.clear()
        self._lanes.clear()
        self._first.clear()
        self.bytes = self._events = self._frames = 0
