"""An edge, a Mosquitto as it is shipped, and a hub, as real processes. The broker refuses in every way it has; each is named where people
look, and nothing is lost when it is put right. Passwords and rules are those that the commands write.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.certificates import Certificates, make_certificates
from tests.support.commands import as_json as done
from tests.support.engines.mosquitto import Mosquitto, shipped, write_access
from tests.support.needs import needs
from tests.support.patience import ANSWER_S, WITHIN_S
from tests.support.ports import free_port, lasting_port
from tests.support.procs import Child, ChildError, python

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("copies"), needs("mosquitto")]
HASTE: Final = {
    "LONGSHORE_SYNC__RETRY_MS": "400", "LONGSHORE_SYNC__RETRY_MOST_MS": "2000", "LONGSHORE_SYNC__IDLE_HELLO_MS": "2000",
    "LONGSHORE_SYNC__STALL_MS": "3000", "LONGSHORE_SYNC__HEARTBEAT_MS": "500", "LONGSHORE_HUB__RECONNECT_MOST_S": "1",
}  # fmt: skip


def told(module: str, *args: str | Path) -> str:
    """What a command says to people."""
    return subprocess.run(python("-m", module, *args), capture_output=True, text=True, timeout=WITHIN_S, check=True).stdout


def asked(url: str, token_file: Path) -> Any:
    """What an API answers, whatever the status."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token_file.read_text().strip()}"})
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return json.load(error)


@contextmanager
def ended(child: Child) -> Iterator[Child]:
    try:
        yield child
    finally:
        child.kill()
        child.discard()


class Site:
    """Hub, broker and one edge. `events` were said yes to."""

    def __init__(self, folder: Path, version: str, undo: ExitStack) -> None:
        self.folder, self.version, self._undo = folder, version, undo
        self.events = 0
        self.api_port, self.port = free_port(), lasting_port()
        self.certificates: Certificates = make_certificates(folder)
        write_access(folder, {}, [])
        self.broker = Mosquitto(shipped(folder, self.port, self.certificates), self.port)
        undo.callback(lambda: self.broker.stop())
        self.broker.start()  # first: the port is its own from here on
        self.hub_dir, self.edge = folder / "hub", folder / "dock-7" / "edge.toml"
        password = folder / "hub.password"
        password.write_text(secrets.token_urlsafe(24))
        password.chmod(0o600)
        done("hub.cli", "init", self.hub_dir, "--api-port", str(self.api_port), "--broker-port", str(self.port))
        drop = self.hub_dir / "hub.toml.d"
        drop.mkdir()
        lines = ["[broker]", 'kind = "external"', 'username = "the-hub"', "tls = true", "reconnect_most_s = 1", f'mqtt = "{version}"']
        (drop / "broker.toml").write_text("\n".join([*lines, f'password_file = "{password}"', f'ca_file = "{self.certificates.ca}"', ""]))
        self.hub = undo.enter_context(ended(Child(python("-m", "hub.cli", "run", "--dir", self.hub_dir))))
        told = self.hub_dir / "run.ports.json"
        self.hub.wait_until(lambda: told.exists() and told.read_text().endswith("\n"), what="listening")
        address = json.loads(told.read_text())["address"]
        place = ("--node", "dock-7", "--site", "W8", "--region", "EMEA", "--port", "0", "--hub", address)
        done("edge_agent.cli", "init", folder / "dock-7", *place)
        done("hub.cli", "nodes", "add", folder / "dock-7" / "node.card.json", "--dir", self.hub_dir)
        self.write_access()
        self.broker.reload()
        self.running: Child | None = None

    def write_access(self) -> None:
        """What an operator does."""
        done("hub.cli", "broker", "acl", "--dir", self.hub_dir, "--out", self.folder / "acl")
        done("hub.cli", "broker", "passwords", "--dir", self.hub_dir, "--out", self.folder / "passwords")

    def start_edge(self, **env: str) -> None:
        if self.running is not None:
            assert self.running.end() == 0, self.running.output()
        ready = self.folder / "edge.ready"
        ready.unlink(missing_ok=True)
        own = {**HASTE, "LONGSHORE_HUB__CA_FILE": self.certificates.ca, "LONGSHORE_HUB__MQTT": self.version, **env}
        args = python("-m", "edge_agent.cli", "run", "--config", self.edge, "--ready-file", ready)
        self.running = self._undo.enter_context(ended(Child(args, env=own)))
        self.running.wait_until(ready.exists, what="ready")

    def restart_broker(self, **limits: str) -> None:
        self.broker.stop()
        self.broker = Mosquitto(shipped(self.folder, self.port, self.certificates, limits), self.port)
        self.broker.start()

    def change(self, name: str, old: str, new: str) -> None:
        """Edit one of the broker's files and have it read."""
        file = self.folder / name
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
        self.broker.reload()

    # --- what people see

    def says(self, count: int, size: int = 0) -> None:
        event = {"source": "APP", "status": "PLACED", "timestamp": "2026-05-21T14:05:12Z"}
        lines = []
        for number in range(self.events, self.events + count):
            details = {"note": secrets.token_urlsafe(size)} if size else {}
            lines.append(json.dumps({"orderId": f"o{number}", **event, "details": details}))
        done("edge_agent.cli", "events", "append", "--config", self.edge, stdin="\n".join(lines))
        self.events += count

    def edge_says(self) -> Any:
        url = (self.folder / "edge.ready").read_text().strip()
        return asked(f"{url}/v1/status", self.folder / "dock-7" / "api.token")

    def link(self) -> Any:
        return self.edge_says()["link"]

    def named(self, *kinds: str, topic: str = "") -> Callable[[], bool]:
        """Whether the edge's status names one of these."""
        return lambda: any(row["kind"] in kinds and row["topic"].endswith(topic) and row["remedy"] for row in self.link()["refusals"])

    def hub_names(self, *kinds: str) -> Callable[[], bool]:
        """The same at the hub."""
        url = f"http://127.0.0.1:{self.api_port}/readyz"
        return lambda: any(row["kind"] in kinds for row in asked(url, self.hub_dir / "api.token")["line"]["refusals"])

    def all_settled(self) -> bool:
        status = self.edge_says()
        return bool(status["queue"]["events"] == 0 and sum(s["captured"] for s in status["streams"]) >= self.events)

    def until(self, ready: Callable[[], bool], what: str) -> None:
        assert self.running is not None
        try:
            self.running.wait_until(ready, what=what)
        except ChildError as error:
            raise AssertionError((what, self.link(), self.hub.output()[-1_000:], self.broker.output()[-1_500:])) from error

    def nothing_is_lost(self) -> None:
        self.until(self.all_settled, "everything settled")
        assert done("hub.cli", "balance", "--dir", self.hub_dir)["fleet"]["balanced"] is True


@pytest.fixture(params=["5", "3.1.1"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as undo:
        site = Site(tmp_path, request.param, undo)
        site.start_edge()
        site.says(3)
        site.nothing_is_lost()
        assert site.link()["protocol"] == f"MQTT {request.param}"
        yield site


def five(site: Site) -> bool:
    return site.version == "5"


def test_rules_that_refuse_are_named_and_nothing_is_lost(site: Site) -> None:
    forbidden = "topic write longshore/v1/acme/EMEA/W8/dock-7/up/live"
    site.change("acl", forbidden, "# forgotten")
    if not five(site):  # what one way swallows in silence goes the other by itself
        site.change("acl", forbidden.replace("live", "backfill"), "# forgotten, too")
    site.says(5)
    site.until(site.named("acl", topic="up/live") if five(site) else site.named("unanswered"), "a refusal at the edge")
    said = subprocess.run(
        python("-m", "edge_agent.cli", "status", "--config", site.edge), capture_output=True, text=True, timeout=WITHIN_S, check=True
    )
    assert "REFUSED (acl) on longshore" in said.stdout if five(site) else "REFUSED (unanswered)" in said.stdout
    site.write_access()
    site.broker.reload()
    site.nothing_is_lost()
    site.change("acl", "topic write longshore/v1/+/+/+/+/down/receipt", "# forgotten")
    site.says(5)
    site.until(site.named("unanswered"), "silence at the edge")
    if five(site):
        site.until(site.hub_names("acl"), "a refusal at the hub")
        said = subprocess.run(
            python("-m", "hub.cli", "status", "--dir", site.hub_dir), capture_output=True, text=True, timeout=WITHIN_S, check=True
        )
        assert "REFUSED 1" in said.stdout and "(acl) on longshore" in said.stdout
    site.write_access()
    site.broker.reload()
    site.nothing_is_lost()


def test_packets_that_are_too_large_are_named_and_cut(site: Site) -> None:
    site.restart_broker(max_packet_size="20000")
    site.says(40, size=1_500)
    site.until(site.named("too-large"), "what is too large")
    site.nothing_is_lost()


def test_a_single_fact_that_is_too_large_steps_aside_and_can_be_put_right(site: Site) -> None:
    """In quarantine with its reason; the others flow; a shorter one takes its place; a larger limit and a restart bring it after all."""
    token = site.folder / "dock-7" / "api.token"

    def listed() -> Any:
        url = (site.folder / "edge.ready").read_text().strip()
        return asked(f"{url}/v1/quarantine", token)["quarantine"]

    site.restart_broker(max_packet_size="4000")
    large = site.events + 1
    site.says(1, size=5_500)
    site.until(lambda: len(listed()) == 1, "it in quarantine")
    (item,) = listed()
    assert item["reason"].startswith("too large for the line") and item["state"] == "open"
    site.says(3)
    shorter = site.folder / "shorter.json"
    shorter.write_text(json.dumps({"orderId": f"o{large - 1}", "source": "APP", "status": "PLACED", "timestamp": "2026-05-21T14:05:12Z"}))
    done("edge_agent.cli", "queue", "quarantine", "resubmit", str(item["id"]), "--file", shorter, "--config", site.edge)
    site.events += 1
    site.until(lambda: f"o{large - 1}" in orders_at(site), "the shorter one at the centre")
    assert [row["state"] for row in listed()] == ["resubmitted"]
    site.restart_broker()
    site.start_edge()
    site.nothing_is_lost()


def orders_at(site: Site) -> list[str]:
    url = f"http://127.0.0.1:{site.api_port}/v1/orders"
    return [row["orderId"] for row in asked(url, site.hub_dir / "api.token")["orders"]]


def test_limits_that_are_reached_are_named(site: Site) -> None:
    site.restart_broker(memory_limit="400000", max_inflight_messages="2", max_queued_messages="2")
    site.until(lambda: bool(site.link()["answered"]), "the hub there again")
    os.kill(site.hub.pid, signal.SIGSTOP)
    try:
        for _ in range(4):
            site.says(60, size=3_000)
        site.until(site.named("quota", "closed", "unanswered", "nobody"), "a limit")
    finally:
        os.kill(site.hub.pid, signal.SIGCONT)
    site.restart_broker()
    site.nothing_is_lost()


def test_passwords_that_are_wrong_are_named(site: Site) -> None:
    passwords = site.folder / "passwords"
    hub, dock = passwords.read_text().splitlines()
    passwords.write_text(f"{hub}\n")
    site.restart_broker()
    site.says(5)
    site.until(site.named("credentials"), "a wrong password at the edge")
    passwords.write_text(f"{dock}\n")
    site.restart_broker()
    site.until(site.hub_names("credentials"), "a wrong password at the hub")
    broker = next(f for f in done("hub.cli", "doctor", "--dir", site.hub_dir, code=1)["findings"] if f["what"] == "broker")
    assert not broker["ok"] and "Not authorized" in broker["text"] and "broker passwords" in broker["remedy"]
    site.write_access()
    site.broker.reload()
    site.nothing_is_lost()


def test_a_certificate_of_a_stranger_is_named(site: Site) -> None:
    right = site.certificates
    other = site.folder / "other"
    other.mkdir()
    site.certificates = make_certificates(other)
    site.restart_broker()
    site.certificates = right
    site.says(5)
    site.until(site.named("certificate"), "a stranger's certificate at the edge")
    site.until(site.hub_names("certificate"), "and at the hub")
    site.restart_broker()
    site.nothing_is_lost()
