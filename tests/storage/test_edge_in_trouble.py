"""What the proof found about an edge whose disk fails, each as a short story in still time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from edge_agent.core import EdgeIdentity
from edge_agent.patience import Patience
from edge_agent.runtime import EdgeRuntime
from protocols.codec import Kind
from protocols.errors import LedgerBroken
from protocols.sqlite import Db
from protocols.trust import verify
from tests.storage.clock import StillLoop, in_still_time
from tests.storage.edge_story import ADDRESS, KEY, SETTINGS, Far, HubLine
from tests.unit.hub.hub_world import order_event


class Ailing(Db):
    """Commits that move more than the start of a process does fail, while `ill`."""

    ill = False
    closed = 0

    def many(self, sql: str, rows: object) -> None:
        """See `Db.many`."""
        if Ailing.ill:
            raise LedgerBroken("a page that is needed cannot be read")
        super().many(sql, rows)  # type: ignore[arg-type]

    def rollback(self) -> None:
        """See `Db.rollback`."""
        super().rollback()
        if Ailing.ill:
            raise LedgerBroken("nor can this")

    def close(self) -> None:
        """See `Db.close`."""
        Ailing.closed += 1
        super().close()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    Ailing.ill, Ailing.closed = False, 0
    yield
    logging.disable(logging.NOTSET)


def made(loop: StillLoop, folder: Path, far: Far, lines: list[HubLine]) -> EdgeRuntime:
    def line(_: int) -> HubLine:
        lines.append(HubLine(far))
        return lines[-1]

    return EdgeRuntime(
        folder / "ledger.db", EdgeIdentity(ADDRESS, "hub", far.key.public), KEY.sign, verify, settings=SETTINGS, rng=Random(7),
        now=loop.now, open_db=Ailing, make_transport=line,
    )  # fmt: skip


def test_what_the_hub_says_and_the_disk_does_not_take_is_no_reason_to_spin(tmp_path: Path) -> None:
    """The ledger opens, the edge says hello, the answer cannot be stored, and so on: fifty times a second before there was a back-off."""

    async def story(loop: StillLoop) -> tuple[int, int]:
        far, lines = Far(loop), []  # type: tuple[Far, list[HubLine]]
        async with made(loop, tmp_path, far, lines) as runtime:
            await runtime.append([order_event("a", "PLACED")])
            Ailing.ill = True
            await asyncio.sleep(120)
            hellos = len(lines[0].controls(Kind.HELLO))
            Ailing.ill = False
            await asyncio.sleep(30)
            assert far.counts(runtime.core.ledger.own().key) is not None, "and it recovers by itself"
            return runtime.counts.reopened_total, hellos

    reopened, hellos = in_still_time(story)
    assert 3 < reopened < 60
    assert hellos < 60


def test_capturing_goes_on_while_the_line_is_kept_quiet(tmp_path: Path) -> None:
    async def story(loop: StillLoop) -> int:
        far, lines = Far(loop), []  # type: tuple[Far, list[HubLine]]
        async with made(loop, tmp_path, far, lines) as runtime:
            await runtime.append([order_event("a", "PLACED")])
            Ailing.ill = True
            await asyncio.sleep(20)
            Ailing.ill = False
            for _ in range(10):
                await runtime.append([order_event("b", "PLACED")])
            return runtime.core.ledger.own().head[0]

    assert in_still_time(story) == 11


def test_a_ledger_that_cannot_be_rolled_back_is_let_go_of_all_the_same(tmp_path: Path) -> None:
    """Its connection would hold the file's locks against the next one."""

    async def story(loop: StillLoop) -> int:
        far, lines = Far(loop), []  # type: tuple[Far, list[HubLine]]
        async with made(loop, tmp_path, far, lines) as runtime:
            Ailing.ill = True
            with pytest.raises(LedgerBroken):
                await runtime.append([order_event("a", "PLACED")])
            Ailing.ill = False
            return Ailing.closed

    assert in_still_time(story) == 1


def test_patience_grows_with_failures_that_come_together_and_ends_with_calm() -> None:
    patience, waits = Patience(), []
    for at in (0, 100, 200, 300, 5_000, 10_000, 15_000, 20_000, 25_000, 30_000, 35_000):
        patience.failed(at)
        waits.append(patience.wait_s)
    assert waits[:5] == [0.0, 0.05, 0.1, 0.2, 0.4]
    assert max(waits) == waits[-1] == 5.0
    patience.failed(35_000 + 60_001)
    assert patience.wait_s == 0.0
