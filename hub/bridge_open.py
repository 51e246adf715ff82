"""Puts the bridge together from its settings: where the parts that know Kafka meet those that do not."""

from __future__ import annotations

from collections.abc import Callable

from hub.bridge import Bridge
from hub.bridge_config import Bridge as BridgeConfig
from hub.bridge_desk import BridgeDesk
from hub.bridge_topics import PROJECTED


def bridge_of(config: BridgeConfig, wake: Callable[[], None]) -> Bridge | None:
    """The bridge that a hub is configured to have; None: it applies to the central store itself. Errors: ConfigError."""
    if not config.kafka:
        return None
    from hub.kafka import Access, KafkaSender, quiet  # a hub without Kafka does not load its library

    quiet()
    access = Access(config)
    return Bridge(lambda: KafkaSender(access, PROJECTED), lambda bridge: BridgeDesk(bridge.offer, config.produce_again_s * 1_000), wake)
