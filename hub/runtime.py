"""The hub as it runs: data directory, broker, line, loop, HTTP; started in that order and stopped in the other. See `engine` for the loop.

This is where the clock, sockets, threads and chance live. Everything decided stands in `hub.core` and `hub.store`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any, Final, TypeVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hub.api import create_app
from hub.backup_register import Register, open_store, register_of
from hub.bridge import Bridge, status, troubles
from hub.bridge_open import bridge_of
from hub.broker_access import NodeGrant
from hub.broker_port import HubBroker
from hub.brokers import broker_of
from hub.claims import listen, locked, make_folder
from hub.config import LEDGER_FILE, LOCK_FILE, PORTS_FILE, HubConfig, hub_address
from hub.core import HubCore, HubIdentity, HubSettings
from hub.engine import Engine, Ports, Rhythm
from hub.facade import Metric
from hub.feed import Sampler
from hub.fleet import node_json
from hub.freshness import Freshness
from hub.grants import Grants
from hub.holding import HOLD_MS
from hub.ledger_file import open_ledger
from hub.line import Line, down_because, external_line, inside_line, password_of, says_online, weakness_of
from hub.metrics import samples
from hub.post import Post
from hub.readers import Readers
from hub.registry import Node
from hub.store.port import Applied, CentralStore, Change
from hub.stores import Patient, apart, open_reader
from hub.stream import Feed
from hub.times import Shifts
from hub.views import Balance, FleetRow
from hub.worker_claims import Claims
from hub.workers import Workers, table_json
from hub.workers_open import Reading, claims_for, workers_of, working
from protocols.backup import refuse_half_restored
from protocols.errors import InvalidInput, LongshoreError
from protocols.event import EventDefaults, OrderEvent
from protocols.heads import bounded
from protocols.kernel_clock import KernelClock
from protocols.ledger import Appended
from protocols.supervision import Progress, supervised
from protocols.topics import Address, Channel, hub_subscriptions, node_acl, parse_topic
from protocols.transport.mqtt import MqttTransport
from protocols.transport.port import Message, Transport
from protocols.trust import NodeCard, NodeKey, parse_card, token_matches, verify

log = logging.getLogger(__name__)
T = TypeVar("T")
_KERNEL: Final = KernelClock()

LINE_UP_S: Final = 10.0
STOP_S: Final = 5.0
STUCK_S: Final = 600.0
"""an engine that ends no turn for so long is not alive: it idles for a second, and asks a store that is away within its own time"""
_UP: Final = (Channel.LIVE, Channel.BACKFILL, Channel.CONTROL)


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


def kernel_synchronised() -> bool | None:
    """Whether something keeps this machine's clock in step; None: the kernel does not say."""
    return _KERNEL.synchronised(time.monotonic_ns() // 1_000_000)


class Hub:
    """A running hub; what `hub.api` asks of it (`HubFacade`) is here. Use `running`."""

    def __init__(self, config: HubConfig, holds: Sequence[int] = ()) -> None:
        """Reads key and token; opens nothing yet. `holds`: descriptors that a process of ours holds as long as it writes, too. Errors:
        ConfigError."""
        self.config = config
        self.key = NodeKey.load(config.key_file)
        self._policies = config.policies()
        self.started_ms: int = now_ms()
        self.feed: Feed = Feed(boot=secrets.token_hex(4))
        self._grants = Grants()
        self.broker: HubBroker | None = broker_of(config.broker, self._grants, holds)
        self.line: Line | None = None
        self.freshness = Freshness()
        self.api_port = 0
        self._token_hashes = config.api.token_hashes.split()
        self._sampler = Sampler(self.feed)
        self.post: Post = Post(self._grants.get, lambda node, payload: self.engine.came(node, payload), self._full, self._turn_away)
        self._more: asyncio.TimerHandle | None = None
        self._left_ms: dict[str, int] = {}
        in_this_process = config.store.sqlite and not apart(config)
        self._opener = Patient(lambda: open_store(config, now_ms, self._policies, holds=holds), at_once=in_this_process)
        self._readers = Readers(lambda: open_reader(config, self._policies))
        self.bridge: Bridge | None = bridge_of(config.bridge, lambda: self.engine.touched())
        desk = self.bridge.desk if self.bridge is not None else None
        self.engine: Engine = Engine(
            Ports(
                self._open_core, self._opener, self._publish, self._applied, now_ms, self._left_ms.get, kernel_synchronised,
                beside=not in_this_process, desk=desk,
            ),
            _rhythm(config),
        )  # fmt: skip
        self.workers: Workers | None = workers_of(self, now_ms)
        self.claims: Claims | None = claims_for(self)
        self.reading = Reading(self)

    # ------------------------------------------------------------ what the engine works with

    def _open_core(self) -> HubCore:
        hub = self.config.hub
        identity = HubIdentity(hub.org, hub.region, hub.node, self.key.public)
        storage = self.config.storage
        settings = HubSettings(
            credit_facts=self.config.sync.credit_facts,
            budget_bytes=storage.budget_bytes,
            pressure_percent=storage.pressure_percent,
            floor_ms=storage.floor_days * 86_400_000,
            hold_ms=HOLD_MS,
        )
        refuse_half_restored(Path(self.config.storage.data_dir))
        db = open_ledger(self.config.storage.path(LEDGER_FILE))
        try:
            core = HubCore(db, identity, self.key.sign, verify, SystemRandom(), settings)
        except LongshoreError:
            db.close()
            raise
        self._grants.replace({node.address.node: _grant(node) for node in core.registry.all()})
        core.serving.only = self._serves if self.workers is not None else None
        return core

    def _serves(self, address: Address) -> bool:
        """From any thread: is it this worker that speaks to a node? Who comes here over HTTP is answered here."""
        return self.workers is None or self.workers.serves(address) or self.post.comes(address.node)

    def _turn_away(self, name: str, why: str) -> None:
        if self.broker is not None:
            self.broker.door.refuse(name, f"{why} (HTTP)", now_ms())

    def _full(self) -> bool:
        return self.engine.seen.ledger_bytes >= self.config.storage.budget_bytes

    def _publish(self, topic: str, payload: bytes) -> None:
        self.post.published(topic, payload)
        if self.line is not None:
            self.line.publish(topic, payload)

    def _applied(self, applied: Applied) -> None:
        self.freshness.took(applied.received, now_ms())
        self._show(applied.changes, applied.untold)

    def _show(self, changes: Sequence[Change], untold: int = 0) -> None:
        """On the live feed; what did not fit is counted there, also when nothing follows."""
        self._sampler.publish(changes, now_ms(), untold)
        due_ms = self._sampler.due_ms()
        if due_ms is not None and self._more is None:
            self._more = asyncio.get_running_loop().call_later(max(due_ms - now_ms(), 0) / 1_000, self._show_more)

    def _show_more(self) -> None:
        self._more = None
        self._show(())

    def heard(self, message: Message) -> None:
        """The broker brings something."""
        try:
            address, channel = parse_topic(message.topic)
        except InvalidInput:
            return
        if self.workers is not None and not self.workers.serves(address):
            return  # another worker's, that comes late
        if channel in _UP:
            self.engine.came(address.node, message.payload)
        elif channel is Channel.STATE:
            self._note_state(address.node, message.payload)

    def _note_state(self, node: str, payload: bytes) -> None:
        """Birth and will only colour the fleet page: what counts is what a node signs."""
        if says_online(payload):
            self._left_ms.pop(node, None)
        elif node in self._grants:
            self._left_ms[node] = now_ms()
        self.engine.touched()

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Open everything. Errors: ConfigError, LedgerError."""
        if self.broker is not None:
            self.broker.prepare()
        core = await self.engine.open()
        log.info("%d nodes admitted, %d streams", len(core.registry.all()), len(core.ledger.log.all()))
        for found in self.engine.seen.findings:
            log.warning("%s", found)
        if self.bridge is not None:
            self.bridge.start()
        if self.broker is not None:
            await self.broker.start()
        self.line = Line(self.transport(hub_subscriptions() if self.workers is None else ()), self.heard)
        self.line.start()

    def transport(self, subscriptions: Sequence[str]) -> Transport:
        """A line to the broker that reads these topics."""
        broker = self.config.broker
        if self.broker is not None:
            return MqttTransport(inside_line(self.broker.hub_access), subscriptions=subscriptions)
        password = password_of(broker)
        if weak := weakness_of(password):
            log.warning("broker.password_file: %s; choose a longer one: openssl rand -base64 24", weak)
        return MqttTransport(external_line(broker, password), subscriptions=subscriptions)

    async def stop(self) -> None:
        """Let go of everything, the files last. Idempotent."""
        self.feed.close()
        self.post.close()
        if self._more is not None:
            self._more.cancel()
        if self.line is not None:
            await self.line.stop()
        if self.broker is not None:
            await self.broker.stop()
        if self.bridge is not None:
            await self.bridge.stop()
        await self.engine.close()
        self._opener.close()
        self._readers.close()

    @property
    def broker_port(self) -> int:
        """Where edges connect."""
        return self.broker.port if self.broker is not None else self.config.broker.port

    @property
    def address(self) -> str:
        """What edges are given."""
        return hub_address(self.config, self.key.public, self.broker_port)

    # ------------------------------------------------------------ HubFacade

    @property
    def store(self) -> CentralStore:
        """See `HubFacade`."""
        return self._readers

    @property
    def defaults(self) -> EventDefaults:
        """See `HubFacade`."""
        return EventDefaults(self.config.hub.org, self.config.hub.region, None)

    @property
    def https(self) -> bool:
        """See `HubFacade`."""
        return self.config.api.https

    def now_ms(self) -> int:
        """See `HubFacade`."""
        return now_ms()

    def check_token(self, token: str | None, client_is_loopback: bool) -> bool:
        """See `HubFacade`."""
        if token is None:
            return client_is_loopback and self.config.api.loopback_without_token
        return any(token_matches(token, known) for known in self._token_hashes)

    async def append(self, events: list[OrderEvent]) -> Sequence[Appended]:
        """See `HubFacade`."""
        return await self.engine.append(events)

    async def do(self, work: Callable[[HubCore, int], T], *, writes: bool = False) -> T:
        """See `HubFacade`."""
        return await self.engine.do(work, writes=writes)

    async def admit(self, card: object, orgs: Sequence[str] | None = None) -> dict[str, Any]:
        """See `HubFacade`."""
        read = parse_card(card)
        if self.workers is not None:
            others = await self.engine.do(lambda core, _: core.registry.orgs_for(read, orgs))
            await self.workers.admit(read, others, now_ms())
        return node_json(await self.take_in(read, orgs))

    async def take_in(self, card: NodeCard, orgs: Sequence[str] | None) -> Node:
        """Admit a node to this process. Errors: InvalidInput (taken), LedgerError."""
        node = await self.engine.admit(card, orgs)
        self._grants.put(node.address.node, _grant(node))
        if self.broker is not None:
            await self.broker.told()
            self.broker.door.enter(node.address.node)
        self.reading.ask()
        return node

    async def with_register(self, work: Callable[[Register], T]) -> T:
        """See `HubFacade`."""
        return await self.engine.with_store(lambda store: work(register_of(self.config, store, now_ms())))

    def nodes(self) -> list[dict[str, Any]]:
        """See `HubFacade`."""
        return self.engine.seen.nodes

    def fleet(self) -> list[FleetRow]:
        """See `HubFacade`."""
        return self.engine.seen.fleet

    def shifts(self) -> Shifts:
        """See `HubFacade`."""
        return self.engine.seen.shifts

    def balance(self) -> Balance:
        """See `HubFacade`."""
        return self.engine.seen.balance

    def gaps(self) -> dict[str, Any]:
        """See `HubFacade`."""
        return self.engine.seen.gaps

    def refused(self) -> list[dict[str, Any]]:
        """See `HubFacade`."""
        return self.engine.seen.refused

    def turned_away(self) -> list[dict[str, Any]]:
        """See `HubFacade`."""
        return self.broker.door.turned_away() if self.broker is not None else []

    def workers_json(self) -> dict[str, Any]:
        """See `HubFacade`."""
        return self.workers.as_json() if self.workers is not None else table_json(None, "", 0, ())

    def quarantined(self) -> list[dict[str, Any]]:
        """See `HubFacade`."""
        return self.engine.seen.quarantined

    def health(self) -> dict[str, Any]:
        """See `HubFacade`."""
        reasons = self.engine.troubles()
        if self.line is None or not self.line.connected:
            reasons.append(down_because(self.line))
        reasons += self.workers.troubles() if self.workers is not None else []
        reasons += troubles(self.bridge)
        unclaimed = self.claims.finding() if self.claims is not None else ""
        said = {"ready": not reasons, "reasons": reasons, "findings": [*self.engine.seen.findings, *([unclaimed] if unclaimed else [])]}
        line = self.line.status() if self.line is not None else None
        return {**said, "line": line, "bridge": status(self.bridge, now_ms())}

    def metrics(self) -> Iterable[Metric]:
        """See `HubFacade`."""
        return samples(self)

    @property
    def unshown_total(self) -> int:
        """Changes that the live feed only counted."""
        return self._sampler.unshown_total


def _rhythm(config: HubConfig) -> Rhythm:
    follow_s = config.workers.follow_s if config.workers.several else 0
    return Rhythm(config.sync.store_check_s * 1_000, config.sync.offline_after_s * 1_000, follow_s * 1_000)


def _grant(node: Node) -> NodeGrant:
    return NodeGrant(node.password_hash, node_acl(node.address))


# ------------------------------------------------------------------ one process


class Server(uvicorn.Server):
    """uvicorn without its own signal handling: the hub stops in its own order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to `serve`."""
        yield


@contextlib.asynccontextmanager
async def running(config: HubConfig) -> AsyncIterator[Hub]:
    """A hub from its lock to its last byte: yields once it listens and its line is up. Errors: ConfigError, LedgerError."""
    make_folder(Path(config.storage.data_dir))
    async with contextlib.AsyncExitStack() as undo:
        lock = await locked(config.storage.path(LOCK_FILE))
        undo.callback(lock.release)
        listener = listen(config.api.host, config.api.port)
        undo.callback(listener.close)
        hub = Hub(config, (lock.fileno(),))
        undo.push_async_callback(hub.stop)
        await hub.start()
        hub.api_port = int(listener.getsockname()[1])
        loop = asyncio.create_task(hub.engine.run(), name="engine")
        undo.push_async_callback(_ended, loop, hub.engine.stop)
        server = Server(_server_config(hub))
        http = asyncio.create_task(server.serve(sockets=[listener]), name="http")
        undo.push_async_callback(_ended, http, lambda: _end_http(hub, server))
        await undo.enter_async_context(working(hub))
        await _until_ready(hub, server, loop, http)
        undo.callback(_note_ports(hub).unlink, missing_ok=True)
        yield hub


def _server_config(hub: Hub) -> uvicorn.Config:
    config = uvicorn.Config(
        create_app(hub, max_held_bytes=hub.config.api.max_held_bytes),
        http=bounded(HttpToolsProtocol),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=int(STOP_S),
    )
    config.load()
    return config


def _end_http(hub: Hub, server: Server) -> None:
    """Open streams and long polls end first, or the server would wait for them."""
    hub.feed.close()
    hub.post.hush()
    server.should_exit = True


async def _ended(task: asyncio.Task[None], ask: Any) -> None:
    ask()
    await task


async def _until_ready(hub: Hub, server: Server, *tasks: asyncio.Task[None]) -> None:
    """Both ends listen, and the hub has its own line. A broker that is elsewhere may be away: the hub starts without it."""
    up = asyncio.create_task(hub.line.up.wait() if hub.line is not None else asyncio.sleep(0))
    await asyncio.wait([up, *tasks], timeout=LINE_UP_S if hub.broker is not None else 1.0, return_when=asyncio.FIRST_COMPLETED)
    if not up.done():
        up.cancel()
    for task in tasks:
        if task.done():
            task.result()
    while not server.started and not any(task.done() for task in tasks):  # noqa: ASYNC110 (uvicorn tells nobody)
        await asyncio.sleep(0.005)


async def serve(config: HubConfig, *, ready: Any, stop: asyncio.Event) -> None:
    """Run until `stop` is set. `ready(hub)` is called once it listens. Errors: ConfigError, LedgerError; what ends the loop is raised."""
    async with running(config) as hub:
        ready(hub)
        watch = asyncio.create_task(stop.wait())
        engine = next(task for task in asyncio.all_tasks() if task.get_name() == "engine")
        async with supervised(Progress(lambda: hub.engine.counts.turns_total, STUCK_S, time.monotonic)):
            await asyncio.wait([watch, engine], return_when=asyncio.FIRST_COMPLETED)
        watch.cancel()


def _note_ports(hub: Hub) -> Path:
    """For commands that ask a hub which took free ports. That it cannot be left (a full disk) keeps nothing from running."""
    path, noted = hub.config.storage.path(PORTS_FILE), {"api": hub.api_port, "broker": hub.broker_port, "address": hub.address}
    with contextlib.suppress(OSError):
        path.write_text(json.dumps(noted) + "\n", "utf-8")
    return path
