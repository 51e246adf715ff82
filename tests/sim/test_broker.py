"""The broker of the simulated world lies in each of the ways that it is said to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.sim.broker import Broker
from tests.sim.options import HOUR, MINUTE, Options, draw
from tests.sim.world import World


@pytest.fixture
def world() -> Iterator[World]:
    world = World(replace(draw(0), faults=(), plan=(), edges=1))
    world.run_to(HOUR)
    yield world
    world.close()


class Heard(list[int]):
    """A session that notes what reaches it."""

    def take(self, n: int) -> None:
        self.append(n)


def sent(world: World, count: int = 40, *, options: Options | None = None) -> tuple[Broker, Heard]:
    """A broker that was given so many messages for one session."""
    world.options = options or world.options
    broker, heard = Broker(world), Heard()
    for n in range(count):
        broker.carry("hub", 10 + n, heard.take, n)
    return broker, heard


def test_a_fair_broker_hands_out_all_in_order(world: World) -> None:
    _, heard = sent(world)
    world.run_to(world.now + MINUTE)
    assert heard == list(range(40))


def test_it_swallows_for_a_while_and_not_after(world: World) -> None:
    broker, heard = sent(world, 0)
    broker.swallow(HOUR)
    broker.carry("hub", 10, heard.take, 1)
    world.run_to(world.now + HOUR)
    broker.carry("hub", 10, heard.take, 2)
    world.run_to(world.now + HOUR)
    assert heard == [2]


def test_it_forgets_what_it_had_at_its_restart(world: World) -> None:
    broker, heard = sent(world)
    world.run_to(world.now + 20)
    broker.restart()
    broker.carry("hub", 10, heard.take, 99)
    world.run_to(world.now + MINUTE)
    assert heard[-1] == 99 and 0 < len(heard) < 40


def test_it_cuts_a_queue_at_its_limit_for_each_session_by_itself(world: World) -> None:
    broker, heard = sent(world, options=replace(world.options, queue_limit=7))
    other = Heard()
    broker.carry("dock-0", 10, other.take, 1)
    world.run_to(world.now + MINUTE)
    assert (heard, other) == (list(range(7)), [1])


@pytest.mark.parametrize("window", [8, 1_000])
def test_it_hands_out_a_pile_in_any_order_and_loses_none(world: World, window: int) -> None:
    _, heard = sent(world, options=replace(world.options, reorder=window, reorder_ms=MINUTE))
    world.run_to(world.now + 2 * MINUTE)
    assert sorted(heard) == list(range(40)) and heard != list(range(40))


def test_it_behaves_once_faults_are_off(world: World) -> None:
    world.faulty = False
    broker, heard = sent(world, options=replace(world.options, reorder=8, queue_limit=2))
    broker.swallow(HOUR)
    broker.carry("hub", 60, heard.take, 99)
    world.run_to(world.now + MINUTE)
    assert heard == [*range(40), 99]
