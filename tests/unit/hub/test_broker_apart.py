"""The embedded broker in a process of its own: who is let in, and what becomes of it when either of the two processes is killed."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hub import broker_apart
from hub.broker import BrokerThread
from hub.broker_access import UNKNOWN_NODE, NodeGrant
from hub.broker_apart import ApartBroker
from hub.broker_port import BrokerSettings
from hub.brokers import apart
from hub.config import read_config
from hub.grants import Grants
from protocols.errors import ConfigError, LedgerBusy
from protocols.sqlite import DataLock
from protocols.topics import Channel, hub_subscriptions
from protocols.transport.mqtt import MqttSettings, MqttTransport
from protocols.transport.port import Down, Message, Up
from tests.conformance.transport.brokers import MADRID, PASSWORDS, RULES, Apart, Line
from tests.conformance.transport.raw import Raw, connect
from tests.support.certificates import make_certificates
from tests.support.patience import WITHIN_S
from tests.support.source import ROOT

ACCEPTED, REFUSED = b"\x20\x02\x00\x00", b"\x20\x02\x00\x05"
GRANT = NodeGrant(Apart.HASHES[MADRID.node], RULES[MADRID.node])


def until(true: Callable[[], object], what: str) -> None:
    until_s = time.monotonic() + WITHIN_S
    while not true():
        assert time.monotonic() < until_s, f"never: {what}"
        threading.Event().wait(0.01)


class Owned:
    """A broker in a thread that owns its process."""

    def __init__(self, settings: BrokerSettings | None = None) -> None:
        self.grants = Grants({MADRID.node: GRANT})
        self.broker = ApartBroker(settings or BrokerSettings(port=0), self.grants)
        self.thread = BrokerThread(self.broker)
        self.thread.start()
        self.lines: list[Line] = []

    def close(self) -> None:
        for line in self.lines:
            line.transport.stop()
        self.thread.stop()

    def hub(self) -> Line:
        access = self.broker.hub_access
        return self._line(MqttSettings(access.host, access.port, access.username, access.password, backoff_min_s=0.05, backoff_max_s=0.2))

    def node(self) -> Line:
        quick = {"backoff_min_s": 0.05, "backoff_max_s": 0.2}
        return self._line(MqttSettings("127.0.0.1", self.broker.port, MADRID.node, PASSWORDS[MADRID.node], **quick))  # type: ignore[arg-type]

    def _line(self, settings: MqttSettings) -> Line:
        subscriptions = hub_subscriptions() if settings.username != MADRID.node else MADRID.subscriptions()
        self.lines.append(Line(MqttTransport(settings, subscriptions=subscriptions), None).start())
        self.lines[-1].until(Up)
        return self.lines[-1]

    def told(self) -> None:
        """Return when the process has heard who is admitted."""
        assert self.broker._loop is not None
        asyncio.run_coroutine_threadsafe(self.broker.told(), self.broker._loop).result(WITHIN_S)

    def login(self) -> bytes:
        with Raw(self.broker.port) as raw:
            raw.send(connect(MADRID.node, PASSWORDS[MADRID.node]))
            return raw.read(4)


@pytest.fixture
def owned(monkeypatch: pytest.MonkeyPatch) -> Iterator[Owned]:
    monkeypatch.setattr(broker_apart, "BACKOFF_FIRST_S", 0.02)
    owned = Owned()
    yield owned
    owned.close()


def test_a_broker_that_is_killed_is_started_again_and_everybody_comes_back(owned: Owned, caplog: pytest.LogCaptureFixture) -> None:
    hub, node, port = owned.hub(), owned.node(), owned.broker.port
    until(lambda: owned.broker.counts.logins_total == 2 and owned.broker.connections == 2, "both are counted")
    for times in (1, 2):
        first = owned.broker.pid
        os.kill(first, signal.SIGKILL)
        hub.until(Down, times)
        node.until(Up, times + 1)
        hub.until(Up, times + 1)
        node.transport.publish(MADRID.topic(Channel.LIVE), b"again %d" % times)
        assert hub.until(Message, times)[-1].payload == b"again %d" % times
        assert owned.broker.pid != first and owned.broker.port == port
        until(lambda n=times: owned.broker.counts.logins_total == 2 * (n + 1), "totals go on")  # type: ignore[misc]
    assert len([record for record in caplog.records if "is started again" in record.getMessage()]) == 2


def test_who_connects_while_there_is_none_waits_for_the_next(owned: Owned) -> None:
    with Raw(owned.broker.port) as first:
        first.send(connect(MADRID.node, PASSWORDS[MADRID.node]))
        assert first.read(4) == ACCEPTED
        os.kill(owned.broker.pid, signal.SIGKILL)
        with suppress(ConnectionResetError):
            assert first.ended()
        assert owned.login() == ACCEPTED


def test_a_broker_that_is_stuck_is_replaced(owned: Owned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_apart, "SILENT_S", 0.3)
    monkeypatch.setattr(broker_apart, "END_S", 0.1)
    stuck = owned.broker.pid
    os.kill(stuck, signal.SIGKILL)  # the next one is waited for so briefly
    until(lambda: owned.broker.pid not in (0, stuck) and owned.login() == ACCEPTED, "another one")
    stuck = owned.broker.pid
    os.kill(stuck, signal.SIGSTOP)
    assert ended(stuck)
    until(lambda: owned.broker.pid not in (0, stuck), "another one")
    assert owned.login() == ACCEPTED


def test_who_is_admitted_later_comes_in_and_who_is_not_any_more_does_not(owned: Owned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_apart, "TOLD_S", 10 * WITHIN_S)  # an answer is waited for, not the end of patience
    assert owned.login() == ACCEPTED
    for known, answer in (({}, REFUSED), ({MADRID.node: GRANT}, ACCEPTED), ({MADRID.node: NodeGrant("changed", GRANT.rules)}, REFUSED)):
        owned.grants.replace(known)
        owned.told()
        assert owned.login() == answer
    until(lambda: owned.broker.counts.refused_total == 2, "refusals are counted")
    assert [(row["node"], row["count"]) for row in owned.broker.door.turned_away()] == [(MADRID.node, 1)], "since it was let in last"


def test_signals_to_the_whole_group_leave_it_to_its_owner(owned: Owned) -> None:
    first = owned.broker.pid
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(first, number)
    assert (owned.login(), owned.broker.pid) == (ACCEPTED, first)


def test_its_words_stand_in_the_owners_log_and_no_secret_where_others_see_it(owned: Owned, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    owned.grants.replace({})
    owned.told()
    assert owned.login() == REFUSED
    said = f"The broker refused '{MADRID.node}' from 127.0.0.1: {UNKNOWN_NODE}"
    until(lambda: said in [record.getMessage() for record in caplog.records if record.name == "hub.broker"], "said")
    proc = Path(f"/proc/{owned.broker.pid}")
    seen = (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes() + caplog.text.encode()
    for secret in (owned.broker.hub_access.password, PASSWORDS[MADRID.node], GRANT.password_hash):
        assert secret.encode() not in seen


def test_a_certificate_that_is_broken_later_is_said_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(broker_apart, "BACKOFF_FIRST_S", 0.02)
    good = make_certificates(tmp_path)
    owned = Owned(BrokerSettings(port=0, cert_file=good.cert, key_file=good.key))
    try:
        text = Path(good.cert).read_text()
        Path(good.cert).write_text("nonsense")
        os.kill(owned.broker.pid, signal.SIGKILL)
        until(lambda: "certificate" in caplog.text, "said")
        Path(good.cert).write_text(text)
        owned.hub()
    finally:
        owned.close()


def test_a_process_that_does_not_listen_is_one_error_and_nothing_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_apart, "COMMAND", ("-m", "hub.no_such_module"))
    broker = ApartBroker(BrokerSettings(port=0), Grants())
    broker.prepare()
    child, port = broker.pid, broker.port
    with pytest.raises(ConfigError, match="ended before it listened"):
        BrokerThread(broker).start()
    assert ended(child)
    socket.create_server(("127.0.0.1", port)).close()


def test_a_process_that_is_killed_before_it_listens_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    broker = ApartBroker(BrokerSettings(port=0), Grants())
    broker.prepare()
    child = broker.pid
    os.kill(child, signal.SIGKILL)
    thread = BrokerThread(broker)
    thread.start()
    try:
        assert ended(child) and broker.pid not in (0, child)
        socket.create_connection(("127.0.0.1", broker.port)).close()
        assert "killed by signal 9 before it listened" in caplog.text
    finally:
        thread.stop()


def test_processes_that_are_killed_for_ever_are_one_error(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(broker_apart, "COMMAND", ("-c", "import os; os.kill(os.getpid(), 9)"))
    with pytest.raises(ConfigError, match="ended before it listened"):
        BrokerThread(ApartBroker(BrokerSettings(port=0), Grants())).start()
    assert caplog.text.count("another is started") == broker_apart.KILLED_MOST


# ------------------------------------------------------------------ the owner


def ended(pid: int) -> bool:
    """Whether a process ends within a moment."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watch], [], [], WITHIN_S)[0])
    finally:
        os.close(watch)


_OWNER = """
import sys
from hub.broker import BrokerThread
from hub.broker_apart import ApartBroker
from hub.broker_port import BrokerSettings
from hub.grants import Grants
from protocols.sqlite import DataLock
lock = DataLock(sys.argv[1] + "/run.lock")
thread = BrokerThread(ApartBroker(BrokerSettings(port=0), Grants(), holds=(lock.fileno(),)))
thread.start()
print(thread.broker.pid, thread.broker.port, flush=True)
sys.stdin.read()
"""


def test_an_owner_that_is_killed_leaves_no_process_and_the_port_is_free_when_the_data_are(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdin is not None and owner.stdout is not None
    with owner.stdin, owner.stdout:
        child, port = map(int, owner.stdout.readline().split())
        with socket.create_connection(("127.0.0.1", port)):
            owner.kill()
            owner.wait()
            until(lambda: free(tmp_path / "run.lock"), "the lock is free")
            socket.create_server(("127.0.0.1", port)).close()
    assert ended(child)


def free(lock: Path) -> bool:
    with suppress(LedgerBusy):
        DataLock(lock).release()
        return True
    return False


@pytest.mark.parametrize(
    ("more", "cores", "own"),
    [
        ("", 2, True),
        ("", 1, False),
        ('[broker]\nprocess = "own"', 1, True),
        ('[broker]\nprocess = "hub"', 4, False),
        ('[broker]\nkind = "external"\nprocess = "own"', 4, False),
    ],
)
def test_who_has_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, cores: int, own: bool) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    file = tmp_path / "hub.toml"
    file.write_text(f'[hub]\norg = "acme"\nregion = "EMEA"\n{more}\n')
    assert apart(read_config(file).broker) is own


@pytest.mark.slow
def test_neither_process_imports_what_only_the_other_needs() -> None:
    look = "import sys; print([name for name in sys.argv[2:] if __import__(sys.argv[1], fromlist='x') and name in sys.modules])"

    def imported(module: str, *names: str) -> str:
        command = [sys.executable, "-c", look, module, *names]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WITHIN_S, check=True).stdout.strip()

    assert imported("hub.broker_apart_process", "fastapi", "uvicorn", "apsw", "paho", "hub.config", "hub.core") == "[]"
    assert imported("hub.runtime", "amqtt") == "[]"
