"""What a line over MQTT is told."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

from protocols.transport.tls import Known, client_context
from protocols.transport.versions import AUTO


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """Where the broker is and how to talk to it. Times in seconds.

    `version`: one of `versions.CHOICES`. `ca_file`: PEM of the authority to trust instead of the system's; `cert_file` and `key_file`: our
    own certificate, where the broker asks for one. `max_in_flight` messages may wait for the broker's acknowledgement (fewer where it says
    so), `receive_most` of its own for ours; `max_outgoing_bytes` bounds what waits for the broker together with what was handed over and
    not sent yet. A connection that stays up for `stable_s` resets the back-off. `wants_reader`: that nobody reads what we publish is wrong.
    """

    host: str
    port: int
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    version: str = AUTO
    keepalive_s: int = 30
    connect_timeout_s: float = 5.0
    answer_timeout_s: float = 10.0
    max_in_flight: int = 64
    receive_most: int = 64
    max_outgoing_bytes: int = 8_000_000
    backoff_min_s: float = 0.5
    backoff_max_s: float = 60.0
    stable_s: float = 10.0
    wants_reader: bool = False
    gather_s: float = 0.0
    """after little, what comes within this time is read at one go: for a line on which thousands say little each"""
    known_ms: Known | None = field(default=None, repr=False, compare=False)
    """what is known to have passed, for certificates where the system's clock is not set (`transport.tls`)"""

    def tls_context(self) -> ssl.SSLContext | None:
        """The TLS context that these settings ask for, if any. Raises ConfigError if a file cannot be read."""
        return client_context(self.ca_file, self.cert_file, self.key_file) if self.tls else None
