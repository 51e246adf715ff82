"""The hub's loop against ledgers and stores that fail: what is told to whom, and that all else goes on.

The same engine as in production, over real databases in a folder, with doors that a test can close.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from random import SystemRandom
from typing import Any

import pytest

from hub import engine as engine_module
from hub import first_word, store_side
from hub.core import HubCore, HubIdentity
from hub.engine import Engine, Ports, Rhythm
from hub.fleet import Seen, look
from hub.inputs import TURN_BYTES, WAITING_EVENTS, Append, Came, Inputs
from hub.runtime import now_ms
from hub.store.port import Applied, CentralStore
from hub.store.sqlite import SqliteStore
from hub.views import balance_sentence
from protocols.errors import ConfigError, Conflict, InvalidInput, LedgerBroken, LedgerBusy, LedgerFull
from protocols.event import OrderEvent
from protocols.sqlite import Db
from protocols.topics import Channel
from protocols.trust import NodeKey, verify
from tests.support.patience import WITHIN_S
from tests.unit.hub.hub_world import World, make_card, order_event

HUB_KEY = NodeKey(b"h" * 32)


class Doors:
    """What the engine opens and publishes; each door can be closed."""

    def __init__(self, folder: Path, *, beside: bool = False) -> None:
        self.folder, self.beside = folder, beside
        self.ledger_error: Exception | None = None
        self.store_error: Exception | None = None
        self.commit_errors: list[Exception] = []
        self.apply_errors: list[Exception] = []
        self.opened_cores = self.opened_stores = 0
        self.published: list[tuple[str, bytes]] = []
        self.applied: list[Applied] = []

    def open_core(self) -> HubCore:
        if self.ledger_error is not None:
            raise self.ledger_error
        self.opened_cores += 1
        core = HubCore(
            Db(self.folder / "hub.db"), HubIdentity("acme", "central", "hub", HUB_KEY.public), HUB_KEY.sign, verify, SystemRandom()
        )
        commit = core.ledger.db.commit

        def may_fail() -> None:
            if self.commit_errors:
                raise self.commit_errors.pop(0)
            commit()

        core.ledger.db.commit = may_fail  # type: ignore[method-assign]
        return core

    def open_store(self) -> CentralStore:
        if self.store_error is not None:
            raise self.store_error
        self.opened_stores += 1
        store = SqliteStore(self.folder / "store.db")
        apply = store.apply

        def may_fail(facts: Any, records: Any, now_ms: int, offsets: Any = None) -> Applied:
            if self.apply_errors:
                raise self.apply_errors.pop(0)
            return apply(facts, records, now_ms, offsets)

        store.apply = may_fail  # type: ignore[method-assign]
        return store

    def publish(self, topic: str, payload: bytes) -> None:
        self.published.append((topic, payload))

    def ports(self) -> Ports:
        return Ports(self.open_core, self.open_store, self.publish, self.applied.append, now_ms, lambda _: None, beside=self.beside)


@pytest.fixture(params=[False, True], ids=["here", "beside"])
def doors(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doors:
    for module in (engine_module, store_side):
        monkeypatch.setattr(module, "BACKOFF_FIRST_MS", 20)
        monkeypatch.setattr(module, "BACKOFF_MOST_MS", 50)
    monkeypatch.setattr("hub.lookout.LOOK_EVERY_MS", 5)
    monkeypatch.setattr(first_word, "GRACE_MS", 1_000)
    return Doors(tmp_path, beside=request.param)


@asynccontextmanager
async def running(doors: Doors, rhythm: Rhythm | None = None) -> AsyncIterator[Engine]:
    engine = Engine(doors.ports(), rhythm)
    await engine.open()
    task = asyncio.create_task(engine.run())
    try:
        yield engine
    finally:
        engine.stop()
        await asyncio.wait_for(task, WITHIN_S)
        await engine.close()


def in_loop(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 20))


async def until(true: Callable[[], bool], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + WITHIN_S
    while not true():
        assert asyncio.get_running_loop().time() < deadline, f"never: {what}"
        await asyncio.sleep(0.005)


def settled(engine: Engine) -> int:
    return engine.seen.balance["fleet"]["settled"]


def event(order_id: str = "A1", status: str = "PLACED") -> OrderEvent:
    return order_event(order_id, status)


def test_an_answer_comes_after_the_commit_and_the_fact_settles(doors: Doors) -> None:
    async def story() -> None:
        async with running(doors) as engine:
            done = await engine.append([event()])
            assert Db(doors.folder / "hub.db", read_only=True).query("SELECT seq FROM log") == [(done[0].seq,)]
            await until(lambda: settled(engine) == 1, "settled")
            assert engine.seen.balance["fleet"]["balanced"]
            assert [change.order_id for applied in doors.applied for change in applied.changes] == ["A1"]

    in_loop(story)


@pytest.mark.parametrize("error", [LedgerFull("no space"), LedgerBroken("the disk is gone")], ids=["full", "broken"])
def test_a_commit_that_fails_is_told_to_who_waits_and_the_next_one_works(doors: Doors, error: Exception) -> None:
    async def story() -> None:
        async with running(doors) as engine:
            await engine.append([event("A0")])
            await until(lambda: settled(engine) == 1, "settled")
            doors.commit_errors.append(error)
            with pytest.raises(type(error)):
                await engine.append([event("A1")])
            await until(lambda: engine.troubles() == [], "open again")
            await engine.append([event("A2")])
            await until(lambda: settled(engine) == 2, "settled")
            assert doors.opened_cores == 2, "a new incarnation"
            assert engine.counts.rebuilt_total == 1

    in_loop(story)


def test_a_ledger_that_opens_and_fails_again_and_again_is_not_ready_and_not_hammered(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged page: the file opens, commits work, and what the store lacks cannot be read."""

    def damaged(*_: Any) -> Any:
        raise LedgerBroken("hub.db: database disk image is malformed")

    async def story() -> None:
        async with running(doors) as engine:
            with monkeypatch.context() as patch:
                patch.setattr(HubCore, "lacking_in_store", damaged)
                await until(lambda: engine.troubles() != [], "it says so")
                opened = doors.opened_cores
                for _ in range(100):
                    assert "malformed" in str(engine.troubles())
                    await asyncio.sleep(0.003)
                assert 2 <= doors.opened_cores - opened <= 20, "tried again, with back-off"
            await until(lambda: engine.troubles() == [], "works again")
            await engine.append([event()])
            await until(lambda: settled(engine) == 1, "settled")

    in_loop(story)


def test_while_the_ledger_cannot_be_opened_callers_hear_why_and_it_comes_back_by_itself(doors: Doors) -> None:
    async def story() -> None:
        async with running(doors) as engine:
            await engine.append([event("A0")])
            await until(lambda: settled(engine) == 1, "settled")
            doors.commit_errors.append(LedgerBroken("pulled out"))
            doors.ledger_error = LedgerFull("no space left")
            with pytest.raises(LedgerBroken):
                await engine.append([event()])
            await until(lambda: "no space left" in str(engine.troubles()), "it says so")
            with pytest.raises(LedgerFull):
                await engine.append([event()])
            doors.ledger_error = None
            await until(lambda: engine.troubles() == [], "open again")
            await engine.append([event()])

    in_loop(story)


@pytest.mark.parametrize("error", [LedgerFull("no space"), LedgerBroken("gone"), RuntimeError("a bug")], ids=["full", "broken", "bug"])
def test_while_the_store_fails_facts_are_taken_and_they_settle_later(doors: Doors, error: Exception) -> None:
    async def story() -> None:
        async with running(doors) as engine:
            doors.apply_errors += [error, error]
            await engine.append([event("A1")])
            await until(lambda: engine.counts.store_errors_total >= 1, "the store failed")
            await engine.append([event("A2")])
            await until(lambda: settled(engine) == 2, "settled")
            assert engine.counts.store_errors_total == 2
            assert doors.opened_cores == 1, "the ledger is not to blame"

    in_loop(story)


def test_a_store_that_cannot_be_opened_is_named_and_the_balance_does_not_claim_to_close(doors: Doors) -> None:
    async def story() -> None:
        doors.store_error = LedgerBroken("store.db is damaged")
        async with running(doors) as engine:
            await engine.append([event()])
            await until(lambda: engine.seen.balance["fleet"]["queued"] == 1, "queued")
            assert "store.db is damaged" in str(engine.troubles())
            assert engine.seen.balance["fleet"]["balanced"] is None
            doors.store_error = None
            await until(lambda: settled(engine) == 1 and not engine.troubles(), "settled")

    in_loop(story)


def test_the_balance_is_not_known_until_the_store_has_spoken_and_never_a_false_alarm(doors: Doors) -> None:
    async def story() -> None:
        async with running(doors) as engine:
            await engine.append([event()])
            await until(lambda: settled(engine) == 1, "settled")
        engine = Engine(doors.ports())
        await engine.open()
        row = engine.seen.balance["fleet"]
        assert (row["captured"], row["settled"]) == (1, 1), "both sides are there, and half of what says where"
        assert row["balanced"] is None
        assert balance_sentence(row).startswith("not known yet: the central store has not said")
        await engine.close()
        async with running(doors) as engine:
            await until(lambda: engine.seen.balance["fleet"]["balanced"] is True, "known")

    in_loop(story)


def test_while_a_lost_ledger_is_refilled_the_balance_is_not_known_and_the_nodes_are_missed(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """hub.db is gone: what the store holds comes back page by page, but not who may speak."""
    world = World()
    world.key = HUB_KEY
    dock = world.edge("dock-7")
    dock.says("A1", *["PLACED"] * 20)
    world.settle()
    said: list[bool | None] = []

    def watched(core: HubCore, *args: Any, **named: Any) -> Seen:
        seen = look(core, *args, **named)
        said.append(seen.balance["fleet"]["balanced"])
        return seen

    async def story() -> None:
        monkeypatch.setattr(store_side, "REFILL_FACTS", 2)
        monkeypatch.setattr(Engine, "_look_if_due", lambda self, at_once=False: None if self._side.said else self._look())
        monkeypatch.setattr("hub.lookout.look", watched)
        (doors.folder / "store.db").write_bytes(world.store._db.dump())
        async with running(doors) as engine:
            (finding,) = engine.seen.findings
            assert finding.startswith("the registry is empty, but the central store holds 1 stream of dock-7: add the nodes again")
            await until(lambda: engine.seen.balance["fleet"]["balanced"] is True and settled(engine) == 20, "balanced")
            assert False not in said, "never a false alarm"
            assert said.count(None) > 5
            assert engine.troubles() == [], "a finding, not a failure"
            await engine.admit(make_card(dock.key, "dock-7"))
            assert engine.seen.findings == []

    in_loop(story)


def test_a_store_that_may_not_be_opened_any_more_does_not_end_a_running_hub(doors: Doors) -> None:
    async def story() -> None:
        async with running(doors) as engine:
            await engine.append([event()])
            await until(lambda: settled(engine) == 1, "settled")
            doors.store_error = ConfigError("store.db may not be opened")
            engine._side.lose(LedgerBroken("gone"))
            await until(lambda: "may not be opened" in str(engine.troubles()), "named")
            await engine.append([event()])
            doors.store_error = None
            await until(lambda: settled(engine) == 2 and not engine.troubles(), "settled")

    in_loop(story)


def test_a_store_that_does_not_state_what_it_was_given_is_not_fed_without_end(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        monkeypatch.setattr(SqliteStore, "apply", lambda self, facts, records, at_ms: Applied(len(facts), 0))
        async with running(doors) as engine:
            await engine.append([event()])
            await until(lambda: engine.counts.store_errors_total >= 2, "noticed")
            assert engine.counts.turns_total < 200

    in_loop(story)


def test_one_request_that_is_refused_does_not_touch_the_others_of_its_turn(doors: Doors) -> None:
    def keyed(status: str) -> OrderEvent:
        return OrderEvent(**{name: getattr(event("A1", status), name) for name in OrderEvent.__slots__} | {"idempotency_key": "k1"})

    async def story() -> None:
        async with running(doors) as engine:
            first = await engine.append([keyed("PLACED")])
            answers = await asyncio.gather(
                engine.append([keyed("SHIPPED")]), engine.append([event("A2")]), engine.append([keyed("PLACED")]), return_exceptions=True
            )
            assert isinstance(answers[0], Conflict)
            assert isinstance(answers[1], list)
            assert isinstance(answers[2], list)
            assert (answers[2][0].seq, answers[2][0].repeated) == (first[0].seq, True)

    in_loop(story)


def test_a_frame_on_which_the_code_fails_is_set_aside_and_the_others_are_taken(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    take = HubCore.take_message

    def fails_on_poison(self: HubCore, node: str, data: bytes, at_ms: int) -> Any:
        if data.startswith(b"poison"):
            raise RuntimeError("a bug that this frame wakes")
        return take(self, node, data, at_ms)

    async def story() -> None:
        monkeypatch.setattr(HubCore, "take_message", fails_on_poison)
        poison = b"poison" + bytes(100)
        async with running(doors) as engine:
            engine.came("dock-7", poison)
            engine.came("dock-7", b"noise that is refused")
            done = await engine.append([event()])
            assert done[0].seq == 1
            await until(lambda: len(engine.seen.refused) == 2, "both kept as evidence")
            engine.came("dock-7", poison)
            await until(lambda: len(engine.seen.refused) == 3, "refused without waking the bug again")
            assert doors.opened_cores == 2

    in_loop(story)


def test_an_admitted_node_is_seen_at_once_and_a_taken_name_is_refused(doors: Doors) -> None:
    async def story() -> None:
        async with running(doors) as engine:
            await engine.admit(make_card(NodeKey(b"a" * 32), "dock-7"))
            assert [node["node"] for node in engine.seen.nodes] == ["dock-7"]
            assert "password" not in str(engine.seen.nodes).lower()
            with pytest.raises(InvalidInput, match="taken"):
                await engine.admit(make_card(NodeKey(b"b" * 32), "dock-7"))

    in_loop(story)


def test_a_hub_that_came_back_older_than_its_store_is_refilled(doors: Doors) -> None:
    async def first() -> None:
        async with running(doors) as engine:
            for number in range(5):
                await engine.append([event(f"A{number}")])
            await until(lambda: settled(engine) == 5, "settled")

    async def second() -> None:
        async with running(doors) as engine:
            await until(lambda: engine.counts.refilled_total == 5, "refilled")
            await until(lambda: engine.seen.balance["fleet"]["balanced"] is True and settled(engine) >= 5, "balanced")
            assert len({core["node"] for core in engine.seen.balance["nodes"]}) == 1

    in_loop(first)
    for name in ("hub.db", "hub.db-wal", "hub.db-shm"):
        (doors.folder / name).unlink(missing_ok=True)
    in_loop(second)


def test_answers_and_receipts_of_a_turn_go_out_and_stop_takes_what_waits(doors: Doors) -> None:
    """A real edge core on the other side, without a network."""
    world = World()
    world.key = HUB_KEY
    dock = world.edge("dock-7")
    dock.says("A1", "PLACED", "SHIPPED")

    async def story() -> None:
        async with running(doors) as engine:
            await engine.admit(make_card(dock.key, "dock-7"))

            def exchange() -> bool:
                world.now_ms += 1_000
                for payload in dock.speaks():
                    engine.came("dock-7", payload)
                heard, doors.published[:] = doors.published[:], []
                for topic, payload in heard:
                    assert topic in [dock.address.topic(channel) for channel in (Channel.RECEIPT, Channel.ORDERS)]
                    dock.hears(payload)
                return dock.core.ledger.own().settled_seq == 2

            await until(exchange, "settled at the edge")

    in_loop(story)


def test_after_stop_nobody_waits_for_ever(doors: Doors) -> None:
    async def story() -> None:
        async with running(doors) as engine:
            waiting = [asyncio.ensure_future(engine.append([event(f"A{n}")])) for n in range(50)]
            await asyncio.sleep(0)
            engine.stop()
            answers = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), WITHIN_S)
            assert all(isinstance(one, list | LedgerBroken) for one in answers)
            with pytest.raises(LedgerBroken):
                await engine.append([event()])

    in_loop(story)


# ------------------------------------------------------------------ what waits


def test_frames_beyond_the_bound_are_dropped_and_counted() -> None:
    inputs = Inputs()
    big = bytes(30_000_000)
    assert [inputs.came(node, big) for node in ("dock-7", "dock-7", "dock-8", "dock-9")] == [True, False, True, False]
    assert inputs.counts.dropped_total == 2
    assert len(inputs.take()) == 1
    assert inputs.came("dock-7", big), "there is room again"


def test_a_node_that_floods_stands_in_its_own_way_only() -> None:
    inputs = Inputs()
    for _ in range(1_000):
        inputs.came("loud", b"x")
    inputs.came("quiet", b"1")
    inputs.came("quiet", b"2")
    taken = [item for item in inputs.take() if isinstance(item, Came)]
    assert [item.payload for item in taken if item.node == "quiet"] == [b"1", b"2"]
    while inputs:
        inputs.take()
    assert inputs.bytes == 0


def test_requests_do_not_stand_behind_a_backlog_of_frames() -> None:
    async def story() -> None:
        inputs = Inputs()
        for _ in range(1_000):
            inputs.came("dock-7", bytes(1_000))
        inputs.append(Append([event()], asyncio.get_running_loop().create_future()))
        taken = inputs.take()
        assert isinstance(taken[0], Append)
        assert isinstance(taken[1], Came)
        assert len(taken) == 1 + TURN_BYTES // 1_000

    in_loop(story)


def test_too_many_waiting_events_are_refused_and_who_gave_up_is_left_out() -> None:
    async def story() -> None:
        inputs = Inputs()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        inputs.append(Append([event()] * WAITING_EVENTS, future))
        with pytest.raises(LedgerBusy):
            inputs.append(Append([event()], asyncio.get_running_loop().create_future()))
        future.cancel()
        assert inputs.take() == []
        inputs.append(Append([event()], asyncio.get_running_loop().create_future()))

    in_loop(story)


def test_what_is_put_back_comes_first_and_in_its_order() -> None:
    inputs = Inputs()
    for number in range(5):
        inputs.came("dock-7", bytes([number]))
    taken = inputs.take()
    inputs.came("dock-7", b"later")
    inputs.put_back(taken)
    assert [item.payload for item in inputs.take() if isinstance(item, Came)] == [b"\0", b"\1", b"\2", b"\3", b"\4", b"later"]
    assert inputs.bytes == 0
