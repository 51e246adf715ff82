"""Stories of a hub with two workers on one store; every checker of the simulation watches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from protocols.lifecycle import Status
from tests.sim.disks import Disk
from tests.sim.options import HOUR, MINUTE, Options
from tests.sim.procs import Request
from tests.sim.profiles import BASES, WORKER_FAULTS, WORKER_OUTAGES, world_of
from tests.sim.scene import SMALL, Scene
from tests.sim.workers import Worker, WorkersWorld

LEASE_MS = 5 * MINUTE


@contextmanager
def two_workers(edges: int = 6, seed: int = 1) -> Iterator[Scene]:
    """Two workers with their shares, and edges of as many sites."""
    options = Options(seed, profile="workers", workers=2, lease_ms=LEASE_MS, edges=edges, duration_ms=24 * HOUR, uplink=SMALL,
                      heartbeat_ms=MINUTE, ask_store_ms=10 * MINUTE)  # fmt: skip
    world = WorkersWorld(options)
    try:
        world.run_to(2 * LEASE_MS)
        yield Scene(world)
    finally:
        world.close()


def of(scene: Scene, worker: Worker) -> list[int]:
    """The docks that a worker speaks to."""
    return [n for n, dock in enumerate(scene.docks) if scene.world.owner(dock) is worker]


def workers(scene: Scene) -> list[Worker]:
    assert isinstance(scene.world, WorkersWorld)
    return scene.world.workers


def test_each_edge_is_spoken_to_by_one_worker_and_all_share_the_work() -> None:
    with two_workers() as scene:
        first, second = workers(scene)
        assert sorted([*of(scene, first), *of(scene, second)]) == list(range(6)) and of(scene, first) and of(scene, second)
        for n, dock in enumerate(scene.docks):
            scene.says(dock, f"A{n}", Status.PLACED)
        scene.wait(20 * MINUTE)
        assert all(scene.shown(f"A{n}").status == "PLACED" for n in range(6))
        scene.heals()


def test_what_a_dead_worker_alone_held_is_sent_again_to_the_one_that_takes_over() -> None:
    with two_workers() as scene:
        first, second = workers(scene)
        n = of(scene, first)[0]
        scene.world.store.away(3 * HOUR)
        said = scene.says(scene.docks[n], "A1", Status.PLACED, Status.PICKED)
        scene.wait()
        assert not scene.docks[n].core.uplink.unreceived(scene.docks[n].core.ledger.own())
        first.stop()
        scene.wait(4 * HOUR)
        assert of(scene, second) == list(range(6)), "after its lease"
        assert scene.stored(said) == [True, True] and not first.alive
        scene.heals()


def test_a_worker_that_comes_back_hands_over_what_only_it_has() -> None:
    """Also what it took from nodes that are another's by now, and that have it no more."""
    with two_workers() as scene:
        first, second = workers(scene)
        docks = of(scene, second)
        scene.world.store.away(HOUR)
        said = [a for n in docks for a in scene.says(scene.docks[n], f"A{n}", Status.PLACED)]
        scene.wait()
        second.stop()
        for n in docks:
            scene.docks[n].swap(Disk.blank(scene.docks[n].name), "edge replaced by an empty one")
        scene.wait(3 * HOUR)
        assert of(scene, first) == list(range(6)) and scene.stored(said) == [False] * len(said)
        second.start()
        scene.world.store.away(0)
        scene.wait(MINUTE)
        assert not of(scene, second)
        assert scene.stored(said) == [True] * len(said), "it does not wait for a partition"
        scene.heals()


def test_a_worker_that_is_stopped_beyond_its_lease_and_goes_on_harms_nothing() -> None:
    """What comes for it meanwhile it takes when it goes on, as does the one that took over: one effect each."""
    with two_workers() as scene:
        first, second = workers(scene)
        n = of(scene, first)[0]
        dock = scene.docks[n]
        first.paused_until = scene.world.now + 3 * LEASE_MS
        said = scene.says(dock, "A1", Status.PLACED, Status.PICKED, Status.PACKED)
        scene.wait(2 * LEASE_MS)
        assert scene.world.owner(dock) is second and dock in [d for d in scene.docks if first in scene.world.readers(d)]
        said += scene.says(dock, "A1", Status.SHIPPED)
        scene.wait(3 * LEASE_MS)
        assert scene.stored(said) == [True] * 4 and scene.shown("A1").status == "SHIPPED"
        here = [f.disk.held for f in (first, second)]
        truth = scene.world.check.truth
        assert all(mask & (1 << i) for mask in here for i in range(len(truth.facts))), "both keep what they took, the store has it once"
        scene.heals()


def held(worker: Worker) -> list[int]:
    return sorted(worker.leasing.held(worker.mono()))


def hands(scene: Scene) -> list[tuple[str, int]]:
    """Who has which partition by the table, and how often each has changed hands."""
    assert isinstance(scene.world, WorkersWorld)
    return [(row.worker, row.fence) for row in scene.world.leases.read().partitions]


def test_while_the_store_is_away_for_longer_than_leases_facts_are_taken_and_nothing_changes_hands() -> None:
    with two_workers() as scene:
        before, shares = hands(scene), [of(scene, worker) for worker in workers(scene)]
        incarnations = [worker.core.receiver.incarnation for worker in workers(scene)]
        scene.world.store.away(5 * LEASE_MS)
        scene.wait(3 * LEASE_MS)
        said = [a for n, dock in enumerate(scene.docks) for a in scene.says(dock, f"A{n}", Status.PLACED)]
        scene.wait(LEASE_MS)
        assert [of(scene, worker) for worker in workers(scene)] == shares and all(shares)
        assert not any(dock.core.uplink.unreceived(dock.core.ledger.own()) for dock in scene.docks), "received, by whoever it was"
        assert scene.stored(said) == [False] * 6
        scene.wait(4 * LEASE_MS)
        assert scene.stored(said) == [True] * 6 and hands(scene) == before
        assert [worker.core.receiver.incarnation for worker in workers(scene)] == incarnations, "no edge was asked to say hello"
        scene.heals()


def test_a_worker_that_is_cut_off_alone_lets_go_of_what_the_other_takes_over() -> None:
    with two_workers() as scene:
        first, second = workers(scene)
        n = of(scene, first)[0]
        first.cut_off(6 * LEASE_MS)
        scene.wait(LEASE_MS // 2)
        assert of(scene, first), "it is held over"
        said = scene.says(scene.docks[n], "A1", Status.PLACED)
        scene.wait(2 * LEASE_MS)
        assert held(first) == [] and of(scene, second) == list(range(6)) and held(second) == list(range(5))
        said += scene.says(scene.docks[n], "A1", Status.PICKED)
        scene.wait(LEASE_MS)
        assert scene.stored(said) == [True, True], "through the one that the store hears; the first still has the first of them"
        scene.wait(4 * LEASE_MS)
        assert held(first) and held(second), "they share again"
        scene.heals()


def test_a_worker_that_was_stopped_beyond_its_lease_holds_nothing_over_when_it_finds_no_store() -> None:
    with two_workers() as scene:
        first, second = workers(scene)
        first.paused_until = scene.world.now + 3 * LEASE_MS
        scene.world.net.broker.swallow(4 * LEASE_MS)  # no claim comes to its help
        scene.wait(2 * LEASE_MS)
        assert held(second) == list(range(5))
        scene.world.store.away(4 * LEASE_MS)
        scene.wait(2 * LEASE_MS)
        assert first.paused_until < scene.world.now and held(first) == [] and held(second) == list(range(5))
        scene.heals()


def test_of_a_worker_that_died_in_an_outage_the_other_takes_over_a_lease_after_it() -> None:
    with two_workers() as scene:
        first, second = workers(scene)
        scene.world.store.away(3 * LEASE_MS)
        scene.wait(LEASE_MS)
        first.stop()
        scene.wait(2 * LEASE_MS + LEASE_MS // 2)
        assert len(held(second)) < 5, "it might have been cut off only"
        scene.wait(LEASE_MS)
        assert held(second) == list(range(5))
        scene.heals()


def test_a_source_system_may_talk_to_any_worker_and_every_site_hears_of_it() -> None:
    with two_workers() as scene:
        first, second = workers(scene)
        a, b = of(scene, first)[0], of(scene, second)[0]
        site_of_b = scene.docks[b].address.site
        event = scene.world.clients.event(first, "A9", Status.PLACED)
        request = Request([replace(event, site=site_of_b)])
        first.give(request)
        scene.wait(30 * MINUTE)
        assert scene.docks[b].core.ledger.book.get("acme", "A9") is not None, "by way of the store"
        assert scene.docks[a].core.ledger.book.get("acme", "A9") is None
        scene.heals()


def test_worlds_of_workers_have_all_that_befalls_them() -> None:
    worlds = [world_of(BASES["workers"] + n) for n in range(40)]
    assert {o.workers for o in worlds} == {2, 3}
    assert {kind for o in worlds for _, kind, _ in o.plan} >= {*WORKER_FAULTS, *WORKER_OUTAGES}
    outages = [numbers[1] / o.lease_ms for o in worlds for _, kind, numbers in o.plan if kind in WORKER_OUTAGES]
    assert min(outages) < 1 and max(outages) > 4
    pauses = [numbers[1] / o.lease_ms for o in worlds for _, kind, numbers in o.plan if kind == "worker_pauses"]
    assert min(pauses) < 1 and max(pauses) > 2
