"""The power goes at every point of input and output: what was acknowledged is there, whole, and the node goes on.

`python -m tests.storage` does the same with more cuts and other seeds; each complaint says how to make its cut again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random, SystemRandom

import pytest

from tests.storage.cuts import TRANSACTIONS, Plan, Tally, cut, played
from tests.storage.disk import Mood, Surface, crash_vfs
from tests.storage.upgrade import KINDS, cut_upgrade
from tests.storage.world import EDGE_FILE, HUB_FILE, Filmed

RANDOM_CUTS = 150
HUB_SHARDS = 2


def passed(name: str, tally: Tally) -> None:
    """Nothing was broken, and the figures are in the output of a failure and of `-s`."""
    print(f"{name}: {tally.text()}")
    assert not tally.failed, "\n".join(tally.complaints[:5])


@pytest.fixture
def seed() -> int:
    """Another one in each run; it stands in every complaint."""
    return SystemRandom().randrange(10**6)


def test_an_edge_cut_at_every_point_keeps_what_it_said_yes_to(seed: int) -> None:
    with played("crash-edge", 0, TRANSACTIONS) as world:
        passed("edge", cut(world, "edge", Plan(0)))
    with played("crash-edge", seed, TRANSACTIONS) as world:
        passed(f"edge, seed {seed}", cut(world, "edge", Plan(seed, every_point=False, random=RANDOM_CUTS)))


@pytest.mark.parametrize("shard", range(HUB_SHARDS))
def test_a_hub_and_its_store_cut_at_every_point_keep_what_they_said(shard: int) -> None:
    with played("crash-hub", 0, TRANSACTIONS) as world:
        passed("hub", cut(world, "hub", Plan(0, shard, HUB_SHARDS)))


@pytest.mark.parametrize("kind", KINDS)
def test_an_upgrade_cut_at_every_point_leaves_one_version_or_the_other(kind: str, tmp_path: Path) -> None:
    with crash_vfs(f"crash-upgrade-{kind}") as vfs:
        tally = cut_upgrade(vfs, tmp_path, kind, Plan(0, random=30, go_on=1))
    passed(kind, tally)
    assert tally.went_on == tally.cuts > 40


@pytest.mark.parametrize("node", ["edge", "hub"])
@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
def test_weaker_settings_are_found_out(node: str, synchronous: str) -> None:
    """The controls: without them a proof that is blind looks like one that passes."""
    with played(f"crash-{synchronous}-{node}", 0, 60, synchronous=synchronous) as world:
        tally = cut(world, node, Plan(0, every_point=False, random=60))
    print(f"{synchronous}, {node}: {tally.text()}")
    assert tally.broken.get("lost", 0) > 5
    if synchronous == "OFF":
        assert tally.broken.get("corrupt", 0) + tally.broken.get("half", 0) > 0


def test_a_disk_that_lies_about_syncs_is_found_out() -> None:
    with played("crash-lying", 0, 60) as world:
        disk = world.edge_machine.disk
        disk.ops = [op._replace(what="dirsync") if op.what == "sync" else op for op in disk.ops]
        assert cut(world, "edge", Plan(0, every_point=False, random=60)).broken.get("lost", 0) > 5


@pytest.fixture(scope="module")
def world() -> Iterator[Filmed]:
    with played("crash-shown", 0, TRANSACTIONS) as world:
        yield world


def test_the_trace_shows_everything_that_a_ledger_does(world: Filmed) -> None:
    """A trace that lost one of these would prove less without anybody seeing it."""
    edge, hub = world.edge_machine, world.hub_machine
    db = edge.open(EDGE_FILE)
    assert len(db.query("SELECT 1 FROM streams WHERE own=1")) == 2, "a new epoch"
    assert db.one("SELECT max(freed_seq) > 20 FROM streams") == (1,)
    assert db.one("SELECT count(*) > 0 FROM quarantine") == (1,)
    assert db.one("SELECT count(*) > 30 FROM idempotency") == (1,)
    db.close()
    assert any(one.done.repeated for one in edge.yes)
    db = hub.open(HUB_FILE)
    assert db.query("SELECT kind FROM records") == [(1,)]
    assert db.one("SELECT count(*) > 0 FROM quarantine") == (1,)
    db.close()
    assert any(s.settled for one in hub.said for s in one.message.streams)
    for machine in (edge, hub):
        for film in machine.films.values():
            assert len(film.commits) > TRANSACTIONS // 4
        kinds = {op.what for op in machine.disk.ops}
        assert kinds == {"write", "truncate", "sync", "create", "unlink", "dirsync"}
    assert len(edge.films[EDGE_FILE].commits) > TRANSACTIONS
    assert len(hub.films[HUB_FILE].commits) > TRANSACTIONS


def test_a_cut_is_made_again_from_what_its_complaint_says(world: Filmed) -> None:
    """The same seed, point and number give the same survivals."""

    def torn() -> list[dict[str, bytes]]:
        return [_left(world, point) for point in (200, 333, 700)]

    assert torn() == torn()
    assert torn()[0] != torn()[1]


def _left(world: Filmed, point: int) -> dict[str, bytes]:
    surface = Surface(world.edge_machine.disk.begun)
    for op in world.edge_machine.disk.ops[:point]:
        surface.play(op)
    return surface.left(Random(point), Mood(keep=0.5, garble=0.2, sizes=0.5, names=0.5))
