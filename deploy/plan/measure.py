"""What an event costs on this machine, by running the product itself for a few seconds: an edge, a hub and a store in one process.

Real orders of the shipped sample through the real cores and SQLite on disk; nothing here is a constant that somebody once wrote down.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from deploy.bench.orders import events
from edge_agent.core import EdgeCore, EdgeIdentity, EdgeSettings, Now, Publish
from hub.core import HubCore, HubIdentity
from hub.store.sqlite import SqliteStore
from protocols.sqlite import Db
from protocols.sync.uplink import UplinkSettings
from protocols.topics import Address
from protocols.trust import NodeKey, hash_password, make_card, parse_card, verify

EVENTS: Final = 12_000
_BATCH: Final = 200
_HEADERS_BYTES: Final = 60
"""of MQTT, TLS and TCP for each message"""
_ENVELOPE_BYTES: Final = 150
"""of header and signature of a message"""


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one event. Seconds are of one core; `overhead_bytes` is what each frame costs beside its facts, with its receipt."""

    edge_disk_bytes: float
    hub_disk_bytes: float
    wire_bytes: float
    overhead_bytes: float
    edge_s: float
    hub_s: float


@dataclass(slots=True)
class _Clock:
    """Adds up the time that a part of the work takes."""

    spent_s: dict[str, float] = field(default_factory=dict)

    def __call__(self, who: str, work: Callable[[], None]) -> None:
        began = time.perf_counter()
        work()
        self.spent_s[who] = self.spent_s.get(who, 0.0) + time.perf_counter() - began


class _Pair:
    """An edge with a backlog, and a hub; what one sends, the other takes."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.wire_bytes, self.now_ms = _Clock(), 0, time.time_ns() // 1_000_000
        hub_key, key = NodeKey(bytes(32)), NodeKey(b"e" * 32)
        self.edge_db, self.hub_db, self.store = Db(folder / "ledger.db"), Db(folder / "hub.db"), SqliteStore(folder / "store.db")
        address = Address("scms", "Africa", "Accra", "edge")
        settings = EdgeSettings(UplinkSettings(linger_ms=0))
        self.edge = EdgeCore(self.edge_db, EdgeIdentity(address, "hub", hub_key.public), key.sign, verify, Random(1), settings)
        self.hub = HubCore(self.hub_db, HubIdentity("scms", "Africa", "hub", hub_key.public), hub_key.sign, verify, Random(2))
        card = make_card(key, node="edge", org="scms", region="Africa", site="Accra", password_hash=hash_password("x", n=2))
        self.hub.begin()
        self.hub.take_card(parse_card(card), self.now_ms)
        self.hub.commit()
        self._state()

    def _now(self) -> Now:
        return Now(self.now_ms, self.now_ms)

    def capture(self) -> None:
        """The backlog."""
        waiting = list(events(EVENTS, self.now_ms))
        for i in range(0, EVENTS, _BATCH):
            self.edge.begin()
            self.edge.take_events(waiting[i : i + _BATCH], self._now())
            self.edge.commit()

    def drain(self) -> None:
        """Until the store has everything and the edge knows it."""
        self.edge.begin()
        self.edge.take_up(self._now())
        self.edge.commit()
        while self.edge.ledger.own().settled_seq < EVENTS:
            self.now_ms += 100
            sent: list[bytes] = []
            self.clock("edge", lambda sent=sent: sent.extend(self._sent()))  # type: ignore[misc]
            self.clock("hub", lambda sent=sent: self._take(sent))  # type: ignore[misc]

    def _sent(self) -> list[bytes]:
        return [e.payload for e in self.edge.effects(self._now()) if isinstance(e, Publish)]

    def _take(self, sent: list[bytes]) -> None:
        self.hub.begin()
        for payload in sent:
            self._count(payload)
            self.hub.take_message("edge", payload, self.now_ms)
        self.hub.commit()
        self._answer()
        facts, records = self.hub.lacking_in_store()
        if facts:
            self.store.apply(facts, records, self.now_ms)
            self._state([facts[0].stream])

    def _state(self, keys: list[object] | None = None) -> None:
        self.hub.begin()
        self.hub.take_statement(self.store.statement(keys), whole=keys is None)  # type: ignore[arg-type]
        self.hub.commit()
        self._answer()

    def _answer(self) -> None:
        for said in self.hub.effects(self.now_ms):
            self._count(said.payload)
            self.edge.begin()
            self.edge.take_message(said.payload, self._now())
            self.edge.commit()

    def _count(self, payload: bytes) -> None:
        self.wire_bytes += len(payload)

    def close(self) -> None:
        self.edge_db.close()
        self.hub_db.close()
        self.store.close()


def measure() -> Costs:
    """A few seconds of work. The time that the edge takes to hear answers counts as the hub's: it errs on the safe side."""
    with tempfile.TemporaryDirectory(prefix="longshore-sim-") as folder:
        pair = _Pair(Path(folder))
        try:
            empty = pair.edge_db.file_bytes()
            pair.capture()
            edge_bytes = pair.edge_db.file_bytes() - empty
            pair.drain()
            hub_bytes = pair.hub_db.file_bytes() + sum(p.stat().st_size for p in Path(folder).glob("store.db"))
        finally:
            pair.close()
    spent = pair.clock.spent_s
    return Costs(
        edge_bytes / EVENTS, hub_bytes / EVENTS, pair.wire_bytes / EVENTS, 2 * (_HEADERS_BYTES + _ENVELOPE_BYTES),
        spent["edge"] / EVENTS, spent["hub"] / EVENTS,
    )  # fmt: skip
