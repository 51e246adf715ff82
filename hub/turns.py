"""Whose backlog is sent now, where more nodes have one than the hub takes at once.

If a thousand nodes that return together all sent what they have, each would send small frames, and wait for a receipt behind all others:
longer than it has patience for, on a slow machine. So a node with a backlog has its turn, and then sends as if it were alone; the others
wait, with their large frames at home, and send only what is fresh. Turns come in the order in which the nodes asked. Who has had a good
deal goes to the end while others wait; a node that has its turn and is silent (it left, or its line is slow) holds up nobody for longer
than a moment, and loses its turn in the end. All that is known of a node is how much it said that it has and the hub has not; a hub that
forgets it hears it again: a turn costs time only.

Pure: time is an argument, ms of a clock that may be set back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

FRESH_MS: Final = 2_000
"""a node with a turn that has sent nothing for so long takes up no room"""
LEFT_MS: Final = 10_000
"""and after so long has no turn"""
SPELL_TURNS: Final = 5
"""so many times what may be under way is a good deal"""
WAITING_BYTES: Final = 300_000
"""of frames at the hub: a second of work and more; nobody is asked for more of them"""


@dataclass(slots=True)
class _Turn:
    left: int
    last_ms: int


class Turns:
    """See the module. `room`: facts under way from all nodes; `turn`: from one of many; who has no more than `little` needs no turn."""

    def __init__(self, room: int, *, turn: int, little: int) -> None:
        self.waiting_bytes = 0
        """of frames that wait at the hub to be taken; the owner says it"""
        self._room, self._turn, self._little = room, turn, little
        self._lacks: dict[str, int] = {}
        self._queue: dict[str, None] = {}
        self._turns: dict[str, _Turn] = {}

    # ------------------------------------------------------------ what is heard

    def lacks(self, node: str, facts: int) -> None:
        """This node has so many facts that the hub does not hold: by its hello, or its heartbeat. Who was told to wait is told when to go
        on, however little it is by then."""
        if facts <= (0 if node in self._queue else self._little):
            self.gone(node)
            return
        self._lacks[node] = facts
        if node not in self._turns:
            self._queue.setdefault(node)

    def took(self, node: str, facts: int, now_ms: int) -> None:
        """So many new facts of this node were taken in."""
        turn = self._turns.get(node)
        if turn is None:
            return
        self._lacks[node] -= facts
        turn.left, turn.last_ms = turn.left - facts, now_ms
        if self._lacks[node] <= 0:
            self.gone(node)
        elif turn.left <= 0:
            self._next_spell(node, turn)

    def _next_spell(self, node: str, turn: _Turn) -> None:
        if self._queue:
            del self._turns[node]
            self._queue[node] = None
        else:
            turn.left = SPELL_TURNS * self._turn

    def gone(self, node: str) -> None:
        """It has nothing that would need a turn."""
        for known in (self._lacks, self._queue, self._turns):
            known.pop(node, None)

    # ------------------------------------------------------------ what follows

    def given(self, now_ms: int, served: Callable[[str], bool]) -> Iterator[str]:
        """Whose turn begins now; of nodes that are not `served` here nobody knows whether they hear it."""
        for node, turn in list(self._turns.items()):
            if not 0 <= now_ms - turn.last_ms < LEFT_MS:
                self.gone(node)
        if self.waiting_bytes > WAITING_BYTES:
            return
        used = self._used(now_ms)
        while self._queue and used < self._room:
            node = next(iter(self._queue))
            del self._queue[node]
            if not served(node):
                self.gone(node)
                continue
            self._turns[node] = _Turn(SPELL_TURNS * self._turn, now_ms)
            used += self._size(node)
            yield node

    def _used(self, now_ms: int) -> int:
        return sum(self._size(node) for node, turn in self._turns.items() if 0 <= now_ms - turn.last_ms < FRESH_MS)

    def _size(self, node: str) -> int:
        return min(self._turn, self._lacks[node])

    def due_ms(self, now_ms: int) -> int | None:
        """When somebody's turn may come though nothing is heard; None: nobody waits for that."""
        if not self._queue or self.waiting_bytes > WAITING_BYTES:
            return None
        return min((t for turn in self._turns.values() if (t := turn.last_ms + FRESH_MS) > now_ms), default=now_ms)

    def is_due(self, now_ms: int) -> bool:
        """Has that time come, whatever happened to the clock?"""
        return bool(self._queue) and self.waiting_bytes <= WAITING_BYTES and self._used(now_ms) < self._room

    def has(self, node: str) -> bool:
        """Is it this node's turn?"""
        return node in self._turns

    def waits(self, node: str) -> bool:
        """Does it wait for its turn?"""
        return node in self._queue

    @property
    def waiting(self) -> int:
        """How many nodes do."""
        return len(self._queue)

    def share(self) -> int:
        """What each whose turn it is may have under way."""
        return max(self._turn, self._room // max(1, len(self._turns)))
