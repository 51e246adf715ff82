"""What an edge frees, and when: rule 11 of sync.md, case by case."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edge_agent.core import Now
from protocols.messages import Receipt, StreamStated
from tests.unit.edge_agent.core_edge import ONE, TWO, Edge
from tests.unit.protocols.ledgers import DAY_MS, event


def settled_edge(*, backed_up: bool = True, **settings: Any) -> Edge:
    """Ten facts, received and settled, and in every backup where there are any."""
    edge = Edge(**settings)
    edge.say(10)
    edge.greet(backed_up=backed_up)
    edge.hear(edge.receipt(received=10, settled=10, freeable=10, backed_up=backed_up))
    return edge


def freed(edge: Edge, **receipt: Any) -> int:
    """What is freed once a receipt was heard."""
    edge.hear(edge.receipt(**{"received": 10, "settled": 10, "freeable": 10, **receipt}))
    assert edge.rows() == 10 - edge.stream().freed_seq
    return edge.stream().freed_seq


def test_settled_backed_up_and_older_than_the_floor_is_freed() -> None:
    edge = settled_edge()
    edge.wait(7 * DAY_MS)
    assert freed(edge) == 10
    assert edge.status()["streams"][0]["freed"] == 10


def test_not_before_the_floor() -> None:
    edge = settled_edge()
    edge.wait(7 * DAY_MS - 1)
    assert freed(edge) == 0


def test_the_floor_counts_by_the_hubs_time_and_not_by_this_machines() -> None:
    edge = settled_edge()
    edge.now = Now(edge.now.wall + 400 * DAY_MS, edge.now.mono + 400 * DAY_MS)
    assert freed(edge) == 0
    edge.hub_ms += 7 * DAY_MS
    edge.now = Now(0, edge.now.mono)
    assert freed(edge) == 10


def test_a_hubs_clock_that_once_ran_ahead_delays_but_does_not_stop_freeing() -> None:
    edge = Edge()
    edge.say(10)
    edge.greet()
    right, edge.hub_ms = edge.hub_ms, edge.hub_ms + 3_650 * DAY_MS
    freed(edge)
    edge.hub_ms = right
    assert freed(edge) == 0
    edge.wait(7 * DAY_MS)
    assert freed(edge) == 10


def test_a_hubs_clock_that_jumps_years_ahead_frees_nothing_before_its_floor_and_forgets_no_request() -> None:
    edge = Edge()
    edge.say(1, key="k")
    edge.greet()
    one: dict[str, Any] = {"received": 1, "settled": 1, "freeable": 1}
    edge.hear(edge.receipt(**one))
    edge.hub_ms += 3_650 * DAY_MS
    edge.hear(edge.receipt(**one))
    assert edge.stream().freed_seq == 0
    edge.wait(7 * DAY_MS)
    edge.hear(edge.receipt(**one))
    assert edge.stream().freed_seq == 1
    edge.hub_ms += 3_650 * DAY_MS
    edge.core.begin()
    edge.core.ledger.forget_requests(edge.core.clock.patient_ms(edge.core.uplink) or 0)
    (again,) = edge.core.take_events([event("order-0", key="k")], edge.now)
    edge.core.commit()
    assert again.repeated


def test_received_frees_nothing() -> None:
    edge = Edge()
    edge.say(10)
    edge.greet()
    for _ in range(3):
        edge.wait(30 * DAY_MS)
        assert freed(edge, settled=0, freeable=0) == 0


def test_settled_but_not_in_every_backup_is_kept() -> None:
    edge = Edge()
    edge.say(10)
    edge.greet()
    for expected in (0, 6):
        assert freed(edge, freeable=6) == expected
        edge.wait(7 * DAY_MS)


def test_without_a_backup_facts_go_only_under_pressure_of_the_budget() -> None:
    calm, pressed = settled_edge(backed_up=False), settled_edge(backed_up=False, pressure_percent=0)
    for edge, expected in ((calm, 0), (pressed, 10)):
        edge.wait(7 * DAY_MS)
        assert freed(edge, backed_up=False) == expected


def test_pressure_does_not_shorten_the_floor() -> None:
    edge = settled_edge(backed_up=False, pressure_percent=0)
    edge.wait(7 * DAY_MS - 1)
    assert freed(edge, backed_up=False) == 0


def test_what_was_freeable_once_and_is_not_any_more_is_kept_until_it_is_again() -> None:
    edge = settled_edge()
    edge.wait(7 * DAY_MS)
    assert freed(edge, settled=4, freeable=4) == 4
    edge.wait(7 * DAY_MS)
    assert freed(edge, settled=4, freeable=4) == 4
    assert freed(edge) == 10


def test_points_of_another_branch_free_nothing() -> None:
    edge = Edge()
    edge.say(10)
    edge.greet()
    for _ in range(2):
        stated = StreamStated(*edge.stream().key, settled=((10, b"elsewher"),), freeable=((10, b"elsewher"), (11, b"beyond h")))
        edge.hear(Receipt(ONE, edge.hub_ms, 9, (stated,), True))
        edge.wait(8 * DAY_MS)
    assert edge.stream().freed_seq == 0


def test_a_message_that_is_ignored_frees_nothing() -> None:
    edge = settled_edge()
    edge.wait(7 * DAY_MS)
    edge.core.begin()
    edge.core.take_down()
    edge.core.commit()
    edge.hear(edge.receipt(received=10, settled=10, freeable=10))
    assert edge.stream().freed_seq == 0
    edge.incarnation = TWO
    edge.greet()
    assert edge.stream().freed_seq == 0, "the new incarnation said nothing of it yet"
    assert freed(edge) == 10, "the days that passed still count"


def test_pressure_that_comes_while_no_hub_is_believed_waits_for_one() -> None:
    edge = settled_edge(backed_up=False)
    edge.wait(7 * DAY_MS)
    assert freed(edge, backed_up=False) == 0
    edge.core.settings = replace(edge.core.settings, pressure_percent=0)
    edge.hear(Receipt(TWO, edge.hub_ms, 9, ()))
    assert edge.stream().freed_seq == 0
    edge.incarnation = TWO
    edge.greet(backed_up=False)
    assert freed(edge, backed_up=False) == 10


def test_the_days_outlive_a_restart() -> None:
    edge = settled_edge()
    again = Edge(edge.db)
    again.wait(7 * DAY_MS)
    again.greet()
    assert freed(again) == 10


def test_each_day_is_remembered_by_itself() -> None:
    """Facts of later days do not keep those of the first from going, nor go with them."""
    edge = Edge()
    edge.say(10)
    edge.greet()
    for day in range(10):
        assert freed(edge, settled=day + 1, freeable=day + 1) == max(0, day - 6)
        edge.wait(DAY_MS)


def test_a_request_is_known_thirty_days_beyond_its_freeing_by_the_hubs_time() -> None:
    edge = Edge()
    edge.say(1, key="k")
    edge.greet()
    one = {"received": 1, "settled": 1, "freeable": 1}
    edge.hear(edge.receipt(**one))  # type: ignore[arg-type]
    edge.wait(7 * DAY_MS)
    edge.hear(edge.receipt(**one))  # type: ignore[arg-type]
    assert edge.stream().freed_seq == 1
    edge.wait(29 * DAY_MS)
    edge.core.begin()
    (again,) = edge.core.take_events([event("order-0", key="k")], edge.now)
    edge.core.commit()
    assert (again.seq, again.repeated) == (1, True)


def test_what_stands_in_quarantine_is_kept_and_all_behind_it() -> None:
    edge = settled_edge()
    ledger = edge.core.ledger
    ledger.begin()
    ledger.quarantine(edge.stream().sid, 4, b"h" * 8, "refused by the hub", edge.now.wall)
    ledger.commit()
    edge.wait(7 * DAY_MS)
    assert freed(edge) == 3
