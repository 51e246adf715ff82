"""Opening the embedded broker that the configuration names: here, or in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hub.broker_port import BrokerSettings, HubBroker
from hub.config import Broker
from hub.grants import Grants


def apart(broker: Broker) -> bool:
    """Does the embedded broker run in a process of its own?"""
    if not broker.embedded:
        return False
    return broker.process == "own" or (broker.process == "auto" and len(os.sched_getaffinity(0)) > 1)


def broker_of(broker: Broker, grants: Grants, holds: Sequence[int] = ()) -> HubBroker | None:
    """The hub's own broker, not yet started; None where it is elsewhere. `holds`: descriptors for a process of its own."""
    if not broker.embedded:
        return None
    settings = BrokerSettings(broker.host, broker.port, broker.cert_file or None, broker.key_file or None, broker.max_connections)
    if apart(broker):
        from hub.broker_apart import ApartBroker

        return ApartBroker(settings, grants, holds=holds)
    from hub.broker import EmbeddedBroker  # here, because the library takes memory and time that other hubs do not need

    return EmbeddedBroker(settings, grants.get)
