"""What a node hears of its bad facts, and how streams share the way into the central store."""

from __future__ import annotations

import pytest

from edge_agent.core import EdgeSettings
from hub import handing as hub_handing
from protocols.codec import pack
from protocols.sync.uplink import UplinkSettings
from tests.unit.hub import hub_world
from tests.unit.hub.hand_streams import KEY, Branch, Hand, fact
from tests.unit.hub.hub_world import World

LATER_VERSION = 9


def test_every_fact_that_was_quarantined_is_told_to_its_author_however_many_came_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_world, "FAST", EdgeSettings(UplinkSettings(frame_facts=500, linger_ms=0, retry_ms=2_000), heartbeat_ms=5_000))
    world = World()
    dock = world.edge("dock-7", linked=False)
    ledger = dock.core.ledger
    dock.core.begin()
    for n in range(100):
        ledger._log_own(ledger.own(), pack([LATER_VERSION, n]), None, 1)
    dock.core.commit()
    dock.link()
    world.settle()
    assert len(world.hub.ledger.quarantined()) == 100
    assert len(ledger.quarantined()) == 100


def test_a_continues_record_that_says_nothing_sensible_steps_aside() -> None:
    world = World()
    hand = Hand(world, Branch.of([pack([2, 0, 0, b"short"]), fact(1)]))
    hand.send(1, 2)
    reasons = [row["reason"] for row in world.hub.ledger.quarantined()]
    assert len(reasons) == 1
    assert "continues" in reasons[0]
    assert hand.at_hub() == ["1-2 DATA"], "the stream behind it flows"


def test_a_long_backlog_of_one_node_does_not_hold_back_the_fresh_fact_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_handing, "HAND_OVER_SHARE", 1)
    world = World()
    world.run(2)
    hand = Hand(world, Branch.of(fact(n) for n in range(60)))
    hub = world.hub
    hub.begin()
    for first in (1, 21, 41):
        hub.take_message(KEY.node, hand.frame(first, first + 19), 1)
    world_events = [pack([1, "acme", "Z1", "ERP", 1, None, 1, 1, None, None, None, {}, []])]
    own = hub.ledger._log_own(hub.ledger.own(), world_events[0], None, 1)
    hub.handing.unhanded[hub.ledger.own().key] = None
    hub.commit()
    facts, _ = hub.lacking_in_store(limit=10)
    assert len(facts) <= 10
    assert any(f.stream == hub.ledger.own().key and f.seq == own.seq for f in facts), "it is in the first turn"
    assert [f.seq for f in facts if f.stream == KEY] == list(range(1, len(facts))), "each stream in chain order"


def test_the_stream_that_had_its_turn_waits_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_handing, "HAND_OVER_SHARE", 5)
    world = World()
    world.run(2)
    hand = Hand(world, Branch.of(fact(n) for n in range(20)))
    hub = world.hub
    hub.begin()
    hub.take_message(KEY.node, hand.frame(1, 20), 1)
    hub.ledger._log_own(hub.ledger.own(), fact(99), None, 1)
    hub.handing.unhanded[hub.ledger.own().key] = None
    hub.commit()
    first, _ = hub.lacking_in_store(limit=5)
    assert {f.stream for f in first} == {KEY}
    second, _ = hub.lacking_in_store(limit=5)
    assert second[0].stream == hub.ledger.own().key


def test_only_what_its_author_signed_shows_that_a_node_lives() -> None:
    world = World()
    hand = Hand(world, Branch.of(fact(n) for n in range(2)))
    good = hand.frame(1, 1)
    world.deliver(KEY.node, good[:-1] + bytes([good[-1] ^ 1]))
    assert world.hub.seen_ms(KEY.node) is None
    world.deliver(KEY.node, good)
    assert world.hub.seen_ms(KEY.node) is not None
