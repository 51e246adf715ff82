"""No event of the hub's own before the central store has spoken; and a store out of reach stops nobody for long."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hub import first_word
from hub.first_word import FirstWord
from protocols.errors import LedgerBusy
from protocols.sqlite import Db
from tests.unit.hub.test_engine import Doors, event, in_loop, running, settled, until


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doors:
    monkeypatch.setattr(first_word, "GRACE_MS", 2_000)
    return Doors(tmp_path)


def test_a_hub_restored_from_a_backup_takes_back_what_is_its_own_before_it_takes_an_event(doors: Doors, tmp_path: Path) -> None:
    async def story() -> None:
        async with running(doors) as engine:
            await engine.append([event("A0")])
            await until(lambda: settled(engine) == 1, "settled")
        backup = (tmp_path / "hub.db").read_bytes()
        async with running(doors) as engine:
            await engine.append([event("A1"), event("A2")])
            await until(lambda: settled(engine) == 3, "settled")
        (tmp_path / "hub.db").write_bytes(backup)
        async with running(doors) as engine:
            (said,) = await engine.append([event("A3")])  # at once, before the loop has made its first turn
            await until(lambda: settled(engine) == 5, "settled")
            assert engine.counts.refilled_total >= 2
        db = Db(tmp_path / "hub.db", read_only=True)
        assert db.query("SELECT seq, count(*) FROM log JOIN streams USING (sid) GROUP BY sid, seq HAVING count(*) > 1") == [], "no fork"
        assert said.seq == 2, "it stands in a new epoch, behind the record that continues the old one"
        db.close()

    in_loop(story)


def test_a_store_that_is_there_and_does_not_speak_makes_callers_come_again() -> None:
    async def story() -> None:
        word = FirstWord(30)
        word.begin(1_000)
        with pytest.raises(LedgerBusy, match="has not said yet"):
            await word.heard(1_000, reachable=True)
        waiting = asyncio.create_task(word.heard(1_001, reachable=True))
        await asyncio.sleep(0)
        word.note(spoken=True)
        await waiting
        word.note(spoken=False)
        with pytest.raises(LedgerBusy):
            await word.heard(1_002, reachable=True)

    asyncio.run(story())


def test_a_store_out_of_reach_is_waited_for_only_right_after_the_start(doors: Doors) -> None:
    async def story() -> None:
        doors.store_error = LedgerBusy("the store is away")
        async with running(doors) as engine:
            await engine.append([event("A0")])
            loop = asyncio.get_running_loop()
            began = loop.time()
            await engine.append([event("A1")])
            assert loop.time() - began < 1.5, "the grace counts from the start, not from each request"

    in_loop(story)
