"""How fresh the central view is while a backlog drains: events captured one by one at the edge, each seen in the store's view when?"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from deploy.demo.parts import Part
from protocols.errors import LedgerError
from protocols.sqlite import Db

EVERY_S: Final = 0.1
LOOK_S: Final = 0.02
_LAST_S: Final = 10.0
"""so long is waited, after the backlog, for what was captured before its end"""


@dataclass(slots=True)
class Fresh:
    """Seconds from the answer 201 (on the edge's disk) to the view of the central store, in the order of the answers."""

    waits_s: list[float] = field(default_factory=list)
    committed: dict[str, float] = field(default_factory=dict)
    """order id -> when it was answered; those that were not seen yet"""

    def percentile(self, share: float) -> float:
        """Of all that were captured; one that was never seen waited for ever."""
        waits = sorted([*self.waits_s, *(float("inf") for _ in self.committed)])
        return waits[min(len(waits) - 1, int(len(waits) * share))] if waits else float("inf")


@asynccontextmanager
async def capturing(edge: Part, store: Path) -> AsyncIterator[Fresh]:
    """Capture an order every EVERY_S seconds for as long as the block runs, from the moment the backlog begins to drain (what is captured
    before is part of it), and look for them until all are seen."""
    fresh, done, begun = Fresh(), asyncio.Event(), asyncio.Event()
    writing, looking = asyncio.create_task(_write(edge, fresh, begun, done)), asyncio.create_task(_look(store, fresh, begun))
    try:
        yield fresh
        done.set()
        begun.set()
        await writing
        await asyncio.wait([looking], timeout=0)
        async with asyncio.timeout(_LAST_S):
            while fresh.committed and not looking.done():  # noqa: ASYNC110 - the store tells nobody
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        pass
    finally:
        for task in (writing, looking):
            task.cancel()
        await asyncio.gather(writing, looking, return_exceptions=True)


async def _write(edge: Part, fresh: Fresh, begun: asyncio.Event, done: asyncio.Event) -> None:
    await begun.wait()
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {edge.token}"}, timeout=30) as http:
        n = 0
        while not done.is_set():
            began, n = time.perf_counter(), n + 1
            event = {"orderId": f"FRESH-{n}", "source": "DOCK", "status": "PLACED", "timeQuality": "unknown"}
            (await http.post(f"{edge.url}/v1/events", json=event)).raise_for_status()
            fresh.committed[event["orderId"]] = time.perf_counter()
            await asyncio.sleep(max(0.0, EVERY_S - (time.perf_counter() - began)))


async def _look(store: Path, fresh: Fresh, begun: asyncio.Event) -> None:
    """Asked of the store's file, as the pages do."""
    view = Db(store, read_only=True)
    try:
        while True:
            seen = _seen(view, list(fresh.committed)) if begun.is_set() else []
            now = time.perf_counter()
            fresh.waits_s += [now - fresh.committed.pop(order_id) for order_id in seen]
            if not begun.is_set() and _begun(view):
                begun.set()
            await asyncio.sleep(LOOK_S)
    finally:
        view.close()


def _seen(view: Db, order_ids: list[str]) -> list[str]:
    rows = view.query("SELECT v.order_id FROM json_each(?) j JOIN view v ON v.order_id=j.value AND v.org='scms'", (json.dumps(order_ids),))
    return [str(order_id) for (order_id,) in rows]


def _begun(view: Db) -> bool:
    try:
        return view.one("SELECT 1 FROM log LIMIT 1") is not None
    except LedgerError:  # the hub makes its tables just now
        return False
