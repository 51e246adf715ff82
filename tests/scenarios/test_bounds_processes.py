"""An outage on a small disk, with real processes: a flood of telemetry and facts of orders at an edge whose ledger has no room for both."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hub.cli_ask import Client, client_of
from hub.config import read_config
from protocols.sqlite import Db
from tests.support.commands import done, new_pair
from tests.support.patience import ANSWER_S
from tests.support.procs import Child, python, started

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("copies")]  # whole processes

SMALL = {
    "LONGSHORE_STORAGE__BUDGET_BYTES": "1500000",
    "LONGSHORE_STORAGE__TELEMETRY_BYTES": "300000",
    "LONGSHORE_STORAGE__RESERVE_BYTES": "300000",
    "LONGSHORE_STORAGE__BALLAST_BYTES": "1000000",
    "LONGSHORE_STORAGE__FLOOR_DAYS": "0",
    "LONGSHORE_SYNC__HEARTBEAT_MS": "500",
    "LONGSHORE_SYNC__IDLE_HELLO_MS": "1000",
    "LONGSHORE_SYNC__RETRY_MS": "500",
}


class Site:
    """A hub and an edge in two folders."""

    def __init__(self, folder: Path) -> None:
        self.hub, self.edge = new_pair(folder)
        self.url = ""

    @contextmanager
    def edge_running(self) -> Iterator[Child]:
        ready = self.edge / "ready"
        ready.unlink(missing_ok=True)
        args = python("-m", "edge_agent.cli", "run", "--config", self.edge / "edge.toml", "--ready-file", ready)
        with started(args, env=SMALL) as edge:
            edge.wait_until(ready.exists)
            self.url = (self.edge / "run.url").read_text("utf-8").split()[0]
            yield edge

    @contextmanager
    def hub_running(self) -> Iterator[Client]:
        with started(python("-m", "hub.cli", "run", "--config", self.hub / "hub.toml")) as hub:
            hub.wait_until(lambda: "ready: " in hub.output())
            yield client_of(read_config(self.hub, {}))

    def call(self, path: str, body: Any = None) -> tuple[int, Any]:
        """A request to the edge: status and JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())


def orders(first: int, count: int, note: str = "") -> list[dict[str, Any]]:
    one = {"source": "DOCK", "status": "PLACED", "timestamp": "2026-05-21T14:05:12Z", **({"details": {"note": note}} if note else {})}
    return [{**one, "orderId": f"O{n}"} for n in range(first, first + count)]


def readings(devices: int) -> list[dict[str, Any]]:
    values = {"batteryPercent": 87, "note": "x" * 60}
    return [{"device": f"d{n}", "kind": "health", "timestamp": "2026-05-21T14:05:12Z", "values": values} for n in range(devices)]


def closes(api: Client, facts: int) -> bool:
    row = next((r for r in api.get("/v1/balance")["nodes"] if r["node"] == "dock-7"), None)
    return row is not None and bool(row["balanced"]) and not row["queued"] and row["captured"] == facts


def in_store(site: Site, cls: int) -> tuple[int, int]:
    """(facts in the central store, places closed by records) of a class of the edge's streams."""
    db = Db(site.hub / "store.db", read_only=True)
    try:
        ((facts,),) = db.query("SELECT count(*) FROM log JOIN streams USING (sid) WHERE node='dock-7' AND cls=?", (cls,))
        ((closed,),) = db.query(
            "SELECT coalesce(sum(last - first + 1), 0) FROM runs JOIN streams USING (sid) WHERE node='dock-7' AND cls=? AND kind=2", (cls,)
        )
        return int(facts), int(closed)
    finally:
        db.close()


def test_an_outage_with_a_small_budget_and_a_flood_loses_no_fact_of_an_order(tmp_path: Path) -> None:
    site = Site(tmp_path)
    said = told = 0
    with site.edge_running() as edge:
        for turn in range(40):
            status, _ = site.call("/v1/telemetry", readings(300))
            assert status == 201, "telemetry makes room for telemetry"
            told += 300
            status, _ = site.call("/v1/events", orders(said, 10))
            assert status == 201
            said += 10
            if turn == 20:
                disk = site.call("/v1/status")[1]["disk"]
                assert disk["evicted"]["superseded"] > 1_000
                assert disk["telemetryBytes"] <= 330_000
                assert disk["ballastHeld"]
        edge.kill()
    with site.edge_running() as edge:
        while (status := site.call("/v1/events", orders(said, 20, "y" * 2_000))[0]) == 201:
            said += 20
        assert status == 507
        assert site.call("/v1/telemetry", readings(1))[0] == 507
        code, problem = site.call("/readyz")
        assert (code, problem["reasons"]) == (503, ["the ledger has reached its budget"])
        with site.hub_running() as api:
            edge.wait_until(lambda: closes(api, said + told), what="settled to the last fact")
            edge.wait_until(lambda: site.call("/readyz")[0] == 200, what="ready again by itself")
            assert site.call("/v1/events", orders(said, 1))[0] == 201
            said += 1
            edge.wait_until(lambda: closes(api, said + told), what="settled again")
    assert in_store(site, 0) == (said, 0), "every fact of an order is settled"
    facts, evicted = in_store(site, 1)
    assert facts + evicted == told, "telemetry is settled, or in a signed record"
    assert evicted > told // 2
    assert done("hub.cli", "audit", "--dir", site.hub, "--json")["ok"]
    assert done("edge_agent.cli", "audit", "--config", site.edge / "edge.toml", "--json")["ok"]
