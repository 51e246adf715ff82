"""Claims on their way between workers: said, heard, said again, and what others may throw in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from hub.store.leases import Me
from hub.worker_claims import ECHO_MS, Claims, Place
from protocols.claims import Claim, seal_claim
from protocols.topics import Access, Rule, claims_of, hub_acl
from protocols.transport.memory import MemoryBroker, MemoryTransport
from protocols.transport.port import Event, Message
from protocols.trust import NodeKey

HUB, STRANGER = NodeKey(b"h" * 32), NodeKey(b"s" * 32)
EVERYTHING = claims_of("acme", "hub")


def by_the_rules(_user: str, _password: str) -> Sequence[Rule]:
    return hub_acl("acme")


class Worker:
    """What a worker would be to its claims: what it holds, and what it let go of."""

    def __init__(self, name: str, held: dict[int, int], broker: MemoryBroker) -> None:
        self.held, self.lost, self.now, self.broker = held, list[Claim](), 0, broker
        place = Place("acme", "hub", HUB, Me(name, len(name)))
        self.claims = Claims(place, lambda: self.held, self._robbed, lambda: self.now)

    def _robbed(self, claim: Claim) -> None:
        self.lost.append(claim)
        self.held.pop(claim.partition)

    def _line(self, topics: Sequence[str]) -> MemoryTransport:
        return self.broker.transport(subscriptions=topics)

    async def start(self) -> None:
        self.claims.start(self._line)
        await settled(self.broker)


class Other:
    """Somebody else at the broker: throws things in, and counts what comes."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.heard: list[Event] = []
        self._line, self._broker = broker.transport(subscriptions=[EVERYTHING]), broker
        self._line.start(self.heard.append)
        broker.pump()

    def says(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._line.publish(topic, payload, retain=retain)

    def topics(self) -> list[str]:
        said = sorted(event.topic for event in self.heard if isinstance(event, Message))
        self.heard.clear()
        return said


async def settled(broker: MemoryBroker) -> None:
    """Everything is delivered, and looked at, and so is what followed of it."""
    for _ in range(4):
        broker.pump()
        await asyncio.sleep(0)


def in_loop(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 10))


def test_a_worker_hears_that_another_has_taken_over_and_nobody_else_minds() -> None:
    async def story() -> None:
        broker = MemoryBroker(by_the_rules)
        one, two, three = Worker("w1", {1: 5, 2: 5}, broker), Worker("w2", {3: 8}, broker), Worker("w3", {}, broker)
        for worker in (one, two, three):
            await worker.start()
        two.held[1] = 6
        two.claims.say({1: 6})
        await settled(broker)
        assert [(c.partition, c.fence, c.worker) for c in one.lost] == [(1, 6, "w2")] and one.held == {2: 5}
        assert two.lost == three.lost == [] and not one.claims.finding()
        for worker in (one, two, three):
            await worker.claims.stop()

    in_loop(story)


def test_who_was_away_hears_what_was_kept() -> None:
    async def story() -> None:
        broker = MemoryBroker(by_the_rules)
        two = Worker("w2", {1: 6}, broker)
        await two.start()
        one = Worker("w1", {1: 5, 2: 5}, broker)
        await one.start()
        assert [c.fence for c in one.lost] == [6] and two.lost == []

    in_loop(story)


def test_who_claims_too_old_a_fence_is_told_of_the_newer() -> None:
    async def story() -> None:
        broker = MemoryBroker(by_the_rules)
        one, two = Worker("w1", {1: 5}, broker), Worker("w2", {}, broker)
        await two.start()
        two.held[1] = 6  # what it said of it was lost
        await one.start()
        assert [c.fence for c in one.lost] == [6] and two.lost == []

    in_loop(story)


def test_what_is_held_is_said_whenever_the_line_is_up_anew() -> None:
    async def story() -> None:
        broker = MemoryBroker(by_the_rules)
        one = Worker("w1", {1: 5, 2: 7}, broker)
        await one.start()
        broker.stop()  # it forgets what it kept
        one.held[3] = 1
        one.claims.say({3: 1})
        await settled(broker)
        broker.start()
        await settled(broker)
        assert Other(broker).topics() == [claims_of("acme", "hub", n) for n in (1, 2, 3)]

    in_loop(story)


def test_what_is_forged_malformed_old_or_anothers_changes_nothing() -> None:
    async def story() -> None:
        broker = MemoryBroker(by_the_rules)
        one, other = Worker("w1", {1: 5}, broker), Other(broker)
        await one.start()
        own = claims_of("acme", "hub", 1)
        assert other.topics() == [own]
        thrown = [
            (own, seal_claim(Claim(1, 9, "w2", 1), STRANGER.sign)),
            (own, b"\xc1 rubbish"),
            (own, seal_claim(Claim(1, 9, "w2", 1), HUB.sign)[:-1]),
            (own, seal_claim(Claim(1, 5, "w1", 1), HUB.sign)),
            (own, seal_claim(Claim(2, 9, "w2", 1), HUB.sign)),
            (own, seal_claim(Claim(1, 4, "w2", 1), STRANGER.sign)),
            (claims_of("acme", "hub", 2), seal_claim(Claim(1, 9, "w2", 1), HUB.sign)),
        ]
        for topic, payload in thrown:
            other.says(topic, payload)
        await settled(broker)
        assert one.lost == [] and one.held == {1: 5}
        assert other.topics() == [topic for topic, _ in thrown], "nothing is answered"
        other.says(own, seal_claim(Claim(1, 6, "w2", 1), HUB.sign))
        await settled(broker)
        assert [c.fence for c in one.lost] == [6]

    in_loop(story)


def test_a_broker_that_lets_no_claim_through_is_named() -> None:
    async def story() -> None:
        writes = [True]
        broker = MemoryBroker(lambda _user, _password: hub_acl() if writes[0] else ((Access.READ, "#"),))
        one = Worker("w1", {1: 5}, broker)
        writes[0] = False
        await one.start()
        assert one.claims.finding() == ""
        one.now = ECHO_MS + 1
        assert "longshore-hub broker acl" in one.claims.finding()
        one.held.clear()
        assert one.claims.finding() == "", "it is another's by now"
        one.held[1] = 5
        writes[0] = True
        broker.stop()
        assert one.claims.finding() == ""
        broker.start()
        await settled(broker)
        one.now += 2 * ECHO_MS
        assert one.claims.finding() == ""

    in_loop(story)
