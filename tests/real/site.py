"""A whole site on the real engines: edges, Mosquitto, a hub that bridges to Kafka, projectors, PostgreSQL; under the supervisor of
`tests.chaos`, behind its lines where edges, broker and clients speak.
"""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.chaos.journal import Journal
from tests.chaos.oracle import Books
from tests.chaos.service import CLEAN, Service, Supervisor
from tests.chaos.site import (
    BROKER,
    EDGE,
    HUB,
    MOSQUITTO,
    SHARED,
    Layout,
    Site,
    command,
    edge_service,
    hub_service,
    lay_lines,
    make_directories,
    mosquitto_service,
    ready_at,
)  # fmt: skip
from tests.chaos.waiting import until
from tests.real import books
from tests.real.plan import KAFKA, POSTGRES, PROJECTOR
from tests.support.commands import done
from tests.support.engines.kafka import Kafka
from tests.support.engines.postgres import ADMIN, Postgres
from tests.support.patience import ANSWER_S, WITHIN_S
from tests.support.ports import lasting_port

AGAIN_S: Final = 10
PARTITIONS: Final = 4
LEASE_S: Final = 3
DISK: Final = "fsync=off"
"""processes are killed here, never the machine: what one has written the system keeps. After a kill PostgreSQL would wait half a minute
for a busy disk, in which nothing is tried"""
DATABASE: Final = "central"
JAVA_ASKED: Final = 128 + signal.SIGTERM
"""how Java says that it ended because it was asked to"""


@dataclass(frozen=True, slots=True)
class RealLayout(Layout):
    """What such a site is made of."""

    engine: str = MOSQUITTO
    edges: int = 2
    budget_bytes: int = 100_000_000
    saboteur: str = "tests.real.sabotage"
    projectors: int = 2
    workers: int = 1
    """of the hub; more than one share its nodes by leases"""


@dataclass(eq=False)
class RealSite(Site):
    """See the module."""

    kafka: Kafka | None = None
    postgres: Postgres | None = None
    hub_more: list[str] = field(default_factory=list)
    """arguments of the hub's `init`"""
    workers: int = 1

    @property
    def servers(self) -> str:
        """Of Kafka."""
        assert self.kafka is not None
        return self.kafka.servers

    @property
    def central(self) -> tuple[str, str]:
        """The central store for its administrator: where, and the password."""
        assert self.postgres is not None
        return (
            f"host=127.0.0.1 port={self.postgres.port} user={ADMIN} dbname={DATABASE} connect_timeout={ANSWER_S:.0f}",
            self.postgres.password,
        )

    @property
    def hubs(self) -> list[str]:
        """See `Site.hubs`."""
        return [HUB, *(f"{HUB}-{n}" for n in range(2, self.workers + 1))]

    def books(self, node: str, *, whole: bool = True) -> Books:
        """See `Site.books`."""
        return books.read(*self.central, whole=whole) if node == "store" else super().books(node, whole=whole)

    def mortal(self) -> list[str]:
        """See `Site.mortal`: who holds what is read in the end stays."""
        return [*super().mortal(), *self.kinds()[PROJECTOR]]

    def close(self) -> None:
        """See `Site.close`."""
        super().close()
        if self.postgres is not None:
            self.postgres.discard()


def build(folder: Path, layout: RealLayout, journal: Journal) -> RealSite:
    """Engines run and have what they need when it returns, as an operator would have seen to; everybody else starts with the supervisor."""
    nodes = {f"{EDGE}-{n}": SHARED if n <= 2 else f"SITE-{n}" for n in range(1, layout.edges + 1)}
    site = RealSite(folder, layout, Supervisor(journal, folder), nodes, workers=layout.workers)
    projectors = [f"{PROJECTOR}-{n}" for n in range(1, layout.projectors + 1)]
    site.ports = {name: lasting_port() for name in (*site.hubs, BROKER, *nodes, *projectors)}
    with contextlib.ExitStack() as undo:
        undo.callback(site.close)
        lay_lines(site)
        _start_engines(site)
        make_directories(site, _hubs(site))  # while Kafka, which takes longest, still comes up
        _await_engines(site)
        made = done("hub.cli", "topics", "create", "--dir", site.folder / HUB, "--json")
        assert made["ok"], made
        site.supervisor.add(mosquitto_service(site, ["autosave_interval 1"]))
        for name in site.hubs:
            site.supervisor.add(hub_service(site, name))
        for name in projectors:
            site.supervisor.add(_projector(site, name))
        for n, node in enumerate(nodes):
            site.supervisor.add(edge_service(site, node, freeing=n < layout.freeing))
        undo.pop_all()
    return site


def _start_engines(site: RealSite) -> None:
    kafka = site.kafka = Kafka(site.folder / KAFKA)
    postgres = site.postgres = Postgres([DISK])
    site.supervisor.add(Service(KAFKA, KAFKA, kafka.command, kafka.env, kafka.ready, clean=(*CLEAN, JAVA_ASKED)))
    fast = signal.SIGINT  # as Debian's unit asks it to end; SIGTERM would wait for its clients to go
    site.supervisor.add(Service(POSTGRES, POSTGRES, postgres.command, {}, postgres.ready, cwd=postgres.folder, ask=fast, whole=True))
    site.supervisor.start()
    _await_engines(site, POSTGRES)
    where = postgres.server(DATABASE)
    site.hub_more = ["--store", "postgres", "--dsn", where.dsn, "--password-file", str(where.password_file)]


def _await_engines(site: RealSite, *names: str) -> None:
    """Errors: RuntimeError, with what they said: these, or all there are, did not come up."""
    if not until(lambda: not [name for name in site.unready() if not names or name in names], WITHIN_S):
        raise RuntimeError(f"{site.unready()} did not start: {[s.child.output() for s in site.supervisor.services.values() if s.child]}")


def _hubs(site: RealSite) -> dict[str, Any]:
    """How `tests.chaos.init` is told of the hub, or of its workers."""
    hub, *others = site.hubs
    workers = [
        {"dir": str(site.folder / name), "api_port": site.ports[name], "hub_more": site.hub_more, "hub_drop": _settings(site, name)}
        for name in others
    ]
    return {"hub_more": site.hub_more, "hub_drop": _settings(site, hub), "workers": workers}


def _settings(site: RealSite, name: str) -> str:
    """What lies in hub.toml.d."""
    lines = ["[bridge]", 'kind = "kafka"', f'servers = "{site.servers}"', f"produce_again_s = {AGAIN_S}", f"partitions = {PARTITIONS}"]
    if site.workers > 1:
        lines += [
            "[broker]",
            'kind = "external"',
            "[workers]",
            f'name = "{name}"',
            "partitions = 8",
            f"lease_s = {LEASE_S}",
            "follow_s = 1",
        ]
    return "\n".join([*lines, ""])


def _projector(site: RealSite, name: str) -> Service:
    args = command(site, HUB, "project", "--config", str(site.folder / HUB / "hub.toml"), "--listen", str(site.ports[name]))
    return Service(name, PROJECTOR, args, {"LONGSHORE_LOG__LEVEL": "info"}, ready_at(site.url(name)))
