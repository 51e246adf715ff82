"""Backups with real processes: what an edge frees, and hub, store and edge coming back from copies, with nothing lost.

Each story runs a hub and an edge from their commands, over the embedded broker, and reads their databases when they have ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hub.cli_ask import Client, client_of
from hub.config import read_config
from protocols.sqlite import Db
from tests.support.commands import done, new_pair
from tests.support.procs import Child, python, started

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("copies")]  # whole processes


class Pair:
    """A hub and an edge in two folders, running or not."""

    def __init__(self, folder: Path, *store: str) -> None:
        self.hub, self.edge = new_pair(folder, *store)
        self.env = {"LONGSHORE_STORAGE__FLOOR_DAYS": "0", "LONGSHORE_SYNC__HEARTBEAT_MS": "500", "LONGSHORE_SYNC__IDLE_HELLO_MS": "1000"}

    @contextmanager
    def running(self) -> Iterator[tuple[Child, Client]]:
        """Both of them."""
        ready = self.edge / "ready"
        ready.unlink(missing_ok=True)
        with started(python("-m", "hub.cli", "run", "--config", self.hub / "hub.toml")) as hub:
            hub.wait_until(lambda: "ready: " in hub.output())
            args = python("-m", "edge_agent.cli", "run", "--config", self.edge / "edge.toml", "--ready-file", ready)
            with started(args, env=self.env) as edge:
                edge.wait_until(ready.exists)
                yield edge, client_of(read_config(self.hub, {}))

    def says(self, *orders: str) -> None:
        """Capture at the edge."""
        events = [{"orderId": o, "source": "DOCK", "status": "PLACED", "timestamp": "2026-05-21T14:05:12Z"} for o in orders]
        done("edge_agent.cli", "events", "append", "--config", self.edge / "edge.toml", stdin="\n".join(json.dumps(e) for e in events))

    def backup(self, place: Path, *more: str) -> str:
        """Of the hub; its id."""
        return str(done("hub.cli", "backup", place, *more, "--dir", self.hub, "--json")["id"])

    def orders(self) -> list[str]:
        """What the central store shows."""
        return rows(self.hub / "store.db", "SELECT order_id FROM view ORDER BY order_id")

    def audited(self) -> None:
        """Every chain is whole, at both ends."""
        assert done("hub.cli", "audit", "--dir", self.hub, "--json")["ok"]
        assert done("hub.cli", "verify", "--dir", self.hub, "--json")["ok"]
        assert done("edge_agent.cli", "audit", "--config", self.edge / "edge.toml", "--json")["ok"]


def rows(path: Path, sql: str) -> list[Any]:
    db = Db(path, read_only=True)
    try:
        return [row[0] for row in db.query(sql)]
    finally:
        db.close()


def closes(api: Client, settled: int) -> bool:
    row = api.get("/v1/balance")["fleet"]
    return bool(row["balanced"]) and row["settled"] >= settled and not row["queued"]


def freed(pair: Pair) -> int:
    return sum(rows(pair.edge / "ledger.db", "SELECT freed_seq FROM streams WHERE own=1"))


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_an_edge_frees_what_every_restorable_backup_has_and_not_before(pair: Pair, tmp_path: Path) -> None:
    with pair.running() as (edge, api):
        pair.says("A1", "A2")
        edge.wait_until(lambda: closes(api, 2), what="settled")
        unfinished = done("hub.cli", "backups", "register", "--place", "x", "--dir", pair.hub, "--json")["id"]
        pair.says("A3")
        edge.wait_until(lambda: closes(api, 3), what="settled")
        assert freed(pair) == 0
        pair.backup(tmp_path / "b1")
        edge.wait_until(lambda: freed(pair) == 2, what="freed up to what both backups have")
        done("hub.cli", "backups", "expire", unfinished, "--dir", pair.hub)
        edge.wait_until(lambda: freed(pair) == 3, what="freed up to what the other one has")
    assert rows(pair.edge / "ledger.db", "SELECT count(*) FROM log") == [0]
    pair.audited()


def test_hub_and_store_restored_at_once_and_twice_lose_nothing_that_a_node_said(pair: Pair, tmp_path: Path) -> None:
    with pair.running() as (edge, api):
        pair.says("A1")
        edge.wait_until(lambda: closes(api, 1), what="settled")
        pair.backup(tmp_path / "b1")
        pair.says("A2", "A3")
        edge.wait_until(lambda: closes(api, 3), what="settled")
    for again, more in enumerate(([], ["--store-only"], ["--hub-only"])):
        done("hub.cli", "restore", tmp_path / "b1", "--force", *more, "--dir", pair.hub)
        with pair.running() as (edge, api):
            pair.says(f"B{again}")
            edge.wait_until(lambda n=again: closes(api, 4 + n), what=f"settled again after {more or 'both'}")  # type: ignore[misc]
        assert pair.orders() == ["A1", "A2", "A3", *(f"B{n}" for n in range(again + 1))]
    pair.audited()


def test_an_edge_restored_from_an_older_backup_goes_on_in_a_new_epoch(pair: Pair, tmp_path: Path) -> None:
    with pair.running() as (edge, api):
        pair.says("A1")
        edge.wait_until(lambda: closes(api, 1), what="settled")
        done("edge_agent.cli", "backup", tmp_path / "e1", "--config", pair.edge / "edge.toml")
        pair.says("A2")
        edge.wait_until(lambda: closes(api, 2), what="settled")
    done("edge_agent.cli", "restore", tmp_path / "e1", "--force", "--config", pair.edge / "edge.toml")
    pair.says("A3")
    with pair.running() as (edge, api):
        edge.wait_until(lambda: closes(api, 4), what="settled, with the record that continues the old epoch")
        assert api.get("/v1/fleet")["fleet"][0]["forked"] is False
    assert pair.orders() == ["A1", "A2", "A3"]
    assert rows(pair.hub / "store.db", "SELECT count(*) FROM streams WHERE node='dock-7'") == [2]
    pair.audited()
