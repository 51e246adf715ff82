"""What the workers of a hub share, for commands that look at files: the table of leases, and the register of admitted nodes.

A worker that runs keeps itself up to date. A command at one that is stopped finds only what that worker knew when it ended, so it asks the
shared register too: what is admitted at any worker, running or not, is admitted at all.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from hub import workers_config
from hub.config import HubConfig
from hub.core import HubCore
from hub.store.leases import Leases, SharedNode
from hub.stores import open_leases
from hub.workers import table_json
from protocols.errors import InvalidInput
from protocols.trust import NodeCard


def workers_in_files(config: HubConfig) -> dict[str, Any]:
    """As `GET /v1/workers`, where this worker does not run: it holds nothing. Errors: ConfigError, LedgerError: the store is away."""
    if not config.workers.several:
        return table_json(None, "", 0, ())
    if not _made(config):
        return table_json(None, config.workers.name, 0, ())
    with _leases(config) as leases:
        return table_json(leases.read(), config.workers.name, 0, ())


def shared_nodes(config: HubConfig) -> list[SharedNode]:
    """Every node that any worker admitted, in the order of its last change; none where one process serves all. Errors: ConfigError,
    LedgerError: the store is away."""
    if not config.workers.several or not _made(config):
        return []
    with _leases(config) as leases:
        found: list[SharedNode] = []
        more, reached = leases.nodes_since(0)
        while more:
            found += more
            more, reached = leases.nodes_since(reached)
        return found


def take_in_register(config: HubConfig, core: HubCore, now_ms: int) -> None:
    """Inside a transaction of the core of a worker that does not run: nodes that others admitted meanwhile. Errors: ConfigError,
    LedgerError."""
    for one in shared_nodes(config):
        card = NodeCard(one.node, one.org, one.region, one.site, one.public_key, one.password_hash, one.mosquitto_hash, one.staff)
        with contextlib.suppress(InvalidInput):  # its name or key is another's here, which a worker that runs says in its log
            core.take_card(card, now_ms, one.orgs)


def tell_register(config: HubConfig, card: NodeCard, orgs: Sequence[str], now_ms: int) -> None:
    """A node was admitted at a worker that does not run: the others are told. Errors: InvalidInput: name or key is another's there;
    ConfigError, LedgerError: nobody was told."""
    if config.workers.several:
        place = card.org, card.region, card.site
        with _leases(config) as leases:
            leases.admit(
                SharedNode(card.node, card.public_key, *place, card.password_hash, card.mosquitto_hash, now_ms, tuple(orgs), card.staff)
            )


def _made(config: HubConfig) -> bool:
    return not config.store.sqlite or config.storage.path(workers_config.FILE).exists()


@contextlib.contextmanager
def _leases(config: HubConfig) -> Iterator[Leases]:
    leases = open_leases(config, lambda: time.time_ns() // 1_000_000)
    try:
        yield leases
    finally:
        leases.close()
