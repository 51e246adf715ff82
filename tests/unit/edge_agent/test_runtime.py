"""The loop of the edge: one sync for many, whole or not at all, and no trouble that needs a hand."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from edge_agent.core import EdgeSettings
from edge_agent.counts import Bounds
from edge_agent.runtime import EdgeRuntime
from protocols.codec import Kind
from protocols.errors import Conflict, LedgerBroken, LedgerBusy, LedgerError, LedgerFull
from protocols.sqlite import Db
from protocols.sync.uplink import UplinkSettings
from protocols.topics import Channel
from protocols.transport.port import Down, Event, Message, Up
from protocols.trust import NodeKey
from tests.unit.edge_agent.edges import ADDRESS, HeldLine, edge, event, run, stored, until


class FaultyDb(Db):
    """A database whose next commits fail, before or after they reach the disk."""

    faults: list[str] = []  # noqa: RUF012 - set by each test
    armed = False

    def commit(self) -> None:
        fault = self.faults.pop(0) if self.armed and self.faults else ""
        if fault == "full":
            raise LedgerFull("no space left")
        if fault == "before":
            raise LedgerBroken("the disk did not answer")
        super().commit()
        if fault == "after":
            raise LedgerBroken("the disk answered too late")


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> type[FaultyDb]:
    monkeypatch.setattr(FaultyDb, "armed", False)
    monkeypatch.setattr(FaultyDb, "faults", [])
    return FaultyDb


def fail_next(*faults: str) -> None:
    FaultyDb.faults, FaultyDb.armed = list(faults), True


# ------------------------------------------------------------ yes means on disk


def test_a_yes_is_on_disk_when_it_is_heard(tmp_path: Path) -> None:
    async def story() -> None:
        async with edge(tmp_path) as runtime:
            done = await runtime.append([event("A1"), event("A2")])
            assert [seq for seq, _ in stored(tmp_path)] == [1, 2] == [one.seq for one in done]

    run(story())


def test_writers_that_wait_together_share_one_commit(tmp_path: Path) -> None:
    async def story() -> None:
        async with edge(tmp_path) as runtime:
            await asyncio.gather(*(runtime.append([event(f"A{i}")]) for i in range(100)))
            assert runtime.counts.events_total == 100
            assert runtime.counts.commits_total == 1

    run(story())
    assert len(stored(tmp_path)) == 100


def test_a_commit_takes_no_more_than_its_bound(tmp_path: Path) -> None:
    async def story() -> None:
        async with edge(tmp_path, bounds=Bounds(turn_requests=4, turn_events=6)) as runtime:
            await asyncio.gather(*(runtime.append([event(f"A{i}")]) for i in range(8)))
            assert runtime.counts.commits_total == 2
            await asyncio.gather(*(runtime.append([event(f"B{i}-{j}") for j in range(4)]) for i in range(3)))
            assert runtime.counts.commits_total == 5, "a batch of 4 and another of 4 are more than 6"

    run(story())


def test_a_batch_larger_than_a_turn_is_still_taken_whole(tmp_path: Path) -> None:
    async def story() -> None:
        async with edge(tmp_path, bounds=Bounds(turn_events=5, waiting_events=5)) as runtime:
            assert len(await runtime.append([event(f"A{i}") for i in range(20)])) == 20
            assert runtime.counts.commits_total == 1

    run(story())


def test_the_ids_come_in_the_order_of_the_events_and_survive_a_restart(tmp_path: Path) -> None:
    async def first() -> list[str]:
        async with edge(tmp_path) as runtime:
            return [one.fact_id for one in await runtime.append([event(f"A{i}", idempotencyKey=f"k{i}") for i in range(3)])]

    async def again() -> list[Any]:
        async with edge(tmp_path) as runtime:
            return await runtime.append([event(f"A{i}", idempotencyKey=f"k{i}") for i in range(3)])

    ids = run(first())
    repeated = run(again())
    assert [one.fact_id for one in repeated] == ids
    assert all(one.repeated for one in repeated)
    assert len(stored(tmp_path)) == 3


# ------------------------------------------------------------ one request's fault is its own


def test_a_conflict_fails_its_own_request_whole_and_no_other(tmp_path: Path) -> None:
    async def story() -> list[Any]:
        async with edge(tmp_path) as runtime:
            await runtime.append([event("A1", idempotencyKey="k")])
            before = runtime.counts.commits_total
            requests = (
                [event("B1")],
                [event("B2"), event("B3", idempotencyKey="k")],
                [event("B4")],
            )
            answers = await asyncio.gather(*map(runtime.append, requests), return_exceptions=True)
            assert runtime.counts.commits_total == before + 1
            assert runtime.counts.refused_total == 1
            return answers

    good, bad, also_good = run(story())
    assert isinstance(bad, Conflict)
    assert (len(good), len(also_good)) == (1, 1)
    assert len(stored(tmp_path)) == 3, "of the refused batch nothing was written"


def test_who_has_gone_away_before_the_turn_is_left_out(tmp_path: Path) -> None:
    async def story() -> None:
        async with edge(tmp_path) as runtime:
            gone = asyncio.ensure_future(runtime.append([event("A1")]))
            stays = asyncio.ensure_future(runtime.append([event("A2")]))
            await asyncio.sleep(0)
            gone.cancel()
            await stays
            assert runtime.waiting == (0, 0)

    run(story())
    assert len(stored(tmp_path)) == 1


# ------------------------------------------------------------ bounds


def test_more_than_may_wait_is_turned_away_at_once(tmp_path: Path) -> None:
    async def story() -> list[Any]:
        async with edge(tmp_path, bounds=Bounds(waiting_requests=4)) as runtime:
            answers = await asyncio.gather(*(runtime.append([event(f"A{i}")]) for i in range(6)), return_exceptions=True)
            assert runtime.counts.busy_total == 2
            await runtime.append([event("later")])
            return answers

    answers = run(story())
    assert [type(one) for one in answers] == [list] * 4 + [LedgerBusy] * 2
    assert len(stored(tmp_path)) == 5


def test_events_that_wait_are_bounded_too(tmp_path: Path) -> None:
    async def story() -> None:
        async with edge(tmp_path, bounds=Bounds(waiting_events=10)) as runtime:
            one = [event(f"A{i}") for i in range(8)]
            answers = await asyncio.gather(runtime.append(one), runtime.append(one), return_exceptions=True)
            assert [type(answer) for answer in answers] == [list, LedgerBusy]

    run(story())


async def fill(runtime: EdgeRuntime) -> None:
    for i in range(1_000):
        await runtime.append([event(f"A{i}-{j}", details={"note": "x" * 200}) for j in range(50)])


def test_at_its_budget_the_edge_says_full_and_takes_again_once_there_is_room(tmp_path: Path) -> None:
    async def story() -> None:
        async with edge(tmp_path, settings=EdgeSettings(budget_bytes=100_000)) as runtime:
            with pytest.raises(LedgerFull, match="budget"):
                await fill(runtime)
            assert runtime.unready() == ["the ledger has reached its budget"]
            taken = len(stored(tmp_path))
            assert runtime.counts.reopened_total == 0, "a full budget is no damage"
            runtime.core.settings = EdgeSettings(budget_bytes=10_000_000)
            await runtime.append([event("there is room")])
            assert len(stored(tmp_path)) == taken + 1

    run(story())


# ------------------------------------------------------------ trouble


def test_after_a_broken_commit_the_edge_goes_on_by_itself(tmp_path: Path, faulty: type[FaultyDb]) -> None:
    async def story() -> None:
        async with edge(tmp_path, open_db=faulty) as runtime:
            await runtime.append([event("A1")])
            fail_next("before")
            answers = await asyncio.gather(
                *(runtime.append([event(f"B{i}", idempotencyKey=f"k{i}")]) for i in range(3)), return_exceptions=True
            )
            assert [type(one) for one in answers] == [LedgerBroken] * 3
            assert all("idempotencyKey" in str(one) for one in answers)
            assert len({id(one) for one in answers}) == 3, "each caller has an error of its own"
            done = [one for i in range(3) for one in await runtime.append([event(f"B{i}", idempotencyKey=f"k{i}")])]
            assert [(one.seq, one.repeated) for one in done] == [(2, False), (3, False), (4, False)]
            assert runtime.counts.reopened_total == 1

    run(story())
    assert len(stored(tmp_path)) == 4


def test_a_commit_that_failed_after_reaching_the_disk_is_not_doubled_by_the_retry(tmp_path: Path, faulty: type[FaultyDb]) -> None:
    async def story() -> None:
        async with edge(tmp_path, open_db=faulty) as runtime:
            fail_next("after")
            with pytest.raises(LedgerBroken):
                await runtime.append([event("A1", idempotencyKey="k")])
            (done,) = await runtime.append([event("A1", idempotencyKey="k")])
            assert done.repeated

    run(story())
    assert len(stored(tmp_path)) == 1


def test_a_full_disk_is_said_and_forgotten_once_there_is_room(tmp_path: Path, faulty: type[FaultyDb]) -> None:
    async def story() -> None:
        async with edge(tmp_path, open_db=faulty) as runtime:
            fail_next("full")
            with pytest.raises(LedgerFull):
                await runtime.append([event("A1")])
            await runtime.append([event("A2")])

    run(story())
    assert len(stored(tmp_path)) == 1


def test_while_it_cannot_be_opened_callers_hear_so_and_attempts_go_on(tmp_path: Path, faulty: type[FaultyDb]) -> None:
    attempts: list[str] = []

    def opens(path: Any) -> Db:
        attempts.append("try")
        if 2 <= len(attempts) <= 4:
            raise LedgerBroken("no such disk")
        return faulty(path)

    async def story() -> None:
        async with edge(tmp_path, open_db=opens) as runtime:
            fail_next("before")
            with pytest.raises(LedgerBroken):
                await runtime.append([event("A1")])
            with pytest.raises(LedgerBroken):
                await runtime.append([event("A2")])
            with pytest.raises(LedgerError):
                runtime.status()
            assert runtime.unready() != []
            await until(lambda: runtime.unready() == [], "opening")
            await runtime.append([event("A3")])
            assert len(attempts) == 5

    run(story())
    assert len(stored(tmp_path)) == 1


def test_a_fault_inside_leaves_no_caller_waiting_and_no_transaction_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with edge(tmp_path) as runtime:
            append_all = runtime.core.ledger.append_all

            def failing(*args: Any) -> Any:
                append_all(*args)
                raise KeyError("a fault of ours")

            monkeypatch.setattr(runtime.core.ledger, "append_all", failing)
            with pytest.raises(LedgerBroken, match="the ledger failed while this was being stored"):
                await runtime.append([event("A1")])
            (done,) = await runtime.append([event("A1")])
            assert done.seq == 1, "what the fault had written was rolled back"

    run(story())
    assert len(stored(tmp_path)) == 1


def test_stopping_answers_who_waits_and_refuses_who_comes_later(tmp_path: Path) -> None:
    async def story() -> None:
        runtime = edge(tmp_path)
        await runtime.start()
        waiting = [asyncio.ensure_future(runtime.append([event(f"A{i}")])) for i in range(3)]
        await asyncio.sleep(0)
        await runtime.stop()
        assert [len(await one) for one in waiting] == [1, 1, 1]
        with pytest.raises(LedgerError):
            await runtime.append([event("late")])
        await runtime.stop()

    run(story())
    assert len(stored(tmp_path)) == 3


# ------------------------------------------------------------ the line to the hub


def test_connected_it_says_hello_and_sends_what_the_hub_lacks(tmp_path: Path) -> None:
    async def story() -> None:
        line = HeldLine()
        async with edge(tmp_path, line=line) as runtime:
            await runtime.append([event("A1"), event("A2")])
            assert line.sent == [], "nothing is sent before there is a line"
            line.say(Up())
            await until(lambda: line.controls(Kind.HELLO) != [], "a hello")
            line.answer()
            await until(lambda: line.frames() != [], "a frame")
            (_, header), *_ = line.frames()
            assert (header.first, header.count) == (1, 2)
            assert runtime.connected
            await until(lambda: runtime.counts.published_total == len(line.sent))
        assert line.stopped

    run(story())


def test_an_event_captured_while_the_line_is_up_leaves_by_itself(tmp_path: Path) -> None:
    """The linger of the uplink is a deadline of the core; the loop has to wake for it."""

    async def story() -> None:
        line = HeldLine()
        async with edge(tmp_path, line=line) as runtime:
            line.say(Up())
            await until(lambda: line.controls(Kind.HELLO) != [])
            line.answer()
            await until(lambda: line.controls(Kind.HEARTBEAT) != [], "a heartbeat after the answer")
            await runtime.append([event("A1")])
            await until(lambda: line.frames() != [], "a frame")
            assert line.sent[-1][0] == ADDRESS.topic(Channel.LIVE)

    run(story())


@pytest.mark.parametrize("wrong", ["key", "topic"])
def test_what_the_hub_did_not_say_to_this_node_moves_nothing(tmp_path: Path, wrong: str) -> None:
    async def story() -> None:
        line = HeldLine()
        async with edge(tmp_path, line=line) as runtime:
            await runtime.append([event("A1")])
            line.say(Up())
            await until(lambda: line.controls(Kind.HELLO) != [])
            if wrong == "key":
                line.answer(key=NodeKey(b"x" * 32))
            else:
                line.answer(topic=ADDRESS.topic(Channel.COMMAND))
            line.say(Message(ADDRESS.topic(Channel.RECEIPT), b"noise"))
            await until(lambda: runtime.counts.messages_total == 2)
            await runtime.append([event("A2")])
            assert line.frames() == []
            assert runtime.status()["link"]["damaged"] == (2 if wrong == "key" else 1)

    run(story())


def test_a_core_made_anew_hears_that_the_line_is_up(tmp_path: Path, faulty: type[FaultyDb]) -> None:
    async def story() -> None:
        line = HeldLine()
        async with edge(tmp_path, line=line, open_db=faulty) as runtime:
            line.say(Up())
            await until(lambda: len(line.controls(Kind.HELLO)) == 1)
            fail_next("before")
            with pytest.raises(LedgerBroken):
                await runtime.append([event("A1")])
            await until(lambda: len(line.controls(Kind.HELLO)) == 2, "another hello")

    run(story())


def test_connected_without_progress_it_builds_a_new_connection(tmp_path: Path) -> None:
    async def story() -> None:
        line = HeldLine()
        settings = EdgeSettings(uplink=UplinkSettings(stall_ms=50, retry_ms=20))
        async with edge(tmp_path, line=line, settings=settings) as runtime:
            await runtime.append([event("A1")])
            line.say(Up())
            await until(lambda: line.restarts > 0, "a restart")
            assert runtime.counts.restarts_total >= 1

    run(story())


def test_an_outage_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        line = HeldLine()
        async with edge(tmp_path, line=line):
            events: list[Event] = [*[Down("cannot reach it")] * 5, Up(), *[Down("lost")] * 3]
            for said in events:
                line.say(said)
            await asyncio.sleep(0.01)

    with caplog.at_level(logging.INFO):
        run(story())
    told = [record.getMessage() for record in caplog.records if record.name == "edge_agent.link"]
    assert [text.split(";")[0] for text in told] == [
        "no line to the broker: cannot reach it",
        "connected to the broker",
        "no line to the broker: lost",
    ]


def test_messages_beyond_the_bound_are_dropped_and_counted(tmp_path: Path) -> None:
    async def story() -> None:
        line = HeldLine()
        async with edge(tmp_path, line=line, bounds=Bounds(waiting_messages=3)) as runtime:
            for _ in range(10):
                line.say(Message(ADDRESS.topic(Channel.RECEIPT), b"noise"))
            await until(lambda: runtime.counts.messages_total == 3)
            assert runtime.counts.messages_dropped_total == 7
            line.say(Message(ADDRESS.topic(Channel.RECEIPT), b"noise"))
            await until(lambda: runtime.counts.messages_total == 4, "room again")

    run(story())


def test_messages_that_came_while_there_was_no_core_take_no_room_for_ever(tmp_path: Path) -> None:
    async def story() -> None:
        line = HeldLine()
        async with edge(tmp_path, line=line, bounds=Bounds(waiting_messages=3)) as runtime:
            core, runtime._core = runtime._core, None
            for told in (3, 6):
                for _ in range(3):
                    line.say(Message(ADDRESS.topic(Channel.RECEIPT), b"noise"))
                await until(lambda told=told: runtime.counts.messages_total == told, "hearing")  # type: ignore[misc]
                await asyncio.sleep(0)
            assert runtime.counts.messages_dropped_total == 0
            runtime._core = core

    run(story())


def test_the_presence_of_a_node_carries_the_epoch_it_writes_in(tmp_path: Path) -> None:
    async def story(line: HeldLine) -> EdgeRuntime:
        async with edge(tmp_path, line=line) as runtime:
            assert line.epoch == runtime.core.ledger.own().key.epoch
            return runtime

    first, second = HeldLine(), HeldLine()
    run(story(first))
    run(story(second))
    assert first.epoch == second.epoch > 0
