"""When the hub looks at itself again: seldom where a look takes long, but soon where it only waited for a store or for a start."""

from __future__ import annotations

from typing import Any

from hub.engine_ports import LOOK_EVERY_MS, Ports, Rhythm
from hub.fleet import NO_STORE, NOT_ASKED, Seen
from hub.lookout import LOOK_MOST_MS, LOOK_SHARE, Lookout
from hub.store.sqlite import SqliteStore
from protocols.errors import LedgerBroken
from protocols.sqlite import Db
from tests.unit.hub.hub_world import World

SLOW_MS = 20_000


class SlowStore(SqliteStore):
    """Takes its time to count, and may not answer then."""

    def __init__(self, world: World, *, answers: bool, took_ms: int) -> None:
        super().__init__(Db(":memory:"))
        self._world, self._answers, self._took_ms = world, answers, took_ms

    def counts(self) -> Any:
        self._world.now_ms += self._took_ms
        if not self._answers:
            raise LedgerBroken("it has not answered for 20 s")
        return super().counts()


def looked(*, answers: bool = True, asked: bool = True, took_ms: int = SLOW_MS) -> tuple[Seen, int]:
    """What was seen, and how long after the look has ended the next one is due. `asked`: the store has spoken before."""
    world = World()
    if asked:
        world.settle()
    assert world.hub.asked_store is asked
    ports = Ports(lambda: world.hub, lambda: world.store, lambda *_: None, lambda _: None, lambda: world.now_ms, lambda _: None)
    store = SlowStore(world, answers=answers, took_ms=took_ms)
    seen, due_ms = Lookout(ports, Rhythm()).around(world.hub, store, Seen(), False)
    store.close()
    return seen, due_ms - world.now_ms


def test_a_look_that_takes_long_is_made_seldom() -> None:
    assert looked(took_ms=20)[1] == (LOOK_SHARE - 1) * 20


def test_a_look_that_waited_for_a_stopped_store_is_not_the_last_for_minutes() -> None:
    assert looked()[1] == LOOK_MOST_MS


def test_waiting_for_a_store_that_does_not_answer_delays_no_later_look() -> None:
    seen, pause_ms = looked(answers=False)
    assert seen.balance["fleet"]["unknown"] == NO_STORE
    assert pause_ms == LOOK_EVERY_MS


def test_a_slow_start_delays_no_look_at_what_the_store_says_then() -> None:
    seen, pause_ms = looked(asked=False)
    assert seen.balance["fleet"]["unknown"] == NOT_ASKED
    assert pause_ms == LOOK_EVERY_MS
