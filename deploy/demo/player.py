"""Plays the history: each edge's captures in order, the cut, the kill, the conflict, the way back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from deploy.demo.history import Day, History
from deploy.demo.parts import Part, Site
from protocols.errors import TransportError

CUT = ("accra", "johannesburg")
"""the edges whose link is cut half-way; the first is killed and restarted while it is cut off, the second ships the disputed order"""
KILLED, DISPUTED_AT = CUT
_RETRY_S = 0.05
_RETRIES = 600
_POLL_S = 0.25


@dataclass(slots=True)
class Scene:
    """What the screen shows; the report never looks at it."""

    act: str = "starting"
    day_ms: int = 0
    edges: dict[str, dict[str, Any]] = field(default_factory=dict)
    totals: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """A line for people."""
        self.notes.append(text)


class Player:
    """One play of one history on one site. `seconds` is how long the history takes; `tell` is called when the scene changed."""

    def __init__(self, site: Site, history: History, *, seconds: float, tell: Callable[[Scene], None]) -> None:
        self.site, self.history, self.seconds, self._tell = site, history, seconds, tell
        self.scene = Scene()
        self._http = httpx.AsyncClient(timeout=20.0, limits=httpx.Limits(max_keepalive_connections=8))

    async def run(self) -> None:
        """The whole play, until everything is settled. Errors: TransportError when it does not settle."""
        watch = asyncio.create_task(self._watch())
        try:
            await self._acts()
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            await self._look()
            await self._http.aclose()

    async def _acts(self) -> None:
        half = len(self.history.days) // 2
        first, second = self.history.days[:half], self.history.days[half:]
        self._act("1/4  capturing, every link up")
        await self._play(first)
        await self._act_cut()
        third = len(second) // 3
        await self._play(second[:third])
        await self._kill(second[third : 2 * third])
        await self._dispute()
        await self._play(second[2 * third :])
        self._act("4/4  links restored: catching up")
        for node in CUT:
            await self.site.links[node].restore()
        await self._settled()

    def _act(self, text: str) -> None:
        self.scene.act = text
        self.scene.note(text)
        self._tell(self.scene)

    async def _act_cut(self) -> None:
        self._act(f"2/4  the links of {' and '.join(CUT)} are cut; all three go on capturing")
        for node in CUT:
            await self.site.links[node].cut()

    async def _kill(self, days: list[Day]) -> None:
        """SIGKILL one edge in the middle of capturing, and start it again; whoever posted retries with the same keys."""
        edge = self.site.edges[KILLED]

        async def strike() -> None:
            await asyncio.sleep(self.seconds / 12)
            await edge.kill()
            self._act(f"3/4  {KILLED} was killed with SIGKILL and is started again")
            await edge.start()

        await asyncio.gather(strike(), self._play(days))

    async def _dispute(self) -> None:
        """Cancelled at the centre while shipped at a cut-off dock."""
        order = self.history.disputed
        if not order:
            return
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.scene.day_ms / 1000))
        base = {"orderId": order["orderId"], "timestamp": when}
        cancel = {
            **base,
            "source": "CENTRAL",
            "status": "CANCELLED",
            "idempotencyKey": "demo-cancel",
            "details": {"reason": "budget withdrawn"},
        }
        ship = {**base, "source": "DOCK", "status": "SHIPPED", "actor": "staff-17", "idempotencyKey": "demo-ship"}
        await self._post(self.site.hub, [cancel])
        await self._post(self.site.edges[DISPUTED_AT], [ship])
        self.scene.note(f"{order['orderId']} cancelled at the centre while {DISPUTED_AT}, cut off, ships it")

    async def _play(self, days: list[Day]) -> None:
        """Each edge captures its days in order, all at the pace of the history."""
        started = time.monotonic()
        per_day = self.seconds / max(1, len(self.history.days))
        lanes: dict[str, list[tuple[int, Day]]] = {}
        for i, day in enumerate(days):
            lanes.setdefault(day.node, []).append((i, day))
        await asyncio.gather(*(self._lane(node, lane, started, per_day) for node, lane in lanes.items()))

    async def _lane(self, node: str, lane: list[tuple[int, Day]], started: float, per_day: float) -> None:
        for i, day in lane:
            ahead = started + i * per_day - time.monotonic()
            if ahead > 0:
                await asyncio.sleep(ahead)
            await self._post(self.site.edges[node], day.events)
            self.scene.day_ms = max(self.scene.day_ms, day.known_ms)

    async def _post(self, part: Part, events: list[dict[str, Any]]) -> None:
        """Until it is answered yes; the keys in the events make a repeat harmless. Errors: TransportError for a no or for silence."""
        for _ in range(_RETRIES):
            try:
                answer = await self._http.post(f"{part.url}/v1/events", json=events, headers={"Authorization": f"Bearer {part.token}"})
            except httpx.TransportError:
                await asyncio.sleep(_RETRY_S)  # killed or restarting: nobody said yes, so say it again
                continue
            if answer.status_code in (200, 201):
                return
            if answer.status_code != 503:
                raise TransportError(f"{part.name} said {answer.status_code}: {answer.text[:300]}")
            await asyncio.sleep(_RETRY_S)
        raise TransportError(f"{part.name} does not answer", remedy=f"see {part.dir / 'log.txt'}")

    async def _settled(self) -> None:
        """Wait until hub and edges say that nothing is missing."""
        async with asyncio.timeout(300):
            while True:
                await self._look()
                queued = [e.get("queued") for e in self.scene.edges.values()]
                if all(q == 0 for q in queued) and self.scene.totals.get("balanced") and not self.scene.totals.get("queued"):
                    return
                await asyncio.sleep(_POLL_S)

    async def _watch(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(_POLL_S)

    async def _look(self) -> None:
        """Ask every process how it is; one that does not answer is shown as down."""
        for node, part in self.site.edges.items():
            status = await self._get(part, "/v1/status")
            self.scene.edges[node] = _edge_scene(status, self.site.links[node].up, self.scene.edges.get(node, {}))
        balance = await self._get(self.site.hub, "/v1/balance")
        if balance:
            self.scene.totals = {"balanced": balance["fleet"]["balanced"], **balance["fleet"]}
        self._tell(self.scene)

    async def _get(self, part: Part, path: str) -> dict[str, Any]:
        try:
            answer = await self._http.get(f"{part.url}{path}", headers={"Authorization": f"Bearer {part.token}"})
            return answer.json() if answer.status_code == 200 else {}
        except (httpx.TransportError, OSError):
            return {}


def _edge_scene(status: dict[str, Any], link_up: bool, before: dict[str, Any]) -> dict[str, Any]:
    if not status:
        return {**before, "alive": False, "link": link_up}
    streams = status["streams"]
    return {
        "alive": True,
        "link": link_up,
        "captured": sum(s["captured"] for s in streams),
        "settled": sum(s["settled"] for s in streams),
        "queued": status["queue"]["events"],
        "bytes": status["queue"]["bytes"],
        "oldestAgeMs": status["queue"]["oldestAgeMs"],
    }
