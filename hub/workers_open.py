"""A hub's worker, put together: where its leases are, and what it asks of the running hub."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from hub.leasing import LeaseSettings
from hub.line import Line
from hub.registry import Node
from hub.stores import open_leases
from hub.worker_claims import Claims, Place
from hub.workers import Hooks, Workers, mono_ms
from protocols.transport.port import Transport
from protocols.trust import NodeCard

if TYPE_CHECKING:
    from hub.runtime import Hub

log = logging.getLogger(__name__)
LINE_UP_S: Final = 5.0


def workers_of(hub: Hub, clock_ms: Callable[[], int]) -> Workers | None:
    """The worker that this process is; None where it serves all nodes by itself."""
    config = hub.config.workers
    if not config.several:
        return None

    async def nodes() -> list[tuple[Node, str]]:
        return await hub.engine.do(lambda core, _: core.registry.with_mosquitto())

    async def admit(card: NodeCard, orgs: Sequence[str]) -> None:
        await hub.take_in(card, orgs)

    async def changed(taken: bool) -> None:
        await hub.engine.do(lambda core, _: core.hands_changed(taken=taken))
        hub.reading.ask()

    def claim(fences: Mapping[int, int]) -> None:
        if hub.claims is not None:
            hub.claims.say(fences)

    place = f"{hub.config.api.host}:{{}}"
    settings = LeaseSettings(config.partitions, config.lease_s * 1_000)
    hooks = Hooks(lambda: open_leases(hub.config, clock_ms), nodes, admit, changed, claim)
    return Workers(config.name, lambda: place.format(hub.api_port), settings, hooks)


def claims_for(hub: Hub) -> Claims | None:
    """Where the worker that this process is says what it holds; None where it serves all nodes by itself."""
    workers = hub.workers
    if workers is None:
        return None
    leasing = workers.leasing
    place = Place(hub.config.hub.org, hub.config.hub.node, hub.key, leasing.me)
    return Claims(place, lambda: leasing.held(mono_ms()), workers.claimed, mono_ms)


@contextlib.asynccontextmanager
async def working(hub: Hub) -> AsyncIterator[None]:
    """While this lasts a worker makes its rounds; at the end it gives everything back. Errors: ConfigError: its settings do not fit."""
    workers, claims = hub.workers, hub.claims
    if workers is None or claims is None:
        yield
        return
    await workers.open()
    claims.start(hub.transport)
    reading = asyncio.create_task(hub.reading.run(), name="reading")
    rounds = asyncio.create_task(workers.run(), name="workers")
    try:
        yield
    finally:
        workers.stop()
        await rounds
        reading.cancel()
        await reading
        await claims.stop()


class Reading:
    """What this process reads at the broker: the topics of the nodes that it serves. Where that changes a new line is made, and the old one
    let go when the new one is up: what is said meanwhile comes on both."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._wanted = asyncio.Event()
        self._now: tuple[str, ...] = ()

    def ask(self) -> None:
        """Something changed: look again."""
        self._wanted.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                await self._look()

    async def _look(self) -> None:
        hub = self._hub
        assert hub.workers is not None
        topics = hub.workers.subscriptions(await hub.engine.do(lambda core, _: core.registry.all()))
        if topics == self._now:
            return
        log.info("reads %d topics", len(topics))
        await self._swap(hub.transport(topics))
        self._now = topics

    async def _swap(self, transport: Transport) -> None:
        line = Line(transport, self._hub.heard)
        line.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINE_UP_S):  # `wait_for` loses the cancellation that meets the line's coming up
                await line.up.wait()
        old, self._hub.line = self._hub.line, line
        if old is not None:
            await old.stop()
