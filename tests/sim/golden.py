"""Worlds that begin with what version 1 left behind (I12): the golden databases of an edge, its hub and its central store, brought forward
by today's code, and from then on a world like any other. What happened before is told here, as the makers of those files tell it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from protocols.fact import genesis
from protocols.streams import StreamKey
from protocols.topics import Address
from tests.golden import databases
from tests.sim.disks import Disk, SimDb
from tests.sim.keys import Keys
from tests.sim.options import Options
from tests.sim.phones import PhonesWorld
from tests.sim.truth import FactId, Mask
from tests.sim.workers import WorkersWorld
from tests.sim.world import Trace, World

FOLDER: Final = Path(databases.__file__).parent
FILES: Final = {"hub": "v1-hub.db", "store": "v1-store.db", "w8-madrid": "v1-edge.db"}
SECRETS: Final = {"dock-2": bytes([1]) * 32, "w8-madrid": bytes([2]) * 32}
HUB: Final = "hub-emea"
STRANGER: Final = StreamKey("dock-9", 6, 0)


class GoldenWorld(World):
    """See the module. dock-2 comes back without its card; dock-9, of which the hub has facts, is only now admitted."""

    def make_keys(self) -> Keys:
        """See `World`: the registry of the golden hub holds real keys."""
        keys = Keys(self.options.seed, real=True)
        keys.fixed = SECRETS
        return keys

    def make_hub_address(self) -> Address:
        """See `World`."""
        return Address("acme", "EMEA", "center", HUB)

    def edge_addresses(self) -> list[Address]:
        """See `World`."""
        places = (("w8-madrid", "site-1"), ("dock-2", "site-0"), ("dock-9", "W9"), ("dock-0", "W0"))
        return [Address("acme", "EMEA", site, node) for node, site in places]

    def first_disk(self, name: str) -> Disk:
        """See `World`."""
        if name not in FILES:
            return Disk.blank(name)
        db = SimDb.load((FOLDER / FILES[name]).read_bytes())
        assert isinstance(db, SimDb)
        return Disk(name, db)

    def _people(self) -> None:
        madrid = self.first_disk("w8-madrid")
        self._past(madrid)
        madrid.close()
        for disk in (self.hub.disk, self.store.disk):
            self._mirror(disk)
        self.check.stored |= self.store.disk.held | self.store.disk.recorded(self.check.truth)
        super()._people()

    def add_edge(self, name: str, address: Address, disk: Disk) -> object:  # type: ignore[override]
        """See `World`: the golden one has a past."""
        if name == "w8-madrid":
            self._mirror(disk)
        return super().add_edge(name, address, disk)

    # ------------------------------------------------------------ what happened before

    def _past(self, madrid: Disk) -> None:
        """Every fact in these files, in the order in which their authors said them, with what each had seen."""
        rows: dict[FactId, tuple[bytes, bytes]] = {}
        for disk in (madrid, self.hub.disk, self.store.disk):
            for node, epoch, cls, seq, h, prev, row in disk.db.query(
                "SELECT s.node, s.epoch, s.cls, l.seq, l.h, l.prev, l.row FROM log l JOIN streams s USING (sid)"
            ):
                rows[FactId(node, epoch, cls, seq, bytes(h))] = (bytes(prev), bytes(row))
        truth = self.check.truth
        lost = truth.add(FactId(*STRANGER, 1, b"h-before"), genesis(*STRANGER), b"never came", 0)
        truth.excused |= 1 << lost
        authors = (HUB, "dock-2", "dock-9", "w8-madrid")
        for fid in sorted(rows, key=lambda f: (authors.index(f.node), f.epoch, f.seq, f.h)):
            prev, row = rows[fid]
            i = truth.add(fid, prev, row, self._seen(fid))
            if fid.node == "dock-9":
                self.check.odd_rows[row] = None
            if fid.node == "w8-madrid" and fid.seq <= 2 and fid.epoch == madrid_epoch(rows):
                truth.freed |= 1 << i

    def _seen(self, fid: FactId) -> Mask:
        """What an author's ledger held when it said a fact. The edge was given the hub's two facts before its ninth."""
        truth = self.check.truth
        own = sum(1 << i for f, i in truth.of.items() if f.node == fid.node and (f.epoch != fid.epoch or f.seq < fid.seq))
        told = fid.node == "w8-madrid" and (fid.seq > 8 or any(f.node == "w8-madrid" and f.epoch < fid.epoch for f in truth.of))
        return own | (sum(1 << i for f, i in truth.of.items() if f.node == HUB) if told else 0)

    def _mirror(self, disk: Disk) -> None:
        """What an observer who had been there would know of a disk."""
        truth = self.check.truth
        disk.held = truth.mask(fid for fid, _ in disk.everything())
        disk.seen = disk.held
        for node, epoch, cls, own in disk.db.query("SELECT node, epoch, cls, own FROM streams ORDER BY sid"):
            key = StreamKey(node, epoch, cls)
            if own:
                disk.own[key] = [i for fid, i in sorted(truth.of.items(), key=lambda t: t[0].seq) if fid.stream == key]
                disk.seen |= sum(1 << i for i in disk.own[key])
        table = "view" if disk is self.store.disk else "orders"
        for org, order_id in disk.db.query(f"SELECT org, order_id FROM {table}"):
            disk.views[org, order_id] = disk.heads(truth, table, (org, order_id))


def madrid_epoch(rows: dict[FactId, tuple[bytes, bytes]]) -> int:
    """The first epoch of the golden edge."""
    return min(fid.epoch for fid in rows if fid.node == "w8-madrid")


def begin(options: Options, trace: Trace | None = None) -> World:
    """A world of these options at its first moment."""
    made = {"golden": GoldenWorld, "workers": WorkersWorld, "phones": PhonesWorld}.get(options.profile, World)
    return made(options, trace)
