"""MQTT over TCP or TLS, through paho. The only importer of `paho`.

Two classes: a `_Line` is one connection from its socket to its end and is never used twice; `MqttTransport` owns the thread, the
outbox, the back-off, and makes one line after another. A new line has a new paho client, so nothing that paho queued can outlive the
connection it was meant for, and a stalled client is cured by making the next one.

What paho would do otherwise, and why it does not here (2.2): `publish` on a client that is not connected queues without a word, so
lines send only while up; its queue beyond the in-flight window has no bound in bytes, so the window is kept here; its thread reconnects
by itself with a client that remembers, so its loop functions are called from our thread instead; a refused publish on MQTT 5 counts as
published, so its reason code is looked at.
"""

from __future__ import annotations

import logging
import random
import secrets
import selectors
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from protocols.topics import check_filter
from protocols.transport.line import FAREWELL_S, LineTransport, Outgoing
from protocols.transport.port import Dropped, Event, Message, Presence, Published, Up
from protocols.transport.tls import Known, client_context, handshake

log = logging.getLogger(__name__)

_TICK_S: Final = 1.0
"""How often keep-alive is looked after while nothing happens."""


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """Where the broker is and how to talk to it. Times in seconds.

    `mqtt5`: for brokers that have it; 3.1.1 is enough for correctness. `ca_file`: PEM of the authority to trust instead of the
    system's. `max_in_flight` messages may wait for the broker's acknowledgement; `max_outgoing_bytes` bounds them together with what
    was handed over and not sent yet. A connection that stays up for `stable_s` resets the back-off.
    """

    host: str
    port: int
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca_file: str | None = None
    mqtt5: bool = False
    keepalive_s: int = 30
    connect_timeout_s: float = 5.0
    answer_timeout_s: float = 10.0
    max_in_flight: int = 64
    max_outgoing_bytes: int = 8_000_000
    backoff_min_s: float = 0.5
    backoff_max_s: float = 60.0
    stable_s: float = 10.0
    known_ms: Known | None = field(default=None, repr=False, compare=False)
    """what is known to have passed, for certificates where the system's clock is not set (`transport.tls`)"""

    def tls_context(self) -> ssl.SSLContext | None:
        """The TLS context that these settings ask for, if any. Raises ConfigError if the authority's file cannot be read."""
        return client_context(self.ca_file) if self.tls else None


class MqttTransport(LineTransport):
    """The transport port over a real broker."""

    def __init__(
        self,
        settings: MqttSettings,
        *,
        subscriptions: Sequence[str] = (),
        presence: Presence | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Touches no network. `rng` draws the jitter of the back-off. Raises ConfigError if the TLS settings cannot be used."""
        where = settings.host
        super().__init__(settings, name=f"mqtt-{where}-{settings.port}", line=f"connection to {where}", whom="for the broker", rng=rng)
        self._settings = settings
        self._subscriptions = tuple(check_filter(topic_filter) for topic_filter in subscriptions)
        self._presence = presence
        self._tls = settings.tls_context()
        self._wake: _Wake | None = None

    def _prepare(self) -> None:
        self._wake = _Wake()

    def _ring(self) -> None:
        wake = self._wake
        if wake is not None:
            wake.ring()

    def _break(self) -> None:
        self._ring()

    def _part(self) -> None:
        self._ring()

    # --- everything below runs in the transport's own thread

    def _run(self) -> None:
        assert self._wake is not None
        failures = 0
        try:
            while not self._stopping:
                self._restarting = False
                stable = self._live_one_line(self._wake)
                failures = 0 if stable else failures + 1
                if not (self._stopping or self._restarting):
                    self._pause(self._wake, self._backoff_s(failures))
            self._report_unsent()
        finally:
            wake, self._wake = self._wake, None
            wake.close()

    def _live_one_line(self, wake: _Wake) -> bool:
        """Connect, serve, and clear up. Returns whether the connection stayed up long enough to trust the broker again."""
        line = _Line(self._settings, self._tls, self._subscriptions, self._presence, self._on_line_event, wake)
        try:
            line.open()
            while line.end_reason is None and not (self._stopping or self._restarting):
                self._feed(line)
                line.step(_TICK_S)
                self._report_unsent()
            if self._stopping:
                line.say_goodbye()
        except Exception as error:  # boundary: bytes from outside in a library end this line, never the thread
            log.warning("The connection to %s:%s failed: %r", self._settings.host, self._settings.port, error)
            line.end_reason = f"broken: {error!r}"
        finally:
            line.close()
            self._clear_up(line.end_reason or "", line.unacknowledged())
        return line.up_for_s() >= self._settings.stable_s

    def _feed(self, line: _Line) -> None:
        while line.has_room:
            with self._lock:
                if not self._outbox:
                    return
                outgoing = self._outbox.popleft()
            line.send(outgoing)

    def _on_line_event(self, event: Event, size_bytes: int = 0) -> None:
        if isinstance(event, Up):
            self._connected = True
        if size_bytes:
            with self._lock:
                self._held_bytes -= size_bytes
        self._emit(event)

    def _pause(self, wake: _Wake, pause_s: float) -> None:
        """Wait before the next attempt; what is published meanwhile is reported at once, and `stop` and `restart` end the wait."""
        until = time.monotonic() + pause_s
        while not (self._stopping or self._restarting) and (left_s := until - time.monotonic()) > 0:
            wake.wait(left_s)
            self._report_unsent()


class _Wake:
    """A selector that other threads can interrupt."""

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self._read, selectors.EVENT_READ)

    def ring(self) -> None:
        """Safe from any thread; a full buffer means that it has rung, a closed one that nobody listens any more."""
        try:
            self._write.send(b"!")
        except OSError:
            return

    def wait(self, timeout_s: float) -> int:
        """Wait for the bell or for the socket of a line. Returns what is ready on the latter (`selectors.EVENT_*`)."""
        mask = 0
        for key, events in self.selector.select(timeout_s):
            if key.fileobj is self._read:
                self._read.recv(4_096)
            else:
                mask |= events
        return mask

    def close(self) -> None:
        self.selector.close()
        self._read.close()
        self._write.close()


class _Client(Client):
    """paho's client, but a failed TLS handshake closes its socket instead of leaving it to the garbage collector."""

    known_ms: Known | None = None

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        assert self._ssl_context is not None
        return handshake(self._ssl_context, tcp_sock, self._host, self._connect_timeout, self.known_ms)


class _Line:
    """One connection. All methods are called from one thread; paho calls back into the `_on_…` ones from inside `step`."""

    def __init__(
        self,
        settings: MqttSettings,
        tls: ssl.SSLContext | None,
        subscriptions: Sequence[str],
        presence: Presence | None,
        emit: Callable[..., None],
        wake: _Wake,
    ) -> None:
        self.end_reason: str | None = None
        self._settings = settings
        self._subscriptions = subscriptions
        self._presence = presence
        self._emit = emit
        self._wake = wake
        self._in_flight: dict[int, Outgoing] = {}
        self._watched = 0
        self._answer_due_s = 0.0
        self._up_since_s: float | None = None
        self._client = self._make_client(tls)

    def _make_client(self, tls: ssl.SSLContext | None) -> Client:
        settings = self._settings
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id="ls-" + secrets.token_hex(10),
            clean_session=None if settings.mqtt5 else True,
            protocol=MQTTProtocolVersion.MQTTv5 if settings.mqtt5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = settings.connect_timeout_s
        client.max_inflight_messages_set(settings.max_in_flight + 1)
        if settings.username:
            client.username_pw_set(settings.username, settings.password)
        if tls is not None:
            client.tls_set_context(tls)
            client.known_ms = settings.known_ms
        if self._presence is not None:
            client.will_set(self._presence.topic, self._presence.will, qos=1, retain=True)
        client.on_connect, client.on_subscribe, client.on_disconnect = self._on_connect, self._on_subscribe, self._on_disconnect
        client.on_message, client.on_publish = self._on_message, self._on_publish
        client.on_socket_open, client.on_socket_close = self._on_socket_open, self._on_socket_close
        # Setting this keeps paho from writing inside `publish`, before the message id is known here.
        client.on_socket_register_write = _leave_it
        return client

    @property
    def has_room(self) -> bool:
        return self._up_since_s is not None and self.end_reason is None and len(self._in_flight) < self._settings.max_in_flight

    def unacknowledged(self) -> list[Outgoing]:
        return list(self._in_flight.values())

    def up_for_s(self) -> float:
        return 0.0 if self._up_since_s is None else time.monotonic() - self._up_since_s

    def open(self) -> None:
        """Connect the socket; blocks this thread for at most a few seconds. A failure shows in `end_reason`."""
        host, port = self._settings.host, self._settings.port
        self._answer_due_s = time.monotonic() + self._settings.connect_timeout_s + self._settings.answer_timeout_s
        try:
            self._client.connect(host, port, keepalive=self._settings.keepalive_s)
        except ssl.SSLError as error:
            self.end_reason = f"TLS with {host}:{port} failed: {getattr(error, 'verify_message', '') or error.reason or error}"
        except (OSError, UnicodeError) as error:
            self.end_reason = f"cannot reach {host}:{port}: {getattr(error, 'strerror', None) or error}"

    def step(self, timeout_s: float) -> None:
        """Wait for the socket or the bell, and do what there is to do."""
        client = self._client
        if client.want_write():
            self._check(client.loop_write())
        self._watch()
        if self.end_reason is not None:
            return
        if self._up_since_s is None:
            timeout_s = max(0.0, min(timeout_s, self._answer_due_s - time.monotonic()))
        ready = self._wake.wait(timeout_s)
        if ready & selectors.EVENT_WRITE:
            self._check(client.loop_write())
        if ready & selectors.EVENT_READ:
            self._read_all()
        self._check(client.loop_misc())
        if self._up_since_s is None and time.monotonic() >= self._answer_due_s:
            self.end_reason = self.end_reason or "the broker accepted the connection and did not answer"

    def send(self, outgoing: Outgoing) -> None:
        """Hand one message to paho. Only while `has_room`, so that paho never queues."""
        info = self._client.publish(outgoing.topic, outgoing.payload, qos=outgoing.qos, retain=outgoing.retain)
        self._in_flight[info.mid] = outgoing
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self.end_reason = self.end_reason or f"cannot send: {info.rc.name}"

    def say_goodbye(self) -> None:
        """Let acknowledgements come in for a moment, then farewell and DISCONNECT: a clean end keeps the will from being published."""
        if self._up_since_s is None or self.end_reason is not None:
            return
        if self._presence is not None and self._presence.farewell is not None:
            self.send(Outgoing(None, self._presence.topic, self._presence.farewell, 1, True))
        until_s = time.monotonic() + FAREWELL_S
        while self._in_flight and self.end_reason is None and time.monotonic() < until_s:
            self.step(0.05)
        if self.end_reason is None:
            self.end_reason = "stopped"
            self._client.disconnect()
            self._client.loop_write()

    def close(self) -> None:
        """Give the socket back. Without `say_goodbye` this is an abrupt end to the broker, which then publishes the will."""
        sock = self._client.socket()
        if sock is not None:
            self._on_socket_close(self._client, None, sock)
            sock.close()

    def _read_all(self) -> None:
        """TLS may hold decrypted bytes that no selector sees."""
        self._check(self._client.loop_read())
        sock: Any = self._client.socket()
        while isinstance(sock, ssl.SSLSocket) and sock.pending():
            self._check(self._client.loop_read())
            sock = self._client.socket()

    def _check(self, rc: MQTTErrorCode) -> None:
        if rc != MQTTErrorCode.MQTT_ERR_SUCCESS and self.end_reason is None:
            self.end_reason = f"connection lost ({rc.name})"

    def _watch(self) -> None:
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._client.want_write() else 0)
        sock: Any = self._client.socket()
        if sock is not None and wanted != self._watched:
            self._wake.selector.modify(sock, wanted)
            self._watched = wanted

    # --- called by paho

    def _on_socket_open(self, _client: Client, _data: Any, sock: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watched = selectors.EVENT_READ
        self._wake.selector.register(sock, self._watched)

    def _on_socket_close(self, _client: Client, _data: Any, sock: Any) -> None:
        if self._watched:
            self._wake.selector.unregister(sock)
            self._watched = 0

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            self.end_reason = f"the broker refused the connection: {reason}"
        elif self._subscriptions:
            client.subscribe([(topic_filter, 1) for topic_filter in self._subscriptions])
        else:
            self._go_up()

    def _on_subscribe(self, _client: Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any) -> None:
        refused = [topic for topic, reason in zip(self._subscriptions, reasons, strict=False) if reason.is_failure]
        if refused or len(reasons) != len(self._subscriptions):
            self.end_reason = f"the broker refused the subscription to {', '.join(refused) or 'some topics'}"
        else:
            self._go_up()

    def _go_up(self) -> None:
        self._up_since_s = time.monotonic()
        if self._presence is not None:
            self.send(Outgoing(None, self._presence.topic, self._presence.birth, 1, True))
        self._emit(Up())

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        self.end_reason = self.end_reason or f"connection lost: {reason}"

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self._emit(Message(message.topic, bytes(message.payload), message.retain))

    def _on_publish(self, _client: Client, _data: Any, mid: int, reason: ReasonCode, _properties: Any) -> None:
        outgoing = self._in_flight.pop(mid, None)
        if outgoing is None or outgoing.token is None:
            return
        refused = Dropped(outgoing.token, f"the broker refused it: {reason}")
        self._emit(refused if reason.is_failure else Published(outgoing.token), len(outgoing.payload))


def _leave_it(_client: Client, _data: Any, _sock: Any) -> None:
    """Writing is done in `_Line.step`."""
