"""A small world on disks that lose power: one edge whose every write is journaled, a hub and a store likewise, and others to talk to.

The script is what a year brings: events with and without keys, repeats, receipts, freeing, a clone and so a new epoch, restarts, events at
the centre, poison, holes and records about them. Production cores, driven as their loops drive them; what was said to whom is written down
with the point of the disk at which it was said.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Final

from edge_agent.core import EdgeCore, EdgeIdentity, EdgeSettings
from hub.core import Publish
from hub.store.sqlite import SqliteStore
from protocols.chains import RunKind
from protocols.codec import pack
from protocols.errors import Conflict
from protocols.event import OrderEvent
from protocols.ledger import Appended
from protocols.lifecycle import Status
from protocols.messages import Answer, Receipt, Record
from protocols.sqlite import Db
from protocols.sync.seal import Control, seal, unseal
from protocols.sync.uplink import Out, UplinkSettings
from protocols.topics import Address, Channel
from protocols.trust import NodeKey, verify
from tests.storage.disk import CrashVfs, Disk
from tests.storage.film import Film, Watched
from tests.unit.hub.hub_world import START_MS, Edge, World, order_event

DAY_MS: Final = 86_400_000
SETTINGS: Final = EdgeSettings(
    UplinkSettings(frame_facts=8, linger_ms=0, retry_ms=2_000), heartbeat_ms=5_000, pressure_percent=0, floor_ms=DAY_MS
)
"""as under pressure of the budget: what is settled and a day old goes"""
EDGE_FILE, HUB_FILE, STORE_FILE = "ledger.db", "hub.db", "store.db"
STATUSES: Final = tuple(Status)[:6]


@dataclass(frozen=True, slots=True)
class Yes:
    """What a caller was told, and when: in points of the edge's (or the hub's) disk."""

    at: int
    event: OrderEvent
    done: Appended


@dataclass(frozen=True, slots=True)
class Said:
    """A receipt or an answer of the hub, and when it was said: in points of the hub's disk."""

    at: int
    message: Answer | Receipt


@dataclass(slots=True)
class Machine:
    """One disk, the films of its files, and what its node said to the outside."""

    vfs: CrashVfs
    folder: Path
    synchronous: str
    disk: Disk
    films: dict[str, Film] = field(default_factory=dict)
    yes: list[Yes] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)

    def path(self, name: str) -> str:
        """As SQLite and the disk know a file."""
        return str(self.folder / name)

    def open(self, name: str) -> Watched:
        """A connection of the product, filmed."""
        self.vfs.disk = self.disk
        return Watched(self.path(name), self.vfs, self.films.setdefault(name, Film()), synchronous=self.synchronous)

    def power_cycled(self, files: dict[str, bytes]) -> Machine:
        """The same machine with what a power loss left on its disk."""
        return Machine(self.vfs, self.folder, self.synchronous, Disk(files))


def machine(vfs: CrashVfs, folder: Path, *, synchronous: str = "FULL", files: dict[str, bytes] | None = None) -> Machine:
    """A machine whose disk is empty, or has these files (by name, without folder)."""
    return Machine(vfs, folder, synchronous, Disk({str(folder / name): data for name, data in (files or {}).items()}))


class Dock(Edge):
    """An edge with the settings of this world; on a machine, or with its ledger in memory."""

    machine: Machine | None = None

    def boot(self) -> None:
        """See `Edge.boot`."""
        self.core = dock_core(self.db, self.address, self.key, self.world.key, self.seed)

    def request(self, events: list[OrderEvent]) -> list[Appended]:
        """Capture events; what was answered is written down."""
        self.core.begin()
        done: list[Appended] = []
        try:
            done = self.core.take_events(events, self.now)
        except Conflict:
            pass
        self.core.commit()
        if self.machine is not None:
            self.machine.yes += [Yes(self.machine.disk.now, e, d) for e, d in zip(events, done, strict=False)]
        return done

    def restart(self) -> None:
        """The process ends in order and begins again."""
        assert self.machine is not None
        self.db.close()
        self.db = self.machine.open(EDGE_FILE)
        self.seed += 1
        self.boot()
        self.link()


def dock_core(db: Db, address: Address, key: NodeKey, hub: NodeKey, seed: int) -> EdgeCore:
    """An edge's core as this world makes it; its own stream exists, as after the runtime's start."""
    core = EdgeCore(db, EdgeIdentity(address, "hub", hub.public), key.sign, verify, Random(seed), SETTINGS)
    core.begin()
    core.ledger.own()
    core.commit()
    return core


class Filmed(World):
    """The world. `edges[0]` and the hub stand on machines, the other edges in memory."""

    def __init__(self, vfs: CrashVfs, folder: Path, *, synchronous: str = "FULL") -> None:
        self.edge_machine = machine(vfs, folder, synchronous=synchronous)
        self.hub_machine = machine(vfs, folder, synchronous=synchronous)
        super().__init__()
        self.store.close()
        self.db.close()
        self.db = self.hub_machine.open(HUB_FILE)
        self.hub = self._core()
        self.store = self._open_store()
        self.dock: Dock = self._dock("dock-1", self.edge_machine.open(EDGE_FILE), self.edge_machine)
        self.other = self._dock("dock-2", Db(":memory:"))

    def _open_store(self) -> SqliteStore:
        db = self.hub_machine.open(STORE_FILE)
        store = SqliteStore(db)
        db.query("PRAGMA wal_autocheckpoint=60")
        return store

    def _dock(self, node: str, db: Db, on: Machine | None = None) -> Dock:
        key = NodeKey(node.encode().ljust(32, b"-"))
        dock = Dock(self, key, Address("acme", "EMEA", "Madrid", node), db, len(self.edges) + 1)
        dock.machine = on
        self.edges.append(dock)
        if self.hub.registry.get(node) is None:
            self.admit(dock)
        dock.link()
        return dock

    def _send(self, effects: list[Publish]) -> None:
        for effect in effects:
            opened = unseal(effect.payload)
            if isinstance(opened, Control):
                message = opened.message()
                if isinstance(message, Answer | Receipt):
                    self.hub_machine.said.append(Said(self.hub_machine.disk.now, message))
        super()._send(effects)

    # ------------------------------------------------------------ what happens

    def restart_hub(self) -> None:
        """Both files are closed and opened again."""
        self.db.close()
        self.store.close()
        self.db = self.hub_machine.open(HUB_FILE)
        self.restart()
        self.store = self._open_store()

    def hub_says(self, *events: OrderEvent) -> None:
        """Source systems at the centre."""
        self.hub.begin()
        done = self.hub.take_events(list(events), self.now_ms)
        self.hub.commit()
        at = self.hub_machine.disk.now
        self.hub_machine.yes += [Yes(at, e, d) for e, d in zip(events, done, strict=True)]
        self._send(self.hub.effects(self.now_ms))

    def poison(self, dock: Dock) -> None:
        """A fact that no hub can read, well signed."""
        dock.core.begin()
        dock.core.ledger._log_own(dock.core.ledger.own(), pack([1, "x", b"?", {}, 99]), None, self.now_ms)
        dock.core.uplink.on_appended(self.now_ms)
        dock.core.commit()

    def lose_and_record(self) -> None:
        """A second edge goes on after facts that nobody will ever see, and says so with a signed record."""
        dock = self.other
        self.run(3)
        stream = dock.core.ledger.own()
        first, h_before = stream.head[0] + 1, stream.head[1]
        dock.says("gone", "PLACED", "PICKED")
        last, h_last = stream.head
        dock.speaks()  # into the void
        self.bend = lambda node, payload: _without(node, payload, dock.address.node, first, last)
        dock.says("after", "PLACED")
        self.run(3)
        body = Record(stream.key.epoch, stream.key.cls, first, h_before, last, h_last, RunKind.LOST, self.now_ms)
        out = Out(Channel.CONTROL, Record.KIND, [], body.to_list())
        self.deliver(dock.address.node, seal(out, dock.address.node, "hub", dock.key.sign))

    def clone(self) -> None:
        """The card of the first edge is copied; the copy says something that the hub hears, and goes away again."""
        self.dock.cut()
        twin = self._dock(self.dock.address.node, Db.load(self.dock.db.dump()))
        twin.says("cloned", "PLACED")
        self.run(3)
        self.edges.remove(twin)
        twin.db.close()
        self.dock.request([order_event("not-cloned", "PLACED", self.now_ms)])
        self.dock.link()


def _without(node: str, payload: bytes, whose: str, first: int, last: int) -> list[bytes]:
    """Frames that hold any of these seqs get lost."""
    opened = unseal(payload)
    if node != whose or isinstance(opened, Control):
        return [payload]
    header = opened[1]
    return [] if header.first <= last and first < header.first + header.count else [payload]


# ------------------------------------------------------------ the script


def events(rng: Random, now_ms: int, keys: list[OrderEvent]) -> list[OrderEvent]:
    """One request: new events, some with keys, sometimes one that was said before."""
    if keys and rng.random() < 0.15:
        return [rng.choice(keys)]
    made = []
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        key = f"key-{rng.getrandbits(40):x}" if rng.random() < 0.4 else None
        plain = order_event(f"order-{rng.randrange(30)}", rng.choice(STATUSES).name, now_ms)
        details: dict[str, object] = {"note": "x" * rng.choice((0, 20, 400))} if rng.random() < 0.3 else {}
        made.append(replace(plain, details=details, idempotency_key=key))
    keys += [e for e in made if e.idempotency_key is not None]
    return made


def play(world: Filmed, seed: int, transactions: int) -> None:
    """Until edge and hub have each committed so many times, and the store a quarter of that."""
    rng, keys = Random(seed), []  # type: ignore[var-annotated]
    edge, hub, store = world.edge_machine.films[EDGE_FILE], world.hub_machine.films[HUB_FILE], world.hub_machine.films[STORE_FILE]
    step = 0
    while min(len(edge.commits), len(hub.commits), 4 * len(store.commits)) <= transactions or step < transactions // 4:
        step += 1
        _once(world, rng, keys, step)
    world.dock.db.close()
    world.db.close()
    world.store.close()


def _once(world: Filmed, rng: Random, keys: list[OrderEvent], step: int) -> None:
    world.dock.request(events(rng, world.now_ms, keys))
    if step % 3 == 0:
        world.other.says(f"order-{rng.randrange(30)}", rng.choice(STATUSES).name)
    if step % 5 == 0:
        world.hub_says(order_event(f"order-{rng.randrange(30)}", rng.choice(STATUSES).name, world.now_ms))
    world.run(1)
    at = step % 30
    if at == 9:
        world.dock.restart()
    elif at == 14:
        world.restart_hub()
    elif at == 19:
        world.poison(world.dock if step > 45 else world.other)  # what stands in quarantine is not freed
    elif at == 27:
        world.dock.db.shrink(4)
    elif step == 24:
        world.clone()
    elif step == 35:
        world.lose_and_record()
    if step % 4 == 0:
        world.now_ms += DAY_MS // 2


__all__ = ["START_MS", "Filmed", "Machine", "Said", "Yes", "dock_core", "machine", "play"]
