"""Cutting the power: at a point of a trace, then reading what is left with the product's code, and going on from there."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from edge_agent.core import Now
from hub.core import HubCore, HubIdentity
from hub.store.sqlite import SqliteStore
from protocols.errors import LongshoreError
from protocols.sqlite import Db
from protocols.topics import Address
from protocols.trust import NodeKey, verify
from tests.storage import verify as check
from tests.storage.disk import EVERYTHING, NOTHING, Mood, Surface, crash_vfs, draw
from tests.storage.film import Watched
from tests.storage.verify import Violation, demand
from tests.storage.world import EDGE_FILE, HUB_FILE, STORE_FILE, Filmed, Machine, Yes, dock_core, play
from tests.unit.hub.hub_world import START_MS, order_event

TRANSACTIONS: Final = 200
LATER_MS: Final = START_MS + 400 * 86_400_000


@dataclass(slots=True)
class Tally:
    """What was done, and what was found."""

    points: int = 0
    cuts: int = 0
    second_cuts: int = 0
    went_on: int = 0
    states: int = 0
    seconds: float = 0.0
    broken: dict[str, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Both together; the seconds are of computing."""
        for name in ("points", "cuts", "second_cuts", "went_on", "states", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for kind, n in other.broken.items():
            self.broken[kind] = self.broken.get(kind, 0) + n
        self.complaints += other.complaints

    @property
    def failed(self) -> int:
        """Cuts after which a promise was broken."""
        return sum(self.broken.values())

    def text(self) -> str:
        """For people."""
        rate = self.cuts / self.seconds if self.seconds else 0.0
        return (
            f"{self.points:,} points, {self.cuts:,} cuts ({rate:,.0f}/s of CPU), of these {self.went_on:,} went on, "
            f"{self.second_cuts:,} were cut again, {self.states:,} states read in depth, {self.failed:,} broken promises"
            f"{f' {self.broken}' if self.broken else ''}"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """Which cuts: every point that is `shard` of `shards` once, then so many at `random`. `go_on`: one in so many."""

    seed: int = 0
    shard: int = 0
    shards: int = 1
    every_point: bool = True
    random: int = 0
    go_on: int = 4
    only: tuple[int, int] | None = None
    """(point, number) of the one cut to make again"""

    def cuts(self, points: int) -> list[tuple[int, int]]:
        """(point, number), by point."""
        if self.only is not None:
            return [self.only]
        each = [(p, 0) for p in range(self.shard, points + 1, self.shards)] if self.every_point else []
        rng = Random(f"{self.seed}/{self.shard}/points")
        return sorted([*each, *((rng.randrange(points + 1), 1 + i) for i in range(self.random))])


GoOn = Callable[[dict[str, Watched], list[Yes]], None]
"""From the databases as recovered, and what was acknowledged before"""


class Cutter:
    """Cuts one machine whose story is over. `node` names it in complaints; `go_on` is what its node does next."""

    def __init__(self, node: str, machine: Machine, plan: Plan, go_on: GoOn) -> None:
        self.node, self.machine, self.plan, self._node_goes_on = node, machine, plan, go_on
        self.reads = True
        """are the files those of the world, to be read in depth?"""
        self.tally = Tally(points=machine.disk.now)
        self._read: dict[tuple[str, int], None] = {}

    def run(self) -> Tally:
        """All cuts of the plan, in one pass over the journal."""
        began_s = time.process_time()
        surface, played = Surface(self.machine.disk.begun), 0
        for point, number in self.plan.cuts(self.machine.disk.now):
            while played < point:
                surface.play(self.machine.disk.ops[played])
                played += 1
            self._cut(surface, point, number)
        self.tally.seconds = time.process_time() - began_s
        return self.tally

    def _cut(self, surface: Surface, point: int, number: int) -> None:
        rng = Random(f"{self.plan.seed}/{self.node}/{point}/{number}")
        mood = rng.choice((NOTHING, EVERYTHING, draw(rng), draw(rng)))
        self.tally.cuts += 1
        try:
            self._after(surface.left(rng, mood), point, number, rng)
        except Violation as e:
            self._complain(e.kind, f"{e}", point, number, mood)
        except LongshoreError as e:
            self._complain("corrupt", f"{type(e).__name__}: {e}", point, number, mood)

    def _complain(self, kind: str, what: str, point: int, number: int, mood: Mood) -> None:
        self.tally.broken[kind] = self.tally.broken.get(kind, 0) + 1
        again = f"python -m tests.storage --seed {self.plan.seed} --only {self.node}:{point}:{number}"
        self.tally.complaints.append(f"{what}\n  {mood}\n  again: {again}")

    def _after(self, files: dict[str, bytes], point: int, number: int, rng: Random) -> None:
        left = self.machine.power_cycled(files)
        dbs: dict[str, Watched] = {}
        try:
            for name in self.machine.films:
                dbs[name] = left.open(name)
                self._recognise(name, dbs[name], point)
            if (point + number) % self.plan.go_on == 0 or self.plan.only is not None:
                self.tally.went_on += 1
                self._node_goes_on(dbs, [one for one in self.machine.yes if one.at <= point])
        finally:
            for db in dbs.values():
                db.close()
        if len(left.disk.ops) and (point + number) % self.plan.go_on == 0:
            self._cut_again(left, rng)

    def _recognise(self, name: str, db: Watched, point: int) -> None:
        """Which of the states of its film is this? One that may be there now, or a promise is broken."""
        film, now = self.machine.films[name], db.film.commits[0].state
        found = next((i for i in film.allowed(point) if film.commits[i].state == now), None)
        if found is None and 0 in film.allowed(point) and db.one("SELECT 1 FROM sqlite_master") is None:
            found = 0  # nothing was in it yet: it may have been begun with other settings
        if found is None:
            older = next((i for i, c in enumerate(film.commits) if c.state == now), None)
            last = max(film.allowed(point)[:1])
            demand(older is None, "lost", f"{name} at point {point} is back at commit {older}, {last} was acknowledged")
            raise Violation("half", f"{name} at point {point} is in a state in which no commit left it")
        if self.reads and (name, found) not in self._read and film.commits[found].image:
            self._read[name, found] = None
            self.tally.states += 1
            self._in_depth(name, found)

    def _in_depth(self, name: str, state: int) -> None:
        commits = self.machine.films[name].commits
        commit, until = commits[state], commits[state + 1].begun if state + 1 < len(commits) else self.machine.disk.now
        yes = [one for one in self.machine.yes if one.at <= until]
        said = [one for one in self.machine.said if one.at <= until]
        if not _is_made(commit.image):
            demand(not yes and not said, "lost", f"{name} is empty")
        elif name == STORE_FILE:
            check.store(commit.image, said)
        else:
            check.ledger(commit.image, "dock-1" if name == EDGE_FILE else "hub", yes, said)

    def _cut_again(self, left: Machine, rng: Random) -> None:
        """The power goes once more, somewhere between the recovery and the end of what came after."""
        self.tally.second_cuts += 1
        point = rng.randrange(left.disk.now + 1)
        surface = Surface(left.disk.begun)
        for op in left.disk.ops[:point]:
            surface.play(op)
        again = left.power_cycled(surface.left(rng, rng.choice((NOTHING, EVERYTHING, draw(rng)))))
        for name, film in left.films.items():
            db = again.open(name)
            now = db.film.commits[0].state
            db.close()
            demand(any(film.commits[i].state == now for i in film.allowed(point)), "lost", f"{name}, cut again at {point}")


def _is_made(image: bytes) -> bool:
    """Has the first migration run?"""
    db = Db.load(image)
    try:
        return db.one("SELECT 1 FROM sqlite_master WHERE name='streams'") is not None
    finally:
        db.close()


# ------------------------------------------------------------ going on


def go_on_edge(dbs: dict[str, Watched], yes: list[Yes]) -> None:
    """The next request is taken, the last one with a key is known, a hello is made."""
    core = dock_core(
        dbs[EDGE_FILE], Address("acme", "EMEA", "Madrid", "dock-1"), NodeKey(b"dock-1".ljust(32, b"-")), NodeKey(b"h" * 32), 77
    )
    keyed = next((one for one in reversed(yes) if one.event.idempotency_key is not None), None)
    now = Now(LATER_MS, LATER_MS)
    core.begin()
    if keyed is not None:
        stream = core.ledger.log.get(keyed.done.stream)
        again = core.take_events([keyed.event], now)[0]
        known = again[:3] == keyed.done[:3] and again.repeated
        demand(known or (stream is not None and keyed.done.seq <= stream.freed_seq), "lost", f"the request of {keyed.done.fact_id}")
    core.take_events([order_event("after-the-cut", "PLACED")], now)
    core.take_up(now)
    core.commit()
    demand(bool(core.effects(now)), "liveness", "nothing is said to the hub")


def go_on_hub(dbs: dict[str, Watched], _: list[Yes]) -> None:
    """Ledger and store look at each other, what one lacks the other gives, and both hold the same in the end."""
    key = NodeKey(b"h" * 32)
    core = HubCore(dbs[HUB_FILE], HubIdentity("acme", "central", "hub", key.public), key.sign, verify, Random(99))
    store = SqliteStore(dbs[STORE_FILE])
    core.begin()
    core.take_events([order_event("after-the-cut", "PLACED")], LATER_MS)
    core.commit()
    for turn in range(20):
        core.begin()
        older = core.take_statement(store.statement(None), whole=True)
        demand(not older, "half", "the store holds what its hub does not: it was handed over before it was durable")
        core.commit()
        core.effects(LATER_MS)
        facts, records = core.lacking_in_store()
        if not facts and not records:
            break
        store.apply(facts, records, LATER_MS + turn)
    else:
        raise Violation("liveness", "the store never has everything")


# ------------------------------------------------------------ whole runs


@contextmanager
def played(name: str, seed: int, transactions: int, *, synchronous: str = "FULL") -> Iterator[Filmed]:
    """A world after its script; its folder holds only empty files, for locks."""
    with crash_vfs(name) as vfs, tempfile.TemporaryDirectory(prefix="longshore-cuts-") as folder:
        world = Filmed(vfs, Path(folder), synchronous=synchronous)
        play(world, seed, transactions)
        yield world


def cut(world: Filmed, node: str, plan: Plan) -> Tally:
    """All cuts of a plan."""
    if node == "edge":
        return Cutter(node, world.edge_machine, plan, go_on_edge).run()
    return Cutter(node, world.hub_machine, plan, go_on_hub).run()
