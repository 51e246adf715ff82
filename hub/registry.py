"""Who may speak at this hub: admitted nodes, what each last said of itself, and what came from those not (yet) believed.

Lives in the hub's database beside the ledger. Everything that arrives from outside and is kept is bounded here. Certificates, roles and
enrolment will stand on the same table: a node is a name, a key, and a place (org, region, site).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from protocols.clock import Shift
from protocols.codec import pack, unpack
from protocols.errors import DecodeError, InvalidInput
from protocols.event import check_org
from protocols.limits import FRAME_WIRE_BYTES, REFUSED_KEPT, WAITING_BYTES, WAITING_NODES
from protocols.messages import Heartbeat
from protocols.schema import migrate
from protocols.sqlite import Db
from protocols.topics import Address
from protocols.trust import NodeCard

REGISTRY: Final = (
    (
        """CREATE TABLE nodes (node TEXT PRIMARY KEY, org TEXT NOT NULL, region TEXT NOT NULL, site TEXT NOT NULL,
             public_key BLOB NOT NULL UNIQUE, password_hash TEXT NOT NULL, added_ms INTEGER NOT NULL) WITHOUT ROWID""",
        "CREATE TABLE beats (node TEXT PRIMARY KEY, body BLOB NOT NULL, at_ms INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE waiting (pos INTEGER PRIMARY KEY, node TEXT NOT NULL, data BLOB NOT NULL, at_ms INTEGER NOT NULL)",
        """CREATE TABLE refused (pos INTEGER PRIMARY KEY, node TEXT NOT NULL, digest BLOB NOT NULL, reason TEXT NOT NULL,
             data BLOB NOT NULL, at_ms INTEGER NOT NULL)""",
        "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    ),
    (
        # The gap ledger (`hub.gaps`): what stands open, named by the point below which it is missing, and what was closed lately, and how.
        """CREATE TABLE gaps (node TEXT NOT NULL, epoch INTEGER NOT NULL, cls INTEGER NOT NULL, last INTEGER NOT NULL, h_last BLOB NOT NULL,
             first INTEGER NOT NULL, since_ms INTEGER NOT NULL, asked INTEGER NOT NULL, asked_ms INTEGER,
             PRIMARY KEY (node, epoch, cls, last, h_last)) WITHOUT ROWID""",
        """CREATE TABLE gaps_closed (pos INTEGER PRIMARY KEY, node TEXT NOT NULL, epoch INTEGER NOT NULL, cls INTEGER NOT NULL,
             first INTEGER NOT NULL, last INTEGER NOT NULL, h_last BLOB NOT NULL, since_ms INTEGER NOT NULL, asked INTEGER NOT NULL,
             closed_ms INTEGER NOT NULL, how TEXT NOT NULL)""",
        # Organisations that a node may speak for beside its own; `*` is any.
        # Facts that a node recorded by a wrong clock, as it said itself.
        """CREATE TABLE shifts (node TEXT NOT NULL, epoch INTEGER NOT NULL, cls INTEGER NOT NULL, first INTEGER NOT NULL,
             last INTEGER NOT NULL, ms INTEGER NOT NULL, within_ms INTEGER NOT NULL,
             PRIMARY KEY (node, epoch, cls, first)) WITHOUT ROWID""",
        "CREATE TABLE node_orgs (node TEXT NOT NULL, org TEXT NOT NULL, PRIMARY KEY (node, org)) WITHOUT ROWID",
    ),
    (
        # Broker passwords once more, as Mosquitto reads them (`hub.cli_broker`); of nodes whose cards have them.
        "CREATE TABLE mosquitto (node TEXT PRIMARY KEY, hash TEXT NOT NULL) WITHOUT ROWID",
    ),
    (
        # Phones, and who works on them: such a node follows that person's tasks and no site.
        "CREATE TABLE phones (node TEXT PRIMARY KEY, staff TEXT NOT NULL) WITHOUT ROWID",
    ),
)
_REFUSED_BYTES_EACH: Final = FRAME_WIRE_BYTES
ANY_ORG: Final = "*"
ORGS_MOST: Final = 64
SHIFTS_KEPT: Final = 1_000
"""of one node"""


@dataclass(frozen=True, slots=True)
class Node:
    """An admitted node. `orgs`: organisations it may speak for beside its own. `staff`: who works on it, where it is a phone."""

    address: Address
    public_key: bytes
    password_hash: str
    added_ms: int
    orgs: tuple[str, ...] = ()
    staff: str = ""

    @property
    def speaks_for(self) -> tuple[str, ...]:
        """The organisations whose orders it may say something of; () for any."""
        return () if ANY_ORG in self.orgs else (self.address.org, *self.orgs)


class Registry:
    """See the module. Methods that change something run inside the owner's transaction."""

    def __init__(self, db: Db) -> None:
        self._db = db
        migrate(db, REGISTRY, part="registry")
        self._nodes: dict[str, Node] = {}
        orgs: dict[str, tuple[str, ...]] = {}
        for node, org in db.query("SELECT node, org FROM node_orgs ORDER BY node, org"):
            orgs[node] = (*orgs.get(node, ()), org)
        staff = {str(node): str(name) for node, name in db.query("SELECT node, staff FROM phones ORDER BY node")}
        for node, org, region, site, key, password, added in db.query("SELECT * FROM nodes ORDER BY node"):
            address = Address(org, region, site, node)
            self._nodes[node] = Node(address, key, password, added, orgs.get(node, ()), staff.get(node, ""))
        self._refused: dict[str, int] = {n: int(c) for n, c in db.query("SELECT node, count(*) FROM refused GROUP BY node ORDER BY node")}
        self._beats = self._read_beats()
        """by node: all are looked at every second, and few have changed. In the order of their names, unless `_beats_mixed`"""
        self._beats_mixed = False
        self._sorted: list[Node] | None = None
        self.shifts: dict[str, list[Shift]] = {}
        """by node, lowest first"""
        for name, *shift in db.query("SELECT node, epoch, cls, first, last, ms, within_ms FROM shifts ORDER BY node, epoch, cls, first"):
            self.shifts.setdefault(name, []).append(Shift(*shift))
        self._waiting_bytes: dict[str, int] = {n: int(b) for n, b in db.query("SELECT node, sum(length(data)) FROM waiting GROUP BY node")}

    # ------------------------------------------------------------ nodes

    def get(self, node: str) -> Node | None:
        """The admitted node of that name."""
        return self._nodes.get(node)

    def all(self) -> list[Node]:
        """Every admitted node, by name."""
        if self._sorted is None:
            self._sorted = sorted(self._nodes.values(), key=lambda n: n.address.node)
        return list(self._sorted)

    def orgs_for(self, card: NodeCard, orgs: Sequence[str] | None) -> tuple[str, ...]:
        """The organisations that this node would speak for beside its own. Errors: InvalidInput."""
        known = self._nodes.get(card.node)
        return (known.orgs if known is not None else ()) if orgs is None else _checked_orgs(orgs, card.org)

    def with_mosquitto(self) -> list[tuple[Node, str]]:
        """Every admitted node, with its password as Mosquitto reads it ("" where its card had none)."""
        hashes = {str(node): str(text) for node, text in self._db.query("SELECT node, hash FROM mosquitto")}
        return [(node, hashes.get(node.address.node, "")) for node in self.all()]

    def admit(self, card: NodeCard, hub: str, now_ms: int, orgs: Sequence[str] | None = None) -> Node:
        """Take a node in by its card. Errors: InvalidInput when the name or the key is taken; a repeat of the same card is harmless.

        `orgs`: which it may speak for beside its own, `*` for any; None leaves that as it was.
        """
        known, others = self._nodes.get(card.node), self.orgs_for(card, orgs)
        if card.node == hub or (known is not None and known.public_key != card.public_key):
            raise InvalidInput("node", f"the name {card.node!r} is taken by another key", remedy="give the edge another --node name")
        twin = next((n for n in self._nodes.values() if n.public_key == card.public_key and n.address.node != card.node), None)
        if twin is not None:
            raise InvalidInput(
                "publicKey", f"this key belongs to {twin.address.node!r}", remedy="make the edge anew: each node has a key of its own"
            )
        address = Address.of(card.org, card.region, card.site, card.node)
        node = Node(address, card.public_key, card.password_hash, now_ms, others, card.staff)
        self._db.run("DELETE FROM node_orgs WHERE node=?", (card.node,))
        self._db.many("INSERT INTO node_orgs VALUES (?, ?)", [(card.node, org) for org in others])
        self._db.run(
            "INSERT OR REPLACE INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?)",
            (card.node, card.org, card.region, card.site, card.public_key, card.password_hash, now_ms),
        )
        self._db.run("DELETE FROM phones WHERE node=?", (card.node,))
        if card.staff:
            self._db.run("INSERT INTO phones VALUES (?, ?)", (card.node, card.staff))
        if card.mosquitto_hash:
            self._db.run("INSERT OR REPLACE INTO mosquitto VALUES (?, ?)", (card.node, card.mosquitto_hash))
        else:  # another password than the one before it, for all that is known
            self._db.run("DELETE FROM mosquitto WHERE node=?", (card.node,))
        self._nodes[card.node], self._sorted = node, None
        return node

    # ------------------------------------------------------------ what a node says of itself

    def note_beat(self, node: str, beat: Heartbeat, now_ms: int) -> None:
        """Keep the last heartbeat, so that the fleet is visible right after a restart."""
        self._db.run("INSERT OR REPLACE INTO beats VALUES (?, ?, ?)", (node, pack(beat.to_list()), now_ms))
        self._beats_mixed |= node not in self._beats
        self._beats[node] = beat, now_ms
        if beat.clock is not None:
            self.note_shifts(node, beat.clock.shifts)

    def note_shifts(self, node: str, shifts: Sequence[Shift]) -> None:
        """What a node says of facts that it recorded by a wrong clock. Bounded: beyond SHIFTS_KEPT the newest are not taken."""
        known = self.shifts.get(node, [])
        for shift in shifts:
            same = next((i for i, k in enumerate(known) if (k.epoch, k.cls, k.first) == (shift.epoch, shift.cls, shift.first)), None)
            if same is None and len(known) >= SHIFTS_KEPT:
                return
            if same is not None and known[same].last >= shift.last:
                continue
            known = [*(k for i, k in enumerate(known) if i != same), shift]
            self._db.run("INSERT OR REPLACE INTO shifts VALUES (?, ?, ?, ?, ?, ?, ?)", (node, *shift))
        if known:
            self.shifts[node] = known

    def beats(self) -> dict[str, tuple[Heartbeat, int]]:
        """The last heartbeat of each node, by name, and when it came."""
        if self._beats_mixed:  # sorted here, and not where they come: that would be once for each node of a fleet that is new
            self._beats, self._beats_mixed = dict(sorted(self._beats.items())), False
        return dict(self._beats)

    def _read_beats(self) -> dict[str, tuple[Heartbeat, int]]:
        out = {}
        for node, body, at_ms in self._db.query("SELECT node, body, at_ms FROM beats ORDER BY node"):
            try:
                out[str(node)] = Heartbeat.parse(unpack(body, max_bytes=FRAME_WIRE_BYTES)), int(at_ms)
            except DecodeError:
                continue  # written by a later version; the next heartbeat replaces it
        return out

    # ------------------------------------------------------------ frames of nodes that are not known yet

    def wait(self, node: str, data: bytes, now_ms: int) -> bool:
        """Keep a frame of an unknown node, within bounds, without a receipt. False when there is no room: its author sends again anyway."""
        have = self._waiting_bytes.get(node, 0)
        if have + len(data) > WAITING_BYTES or (not have and len(self._waiting_bytes) >= WAITING_NODES):
            self.count("waiting_full")
            return False
        self._db.run("INSERT INTO waiting (node, data, at_ms) VALUES (?, ?, ?)", (node, data, now_ms))
        self._waiting_bytes[node] = have + len(data)
        return True

    def waiting(self) -> dict[str, int]:
        """Bytes that wait, by the name their authors claim."""
        return dict(self._waiting_bytes)

    def waiting_frames(self) -> dict[str, int]:
        """How many messages wait, by the name their authors claim."""
        return {n: int(c) for n, c in self._db.query("SELECT node, count(*) FROM waiting GROUP BY node ORDER BY node")}

    def release(self, node: str) -> list[bytes]:
        """What waited for this node's admission, oldest first."""
        rows = self._db.query("SELECT data FROM waiting WHERE node=? ORDER BY pos", (node,))
        self._db.run("DELETE FROM waiting WHERE node=?", (node,))
        self._waiting_bytes.pop(node, None)
        return [bytes(r[0]) for r in rows]

    # ------------------------------------------------------------ evidence

    def refuse(self, node: str, digest: bytes, reason: str, data: bytes, now_ms: int) -> None:
        """Keep a frame that moved nothing, bounded, with its reason; count it. Where it is full, the oldest of whoever holds most goes:
        one node's nonsense does not crowd out the others' evidence."""
        self.count("refused")
        self._db.run(
            "INSERT INTO refused (node, digest, reason, data, at_ms) VALUES (?, ?, ?, ?, ?)",
            (node, digest, reason, data[:_REFUSED_BYTES_EACH], now_ms),
        )
        self._refused[node] = self._refused.get(node, 0) + 1
        if sum(self._refused.values()) > REFUSED_KEPT:
            most = max(self._refused, key=lambda n: (self._refused[n], n))
            self._db.run("DELETE FROM refused WHERE pos = (SELECT min(pos) FROM refused WHERE node=?)", (most,))
            self._refused[most] -= 1
            if not self._refused[most]:
                del self._refused[most]

    def refused(self, limit: int = 200) -> list[dict[str, Any]]:
        """Kept frames, newest first, as people see them."""
        rows = self._db.query("SELECT pos, node, digest, reason, length(data), at_ms FROM refused ORDER BY pos DESC LIMIT ?", (limit,))
        return [{"id": p, "node": n, "digest": bytes(d).hex(), "reason": r, "bytes": b, "atMs": at} for p, n, d, r, b, at in rows]

    def refused_by_node(self) -> dict[str, int]:
        """How many of the kept refusals each topic's node caused."""
        return dict(self._refused)

    def count(self, name: str, by: int = 1) -> None:
        """Move a counter that survives restarts."""
        self._db.run("INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value", (name, by))

    def counters(self) -> dict[str, int]:
        """All counters."""
        return {str(n): int(v) for n, v in self._db.query("SELECT name, value FROM counters ORDER BY name")}


def _checked_orgs(orgs: Sequence[str], own: str) -> tuple[str, ...]:
    """Errors: InvalidInput naming `org`."""
    if len(orgs) > ORGS_MOST:
        raise InvalidInput("org", f"{len(orgs)} are too many, at most {ORGS_MOST} are kept.", remedy="Say * for any.")
    return tuple(sorted({ANY_ORG if org == ANY_ORG else check_org(org) for org in orgs} - {own}))
