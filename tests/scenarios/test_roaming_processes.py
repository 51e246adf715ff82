"""A phone without a line of its own, as real processes: through a gateway that is cut off, straight to the hub, and on a stick.

Every process is the product as a user starts it; the phone is an edge that syncs over HTTP.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from protocols.sqlite import Db
from tests.support.commands import as_json as done
from tests.support.patience import WITHIN_S
from tests.support.ports import free_port
from tests.support.procs import Child, python

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("copies")]


class Town:
    """A hub, a gateway and phones in one folder, each a process that may come and go."""

    def __init__(self, folder: Path, undo: ExitStack) -> None:
        self.folder, self._undo = folder, undo
        self.api_port, self.broker_port = free_port(), free_port()
        self.hub_dir = folder / "hub"
        ports = ("--api-port", str(self.api_port), "--broker-port", str(self.broker_port))
        self.address = done("hub.cli", "init", self.hub_dir, *ports)["address"]
        self.running: dict[str, Child] = {}

    # --- nodes

    def edge(self, name: str, **hub: str | int) -> Path:
        """A node's folder; `hub`: settings of [hub]. It is not admitted yet."""
        place = ("--node", name, "--site", "W8", "--region", "EMEA", "--port", "0")
        done("edge_agent.cli", "init", self.folder / name, "--hub", self.address, *place)
        config = self.folder / name / "edge.toml"
        self.set(name, hub)
        return config

    def set(self, name: str, hub: dict[str, str | int]) -> None:
        """Change [hub] of a node's configuration."""
        config = self.folder / name / "edge.toml"
        lines = [line for line in config.read_text().splitlines() if not line.startswith(("url =", "token_file =", "handout_ms ="))]
        at = next(i for i, line in enumerate(lines) if line.startswith("address ="))
        lines[at + 1 : at + 1] = [f"{key} = {json.dumps(value)}" for key, value in hub.items()]
        config.write_text("\n".join(lines) + "\n")

    def config(self, name: str) -> Path:
        return self.folder / name / "edge.toml"

    def card(self, name: str) -> Path:
        return self.folder / name / "node.card.json"

    def admit(self, *names: str) -> None:
        for name in names:
            done("hub.cli", "nodes", "add", self.card(name), "--dir", self.hub_dir)

    # --- processes

    def start_hub(self) -> None:
        self._start("hub", python("-m", "hub.cli", "run", "--dir", self.hub_dir))
        self.running["hub"].wait_http(f"http://127.0.0.1:{self.api_port}/healthz")

    def start(self, name: str) -> str:
        """Run an edge; its URL."""
        ready = self.folder / f"{name}.ready"
        ready.unlink(missing_ok=True)
        self._start(name, python("-m", "edge_agent.cli", "run", "--config", self.config(name), "--ready-file", ready))
        self.running[name].wait_until(ready.exists, what="ready")
        return ready.read_text().strip()

    def _start(self, name: str, args: list[str]) -> None:
        env = {**os.environ, "LONGSHORE_SYNC__RETRY_MS": "500", "LONGSHORE_SYNC__HEARTBEAT_MS": "1000"} if name != "hub" else None
        self.running[name] = self._undo.enter_context(ended(Child(args, env=env)))

    def end(self, name: str, *, kill: bool = False) -> None:
        child = self.running.pop(name)
        if kill:
            child.kill()
        else:
            assert child.end() == 0, child.output()

    # --- what they say

    def says(self, name: str, *events: tuple[str, str]) -> None:
        lines = [
            json.dumps({"orderId": order, "source": "APP", "status": status, "timestamp": "2026-05-21T14:05:12Z"})
            for order, status in events
        ]
        done("edge_agent.cli", "events", "append", "--config", self.config(name), stdin="\n".join(lines))

    def status(self, name: str) -> Any:
        return done("edge_agent.cli", "status", "--config", self.config(name))

    def settled(self, name: str) -> int:
        """Facts of a node that the central store has, by its own receipts."""
        return sum(stream["settled"] for stream in self.status(name)["streams"])

    def until(self, ready: Callable[[], bool], what: str) -> None:
        """Wait for something that real processes do in their own time."""
        until_s = time.monotonic() + WITHIN_S
        while not ready():
            assert time.monotonic() < until_s, (what, {name: child.output()[-1_500:] for name, child in self.running.items()})

    def stored(self, node: str) -> list[tuple[int, int]]:
        """(seq, how often) of each fact of a node in the central store."""
        db = Db(self.hub_dir / "store.db", read_only=True)
        try:
            rows = db.query(
                "SELECT l.seq, count(*) FROM log l JOIN streams s USING (sid) WHERE s.node=? GROUP BY l.seq ORDER BY l.seq", (node,)
            )
        finally:
            db.close()
        return [(int(seq), int(count)) for seq, count in rows]


class ended:
    """A child that ends with the block."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def __enter__(self) -> Child:
        return self._child

    def __exit__(self, *_: object) -> None:
        self._child.discard()


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with ExitStack() as undo:
        yield Town(tmp_path, undo)


def gateway_of(town: Town, url: str) -> dict[str, str | int]:
    """How a phone reaches the gateway."""
    return {"url": url, "token_file": str(town.folder / "gate-1" / "api.token")}


def test_a_phone_through_a_gateway_that_is_cut_off_and_then_straight_to_the_hub(town: Town) -> None:
    town.edge("gate-1")
    town.edge("phone-1")
    gate_url = town.start("gate-1")
    done("edge_agent.cli", "peer", "add", town.card("phone-1"), "--config", town.config("gate-1"))
    town.set("phone-1", {**gateway_of(town, gate_url), "handout_ms": 300})
    town.start("phone-1")

    town.says("phone-1", ("A1", "PLACED"), ("A1", "PICKED"), ("A2", "SHIPPED"))
    town.until(lambda: town.status("gate-1")["custody"]["events"] == 3, "custody at the gateway, though no hub runs")
    assert town.settled("phone-1") == 0
    town.end("gate-1", kill=True)  # what it took is on its disk
    town.set("phone-1", {})
    gate_url = town.start("gate-1")
    assert town.status("gate-1")["custody"]["events"] == 3

    town.start_hub()
    town.admit("gate-1", "phone-1")
    town.until(lambda: town.stored("phone-1") == [(1, 1), (2, 1), (3, 1)], "settled at the hub")
    town.until(lambda: town.status("gate-1")["custody"]["events"] == 0, "the end of custody")

    town.end("phone-1")
    town.set("phone-1", {**gateway_of(town, gate_url), "handout_ms": 300})
    town.start("phone-1")
    town.until(lambda: town.settled("phone-1") == 3, "receipts at the phone, through the gateway")

    town.end("phone-1")
    town.set("phone-1", {"url": f"http://127.0.0.1:{town.api_port}"})
    town.start("phone-1")
    town.says("phone-1", ("A1", "PACKED"), ("A3", "PLACED"))
    town.until(lambda: town.settled("phone-1") == 5, "receipts at the phone, straight from the hub")
    assert town.stored("phone-1") == [(seq, 1) for seq in range(1, 6)], "each fact once, whichever way it came"
    rows = {row["node"]: row for row in done("hub.cli", "balance", "--dir", town.hub_dir)["nodes"]}
    assert rows["phone-1"]["balanced"] is True
    order = done("hub.cli", "orders", "show", "A1", "--dir", town.hub_dir)
    assert order["status"] == "PACKED"


def test_a_stick_brings_what_no_line_could_and_the_same_stick_twice_changes_nothing(town: Town) -> None:
    for name in ("gate-1", "phone-1", "phone-2"):
        town.edge(name)
    for phone in ("phone-1", "phone-2"):
        done("edge_agent.cli", "peer", "add", town.card(phone), "--config", town.config("gate-1"))
    town.says("phone-1", ("A1", "PLACED"), ("A1", "PICKED"))
    town.says("phone-2", ("A2", "PLACED"))
    one, two, all_of_it = (town.folder / f"{name}.stick" for name in ("one", "two", "all"))

    assert done("edge_agent.cli", "queue", "export", one, "--config", town.config("phone-1"))["messages"] == 1
    town.start("phone-2")
    assert done("edge_agent.cli", "queue", "export", two, "--config", town.config("phone-2"))["messages"] == 1, "while it runs, too"
    town.end("phone-2")  # or it would bring its fact by itself, once there is a hub
    first = done("edge_agent.cli", "queue", "import", one, "--config", town.config("gate-1"))
    assert (first["kept"], first["newFacts"]) == (1, 2)
    town.start("gate-1")
    assert done("edge_agent.cli", "queue", "import", two, "--config", town.config("gate-1"))["kept"] == 1
    again = done("edge_agent.cli", "queue", "import", one, "--config", town.config("gate-1"))
    assert (again["kept"], again["known"], again["newFacts"]) == (0, 1, 0)

    town.says("gate-1", ("B1", "PLACED"))
    assert done("edge_agent.cli", "queue", "export", all_of_it, "--config", town.config("gate-1"))["messages"] == 3
    town.end("gate-1")
    town.start_hub()
    town.admit("gate-1", "phone-1", "phone-2")
    brought = done("hub.cli", "import", all_of_it, "--dir", town.hub_dir)
    assert (brought["new"], brought["newFacts"], brought["left"]) == (3, 4, [])
    again = done("hub.cli", "import", all_of_it, "--dir", town.hub_dir)
    assert (again["new"], again["known"], again["newFacts"]) == (0, 3, 0)

    data = bytearray(all_of_it.read_bytes())
    data[40] ^= 0xFF
    all_of_it.write_bytes(data)
    damaged = done("hub.cli", "import", all_of_it, "--dir", town.hub_dir, code=1)
    assert (damaged["known"], damaged["damaged"]) == (2, 2)
    assert damaged["left"][0]["at"] == 12
    town.until(lambda: len(town.stored("phone-1")) == 2 and len(town.stored("gate-1")) == 1, "settled")
    town.start("gate-1")
    town.until(lambda: town.status("gate-1")["custody"]["events"] == 0, "the end of custody, when the gateway hears of it")
