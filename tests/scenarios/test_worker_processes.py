"""Two workers of one hub, a Mosquitto and four edges as real processes, the central store one file, or PostgreSQL. Workers are killed, and
stopped for longer than their lease, and PostgreSQL goes away for longer; in the end nothing is missing, and nothing is there twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import urllib.error
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
from tests.support.engines.postgres import USER, Postgres, server
from tests.support.needs import needs
from tests.support.patience import ANSWER_S
from tests.support.ports import free_port
from tests.support.procs import Child, ChildError, python

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("copies"), needs("mosquitto")]
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
        lines = ["[broker]", 'kind = "external"', *region.store_lines(name)]
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
        self.folder, self.undo, self.postgres = folder, undo, postgres
        self._server = postgres.server("central") if postgres is not None else None
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

    def store_lines(self, worker: str) -> list[str]:
        """Where a worker finds the store; in PostgreSQL under a name of its own, so that it can be kept out alone."""
        if self.postgres is None or self._server is None:
            return ["[storage]", f'store_dir = "{self.folder / "store"}"']
        self.postgres.sql(f"CREATE ROLE {worker} LOGIN PASSWORD '{self.postgres.password}'; GRANT {USER} TO {worker};")
        self.postgres.sql(f"ALTER ROLE {worker} SET role = {USER}")
        dsn = self._server.dsn.replace(f"user={USER}", f"user={worker}")
        return ["[store]", 'kind = "postgres"', f'dsn = "{dsn}"', f'password_file = "{self._server.password_file}"']

    def keep_out(self, worker: Worker) -> None:
        """Let PostgreSQL take no connection of this worker, and end those it has."""
        assert self.postgres is not None
        self.postgres.sql(f"ALTER ROLE {worker.name} CONNECTION LIMIT 0")
        self.postgres.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{worker.name}'")

    def let_in(self, worker: Worker) -> None:
        """The end of that."""
        assert self.postgres is not None
        self.postgres.sql(f"ALTER ROLE {worker.name} CONNECTION LIMIT -1")

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

    def all_received(self) -> bool:
        """Whether the hub has all that the edges said, wherever it is kept until the store has it."""
        return all(s["notReceived"] == 0 for edge in self.edges for s in self.ask_edge(edge, "/v1/status")["streams"])

    def all_settled(self) -> bool:
        return all(self.ask_edge(edge, "/v1/status")["queue"]["events"] == 0 for edge in self.edges)

    def counts(self) -> dict[str, tuple[int, int]]:
        """By node: facts in the store's log, and different ones."""
        if self.postgres is not None:
            lines = [line.split("|") for line in self.postgres.sql(COUNTS, "central").splitlines()]
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


def goes_down(region: Region) -> None:
    """What came at one worker goes down to the sites of the other, and all that they show is one hub."""
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


@pytest.mark.parametrize("region", ["sqlite"], indirect=True)
def test_what_came_at_one_worker_goes_down_to_the_sites_of_the_other(region: Region) -> None:
    goes_down(region)


HANDS: Final = "SELECT part, worker, boot, fence FROM worker_partitions ORDER BY part"


def holds_over(worker: Worker) -> bool:
    """Whether it says so, in what people and machines read."""
    table = worker.table()
    return table["held"] == table["heldOver"] == 4 and any("holds 4 partitions over" in trouble for trouble in table["troubles"])


@pytest.mark.parametrize("region", [pytest.param("postgres", marks=needs("postgres"))], indirect=True)
def test_on_postgresql_and_while_it_is_away_both_workers_take_facts_and_one_that_is_kept_out_alone_is_replaced(region: Region) -> None:
    assert region.postgres is not None
    one, two = region.workers
    goes_down(region)
    region.says()
    region.nothing_missing_and_nothing_twice()
    region.until(lambda: [len(w["partitions"]) for w in one.table()["workers"]] == [4, 4], "shared evenly")
    hands = region.postgres.sql(HANDS, "central")

    region.postgres.stop()
    region.until(lambda: holds_over(one) and holds_over(two), "held over, after their leases")
    region.says()
    region.until(region.all_received, "received while the store is away")
    assert not region.all_settled()
    assert "PostgreSQL" in " ".join(unready(one)) and any("holds 4 partitions over until the store answers" in why for why in unready(two))

    region.postgres.start()
    region.nothing_missing_and_nothing_twice()
    region.until(one.sees("w1", "w2"), "both heard again")
    assert region.postgres.sql(HANDS, "central") == hands, "no partition changed hands, so no edge was asked to say hello"
    assert one.table()["heldOver"] == 0

    region.keep_out(two)
    region.until(lambda: two.table()["held"] == 0 and one.table()["held"] == 8, "let go of, on the other's claim")
    region.says()
    region.nothing_missing_and_nothing_twice()
    region.let_in(two)
    region.until(one.sees("w1", "w2"), "shared again")


def unready(worker: Worker) -> list[str]:
    """What `readyz` says is missing."""
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(f"http://127.0.0.1:{worker.api_port}/readyz", timeout=ANSWER_S)
    with raised.value as error:
        reasons: list[str] = json.loads(error.read())["reasons"]
    return reasons
