"""The bridge in the hub's loop, and a projector: engine, cursor, bus and store together, with a bus that fails as a real one does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hub import bridge as bridge_module
from hub import project as project_module
from hub.bridge import Bridge, status, troubles
from hub.bridge_desk import BridgeDesk
from hub.bridge_topics import DEAD, EVENTS, PROJECTED
from hub.bus import BusRecord, Place, Taken
from hub.dead_letters import chosen, letters, replay
from hub.engine import Engine, Ports, Rhythm
from hub.project import Projection
from hub.projector import Projector
from hub.runtime import now_ms
from hub.store.port import Applied, CentralStore
from hub.store.sqlite import SqliteStore
from protocols.errors import ConfigError, InvalidInput, LedgerBroken
from tests.support.memory_bus import Failure, MemoryAdmin, MemoryBus, MemoryReader, MemorySender
from tests.unit.hub.test_engine import Doors, event, in_loop, settled, until

AGAIN_MS = 10_000


class Bridged(Doors):
    """Doors of an engine that hands over through a bus; the store is the projectors'."""

    def __init__(self, folder: Path, bus: MemoryBus) -> None:
        super().__init__(folder)
        self.bus = bus
        self.tokens = 0
        self.engine: Engine | None = None
        self.bridge = Bridge(lambda: MemorySender(bus, PROJECTED), lambda b: BridgeDesk(b.offer, AGAIN_MS), self.woken)

    def woken(self) -> None:
        if self.engine is not None:
            self.engine.touched()

    def writer(self) -> CentralStore:
        return self.open_store()

    def open_store(self) -> CentralStore:
        if self.store_error is not None:
            raise self.store_error
        return SqliteStore(self.folder / "store.db", shared=True)

    def ports(self) -> Ports:
        return Ports(self.open_core, self.open_store, self.publish, self.applied.append, now_ms, lambda _: None, desk=self.bridge.desk)

    def projection(self, at_once: int = 1_000) -> Projection:
        def token() -> int:
            self.tokens += 1
            return self.tokens

        dead = [name + DEAD for name in PROJECTED]
        return Projection(
            Projector(self.writer, token, now_ms),
            lambda: MemoryReader(self.bus, PROJECTED, at_once=at_once),
            lambda: MemorySender(self.bus, dead),
        )


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus(dict.fromkeys(PROJECTED, 3) | {name + DEAD: 1 for name in PROJECTED})


@pytest.fixture
def doors(tmp_path: Path, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> Bridged:
    for module in (bridge_module, project_module):
        monkeypatch.setattr(module, "BACKOFF_FIRST_S", 0.01)
        monkeypatch.setattr(module, "BACKOFF_MOST_S", 0.05)
    monkeypatch.setattr(bridge_module, "CHECK_S", 0.05)
    monkeypatch.setattr("hub.engine.BACKOFF_FIRST_MS", 20)
    monkeypatch.setattr("hub.engine.BACKOFF_MOST_MS", 50)
    monkeypatch.setattr("hub.lookout.LOOK_EVERY_MS", 5)
    monkeypatch.setattr("hub.first_word.GRACE_MS", 1_000)
    monkeypatch.setattr("hub.ask_pace.ASK_FIRST_MS", 5)
    monkeypatch.setattr("hub.ask_pace.ASK_MOST_MS", 20)
    return Bridged(tmp_path, bus)


@asynccontextmanager
async def running(doors: Bridged) -> AsyncIterator[Engine]:
    engine = doors.engine = Engine(doors.ports(), Rhythm(store_check_ms=100))
    await engine.open()
    doors.bridge.start()
    task = asyncio.create_task(engine.run())
    try:
        yield engine
    finally:
        await doors.bridge.stop()
        engine.stop()
        await asyncio.wait_for(task, 5)
        await engine.close()


@asynccontextmanager
async def projecting(*projections: Projection) -> AsyncIterator[list[asyncio.Event]]:
    stops = [asyncio.Event() for _ in projections]
    tasks = [asyncio.create_task(one.run(stop)) for one, stop in zip(projections, stops, strict=True)]
    try:
        yield stops
    finally:
        for stop in stops:
            stop.set()
        await asyncio.gather(*tasks)


async def say(engine: Engine, orders: Iterable[str]) -> None:
    for order in orders:
        await engine.append([event(order)])


def orders(count: int, start: int = 0) -> list[str]:
    return [f"A{n}" for n in range(start, start + count)]


def ids(bus: MemoryBus) -> list[bytes]:
    return [dict(one.headers)["ce_id"] for one in bus.all(EVENTS)]


def test_facts_go_over_the_bus_into_the_store_once_and_settle(doors: Bridged, bus: MemoryBus) -> None:
    async def story() -> None:
        async with running(doors) as engine, projecting(doors.projection()):
            await say(engine, orders(20))
            await until(lambda: settled(engine) == 20, "settled")
            assert len(ids(bus)) == len(set(ids(bus))) == 20
            assert troubles(doors.bridge) == []
            await until(lambda: status(doors.bridge, now_ms())["unsettled"] == 0, "nothing waits")  # type: ignore[index]
            await until(lambda: sum(len(applied.changes) for applied in doors.applied) == 20, "the live feed was told")

    in_loop(story)


def test_only_the_stores_word_settles(doors: Bridged, bus: MemoryBus) -> None:
    async def story() -> None:
        async with running(doors) as engine:
            await say(engine, orders(3))
            await until(lambda: len(bus.all(EVENTS)) == 3, "in the bus")
            await until(lambda: doors.bridge.desk.seen.unsettled == 3, "waits for the store")
            assert settled(engine) == 0
            async with projecting(doors.projection()):
                await until(lambda: settled(engine) == 3, "settled")

    in_loop(story)


@pytest.mark.parametrize("failure", [pytest.param(one, id=one.name.lower()) for one in Failure])
def test_a_sender_that_fails_in_any_way_is_thrown_away_and_nothing_is_missing(doors: Bridged, bus: MemoryBus, failure: Failure) -> None:
    """WEDGED is aiokafka#1017: an idempotent producer that refuses all that follows, until the process is restarted."""

    async def story() -> None:
        async with running(doors) as engine, projecting(doors.projection()):
            await say(engine, orders(5))
            await until(lambda: settled(engine) == 5, "settled")
            before = bus.senders
            bus.fail = [failure, failure]
            await say(engine, orders(5, 5))
            await until(lambda: settled(engine) == 10, "settled, though two senders failed")
            assert bus.senders - before == 2
            assert len(set(ids(bus))) == 10, "the same fact, the same id"

    in_loop(story)


def test_a_bus_that_is_away_is_named_and_facts_are_taken_all_the_same(doors: Bridged, bus: MemoryBus) -> None:
    async def story() -> None:
        bus.away = True
        async with running(doors) as engine:
            await say(engine, orders(7))
            await until(lambda: doors.bridge.desk.seen.backlog == 7, "the backlog is seen")
            assert troubles(doors.bridge) == ["the bridge to Kafka is down: the bus is away"]
            said = status(doors.bridge, now_ms() + 5_000)
            assert said is not None and said["backlogAgeMs"] >= 5_000 and said["errors"] > 0
            async with projecting(doors.projection()):
                bus.away = False
                await until(lambda: settled(engine) == 7, "settled by itself")
            assert troubles(doors.bridge) == []
            bus.away = True
            await until(lambda: troubles(doors.bridge) != [], "seen though nothing is to be sent")

    in_loop(story)


def test_a_bus_that_goes_while_it_owes_an_answer_is_named_before_the_time_for_that_is_over(doors: Bridged, bus: MemoryBus) -> None:
    async def story() -> None:
        async with running(doors) as engine, projecting(doors.projection()):
            await say(engine, orders(5))
            await until(lambda: settled(engine) == 5, "settled")
            bus.silence()
            await say(engine, orders(5, 5))
            senders = bus.senders
            bus.away = True
            await until(lambda: troubles(doors.bridge) != [], "named")
            assert bus.senders == senders, "what is on its way is not given up by that"
            bus.away = False
            bus.answer()
            await until(lambda: settled(engine) == 10, "settled by itself")
            assert troubles(doors.bridge) == []
            assert bus.senders == senders

    in_loop(story)


def test_what_the_bus_acknowledged_and_lost_goes_again(doors: Bridged, bus: MemoryBus) -> None:
    doors.bridge.desk._again_ms = 200

    async def story() -> None:
        async with running(doors) as engine:
            await say(engine, orders(4))
            await until(lambda: len(bus.all(EVENTS)) == 4, "in the bus")
            for lies in bus.log.values():
                lies.clear()
            async with projecting(doors.projection()):
                await until(lambda: settled(engine) == 4, "settled")
            assert doors.bridge.desk.counts.again_total >= 4

    in_loop(story)


def test_a_store_that_is_away_stops_neither_taking_nor_the_bus(doors: Bridged, bus: MemoryBus) -> None:
    async def story() -> None:
        async with running(doors) as engine, projecting(doors.projection()):
            await say(engine, orders(2))
            await until(lambda: settled(engine) == 2, "settled")
            doors.store_error = LedgerBroken("the store is away")
            await engine.with_store(lambda store: store.close())
            await say(engine, orders(3, 2))
            await until(lambda: len(set(ids(bus))) == 5, "in the bus")
            doors.store_error = None
            await until(lambda: settled(engine) == 5, "settled")

    in_loop(story)


def test_a_store_that_answered_again_is_opened_again_as_soon_when_it_goes_the_next_time(
    doors: Bridged, bus: MemoryBus, caplog: pytest.LogCaptureFixture
) -> None:
    """The hub only reads it: that it answers is all that can go well."""

    def waits() -> list[int]:
        return [
            int(record.getMessage().split("again in ")[1].split()[0]) for record in caplog.records if "is opened again in" in record.msg
        ]

    async def story() -> None:
        async with running(doors) as engine, projecting(doors.projection()):
            for n in range(2):
                doors.store_error = LedgerBroken("the store is away")
                await engine.with_store(lambda store: store.close())
                await until(lambda n=n: len(waits()) >= 2 * n + 2, "tried again")  # type: ignore[misc]
                doors.store_error = None
                await say(engine, orders(2, 2 * n))
                await until(lambda n=n: settled(engine) == 2 * n + 2, "settled")  # type: ignore[misc]

    in_loop(story)
    assert waits().count(min(waits())) == 2, waits()


def test_two_projectors_share_the_work_and_one_that_ends_is_replaced(doors: Bridged, bus: MemoryBus) -> None:
    async def story() -> None:
        one, two = doors.projection(3), doors.projection(3)
        async with running(doors) as engine, projecting(one, two) as stops:
            await until(lambda: bool(one.places()) and bool(two.places()), "shared")
            await say(engine, orders(30))
            await until(lambda: settled(engine) == 30, "settled")
            assert one.counts.applied_total and two.counts.applied_total, "both had their part"
            stops[0].set()
            await until(lambda: len(two.places()) == 9, "all is the other's")
            await say(engine, orders(10, 30))
            await until(lambda: settled(engine) == 40, "settled")
            assert one.counts.applied_total + two.counts.applied_total == 40, "nothing was applied twice"

    in_loop(story)


def test_a_projector_that_was_taken_for_dead_changes_nothing_and_joins_again(doors: Bridged, bus: MemoryBus) -> None:
    async def story() -> None:
        zombie, heir = doors.projection(2), doors.projection(2)
        async with running(doors) as engine, projecting(zombie):
            await say(engine, orders(6))
            await until(lambda: settled(engine) == 6, "settled")
            assert isinstance(zombie._reader, MemoryReader)
            bus.expire(zombie._reader)
            async with projecting(heir):
                await until(lambda: len(heir.places()) == 9, "taken over")
                await say(engine, orders(20, 6))
                await until(lambda: settled(engine) == 26, "settled")
                await until(lambda: zombie.counts.fenced_total > 0 and len(zombie.places()) > 0, "it noticed, and joined again")
            rows = SqliteStore(doors.folder / "store.db", read_only=True)
            assert rows.totals()["facts"] == 26
            rows.close()

    in_loop(story)


def test_a_record_that_cannot_be_read_is_a_dead_letter_and_what_follows_is_applied(doors: Bridged, bus: MemoryBus) -> None:
    async def story() -> None:
        async with running(doors) as engine, projecting(doors.projection()):
            bus.put(BusRecord(EVENTS, b"acme/A1", b"{}", [("ce_id", b"strange")], 5))
            await say(engine, orders(3))
            await until(lambda: settled(engine) == 3, "settled")
            await until(lambda: len(bus.all(EVENTS + DEAD)) == 1, "set aside")
        (letter,) = await letters(MemoryAdmin(bus), 10)
        assert letter.row()["error"] == "ls_fact: missing; this is no record of a hub"
        assert letter.row()["from"].startswith(f"{EVENTS}/") and letter.row()["ceId"] == "strange" and not letter.replayed

    in_loop(story)


def test_dead_letters_are_replayed_as_they_were_and_marked(bus: MemoryBus) -> None:
    async def story() -> None:
        told = [("ce_id", b"x"), ("dlq_topic", EVENTS.encode()), ("dlq_offset", b"7"), ("dlq_error", b"why")]
        for n in range(2):
            bus.put(BusRecord(EVENTS + DEAD, b"k", b'{"n":%d}' % n, told, 5))
        admin, sender = MemoryAdmin(bus), MemorySender(bus, [EVENTS])
        found = await letters(admin, 10)
        assert [one.id for one in found] == [f"{EVENTS}@0", f"{EVENTS}@1"]
        with pytest.raises(InvalidInput, match="no dead letter"):
            chosen(found, [f"{EVENTS}@9"])
        assert await replay(sender, chosen(found, [f"{EVENTS}@1"]), 9) == []
        assert [(one.value, one.headers) for one in bus.all(EVENTS)] == [(b'{"n":1}', [("ce_id", b"x")])]
        assert [(one.id, one.replayed) for one in await letters(admin, 10)] == [(f"{EVENTS}@0", False), (f"{EVENTS}@1", True)]
        assert [one.id for one in chosen(await letters(admin, 10), [])] == [f"{EVENTS}@0"]

    in_loop(story)


def test_a_fact_on_which_the_store_fails_alone_is_set_aside_and_the_others_are_applied(doors: Bridged, bus: MemoryBus) -> None:
    real = doors.writer

    def writer() -> CentralStore:
        store: Any = real()
        apply = store.apply

        def may_fail(facts: Any, records: Any, now: int, offsets: Any = None) -> Applied:
            if any(b"A2" in f.row for f in facts):
                raise ZeroDivisionError("a bug of the store")
            done: Applied = apply(facts, records, now, offsets)
            return done

        store.apply = may_fail
        return store

    doors.writer = writer  # type: ignore[method-assign]

    async def story() -> None:
        async with running(doors) as engine, projecting(doors.projection()):
            await say(engine, orders(5))
            await until(lambda: settled(engine) == 4, "the others are settled")
            await until(lambda: len(bus.all(EVENTS + DEAD)) >= 1, "set aside")
        assert {one.key for one in bus.all(EVENTS + DEAD)} == {b"acme/A2"}

    in_loop(story)


def test_what_somebody_must_change_ends_a_projector_with_what_to_do(doors: Bridged, bus: MemoryBus) -> None:
    del bus.partitions[EVENTS]

    async def story() -> None:
        with pytest.raises(ConfigError, match="longshore-hub topics create"):
            await doors.projection().run(asyncio.Event())

    in_loop(story)


def test_an_idle_projector_notices_that_the_stores_server_went_away(
    doors: Bridged, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[Exception] = []

    def still_there(_: CentralStore) -> None:
        if gone:
            doors.store_error = gone[0]
            raise gone[0]

    monkeypatch.setattr(SqliteStore, "still_there", still_there, raising=False)
    monkeypatch.setattr(project_module, "WORD_S", 0.02)
    monkeypatch.setattr(project_module, "POLL_MS", 10)

    async def story() -> None:
        one = doors.projection()
        async with projecting(one):
            await until(lambda: bool(one.places()) and not one.error, "it projects")
            gone.append(LedgerBroken("the server is gone"))
            await until(lambda: one.error == "the server is gone", "missed")
            gone.clear()
            doors.store_error = None
            await until(lambda: bool(one.places()) and not one.error, "found again")

    in_loop(story)


def test_a_batch_read_before_partitions_changed_hands_is_not_applied_after() -> None:
    store = SqliteStore(":memory:")
    tokens = iter((1, 2))
    projector = Projector(lambda: store, lambda: next(tokens), now_ms)
    place = Place(EVENTS, 0)
    assert projector.claim([place]) == {place: None}
    strange = Taken(place, 4, b"k", b"", [], 0)
    work = projector.read({place: [strange], Place(EVENTS, 1): [strange]})
    assert [move.next_offset for move in work.moves] == [5], "of partitions that were not claimed nothing is taken"
    projector.apply(work)
    assert projector.positions() == {place: 5}
    projector.release()
    assert projector.read({place: [strange]}).moves == ()
    assert projector.claim([place]) == {place: 5}
    projector.close()
