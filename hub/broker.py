"""The embedded broker: amqtt, with the doors locked and the windows bounded. The only importer of `amqtt`.

Nodes come to the listener that the settings name; beyond loopback it demands TLS. The hub comes to a second one, on loopback and on a
port of its own, with a secret made at each start. Nobody is anonymous; each node is confined to its own topics in all three directions.

amqtt 0.12 as it comes would not do. What is overridden in `_Broker`, and why:

* a client that fails to log in stays in its table of sessions for ever; persistent sessions queue without a bound; a client can take
  over the session of another by naming its id -> every session is clean, gets a random id from us, and is removed when its socket is;
* on connect it sends a newcomer every retained message that *anybody* subscribed to, unchecked -> only own subscriptions count;
* a will goes to any topic -> checked at login;
* it writes out all subscriptions at each new one -> their text is short;
* its router walks the subscriptions while others change them, and can lose the message -> an own, synchronous router;
* it waits in silence for the end of a CONNECT of MQTT 5 -> told to come with 3.1.1;
* no bound on packets, on the time to say CONNECT, on what waits for a slow reader, no end for a silent client -> bounded, see the
  constants.

It stays a lossy pipe: what a slow subscriber does not acknowledge within 5 s is forgotten, and a restart forgets everything. The sync
rules are made for that. These overrides touch private names: the version is pinned, and the conformance suite is what tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker, Server
from amqtt.contexts import Action, BrokerConfig, ListenerConfig
from amqtt.errors import AMQTTError, BrokerError
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import Session

from hub.broker_access import UNKNOWN_NODE, Door, Gatekeeper, Lookup, Member, NodeGrant, Seldom
from hub.broker_connect import COME_WITH_3, connect_level
from hub.broker_listen import tls_context
from hub.broker_log import library_quiet
from hub.broker_port import HUB, NODES, AtDoorway, BrokerCounts, BrokerSettings, Doorway, HubAccess, HubBroker, open_doorway
from hub.broker_tables import Filters, is_retained
from protocols.errors import ConfigError
from protocols.limits import FRAME_WIRE_BYTES
from protocols.topics import Access, Rule, matches

__all__ = ["BrokerCounts", "BrokerSettings", "BrokerThread", "EmbeddedBroker", "HubAccess", "NodeGrant"]

log = logging.getLogger(__name__)

PACKET_BYTES: Final = FRAME_WIRE_BYTES + 32_768
"""The longest packet taken from a client: a frame, its topic, and room."""
CONNECT_S: Final = 10.0
"""From the open socket to a whole CONNECT."""
CLOSE_S: Final = 2.0
"""How long a closing socket may take to send what it still has."""
STOP_S: Final = 5.0
ACCEPT_TURNS: Final = 8
"""of the loop, more than asyncio needs from an accept to the handler of the connection"""
KEEPALIVE_MAX_S: Final = 600
"""A client may ask for a longer keep-alive, or for none; it gets this one."""
NODE_WAITING: Final = 256
"""Messages a node may have unacknowledged; what comes beyond is dropped for it (and counted)."""
HUB_WAITING: Final = 512
"""Messages the hub may be behind; beyond it, nodes are not read until it has caught up."""
_ROUTE_BATCH: Final = 64


class EmbeddedBroker(AtDoorway):
    """One broker in one event loop. May be started and stopped many times; each start is a new broker with a new hub secret."""

    def __init__(
        self,
        settings: BrokerSettings,
        lookup: Lookup,
        *,
        hub_rules: Sequence[Rule] | None = None,
        door: Door | None = None,
        doorway: Doorway | None = None,
    ) -> None:
        """`lookup` answers what the registry knows of a node. Opens nothing yet. `doorway`: what it listens on, where somebody else has
        opened that; it then starts once."""
        self.counts = BrokerCounts()
        self.door = door if door is not None else Door()
        self._settings = settings
        self._lookup = lookup
        self._hub_rules = hub_rules
        self._given = doorway
        self._doorway: Doorway | None = None
        self._broker: Any = None
        self._undo = ExitStack()

    @property
    def connections(self) -> int:
        """Sockets that are open now, the hub's included."""
        return len(self._broker.open) if self._broker is not None else 0

    def prepare(self) -> None:
        """See the port."""

    async def told(self) -> None:
        """See the port: it looks them up itself."""

    async def start(self) -> None:
        """Listen. Raises ConfigError (in one line, for people) if the port, the host or the certificate cannot be used."""
        settings = self._settings
        self._doorway = self._given or open_doorway(settings)
        tls = tls_context(settings.cert_file, settings.key_file)
        gate = Gatekeeper(self._lookup, self._hub_rules, self._doorway.secret)
        self._undo.callback(gate.close)
        self._undo.enter_context(library_quiet())
        try:
            self._broker = _Broker(gate, self.counts, self.door, settings.max_connections, self._doorway.sockets, tls)
            await self._broker.start()
        except BrokerError as error:
            await self.stop()
            raise ConfigError(f"The embedded broker does not start: {error}.") from error

    async def stop(self) -> None:
        """Close every connection and both listeners. Idempotent; nothing is left running on the loop."""
        broker, self._broker = self._broker, None
        if broker is not None:
            await broker.end()
        self._doorway = None
        self._undo.close()


class BrokerThread:
    """A broker in a thread with a loop of its own, for hubs and tests that run no loop or a busy one."""

    def __init__(self, broker: HubBroker) -> None:
        self.broker = broker
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None

    def start(self) -> None:
        """Return when it listens. Raises what the broker's `start` raises."""
        started: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main(started)), name="broker", daemon=True)
        self._thread.start()
        with contextlib.ExitStack() as undo:
            undo.callback(self.stop)  # whatever it was, nothing of the thread may stay
            started.result()
            undo.pop_all()

    def stop(self) -> None:
        """Return when it has ended. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop is not None and self._ended is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already: the broker could not start
                self._loop.call_soon_threadsafe(self._ended.set)
        thread.join()

    async def _main(self, started: Future[None]) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        try:
            await self.broker.start()
        except BaseException as error:  # boundary: between two threads; whatever it is belongs to the caller of `start`
            started.set_exception(error)
            return
        started.set_result(None)
        await self._ended.wait()
        await self.broker.stop()


class _Reader(StreamReaderAdapter):  # type: ignore[misc]
    """Reads a packet piece by piece; refuses one that is too long, and does not begin one while the hub is behind."""

    def __init__(self, reader: asyncio.StreamReader, broker: _Broker, *, may_wait: bool) -> None:
        super().__init__(reader)
        self._broker = broker
        self._may_wait = may_wait
        self._refused = False
        self._begun: bytes | None = b""
        self.newer = False
        self.session: Any = None

    def refuses(self, bad: bool) -> bool:
        """Whether there is nothing more to read from this client, `bad` or earlier; counted once."""
        self._broker.counts.oversized_total += bad and not self._refused
        self._refused = self._refused or bad
        return self._refused

    async def read(self, n: int = -1) -> bytes:
        """`n` bytes, or an end of the stream for ever once a packet was refused."""
        if self.refuses(n > PACKET_BYTES or n < 0):
            raise ConnectionResetError("a packet is too long, or of a kind that is not taken")
        if n == 1 and self._may_wait:
            await self._broker.wait_for_room(self.session)
        data = bytes(await super().read(n))
        if self._begun is not None:
            self._look_at(self._begun + data)
        return data

    def _look_at(self, begun: bytes) -> None:
        """amqtt would take a CONNECT of MQTT 5 for an unfinished one, and wait."""
        level = connect_level(begun)
        self._begun = begun if level is None else None
        if level is not None and level > 4:
            self.newer = True
            raise ConnectionResetError("a version of MQTT that is not spoken here")


class _Writer(StreamWriterAdapter):  # type: ignore[misc]
    """Closes within a bounded time also where the peer has stopped reading; says nothing to one that has gone."""

    def write(self, data: bytes) -> None:
        if not self._writer.transport.is_closing():
            super().write(data)

    async def close(self) -> None:
        if self.is_closed:  # type: ignore[has-type]
            return
        self.is_closed = True
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._writer.wait_closed()
        except (TimeoutError, OSError):
            self._writer.transport.abort()


class _Handler(BrokerProtocolHandler):  # type: ignore[misc]
    """Ends who was silent for one and a half keep-alives, or uses QoS 2: amqtt waits for the one and hoards for the other."""

    def handle_read_timeout(self) -> None:
        if self.reader is not None:
            self.reader.feed_eof()

    async def handle_publish(self, publish_packet: Any) -> None:
        if self.reader is not None and not self.reader.refuses(publish_packet.qos == 2):
            await super().handle_publish(publish_packet)


class _Broker(Broker):  # type: ignore[misc]
    """amqtt's broker with the changes that the module's docstring lists. Runs once."""

    def __init__(
        self,
        gate: Gatekeeper,
        counts: BrokerCounts,
        door: Door,
        max_connections: int,
        sockets: Mapping[str, socket.socket],
        tls: ssl.SSLContext | None,
    ) -> None:
        listeners = {HUB: ListenerConfig(), NODES: ListenerConfig()}
        super().__init__(BrokerConfig(listeners=listeners, plugins={}))
        self._subscriptions = Filters()
        self.counts = counts
        self._door = door
        self.sockets = sockets
        self.open: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}
        self._gate = gate
        self._max_connections = max_connections
        self._tls = tls
        self._members: dict[str, Member] = {}
        self._hubs: dict[str, Session] = {}
        self._wildcards: dict[str, None] = {}
        self._seldom = Seldom()
        self._ending = False

    # --- life of the broker

    async def _start_listeners(self) -> None:
        for name, sock in self.sockets.items():
            tls: dict[str, Any] = {"ssl": self._tls, "ssl_handshake_timeout": CONNECT_S} if self._tls and name == NODES else {}
            server = await asyncio.start_server(partial(self.stream_connected, listener_name=name), sock=sock, **tls)
            self._servers[name] = Server(name, server, -1)

    async def end(self) -> None:
        """Take no more connections, break those that are there, wait for their tasks, then let amqtt shut down."""
        self._ending = True
        loop = asyncio.get_running_loop()
        if isinstance(loop, asyncio.SelectorEventLoop):  # it cannot close a server on which somebody was accepted a moment ago
            for sock in self.sockets.values():
                loop.remove_reader(sock)
            for _ in range(ACCEPT_TURNS):
                await asyncio.sleep(0)
        for server in self._servers.values():
            server.instance.close()
        for writer in self.open.values():
            writer.transport.abort()
        if self.open:
            await asyncio.wait(list(self.open), timeout=STOP_S)
        if self.transitions.state == "started":
            await self.shutdown()
        for sock in self.sockets.values():
            sock.close()

    # --- life of a connection

    async def stream_connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        full = len(self.open) >= self._max_connections and listener_name != HUB
        if full:
            self._say("full", "The broker has %d connections and takes no more", len(self.open))
        if full or self._ending:
            writer.transport.abort()
            return
        self.open[task] = writer
        try:
            await self._client_connected(listener_name, _Reader(reader, self, may_wait=listener_name != HUB), _Writer(writer))
        except Exception as error:  # boundary: bytes from outside in a library end this connection only
            self._say(type(error).__name__, "A connection to the broker failed: %r", error)
        finally:
            del self.open[task]
            writer.transport.abort()

    async def _initialize_client_session(self, reader: _Reader, writer: _Writer, remote_address: str, remote_port: int) -> tuple[Any, Any]:
        try:
            async with asyncio.timeout(CONNECT_S):
                handler, session = await _Handler.init_from_connect(reader, writer, self.plugins_manager)
        except Exception as error:  # boundary: a stranger's bytes; the text might hold a password
            if reader.newer:
                writer.write(COME_WITH_3)
            await writer.close()
            raise AMQTTError(f"no valid CONNECT ({type(error).__name__})") from None
        session.client_id = secrets.token_hex(12)
        session.keep_alive = min(session.keep_alive or KEEPALIVE_MAX_S, KEEPALIVE_MAX_S) * 3 // 2
        reader.session = session
        return handler, session

    async def _handle_client_session(
        self, reader: Any, writer: Any, client_session: Session, handler: Any, server: Any, listener_name: str
    ) -> None:
        try:
            await super()._handle_client_session(reader, writer, client_session, handler, server, listener_name)
        finally:
            client_id = str(client_session.client_id)
            self._members.pop(client_id, None)
            self._hubs.pop(client_id, None)
            self._sessions.pop(client_id, None)
            await self._del_all_subscriptions(client_session)
            client_session.clear_queues()

    async def _authenticate(self, session: Session, listener: ListenerConfig) -> bool:
        username, password = session.username or "", session.password or ""
        admit = self._gate.admit_hub(username, password) if listener is self.listeners_config[HUB] else None
        member = admit if admit is not None else await self._gate.admit_node(username, password)
        session.password = None
        if isinstance(member, Member) and session.will_flag and not member.may(Access.WRITE, str(session.will_topic)):
            member = "its will goes to a topic that is not its own"
        if isinstance(member, str):
            self.counts.refused_total += 1
            self._door.refuse(username, member, time.time_ns() // 1_000_000)
            # A name that nobody knows is the attacker's choice: as a key it would make every line a new one.
            key = member if member == UNKNOWN_NODE else f"{username} {member}"
            self._say(key, "The broker refused %.64r from %s: %s", username, session.remote_address, member)
            return False
        self.counts.logins_total += 1
        self._door.enter(member.name)
        self._members[str(session.client_id)] = member
        if member.is_hub:
            self._hubs[str(session.client_id)] = session
        return True

    # --- what a connection may do

    async def _topic_filtering(self, session: Session, topic: str, action: Action) -> bool:
        member = self._members.get(str(session.client_id))
        access = Access.WRITE if action is Action.PUBLISH else Access.READ
        if member is not None and member.may(access, topic):
            return True
        if action is Action.PUBLISH:
            self.counts.denied_publish_total += 1
        else:
            self.counts.denied_subscribe_total += 1
        name = member.name if member else "?"
        self._say(f"{name} {action}", "%s may not %s %.200r", name, action.value, topic)
        return False

    async def add_subscription(self, subscription: tuple[str, int], session: Session) -> int:
        granted = int(await super().add_subscription(subscription, session))
        if granted != 0x80:
            self._subscriptions.note(str(session.client_id), subscription[0])
        if granted != 0x80 and ("+" in subscription[0] or "#" in subscription[0]):
            self._wildcards[subscription[0]] = None
        return granted

    async def retain_message(self, source_session: Any, topic_name: str | None, data: Any, qos: int | None = None) -> None:
        """Only where the table of channels says so: else a node could fill the memory with what nobody clears."""
        if topic_name is not None and is_retained(topic_name):
            await super().retain_message(source_session, topic_name, data, qos)

    async def _publish_retained_messages_for_subscription(self, subscription: tuple[str, int], session: Session) -> None:
        """amqtt calls this at each login for everybody's subscriptions. Only the session's own count."""
        if self._subscriptions.has(str(session.client_id), subscription[0]):
            await super()._publish_retained_messages_for_subscription(subscription, session)

    async def _del_all_subscriptions(self, session: Session) -> None:
        for a_filter in self._subscriptions.gone(str(session.client_id)):
            self._del_subscription(a_filter, session)
            if not self._subscriptions.get(a_filter, True):
                del self._subscriptions[a_filter]

    # --- routing

    async def _run_broadcast(self, running_tasks: Any) -> None:
        self._route(await self._broadcast_queue.get(), running_tasks)
        for _ in range(min(_ROUTE_BATCH, self._broadcast_queue.qsize())):
            self._route(self._broadcast_queue.get_nowait(), running_tasks)

    def _route(self, broadcast: dict[str, Any], running_tasks: Any) -> None:
        topic = broadcast["topic"]
        for target, granted_qos in self._targets(topic):
            client_id = str(target.client_id)
            member, (_, handler) = self._members.get(client_id), self._sessions.get(client_id, (None, None))
            if member is None or handler is None or not member.may(Access.READ, topic):
                continue
            if not member.is_hub and len(target.inflight_out) >= NODE_WAITING:
                self.counts.dropped_total += 1
                continue
            publish = handler.mqtt_publish(topic, broadcast["data"], broadcast.get("qos", granted_qos), retain=False)
            running_tasks.append(asyncio.ensure_future(publish))

    def _targets(self, topic: str) -> list[tuple[Any, int]]:
        found = list(self._subscriptions.get(topic, ()))
        for topic_filter in self._wildcards:
            if matches(topic_filter, topic):
                found += self._subscriptions.get(topic_filter, ())
        return found

    async def wait_for_room(self, session: Any) -> None:
        """Hold back a node's next packet while the hub is behind: TCP then slows the node down, and memory stays bounded."""
        while self._behind(session) > HUB_WAITING:  # noqa: ASYNC110 (these are the library's own tables, which tell nobody)
            await asyncio.sleep(0.01)

    def _behind(self, session: Any) -> int:
        own = 0 if session is None else session.delivered_message_queue.qsize()
        hub = max((len(session.inflight_out) for session in self._hubs.values()), default=0)
        return int(own + hub + self._broadcast_queue.qsize())

    def _say(self, key: str, message: str, *args: object) -> None:
        suppressed = self._seldom.ask(key)
        if suppressed is not None:
            log.warning("%s%s", message % args, f" ({suppressed} more like this)" if suppressed else "")
