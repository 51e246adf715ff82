"""The lease table and the register of the workers on PostgreSQL: what the unit tests say of SQLite, and workers that reach at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from hub.store.leases import Leases, Me, SharedNode
from hub.store.pg import Pg, Server
from hub.store.pg_leases import postgres_leases
from protocols.errors import ConfigError, InvalidInput

LEASE_MS = 60_000
TABLES = ("workers", "worker_partitions", "worker_nodes", "worker_numbers")


@pytest.fixture
def several(one: Server) -> Iterator[list[Leases]]:
    """Connections of four workers, opened at once where there was no table."""
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: postgres_leases(one, 16), range(4)))
    yield opened
    for leases in opened:
        leases.close()
    db = Pg(one)
    for table in TABLES:
        db.run(f"DROP TABLE {table}")
    db.close()


def node(name: str, key: bytes) -> SharedNode:
    return SharedNode(name, key, "acme", "EMEA", "W8", "scrypt$1", "", 5, ("globex",))


def test_a_partition_is_given_once_to_whoever_lives_and_comes_first(several: list[Leases]) -> None:
    me = [Me(f"w{n}", n + 1) for n in range(4)]
    tables = [leases.renew(who, LEASE_MS) for leases, who in zip(several, me, strict=True)]
    assert [w.worker for w in tables[3].workers] == ["w0", "w1", "w2", "w3"] and len(tables[0].partitions) == 16
    wanted = [(p.partition, p.fence) for p in tables[0].partitions]
    with ThreadPoolExecutor(4) as pool:
        given = list(pool.map(lambda n: several[n].take(me[n], wanted), range(4)))
    assert sorted(p for each in given for p in each) == list(range(16)), "each once, whoever got it"
    first = next(n for n in range(4) if given[n])
    several[first].release(me[first], [(p, fence) for p, fence in given[first].items()][:2])
    assert sum(not p.lives for p in several[0].read().partitions) == 2
    several[first].leave(me[first])
    assert all(p.worker != me[first].worker for p in several[0].read().partitions)


def test_who_is_not_heard_is_dead_by_the_servers_clock(several: list[Leases]) -> None:
    a, b = Me("w1", 1), Me("w2", 2)
    seen = several[0].renew(a, 0)
    assert seen.mine and not seen.workers
    assert several[0].take(a, [(0, 0)]) == {}
    several[1].renew(b, LEASE_MS)
    assert several[1].take(b, [(0, 0)]) == {0: 1}
    assert not several[2].renew(Me("w2", 3), LEASE_MS).mine, "another process lives under that name"


def admit_some(leases: Leases, numbers: Iterable[int]) -> None:
    for n in numbers:
        leases.admit(node(f"dock-{n}", b"key %d" % n))


def test_the_register_is_one_and_its_versions_are_in_the_order_of_the_commits(several: list[Leases]) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: admit_some(several[n], range(n, 40, 4)), range(4)))
    found, version = several[0].nodes_since(0)
    assert len(found) == 40 and version == 40 and found[0].orgs == ("globex",)
    with pytest.raises(InvalidInput, match="this key belongs to 'dock-3'"):
        several[1].admit(node("dock-99", b"key 3"))
    assert several[1].nodes_since(version) == ([], version)


def test_another_number_of_partitions_is_refused(several: list[Leases], one: Server) -> None:
    with pytest.raises(ConfigError, match=r"workers.partitions is 8"):
        postgres_leases(one, 8)
