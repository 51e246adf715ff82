"""How many facts each node may have under way: a share of what the hub takes at once (a thousand edges that return together).

The hub's room is divided among the nodes that have something to send now; who stops sending gives its share back. A node is busy while
facts came from it, or its heartbeat said that it has some, within the last seconds. A node with a backlog has its turn besides
(`hub.turns`): with it, it sends large frames; before it, only what is fresh. Pure: time is an argument, in ms.
"""

from __future__ import annotations

from typing import Final

from hub.turns import Turns
from protocols.sync.receiver import Granted

ROOM_FACTS: Final = 40_000
"""under way to the hub from all nodes together: some seconds of work, so that nobody who waits for a receipt asks what became of it"""
LEAST_FACTS: Final = 200
"""for each node, however many there are: smaller frames cost more than they are fair"""
TURN_FACTS: Final = 2_000
"""for each node that has its turn: a few frames of the usual size"""
BUSY_MS: Final = 10_000


class Credit:
    """See the module. `most` is what a node gets when few are busy."""

    def __init__(self, most: int, *, room: int = ROOM_FACTS, least: int = LEAST_FACTS) -> None:
        self.most, self.room, self.least = most, room, min(least, most)
        self.full = False
        """the budget of the disk is used up: nobody gets any"""
        self.turns = Turns(room, turn=min(TURN_FACTS, most), little=self.least)
        self._busy_ms: dict[str, int] = {}
        """when each node was last seen to have something, the longest ago first"""

    def busy(self, node: str, now_ms: int) -> None:
        """Facts came from this node, or it said that it has some."""
        self._busy_ms.pop(node, None)
        self._busy_ms[node] = now_ms

    def rested(self, now_ms: int) -> None:
        """Forget who has had nothing for a while; a clock that went back makes nobody busy for ever."""
        while self._busy_ms:
            node, at_ms = next(iter(self._busy_ms.items()))
            if 0 <= now_ms - at_ms < BUSY_MS:
                return
            del self._busy_ms[node]

    @property
    def nodes(self) -> int:
        """How many share the room now."""
        return len(self._busy_ms)

    def each(self) -> int:
        """What every node may have under way, without a turn."""
        if self.full:
            return 0
        return min(self.most, max(self.room // max(1, self.nodes), self.least))

    def of(self, node: str) -> Granted:
        """What this node may have under way."""
        if self.full:
            return Granted(0)
        if self.turns.has(node):
            return Granted(max(self.each(), min(self.most, self.turns.share())))
        return Granted(self.each(), later=self.turns.waits(node))
