"""Section [bridge] of `hub.toml`: whether facts go to the central store over Kafka, and how that is reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protocols.errors import ConfigError
from protocols.settings import Setting

SASL: Final = ("sasl_plaintext", "sasl_tls")
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
SETTINGS: Final = (
    Setting(
        "bridge",
        "kind",
        "none",
        "How facts get to the central store: by this process, or over Kafka and any number of `longshore-hub project`.",
        allowed=("none", "kafka"),
    ),
    Setting("bridge", "servers", "127.0.0.1:9092", "Kafka brokers to begin with, as host:port, with commas between them."),
    Setting("bridge", "security", "plaintext", "How Kafka is spoken to. Beyond this machine use tls.", allowed=("plaintext", "tls", *SASL)),
    Setting("bridge", "mechanism", "PLAIN", "Of SASL.", allowed=MECHANISMS),
    Setting("bridge", "username", "", "Of this hub at Kafka, where security is one of sasl."),
    Setting("bridge", "password_file", "", "Holds its password.", path=True),
    Setting("bridge", "ca_file", "", "Authority (PEM) that signed the brokers' certificates, if not the system's.", path=True),
    Setting("bridge", "group", "longshore-projector", "The consumer group that projectors share."),
    Setting(
        "bridge",
        "produce_again_s",
        60,
        "A fact that Kafka acknowledged and the central store lacks after so long is produced again.",
        "seconds",
        least=1,
        most=86_400,
    ),
    Setting("bridge", "partitions", 6, "Of each topic, when it is made: as many projectors can share the work.", least=1, most=1_000),
    Setting("bridge", "replicas", 1, "Of each topic, when it is made; 3 where there are three brokers or more.", least=1, most=10),
    Setting("bridge", "retention_days", 7, "How long topics keep records, when they are made.", "days", least=1, most=3_650),
)


@dataclass(frozen=True, slots=True)
class Bridge:
    """Section [bridge]."""

    kind: str
    servers: str
    security: str
    mechanism: str
    username: str
    password_file: str
    ca_file: str
    group: str
    produce_again_s: int
    partitions: int
    replicas: int
    retention_days: int

    @property
    def kafka(self) -> bool:
        """Whether facts go over Kafka."""
        return self.kind == "kafka"

    @property
    def addresses(self) -> list[str]:
        """The brokers to begin with, each as host:port."""
        return [one.strip() for one in self.servers.split(",") if one.strip()]


def check(bridge: Bridge) -> None:
    """What only a look at several settings can tell. Errors: ConfigError."""
    if not bridge.kafka:
        return
    if not bridge.addresses:
        raise ConfigError("bridge.servers names no broker.", remedy="Write it like kafka-1:9092,kafka-2:9092.")
    for address in bridge.addresses:
        host, _, port = address.rpartition(":")
        if not host or not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65_535):
            raise ConfigError(f"bridge.servers: {address[:80]!r} is not host:port.", remedy="Write it like kafka-1:9092,kafka-2:9092.")
    given = [bool(bridge.username), bool(bridge.password_file)]
    if given != [bridge.security in SASL] * 2:
        remedy = "Set both for sasl_plaintext or sasl_tls, and neither otherwise."
        raise ConfigError(f"bridge.username and bridge.password_file do not fit security {bridge.security!r}.", remedy=remedy)
