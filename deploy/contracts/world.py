"""An edge, a hub and a central store in one process, with a clock that stands still: what they say to each other is the examples."""

from __future__ import annotations

from random import Random
from typing import Any, Final

from edge_agent.core import EdgeCore, EdgeIdentity, Now, Publish
from hub.core import HubCore, HubIdentity
from hub.store.port import Statement, StoreFact
from hub.store.sqlite import SqliteStore
from protocols.event import EXAMPLES, EventDefaults, parse_event
from protocols.sqlite import Db
from protocols.telemetry import EXAMPLES as READINGS
from protocols.telemetry import parse_reading
from protocols.topics import Address, Channel, parse_topic
from protocols.trust import NodeKey, make_card, parse_card, verify

EDGE_KEY: Final = NodeKey(bytes(range(32)))
HUB_KEY: Final = NodeKey(bytes(range(1, 33)))
ADDRESS: Final = Address.of("acme", "EMEA", "W8-Madrid", "w8-madrid-1")
HUB: Final = "hub"
START_MS: Final = 1_779_372_315_000
_DEFAULTS: Final = EventDefaults("acme", "EMEA", "W8-Madrid")
_ORDER: Final = {"orderId": "GLOBAL1234", "source": "ERP", "status": "PLACED", "timestamp": "2026-05-21T14:05:00Z", "site": "W8-Madrid"}
_NO_PASSWORD: Final = "scrypt$16384$8$1$" + "A" * 22 + "$" + "A" * 43

Said = tuple[Channel, bytes]


class World:
    """See the module. `said` is all that went over the line, `handed` what the hub gave to the store, each in its order."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self.handed: list[StoreFact] = []
        self._at = 0
        self.edge = EdgeCore(Db(":memory:"), EdgeIdentity(ADDRESS, HUB, HUB_KEY.public), EDGE_KEY.sign, verify, Random(1))
        self.hub = HubCore(Db(":memory:"), HubIdentity("acme", "EMEA", HUB, HUB_KEY.public), HUB_KEY.sign, verify, Random(2))
        self.store = SqliteStore(":memory:")
        self._admit()

    @property
    def now(self) -> Now:
        """Both clocks of the edge; the hub's wall is the same."""
        return Now(START_MS + self._at, self._at)

    def _admit(self) -> None:
        card = make_card(EDGE_KEY, node=ADDRESS.node, org=ADDRESS.org, region=ADDRESS.region, site=ADDRESS.site, password_hash=_NO_PASSWORD)
        self.hub.begin()
        self.hub.take_card(parse_card(card), START_MS)
        self.hub.take_statement(Statement({}), whole=True)
        self.hub.commit()

    def link(self) -> None:
        """The edge's line comes up."""
        self.edge.begin()
        self.edge.take_up(self.now)
        self.edge.commit()

    def capture(self, *events: dict[str, Any]) -> None:
        """The edge says yes to events."""
        self.edge.begin()
        self.edge.take_events([parse_event(dict(e), defaults=_DEFAULTS, now_ms=self.now.wall) for e in events], self.now)
        self.edge.commit()

    def read(self, *readings: dict[str, Any]) -> None:
        """The edge says yes to readings of devices."""
        self.edge.begin()
        self.edge.take_telemetry([parse_reading(dict(one), now_ms=self.now.wall) for one in readings], self.now)
        self.edge.commit()

    def at_the_centre(self, event: dict[str, Any]) -> None:
        """A source system tells the hub."""
        self.hub.begin()
        self.hub.take_events([parse_event(dict(event), defaults=_DEFAULTS, now_ms=self.now.wall)], self.now.wall)
        self.hub.commit()

    def run(self, rounds: int, step_ms: int = 1_000) -> None:
        """Everything arrives."""
        for _ in range(rounds):
            self._at += step_ms
            self._up()
            self._down()

    def _up(self) -> None:
        sent = [effect for effect in self.edge.effects(self.now) if isinstance(effect, Publish)]
        self._note([(p.topic, p.payload) for p in sent])
        self.hub.begin()
        for publish in sent:
            self.hub.take_message(ADDRESS.node, publish.payload, self.now.wall)
        self.hub.commit()

    def _down(self) -> None:
        sent = [*self.hub.effects(self.now.wall)]
        facts, records = self.hub.lacking_in_store()
        self.handed += facts
        if facts:
            self.store.apply(facts, records, self.now.wall)
            self.hub.begin()
            self.hub.take_statement(self.store.statement(), whole=False)
            self.hub.commit()
            sent += self.hub.effects(self.now.wall)
        self._note([(p.topic, p.payload) for p in sent])
        self.edge.begin()
        for publish in sent:
            self.edge.take_message(publish.payload, self.now)
        self.edge.commit()

    def _note(self, sent: list[tuple[str, bytes]]) -> None:
        self.said += [(parse_topic(topic)[1], payload) for topic, payload in sent]


def a_day() -> World:
    """An order placed at the centre is shipped at the edge, where a device tells of itself, too; until both know."""
    world = World()
    world.at_the_centre(_ORDER)
    world.run(1)
    world.capture(EXAMPLES[0])
    world.read(READINGS[0])
    world.link()
    world.run(20)
    return world
