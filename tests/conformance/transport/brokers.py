"""Brokers under test behind one face, and lines to them that tests can wait on without sleeping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from hub.broker import BrokerSettings, BrokerThread, EmbeddedBroker, NodeGrant
from hub.broker_apart import ApartBroker
from hub.broker_port import HubBroker
from hub.grants import Grants
from protocols import mosquitto
from protocols.topics import Address, Rule, hub_acl, node_acl
from protocols.transport.memory import MemoryBroker
from protocols.transport.mqtt import MqttSettings, MqttTransport
from protocols.transport.port import Dropped, Event, Message, Presence, Published, Transport, Up
from protocols.transport.versions import AUTO, FIVE, THREE
from protocols.trust import hash_password
from tests.support.certificates import make_certificates
from tests.support.engines.mosquitto import Mosquitto, shipped, write_access, write_config
from tests.support.patience import WITHIN_S
from tests.support.ports import lasting_port

E = TypeVar("E", bound=Event)

HUB: Final = "hub"
MADRID: Final = Address.of("acme", "EMEA", "W8-Madrid", "madrid-1")
LISBON: Final = Address.of("acme", "EMEA", "W9-Lisbon", "lisbon-1")
PASSWORDS: Final = {HUB: "hub secret", MADRID.node: "madrid secret", LISBON.node: "lisbon secret"}
RULES: Final[dict[str, tuple[Rule, ...]]] = {HUB: hub_acl("acme"), MADRID.node: node_acl(MADRID), LISBON.node: node_acl(LISBON)}


class Line:
    """A transport and all the events it reported. `pump` drives brokers that have no thread of their own."""

    def __init__(self, transport: Transport, pump: Callable[[], object] | None) -> None:
        self.transport = transport
        self.events: list[Event] = []
        self._pump = pump
        self._changed = threading.Condition()

    def start(self) -> Line:
        self.transport.start(self._hear)
        return self

    def _hear(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind so far."""
        with self._changed:
            return [event for event in self.events if isinstance(event, kind)]

    def until(self, kind: type[E], count: int = 1, *, within_s: float = WITHIN_S) -> list[E]:
        """Wait for at least `count` events of a kind, and return all of them."""
        self.wait(lambda: len(self.of(kind)) >= count, f"{count} x {kind.__name__}", within_s=within_s)
        return self.of(kind)

    def payloads(self, count: int = 0) -> list[bytes]:
        """The payloads received, after waiting for at least `count`."""
        return [message.payload for message in self.until(Message, count)]

    def ended(self, tokens: Sequence[int]) -> dict[int, Event]:
        """How each token ended, after waiting until all have; fails if one ended twice."""
        self.wait(lambda: set(tokens) <= {event.token for event in self._ends()}, f"the end of {len(tokens)} tokens")
        ends = self._ends()
        assert len({event.token for event in ends}) == len(ends), "a token ended twice"
        return {event.token: event for event in ends if event.token in tokens}

    def _ends(self) -> list[Published | Dropped]:
        return [*self.of(Published), *self.of(Dropped)]

    def wait(self, ready: Callable[[], bool], what: str, *, within_s: float = WITHIN_S) -> None:
        until_s = time.monotonic() + within_s
        while True:
            if self._pump is not None:
                self._pump()
            with self._changed:
                left_s = until_s - time.monotonic()
                if ready():
                    return
                assert left_s > 0, f"no {what} within {within_s} s; heard {self.events[-10:]}"
                if self._pump is None:
                    self._changed.wait(min(left_s, 0.5))


class Harness(Protocol):
    """One broker under test."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def transport(
        self, user: str, password: str, subscriptions: Sequence[str], presence: Presence | None, **settings: Any
    ) -> Transport: ...

    pump: Callable[[], object] | None


class Memory:
    """`protocols.transport.memory`."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(lambda user, password: RULES[user] if PASSWORDS.get(user) == password else None)
        self.broker.stop()
        self.pump: Callable[[], object] | None = self.broker.pump

    def start(self) -> None:
        self.broker.start()

    def stop(self) -> None:
        self.broker.stop()

    def transport(self, user: str, password: str, subscriptions: Sequence[str], presence: Presence | None, **settings: Any) -> Transport:
        return self.broker.transport(user, password, subscriptions=subscriptions, presence=presence, **settings)


class _OverTcp:
    """What the real brokers share: a port, and the MQTT transport."""

    version = THREE

    def __init__(self) -> None:
        self.port = lasting_port()
        self.pump: Callable[[], object] | None = None
        self.tls: dict[str, Any] = {}

    def transport(self, user: str, password: str, subscriptions: Sequence[str], presence: Presence | None, **settings: Any) -> Transport:
        quick = {"backoff_min_s": 0.05, "backoff_max_s": 0.4, "stable_s": 1.0, "version": self.version, **self.tls, **settings}
        mqtt = MqttSettings("127.0.0.1", self.port, user, password, **quick)
        return MqttTransport(mqtt, subscriptions=subscriptions, presence=presence)


class Embedded(_OverTcp):
    """`hub.broker` in a thread. The suite's `hub` comes as a node with the hub's rules, so that its port outlives a restart. Clients find
    out by themselves that it speaks 3.1.1."""

    version = AUTO

    HASHES: Final = {user: hash_password(password, n=2) for user, password in PASSWORDS.items()}

    def __init__(self) -> None:
        super().__init__()
        self.thread: BrokerThread | None = None

    def start(self) -> None:
        self.thread = BrokerThread(self.make(BrokerSettings(port=self.port)))
        self.thread.start()

    def make(self, settings: BrokerSettings) -> HubBroker:
        return EmbeddedBroker(settings, self.lookup)

    @property
    def broker(self) -> HubBroker:
        """The one that runs."""
        assert self.thread is not None
        return self.thread.broker

    def stop(self) -> None:
        if self.thread is not None:
            self.thread.stop()
            self.thread = None

    def lookup(self, user: str) -> NodeGrant | None:
        return NodeGrant(self.HASHES[user], RULES[user]) if user in RULES else None


class Apart(Embedded):
    """The same in a process of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.grants = Grants({user: NodeGrant(self.HASHES[user], RULES[user]) for user in RULES})

    def make(self, settings: BrokerSettings) -> ApartBroker:
        return ApartBroker(settings, self.grants)


class MosquittoUnderTest(_OverTcp):
    """A Mosquitto process, spoken to in MQTT 3.1.1 or 5; with `tls`, over TLS and in the configuration that is shipped."""

    def __init__(self, folder: Path, *, mqtt5: bool, tls: bool = False, limits: dict[str, str] | None = None) -> None:
        super().__init__()
        self.version = FIVE if mqtt5 else THREE
        acl = mosquitto.acl([MADRID, LISBON], hub_user=HUB, org="acme")
        if tls:
            certificates = make_certificates(folder)
            self.tls = {"tls": True, "ca_file": certificates.ca}
            write_access(folder, PASSWORDS, acl)
            config = shipped(folder, self.port, certificates, limits)
        else:
            config = write_config(folder, self.port, passwords=PASSWORDS, acl=acl)
        self.process = Mosquitto(config, self.port)

    def start(self) -> None:
        self.process.start()

    def stop(self) -> None:
        self.process.stop()


class Bench:
    """A started broker and its lines; ends them all."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.lines: list[Line] = []

    def line(
        self,
        user: str,
        *subscriptions: str,
        password: str | None = None,
        presence: Presence | None = None,
        up: bool = True,
        **settings: Any,
    ) -> Line:
        """A started line; connected, unless `up` is False."""
        transport = self.harness.transport(user, PASSWORDS[user] if password is None else password, subscriptions, presence, **settings)
        line = Line(transport, self.harness.pump).start()
        self.lines.append(line)
        if up:
            line.until(Up)
        return line

    def settle(self) -> None:
        if self.harness.pump is not None:
            self.harness.pump()

    def close(self) -> None:
        for line in self.lines:
            line.transport.stop()
        self.harness.stop()
