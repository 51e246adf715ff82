"""The simulated world itself: seeds that failed once, the same hash twice, clocks that decide nothing, checkers that can complain."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from edge_agent.core import EdgeCore, Now
from protocols.codec import Kind, pack, unpack
from protocols.errors import OverBudget
from protocols.fact import genesis
from protocols.messages import Hello
from protocols.sync.seal import Control, seal, unseal
from protocols.sync.uplink import Out
from protocols.topics import Channel
from tests.sim import profiles
from tests.sim.golden import begin
from tests.sim.keys import Keys
from tests.sim.net import Net
from tests.sim.options import DAY, FAULTS, HOUR, draw
from tests.sim.oracle import right
from tests.sim.profiles import BASES, EVERY_FAULT, MORE_FAULTS, profile_of, world_of
from tests.sim.runner import FAILING, TWICE, attempt, mixed, shifts
from tests.sim.shifted import clock_matters, comparable
from tests.sim.truth import FactId, Truth
from tests.sim.versions import as_version_1
from tests.sim.world import play
from tests.support.source import ROOT

SEEDS = 200
"""fortnights that `make test` plays, with the others that go with them, before these tests"""


def kept_seeds() -> list[int]:
    """All but those that `make test` has played before."""
    lines = FAILING.read_text("utf-8").splitlines()
    kept = [int(line.split()[0]) for line in lines if line.strip() and not line.startswith("#")]
    played = dict.fromkeys(mixed(SEEDS))
    return [seed for seed in kept if seed not in played]


def test_make_test_plays_the_seeds_that_are_left_out_here() -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    assert f"\nSEEDS ?= {SEEDS}\n" in text
    assert " worlds\n" in text.split("\ntest:")[1].split("\n\n")[0]
    assert "-m tests.sim --seeds $(SEEDS)" in text.split("\nworlds:")[1].split("\n\n")[0]
    assert kept_seeds()


@pytest.mark.parametrize("seed", [1, 1_000_001, 2_000_001, 3_000_003, 4_000_003, 5_000_000])
def test_a_few_worlds(seed: int) -> None:
    """Of each kind; `make test` plays hundreds before."""
    assert attempt(seed).complaint == ""


@pytest.mark.parametrize("seed", kept_seeds())
def test_a_seed_that_failed_once(seed: int) -> None:
    assert attempt(seed).complaint == ""


def test_worlds_have_all_the_faults_and_span_weeks() -> None:
    worlds = [draw(seed) for seed in range(120)]
    assert sorted({name for o in worlds for name in o.faults}) == sorted(FAULTS)
    assert {o.edges for o in worlds} == {1, 2, 3, 4, 6}
    assert sum(o.duration_ms for o in worlds) > 1_000 * DAY
    assert any(o.real_keys for o in worlds)
    assert any(not o.faults for o in worlds)


def test_fortnights_are_fourteen_days_of_eight_edges_with_every_fault() -> None:
    worlds = [world_of(BASES["fortnight"] + n) for n in range(200)]
    assert {(o.edges, o.duration_ms) for o in worlds} == {(8, 14 * DAY)}
    assert sorted({name for o in worlds for name in o.faults}) == sorted(EVERY_FAULT)
    assert {o.queue_limit for o in worlds} >= {0, 1_000} and {o.reorder for o in worlds} >= {0, 1_000}
    assert max(o.loss for o in worlds) == 0.3 and max(o.duplicates for o in worlds) == 0.5 and max(o.slow_ms for o in worlds) >= HOUR
    assert {kind for o in worlds for _, kind, _ in o.plan} >= set(MORE_FAULTS) - {"queue_cut", "reordering"}


def test_long_worlds_have_outages_of_a_year_and_more_beyond_what_32_bits_count() -> None:
    worlds = [world_of(BASES["long"] + n) for n in range(40)]
    outages = [max(numbers[1] for _, kind, numbers in o.plan if kind == "partitions" and not numbers[2]) for o in worlds]
    assert 350 * DAY < max(outages) <= 400 * DAY and min(outages) >= 200 * DAY > 2**31
    assert min(o.duration_ms for o in worlds) >= 500 * DAY


def test_a_seed_says_its_profile_and_one_fault_more_moves_none_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [profile_of(seed) for seed in (0, 999_999, 1_000_000, 2_000_000, 2_999_999)] == ["small", "small", "fortnight", "long", "long"]
    before = [world_of(BASES["fortnight"] + n) for n in range(20)]
    monkeypatch.setattr(profiles, "EVERY_FAULT", EVERY_FAULT[:-1])
    after = [world_of(BASES["fortnight"] + n) for n in range(20)]
    assert [tuple(f for f in o.faults if f != EVERY_FAULT[-1]) for o in before] == [o.faults for o in after]


def test_some_worlds_have_old_nodes_and_some_begin_with_databases_of_version_1() -> None:
    worlds = [world_of(BASES["fortnight"] + n) for n in range(60)]
    assert any(o.old for o in worlds) and any(o.old_hub for o in worlds) and any(not o.old and not o.old_hub for o in worlds)
    assert any(kind == "upgrades" for o in worlds for _, kind, _ in o.plan)
    world = begin(world_of(BASES["golden"]))
    assert len(world.check.truth.facts) > 20 and world.store.disk.held and world.hub.disk.held
    world.close()


def test_an_old_node_is_told_and_says_no_more_than_version_1() -> None:
    keys = Keys(0, real=False)
    hello = Hello(b"8 bytes.", (), held=())
    payload = seal(Out(Channel.CONTROL, Kind.HELLO, [], hello.to_list()), "dock-0", "hub-1", keys.signer("dock-0"))
    old = as_version_1(payload, keys)
    assert old is not None and len(old) < len(payload)
    opened = unseal(old)
    assert isinstance(opened, Control)
    body = unpack(opened.envelope.body, max_bytes=10_000)
    assert isinstance(body, list) and len(body) == 4
    keys.verify(keys.public("dock-0"), opened.envelope.signature, opened.envelope.signed)
    follow = seal(Out(Channel.CONTROL, Kind.FOLLOW, [], [b"8 bytes.", 0, 1, []]), "dock-0", "hub-1", keys.signer("dock-0"))
    assert as_version_1(follow, keys) is None


def test_the_same_seed_gives_the_same_hash_also_in_another_process() -> None:
    """Nothing hangs on the order of sets, on addresses or on the time of day."""
    seed = BASES["fortnight"] + 27
    here = attempt(seed)
    code = f"from tests.sim.runner import attempt; print(attempt({seed}).hash)"
    env = {**os.environ, "PYTHONHASHSEED": "99"}
    there = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True, timeout=120)
    assert there.stdout.strip() == here.hash == attempt(seed).hash
    assert attempt(4).hash != here.hash


@pytest.mark.parametrize("seed", [8, 11, BASES["fortnight"] + 28, BASES["fortnight"] + 53, BASES["long"]])
def test_no_clock_decides_anything(seed: int) -> None:
    """I9: with every wall clock somewhere else, by decades, each request ends where it ended."""
    assert comparable(world_of(seed))
    assert clock_matters(world_of(seed)) == ""


def test_one_world_of_each_stretch_of_seeds_is_played_with_other_clocks() -> None:
    assert shifts(BASES["fortnight"] + 2) and not shifts(BASES["fortnight"] + 1) and not shifts(BASES["golden"] + 1)
    for kind in ("small", "fortnight", "workers", "phones"):
        assert sum(shifts(BASES[kind] + n) for n in range(4 * TWICE)) == 4


def test_a_clock_that_decides_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = EdgeCore.take_events

    def not_before_2020(self: EdgeCore, events: Any, now: Now) -> Any:
        if now.wall < 1_577_836_800_000:
            raise OverBudget("the clock of this edge is wrong")
        return real(self, events, now)

    monkeypatch.setattr(EdgeCore, "take_events", not_before_2020)
    assert clock_matters(replace(draw(0), faults=(), plan=(), edges=4, budget_bytes=1_000_000_000)).startswith("I9")


def test_a_world_whose_links_stay_dead_does_not_count_as_healed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demand for convergence can fail."""
    options = replace(draw(0), faults=(), plan=(), requests=40)
    assert play(options).clients.yes > 20
    monkeypatch.setattr(Net, "up", lambda self, edge, topic, payload: None)
    with pytest.raises(AssertionError, match="I8 not healed"):
        play(options)


def test_the_oracle_tells_concurrent_facts_from_history() -> None:
    truth = Truth()
    placed = truth.add(_id("a", 1, b"1"), _genesis("a"), _row(1), 0)
    shipped = truth.add(_id("a", 2, b"2"), _id("a", 1, b"1").h, _row(6), 1 << placed)
    cancelled = truth.add(_id("c", 1, b"3"), _genesis("c"), _row(14), 1 << placed)
    late = truth.add(_id("c", 2, b"4"), _id("c", 1, b"3").h, _row(13), 1 << cancelled | 1 << shipped)
    both = right(truth, 1 << placed | 1 << shipped | 1 << cancelled)
    assert (both.heads, both.status, both.conflict) == (1 << shipped | 1 << cancelled, "CANCELLED", True)
    settled = right(truth, 0b1111)
    assert (settled.heads, settled.status, settled.conflict, settled.facts) == (1 << late, "RETURNED", False, 4)
    with pytest.raises(AssertionError, match="hangs on nothing"):
        truth.add(_id("a", 9, b"9"), b"nowhere!", _row(1), 0)


def _id(node: str, seq: int, h: bytes) -> FactId:
    return FactId(node, 1, 0, seq, h * 8)


def _genesis(node: str) -> bytes:
    return genesis(node, 1, 0)


def _row(status: int) -> bytes:
    return pack([1, "acme", "o", "s", status, None, 1, 1, None, None, None, {}, []])
