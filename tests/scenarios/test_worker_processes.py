"""Two workers of one hub, a Mosquitto and four edges as real processes, the central store one file, or PostgreSQL. Workers are killed, and
stopped for longer than their lease; in the end nothing is missing, and nothing is there twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.scenarios.test_broker_processes import HASTE, asked, ended
from tests.support.commands import as_json as done
from tests.support.engines.mosquitto import FAST, Mosquitto
from tests.support.engines.postgres import Postgres, server
from tests.support.needs import needs
from tests.support.patience import ANSWER_S
from tests.support.ports import free_port
from tests.support.procs import Child, ChildError, python

pytestmark = [pytest.mark.slow, needs("mosquitto")]
EVENT: Final = {"source": "APP", "status": "PLACED", "timestamp": "2026-05-21T14:05:12Z"}


COUNTS: Final = """SELECT s.node, count(*), count(DISTINCT l.h) FROM log l JOIN streams s USING (sid)
    WHERE l.okey IS NOT NULL GROUP BY s.node"""


class Worker:
    """A worker: its folder, and the process while there is one."""

    def __init__(self, region: Region, name: str) -> None:
        self.folder, self.name, self._undo = region.folder / name, name, region.undo
        self.api_port = free_port()
        done("hub.cli", "init", self.folder, "--api-port", str(self.api_port), "--broker-port", str(region.broker.port))
        if name != "w1":
            shutil.copyfile(region.folder / "w1" / "hub.key", self.folder / "hub.key")  # one hub: one key
        drop = self.folder / "hub.toml.d"
        drop.mkdir()
        lines = ["[broker]", 'kind = "external"', *region.store_lines]
        lines += ["[workers]", f'name = "{name}"', "lease_s = 3", "partitions = 8", "follow_s = 1", ""]
        (drop / "worker.toml").write_text("\n".join(lines))
        self.process: Child | None = None

    def start(self) -> None:
        self.process = self._undo.enter_context(ended(Child(python("-m", "hub.cli", "run", "--dir", self.folder))))
        self.process.wait_http(f"http://127.0.0.1:{self.api_port}/healthz")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def take(self, events: list[dict[str, str]]) -> None:
        """A source system at the centre speaks."""
        token = (self.folder / "api.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.api_port}/v1/events", json.dumps(events).encode(), headers)
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            assert answer.status == 201

    def table(self) -> Any:
        return asked(f"http://127.0.0.1:{self.api_port}/v1/workers", self.folder / "api.token")

    def sees(self, *names: str) -> Callable[[], bool]:
        """Whether these live, share all partitions, and nobody else does."""

        def fine() -> bool:
            found = self.table()
            return not found["unheld"] and not found["troubles"] and [w["worker"] for w in found["workers"] if w["partitions"]] == [*names]

        return fine


class Region:
    """A broker, two workers and four edges, each at a site of its own. `said`: how many events each was told yes to."""

    def __init__(self, folder: Path, undo: ExitStack, postgres: Postgres | None) -> None:
        self.folder, self.undo, self._postgres = folder, undo, postgres
        self.store_lines = ["[storage]", f'store_dir = "{folder / "store"}"']
        if postgres is not None:
            where = postgres.server("central")
            self.store_lines = ["[store]", 'kind = "postgres"', f'dsn = "{where.dsn}"', f'password_file = "{where.password_file}"']
        port = free_port()
        config = folder / "mosquitto.conf"
        config.write_text("\n".join([f"listener {port} 127.0.0.1", "allow_anonymous true", *FAST, ""]))
        self.broker = Mosquitto(config, port)
        self.broker.start()
        undo.callback(lambda: self.broker.stop())
        (folder / "store").mkdir()
        self.workers = [Worker(self, "w1"), Worker(self, "w2")]
        for worker in self.workers:
            worker.start()
        self.until(self.workers[0].sees("w1", "w2"), "shared")
        address = json.loads((self.workers[0].folder / "run.ports.json").read_text())["address"]
        self.edges = [self._edge(f"dock-{n}", f"W{n}", address, self.workers[n % 2]) for n in range(4)]
        self.said = dict.fromkeys(self.edges, 0)

    def _edge(self, name: str, site: str, address: str, at: Worker) -> str:
        folder = self.folder / name
        done("edge_agent.cli", "init", folder, "--node", name, "--site", site, "--region", "EMEA", "--port", "0", "--hub", address)
        done("hub.cli", "nodes", "add", folder / "node.card.json", "--dir", at.folder)
        ready = self.folder / f"{name}.ready"
        args = python("-m", "edge_agent.cli", "run", "--config", folder / "edge.toml", "--ready-file", ready)
        child = self.undo.enter_context(ended(Child(args, env=HASTE)))
        child.wait_until(ready.exists, what="ready")
        return name

    def ask_edge(self, edge: str, path: str) -> Any:
        url = (self.folder / f"{edge}.ready").read_text().strip()
        return asked(url + path, self.folder / edge / "api.token")

    def says(self, count: int = 5) -> None:
        """Each edge records so many events."""
        for edge in self.edges:
            first = self.said[edge]
            lines = [json.dumps({"orderId": f"{edge}-{n}", **EVENT}) for n in range(first, first + count)]
            done("edge_agent.cli", "events", "append", "--config", self.folder / edge / "edge.toml", stdin="\n".join(lines))
            self.said[edge] += count

    def until(self, ready: Callable[[], bool], what: str) -> None:
        alive = next(w.process for w in self.workers if w.process is not None and w.process.running)
        try:
            alive.wait_until(ready, what=what)
        except ChildError as error:
            raise AssertionError((what, [w.process.output()[-1_500:] for w in self.workers if w.process], self.counts())) from error

    def all_settled(self) -> bool:
        return all(self.ask_edge(edge, "/v1/status")["queue"]["events"] == 0 for edge in self.edges)

    def counts(self) -> dict[str, tuple[int, int]]:
        """By node: facts in the store's log, and different ones."""
        if self._postgres is not None:
            lines = [line.split("|") for line in self._postgres.sql(COUNTS, "central").splitlines()]
            return {node: (int(facts), int(different)) for node, facts, different in lines}
        with sqlite3.connect(f"file:{self.folder / 'store' / 'store.db'}?mode=ro", uri=True) as db:
            rows = db.execute(COUNTS).fetchall()
        db.close()
        return {node: (facts, different) for node, facts, different in rows}

    def nothing_missing_and_nothing_twice(self) -> None:
        self.until(self.all_settled, "settled")
        found = self.counts()
        assert {edge: found.get(edge) for edge in self.edges} == {edge: (n, n) for edge, n in self.said.items()}


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=needs("postgres"))])
def region(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Region]:
    with ExitStack() as undo:
        yield Region(tmp_path, undo, undo.enter_context(server()) if request.param == "postgres" else None)


def test_workers_die_and_are_stopped_and_come_back_and_nothing_is_missing_or_there_twice(region: Region) -> None:
    one, two = region.workers
    region.says()
    region.nothing_missing_and_nothing_twice()
    region.until(lambda: [len(w["partitions"]) for w in one.table()["workers"]] == [4, 4], "shared evenly")  # a lease may lapse meanwhile

    one.kill()
    region.says()
    region.until(two.sees("w2"), "taken over")
    region.nothing_missing_and_nothing_twice()

    one.start()
    region.until(two.sees("w1", "w2"), "shared again")
    two.signal(signal.SIGSTOP)
    region.says()
    region.until(one.sees("w1"), "taken over from one that is stopped")
    region.says()
    region.nothing_missing_and_nothing_twice()
    two.signal(signal.SIGCONT)
    region.until(two.sees("w1", "w2"), "shared with one that went on")
    region.says()
    region.nothing_missing_and_nothing_twice()

    for worker in region.workers:
        worker.kill()
    region.says()
    for worker in region.workers:
        worker.start()
    region.until(one.sees("w1", "w2"), "shared once more")
    region.nothing_missing_and_nothing_twice()


def holds_half(worker: Worker) -> bool:
    shown = done("hub.cli", "workers", "--dir", worker.folder, code=None)  # it ends with 1 while something is unheld
    assert shown["worker"] == worker.name
    return shown["held"] == 4 and shown["unheld"] == []


def test_what_came_at_one_worker_goes_down_to_the_sites_of_the_other(region: Region) -> None:
    one, two = region.workers
    one.take([{"orderId": f"central-{n}", "site": f"W{n}", **EVENT} for n in range(4)])
    for n, edge in enumerate(region.edges):
        region.until(lambda edge=edge, n=n: region.ask_edge(edge, f"/v1/orders/central-{n}").get("status") == "PLACED", f"down to {edge}")  # type: ignore[misc]
    for worker in (one, two):
        region.until(partial(holds_half, worker), f"half of it held by {worker.name}, and said so")
    nodes = [done("hub.cli", "nodes", "ls", "--dir", worker.folder)["nodes"] for worker in (one, two)]
    assert [[{**node, "addedMs": 0} for node in each] for each in nodes] == [[{**node, "addedMs": 0} for node in nodes[0]]] * 2

    def shown_once() -> bool:
        held = [{row["node"] for row in done("hub.cli", "fleet", "--dir", w.folder)["fleet"]} for w in (one, two)]
        return sorted([*held[0], *held[1]]) == region.edges

    region.until(shown_once, "each node is shown by the worker that speaks to it")
    for worker in (one, two):  # nobody can say while a worker takes in what the other stored
        closes = partial(done, "hub.cli", "balance", "--dir", worker.folder)
        region.until(lambda closes=closes: closes()["fleet"]["balanced"] is True, f"the balance of {worker.name} closes")  # type: ignore[misc]
