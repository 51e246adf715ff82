"""An edge at work while its disk fails: the production runtime in still time, a client who asks again, a hub that answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol

from edge_agent.core import EdgeIdentity, EdgeSettings
from edge_agent.runtime import EdgeRuntime
from hub.core import Publish
from protocols.errors import LedgerError, LongshoreError
from protocols.event import OrderEvent
from protocols.ledger import Ledger
from protocols.lifecycle import Status
from protocols.sqlite import Db
from protocols.sync.uplink import UplinkSettings
from protocols.topics import Address
from protocols.transport.port import PLAIN, Extra, Message, Up
from protocols.trust import NodeKey, verify
from tests.storage import verify as check
from tests.storage.clock import StillLoop, in_still_time
from tests.storage.faults import Calls, Plan, failing
from tests.storage.verify import demand
from tests.storage.world import Yes
from tests.unit.edge_agent.edges import HeldLine
from tests.unit.hub.hub_world import World, make_card, order_event

PAUSE_S: Final = 15.0
SETTINGS: Final = EdgeSettings(
    UplinkSettings(frame_facts=8, linger_ms=0, retry_ms=2_000, idle_hello_ms=60_000, stall_ms=600_000),
    heartbeat_ms=10_000,
    pressure_percent=0,
    floor_ms=20_000,
)
ADDRESS: Final = Address("acme", "EMEA", "Madrid", "dock-1")
KEY: Final = NodeKey(b"dock-1".ljust(32, b"-"))
BROKEN_S: Final = 60.0
"""how long a disk that fails for good does so"""
REQUESTS: Final = 6
OPENS_A_SECOND: Final = 12
OPENS_A_MINUTE: Final = 200
"""more openings of the ledger are spinning: there is a back-off, and each request of the two clients, one a second, may cause one"""


class Far(World):
    """A hub and its store in memory, at the other end of a line."""

    def __init__(self, loop: StillLoop) -> None:
        super().__init__()
        self.loop = loop
        self.line: HubLine | None = None
        self.hub.begin()
        self.hub.take_card(make_card(KEY, ADDRESS.node), loop.now_ms())
        self.hub.commit()
        self.hub.effects(loop.now_ms())

    def hears(self, payload: bytes) -> None:
        """A message comes up; the store takes what is new, and the hub answers."""
        self.now_ms = self.loop.now_ms()
        self.deliver(ADDRESS.node, payload)
        self.store_turn()

    def _send(self, effects: list[Publish]) -> None:
        for effect in effects:
            if self.line is not None and self.line.connected:
                self.loop.call_later(0.01, self.line.say, Message(effect.topic, effect.payload))


class HubLine(HeldLine):
    """A line to that hub, up from its start."""

    def __init__(self, far: Far) -> None:
        super().__init__()
        self.far = far
        far.line = self

    def start(self, listener: Any) -> None:
        super().start(listener)
        self.far.loop.call_later(0.01, self.say, Up())

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, extra: Extra = PLAIN) -> int:
        number = super().publish(topic, payload, qos=qos, retain=retain, extra=extra)
        self.far.loop.call_later(0.01, self.far.hears, payload)
        return number

    def restart(self) -> None:
        super().restart()
        self.far.loop.call_later(0.01, self.say, Up())


class Faults(Protocol):
    """What fails, as the story needs it."""

    struck: int
    on_first: Callable[[], None]

    def repair(self) -> None:
        """From now on everything works."""


Point = Callable[[], int]


def _no_point() -> int:
    return 0


@dataclass(slots=True)
class Told:
    """What the client heard, and what the edge did meanwhile."""

    yes: list[Yes] = field(default_factory=list)
    refused: int = 0
    starts: int = 0
    reopened: int = 0
    openings: dict[int, int] = field(default_factory=dict)
    """by second of the loop's time"""


class Story:
    """One run; see the module. `point`: of the disk, now."""

    def __init__(
        self, loop: StillLoop, path: Path, faults: Faults, open_db: Callable[[str | Path], Db] = Db, point: Point = _no_point
    ) -> None:
        self.loop, self.path, self.faults, self.told = loop, path, faults, Told()
        self._db, self._point = open_db, point
        self.far = Far(loop)
        self.runtime: EdgeRuntime = self._made()

    def _made(self) -> EdgeRuntime:
        return EdgeRuntime(
            self.path, EdgeIdentity(ADDRESS, "hub", self.far.key.public), KEY.sign, verify, settings=SETTINGS,
            rng=Random(7), now=self.loop.now, open_db=self._open, make_transport=lambda _: HubLine(self.far),
        )  # fmt: skip

    def _open(self, path: str | Path) -> Db:
        second = int(self.loop.time())
        self.told.openings[second] = self.told.openings.get(second, 0) + 1
        db = self._db(path)
        try:
            db.query("PRAGMA wal_autocheckpoint=6")
            db.query("PRAGMA busy_timeout=20")  # SQLite waits in real time for a lock that fails
        except LedgerError:
            db.close()
            raise
        return db

    async def tell(self) -> None:
        """Start, work, drain, stop."""
        self.faults.on_first = self._broken
        await self._start()
        for i in range(REQUESTS):
            await asyncio.gather(self._client(2 * i), self._client(2 * i + 1))
            await asyncio.sleep(PAUSE_S)
        await self._until(self._drained, "everything reaches the store")
        self.faults.repair()
        self.told.reopened = self.runtime.counts.reopened_total
        await self.runtime.stop()

    async def _start(self) -> None:
        """As a supervisor does: a process that cannot start is started again."""
        while True:
            self.told.starts += 1
            try:
                await self.runtime.start()
                return
            except LongshoreError:
                await asyncio.sleep(2)
                self.runtime = self._made()

    def _broken(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.call_later, BROKEN_S, self.faults.repair)

    async def _client(self, number: int) -> None:
        """Asks until there is a yes; without a key only once, as nobody knows then whether it was stored."""
        key = f"key-{number}" if number % 4 else None
        event = _event(number, key, self.loop.now_ms())
        for _ in range(1_000):
            try:
                done = await self.runtime.append([event])
            except LedgerError:
                self.told.refused += 1
                if key is None:
                    return
                await asyncio.sleep(1)
                continue
            self.told.yes.append(Yes(self._point(), event, done[0]))
            return
        raise check.Violation("liveness", f"request {number} was never taken")

    def _drained(self) -> bool:
        try:
            core = self.runtime.core
            return all(s.settled_seq == s.head[0] for s in core.ledger.own_streams())
        except LedgerError:
            return False

    async def _until(self, true: Callable[[], bool], what: str) -> None:
        deadline_s = self.loop.time() + 1_800
        while not true():
            demand(self.loop.time() < deadline_s, "liveness", f"within half an hour: {what}")
            await asyncio.sleep(5)


def _event(number: int, key: str | None, now_ms: int) -> OrderEvent:
    plain = order_event(f"order-{number % 5}", tuple(Status)[number % 6].name, now_ms)
    return replace(plain, details={"note": "x" * 300}, idempotency_key=key)


def run_edge(folder: Path, plan: Plan) -> tuple[Calls, Told]:
    """The story under a plan of failures; afterwards everything that was promised is looked at. Errors: Violation."""
    with failing(str(folder), plan) as calls:
        story: list[Story] = []

        async def tell(loop: StillLoop) -> None:
            story.append(Story(loop, folder / "ledger.db", calls))
            await story[0].tell()

        in_still_time(tell)
    told = story[0].told
    after(folder / "ledger.db", told, story[0].far)
    not_spinning(told)
    return calls, told


def not_spinning(told: Told) -> None:
    """An edge in trouble tries again, but not as fast as it can."""
    most, total = max(told.openings.values()), sum(told.openings.values())
    demand(most <= OPENS_A_SECOND, "spinning", f"{most} openings of the ledger within a second")
    demand(total <= OPENS_A_MINUTE, "spinning", f"{total} openings of the ledger in a minute of trouble")


def after(path: Path, told: Told, far: Far) -> None:
    """The disk works again: every yes is there once, and in the store."""
    db = Db(path)
    try:
        check.sound(db)
        check.links(db)
        led = Ledger(db, node=ADDRESS.node, new_epoch=_no_epoch)
        check.runs(led)
        check.folds(led)
        check.answered(led, told.yes)
        check.answered(far.hub.ledger, [Yes(0, one.event, one.done) for one in _without_keys(told.yes)])
        keyed = [row[0] for row in db.query("SELECT key FROM idempotency")]
        demand(len(set(keyed)) == len(keyed), "twice", "a key stands for two facts")
    finally:
        db.close()


def _without_keys(yes: list[Yes]) -> list[Yes]:
    """Keys stay at the edge."""
    return [Yes(0, order_event(one.event.order_id, one.event.status.name), one.done) for one in yes]


def _no_epoch() -> int:
    raise check.Violation("identity", "the ledger had to begin anew")
