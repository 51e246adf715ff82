"""A whole site of real processes: hub, edges, a broker of one of four kinds, and a line of ours between any two that talk."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hub.broker_apart import COMMAND as BROKER_COMMAND
from hub.store.apart import COMMAND as STORE_COMMAND
from protocols import mosquitto
from protocols.topics import Address
from protocols.trust import token_hash
from tests.chaos.faults import Fault
from tests.chaos.init import ORG, REGION
from tests.chaos.journal import Journal
from tests.chaos.oracle import Books, read
from tests.chaos.proxy import Proxy
from tests.chaos.service import Part, Service, Supervisor
from tests.support.engines.mosquitto import write_config
from tests.support.needs import where
from tests.support.ports import lasting_port, listening
from tests.support.procs import http_ok, python, ran

AMQTT: Final = "amqtt"
MOSQUITTO: Final = "mosquitto"
CUT: Final = "mosquitto-cut"
FORGETFUL: Final = "mosquitto-forgetful"
ENGINES: Final[Mapping[str, tuple[str, ...]]] = {
    AMQTT: (),
    MOSQUITTO: ("persistence true", "persistence_location {folder}/"),
    CUT: ("persistence false", "max_queued_messages 2", "max_inflight_messages 1"),
    FORGETFUL: ("persistence false",),
}
"""the broker inside the hub; Mosquitto as Debian ships it (persistent, queues as by default); with its queue cut; without persistence"""

HUB: Final = "hub"
EDGE: Final = "edge"
BROKER: Final = "broker"
STORE: Final = "store"
PHONE: Final = "phone"
SHARED: Final = "DOCK"
_HUB_USER: Final = "hub"
_PHONES_TOKEN: Final = "one-token-for-the-phones-of-the-dock"
_HUB_PASSWORD: Final = "of the hub at the broker"

HASTE: Final = {
    "LONGSHORE_SYNC__RETRY_MS": "400", "LONGSHORE_SYNC__RETRY_MOST_MS": "3000", "LONGSHORE_SYNC__IDLE_HELLO_MS": "2000",
    "LONGSHORE_SYNC__STALL_MS": "3000", "LONGSHORE_SYNC__HEARTBEAT_MS": "500", "LONGSHORE_HUB__RECONNECT_MOST_S": "1",
    "LONGSHORE_HUB__KEEPALIVE_S": "5",
}  # fmt: skip
"""rhythms of an edge for tests: the same machine, in less time"""
FREEING: Final = {
    "LONGSHORE_STORAGE__PRESSURE_PERCENT": "1", "LONGSHORE_STORAGE__FLOOR_DAYS": "0",
}  # fmt: skip
"""an edge that frees what is settled as soon as it may: whoever says so too early is found out"""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a site is made of. `sabotage`: (kind of process, name in `tests.chaos.sabotage`)."""

    engine: str = AMQTT
    edges: int = 3
    seed: int = 0
    freeing: int = 1
    """so many of the edges free as soon as they may"""
    sabotage: tuple[str, str] | None = None
    budget_bytes: int = 6_000_000
    """of an edge that frees as soon as it may"""
    saboteur: str = "tests.chaos.sabotage"
    """the module that plants it"""
    phones: int = 0
    """nodes without a line to the broker: they sync over HTTP through the first two edges, now this, now that"""


@dataclass(eq=False)
class Site:
    """See the module. Made by `build`; `close` ends everything."""

    folder: Path
    layout: Layout
    supervisor: Supervisor
    nodes: dict[str, str]
    """edges and phones, and the site at which each stands; the first two edges share one with the phones"""
    lines: dict[str, Proxy] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    # ------------------------------------------------------------ asking

    @property
    def hubs(self) -> list[str]:
        """The hub, or its workers."""
        return [HUB]

    @property
    def first(self) -> str:
        """The first edge."""
        return next(iter(self.nodes))

    def url(self, node: str) -> str:
        """The API of a node, straight."""
        return f"http://127.0.0.1:{self.ports[node]}"

    def client_port(self, node: str) -> int:
        """The API of a node by way of its clients' line."""
        return self.lines[f"{node}<clients"].port

    def kinds(self) -> dict[str, list[str]]:
        """Names of processes by kind, for a plan."""
        out: dict[str, list[str]] = {}
        for name in (*self.supervisor.services, *self.supervisor.parts):
            out.setdefault(self.supervisor.kind(name), []).append(name)
        return out

    def integrity(self) -> dict[str, bool]:
        """Lines, and whether what travels on them shows that it was changed: signed frames do, plain HTTP does not."""
        return {name: not name.endswith("<clients") for name in self.lines}

    def unready(self) -> list[str]:
        """Who does not serve yet."""
        return [name for name, service in self.supervisor.services.items() if not (self.supervisor.running(name) and service.ready())]

    def database(self, node: str) -> Path:
        """The ledger of a node; `store` for the central store."""
        if node == "store":
            return self.folder / HUB / "store.db"
        return self.folder / node / ("hub.db" if node in self.hubs else "ledger.db")

    def books(self, node: str, *, whole: bool = True) -> Books:
        """What a node, or the central store, ended with; `whole`: see `oracle.read`."""
        return read(self.database(node), whole=whole)

    def mortal(self) -> list[str]:
        """Who is asked to end before the verdict, in this order."""
        return [*self.nodes, *self.hubs, *([BROKER] if BROKER in self.supervisor.services else [])]

    @property
    def gateways(self) -> list[str]:
        """Edges that carry for phones."""
        return [node for node in self.nodes if node.startswith(EDGE)][:2]

    def roads(self) -> list[str]:
        """Lines of phones, which lead to one gateway or another."""
        return [name for name in self.lines if name.endswith(">gateway")]

    # ------------------------------------------------------------ doing

    def lead(self, line: str, gateway: str) -> None:
        """A phone has moved: its line leads elsewhere now."""
        self.lines[line].target_port = self.ports[gateway]
        self.lines[line].cut()

    def set(self, line: str, fault: Fault) -> None:
        """Something is wrong with a line from now on."""
        self.lines[line].set(fault)

    def close(self) -> None:
        """End every process and line. Idempotent."""
        self.supervisor.end_all()
        for line in self.lines.values():
            line.stop()


def build(folder: Path, layout: Layout, journal: Journal) -> Site:
    """Directories, lines and services; nothing runs yet but the lines."""
    nodes = {f"{EDGE}-{n}": SHARED if n <= 2 else f"SITE-{n}" for n in range(1, layout.edges + 1)}
    nodes |= {f"{PHONE}-{n}": SHARED for n in range(1, layout.phones + 1)}
    site = Site(folder, layout, Supervisor(journal, folder), nodes)
    site.ports = {name: lasting_port() for name in (HUB, BROKER, *nodes)}
    with contextlib.ExitStack() as undo:
        undo.callback(site.close)
        lay_lines(site)
        make_directories(site)
        if layout.engine != AMQTT:
            site.supervisor.add(mosquitto_service(site))
        site.supervisor.add(hub_service(site))
        for part in parts_of_hub(site):
            site.supervisor.add_part(part)
        for n, node in enumerate(nodes):
            site.supervisor.add(edge_service(site, node, freeing=n < layout.freeing))
        undo.pop_all()
    return site


def lay_lines(site: Site) -> None:
    """One between any two that talk."""

    def lay(name: str, target: str) -> None:
        site.lines[name] = Proxy(site.ports[target], seed=f"{site.layout.seed}/{name}").start()

    for node in site.nodes:
        if node.startswith(PHONE):
            lay(f"{node}>gateway", site.gateways[0])
        else:
            lay(f"{node}>broker", BROKER)
        lay(f"{node}<clients", node)
    lay(f"{HUB}<clients", HUB)
    if site.layout.engine != AMQTT:
        lay(f"{HUB}>broker", BROKER)


def make_directories(site: Site, more: Mapping[str, Any] | None = None) -> None:
    """Of the hub and all nodes, by the product's own commands. `more`: see `tests.chaos.init`."""
    edges = [_directory(site, node, place) for node, place in site.nodes.items()]
    made: dict[str, Any] = {"hub": str(site.folder / HUB), "api_port": site.ports[HUB], "broker_port": site.ports[BROKER], "edges": edges}
    made |= more or {}
    code, said = ran(python("-m", "tests.chaos.init", json.dumps(made)))
    if code:
        raise RuntimeError(f"a site could not be made: {said}")


def _directory(site: Site, node: str, place: str) -> dict[str, Any]:
    """How `init` is told of an edge, or of a phone: that one names no broker it could reach."""
    phone = node.startswith(PHONE)
    line = site.ports[BROKER] if phone else site.lines[f"{node}>broker"].port
    carried_by = [str(site.folder / gateway) for gateway in site.gateways] if phone else []
    where_to = {"dir": str(site.folder / node), "node": node, "site": place}
    return where_to | {"line": line, "port": site.ports[node], "gateways": carried_by}


def command(site: Site, kind: str, *args: str) -> list[str]:
    """A command of the product, or of one that breaks a promise."""
    module = {HUB: "hub.cli", EDGE: "edge_agent.cli"}[kind]
    if site.layout.sabotage is not None and site.layout.sabotage[0] == kind:
        return python("-m", site.layout.saboteur, site.layout.sabotage[1], module, *args)
    return python("-m", module, *args)


def ready_at(url: str) -> Any:
    """Whether somebody serves there."""
    return lambda: http_ok(f"{url}/readyz")


def hub_service(site: Site, name: str = HUB) -> Service:
    """The hub of a site whose directories are made, or a worker of it."""
    env = {"LONGSHORE_SYNC__STORE_CHECK_S": "2", "LONGSHORE_LOG__LEVEL": "info"}
    if site.layout.engine != AMQTT:
        password = site.folder / name / "broker.password"
        password.write_text(_HUB_PASSWORD)
        password.chmod(0o600)
        env |= {
            "LONGSHORE_BROKER__KIND": "external", "LONGSHORE_BROKER__PORT": str(site.lines[f"{HUB}>broker"].port),
            "LONGSHORE_BROKER__USERNAME": _HUB_USER, "LONGSHORE_BROKER__PASSWORD_FILE": str(password),
            "LONGSHORE_BROKER__RECONNECT_MOST_S": "1", "LONGSHORE_BROKER__KEEPALIVE_S": "5",
        }  # fmt: skip
    args = command(site, HUB, "run", "--config", str(site.folder / name / "hub.toml"))
    return Service(name, HUB, args, env, ready_at(site.url(name)))


def parts_of_hub(site: Site) -> list[Part]:
    """What a hub runs in processes of their own, where it may use two cores: what writes its store, and the broker that is its own."""
    if len(os.sched_getaffinity(0)) < 2:
        return []
    store = Part(f"{HUB}/{STORE}", STORE, HUB, STORE_COMMAND[-1])
    return [store] if site.layout.engine != AMQTT else [store, Part(f"{HUB}/{BROKER}", BROKER, HUB, BROKER_COMMAND[-1])]


def edge_service(site: Site, node: str, *, freeing: bool) -> Service:
    """An edge or a phone. `freeing`: it frees what is settled as soon as it may."""
    env = {**HASTE, "LONGSHORE_LOG__LEVEL": "info"}
    if freeing:
        env |= {**FREEING, "LONGSHORE_STORAGE__BUDGET_BYTES": str(site.layout.budget_bytes)}
    if node.startswith(PHONE):
        token = site.folder / node / "gateway.token"
        token.write_text(_PHONES_TOKEN)
        token.chmod(0o600)
        env |= {"LONGSHORE_HUB__URL": f"http://127.0.0.1:{site.lines[f'{node}>gateway'].port}", "LONGSHORE_HUB__TOKEN_FILE": str(token)}
    elif site.layout.phones and node in site.gateways:
        env["LONGSHORE_API__TOKEN_HASHES"] = token_hash(_PHONES_TOKEN)
    args = command(site, EDGE, "run", "--config", str(site.folder / node / "edge.toml"))
    return Service(node, PHONE if node.startswith(PHONE) else EDGE, args, env, ready_at(site.url(node)))


def mosquitto_service(site: Site, more: Sequence[str] = ()) -> Service:
    """A Mosquitto of the layout's engine. `more`: further lines of its configuration."""
    folder = site.folder / BROKER
    folder.mkdir()
    passwords = {node: (site.folder / node / "broker.password").read_text().strip() for node in site.nodes}
    addresses = [Address.of(ORG, REGION, place, node) for node, place in site.nodes.items()]
    config = write_config(
        folder,
        site.ports[BROKER],
        passwords={_HUB_USER: _HUB_PASSWORD, **passwords},
        acl=mosquitto.acl(addresses, hub_user=_HUB_USER, org=ORG),
        settings=[line.format(folder=folder) for line in (*ENGINES[site.layout.engine], *more)],
    )
    return Service(BROKER, BROKER, [where("mosquitto"), "-c", os.fspath(config)], ready=lambda: listening(site.ports[BROKER]))
