"""What a worker reads at the broker: a line is swapped for another, and the task ends whenever it is told to."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from hub import workers_open
from hub.workers_open import Reading
from tests.support.patience import WITHIN_S


class NewLine:
    """A line that is not up yet."""

    made: list[NewLine]

    def __init__(self, *_: Any) -> None:
        self.up = asyncio.Event()
        self.stopped = False
        self.made.append(self)

    def start(self) -> None:
        """Nothing here."""

    async def stop(self) -> None:
        self.stopped = True


def reading() -> Reading:
    async def do(_work: Any) -> list[Any]:
        return []

    workers = SimpleNamespace(subscriptions=lambda _nodes: ("a/topic",))
    hub: Any = SimpleNamespace(workers=workers, engine=SimpleNamespace(do=do), transport=lambda _topics: None, heard=None, line=None)
    return Reading(hub)


@pytest.mark.parametrize("ticks", range(5))
def test_who_is_told_to_end_while_a_line_comes_up_ends(monkeypatch: pytest.MonkeyPatch, ticks: int) -> None:
    """At each of the moments between the two."""
    monkeypatch.setattr(workers_open, "Line", NewLine)
    NewLine.made = []

    async def ended() -> bool:
        reads = reading()
        reads.ask()
        task = asyncio.create_task(reads.run())
        while not NewLine.made:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        NewLine.made[0].up.set()
        for _ in range(ticks):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=WITHIN_S / 10)
        task.cancel()
        return bool(done)

    assert asyncio.run(ended())
