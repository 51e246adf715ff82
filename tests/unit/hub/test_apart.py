"""A store in a process of its own: what the engine does beside it, and what becomes of it when either of the two is killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub import store_side
from hub.config import read_config
from hub.engine import Engine
from hub.engine_ports import Rhythm
from hub.errands import Errands
from hub.inputs import Came, Input
from hub.store.apart import ApartStore
from hub.store.port import Applied, CentralStore, OrderQuery
from hub.stores import apart
from protocols.errors import InvalidInput, LedgerBroken, LedgerBusy
from protocols.policies import shipped
from protocols.sqlite import DataLock
from tests.support.source import ROOT
from tests.unit.hub.hub_world import World
from tests.unit.hub.test_engine import HUB_KEY, Doors, event, in_loop, running, settled, until

WITHIN_S = 20.0


def ended(pid: int) -> bool:
    """Whether a process that is not ours ends within a moment."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watch], [], [], WITHIN_S)[0])
    finally:
        os.close(watch)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ApartStore]:
    opened = ApartStore(tmp_path / "store.db", shipped())
    yield opened
    opened.close()


def test_errors_come_over_as_they_were(store: ApartStore) -> None:
    with pytest.raises(InvalidInput) as caught:
        store.orders(OrderQuery(cursor="nonsense"))
    assert (caught.value.field, bool(caught.value.remedy)) == ("cursor", True)
    assert store.orders(OrderQuery()).orders == [], "and it goes on"


def test_a_process_that_ended_is_told_to_every_caller(store: ApartStore) -> None:
    os.kill(store.pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(LedgerBroken, match="process of the store has ended"):
            store.totals()


def test_a_file_that_is_no_store_is_refused_and_no_process_stays(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"no database at all" * 1_000)
    with pytest.raises(LedgerBroken):
        ApartStore(tmp_path / "store.db", shipped())


def test_signals_to_the_whole_group_leave_it_to_its_owner(store: ApartStore) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(store.pid, number)
    assert store.totals()["facts"] == 0


_OWNER = """
import sys
from protocols.policies import shipped
from protocols.sqlite import DataLock
from hub.store.apart import ApartStore
lock = DataLock(sys.argv[1] + "/run.lock")
store = ApartStore(sys.argv[1] + "/store.db", shipped(), holds=(lock.fileno(),))
print(store.pid, flush=True)
sys.stdin.read()
"""


def test_an_owner_that_is_killed_leaves_no_process_and_the_data_are_held_until_then(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdin is not None and owner.stdout is not None
    with owner.stdin, owner.stdout:
        child = int(owner.stdout.readline())
        os.kill(child, signal.SIGSTOP)  # it is in the middle of a batch
        owner.kill()
        owner.wait()
    with pytest.raises(LedgerBusy):
        DataLock(tmp_path / "run.lock")
    os.kill(child, signal.SIGCONT)
    assert ended(child)
    DataLock(tmp_path / "run.lock").release()


class Apart(Doors):
    """The engine's doors, with the store in a process of its own."""

    store: ApartStore

    def open_store(self) -> CentralStore:
        self.opened_stores += 1
        self.store = ApartStore(self.folder / "store.db", shipped())
        return self.store


def test_a_store_whose_process_is_killed_is_opened_again_and_nothing_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_side, "BACKOFF_FIRST_MS", 20)
    monkeypatch.setattr("hub.lookout.LOOK_EVERY_MS", 5)
    doors = Apart(tmp_path, beside=True)

    async def story() -> None:
        async with running(doors) as engine:
            for number in range(3):
                await engine.append([event(f"A{number}")])
                os.kill(doors.store.pid, signal.SIGKILL)
                await engine.append([event(f"B{number}")])
                await until(lambda n=number: settled(engine) == 2 * (n + 1), "settled")  # type: ignore[misc]
            assert doors.opened_stores >= 4
            assert engine.seen.balance["fleet"]["balanced"] and doors.opened_cores == 1

    in_loop(story)


def test_a_process_that_ends_under_an_idle_hub_is_missed_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_side, "BACKOFF_FIRST_MS", 20)
    monkeypatch.setattr("hub.lookout.LOOK_EVERY_MS", 5)
    doors = Apart(tmp_path, beside=True)

    async def story() -> None:
        async with running(doors, Rhythm(word_ms=100)) as engine:
            await engine.append([event("A0")])
            await until(lambda: settled(engine) == 1, "settled")
            os.kill(doors.store.pid, signal.SIGKILL)
            await until(lambda: doors.opened_stores == 2 and settled(engine) == 1, "missed")

    in_loop(story)


# ------------------------------------------------------------------ the engine beside it


class Slow(Doors):
    """The store takes as long as the test wants."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, beside=True)
        self.may_apply = threading.Event()
        self.batches: list[int] = []

    def open_store(self) -> CentralStore:
        store: Any = super().open_store()
        apply = store.apply

        def slowly(facts: Any, records: Any, at_ms: int, offsets: Any = None) -> Applied:
            self.batches.append(len(facts))
            assert self.may_apply.wait(WITHIN_S)
            return apply(facts, records, at_ms, offsets)  # type: ignore[no-any-return]

        store.apply = slowly
        return store  # type: ignore[no-any-return]


def test_while_the_store_is_at_work_the_hub_takes_and_answers_and_nothing_is_counted_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.lookout.LOOK_EVERY_MS", 5)
    doors = Slow(tmp_path)

    async def story() -> None:
        async with running(doors) as engine:
            await engine.append([event("A0")])
            await until(lambda: doors.batches == [1], "the store has begun")
            for number in range(1, 4):
                await engine.append([event(f"A{number}")])
            assert settled(engine) == 0 and engine.seen.balance["fleet"]["balanced"] is not False
            doors.may_apply.set()
            await until(lambda: settled(engine) == 4 and bool(engine.seen.balance["fleet"]["balanced"]), "settled")
            assert doors.batches == [1, 3], "what came meanwhile went together"

    in_loop(story)


def test_of_a_backlog_the_next_batch_is_ready_when_the_store_has_done_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.lookout.LOOK_EVERY_MS", 5)
    monkeypatch.setattr("hub.store_side.MUCH_FACTS", 3)
    monkeypatch.setattr("hub.store_side.TURN_FACTS", 4)
    doors = Slow(tmp_path)

    async def story() -> None:
        async with running(doors) as engine:
            await engine.append([event(f"A{number}") for number in range(10)])
            await until(lambda: doors.batches == [4], "the store has begun")
            await until(lambda: not engine._side._errands.room, "and the next batch waits for it")
            doors.may_apply.set()
            await until(lambda: settled(engine) == 10 and bool(engine.seen.balance["fleet"]["balanced"]), "settled")
            assert doors.batches == [4, 4, 2], "each fact once"

    in_loop(story)


def test_what_was_made_ready_behind_a_batch_that_failed_is_handed_over_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.store_side.MUCH_FACTS", 3)
    monkeypatch.setattr("hub.store_side.TURN_FACTS", 4)
    monkeypatch.setattr("hub.store_side.BACKOFF_FIRST_MS", 20)
    doors = Slow(tmp_path)
    doors.apply_errors.append(LedgerBroken("no space left"))

    async def story() -> None:
        async with running(doors) as engine:
            await engine.append([event(f"A{number}") for number in range(10)])
            await until(lambda: not engine._side._errands.room, "two are under way")
            doors.may_apply.set()
            await until(lambda: settled(engine) == 10, "settled")
            assert doors.batches == [4, 4, 4, 2] and doors.opened_stores == 2, "the second was not tried behind the first"
            assert engine.counts.store_errors_total == 1

    in_loop(story)


def test_a_turn_full_of_frames_ends_early_where_the_store_waits_for_more(tmp_path: Path) -> None:
    world = World()
    world.key = HUB_KEY
    dock = world.edge("dock-7")
    for number in range(6):
        dock.says(f"A{number}", "PLACED")
    frames = dock.speaks()

    async def story() -> None:
        engine = Engine(Doors(tmp_path, beside=True).ports())
        await engine.open()
        engine._side._errands.begin(lambda: None)
        engine._side._errands.wait()
        batch: list[Input] = [Came(dock.address.node, payload) for payload in (*frames, *frames)]
        done = await engine._in_worker(engine._transaction, batch)
        assert list(done.put_back) == batch[1:], "one was taken, the others come first in the next turn"
        await engine.close()

    in_loop(story)


def test_errands_are_done_one_after_the_other_and_their_errors_come_with_them() -> None:
    woken = threading.Event()
    beside = Errands(beside=True, ended=woken.set)
    here = Errands(beside=False, ended=lambda: None)
    for errands in (beside, here):
        errands.begin(lambda: threading.current_thread().name)
        errands.wait()
        assert errands.done() and errands.under_way
        assert (errands.collect() == threading.current_thread().name) is (errands is here)
        errands.begin(lambda: 1 // 0)
        errands.wait()
        with pytest.raises(ZeroDivisionError):
            errands.collect()
        assert not errands.under_way
        assert errands.room is (errands is beside)
        errands.close()
    assert woken.is_set()


def test_what_was_begun_behind_a_piece_that_failed_is_not_done() -> None:
    done: list[str] = []
    errands = Errands(beside=True, ended=lambda: None)
    errands.begin(lambda: 1 // 0)
    errands.begin(lambda: done.append("behind"))
    assert not errands.room
    errands.wait()
    assert errands.done() and errands.all_done()
    with pytest.raises(ZeroDivisionError):
        errands.collect()
    with pytest.raises(LedgerBroken):
        errands.collect()
    errands.begin(lambda: done.append("anew"))
    errands.wait()
    errands.collect()
    assert done == ["anew"]
    errands.close()


@pytest.mark.parametrize(
    ("more", "cores", "own"),
    [
        ("", 2, True),
        ("", 1, False),
        ('[store]\nprocess = "own"', 1, True),
        ('[store]\nprocess = "hub"', 4, False),
        ('[store]\nkind = "postgres"\ndsn = "host=db"', 4, False),
        ('[bridge]\nkind = "kafka"\nservers = "127.0.0.1:9092"', 4, False),
        ('[workers]\nname = "w1"\n[broker]\nkind = "external"\nhost = "127.0.0.1"', 4, False),
    ],
)
def test_who_has_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, cores: int, own: bool) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    file = tmp_path / "hub.toml"
    file.write_text(f'[hub]\norg = "acme"\nregion = "EMEA"\n{more}\n')
    assert apart(read_config(file)) is own
