"""A comparison whose answers fill message after message leaves no order out. Found by processes that were killed (tests/chaos)."""

from __future__ import annotations

import pytest

from hub import feed_message
from protocols.lifecycle import Status
from tests.unit.hub.hub_world import World


def test_a_leaf_that_is_gone_on_with_at_the_end_of_a_full_message_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message takes one order: the rest of a leaf then often comes up when a message is full already with another leaf."""
    world = World()
    dock = world.edge("dock-1")
    world.run()
    orders = [f"A{n}" for n in range(300)]
    for order in orders:
        world.says(order, "PLACED")
    world.run(60)
    dock.cut()
    for order in orders:
        world.says(order, "APPROVED")
    world.restart(None)
    monkeypatch.setattr(feed_message, "FULL_BYTES", 1)
    dock.link()
    world.run(1_500, 1_000)
    assert dock.core.follower.whole
    behind = dock.core.ledger.db.query("SELECT order_id FROM orders WHERE status<>?", (int(Status.APPROVED),))
    assert behind == []
