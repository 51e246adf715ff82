"""Phones that reach the hub through gateways, without sockets: cores over databases in memory, a line that a test holds.

world = World()
gate, phone = gateway(world, "gate-1"), roaming(world, "phone-1")
befriend(gate, phone)
visit(phone, gate)
"""

from __future__ import annotations

import json
from random import Random

from edge_agent.core import EdgeCore, EdgeIdentity, EdgeSettings, Publish
from edge_agent.relay import RelaySettings, Taken
from protocols.sync.uplink import UplinkSettings
from protocols.trust import make_card as signed_card
from protocols.trust import verify
from tests.unit.hub.hub_world import PASSWORD_HASH, Edge, World

SMALL = EdgeSettings(
    UplinkSettings(frame_facts=4, linger_ms=0, retry_ms=2_000),
    heartbeat_ms=5_000,
    relay=RelaySettings(retry_ms=3_000, window_payloads=3, ask_ms=5_000),
    handout_ms=2_000,
)


def card_of(edge: Edge) -> dict[str, str]:
    """As `init` writes it."""
    a = edge.address
    return signed_card(edge.key, node=a.node, org=a.org, region=a.region, site=a.site, password_hash=PASSWORD_HASH)


def gateway(world: World, node: str, *, linked: bool = True, settings: EdgeSettings = SMALL) -> Edge:
    """An edge that others may come to."""
    edge = world.edge(node, linked=False)
    again(edge, settings)
    if linked:
        edge.link()
    return edge


def again(edge: Edge, settings: EdgeSettings = SMALL) -> None:
    """Its core anew, from what is on disk."""
    edge.linked = False
    identity = EdgeIdentity(edge.address, "hub", edge.world.key.public)
    edge.core = EdgeCore(edge.db, identity, edge.key.sign, verify, Random(edge.seed), settings)


def roaming(world: World, node: str) -> Edge:
    """A phone: no line of its own to the hub."""
    edge = world.edge(node, linked=False)
    again(edge)
    return edge


def befriend(gate: Edge, *phones: Edge) -> None:
    """The gateway's operator adds their cards."""
    gate.core.begin()
    for phone in phones:
        gate.core.relay.peers.add(json.loads(json.dumps(card_of(phone))), gate.world.now_ms)
    gate.core.commit()


def arrive(edge: Edge) -> None:
    """Its transport says that it is connected (to whatever)."""
    edge.core.begin()
    edge.core.take_up(edge.now)
    edge.core.commit()


def leave(edge: Edge) -> None:
    """And that it is not any more."""
    edge.core.begin()
    edge.core.take_down()
    edge.core.commit()


def spoken(edge: Edge) -> list[bytes]:
    """What it would send now, whoever it is connected to."""
    return [e.payload for e in edge.core.effects(edge.now) if isinstance(e, Publish)]


def bring(gate: Edge, payloads: list[bytes]) -> list[Taken]:
    """The gateway takes them, on disk."""
    gate.core.begin()
    done = gate.core.take_sync(payloads, gate.now)
    gate.core.commit()
    return done


def visit(phone: Edge, gate: Edge, rounds: int = 1) -> list[Taken]:
    """One exchange as POST /v1/sync does it: what the phone has to say, and what waits for it; then a second for everybody else."""
    done: list[Taken] = []
    for _ in range(rounds):
        done += bring(gate, spoken(phone))
        for payload in gate.core.relay.mailboxes.take(phone.address.node, 1_000_000):
            phone.hears(payload)
        gate.world.run(1)
    return done


def frames_of(phone: Edge) -> list[bytes]:
    """All it has that is not settled, as frames for anybody."""
    page = phone.core.carry.page(None, 10**9)
    assert page.cursor is None
    return page.payloads


def pair(*, linked: bool = True) -> tuple[World, Edge, Edge]:
    """A gateway and a phone that knows it."""
    world = World()
    gate, phone = gateway(world, "gate-1", linked=linked), roaming(world, "phone-1")
    befriend(gate, phone)
    return world, gate, phone


def orders(edge: Edge) -> dict[str, str]:
    """What an edge shows: {order: status}."""
    return {
        str(order_id): str(status)
        for order_id, status in edge.core.ledger.db.query("SELECT order_id, status FROM orders ORDER BY order_id")
    }


def stored(world: World, phone: Edge) -> int:
    counts = world.counts(phone.key_of_stream)
    return 0 if counts is None else counts.facts


def kept(gate: Edge) -> tuple[int, int]:
    """(facts, payloads) in custody and not settled."""
    counts = gate.core.custody.counts()
    return counts.events, counts.payloads
