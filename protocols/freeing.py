"""How far a stream may be freed: what was freeable once, and has been for the floor (sync.md, rule 11). For every holder and every stream.

`freeable` is the holder's word for: settled at a point of this chain, and in every backup of the central store. It is marked once a day of
the hub's time; the floor counts from the mark, so no clock of a fact decides, and what was settled long ago need not be kept in mind fact
by fact. Marks outlive a restart. Runs inside the owner's transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from protocols.ledger import Ledger
from protocols.streams import Stream

DAY_MS: Final = 86_400_000


class Freeing:
    """See the module. `floor_ms`: how long what is freeable stays at least. `hashed`: whether the hashes of what goes are kept, so that a
    branch that comes to light later is told apart from what was freed; a node needs none of its own stream."""

    def __init__(self, ledger: Ledger, floor_ms: int, *, hashed: bool = False) -> None:
        self._ledger, self._floor_ms, self._hashed = ledger, floor_ms, hashed
        self._kept: dict[int, list[tuple[int, int]]] = {}
        self.freed = 0
        """facts that went since this object was made"""

    def mark(self, stream: Stream, freeable: int, hub_ms: int) -> None:
        """Everything up to `freeable` may go, says the hub at `hub_ms`; remembered once a day."""
        marks = [m for m in self._marks(stream) if m[0] <= hub_ms]  # a hub's clock that once ran ahead must not keep them for years
        if freeable > max((m[1] for m in marks), default=stream.freed_seq) and (not marks or hub_ms - marks[-1][0] >= DAY_MS):
            self._set(stream, [*marks, (hub_ms, freeable)])

    def due(self, stream: Stream, freeable: int, hub_ms: int) -> int:
        """The highest seq that may go now: it was freeable a floor ago, and still is. 0: nothing."""
        old = [seq for at_ms, seq in self._marks(stream) if hub_ms - at_ms >= self._floor_ms]
        return min(old[-1], freeable) if old else 0

    def free(self, stream: Stream, up_to: int, hub_ms: int, *, kept: Iterable[tuple[int, bytes]] = ()) -> int:
        """Let go of the facts up to a seq; their places stay. `kept`: facts whose rows stay. Returns how many places went."""
        gone = self._ledger.free(stream, up_to, hub_ms, hashed=self._hashed, kept=kept)
        if gone:
            self._set(stream, [m for m in self._marks(stream) if m[1] > stream.freed_seq])
            self.freed += gone
        return gone

    def _marks(self, stream: Stream) -> list[tuple[int, int]]:
        """(hub's ms, seq) in the order in which they were made."""
        if stream.sid not in self._kept:
            row = self._ledger.db.one("SELECT value FROM meta WHERE key=?", (f"marks/{stream.sid}",))
            pairs = (pair.split(":") for pair in str(row[0]).split()) if row and row[0] else ()
            self._kept[stream.sid] = [(int(a), int(b)) for a, b in pairs]
        return self._kept[stream.sid]

    def _set(self, stream: Stream, marks: list[tuple[int, int]]) -> None:
        self._kept[stream.sid] = marks
        self._ledger.db.run(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value=excluded.value",
            (f"marks/{stream.sid}", " ".join(f"{a}:{b}" for a, b in marks)),
        )
