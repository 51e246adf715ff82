"""The hub's own end of MQTT: how it comes to its broker, what it hears there, and what the broker refuses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from hub.broker_port import HubAccess
from hub.config import LEAST_PASSWORD_CHARS, Broker
from protocols.errors import ConfigError, TransportError
from protocols.topics import hub_subscriptions
from protocols.transport.mqtt import MqttSettings, MqttTransport
from protocols.transport.port import Down, Dropped, Event, Message, Published, Transport, Up
from protocols.transport.refusals import REMEDIES
from protocols.transport.versions import THREE
from protocols.trust import MADE_BY_HAND, read_secret

log = logging.getLogger(__name__)

TRY_S: Final = 20.0
GATHER_S: Final = 0.005
RECEIVE_MOST: Final = 1_000
"""messages that a broker of MQTT 5 may send the hub before one is acknowledged: all of a region comes this way"""


def external_line(broker: Broker, password: str) -> MqttSettings:
    """To a broker that runs elsewhere."""
    return MqttSettings(
        broker.host, broker.port, broker.username, password, broker.tls, broker.ca_file or None, broker.cert_file or None,
        broker.key_file or None, broker.mqtt, receive_most=RECEIVE_MOST, backoff_max_s=float(broker.reconnect_most_s),
        gather_s=GATHER_S, keepalive_s=broker.keepalive_s,
    )  # fmt: skip


def inside_line(access: HubAccess) -> MqttSettings:
    """To the embedded broker."""
    return MqttSettings(
        access.host, access.port, access.username, access.password, version=THREE, backoff_min_s=0.1, backoff_max_s=2.0, gather_s=GATHER_S
    )


def password_of(broker: Broker) -> str:
    """The hub's password at an external broker. Errors: ConfigError."""
    return read_secret(broker.password_file, what="broker password", missing=MADE_BY_HAND).strip() if broker.password_file else ""


def weakness_of(password: str) -> str:
    """What there is to say against the hub's password at an external broker; the broker's own people may have chosen it, so it is used."""
    weak = 0 < len(password) < LEAST_PASSWORD_CHARS
    return f"its password is shorter than {LEAST_PASSWORD_CHARS} characters, and the broker knows the hub by nothing else" if weak else ""


def try_line(broker: Broker) -> tuple[str, str]:
    """Why an external broker does not let this hub in, and what to do; two empty texts: it does. Waits for some seconds at most."""
    words: list[Up | Down] = []
    told = threading.Event()

    def listen(event: Event) -> None:
        if isinstance(event, Up | Down):
            words.append(event)
            told.set()

    try:
        transport = MqttTransport(external_line(broker, password_of(broker)), subscriptions=hub_subscriptions())
    except ConfigError as error:
        return error.reason, error.remedy
    transport.start(listen)
    told.wait(TRY_S)
    transport.stop()
    said = words[0] if words else Down("no answer in time")
    if isinstance(said, Up):
        return "", ""
    return said.reason, REMEDIES[said.refusal] if said.refusal is not None else ""


class Line:
    """The hub's own end of MQTT: brings what the transport's thread hears to the loop, many events for one wake-up."""

    def __init__(self, transport: Transport, heard: Any, came_up: Callable[[], None] | None = None) -> None:
        """`came_up`: called each time that it is up."""
        self._transport = transport
        self._heard, self._came_up = heard, came_up
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self.up = asyncio.Event()
        self.problem = ""
        """why it is down, while it is"""
        self._ending = False

    def start(self) -> None:
        """Begin to connect."""
        self._transport.start(self._on_event)

    async def stop(self) -> None:
        """Say goodbye. Idempotent."""
        self._ending = True
        try:
            await asyncio.to_thread(self._transport.stop)
        except TransportError as error:
            log.warning("%s", error)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """From any thread. What does not arrive is said again: every receipt is the whole truth about its streams."""
        try:
            self._transport.publish(topic, payload, retain=retain)
        except TransportError as error:
            log.info("not sent: %s", error)

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""
        return self._transport.connected

    def status(self) -> dict[str, Any]:
        """As `GET /readyz` and `longshore-hub status` show it."""
        refused = [seen.as_json() for seen in self._transport.refusals()]
        return {"connected": self.connected, "protocol": self._transport.protocol, "problem": self.problem, "refusals": refused}

    def refused_totals(self) -> Mapping[str, int]:
        """How often the broker refused something, by kind."""
        return self._transport.refused_totals()

    def _on_event(self, event: Event) -> None:
        """In the transport's thread. What became of a publish is in the transport's books: every receipt is said again."""
        if isinstance(event, Published | Dropped):
            return
        with self._lock:
            first = not self._events
            self._events.append(event)
        if first:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody listens any more
                self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        with self._lock:
            events, self._events = self._events, []
        for event in events:
            if isinstance(event, Message):
                self._heard(event)
            elif isinstance(event, Up):
                self.problem = ""
                self.up.set()
                if self._came_up is not None:
                    self._came_up()
            elif isinstance(event, Down) and event.reason != self.problem:
                self.problem = event.reason
                if self._ending:
                    log.info("the line to the broker is closed")
                    continue
                log.warning("no line to the broker: %s; trying again", event.reason)


def says_online(payload: bytes) -> bool:
    """What a birth or will says: `{"state": "online", …}`. Anything else counts as gone, which costs nothing but a colour."""
    try:
        said = json.loads(payload[:4_096])
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("state") == "online"


def down_because(line: Line | None) -> str:
    """Why nothing comes or goes, for `readyz`."""
    return "the line to the broker is down" + (f": {line.problem}" if line is not None and line.problem else "")
