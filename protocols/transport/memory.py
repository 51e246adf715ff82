"""A broker inside the process, for tests: the same port, the same rules, no thread and no clock.

Nothing happens between two calls of `MemoryBroker.pump()`: connecting, routing and delivering are done there, in the order in which they
were asked for, and in the caller's thread. A transport that is down tries again at each pump.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from protocols.errors import TransportError
from protocols.topics import Access, Rule, allows, check_filter, check_topic, matches
from protocols.transport.port import PLAIN, Down, Dropped, Event, Extra, Listener, Message, Presence, Published, Up
from protocols.transport.refusals import Seen

Authorise = Callable[[str, str], Sequence[Rule] | None]
"""From a user name and a password to what that user may do; None if the broker does not know them."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """One publish on its way. `author` is None for birth, will and farewell, of which nobody awaits the end."""

    author: MemoryTransport | None
    token: int
    topic: str
    payload: bytes
    retain: bool


class MemoryBroker:
    """Routes between its transports. `authorise` defaults to everything for everybody."""

    def __init__(self, authorise: Authorise | None = None) -> None:
        self._authorise = authorise
        self._clients: list[MemoryTransport] = []
        self._wire: deque[_Sent] = deque()
        self._retained: dict[str, bytes] = {}
        self.running = True

    def transport(
        self,
        username: str = "",
        password: str = "",
        *,
        subscriptions: Sequence[str] = (),
        presence: Presence | None = None,
        max_outgoing_bytes: int = 8_000_000,
    ) -> MemoryTransport:
        """A new line to this broker."""
        return MemoryTransport(self, (username, password), subscriptions, presence, max_outgoing_bytes)

    def pump(self) -> int:
        """Connect who waits, route what was sent, deliver until nothing is left. Returns how many events listeners got."""
        delivered = 0
        for client in list(self._clients):
            self._connect(client)
        while True:
            self._route_all()
            events = [(client, event) for client in list(self._clients) for event in client.take_events()]
            if not events:
                return delivered
            for client, event in events:
                client.deliver(event)
            delivered += len(events)

    def stop(self) -> None:
        """Like killing a broker without persistence: what is on the wire and what was retained is gone."""
        self.running = False
        self._wire.clear()
        self._retained.clear()
        for client in list(self._clients):
            client.lose("the broker stopped")

    def start(self) -> None:
        """Accept connections again."""
        self.running = True

    # --- for the transports of this module

    def join(self, client: MemoryTransport) -> None:
        """A started transport waits to be connected."""
        self._clients.append(client)

    def leave(self, client: MemoryTransport) -> None:
        """A stopped transport is forgotten."""
        self._clients.remove(client)

    def send(self, sent: _Sent) -> None:
        """Put one publish on the wire."""
        self._wire.append(sent)

    def _connect(self, client: MemoryTransport) -> None:
        if client.connected:
            return
        if not self.running:
            client.queue(Down("cannot reach the broker"))
            return
        rules: Sequence[Rule] | None = _EVERYTHING
        if self._authorise is not None:
            rules = self._authorise(*client.credentials)
        if rules is None:
            client.queue(Down("the broker refused the connection: Not authorized"))
            return
        refused = [topic for topic in client.subscriptions if not allows(rules, Access.READ, topic)]
        if refused:
            client.queue(Down(f"the broker refused the subscription to {', '.join(refused)}"))
            return
        client.go_up(rules)
        for topic, payload in self._retained.items():
            if client.listens_to(topic):
                client.queue(Message(topic, payload, retain=True))

    def _route_all(self) -> None:
        while self._wire:
            sent = self._wire.popleft()
            if sent.author is None or allows(sent.author.rules, Access.WRITE, sent.topic):
                self._route(sent)
            if sent.author is not None:
                sent.author.acknowledge(sent.token)

    def _route(self, sent: _Sent) -> None:
        if sent.retain and sent.payload:
            self._retained[sent.topic] = sent.payload
        elif sent.retain:
            self._retained.pop(sent.topic, None)
        for client in self._clients:
            if client.connected and client.listens_to(sent.topic):
                client.queue(Message(sent.topic, sent.payload))


_EVERYTHING: Sequence[Rule] = ((Access.READ, "#"), (Access.WRITE, "#"))


class MemoryTransport:
    """The transport port over a `MemoryBroker`. Made by `MemoryBroker.transport`."""

    def __init__(
        self,
        broker: MemoryBroker,
        credentials: tuple[str, str],
        subscriptions: Sequence[str],
        presence: Presence | None,
        max_outgoing_bytes: int,
    ) -> None:
        self.credentials = credentials
        self.subscriptions = tuple(check_filter(topic_filter) for topic_filter in subscriptions)
        self.presence = presence
        self.rules: Sequence[Rule] = ()
        self._broker = broker
        self._max_outgoing_bytes = max_outgoing_bytes
        self._listener: Listener | None = None
        self._events: deque[Event] = deque()
        self._open: dict[int, int] = {}
        self._tokens = 0
        self._connected = False
        self._stopped = False

    @property
    def connected(self) -> bool:
        """True from `Up` to the next `Down`."""
        return self._connected

    @property
    def protocol(self) -> str:
        """See the port."""
        return "memory" if self._listener is not None else ""

    def refusals(self) -> tuple[Seen, ...]:
        """See the port. This broker refuses in silence, as one of MQTT 3.1.1 does."""
        return ()

    def refused_totals(self) -> dict[str, int]:
        """See the port."""
        return {}

    def start(self, listener: Listener) -> None:
        """See the port. Connects at the broker's next pump."""
        if self._listener is not None:
            raise TransportError("The transport was started before.")
        self._listener = listener
        self._broker.join(self)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, extra: Extra = PLAIN) -> int:
        """See the port."""
        check_topic(topic)
        if self._listener is None or self._stopped:
            raise TransportError("The transport is not running.")
        self._tokens += 1
        if not self._connected:
            self.queue(Dropped(self._tokens, "not connected"))
        elif sum(self._open.values()) + len(payload) > self._max_outgoing_bytes:
            self.queue(Dropped(self._tokens, "no room: too many bytes wait for the broker"))
        else:
            self._open[self._tokens] = len(payload)
            self._broker.send(_Sent(self, self._tokens, topic, bytes(payload), retain))
        return self._tokens

    def restart(self) -> None:
        """See the port."""
        self.lose("restarted")

    def stop(self, timeout_s: float = 5.0) -> None:
        """See the port. The farewell and what was sent before are still routed at the next pump."""
        if self._stopped or self._listener is None:
            self._stopped = True
            return
        if self._connected and self.presence is not None and self.presence.farewell is not None:
            self._announce(self.presence.topic, self.presence.farewell)
        self._end("stopped")
        for event in self.take_events():
            self.deliver(event)
        self._stopped = True
        self._broker.leave(self)

    def lose(self, reason: str) -> None:
        """Break the line, as a pulled cable does: the broker publishes the will."""
        if self._connected:
            if self.presence is not None and self._broker.running:
                self._announce(self.presence.topic, self.presence.will)
            self._end(reason)

    # --- for the broker of this module

    def queue(self, event: Event) -> None:
        """Remember an event for the next delivery."""
        self._events.append(event)

    def take_events(self) -> list[Event]:
        """The events that wait, once."""
        events = list(self._events)
        self._events.clear()
        return events

    def deliver(self, event: Event) -> None:
        """Hand one event to the listener."""
        if self._listener is not None and not self._stopped:
            self._listener(event)

    def listens_to(self, topic: str) -> bool:
        """Whether a subscription matches and the rules allow it."""
        return any(matches(f, topic) for f in self.subscriptions) and allows(self.rules, Access.READ, topic)

    def go_up(self, rules: Sequence[Rule]) -> None:
        """The broker let this client in."""
        self.rules = rules
        self._connected = True
        if self.presence is not None:
            self._announce(self.presence.topic, self.presence.birth)
        self.queue(Up())

    def acknowledge(self, token: int) -> None:
        """The broker took this token; of an older connection's token nobody wants to know."""
        if self._open.pop(token, None) is not None:
            self.queue(Published(token))

    def _announce(self, topic: str, payload: bytes) -> None:
        if allows(self.rules, Access.WRITE, topic):
            self._broker.send(_Sent(None, 0, topic, payload, True))

    def _end(self, reason: str) -> None:
        self._connected = False
        for token in self._open:
            self.queue(Dropped(token, reason))
        self._open.clear()
        self.queue(Down(reason))
