"""Who gets the room that there is: facts of orders before telemetry, always.

The ledger has a budget in bytes, and within it telemetry has its own share. Where telemetry outgrows its share, or what is left of the
whole is needed for facts of orders (the reserve), telemetry goes, as signed records: first what the central store has, then what later
readings supersede, then the oldest. The newest fact of a stream stays, and what is under way to the hub. Facts of orders never go. When
even the reserve is used up, nothing more is taken, and the caller is told so.

Pure: runs inside the core's transaction, and looks at nothing but the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from protocols.devices import read_row
from protocols.errors import OverBudget
from protocols.eviction import REASONS, evict, evicted_by_reason
from protocols.ledger import ORDERS, Ledger
from protocols.streams import Stream
from protocols.sync.intervals import Intervals
from protocols.sync.uplink import Uplink

ROW_BYTES: Final = 48
"""what a row costs on disk beside its own bytes: numbers, hashes, its place in the tree"""
TURN_ROWS: Final = 5_000
"""evicted in one transaction: more than one takes in, and few enough that nobody waits long for the disk"""
PAGE_ROWS: Final = 1_000
MOST_RUNS: Final = 48
"""of one stream: a hub states 64"""


class Room(Protocol):
    """What the operator grants, in bytes. `telemetry_bytes` 0: a quarter of the budget. `reserve_bytes` 0: a tenth of it."""

    @property
    def budget_bytes(self) -> int:
        """Of the ledger file."""

    @property
    def telemetry_bytes(self) -> int:
        """Of telemetry in it."""

    @property
    def reserve_bytes(self) -> int:
        """What only facts of orders may use."""

    @property
    def pressure_percent(self) -> int:
        """Of the budget: beyond it settled facts go even without a backup."""


def share_of_telemetry(room: Room) -> int:
    """Bytes."""
    return room.telemetry_bytes or room.budget_bytes // 4


def reserve(room: Room) -> int:
    """Bytes."""
    return room.reserve_bytes or room.budget_bytes // 10


@dataclass(slots=True)
class _Scale:
    """A telemetry stream as last weighed: facts in (freed, head]."""

    freed: int
    head: int
    size: int


class Budget:
    """See the module. `used`, `telemetry_used`: bytes, as of the last `look`. `disk_full`: the owner was told so by the disk itself."""

    def __init__(self, ledger: Ledger, uplink: Uplink, room: Callable[[], Room]) -> None:
        self._room = room
        self._ledger, self._uplink = ledger, uplink
        self._scales: dict[int, _Scale] = {}
        self._walked: dict[int, int] = {}
        """up to which seq no superseded fact was found: what is walked once need not be walked each time"""
        self.used = self.telemetry_used = 0
        self.disk_full = False
        self._disk_target = 0

    def on_disk_full(self, wanted_bytes: int) -> None:
        """The disk itself is full: make so much room inside the file, and take nothing until `on_disk_room`."""
        self.look()
        self.disk_full, self._disk_target = True, max(0, self.used - wanted_bytes)

    def on_disk_room(self) -> None:
        """There is room again."""
        self.disk_full = False

    # ------------------------------------------------------------ looking

    @property
    def pressed(self) -> bool:
        """Near the budget, or the disk is full: settled facts go even without a backup of the store."""
        return self.disk_full or self.used * 100 >= self._room().budget_bytes * self._room().pressure_percent

    @property
    def full(self) -> bool:
        """No room for facts of orders, not even in the reserve."""
        return self.disk_full or self.used >= self._room().budget_bytes

    @property
    def telemetry_full(self) -> bool:
        """No room for telemetry: what is left is the reserve of facts of orders."""
        return self.full or self.used >= self._room().budget_bytes - reserve(self._room())

    def look(self) -> None:
        """Weigh the ledger's file and the telemetry in it."""
        self.used = self._ledger.db.file_bytes()
        self.telemetry_used = sum(self._weigh(s) for s in self._streams())

    def _streams(self) -> list[Stream]:
        return [s for s in self._ledger.own_streams() if s.key.cls != ORDERS]

    def _weigh(self, stream: Stream) -> int:
        scale = self._scales.get(stream.sid)
        if scale is None or scale.freed != stream.freed_seq:
            scale = self._scales[stream.sid] = _Scale(stream.freed_seq, stream.freed_seq, 0)
        if scale.head != stream.head[0]:
            self._ledger.flush()
            facts, size = self._ledger.weights.weigh(stream, scale.head, stream.head[0])
            scale.size += size + ROW_BYTES * facts
            scale.head = stream.head[0]
        return scale.size

    # ------------------------------------------------------------ making room

    def relieve(self) -> int:
        """Evict what has to go, within a turn's bound. Inside a transaction. Returns how many facts went."""
        self.look()
        most = self._excess()
        if most <= 0:
            return 0
        left = _Left(most + share_of_telemetry(self._room()) // 20, TURN_ROWS)
        for stream in self._streams():
            self._evict(stream, stream.freed_seq + 1, stream.settled_seq, "settled", left)
        for stream in self._streams():
            self._compact(stream, left)
        for stream in self._streams():
            self._evict(stream, stream.freed_seq + 1, stream.head[0] - 1, "oldest", left)
        for stream in self._streams():
            self._tidy(stream, left)
        if left.gone:
            self._uplink.on_evicted()
            self.look()
        return left.gone

    def _excess(self) -> int:
        """Bytes of telemetry that have no room."""
        room = self._room()
        over = self.used - (self._disk_target if self.disk_full else room.budget_bytes - reserve(room))
        return max(self.telemetry_used - share_of_telemetry(room), min(self.telemetry_used, over))

    def _evict(self, stream: Stream, first: int, last: int, reason: str, left: _Left) -> None:
        """The oldest facts of first..last that may go, until enough have gone."""
        for low, high in self._may_go(stream, first, min(last, stream.head[0] - 1)):
            while low <= high and left:
                page = self._ledger.db.query(
                    "SELECT seq, length(row) FROM log WHERE sid=? AND seq BETWEEN ? AND ? ORDER BY seq LIMIT ?",
                    (stream.sid, low, high, min(PAGE_ROWS, left.rows)),
                )
                end, size = low - 1, 0
                for seq, length in page:
                    if size >= left.size:
                        break
                    end, size = seq, size + length + ROW_BYTES
                if end < low:
                    return
                self._gone(stream, low, end, reason, left)
                low = end + 1

    def _compact(self, stream: Stream, left: _Left) -> None:
        """Facts that a later one of the same device and kind supersedes, oldest first."""
        start = self._walked.get(stream.sid, 0)
        for low, high in self._may_go(stream, max(stream.freed_seq, start) + 1, stream.head[0] - 1):
            while low <= high and left:
                page = self._ledger.db.query(
                    "SELECT seq, row FROM log WHERE sid=? AND seq BETWEEN ? AND ? ORDER BY seq LIMIT ?", (stream.sid, low, high, PAGE_ROWS)
                )
                if not page:
                    break
                self._compact_page(stream, page, left)
                low = page[-1][0] + 1
                self._walked[stream.sid] = page[-1][0] if left else self._walked.get(stream.sid, 0)
        if left:
            self._walked[stream.sid] = 0  # all was walked: what was the latest then may be superseded by now

    def _compact_page(self, stream: Stream, page: list[Any], left: _Left) -> None:
        first: int | None = None
        size = 0
        for seq, row in page:
            if size < left.size and self._superseded(stream, seq, row):
                first = seq if first is None else first
                size += len(row) + ROW_BYTES
            elif first is not None:
                self._gone(stream, first, seq - 1, "superseded", left)
                first, size = None, 0
        if first is not None:
            self._gone(stream, first, page[-1][0], "superseded", left)

    def _superseded(self, stream: Stream, seq: int, row: bytes) -> bool:
        said = read_row(row)
        return said is not None and not self._ledger.devices.is_latest(stream.key.node, said.device, said.kind, stream.sid, seq)

    def _tidy(self, stream: Stream, left: _Left) -> None:
        """A stream in too many pieces: single facts between evicted ones go too, the oldest first. Bounded by how much was evicted."""
        while len(stream.chain.runs) > MOST_RUNS and left.gone:
            before = len(stream.chain.runs)
            between = [r for r in stream.chain.data() if r.first > stream.freed_seq + 1 and r.last < stream.head[0]]
            if not between:
                return
            least = min(between, key=lambda r: (r.last - r.first, r.first))
            for first, last in list(self._may_go(stream, least.first, least.last)):
                self._gone(stream, first, last, "oldest", left)
            if len(stream.chain.runs) >= before:
                return

    def _may_go(self, stream: Stream, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The parts of first..last that are held, and not under way."""
        kept = Intervals(sorted((a, b) for sid, a, b in self._uplink.streams_under_way() if sid == stream.sid))
        held = [(r.first, r.last) for r in stream.chain.data()]
        for low, high in held:
            yield from list(kept.missing(max(first, low, stream.freed_seq + 1), min(last, high)))

    def _gone(self, stream: Stream, first: int, last: int, reason: str, left: _Left) -> None:
        facts, size = evict(self._ledger, stream, first, last, reason)
        size += ROW_BYTES * facts
        left.size, left.rows, left.gone = left.size - size, left.rows - facts, left.gone + facts
        self._scales[stream.sid].size -= size

    # ------------------------------------------------------------ asking

    def unready(self) -> list[str]:
        """Why facts of orders cannot be taken, in few words."""
        if self.disk_full:
            return ["the disk is full"]
        return ["the ledger has reached its budget"] if self.full else []

    def no_room(self) -> OverBudget:
        """Why not even facts of orders are taken."""
        if self.disk_full:
            return OverBudget("the disk is full, and what is left of it is needed to free something", remedy="free disk space")
        budget = self._room().budget_bytes
        return OverBudget(
            f"the ledger has reached its budget of {budget} bytes, the reserve for facts of orders included, and nothing in it may go yet",
            remedy="restore the link to the hub, or raise storage.budget_bytes",
        )

    def no_room_for_telemetry(self) -> OverBudget:
        """Why no telemetry is taken."""
        if self.full:
            return self.no_room()
        return OverBudget(
            f"the last {reserve(self._room())} bytes of the ledger's budget are kept for facts of orders, and no telemetry is left to go",
            remedy="restore the link to the hub, or raise storage.budget_bytes",
        )

    def status(self) -> dict[str, Any]:
        """For `GET /v1/status`, beside the size of the file and its budget."""
        return {
            "reserveBytes": reserve(self._room()),
            "telemetryBytes": self.telemetry_used,
            "telemetryBudgetBytes": share_of_telemetry(self._room()),
            "telemetryFull": self.telemetry_full,
            "evicted": evicted_by_reason(self._ledger),
        }


@dataclass(slots=True)
class _Left:
    """What still has to go: bytes, and how many rows may; `gone`: facts that went."""

    size: int
    rows: int
    gone: int = 0

    def __bool__(self) -> bool:
        return self.size > 0 and self.rows > 0


__all__ = ["REASONS", "Budget", "Room", "reserve", "share_of_telemetry"]
