"""The embedded broker as the hub sees it, whatever process it lives in: values and the port. Imports nothing of MQTT."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Final, Protocol

from hub.broker_access import HUB_USER, Door
from hub.broker_listen import listen, tls_context
from protocols.errors import ConfigError

NODES: Final = "nodes"
HUB: Final = "default"
"""the two listeners; the library wants one of that name"""


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Where nodes connect. `port` 0 takes a free one. Beyond loopback `cert_file` and `key_file` (PEM) are required.
    Errors: ConfigError."""

    host: str = "127.0.0.1"
    port: int = 1883
    cert_file: str | None = None
    key_file: str | None = None
    max_connections: int = 4_096

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigError("The broker has only one of certificate and key.", remedy="Set both files, or neither.")


@dataclass(frozen=True, slots=True)
class HubAccess:
    """How the hub itself connects: plain MQTT on loopback. Valid until the broker stops."""

    host: str
    port: int
    username: str
    password: str


@dataclass(slots=True)
class BrokerCounts:
    """Totals since the start, for metrics."""

    logins_total: int = 0
    refused_total: int = 0
    denied_publish_total: int = 0
    denied_subscribe_total: int = 0
    oversized_total: int = 0
    dropped_total: int = 0

    def plus(self, other: BrokerCounts) -> BrokerCounts:
        """Both together."""
        return BrokerCounts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


class AtDoorway:
    """Where a broker listens, for both kinds; an error before it starts and after it stops."""

    _doorway: Doorway | None = None

    @property
    def port(self) -> int:
        """See the port."""
        assert self._doorway is not None, "the broker is not running"
        return self._doorway.port(NODES)

    @property
    def hub_access(self) -> HubAccess:
        """See the port."""
        assert self._doorway is not None, "the broker is not running"
        return self._doorway.access()


class HubBroker(Protocol):
    """A broker of the hub's own. For one event loop; may be started and stopped many times."""

    door: Door

    @property
    def counts(self) -> BrokerCounts:
        """Totals since it was made."""

    @property
    def port(self) -> int:
        """The port where nodes connect, while running."""

    @property
    def hub_access(self) -> HubAccess:
        """How the hub connects, while running. The secret is made at each start."""

    @property
    def connections(self) -> int:
        """Sockets that are open now, the hub's included."""

    def prepare(self) -> None:
        """Begin with what takes time and needs nobody. Errors: those of `start`."""

    async def start(self) -> None:
        """Listen. Errors: ConfigError (in one line, for people): port, host or certificate cannot be used."""

    async def told(self) -> None:
        """Return when whoever was admitted until now is let in."""

    async def stop(self) -> None:
        """Close every connection and both listeners. Idempotent."""


@dataclass(frozen=True, slots=True)
class Doorway:
    """What a broker listens on (`NODES`, `HUB`), and the hub's password."""

    sockets: Mapping[str, socket.socket]
    secret: str

    def port(self, name: str) -> int:
        """Of one of the listeners."""
        return int(self.sockets[name].getsockname()[1])

    def access(self) -> HubAccess:
        """For the hub's own line."""
        return HubAccess("127.0.0.1", self.port(HUB), HUB_USER, self.secret)

    def close(self) -> None:
        """Nobody comes in any more."""
        for sock in self.sockets.values():
            sock.close()


def open_doorway(settings: BrokerSettings) -> Doorway:
    """Both listeners. Errors: ConfigError, in one line for people; a certificate that cannot be used is one."""
    tls = tls_context(settings.cert_file, settings.key_file)
    nodes = listen(settings.host, settings.port, tls)
    return Doorway({NODES: nodes, HUB: listen("127.0.0.1", 0, None)}, secrets.token_urlsafe(32))
