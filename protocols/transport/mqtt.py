"""MQTT over TCP or TLS, through paho. The only importer of `paho`.

Two classes: a `_Line` is one connection from its socket to its end and is never used twice; `MqttTransport` owns the thread, the
outbox, the back-off, and makes one line after another. A new line has a new paho client, so nothing that paho queued can outlive the
connection it was meant for, and a stalled client is cured by making the next one.

MQTT 5 where the broker has it (`versions`): the session ends with its connection, what a broker says of its limits is kept to, and what it
refuses is named (`refusals`); expiry and trace context go along. Nothing depends on any of it: 3.1.1 is enough for correctness.

What paho would do otherwise, and why it does not here (2.2): `publish` on a client that is not connected queues without a word, so
lines send only while up; its queue beyond the in-flight window has no bound in bytes, so the window is kept here; its thread reconnects
by itself with a client that remembers, so its loop functions are called from our thread instead; a refused publish on MQTT 5 counts as
published, so its reason code is looked at; it keeps to none of the limits in a CONNACK, so they are kept here.
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
from typing import Any, Final

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from protocols.limits import FRAME_WIRE_BYTES
from protocols.topics import check_filter
from protocols.trace import read_traceparent
from protocols.transport.gather import PACKETS_MOST, Gather
from protocols.transport.line import FAREWELL_S, LineTransport, Outgoing
from protocols.transport.mqtt_packets import TRACE, beside, join, read_publish
from protocols.transport.mqtt_settings import MqttSettings
from protocols.transport.port import Dropped, Message, Presence, Up
from protocols.transport.refusals import UNSUPPORTED_VERSION, Refusal, of_connection, of_publish
from protocols.transport.tls import Known, handshake
from protocols.transport.versions import Versions
from protocols.transport.wake import Wake

__all__ = ["MqttSettings", "MqttTransport"]

log = logging.getLogger(__name__)

_TICK_S: Final = 1.0  # how often keep-alive is looked after while nothing happens
_PACKET_BYTES: Final = FRAME_WIRE_BYTES + 32_768  # the longest packet that we let a broker of MQTT 5 send us
_BESIDE_BYTES: Final = 128  # what a packet may hold beside topic and payload: its head, its id, and our properties
_AT_ONCE: Final = 4_096  # bytes that are taken off the socket with a packet's head: a small packet is four reads of paho's
_FILTERS: Final = 400  # subscribed to in one packet: at 250 bytes each they fit into what the shipped broker takes


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
        name, line = f"mqtt-{settings.host}-{settings.port}", f"connection to {settings.host}"
        super().__init__(settings, name=name, line=line, whom="for the broker", rng=rng)
        self._settings = settings
        self._subscriptions = tuple(check_filter(topic_filter) for topic_filter in subscriptions)
        self._presence = presence
        self._tls = settings.tls_context()
        self._wake: Wake | None = None
        self._versions = Versions(settings.version)
        self._protocol = ""
        self._passed_bytes = 512  # no broker's limit is smaller, and a line that breaks again and again does so in the midst of anything
        self._suspects = False

    @property
    def protocol(self) -> str:
        """See the port."""
        return self._protocol

    def _prepare(self) -> None:
        self._wake = Wake()

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
                line = self._live_one_line(self._wake)
                if line.up_for_s() == 0.0 and self._versions.failed(five=line.five, answered=line.answered or not line.reached):
                    continue  # the same attempt goes on in the other version
                self._clear_up_line(line)
                failures = 0 if line.up_for_s() >= self._settings.stable_s else failures + 1
                if not (self._stopping or self._restarting):
                    self._pause(self._wake, self._backoff_s(failures))
            self._report_unsent()
        finally:
            wake, self._wake = self._wake, None
            wake.close()

    def _live_one_line(self, wake: Wake) -> _Line:
        """Connect, serve, and close."""
        five = self._versions.five(time.monotonic())
        line = _Line(self._settings, self._tls, self._subscriptions, self._presence, self, wake, five=five)
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
        return line

    def _clear_up_line(self, line: _Line) -> None:
        left = line.unacknowledged()
        large = self._too_large(line, left)
        if large is not None:
            left = [one for one in left if one is not large]
            self.refused(large, Refusal.TOO_LARGE, "the connection ended over it, as brokers do with packets that are too large for them")
        self._clear_up(line.end_reason or "", left, line.end_refusal)

    def _too_large(self, line: _Line, left: Sequence[Outgoing]) -> Outgoing | None:
        """Which message broke this line. A broker of 3.1.1 says nothing and hangs up: it is told by two lines in a row that ended from
        outside while something larger than all that ever passed was under way."""
        biggest = max(left, key=lambda one: len(one.payload), default=None)
        suspect = biggest is not None and line.lost and len(biggest.payload) > self._passed_bytes
        sure = suspect and (self._suspects or line.end_refusal is Refusal.TOO_LARGE)
        self._suspects = suspect and not sure
        return biggest if sure else None

    def _feed(self, line: _Line) -> None:
        while line.has_room:
            with self._lock:
                if not self._outbox:
                    return
                outgoing = self._outbox.popleft()
            if line.takes(outgoing):
                line.send(outgoing)
            else:
                self.refused(outgoing, Refusal.TOO_LARGE, f"the broker takes packets of at most {line.packet_most} bytes")

    # --- called by the line

    def went_up(self, *, five: bool) -> None:
        """The broker granted everything."""
        self._versions.came_up(time.monotonic(), five=five)
        self._protocol = "MQTT 5" if five else "MQTT 3.1.1"
        self._connected = True
        self._refusals.entered()
        self._emit(Up())

    def heard(self, message: Message) -> None:
        """Something came."""
        self._emit(message)

    def taken(self, outgoing: Outgoing, code: int | None) -> None:
        """The broker acknowledged it, with a reason code where it speaks MQTT 5."""
        refusal = None if code is None else of_publish(code)
        if refusal not in (None, Refusal.NOBODY):
            self.refused(outgoing, refusal, f"the broker refused it: {ReasonCode(PacketTypes.PUBACK, identifier=code or 0)}")
            return
        if code is not None:
            self._refusals.passed(outgoing.topic, len(outgoing.payload), but=refusal)
        if refusal is not None and self._settings.wants_reader and not outgoing.retain:  # what is kept has time to find its reader
            self._refusals.note(refusal, "the broker took it, and nobody reads it", outgoing.topic)
        self._passed_bytes = max(self._passed_bytes, len(outgoing.payload))
        self._give_back(outgoing)
        self._report(outgoing)

    def refused(self, outgoing: Outgoing, refusal: Refusal, reason: str) -> None:
        """The broker does not want it. Whose it is hears of it, and it stands in the books."""
        self._refusals.note(refusal, reason, outgoing.topic, len(outgoing.payload))
        self._give_back(outgoing)
        if outgoing.token is not None:
            self._emit(Dropped(outgoing.token, reason, refusal, outgoing.payload if refusal is Refusal.TOO_LARGE else b""))

    def _give_back(self, outgoing: Outgoing) -> None:
        if outgoing.token is not None:
            with self._lock:
                self._held_bytes -= len(outgoing.payload)

    def _pause(self, wake: Wake, pause_s: float) -> None:
        """Wait before the next attempt; what is published meanwhile is reported at once, and `stop` and `restart` end the wait."""
        until = time.monotonic() + pause_s
        while not (self._stopping or self._restarting) and (left_s := until - time.monotonic()) > 0:
            wake.wait(left_s)
            self._report_unsent()


class _Client(Client):
    """paho's, but a failed TLS handshake closes its socket at once, and what comes and goes often is read and sent in larger pieces."""

    known_ms: Known | None = None
    on_plain: Callable[[Message], None]  # called with each message that was read here
    _held, _at = b"", 0

    @property
    def holds(self) -> bool:  # was more taken off the socket than was read? No selector sees that
        return self._at < len(self._held)

    def _sock_recv(self, bufsize: int) -> bytes:
        if not self.holds:
            self._held, self._at = super()._sock_recv(bufsize if bufsize > 2 else _AT_ONCE), 0  # a head, or what follows it
        part = self._held[self._at : self._at + bufsize]
        self._at += len(part)
        if not self.holds:
            self._held, self._at = b"", 0
        return part

    def _handle_publish(self) -> MQTTErrorCode:
        came = read_publish(self._in_packet["command"], self._in_packet["packet"], five=self._protocol == MQTTProtocolVersion.MQTTv5)
        if came is None:
            return super()._handle_publish()
        self.on_plain(Message(came.topic, came.payload, came.retain, came.trace))
        return self._send_puback(came.mid)

    def _packet_write(self) -> MQTTErrorCode:
        join(self._out_packet)
        return super()._packet_write()

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        assert self._ssl_context is not None
        return handshake(self._ssl_context, tcp_sock, self._host, self._connect_timeout, self.known_ms)


class _Line:
    """One connection. All methods are called from one thread; paho calls back into the `_on_…` ones from inside `step`.

    `reached`: somebody listens there. `answered`: and speaks the version we speak. `lost`: it ended from outside.
    """

    def __init__(
        self,
        settings: MqttSettings,
        tls: ssl.SSLContext | None,
        subscriptions: Sequence[str],
        presence: Presence | None,
        owner: MqttTransport,
        wake: Wake,
        *,
        five: bool,
    ) -> None:
        self.end_reason: str | None = None
        self.end_refusal: Refusal | None = None
        self.five, self.reached, self.answered, self.lost = five, False, False, False
        self.packet_most: int | None = None
        self._settings, self._subscriptions, self._presence = settings, subscriptions, presence
        self._owner, self._wake = owner, wake
        self._granted = 0
        self._gather = Gather(settings.gather_s)
        self._in_flight: dict[int, Outgoing] = {}
        self._window = settings.max_in_flight
        self._retains = True
        self._watched = 0
        self._answer_due_s = 0.0
        self._up_since_s: float | None = None
        self._client = self._make_client(tls)

    def _make_client(self, tls: ssl.SSLContext | None) -> _Client:
        settings = self._settings
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id="ls-" + secrets.token_hex(10),
            clean_session=None if self.five else True,
            protocol=MQTTProtocolVersion.MQTTv5 if self.five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = settings.connect_timeout_s
        client.max_inflight_messages_set(settings.max_in_flight + 2)
        if settings.username:
            client.username_pw_set(settings.username, settings.password)
        if tls is not None:
            client.tls_set_context(tls)
            client.known_ms = settings.known_ms
        if self._presence is not None:
            client.will_set(self._presence.topic, self._presence.will, qos=1, retain=True)
        client.on_connect, client.on_subscribe, client.on_disconnect = self._on_connect, self._on_subscribe, self._on_disconnect
        client.on_message, client.on_publish, client.on_plain = self._on_message, self._on_publish, self._heard
        client.on_socket_open, client.on_socket_close = self._on_socket_open, self._on_socket_close
        # Setting this keeps paho from writing inside `publish`, before the message id is known here: that is done in `step`.
        client.on_socket_register_write = lambda *_: None
        return client

    @property
    def has_room(self) -> bool:
        return self._up_since_s is not None and self.end_reason is None and len(self._in_flight) < self._window

    def takes(self, outgoing: Outgoing) -> bool:
        """Whether the broker said that it takes packets so large."""
        size = len(outgoing.payload) + len(outgoing.topic.encode()) + _BESIDE_BYTES
        return self.packet_most is None or size <= self.packet_most

    def unacknowledged(self) -> list[Outgoing]:
        return list(self._in_flight.values())

    def up_for_s(self) -> float:
        return 0.0 if self._up_since_s is None else time.monotonic() - self._up_since_s

    def open(self) -> None:
        """Connect the socket; blocks this thread for at most a few seconds. A failure shows in `end_reason`."""
        host, port = self._settings.host, self._settings.port
        self._answer_due_s = time.monotonic() + self._settings.connect_timeout_s + self._settings.answer_timeout_s
        properties = _connect_properties(self._settings.receive_most) if self.five else None
        try:
            self._client.connect(host, port, keepalive=self._settings.keepalive_s, properties=properties)
            self.reached = True
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason or error
            self._end(f"TLS with {host}:{port} failed: {why}", Refusal.CERTIFICATE)
        except (OSError, UnicodeError) as error:
            self._end(f"cannot reach {host}:{port}: {getattr(error, 'strerror', None) or error}")

    def _end(self, reason: str, refusal: Refusal | None = None) -> None:
        """The first reason counts."""
        if self.end_reason is None:
            self.end_reason, self.end_refusal = reason, refusal

    def step(self, timeout_s: float) -> None:
        """Wait for the socket or the bell, and do what there is to do."""
        client = self._client
        if client.want_write():
            self._check(client.loop_write())
        self._watch()
        if self.end_reason is not None:
            return
        timeout_s = timeout_s if self._up_since_s is not None else max(0.0, min(timeout_s, self._answer_due_s - time.monotonic()))
        ready = self._wake.wait(0.0 if client.holds else timeout_s) | (selectors.EVENT_READ if client.holds else 0)
        if ready & selectors.EVENT_WRITE:
            self._check(client.loop_write())
        if ready & selectors.EVENT_READ:
            self._read_all()
            if pause_s := self._gather.pause_s(time.monotonic()):
                time.sleep(pause_s)
        self._check(client.loop_misc())
        if self._up_since_s is None and time.monotonic() >= self._answer_due_s:
            self._end("the broker accepted the connection and did not answer", Refusal.CLOSED)

    def send(self, outgoing: Outgoing) -> None:
        """Hand one message to paho. Only while `has_room`, so that paho never queues."""
        properties: Any = beside(outgoing.extra) if self.five else None
        info = self._client.publish(
            outgoing.topic, outgoing.payload, qos=outgoing.qos, retain=outgoing.retain and self._retains, properties=properties
        )
        self._in_flight[info.mid] = outgoing
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._end(f"cannot send: {info.rc.name}")

    def say_goodbye(self) -> None:
        """Let acknowledgements come in for a moment, then farewell and DISCONNECT: a clean end keeps the will from being published."""
        if self._up_since_s is None or self.end_reason is not None:
            return
        until_s = time.monotonic() + FAREWELL_S
        self._settle(until_s - FAREWELL_S / 2)
        if self._presence is not None and self._presence.farewell is not None and self.has_room:
            self.send(Outgoing(None, self._presence.topic, self._presence.farewell, 1, True))
        self._settle(until_s)
        if self.end_reason is None:
            self.end_reason = "stopped"
            self._client.disconnect()
            self._client.loop_write()

    def _settle(self, until_s: float) -> None:
        while self._in_flight and self.end_reason is None and time.monotonic() < until_s:
            self.step(0.05)

    def close(self) -> None:
        """Give the socket back. Without `say_goodbye` this is an abrupt end to the broker, which then publishes the will."""
        sock = self._client.socket()
        if sock is not None:
            self._on_socket_close(self._client, None, sock)
            sock.close()

    def _read_all(self) -> None:
        """What has come, within bounds: paho reads one packet at a time, and TLS may hold decrypted bytes that no selector sees."""
        self._gather.begin()
        for _ in range(PACKETS_MOST):
            before = self._gather.packets
            self._check(self._client.loop_read())
            sock: Any = self._client.socket()
            held = isinstance(sock, ssl.SSLSocket) and sock.pending()
            if self.end_reason is not None or (not held and (self._gather.packets == before or self._gather.much)):
                return

    def _check(self, rc: MQTTErrorCode) -> None:
        if rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._lose(rc.name)

    def _lose(self, why: str, refusal: Refusal | None = None) -> None:
        """It ended, and not by us."""
        self.lost = self.lost or self.end_reason is None
        if self.answered or refusal is not None:
            self._end(f"connection lost: {why}", refusal)
        else:
            self._end("the connection was lost before the broker answered", Refusal.CLOSED)

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

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: ReasonCode, properties: Properties | None) -> None:
        self.answered = reason.value != UNSUPPORTED_VERSION
        if reason.is_failure:
            self._end(f"the broker refused the connection: {reason}", of_connection(reason.value))
            return
        self._window = min(self._window, getattr(properties, "ReceiveMaximum", self._window))
        self.packet_most = getattr(properties, "MaximumPacketSize", None)
        self._retains = bool(getattr(properties, "RetainAvailable", 1))
        self._subscribe(client)

    def _subscribe(self, client: Client) -> None:
        """To what is left, in packets that a broker with limits takes."""
        asked = self._subscriptions[self._granted : self._granted + _FILTERS]
        if asked:
            client.subscribe([(topic_filter, 1) for topic_filter in asked])
        else:
            self._go_up()

    def _on_subscribe(self, client: Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any) -> None:
        asked = self._subscriptions[self._granted : self._granted + _FILTERS]
        refused = [topic for topic, reason in zip(asked, reasons, strict=False) if reason.is_failure]
        if refused or len(reasons) != len(asked):
            self._end(f"the broker refused the subscription to {', '.join(refused) or 'some topics'}", Refusal.ACL)
        else:
            self._granted += len(asked)
            self._subscribe(client)

    def _go_up(self) -> None:
        self._up_since_s = time.monotonic()
        if self._presence is not None:
            self.send(Outgoing(None, self._presence.topic, self._presence.birth, 1, True))
        self._owner.went_up(five=self.five)

    def _on_disconnect(self, _client: Client, _data: Any, flags: Any, reason: ReasonCode, _properties: Any) -> None:
        said = self.five and flags.is_disconnect_packet_from_server and reason.is_failure
        self._lose(str(reason), of_connection(reason.value) if said else None)

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        trace = read_traceparent(dict(getattr(message.properties, "UserProperty", ())).get(TRACE)) if self.five else ""
        self._heard(Message(message.topic, bytes(message.payload), message.retain, trace))

    def _heard(self, message: Message) -> None:
        self._gather.came(len(message.payload))
        self._owner.heard(message)

    def _on_publish(self, _client: Client, _data: Any, mid: int, reason: ReasonCode, _properties: Any) -> None:
        self._gather.came(1)
        outgoing = self._in_flight.pop(mid, None)
        if outgoing is not None:
            self._owner.taken(outgoing, reason.value if self.five and outgoing.qos else None)


def _connect_properties(receive_most: int) -> Properties:
    """The session ends with its connection (sync.md, rule 17), and the broker keeps to our bounds."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 0
    properties.ReceiveMaximum = receive_most
    properties.MaximumPacketSize = _PACKET_BYTES
    return properties
