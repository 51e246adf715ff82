"""A hub, its store and some edges without sockets: cores over databases in memory, and a line that a test can bend.

world = World()
dock = world.edge("dock-7")
dock.says("A1", "PLACED", "SHIPPED")
world.settle()
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from edge_agent.core import EdgeCore, EdgeIdentity, EdgeSettings, Now
from edge_agent.core import Publish as EdgePublish
from hub.core import HubCore, HubIdentity, HubSettings, Publish
from hub.fleet import balance
from hub.store.port import Statement, StreamCounts
from hub.store.sqlite import SqliteStore
from hub.views import BalanceRow
from protocols.event import OrderEvent, TimeQuality
from protocols.ledger import Appended
from protocols.lifecycle import Status
from protocols.messages import RunStated
from protocols.sqlite import Db
from protocols.streams import StreamKey
from protocols.sync.uplink import UplinkSettings
from protocols.telemetry import Reading
from protocols.topics import Address, parse_topic
from protocols.trust import NodeCard, NodeKey, hash_password, parse_card, verify
from protocols.trust import make_card as signed_card

START_MS: Final = 1_779_372_312_000
"""2026-05-21T14:05:12Z"""
PASSWORD_HASH: Final = hash_password("not a secret", n=2)
FAST: Final = EdgeSettings(UplinkSettings(frame_facts=8, linger_ms=0, retry_ms=2_000), heartbeat_ms=5_000)

Bend = Callable[[str, bytes], "list[bytes]"]
"""(node, payload) -> what arrives of it"""


def order_event(
    order_id: str,
    status: str,
    happened_ms: int = START_MS,
    site: str | None = "Madrid",
    actor: str | None = None,
    to: str | list[str] | None = None,
) -> OrderEvent:
    """A plain event of acme. `to`: whom it gives the order to."""
    details: dict[str, object] = {} if to is None else {"assignedTo": to}
    return OrderEvent("acme", order_id, "FULFILLMENT", Status[status], happened_ms, TimeQuality.STATED, "EMEA", site, actor, details, None)


def make_card(key: NodeKey, node: str, site: str = "Madrid", staff: str = "") -> NodeCard:
    """A card as `init` makes it."""
    return parse_card(signed_card(key, node=node, org="acme", region="EMEA", site=site, password_hash=PASSWORD_HASH, staff=staff))


def straight(_node: str, payload: bytes) -> list[bytes]:
    """Nothing happens on the way."""
    return [payload]


@dataclass
class Edge:
    """One edge: its key, its database, its core."""

    world: World
    key: NodeKey
    address: Address
    db: Db
    seed: int
    linked: bool = False
    core: EdgeCore = field(init=False)
    staff: str = ""
    """who works on it, where it is a phone"""
    wall_off_ms: int = 0
    """how far its wall clock is ahead"""

    def __post_init__(self) -> None:
        self.boot()

    def boot(self) -> None:
        """A core from what is on disk."""
        identity = EdgeIdentity(self.address, "hub", self.world.key.public)
        self.core = EdgeCore(self.db, identity, self.key.sign, verify, Random(self.seed), self.world.edge_settings)

    def says(
        self,
        order_id: str,
        *statuses: str,
        site: str | None = "Madrid",
        actor: str | None = None,
        to: str | list[str] | None = None,
    ) -> list[Appended]:
        """Capture events of one order."""
        self.core.begin()
        events = [order_event(order_id, status, site=site, actor=actor, to=to) for status in statuses]
        done = self.core.take_events(events, self.now)
        self.core.commit()
        return done

    def reports(self, *devices: str, kind: str = "health", note: str = "x") -> list[Appended]:
        """Capture a reading of each device."""
        readings = [Reading(device, kind, self.world.now_ms, TimeQuality.STATED, {"note": note}) for device in devices]
        self.core.begin()
        done = self.core.take_telemetry(readings, self.now)
        self.core.commit()
        return done

    @property
    def now(self) -> Now:
        return Now(max(0, self.world.now_ms + self.wall_off_ms), self.world.now_ms)

    @property
    def key_of_stream(self) -> StreamKey:
        return self.core.ledger.own().key

    def link(self) -> None:
        """The line is up."""
        self.core.begin()
        self.core.take_up(self.now)
        self.core.commit()
        self.linked = True

    def cut(self) -> None:
        """The line is gone."""
        self.core.begin()
        self.core.take_down()
        self.core.commit()
        self.linked = False

    def hears(self, payload: bytes) -> None:
        """Bytes from the hub."""
        self.core.begin()
        self.core.take_message(payload, self.now)
        self.core.commit()

    def speaks(self) -> list[bytes]:
        """What it sends now."""
        return [effect.payload for effect in self.core.effects(self.now) if isinstance(effect, EdgePublish)] if self.linked else []


class World:
    """See the module. `bend` stands between the edges and the hub."""

    def __init__(self, settings: HubSettings | None = None, edge_settings: EdgeSettings = FAST) -> None:
        self.edge_settings = edge_settings
        self.now_ms = START_MS
        self.hub_off_ms = 0
        """how far the hub's clock is ahead"""
        self.key = NodeKey(b"h" * 32)
        self.settings = settings
        self.db, self.store = Db(":memory:"), SqliteStore(Db(":memory:"))
        self.edges: list[Edge] = []
        self.bend: Bend = straight
        self.backup: dict[StreamKey, tuple[RunStated, ...]] | None = None
        self.starts = 0
        self.applied_new = self.applied_known = 0
        self.hub = self._core()

    @property
    def hub_ms(self) -> int:
        """What the hub's clock says."""
        return self.now_ms + self.hub_off_ms

    def _core(self) -> HubCore:
        self.starts += 1
        return HubCore(
            self.db, HubIdentity("acme", "central", "hub", self.key.public), self.key.sign, verify, Random(self.starts), self.settings
        )

    def restart(self, image: bytes | None = None) -> None:
        """The hub starts again: from its own disk, or from a backup."""
        if image is not None:
            self.db = Db.load(image)
        self.hub = self._core()

    def edge(
        self,
        node: str,
        *,
        admitted: bool = True,
        image: bytes | None = None,
        linked: bool = True,
        site: str = "Madrid",
        staff: str = "",
    ) -> Edge:
        """A new edge; with `image` a clone of another that has the same name and key; with `staff` a phone."""
        number = len(self.edges) + 1
        key = NodeKey(node.encode().ljust(32, b"-"))
        db = Db(":memory:") if image is None else Db.load(image)
        edge = Edge(self, key, Address("acme", "EMEA", site, node), db, number, staff=staff)
        self.edges.append(edge)
        if admitted and self.hub.registry.get(node) is None:
            self.admit(edge)
        if linked:
            edge.link()
        return edge

    def admit(self, edge: Edge) -> None:
        """By its card."""
        self.hub.begin()
        self.hub.take_card(make_card(edge.key, edge.address.node, edge.address.site, edge.staff), self.hub_ms)
        self.hub.commit()
        self._send(self.hub.effects(self.hub_ms))

    # ------------------------------------------------------------ time goes on

    def run(self, rounds: int = 12, step_ms: int = 1_000, *, store: bool = True) -> None:
        """So many rounds of: edges speak, the hub decides and answers, the store takes."""
        for _ in range(rounds):
            self.now_ms += step_ms
            for edge in self.edges:
                for payload in edge.speaks():
                    for arrived in self.bend(edge.address.node, payload):
                        self.deliver(edge.address.node, arrived)
            if store:
                self.store_turn()
            while self.hub.feeds.busy or self.hub.is_due(self.hub_ms):
                self._send(self.hub.effects(self.hub_ms))

    def says(
        self,
        order_id: str,
        *statuses: str,
        site: str | None = "Madrid",
        actor: str | None = None,
        to: str | list[str] | None = None,
    ) -> list[Appended]:
        """Events of a source system at the centre."""
        self.hub.begin()
        events = [order_event(order_id, status, site=site, actor=actor, to=to) for status in statuses]
        done = self.hub.take_events(events, self.hub_ms)
        self.hub.commit()
        self._send(self.hub.effects(self.hub_ms))
        return done

    def settle(self) -> None:
        """Run until nothing can be left to do."""
        self.run(40)

    def deliver(self, node: str, payload: bytes) -> None:
        """One message reaches the hub, which commits and answers."""
        self.hub.begin()
        self.hub.take_message(node, payload, self.hub_ms)
        self.hub.commit()
        self._send(self.hub.effects(self.hub_ms))

    def store_turn(self) -> None:
        """The store says what it has, and is given what it lacks; what this hub lost comes back."""
        if not self.hub.asked_store:
            self._take_back()
        facts, records = self.hub.lacking_in_store()
        if facts or records:
            applied = self.store.apply(facts, records, self.hub_ms)
            self.applied_new += applied.new
            self.applied_known += applied.known
            self._state(list(dict.fromkeys([*(f.stream for f in facts), *(r.stream for r in records)])))

    def statement(self, streams: list[StreamKey] | None) -> Statement:
        """The store's word; with what the last backup of it covers, where there is one."""
        said = self.store.statement(streams)
        return said if self.backup is None else Statement(said.streams, self.backup)

    def begin_backup(self) -> None:
        """Of the store, as it is now; it is the only one."""
        self.backup = self.store.statement(None).streams

    def ask_store(self) -> None:
        """The store is asked for all that it holds, as the hub does every minute."""
        self._take_back()

    def _state(self, streams: list[StreamKey] | None) -> list[tuple[StreamKey, object]]:
        self.hub.begin()
        older = self.hub.take_statement(self.statement(streams), whole=streams is None, now_ms=self.now_ms)
        self.hub.commit()
        self._send(self.hub.effects(self.hub_ms))
        return list(older)

    def _take_back(self) -> None:
        for key, run in self._state(None):
            self.hub.begin()
            self.hub.take_from_store(self.store.facts(key, run, 10_000), self.store.records(key), self.hub_ms)  # type: ignore[arg-type]
            self.hub.commit()

    def _send(self, effects: list[Publish]) -> None:
        for effect in effects:
            node = parse_topic(effect.topic)[0].node
            for edge in self.edges:
                if edge.address.node == node and edge.linked:
                    edge.hears(effect.payload)

    # ------------------------------------------------------------ asking

    def counts(self, key: StreamKey) -> StreamCounts | None:
        """The store's rows of a stream."""
        return next((count for count in self.store.counts() if count.stream == key), None)

    def held(self, key: StreamKey) -> list[tuple[int, int]]:
        """The runs of a stream at the hub."""
        stream = self.hub.ledger.log.get(key)
        return [] if stream is None else [(run.first, run.last) for run in stream.chain.runs]

    def concerned(self, name: str) -> list[str]:
        """The orders of a site, or of staff by their mark, as the hub's tables say."""
        trees, rows = self.hub.feeds.scopes.trees, self.hub.ledger.db.query("SELECT okey, order_id FROM orders ORDER BY order_id")
        return [str(order_id) for okey, order_id in rows if name in trees.of(okey)]

    def row(self, node: str) -> BalanceRow:
        """A node's line of the balance."""
        counts = {count.stream: count for count in self.store.counts()}
        found = balance(self.hub, self.hub.registry.beats(), counts, self.hub_ms)
        return next(row for row in found["nodes"] if row["node"] == node)
