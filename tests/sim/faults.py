"""What goes wrong at a set time: links, machines, cards, backups, clocks. Each fault of the plan is a method with the plan's numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.sim.disks import Disk
from tests.sim.edgeproc import EdgeProc
from tests.sim.options import SECOND

if TYPE_CHECKING:
    from tests.sim.world import World

CLONES = 4
"""edges that a world may have beyond those it began with"""
SILENT_STALLS = 20
"""a link that swallows everything is noticed after this many restarts of the client at the latest"""


class Faults:
    """See the module."""

    def __init__(self, world: World) -> None:
        self.world, self.rng = world, world.rng("faults")
        self._edge_copies: dict[int, Disk] = {}
        self._hub_copy: Disk | None = None

    def strike(self, kind: str, numbers: tuple[int, ...]) -> None:
        """The time has come for a fault of the plan."""
        method: Callable[..., None] = getattr(self, kind)
        method(*numbers)

    def _edge(self, n: int) -> EdgeProc:
        return self.world.edges[n]

    def partitions(self, n: int, for_ms: int, silent: int) -> None:
        """The link of an edge goes for a while; of a silent one nobody is told."""
        edge = self._edge(n)
        if silent:
            for_ms = min(for_ms, SILENT_STALLS * self.world.options.uplink.stall_ms)
        self.world.count("silent partition" if silent else "partition")
        self.world.say(edge.name, f"is cut off for {for_ms / 1000:.0f} s" + (", unnoticed" if silent else ""))
        edge.cut(bool(silent))
        self.world.after(for_ms, self._back, edge)

    def _back(self, edge: EdgeProc) -> None:
        """The link is back, and work goes on while the backlog travels."""
        edge.join()
        self.world.clients.burst(edge)

    def sessions(self) -> None:
        """The broker drops every session."""
        self.world.count("all sessions dropped")
        for edge in self.world.edges:
            edge.bounce(self.rng.randrange(1, 10 * SECOND))

    def clones(self, n: int, _: int) -> None:
        """A card is copied, and both machines run."""
        if len(self.world.edges) >= self.world.options.edges + CLONES:
            return
        edge = self._edge(n)
        self.world.count("card cloned")
        self.world.add_edge(f"{edge.name}'{len(self.world.edges)}", edge.address, edge.disk.copy(f"clone of {edge.name}"))

    def edge_copy(self, n: int) -> None:
        """Somebody takes a copy of an edge's card."""
        self._forget(self._edge_copies.pop(n, None))
        self._edge_copies[n] = self._edge(n).disk.copy("copy")

    def edge_restores(self, n: int) -> None:
        """An edge comes back as it was when it was copied."""
        if n in self._edge_copies:
            edge = self._edge(n)
            edge.swap(self._edge_copies[n].copy(edge.name), "edge restored")

    def blanks(self, n: int, _: int) -> None:
        """An edge is replaced by an empty one with the same key."""
        edge = self._edge(n)
        edge.swap(Disk.blank(edge.name), "edge replaced by an empty one")

    def hub_copy(self, _: int = 0) -> None:
        """A backup of the hub's database."""
        self._forget(self._hub_copy)
        self._hub_copy = self.world.hub.disk.copy("hub backup")

    def hub_restores(self, _: int = 0) -> None:
        """The hub comes back from it. The central store is another file, and stays."""
        if self._hub_copy is not None:
            self.world.hub.swap(self._hub_copy.copy("hub"))

    def store_backup(self, _: int = 0) -> None:
        """A backup of the central store begins."""
        if self.world.options.backups:
            self.world.store.backup()

    def store_restores(self, _: int = 0) -> None:
        """The central store comes back from one."""
        if self.world.options.backups:
            self.world.store.restore()

    def clocks(self, n: int, _: int = 0) -> None:
        """A wall clock steps, by years perhaps: of an edge, or of the hub."""
        self.world.count("clock step")
        skew = self.rng.randrange(-self.world.options.skew_ms, self.world.options.skew_ms + 1)
        if self.rng.random() < 0.3:
            self.world.hub.skew_ms = skew
        else:
            self._edge(n).skew_ms = skew

    def upgrades(self, n: int, _: int = 0) -> None:
        """A node that knew version 1 only comes back with today's."""
        edge = self._edge(n)
        if self.world.old.pop(edge.node, 0) is None:
            self.world.count("node upgraded")
            edge.bounce(SECOND)

    def strangers(self, n: int, _: int = 0) -> None:
        """A node that nobody had admitted is admitted at last."""
        self.world.strangers.pop(self._edge(n).node, None)

    def hub_full(self, _: int, for_ms: int) -> None:
        """The hub's disk is full for a while: it grants no credit."""
        self.world.count("hub full")
        self.world.set_hub_full(True)
        self.world.after(for_ms, self.world.set_hub_full, False)

    def broker_swallows(self, _: int, for_ms: int) -> None:
        """The broker says yes to everything and passes on nothing."""
        self.world.count("broker swallows everything for a while")
        self.world.net.broker.swallow(for_ms)

    def broker_restarts(self, _: int = 0, __: int = 0) -> None:
        """The broker comes back with empty hands; every session was dropped."""
        self.world.count("broker forgets everything at its restart")
        self.world.net.broker.restart()
        for edge in self.world.edges:
            edge.bounce(self.rng.randrange(1, 10 * SECOND))

    def store_away(self, _: int, for_ms: int) -> None:
        """The central store cannot be reached."""
        self.world.count("store out of reach")
        self.world.store.away(for_ms)

    def edge_disk_full(self, n: int, for_ms: int) -> None:
        """Somebody else has filled an edge's disk."""
        self._full(self._edge(n).disk, for_ms)

    def hub_disk_full(self, _: int, for_ms: int) -> None:
        """The disk under the hub's ledger is full."""
        self._full(self.world.hub.disk, for_ms)

    def store_disk_full(self, _: int, for_ms: int) -> None:
        """The disk under the central store is full."""
        self._full(self.world.store.disk, for_ms)

    def worker_kills(self, n: int, for_ms: int) -> None:
        """A worker of the hub dies, and comes back."""
        self.world.strike("dies", n, for_ms)

    def worker_pauses(self, n: int, for_ms: int) -> None:
        """A worker is stopped between two steps of it, and goes on."""
        self.world.strike("pauses", n, for_ms)

    def worker_leaves(self, n: int, for_ms: int) -> None:
        """A worker ends in order, and comes back."""
        self.world.strike("leaves", n, for_ms)

    def worker_cuts(self, n: int, for_ms: int) -> None:
        """A worker alone cannot reach the central store."""
        self.world.strike("cuts", n, for_ms)

    def worker_outages(self, _: int, for_ms: int) -> None:
        """No worker can."""
        self.store_away(0, for_ms)

    def _full(self, disk: Disk, for_ms: int) -> None:
        self.world.count("disk full")
        self.world.say(disk.name, f"its disk is full for {for_ms / 1000:.0f} s")
        disk.db.fill(self.rng.randrange(4))
        self.world.after(for_ms, disk.clear)

    def _forget(self, disk: Disk | None) -> None:
        if disk is not None:
            disk.close()

    def close(self) -> None:
        """Let go of the copies."""
        for disk in [*self._edge_copies.values(), self._hub_copy]:
            self._forget(disk)
