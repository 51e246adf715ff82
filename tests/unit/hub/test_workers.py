"""A worker's rounds over the real lease table, and its end of the register; real clocks, short leases, no hub."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hub.config import HubConfig, new_file, read_config
from hub.leasing import LeaseSettings, partition_of
from hub.registry import Node
from hub.store.leases import Leases, sqlite_leases
from hub.workers import Hooks, Workers, mono_ms
from protocols.claims import Claim
from protocols.errors import ConfigError, InvalidInput, LedgerBroken
from protocols.topics import Address
from protocols.trust import NodeCard

SETTINGS = LeaseSettings(partitions=4, lease_ms=1_200)
PATIENT = LeaseSettings(partitions=4, lease_ms=2_000)
"""for what must not lapse while this machine is busy"""
SITE = Address("acme", "EMEA", "W8", "dock-1")


@dataclass
class Here:
    """What a hub would be to its worker."""

    path: Path
    nodes: list[Node] = field(default_factory=list)
    away: bool = False
    hangs: bool = False
    go_on: threading.Event = field(default_factory=threading.Event)
    claims: list[dict[int, int]] = field(default_factory=list)
    changes: list[bool] = field(default_factory=list)
    stirred: asyncio.Event = field(default_factory=asyncio.Event)

    def go_away(self, worker: Workers) -> None:
        self.away = True
        assert worker._leases is not None
        worker._leases.close()

    def open_leases(self) -> Leases:
        if self.hangs:
            self.go_on.wait(20)
        if self.away:
            raise LedgerBroken("the store is away")
        return sqlite_leases(self.path, mono_ms, SETTINGS.partitions)

    async def read(self) -> list[tuple[Node, str]]:
        return [(node, "") for node in self.nodes]

    async def admit(self, card: NodeCard, orgs: Sequence[str]) -> None:
        if card.node == "impostor":
            raise InvalidInput("node", "is taken by another key")
        address = Address(card.org, card.region, card.site, card.node)
        self.nodes = [n for n in self.nodes if n.address.node != card.node]
        self.nodes.append(Node(address, card.public_key, card.password_hash, 1, tuple(orgs)))

    async def changed(self, taken: bool) -> None:
        self.changes.append(taken)
        self.stirred.set()

    def worker(self, name: str, settings: LeaseSettings = SETTINGS) -> Workers:
        hooks = Hooks(self.open_leases, self.read, self.admit, self.changed, lambda fences: self.claims.append(dict(fences)))
        return Workers(name, lambda: "here:1", settings, hooks)


def in_loop(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 30))


async def until(fine: Callable[[], bool], *stirred: asyncio.Event) -> None:
    """Wait for something that a change of hands brings about, or time alone."""
    while not fine():
        for event in stirred:
            event.clear()
        waits = [asyncio.ensure_future(event.wait()) for event in stirred]
        _, pending = await asyncio.wait(waits, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
        for one in pending:
            one.cancel()


def held(worker: Workers) -> list[int]:
    return sorted(worker.leasing.held(mono_ms()))


def test_two_workers_share_the_partitions_and_one_that_ends_gives_its_share_back_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        a, b = Here(tmp_path / "workers.db"), Here(tmp_path / "workers.db")
        one, two = a.worker("w1"), b.worker("w2")
        rounds = [asyncio.create_task(w.run()) for w in (one, two)]
        await until(lambda: len(held(one)) == len(held(two)) == 2, a.stirred, b.stirred)
        assert True in a.changes and sorted([*held(one), *held(two)]) == [0, 1, 2, 3]
        serving = [w.serves(SITE) for w in (one, two)]
        assert sorted(serving) == [False, True]
        assert serving[0] == (partition_of("acme", "W8", 4) in held(one))
        two.stop()
        await rounds[1]
        assert held(two) == [] and b.changes[-1] is False
        await until(lambda: len(held(one)) == 4, a.stirred)
        shown = one.as_json()
        assert shown["held"] == 4 and [w["worker"] for w in shown["workers"]] == ["w1"] and shown["troubles"] == []
        one.stop()
        await rounds[0]

    in_loop(story)


def test_a_node_that_is_admitted_at_one_worker_is_admitted_at_all(tmp_path: Path) -> None:
    async def story() -> None:
        old = Node(SITE, b"k1", "scrypt$1", 1, ("globex",))
        a, b = Here(tmp_path / "workers.db", [old]), Here(tmp_path / "workers.db")
        one, two = a.worker("w1"), b.worker("w2")
        rounds = [asyncio.create_task(w.run()) for w in (one, two)]
        await until(lambda: [n.address.node for n in b.nodes] == ["dock-1"], a.stirred, b.stirred)
        assert b.nodes[0].orgs == ("globex",) and b.nodes[0].public_key == b"k1"
        await two.admit(NodeCard("dock-2", "acme", "EMEA", "W9", b"k2", "scrypt$2"), (), 7)
        await two.admit(NodeCard("impostor", "acme", "EMEA", "W9", b"k3", "scrypt$2"), (), 7)
        await until(lambda: "dock-2" in [n.address.node for n in a.nodes], a.stirred, b.stirred)
        with pytest.raises(InvalidInput, match="taken by another key"):
            await one.admit(NodeCard("dock-2", "acme", "EMEA", "W9", b"k9", "scrypt$2"), (), 7)
        await until(lambda: len(held(one)) == len(held(two)) == 2 and len(a.nodes) == 2, a.stirred, b.stirred)
        both = [*one.subscriptions(a.nodes), *two.subscriptions(a.nodes)]
        assert "longshore/v1/acme/+/W8/+/up/live" in both and len(both) == len(dict.fromkeys(both)) == 8, "each site is read once"
        for worker, task in zip((one, two), rounds, strict=True):
            worker.stop()
            await task

    in_loop(story)


def test_a_worker_that_does_not_reach_the_table_or_hears_nothing_of_it_holds_over_what_it_has_and_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        here = Here(tmp_path / "workers.db")
        worker = here.worker("w1", PATIENT)
        task = asyncio.create_task(worker.run())
        await until(lambda: len(held(worker)) == 4, here.stirred)
        assert worker.troubles() == [] and here.claims == [dict.fromkeys(range(4), 1)]
        here.go_away(worker)
        await until(lambda: worker.as_json()["heldOver"] == 4, here.stirred)
        [trouble] = worker.troubles()
        assert trouble == "no lease: the store is away; holds 4 partitions over until the store answers" and worker.failures_total > 3
        here.hangs = True
        await until(lambda: "has not answered in time" in worker.troubles()[0], here.stirred)
        assert worker.serves(SITE) and here.changes == [True] and worker.as_json()["held"] == 4, "nothing moved"
        here.away = here.hangs = False
        here.go_on.set()
        await until(lambda: not worker.troubles(), here.stirred)
        assert here.changes == [True] and worker.as_json()["heldOver"] == 0
        worker.stop()
        await task

    in_loop(story)


def test_what_another_claims_is_let_go_of_at_once_also_while_the_table_does_not_answer(tmp_path: Path) -> None:
    async def story() -> None:
        here = Here(tmp_path / "workers.db")
        worker = here.worker("w1", PATIENT)
        task = asyncio.create_task(worker.run())
        await until(lambda: len(held(worker)) == 4, here.stirred)
        fence = worker.leasing.held(mono_ms())[1]
        here.hangs = True
        here.go_away(worker)
        worker.claimed(Claim(1, fence, "w2", 1))
        assert len(held(worker)) == 4 and worker.claimed_total == 0
        worker.claimed(Claim(1, fence + 1, "w2", 1))
        assert held(worker) == [0, 2, 3] and worker.claimed_total == 1
        await until(lambda: here.changes == [True, False], here.stirred)
        here.away = here.hangs = False
        here.go_on.set()
        worker.stop()
        await task

    in_loop(story)


def test_a_second_process_of_one_name_is_named_as_the_trouble(tmp_path: Path) -> None:
    async def story() -> None:
        a, b = Here(tmp_path / "workers.db"), Here(tmp_path / "workers.db")
        one, two = a.worker("w1"), b.worker("w1")
        first = asyncio.create_task(one.run())
        await until(lambda: len(held(one)) == 4, a.stirred)
        second = asyncio.create_task(two.run())
        await until(lambda: any("another process runs as worker 'w1'" in trouble for trouble in two.troubles()), b.stirred)
        assert held(two) == []
        for worker, task in ((one, first), (two, second)):
            worker.stop()
            await task

    in_loop(story)


def read(folder: Path, **chosen: str | int) -> HubConfig:
    (folder / "hub.toml").write_text(new_file({"hub.org": "acme", **{k.replace("__", "."): v for k, v in chosen.items()}}), "utf-8")
    return read_config(folder, {})


def test_settings_that_cannot_work_are_refused_and_the_default_is_one_process(tmp_path: Path) -> None:
    assert not read(tmp_path).workers.several
    with pytest.raises(ConfigError, match="the broker is the embedded one"):
        read(tmp_path, workers__name="w1")
    with pytest.raises(ConfigError, match=r"workers.name: cannot name a node"):
        read(tmp_path, workers__name="W 1", broker__kind="external")
    found = read(tmp_path, workers__name="w1", broker__kind="external", storage__store_dir="shared")
    assert found.storage.path("store.db") == tmp_path / "shared" / "store.db" and found.storage.path("hub.db") == tmp_path / "hub.db"
    assert found.storage.path("workers.db").parent == tmp_path / "shared"
