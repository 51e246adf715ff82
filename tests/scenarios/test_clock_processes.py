"""A real edge on a board whose clock begins in 1970, is told the time by the hub, jumps two hours ahead and ten minutes back while it runs,
and is started again: its facts are all there, once, in the order in which they were said, and each says how good its clock was."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest

from hub.cli_ask import Client, client_of
from hub.config import read_config
from protocols.clock import RELEASED_MS
from tests.scenarios.test_bounds_processes import closes
from tests.support.commands import done, new_pair
from tests.support.faketime import Clock, since_1970
from tests.support.needs import needs
from tests.support.patience import ANSWER_S
from tests.support.procs import Child, python, started

pytestmark = [pytest.mark.slow, needs("faketime")]

HASTE: Final = {
    "LONGSHORE_SYNC__HEARTBEAT_MS": "500", "LONGSHORE_SYNC__IDLE_HELLO_MS": "1000", "LONGSHORE_SYNC__RETRY_MS": "400",
    "LONGSHORE_SYNC__RETRY_MOST_MS": "2000",
}  # fmt: skip
JUMP_S: Final = 2 * 3_600
STEP_BACK_S: Final = 600
NEAR_MS: Final = 60_000
"""how near a corrected time must be: far from all the steps, and more than a slow machine takes to answer"""


class Board:
    """A hub whose clock is right, and an edge with a clock that a test sets. `said`: (status, when it was really said) of order A1."""

    def __init__(self, folder: Path) -> None:
        self.hub, self.edge = new_pair(folder)
        self.clock = Clock(folder / "clock", since_1970())
        self.said: list[tuple[str, int]] = []
        self.ids: list[str] = []
        self.url = ""

    @contextmanager
    def switched_on(self) -> Iterator[Child]:
        ready = self.edge / "ready"
        ready.unlink(missing_ok=True)
        args = python("-m", "edge_agent.cli", "run", "--config", self.edge / "edge.toml", "--ready-file", ready)
        with started(args, env=HASTE | self.clock.env) as edge:
            edge.wait_until(ready.exists)
            self.url = ready.read_text().strip()
            yield edge

    @contextmanager
    def centre(self) -> Iterator[Client]:
        with started(python("-m", "hub.cli", "run", "--config", self.hub / "hub.toml")) as hub:
            hub.wait_until(lambda: "ready: " in hub.output())
            yield client_of(read_config(self.hub, {}))

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            return json.load(answer)

    def says(self, status: str) -> None:
        """Somebody scans A1; without a time of his own, so that the edge's clock says when."""
        self.said.append((status, int(time.time() * 1_000)))
        event = {"orderId": "A1", "source": "DOCK", "status": status, "timestamp": "2026-05-21T14:05:12Z"}
        self.ids += self.ask("/v1/events", event)["ids"]

    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("/v1/status")["clock"]
        return found

    def hears_the_time(self, edge: Child, fine: Callable[[dict[str, Any]], bool], what: str) -> None:
        edge.wait_until(lambda: fine(self.told()), what=what)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1_000)


def ahead_s(told: dict[str, Any]) -> float:
    return float("nan") if told["offsetMs"] is None else told["offsetMs"] / 1_000


def test_a_clock_of_1970_that_jumps_ahead_and_steps_back_makes_no_wrong_timeline(tmp_path: Path) -> None:
    board = Board(tmp_path)
    with board.switched_on() as edge:
        assert board.told()["quality"] == "unset"
        board.says("PLACED")
        floor_ms = int(time.time() * 1_000)
        with board.centre() as api:
            board.hears_the_time(edge, lambda t: t["quality"] == "hub", "told the time")
            board.says("APPROVED")
            board.clock.ahead(JUMP_S)
            board.hears_the_time(edge, lambda t: abs(ahead_s(t) - JUMP_S) < 60, "aware that its clock is ahead")
            board.says("PICKED")
            edge.wait_until(lambda: closes(api, 3), what="settled")
            board.clock.ahead(-STEP_BACK_S)
            board.hears_the_time(edge, lambda t: abs(ahead_s(t) + STEP_BACK_S) < 60, "aware that its clock is behind")
            board.says("PACKED")
            edge.wait_until(lambda: closes(api, 4), what="settled")
        board.says("SHIPPED")  # nobody there to tell the time now
        edge.kill()
    with board.switched_on() as edge:
        board.says("IN_TRANSIT")
        with board.centre() as api:
            board.hears_the_time(edge, lambda t: t["quality"] == "hub", "told the time again")
            board.says("DELIVERED")
            edge.wait_until(lambda: closes(api, 7), what="settled")
            edge.wait_until(lambda: all(right(e, at) for e, (_, at) in zip(shown(api), board.said, strict=True)), what="put right")
            events = shown(api)
            synchronised = board.told()["synchronised"]
    assert [e["status"] for e in events] == [status for status, _ in board.said], "in the order in which they were said"
    assert [e["factId"] for e in events] == board.ids and len(set(board.ids)) == 7
    clocks = [e["clock"] for e in events]
    ahead = "ntp" if synchronised else "floor"  # where the kernel says that its clock is kept in step it is believed
    assert clocks[:4] == ["unset", "hub", ahead, "hub"], clocks
    assert clocks[6] == "hub", clocks
    assert RELEASED_MS <= ms(events[0]["recordedAt"]) < RELEASED_MS + 86_400_000, "the fact says what its author knew"
    assert abs(ms(events[2]["recordedAt"]) - board.said[2][1] - JUMP_S * 1_000) < NEAR_MS
    assert synchronised or ms(events[5]["recordedAt"]) >= floor_ms, "what the hub had said outlasts a crash"
    assert done("hub.cli", "audit", "--dir", board.hub, "--json")["ok"]
    assert done("edge_agent.cli", "audit", "--config", board.edge / "edge.toml", "--json")["ok"]


def shown(api: Client) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = api.get("/v1/orders/A1/events")["events"]
    return events


def right(event: dict[str, Any], really_ms: int) -> bool:
    """Does the centre show when it was, whatever that clock said?"""
    return abs(ms(event["recordedAbout"] or event["recordedAt"]) - really_ms) < NEAR_MS
