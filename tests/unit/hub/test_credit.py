"""Credit: a room divided among those who have something to send, and none while the disk is full."""

from __future__ import annotations

from hub.core import HubSettings
from hub.credit import BUSY_MS, Credit
from tests.unit.hub.hub_world import World


def test_a_lone_node_gets_the_most_and_a_thousand_share_the_room() -> None:
    credit = Credit(10_000, room=200_000, least=200)
    credit.busy("a", 0)
    assert credit.each() == 10_000
    for n in range(100):
        credit.busy(f"n{n}", 0)
    assert credit.each() == 200_000 // 101
    for n in range(5_000):
        credit.busy(f"n{n}", 0)
    assert credit.each() == 200


def test_who_rests_gives_its_share_back() -> None:
    credit = Credit(10_000, room=20_000)
    for n in range(4):
        credit.busy(f"n{n}", n * 1_000)
    credit.rested(3_000)
    assert credit.each() == 5_000
    credit.rested(2_000 + BUSY_MS)
    assert credit.nodes == 1
    assert credit.each() == 10_000


def test_a_clock_that_went_back_makes_nobody_busy_for_ever() -> None:
    credit = Credit(10_000)
    credit.busy("a", 1_000_000)
    credit.rested(5_000)
    assert credit.nodes == 0


def test_a_full_disk_gives_none() -> None:
    credit = Credit(10_000)
    credit.full = True
    assert credit.each() == 0


def test_a_small_setting_is_never_exceeded() -> None:
    assert Credit(5).each() == 5


def test_of_nodes_with_a_backlog_a_few_send_it_and_the_others_what_is_fresh_until_it_is_their_turn() -> None:
    world = World(HubSettings(credit_facts=20, room_facts=40))
    docks = [world.edge(f"dock-{n}") for n in range(5)]
    for dock in docks:
        for n in range(60):
            dock.says(f"{dock.address.node}-{n}", "PLACED")
    world.run(2, 100)
    waits = [dock.core.uplink.later for dock in docks]
    assert waits == [False, False, True, True, True]
    assert world.hub.credit.turns.waiting == 3
    docks[4].says("fresh", "PLACED")
    world.run(3, 100)
    assert docks[4].core.ledger.own().settled_seq == 0
    assert docks[4].core.uplink.unreceived(docks[4].core.ledger.own()) <= 60, "the fresh one went ahead of the sixty"
    world.run(100, 1_000)
    assert [dock.core.ledger.own().settled_seq for dock in docks] == [60, 60, 60, 60, 61]
    assert world.hub.credit.turns.waiting == 0


def test_nodes_hear_of_their_share_with_each_receipt() -> None:
    world = World(HubSettings(credit_facts=1_000))
    world.hub.credit.room = 1_200
    docks = [world.edge(f"dock-{n}") for n in range(4)]
    for dock in docks:
        for n in range(30):
            dock.says(f"{dock.address.node}-{n}", "PLACED")
    world.run(4, 100)
    assert {dock.core.uplink.credit for dock in docks} == {300}
    world.run(200, 1_000)
    assert world.hub.credit.nodes == 0
    docks[0].says("last", "PLACED")
    world.run(2)
    assert docks[0].core.uplink.credit == 1_000
