"""Messages of many nodes that wait, and whose turn it is. Pure.

Each node has a lane, and keeps its order. Lanes with a word in front (a hello, a heartbeat: little work, and somebody's patience) go before
lanes with facts in front; among each kind they take turns. A lane with facts keeps its turn for a few frames: what comes of one stream
together is answered with one receipt, and is one piece for the store.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, NamedTuple, TypeVar

T = TypeVar("T")
SPELL_BYTES: Final = 15_000
"""of facts from one lane, before it is another's turn: about a thousand of them"""


class _Waiting(NamedTuple, Generic[T]):
    item: T
    size: int
    word: bool


class Lanes(Generic[T]):
    """See the module."""

    def __init__(self) -> None:
        self._lanes: dict[str, deque[_Waiting[T]]] = {}
        """none is empty"""
        self._bytes: dict[str, int] = {}
        self._words: dict[str, None] = {}
        self._facts: dict[str, None] = {}
        """whose lane begins with which, the one whose turn it is first"""
        self._spent = 0
        """bytes of the lane with facts whose turn it is"""

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def bytes_of(self, node: str) -> int:
        """What waits in a node's lane."""
        return self._bytes.get(node, 0)

    def put(self, node: str, item: T, size: int, *, word: bool) -> None:
        """Behind all that waits of this node."""
        lane = self._lanes.get(node)
        if lane is None:
            lane = self._lanes[node] = deque()
            (self._words if word else self._facts)[node] = None
        lane.append(_Waiting(item, size, word))
        self._bytes[node] = self._bytes.get(node, 0) + size

    def take(self, *, words_first: bool = True) -> tuple[T, int]:
        """What is next, and its size in bytes. Errors: StopIteration when nothing waits."""
        of_words = bool(self._words) and (words_first or not self._facts)
        ring = self._words if of_words else self._facts
        node = next(iter(ring))
        lane = self._lanes[node]
        waiting = lane.popleft()
        self._bytes[node] -= waiting.size
        if not of_words:
            self._spent += waiting.size
            if lane and not lane[0].word and self._spent < SPELL_BYTES:
                return waiting.item, waiting.size
            self._spent = 0
        del ring[node]
        if lane:
            (self._words if lane[0].word else self._facts)[node] = None
        else:
            del self._lanes[node], self._bytes[node]
        return waiting.item, waiting.size

    def clear(self) -> None:
        """Forget all of it."""
        for part in (self._lanes, self._bytes, self._words, self._facts):
            part.clear()
        self._spent = 0
