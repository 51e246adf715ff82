"""A whole edge in one process: lock, ledger, line to the hub and LAN API, put together from the configuration and taken apart again.

Everything that can keep an edge from running is found before anybody is told that it runs: the lock, the port, the key, the ledger.
A broker out of reach is none of that: capturing needs no link.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edge_agent import whereabouts
from edge_agent.api import create_app
from edge_agent.config import EdgeConfig
from edge_agent.counts import Bounds
from edge_agent.ledger_file import open_ledger
from edge_agent.runtime import EdgeRuntime, MakeTransport
from edge_agent.upkeep import Upkeep
from protocols.backup import refuse_half_restored
from protocols.errors import ConfigError
from protocols.heads import bounded
from protocols.sqlite import DataLock
from protocols.supervision import supervised
from protocols.topics import Channel
from protocols.transport.mqtt import MqttSettings, MqttTransport
from protocols.transport.port import Presence, Transport
from protocols.trust import NodeKey, read_secret, verify

if TYPE_CHECKING:
    from protocols.transport.http import HttpSettings

GC_THRESHOLDS: Final = (50_000, 20, 50)
"""a frame is made of thousands of values free of cycles: with Python's own, each is looked through several times while it is cut"""
GRACE_S: Final = 5
"""Requests under way at the end may take so long to finish."""
_BACKLOG: Final = 512


def make_runtime(config: EdgeConfig, version: str) -> EdgeRuntime:
    """The runtime that a configuration describes, not started. Errors: ConfigError (key, password, certificates)."""
    key = NodeKey.load(config.storage.key_file)
    bounds = Bounds(waiting_requests=config.api.max_waiting_requests)
    made: list[EdgeRuntime] = []

    def known_ms() -> int:
        return made[0].floor_ms if made else 0

    mqtt = transport_maker(config, replace(mqtt_settings(config), known_ms=known_ms), version) if not config.hub.url else None
    make = mqtt or http_maker(config)
    runtime = EdgeRuntime(
        config.storage.ledger_file,
        config.identity(version),
        key.sign,
        verify,
        settings=config.core_settings(),
        bounds=bounds,
        make_transport=make,
        open_db=open_ledger,
        upkeep=Upkeep(Path(config.storage.ledger_file), config.storage.ballast_bytes),
    )
    made.append(runtime)
    return runtime


def mqtt_settings(config: EdgeConfig) -> MqttSettings:
    """How this node speaks to its broker. Errors: ConfigError."""
    settings = MqttSettings(
        host=config.hub_address.host,
        port=config.hub_address.port,
        username=config.node.name,
        password=read_secret(config.storage.password_file, what="broker password").strip(),
        tls=config.hub_address.tls,
        ca_file=config.hub.ca_file or None,
        cert_file=config.hub.cert_file or None,
        key_file=config.hub.key_file or None,
        version=config.hub.mqtt,
        wants_reader=True,
        keepalive_s=config.hub.keepalive_s,
        backoff_max_s=float(config.hub.reconnect_most_s),
    )
    settings.tls_context()  # a certificate that cannot be read is told now, not at the first attempt
    return settings


def http_settings(config: EdgeConfig) -> HttpSettings:
    """How this node syncs over HTTP. Errors: ConfigError."""
    from protocols.transport.http import HttpSettings  # its library takes 8 MB: only who has no broker pays for it

    token = read_secret(config.hub.token_file, what="token").strip() if config.hub.token_file else ""
    settings = HttpSettings(
        config.hub.url.rstrip("/"),
        token=token,
        password="" if token else read_secret(config.storage.password_file, what="broker password").strip(),
        ca_file=config.hub.ca_file or None,
        backoff_max_s=float(config.hub.reconnect_most_s),
    )
    settings.tls_context()
    return settings


def http_maker(config: EdgeConfig) -> MakeTransport:
    """A line over HTTP: nobody hears of its end, so it says nothing of its beginning."""
    from protocols.transport.http import HttpTransport

    settings = http_settings(config)
    return lambda _epoch: HttpTransport(settings, config.address)


def transport_maker(config: EdgeConfig, settings: MqttSettings, version: str) -> MakeTransport:
    """A line that reads this node's own topics, and says on its `state` whether the node is there."""
    address = config.address

    def make(epoch: int) -> Transport:
        return MqttTransport(
            settings, subscriptions=address.subscriptions(), presence=presence(address.topic(Channel.STATE), epoch, version)
        )

    return make


def presence(topic: str, epoch: int, version: str) -> Presence:
    """Birth, will and farewell. Each carries the epoch, so that nobody takes the will of a clone or of a former self for this node's."""

    def text(state: str) -> bytes:
        return json.dumps({"state": state, "epoch": f"{epoch:x}", "version": version}).encode()

    return Presence(topic, text("online"), text("lost"), text("stopped"))


# ------------------------------------------------------------ sockets


def bind(host: str, port: int) -> socket.socket:
    """A listening socket for the API. Errors: ConfigError: in use, not allowed, no such address."""
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(
            f"api.host: {host} cannot be used: {error.strerror}.", remedy="Use 127.0.0.1, or an address of this machine."
        ) from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        remedy = "Stop what uses it, or set api.port (0 takes a free one)."
        raise ConfigError(f"Cannot listen on {host} port {port}: {error.strerror}.", remedy=remedy) from None
    sock.setblocking(False)
    return sock


def url_of(sock: socket.socket) -> str:
    """Where the API is, as others write it."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: this process has one place that ends it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(config: EdgeConfig, runtime: EdgeRuntime) -> _Server:
    api = config.api
    app: Any = create_app(
        runtime,
        config.defaults,
        token_hashes=api.token_hashes,
        loopback_without_token=api.loopback_without_token,
        max_held_bytes=api.max_held_bytes,
    )
    return _Server(
        uvicorn.Config(
            app,
            loop="none",
            http=bounded(HttpToolsProtocol),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_S,
            limit_concurrency=2 * api.max_waiting_requests,
            backlog=_BACKLOG,
        )
    )


# ------------------------------------------------------------ the process


async def serve(config: EdgeConfig, version: str, on_ready: Callable[[str], None]) -> None:
    """Run until SIGTERM or SIGINT. `on_ready` gets the URL once events are taken. Errors: ConfigError, LedgerError."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with running(config, version) as url:
        on_ready(url)
        async with supervised():
            await ended.wait()


@contextlib.asynccontextmanager
async def running(config: EdgeConfig, version: str) -> AsyncIterator[str]:
    """An edge for the length of a `with` block; gives its URL."""
    with _locked(config), bind(config.api.host, config.api.port) as sock:
        runtime = make_runtime(config, version)
        async with runtime:
            server = _server(config, runtime)
            serving = asyncio.create_task(server.serve([sock]))
            listening = asyncio.create_task(server.listening.wait())
            try:
                await asyncio.wait((serving, listening), return_when=asyncio.FIRST_COMPLETED)
                if serving.done():
                    serving.result()
                url = url_of(sock)
                whereabouts.tell(config, url)
                yield url
            finally:
                runtime.mail.close()  # or the server would wait for those who wait
                server.should_exit = True
                listening.cancel()
                await serving


@contextlib.contextmanager
def _locked(config: EdgeConfig) -> Iterator[None]:
    lock = DataLock(config.storage.lock_file)
    try:
        refuse_half_restored(Path(config.storage.ledger_file).parent)
        yield
    finally:
        whereabouts.forget(config)
        lock.release()


def run(config: EdgeConfig, version: str, on_ready: Callable[[str], None]) -> None:
    """`serve`, in a loop of its own. Errors: ConfigError, LedgerError."""
    gc.set_threshold(*GC_THRESHOLDS)
    with asyncio.Runner(loop_factory=_fast_loop()) as runner:
        runner.run(serve(config, version, on_ready))


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # no wheel for this board: the standard loop does
        return None
    return uvloop.new_event_loop
