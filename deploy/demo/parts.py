"""The processes of the demo: hub and edges, set up and run with the same commands that people type."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom

from deploy.demo.history import EDGES
from deploy.demo.link import Link
from protocols.errors import ConfigError, TransportError

_READY_S = 30.0
_NOT_GIVEN = (15_000, 32_000)
"""ports below those that Linux gives to connections"""


def command(name: str, *args: str) -> list[str]:
    """A command of this checkout's own environment, whether or not it is on the PATH."""
    module = {"longshore-hub": "hub.cli", "longshore-edge": "edge_agent.cli"}[name]
    return [sys.executable, "-c", f"import sys; from {module} import main; sys.exit(main())", *args]


def call(name: str, *args: str) -> str:
    """Run a command to its end. Errors: ConfigError with what it said."""
    done = subprocess.run(command(name, *args), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"{name} {args[0]}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


@dataclass(slots=True)
class Part:
    """One running process; `url` is its HTTP address once it said that it is ready."""

    name: str
    dir: Path
    args: list[str]
    env: dict[str, str] = field(default_factory=dict)
    url: str = ""
    process: asyncio.subprocess.Process | None = None
    starts: int = 0

    async def start(self) -> None:
        """Start it and wait until it is ready. Errors: ConfigError with its last words."""
        self.starts += 1
        log = (self.dir / "log.txt").open("ab")
        self.process = await asyncio.create_subprocess_exec(
            *self.args, stdout=asyncio.subprocess.PIPE, stderr=log, env={**os.environ, **self.env}, start_new_session=True
        )
        log.close()
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(_READY_S):
                while line := await self.process.stdout.readline():
                    text = line.decode(errors="replace").strip()
                    if text.startswith("ready:"):
                        self.url = next(w for w in text.split() if w.startswith("http"))
                        return
        except TimeoutError:
            pass
        words = (self.dir / "log.txt").read_text(errors="replace").strip().splitlines()
        raise ConfigError(f"{self.name} did not become ready: {words[-1] if words else 'no output'}", remedy=f"see {self.dir / 'log.txt'}")

    async def kill(self) -> None:
        """SIGKILL: no goodbye, nothing flushed."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if that is not enough."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(10):
                await self.process.wait()
        except TimeoutError:
            await self.kill()

    @property
    def token(self) -> str:
        """The bearer token that `init` made."""
        return (self.dir / "api.token").read_text().strip()


@dataclass(slots=True)
class Site:
    """Everything that runs."""

    hub: Part
    edges: dict[str, Part]
    links: dict[str, Link]

    async def stop(self) -> None:
        """End every process that was started here."""
        await asyncio.gather(*(p.stop() for p in (*self.edges.values(), self.hub)))
        for link in self.links.values():
            await link.cut()


async def build(root: Path, *, api_port: int) -> Site:
    """Set up hub and edges below `root`, each edge behind a link of its own; start them all. Errors: ConfigError."""
    hub_dir = root / "hub"
    address = json.loads(
        call("longshore-hub", "init", str(hub_dir), "--org", "scms", "--region", "Africa", "--loopback-without-token", "--json")
    )["address"]
    broker_port = free_port()
    hub = Part("hub", hub_dir, command("longshore-hub", "run", "--config", str(hub_dir / "hub.toml")))
    hub.env = {"LONGSHORE_API__PORT": str(api_port), "LONGSHORE_BROKER__PORT": str(broker_port)}
    links = {node: Link(broker_port) for node, *_ in EDGES}
    edges = {}
    for node, region, site, _ in EDGES:
        await links[node].restore()
        edges[node] = _set_up_edge(root / node, (node, region, site), _through(address, links[node].port), hub_dir)
    await hub.start()
    await asyncio.gather(*(e.start() for e in edges.values()))
    return Site(hub, edges, links)


def set_up_pair(root: Path, node: str = "bench") -> tuple[Part, Part]:
    """A hub and one edge below `root`, on free ports, not started."""
    hub_dir = root / "hub"
    port = free_port()
    address = json.loads(call("longshore-hub", "init", str(hub_dir), "--org", "scms", "--region", "Africa", "--json"))["address"]
    hub = Part("hub", hub_dir, command("longshore-hub", "run", "--config", str(hub_dir / "hub.toml")))
    hub.env = {"LONGSHORE_API__PORT": "0", "LONGSHORE_BROKER__PORT": str(port)}
    return hub, _set_up_edge(root / node, (node, "Africa", "Accra"), _through(address, port), hub_dir)


def _set_up_edge(folder: Path, place: Sequence[str], address: str, hub_dir: Path) -> Part:
    node, region, site = place
    call("longshore-edge", "init", str(folder), "--node", node, "--site", site, "--region", region, "--hub", address)
    call("longshore-hub", "nodes", "add", str(folder / "node.card.json"), "--config", str(hub_dir / "hub.toml"))
    part = Part(node, folder, command("longshore-edge", "run", "--config", str(folder / "edge.toml")))
    part.env = {"LONGSHORE_API__PORT": "0", "LONGSHORE_HUB__RECONNECT_MOST_S": "2"}  # people are watching
    return part


def _through(address: str, port: int) -> str:
    """The hub's address, by way of a link."""
    scheme, rest = address.split("://", 1)
    host, tail = rest.split("/", 1)
    if not scheme or ":" not in host:
        raise TransportError(f"{address!r} is not an address")
    return f"{scheme}://{host.rsplit(':', 1)[0]}:{port}/{tail}"


def free_port() -> int:
    """A port that nobody listens on, and that the system gives to nobody who asks for any: it may be taken much later."""
    rng = SystemRandom()
    while True:
        port = rng.randrange(*_NOT_GIVEN)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
