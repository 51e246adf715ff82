"""The transport port: how a core's bytes reach a broker and come back. Lossy by contract, and honest about it.

A transport connects by itself, again and again, with jittered back-off. It queues nothing that it could lose in silence: each publish
gets a token at once, and each token ends in exactly one `Published` or `Dropped`. `Published` means that the broker took the bytes,
nothing more (reliability.md: a broker's word frees nothing). `Dropped` means that nobody knows: the core sends again what is not
receipted.

Sessions are clean and client ids random (sync.md, rule 17): who is there is decided by credentials, not by a name that a clone shares.

One suite, `tests/conformance/transport/`, says all of this in code, and every implementation passes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from protocols.transport.refusals import Refusal, Seen


@dataclass(frozen=True, slots=True)
class Extra:
    """What goes beside the bytes where a line can carry it (MQTT 5), and is left out where not: nothing may depend on it.

    `expiry_s`: nobody wants it any more after so long in a broker. `traceparent`: trace context, see `protocols.trace`.
    """

    expiry_s: int | None = None
    traceparent: str = ""


PLAIN: Final = Extra()


@dataclass(frozen=True, slots=True)
class Up:
    """Connected, and the broker granted every subscription. The core says hello now."""


@dataclass(frozen=True, slots=True)
class Down:
    """A connection ended, or an attempt at one failed; another follows by itself. `reason` is for people and logs. `refusal`: what
    the other end refused, where it is known to have refused something."""

    reason: str
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """Bytes on a subscribed topic, unchecked: of any size, doubled, late. `retain`: stored by the broker before this connection.
    `traceparent`: what the sender's `Extra` said, if it came along."""

    topic: str
    payload: bytes
    retain: bool = False
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """The broker acknowledged this token (QoS 1), or its bytes left the process (QoS 0)."""

    token: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """The bytes of this token may or may not have arrived, and nobody will try again. Not connected, lost, refused, or no room.

    `refusal`: the other end refused these very bytes. Of what is too large for it `payload` holds them, so that it can be cut.
    """

    token: int
    reason: str
    refusal: Refusal | None = None
    payload: bytes = b""


Event = Up | Down | Message | Published | Dropped
Listener = Callable[[Event], None]
"""Called from the transport's own thread, one event at a time. It hands the event over and returns: no work, no blocking, no raising."""


@dataclass(frozen=True, slots=True)
class Presence:
    """What a retained topic says about this client. Each text carries the epoch of its author, or nobody should believe it.

    `birth` is published at every `Up`; `will` by the broker when the line breaks; `farewell`, if any, by `stop`.
    """

    topic: str
    birth: bytes
    will: bytes
    farewell: bytes | None = None


class Transport(Protocol):
    """A line to one broker. Subscriptions, credentials and presence are given at construction, and renewed at every connect."""

    @property
    def connected(self) -> bool:
        """True from `Up` to the next `Down`."""
        ...

    @property
    def protocol(self) -> str:
        """What is spoken on the line, for people: `MQTT 5`, `MQTT 3.1.1`, `HTTP`; empty before the first `Up`."""
        ...

    def refusals(self) -> Sequence[Seen]:
        """What the other end refuses now, the latest last."""
        ...

    def refused_totals(self) -> Mapping[str, int]:
        """How often something was refused since the start, by the value of `Refusal`."""
        ...

    def start(self, listener: Listener) -> None:
        """Begin to connect, and return at once. Raises TransportError if it was started before."""
        ...

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, extra: Extra = PLAIN) -> int:
        """Hand over bytes and return a token at once; its fate follows as an event, in the transport's own thread.

        Never blocks and never waits for a connection. Order is kept per topic. Raises TransportError if not started or stopped.
        """
        ...

    def restart(self) -> None:
        """Tear the connection down and build a new one without back-off: what is done about a stall (reliability.md, rule 8)."""
        ...

    def stop(self, timeout_s: float = 5.0) -> None:
        """Say goodbye (farewell, clean disconnect), end the thread, and wait for it. What was not acknowledged is `Dropped`.

        Idempotent. No event follows its return. Raises TransportError if the thread has not ended in time.
        """
        ...
