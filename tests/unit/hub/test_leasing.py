"""Who holds which partition: the decisions alone, and over the real table, in virtual time with a random schedule."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from hub.leasing import LeaseSettings, Leasing, partition_of
from hub.store.leases import Me, PartitionRow, SharedNode, SqlLeases, Table, WorkerRow, sqlite_leases
from protocols.errors import ConfigError, InvalidInput

SETTINGS = LeaseSettings(partitions=8, lease_ms=9_000)


class Clock:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def leases(tmp_path: Path, clock: Clock) -> Iterator[SqlLeases]:
    opened = sqlite_leases(tmp_path / "workers.db", clock, SETTINGS.partitions)
    yield opened
    opened.close()


class Worker:
    """A leasing core with the rounds of its shell."""

    def __init__(self, name: str, boot: int, leases: SqlLeases, clock: Clock) -> None:
        self.core = Leasing(Me(name, boot), SETTINGS)
        self.leases, self.clock = leases, clock

    def fails(self) -> None:
        """A round that does not reach the store."""
        self.core.expired(self.clock.ms)
        self.core.begins(self.clock.ms)
        self.core.failed(self.clock.ms)

    def round(self) -> None:
        core, now = self.core, self.clock.ms
        core.expired(now)
        core.begins(now)
        plan = core.heard(self.leases.renew(core.me, SETTINGS.lease_ms), self.clock.ms)
        self.leases.release(core.me, plan.release)
        core.took(self.leases.take(core.me, plan.take), self.clock.ms)

    @property
    def held(self) -> list[int]:
        return sorted(self.core.held(self.clock.ms))


def table(held: dict[int, tuple[str, int]], *names: str, fence: int = 1) -> Table:
    workers = tuple(WorkerRow(name, 1, "", 5_000, 0) for name in names)
    rows = tuple(PartitionRow(p, *held.get(p, ("", 0)), fence, 0, held.get(p, ("", 0))[0] in names) for p in range(8))
    return Table(workers, rows, True, 0)


def test_all_nodes_of_a_site_are_on_one_partition_and_for_good() -> None:
    assert partition_of("acme", "W8-Madrid", 64) == 25 and partition_of("globex", "W8-Madrid", 64) != 25
    spread = [partition_of("acme", f"site-{n}", 64) for n in range(6_400)]
    assert min(spread.count(p) for p in range(64)) > 60 and max(spread.count(p) for p in range(64)) < 150


def test_a_lease_is_renewed_at_a_third_and_given_up_before_the_store_can_call_it_dead() -> None:
    core = Leasing(Me("a", 1), SETTINGS)
    core.begins(0)
    plan = core.heard(table({}, "a"), 400)
    assert [p for p, _ in plan.take] == list(range(8))
    core.took(dict.fromkeys(range(8), 2), 500)
    assert core.next_deadline() == 3_000 and len(core.held(7_499)) == 8
    assert core.held(7_500) == {} and not core.holds(3, 7_500)
    assert len(core.expired(7_500)) == 8 and core.expired(7_501) == ()


def held_core() -> Leasing:
    """Asked at 0; its lease runs out at 7,500 by its own clock."""
    core = Leasing(Me("a", 1), SETTINGS)
    core.begins(0)
    core.heard(table({}, "a"), 0)
    core.took(dict.fromkeys(range(8), 2), 0)
    return core


def test_who_tries_in_vain_holds_over_what_it_had_for_as_long_as_it_tries() -> None:
    core = held_core()
    for now in (3_000, 3_900, 9_000, 15_000, 22_000):
        assert core.expired(now) == ()
        core.begins(now)
        core.failed(now)
        assert core.next_deadline() == now + 900 and len(core.held(now)) == 8
    assert core.held_over(7_499) == 0 and core.held_over(7_500) == core.held_over(29_499) == 8
    assert core.held_over(29_500) == 0 and core.held(29_500) == {} and len(core.expired(29_500)) == 8, "nothing was tried for so long"


def test_who_was_stopped_beyond_its_lease_holds_nothing_over() -> None:
    core = held_core()
    core.begins(40_000)
    core.failed(40_000)
    assert core.held(40_000) == {} and not core.holds(1, 40_000) and core.held_over(40_000) == 0
    assert len(core.expired(40_000)) == 8
    core.begins(41_000)
    core.failed(41_000)
    assert core.held(41_000) == {}


def test_a_round_that_fails_by_a_bug_of_ours_holds_nothing_over() -> None:
    core = held_core()
    core.begins(3_000)
    core.failed(3_000, tried=False)
    assert core.held(7_499) and core.held(7_500) == {}


def test_a_claim_with_a_newer_fence_ends_what_is_held_and_an_older_one_nothing() -> None:
    core = held_core()
    assert not core.claimed(1, 1) and not core.claimed(1, 2) and not core.claimed(99, 7) and len(core.held(0)) == 8
    assert core.claimed(1, 3) and not core.holds(1, 0) and len(core.held(0)) == 7, "also while its lease lasts"
    assert not core.claimed(1, 4), "let go of already"
    core.begins(7_000)
    core.failed(7_000)
    assert core.claimed(2, 9) and sorted(core.held(8_000)) == [0, 3, 4, 5, 6, 7]


def test_after_holding_over_the_table_says_whose_a_partition_is() -> None:
    core = held_core()
    core.begins(7_000)
    core.failed(7_000)
    core.begins(8_000)
    mine = dict.fromkeys(range(7), ("a", 1))
    plan = core.heard(table(mine | {7: ("b", 1)}, "a", "b", fence=2), 8_000)
    assert plan.lost == (7,) and [p for p, _ in plan.release] == [4, 5, 6] and sorted(core.held(8_000)) == [0, 1, 2, 3]
    assert core.held_over(8_000) == 0
    core.begins(14_000)
    core.failed(14_000)
    core.begins(20_000)
    assert core.heard(Table((), (), False, 0), 20_000).lost == (0, 1, 2, 3), "another process has its name"


def test_after_an_outage_of_the_store_nothing_changes_hands_whoever_comes_first(leases: SqlLeases, clock: Clock) -> None:
    a, b = Worker("a", 1, leases, clock), Worker("b", 2, leases, clock)
    for worker in (a, b, a, b):
        worker.round()
    before = [(p.worker, p.fence) for p in leases.read().partitions]
    for _ in range(30):
        clock.ms += 900
        a.fails()
        b.fails()
    assert a.held == [0, 1, 2, 3] and b.held == [4, 5, 6, 7]
    a.round()
    c = Worker("c", 3, leases, clock)
    c.round()
    leases.leave(c.core.me)
    assert a.held == [0, 1, 2, 3] and c.held == [], "neither who was there before nor who has just come takes what was b's"
    clock.ms += 900
    b.round()
    assert [(p.worker, p.fence) for p in leases.read().partitions] == before


@pytest.mark.parametrize("away_ms", [6_100, 9_000, 60_000])
def test_of_who_died_in_an_outage_the_others_take_over_a_lease_after_it(leases: SqlLeases, clock: Clock, away_ms: int) -> None:
    a, b = Worker("a", 1, leases, clock), Worker("b", 2, leases, clock)
    for worker in (a, b, a, b):
        worker.round()
    clock.ms += 2_900
    a.round()
    until = clock.ms + away_ms
    while clock.ms + 900 < until:
        clock.ms += 900
        a.fails()
    clock.ms = until
    a.round()
    assert a.held == [0, 1, 2, 3], "b may be as much alive as a is"
    for _ in range(5):
        clock.ms += 2_000
        a.round()
    assert a.held == list(range(8))


def test_what_was_nobodys_or_an_earlier_process_of_a_living_name_is_taken_at_once(leases: SqlLeases, clock: Clock) -> None:
    a, b = Worker("a", 1, leases, clock), Worker("b", 2, leases, clock)
    for worker in (a, b, a, b):
        worker.round()
    leases.release(b.core.me, [(4, b.core.held(clock.ms)[4])])
    clock.ms += 60_000
    again = Worker("a", 3, leases, clock)
    again.round()
    assert again.held == [0, 1, 2, 3, 4], "all were away, and whoever was a before is replaced; b may come back"


def test_what_was_granted_too_late_does_not_count() -> None:
    core = Leasing(Me("a", 1), SETTINGS)
    core.begins(0)
    core.heard(table({}, "a"), 100)
    assert core.took({0: 2}, 8_000) == () and core.held(8_000) == {}
    core.begins(8_000)
    plan = core.heard(table({0: ("a", 1)}, "a", fence=2), 8_100)
    assert plan.release == ((0, 2),), "given back, so that it is taken as anybody would take it: with a new fence"


def test_a_partition_whose_fence_moved_on_is_lost() -> None:
    core = Leasing(Me("a", 1), SETTINGS)
    core.begins(0)
    core.heard(table({}, "a"), 0)
    core.took({0: 2, 1: 2}, 0)
    core.begins(3_000)
    plan = core.heard(table({0: ("a", 1), 1: ("b", 1)}, "a", "b", fence=2), 3_000)
    assert plan.lost == (1,) and sorted(core.held(3_000)) == [0]


def test_shares_are_fair_and_few_partitions_move(leases: SqlLeases, clock: Clock) -> None:
    a, b, c = (Worker(name, n, leases, clock) for n, name in enumerate("abc", 1))
    a.round()
    assert a.held == list(range(8))
    for worker in (b, a, b, a):
        worker.round()
    assert a.held == [0, 1, 2, 3] and b.held == [4, 5, 6, 7]
    for worker in (c, a, b, c):
        worker.round()
    assert a.held == [0, 1, 2] and b.held == [4, 5, 6] and c.held == [3, 7]
    leases.leave(b.core.me)
    for worker in (a, c):
        worker.round()
    assert a.held == [0, 1, 2, 4] and c.held == [3, 5, 6, 7], "who stays keeps what it had"


def test_a_dead_workers_partitions_are_taken_when_its_lease_is_over(leases: SqlLeases, clock: Clock) -> None:
    a, b = Worker("a", 1, leases, clock), Worker("b", 2, leases, clock)
    for worker in (a, b, a, b):
        worker.round()
    for ms in (3_000, 3_000, 2_999):
        clock.ms += ms
        b.round()
        assert b.held == [4, 5, 6, 7]
    clock.ms += 1
    b.round()
    assert b.held == list(range(8)) and a.held == []


def test_of_two_that_reach_for_a_partition_one_gets_it(leases: SqlLeases, clock: Clock) -> None:
    a, b = Me("a", 1), Me("b", 2)
    seen = leases.renew(a, 9_000)
    leases.renew(b, 9_000)
    wanted = [(p.partition, p.fence) for p in seen.partitions]
    assert len(leases.take(a, wanted)) == 8
    assert leases.take(b, wanted) == {}
    leases.release(b, [(0, 1)])
    assert leases.read().partitions[0].worker == "a", "nobody gives back what is another's"
    assert leases.take(Me("c", 3), [(0, 1)]) == {}, "who does not live takes nothing"


def test_a_second_process_of_one_name_waits_until_the_first_is_dead(leases: SqlLeases, clock: Clock) -> None:
    first, second = Worker("a", 1, leases, clock), Worker("a", 2, leases, clock)
    first.round()
    second.round()
    assert not second.core.alone and second.held == [] and first.held == list(range(8))
    clock.ms += 9_000
    second.round()
    assert second.core.alone and second.held == list(range(8))
    first.round()
    assert not first.core.alone and first.held == []


def test_at_no_moment_do_two_believe_in_one_partition_however_rounds_fall(leases: SqlLeases, clock: Clock) -> None:
    """Workers that do not stop between two steps: their clocks alone keep them apart."""
    seed = 20_261
    rng = Random(seed)
    workers = [Worker(name, n, leases, clock) for n, name in enumerate("abc", 1)]
    moves = 0
    for step in range(600):
        clock.ms += rng.choice((1, 300, 3_000, 3_000, 9_500))
        worker = rng.choice(workers)
        before = worker.held
        if rng.random() < 0.05:
            workers[workers.index(worker)] = Worker(worker.core.me.worker, 100 + step, leases, clock)  # killed, and started again
        else:
            worker.round()
            moves += before != worker.held
        held = [p for w in workers for p in w.held]
        assert len(held) == len(set(held)), f"seed {seed}, step {step}: {[w.held for w in workers]}"
    assert moves > 50
    for worker in workers * 4:
        worker.round()
    for _ in range(8):  # also what is spared after a silence is over then
        clock.ms += 2_500
        for worker in workers * 4:
            worker.round()
    assert sorted(p for w in workers for p in w.held) == list(range(8))


def test_another_number_of_partitions_is_refused(leases: SqlLeases, clock: Clock, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"workers.partitions is 16, the workers of this central store have 8"):
        sqlite_leases(tmp_path / "workers.db", clock, 16)


def node(name: str, key: bytes, site: str = "W8", orgs: tuple[str, ...] = ()) -> SharedNode:
    return SharedNode(name, key, "acme", "EMEA", site, "scrypt$1", "", 5, orgs)


def test_the_register_is_one_and_read_by_its_changes(leases: SqlLeases, clock: Clock, tmp_path: Path) -> None:
    other = sqlite_leases(tmp_path / "workers.db", clock, SETTINGS.partitions)
    leases.admit(node("dock-1", b"k1"))
    other.admit(node("dock-2", b"k2"))
    found, version = leases.nodes_since(0)
    assert [n.node for n in found] == ["dock-1", "dock-2"] and version == 2 == leases.read().nodes_version
    other.admit(node("dock-1", b"k1"))
    assert leases.nodes_since(version) == ([], version), "the same card again is no change"
    other.admit(node("dock-1", b"k1", orgs=("globex",)))
    assert leases.nodes_since(version) == ([node("dock-1", b"k1", orgs=("globex",))], 3)
    with pytest.raises(InvalidInput, match="taken by another key"):
        leases.admit(node("dock-1", b"k9"))
    with pytest.raises(InvalidInput, match="this key belongs to 'dock-2'"):
        leases.admit(node("dock-3", b"k2"))
    other.close()
