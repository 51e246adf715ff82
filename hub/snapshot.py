"""One look at totals and fleet, shared by every page and stream of about the same moment, however many are open."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from hub.facade import HubFacade
from hub.views import CatchUp, FleetRow, Progress, fleet_json

FRESH_MS: Final = 800
_RESTLESS: Final = ("lastSeenAt", "clockSkewMs", "oldestAgeMs", "diskFreeBytes")
"""change with every look; what matters of them is in the words"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`version` rises when something that a page shows has changed. `totals` has `notHereYet` beside what the store counts."""

    at_ms: int
    version: int
    totals: dict[str, int]
    fleet: list[FleetRow]
    progress: dict[str, Progress]

    def state(self) -> tuple[int, dict[str, Any]]:
        """For the stream's `state` event."""
        return self.version, {"version": self.version, "totals": self.totals}


class Snapshots:
    """Takes a snapshot at most every FRESH_MS; callers at the same time share one."""

    def __init__(self, facade: HubFacade) -> None:
        self._facade = facade
        self._catch_up = CatchUp()
        self._lock = asyncio.Lock()
        self._last: Snapshot | None = None
        self._content: Any = None
        self._version = 0

    async def take(self) -> Snapshot:
        """The last snapshot if it is fresh, else a new one."""
        async with self._lock:
            now_ms = self._facade.now_ms()
            if self._last is None or not 0 <= now_ms - self._last.at_ms < FRESH_MS:
                self._last = await self._look(now_ms)
            return self._last

    async def state(self) -> tuple[int, dict[str, Any]]:
        """For a stream's listener."""
        return (await self.take()).state()

    async def _look(self, now_ms: int) -> Snapshot:
        totals = dict(await asyncio.to_thread(self._facade.store.totals))
        rows = sorted(self._facade.fleet(), key=lambda row: row.node)
        progress = self._catch_up.observe(rows, now_ms)
        totals["notHereYet"] = sum(row.missing or 0 for row in rows)
        shown = [
            {k: v for k, v in fleet_json(row, now_ms, progress.get(row.node), told=False).items() if k not in _RESTLESS} for row in rows
        ]
        if (totals, shown) != self._content:
            self._content = (totals, shown)
            self._version += 1
        return Snapshot(now_ms, self._version, totals, rows, progress)
