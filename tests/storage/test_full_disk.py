"""A disk that is full, under real processes: callers hear 507, nobody stops or is restarted, and once there is room all goes on by itself.

The disk is a small tmpfs, for which one has to be root.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tests.chaos.site
from tests.chaos.init import ORG
from tests.chaos.waiting import until
from tests.support.needs import needs
from tests.support.patience import ANSWER_S, WITHIN_S
from tests.support.ports import lasting_port, listening
from tests.support.procs import Child, http_ok, python, ran

pytestmark = pytest.mark.usefixtures("copies")

TMPFS_KIB = 6_144
HASTE = {"hub": {"LONGSHORE_SYNC__STORE_CHECK_S": "2"}, "edge": tests.chaos.site.HASTE}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder of its own with little room."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={TMPFS_KIB}k", "none", str(folder)], check=True, capture_output=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


class Site:
    """A hub and an edge; the folder of one of them lies on the small disk."""

    def __init__(self, tmp_path: Path, small: Path, whose: str) -> None:
        self.folders = {name: (small if whose == name else tmp_path) / name for name in ("hub", "edge")}
        self.ports = {name: lasting_port() for name in ("hub", "edge", "broker")}
        edge = {"dir": str(self.folders["edge"]), "node": "edge", "site": "DOCK", "line": self.ports["broker"], "port": self.ports["edge"]}
        made = {"hub": str(self.folders["hub"]), "api_port": self.ports["hub"], "broker_port": self.ports["broker"], "edges": [edge]}
        code, said = ran(python("-m", "tests.chaos.init", json.dumps(made)))
        assert code == 0, said
        self.children: dict[str, Child] = {}

    def start(self) -> None:
        """Both, until they serve."""
        for name in ("hub", "edge"):
            child = self.children[name] = Child(self.command(name), env=HASTE[name])
            child.wait_http(f"http://127.0.0.1:{self.ports[name]}/readyz")

    def command(self, name: str) -> list[str]:
        """How one of them is run."""
        return python("-m", {"hub": "hub.cli", "edge": "edge_agent.cli"}[name], "run", "--config", self.folders[name] / f"{name}.toml")

    def ask(self, name: str, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """(status, JSON)."""
        line = http.client.HTTPConnection("127.0.0.1", self.ports[name], timeout=ANSWER_S)
        try:
            line.request(method, path, None if body is None else json.dumps(body).encode(), {"Content-Type": "application/json"})
            answer = line.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            line.close()

    def say(self, name: str, number: int) -> tuple[int, Any]:
        """One event of 4 kB with a key."""
        event = {
            "org": ORG, "orderId": f"order-{name}-{number % 7}", "source": "WMS", "status": "PICKED", "timestamp": "2026-05-21T14:05:12Z",
            "details": {"note": f"{number:04}" * 1_000}, "idempotencyKey": f"{name}-{number}",
        }  # fmt: skip
        return self.ask(name, "POST", "/v1/events", event)

    def wait(self, name: str, ready: Any, what: str) -> None:
        """Until it is so; the process must live."""
        self.children[name].wait_until(ready, within_s=WITHIN_S, what=what)

    def settled(self) -> int:
        """Facts that the central store has, of all nodes."""
        _, balance = self.ask("hub", "GET", "/v1/balance")
        return int(balance["fleet"]["settled"])

    def end(self) -> dict[str, int]:
        """All processes; how each ended."""
        return {name: child.end() for name, child in self.children.items()}

    def discard(self) -> None:
        """Whatever is left."""
        for child in self.children.values():
            child.discard()


def fill(folder: Path) -> Path:
    """Take all the room there is."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as out:
        for size in (65_536, 4_096, 1):
            try:
                while out.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    return filler


@pytest.fixture
def site(tmp_path: Path, small_disk: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    made = Site(tmp_path, small_disk, request.param)
    try:
        yield made
    finally:
        made.discard()


@needs("tmpfs")
@pytest.mark.parametrize(("site", "whose"), [("edge", "edge"), ("hub", "hub")], indirect=["site"], ids=["edge", "hub"])
def test_a_full_disk_is_said_and_heals_by_itself(site: Site, whose: str, small_disk: Path) -> None:
    site.start()
    pids = {name: child.pid for name, child in site.children.items()}
    taken: list[int] = []
    refused: list[int] = []
    for number in range(5):
        assert site.say(whose, number)[0] == 201
        taken.append(number)
    fill(small_disk)
    deadline, number, seen = time.monotonic() + WITHIN_S, 5, 0
    while seen < 3:
        status, problem = site.say(whose, number)
        assert status in (201, 503, 507), problem
        (taken if status == 201 else refused).append(number)
        seen += status == 507
        number += 1
        fill(small_disk)  # what it had put aside for such a day is used up too
        assert time.monotonic() < deadline, "507 is never said"
    assert problem["status"] == 507
    assert "space" in problem["detail"]
    other = "hub" if whose == "edge" else "edge"
    for further in range(3):
        assert site.say(other, 1_000 + further)[0] == 201, "the other node captures all the same"

    (small_disk / "filler").unlink()
    site.wait(whose, lambda: site.say(whose, number)[0] in (200, 201), "taking events again")
    taken.append(number)
    for again in refused:
        assert site.say(whose, again)[0] in (200, 201)
    expected = len(taken) + len(refused) + 3
    for known in taken:
        assert site.say(whose, known)[0] == 200, "what was taken is known"
    site.wait("hub", lambda: site.settled() >= expected, f"settled: {expected}")
    assert site.settled() == expected, "each once"
    assert {name: child.pid for name, child in site.children.items()} == pids
    assert all(child.running for child in site.children.values()), "nobody was restarted"
    assert http_ok(f"http://127.0.0.1:{site.ports[whose]}/readyz")
    assert site.end() == {"hub": 0, "edge": 0}


@needs("tmpfs")
@pytest.mark.parametrize(("site", "whose"), [("edge", "edge"), ("hub", "hub")], indirect=["site"], ids=["edge", "hub"])
@pytest.mark.parametrize("made", [False, True], ids=["first-start", "restart"])
def test_a_process_started_on_a_full_disk_says_so_and_starts_once_there_is_room(
    site: Site, whose: str, made: bool, small_disk: Path
) -> None:
    if made:
        site.start()
        assert site.say(whose, 1)[0] == 201
        assert site.end() == {"hub": 0, "edge": 0}
        site.discard()
    fill(small_disk)
    child = Child(site.command(whose), env=HASTE[whose])
    try:
        assert until(lambda: not child.running or listening(site.ports[whose]), WITHIN_S)
        code = child.end()
        assert code in ((0, 5) if made else (5,)), f"there is no room for a ledger: {child.output()}"
        assert code == 0 or "space" in child.output()
        assert "Traceback" not in child.output()
    finally:
        child.discard()
    (small_disk / "filler").unlink()
    site.start()
    assert site.say(whose, 1)[0] == (200 if made else 201)
    assert site.say(whose, 2)[0] == 201
