"""A hub at work while the disk under its ledger, or under its store, fails: the production engine in still time, and an edge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Final

from edge_agent.core import EdgeIdentity, EdgeSettings
from edge_agent.runtime import EdgeRuntime
from hub.core import HubCore, HubIdentity
from hub.engine import Engine, Ports, Rhythm
from hub.store.port import CentralStore
from hub.store.sqlite import SqliteStore
from protocols.errors import LedgerError, LongshoreError
from protocols.ledger import Ledger
from protocols.lifecycle import Status
from protocols.messages import Answer, Receipt
from protocols.sqlite import Db
from protocols.sync.seal import Control, unseal
from protocols.sync.uplink import UplinkSettings
from protocols.topics import parse_topic
from protocols.transport.port import PLAIN, Extra, Message, Up
from protocols.trust import NodeKey, verify
from tests.storage import verify as check
from tests.storage.clock import StillLoop, in_still_time
from tests.storage.edge_story import ADDRESS, BROKEN_S, KEY
from tests.storage.faults import Calls, Plan, failing
from tests.storage.verify import demand
from tests.storage.world import HUB_FILE, STORE_FILE, Said, Yes
from tests.unit.edge_agent.edges import HeldLine
from tests.unit.hub.hub_world import make_card, order_event

HUB_KEY: Final = NodeKey(b"h" * 32)
SETTINGS: Final = EdgeSettings(UplinkSettings(frame_facts=2, linger_ms=0, retry_ms=2_000), heartbeat_ms=10_000)
REQUESTS: Final = 5
PAUSE_S: Final = 10
OPENINGS: Final = 120
"""more of one file within a minute of trouble is spinning: requests come once a second, each may cause one"""


@dataclass(slots=True)
class Heard:
    """What was said to the outside, and what the hub did meanwhile."""

    yes: list[Yes] = field(default_factory=list)
    edge_yes: list[Yes] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    refused: int = 0
    openings: dict[str, int] = field(default_factory=dict)


class _Line(HeldLine):
    """From the edge to the engine, and back."""

    def __init__(self, story: HubStory) -> None:
        super().__init__()
        self.story = story
        story.line = self

    def start(self, listener: Any) -> None:
        super().start(listener)
        self.story.loop.call_later(0.01, self.say, Up())

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, extra: Extra = PLAIN) -> int:
        self.story.loop.call_later(0.01, self.story.engine.came, ADDRESS.node, payload)
        return super().publish(topic, payload, qos=qos, retain=retain, extra=extra)

    def restart(self) -> None:
        super().restart()
        self.story.loop.call_later(0.01, self.say, Up())


class HubStory:
    """One run; see the module."""

    def __init__(self, loop: StillLoop, folder: Path, calls: Calls) -> None:
        self.loop, self.folder, self.calls, self.heard = loop, folder, calls, Heard()
        self.line: _Line | None = None
        self.engine = self._made()
        self.edge = EdgeRuntime(
            ":memory:", EdgeIdentity(ADDRESS, "hub", HUB_KEY.public), KEY.sign, verify, settings=SETTINGS, rng=Random(3), now=loop.now,
            make_transport=lambda _: _Line(self),
        )  # fmt: skip

    def _made(self) -> Engine:
        ports = Ports(self._core, self._store, self._publish, lambda _: None, self.loop.now_ms, lambda _: None)
        return Engine(ports, Rhythm(store_check_ms=30_000))

    def _open(self, name: str) -> Db:
        self.heard.openings[name] = self.heard.openings.get(name, 0) + 1
        db = Db(self.folder / name)
        try:
            db.query("PRAGMA busy_timeout=20")  # SQLite waits in real time for a lock that fails
        except LedgerError:
            db.close()
            raise
        return db

    def _core(self) -> HubCore:
        db = self._open(HUB_FILE)
        try:
            db.query("PRAGMA wal_autocheckpoint=12")
            return HubCore(db, HubIdentity("acme", "central", "hub", HUB_KEY.public), HUB_KEY.sign, verify, Random(5))
        except LongshoreError:
            db.close()
            raise

    def _store(self) -> CentralStore:
        db = self._open(STORE_FILE)
        store = SqliteStore(db)
        db.query("PRAGMA wal_autocheckpoint=12")
        return store

    def _publish(self, topic: str, payload: bytes) -> None:
        """In the worker: what is said now is durable now."""
        opened = unseal(payload)
        if isinstance(opened, Control):
            message = opened.message()
            if isinstance(message, Answer | Receipt):
                self.heard.said.append(Said(0, message))
        if parse_topic(topic)[0].node == ADDRESS.node:
            self.loop.call_soon_threadsafe(self._down, Message(topic, payload))

    def _down(self, message: Message) -> None:
        if self.line is not None and self.line.connected:
            self.line.say(message)

    # ------------------------------------------------------------ the story

    async def tell(self) -> None:
        """Start, admit, work, drain, stop."""
        self.calls.on_first = self._broken
        await self._open_engine()
        running = asyncio.create_task(self.engine.run())
        await self._admit()
        await self.edge.start()
        for i in range(REQUESTS):
            await asyncio.gather(self._centre(i), self._dock(i))
            await asyncio.sleep(PAUSE_S)
        await self._until(lambda: running.done() or self._drained(), "everything is in the store")
        demand(not running.done(), "crash", "the engine has ended")
        self.calls.repair()
        await self.edge.stop()
        self.engine.stop()
        await running
        await self.engine.close()

    def _broken(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.call_later, BROKEN_S, self.calls.repair)

    async def _open_engine(self) -> None:
        """As a supervisor does: a process that cannot start is started again."""
        while True:
            try:
                await self.engine.open()
                return
            except LongshoreError:
                await self.engine.close()
                await asyncio.sleep(2)
                self.engine = self._made()

    async def _admit(self) -> None:
        await self._asked(lambda: self.engine.admit(make_card(KEY, ADDRESS.node)))

    async def _asked(self, ask: Callable[[], Any]) -> Any:
        for _ in range(1_000):
            try:
                return await ask()
            except LedgerError:
                self.heard.refused += 1
                await asyncio.sleep(1)
        raise check.Violation("liveness", "a request was never taken")

    async def _centre(self, number: int) -> None:
        plain = order_event(f"central-{number % 3}", tuple(Status)[number % 5].name, self.loop.now_ms())
        event = replace(plain, details={"note": "x" * 500}, idempotency_key=f"key-{number}")
        done = await self._asked(lambda: self.engine.append([event]))
        self.heard.yes.append(Yes(0, event, done[0]))

    async def _dock(self, number: int) -> None:
        event = order_event(f"dock-{number % 3}", tuple(Status)[number % 5].name, self.loop.now_ms())
        done = await self.edge.append([event, event])
        self.heard.edge_yes += [Yes(0, event, one) for one in done]

    def _drained(self) -> bool:
        """The edge has heard that all of it is settled, and the hub sees as much of its own."""
        core = self.edge.core
        own = self.engine.seen.balance.get("fleet", {})
        return all(s.settled_seq == s.head[0] > 0 for s in core.ledger.own_streams()) and bool(own.get("balanced"))

    async def _until(self, true: Callable[[], bool], what: str) -> None:
        deadline_s = self.loop.time() + 3_600
        while not true():
            demand(self.loop.time() < deadline_s, "liveness", f"within an hour: {what}")
            await asyncio.sleep(5)


def run_hub(folder: Path, plan: Plan) -> tuple[Calls, Heard]:
    """The story under a plan of failures; afterwards everything that was promised is looked at. Errors: Violation."""
    with failing(str(folder), plan) as calls:
        story: list[HubStory] = []

        async def tell(loop: StillLoop) -> None:
            story.append(HubStory(loop, folder, calls))
            await story[0].tell()

        in_still_time(tell)
    heard = story[0].heard
    after(folder, heard)
    for name, count in heard.openings.items():
        demand(count <= OPENINGS, "spinning", f"{count} openings of {name}")
    return calls, heard


def after(folder: Path, heard: Heard) -> None:
    """The disk works again: every yes and every receipt holds, and ledger and store have the same facts."""
    db = Db(folder / HUB_FILE)
    try:
        check.sound(db)
        check.links(db)
        led = Ledger(db, node="hub", new_epoch=lambda: 1)
        check.runs(led)
        check.folds(led)
        check.answered(led, heard.yes)
        check.answered(led, heard.edge_yes)
        check.held(led, heard.said)
        facts = {bytes(h) for (h,) in db.query("SELECT h FROM log")}
    finally:
        db.close()
    store = Db(folder / STORE_FILE)
    try:
        check.store(store.dump(), heard.said)
        demand({bytes(h) for (h,) in store.query("SELECT h FROM log")} == facts, "lost", "the store has other facts than its hub")
    finally:
        store.close()
