"""What goes over the bus, what goes again and when: the pure core of the bridge, on a world of edges, hub and store."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from edge_agent.core import EdgeSettings
from hub.bridge_desk import BridgeDesk
from hub.bridge_records import Encoder, read
from hub.bridging import AGAIN_FACTS, Batch, Bridging
from hub.bus import Place, Taken
from hub.engine_ports import EngineCounts
from hub.store.port import StoreFact, StoreRecord
from hub.store.sqlite import SqliteStore
from protocols.chains import RunKind
from protocols.codec import Kind
from protocols.messages import Record
from protocols.sqlite import Db
from protocols.sync.seal import Control, seal, unseal
from protocols.sync.uplink import Out, UplinkSettings
from protocols.topics import Channel
from tests.support.often import seeds
from tests.unit.hub.hub_world import World

T = 60_000


class Line:
    """A world whose hub hands over through a bridge; the test is the bus and the projector."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.dock = self.world.edge("dock-7")
        self.world.ask_store()
        self.bridging = self.made()

    def made(self) -> Bridging:
        hub = self.world.hub
        return Bridging(hub.ledger, hub.handing, T, self.world.now_ms)

    def says(self, *orders: str) -> None:
        """At the edge, and up to the hub."""
        for order in orders:
            self.dock.says(order, "PLACED")
        self.world.run(3, 10, store=False)

    def batch(self, limit: int = 1_000) -> Batch | None:
        return self.bridging.next_batch(limit, self.world.now_ms)

    def sent(self, limit: int = 1_000) -> list[StoreFact]:
        """Until nothing is left: what the bus took."""
        out: list[StoreFact] = []
        while (batch := self.batch(limit)) is not None:
            self.acknowledge(batch)
            out += batch.facts
        return out

    def acknowledge(self, *batches: Batch) -> None:
        self.world.hub.begin()
        for batch in batches:
            self.bridging.acknowledged(batch.number, self.world.now_ms)
        self.world.hub.commit()

    def project(self, facts: list[StoreFact]) -> None:
        """The projector applies them; the hub is not told yet."""
        self.world.store.apply(facts, [], self.world.hub_ms)

    def hears(self) -> int:
        """The store's word on everything."""
        self.world.ask_store()
        return self.bridging.stated([*self.world.hub.handing.stated, *self.bridging.waiting()], self.world.now_ms)

    def restart(self) -> None:
        self.world.restart()
        self.bridging = self.made()

    def places(self) -> int:
        return self.bridging.unsettled()[0]


@pytest.fixture
def line() -> Line:
    return Line()


def test_each_fact_is_sent_once_and_waits_for_the_store(line: Line) -> None:
    line.says("A1", "A2", "A3")
    facts = line.sent(2)
    assert [f.seq for f in facts] == [1, 2, 3]
    assert line.batch() is None
    assert line.places() == 3
    line.project(facts)
    assert line.hears() == 3
    assert line.bridging.waiting() == [] and line.batch() is None


def test_what_is_under_way_is_not_given_twice_and_what_failed_is_given_again_in_its_order(line: Line) -> None:
    line.says("A1", "A2", "A3", "A4")
    one, two = line.batch(2), line.batch(2)
    assert one is not None and two is not None and line.batch() is None
    assert [f.seq for f in (*one.facts, *two.facts)] == [1, 2, 3, 4]
    line.bridging.failed(one.number)
    line.bridging.failed(two.number)
    assert [f.seq for f in line.sent()] == [1, 2, 3, 4]


def test_an_acknowledgement_settles_nothing_and_time_alone_sends_nothing_again(line: Line) -> None:
    line.says("A1")
    line.sent()
    line.world.now_ms += 10 * T
    assert line.batch() is None, "the store has not spoken since"
    assert line.world.hub.receiver.settled(line.dock.key_of_stream, 1) is False


def test_what_the_store_lacks_after_t_goes_again_and_then_ever_more_seldom(line: Line) -> None:
    line.says("A1", "A2")
    line.project(line.sent()[:1])
    at = []
    for _ in range(1, 40):
        line.world.now_ms += T // 4
        line.hears()
        batch = line.batch()
        if batch is not None:
            assert [f.seq for f in batch.facts] == [2]
            line.acknowledge(batch)
            at.append((line.world.now_ms, batch.tries))
    assert [tries for _, tries in at] == [1, 2, 3]
    gaps = [b - a for (a, _), (b, _) in pairwise(at)]
    assert gaps == [2 * T, 4 * T]
    assert line.bridging.counts.again_total == 3


def test_fresh_facts_and_those_that_go_again_take_turns(line: Line) -> None:
    line.says("A1", "A2")
    line.sent()
    line.world.now_ms += 2 * T
    line.hears()
    line.says("A3", "A4")
    one, two, three = line.batch(1), line.batch(1), line.batch(1)
    assert [b.tries for b in (one, two, three) if b is not None] == [0, 1, 0]


def test_a_projector_that_is_away_does_not_fill_the_bus(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.bridging.AGAIN_FACTS", 3)
    line.says(*(f"A{n}" for n in range(10)))
    line.sent()
    line.world.now_ms += T
    line.hears()
    assert len(line.sent()) == 3, "within T, at most so many"
    assert AGAIN_FACTS > 3
    line.world.now_ms += T
    line.hears()
    assert len(line.sent()) == 3


def test_a_hub_that_starts_again_goes_on_where_it_was(line: Line) -> None:
    line.says("A1", "A2")
    line.project(line.sent())
    line.says("A3")
    line.sent()
    line.restart()
    assert line.bridging.begun
    assert line.batch() is None, "all was sent before; the store has not spoken"
    line.hears()
    assert line.places() == 1 and line.batch() is None
    line.world.now_ms += T
    line.hears()
    assert [f.seq for f in line.sent()] == [3]
    line.says("A4")
    assert [f.seq for f in line.sent()] == [4]


def test_a_crash_before_the_commit_sends_again_and_nothing_is_left_out(line: Line) -> None:
    line.says("A1", "A2")
    batch = line.batch()
    assert batch is not None
    line.restart()
    line.hears()
    assert [f.seq for f in line.sent()] == [1, 2]


def test_the_cursor_is_one_run_per_stream(line: Line) -> None:
    for n in range(6):
        line.says(f"A{n}")
        line.sent()
    assert line.world.db.query("SELECT first, last FROM bridged") == [(1, 6)]


def test_a_store_that_went_back_is_refilled(line: Line) -> None:
    line.says("A1", "A2")
    line.project(line.sent())
    image = line.world.store._db.dump()
    line.says("A3", "A4")
    line.project(line.sent())
    line.hears()
    assert line.places() == 0
    line.world.store = SqliteStore(Db.load(image))
    line.hears()
    assert line.places() == 2, "sent, and not there any more"
    assert line.batch() is None, "the bus may have them still"
    line.world.now_ms += T
    line.hears()
    line.project(line.sent())
    assert line.hears() == 0 or line.places() == 0
    assert line.world.store.totals()["facts"] == 4


def test_a_ledger_whose_facts_the_store_has_already_sends_none_of_them(line: Line) -> None:
    """A hub that applied to the store itself is given a bridge."""
    line.says("A1", "A2")
    line.world.store_turn()
    line.restart()
    assert not line.bridging.begun
    line.hears()
    line.says("A3")
    assert [f.seq for f in line.sent()] == [3]


def test_a_clock_that_is_set_back_makes_nobody_wait_for_years(line: Line) -> None:
    line.says("A1")
    line.sent()
    line.world.now_ms -= 1_000 * T
    line.hears()
    line.world.now_ms += T
    line.hears()
    assert [f.seq for f in line.sent()] == [1]


def test_backlog_and_its_age_count_what_the_bus_has_not(line: Line) -> None:
    assert line.bridging.backlog() == (0, None)
    line.says("A1", "A2", "A3")
    came = line.world.now_ms
    assert line.bridging.backlog()[0] == 3
    batch = line.batch(1)
    assert batch is not None
    line.world.now_ms += 5_000
    count, since = line.bridging.backlog()
    assert count == 3 and since is not None and came - 100 <= since <= came
    line.acknowledge(batch)
    assert line.bridging.backlog()[0] == 2


def test_words_on_holes_and_poison_go_over_the_bus_too() -> None:
    """Through records of the bus and back, as a projector reads them; the store then accounts for every place."""
    world = World(edge_settings=EdgeSettings(UplinkSettings(frame_facts=3, linger_ms=0)))
    line = Line(world)
    dock, frames = line.dock, dict[int, bytes]()
    dock.cut()
    dock.says("A1", *["PLACED"] * 9)
    stream = dock.core.ledger.own()

    def kept(_node: str, payload: bytes) -> list[bytes]:
        opened = unseal(payload)
        if isinstance(opened, Control):
            return [payload]
        frames[opened[1].first] = payload
        return []

    world.bend = kept
    dock.link()
    world.run(3, store=False)
    dock.cut()
    for first in (1, 7):
        world.deliver("dock-7", frames[first])
    found = dock.core.ledger.log.read(stream, 3, 6, max_bytes=100_000, max_facts=10)
    word = Record(stream.key.epoch, 0, 4, found[0].h, 6, found[-1].h, RunKind.LOST, world.now_ms)
    world.deliver("dock-7", seal(Out(Channel.CONTROL, Kind.RECORD, [], word.to_list()), "dock-7", "hub", dock.key.sign))
    batch = line.batch()
    assert batch is not None and sorted(f.seq for f in batch.facts) == [1, 2, 3, 7, 8, 9] and len(batch.records) == 1
    line.acknowledge(batch)
    assert line.batch() is None
    poison = batch.facts[0]._replace(quarantined="nobody can read it")
    sent = [Encoder().record(r) for r in batch.records] + [Encoder().fact(f) for f in (poison, *batch.facts[1:])]
    came = [read(Taken(Place(r.topic, 0), 0, r.key, r.value, list(r.headers), r.timestamp_ms)) for r in sent]
    records = [one for one in came if isinstance(one, StoreRecord)]
    world.store.apply([one for one in came if isinstance(one, StoreFact)], [], world.hub_ms)
    world.now_ms += T
    line.hears()
    again = line.batch()
    assert again is not None and again.facts == [] and len(again.records) == 1, "the word is sent again, too"
    line.acknowledge(again)
    world.store.apply([], records, world.hub_ms)
    line.hears()
    assert line.places() == 0 and line.batch() is None
    counts = world.counts(stream.key)
    assert counts is not None and (counts.facts, counts.quarantined, counts.records) == (5, 1, {"lost": 3})


@pytest.mark.parametrize("seed", seeds(12, quick=3))
def test_whatever_the_bus_loses_and_doubles_everything_gets_into_the_store(seed: int) -> None:
    rng, line, said = Random(seed), Line(), 0
    print(f"seed {seed}")
    waiting: list[Batch] = []
    for _ in range(60):
        line.world.now_ms += rng.randrange(T // 3)
        if rng.random() < 0.4:
            line.says(*(f"A{said + n}" for n in range(rng.randrange(1, 6))))
            said += 5
        batch = line.batch(rng.choice((1, 3, 50)))
        waiting += [batch] if batch is not None else []
        if waiting and rng.random() < 0.7:
            one = waiting.pop(rng.randrange(len(waiting)))
            fate = rng.random()
            if fate < 0.6:  # it arrives, whether or not this is heard
                line.project(rng.sample(one.facts, len(one.facts)))
            if fate < 0.8:
                line.acknowledge(one)
            else:
                line.bridging.failed(one.number)
        if rng.random() < 0.5:
            line.hears()
        if rng.random() < 0.05:
            line.restart()
            waiting = []
    for one in waiting:
        line.bridging.failed(one.number)
    for _ in range(12):
        line.project(line.sent())
        line.world.now_ms += 64 * T
        line.hears()
    held = sum(r.last - r.first + 1 for s in line.world.hub.ledger.log.all() for r in s.chain.data())
    assert line.places() == 0 and line.world.store.totals()["facts"] == held > 0


# ------------------------------------------------------------------ the desk


def offered_by(line: Line) -> tuple[BridgeDesk, list[int]]:
    """A desk, and how many facts each batch had that it offered."""
    sizes: list[int] = []
    return BridgeDesk(lambda _, batch: sizes.append(len(batch.facts)), T), sizes


def test_a_clock_that_is_set_back_holds_nothing_up() -> None:
    line = Line()
    desk, sizes = offered_by(line)
    line.says("A1")
    desk.turn(line.world.hub, line.world.now_ms, EngineCounts())
    line.says("A2")
    desk.turn(line.world.hub, line.world.now_ms - 3_600_000, EngineCounts())
    assert sizes == [1, 1]
