"""A fact that alone is too large for the line: in quarantine with its reason, nobody waits for it, and what helps, helps."""

from __future__ import annotations

from dataclasses import replace

from edge_agent.core import Publish
from edge_agent.quarantine import take_discard, take_resubmit
from protocols.quarantine import Item, State
from protocols.sync.aside import AGAIN_MS
from tests.unit.edge_agent.core_edge import Edge, ranges
from tests.unit.protocols.ledgers import event


def items(edge: Edge) -> list[Item]:
    return edge.core.ledger.quarantine_rows.items()


def one_aside() -> Edge:
    edge = Edge()
    edge.say()
    sent = edge.greet()
    (frame,) = [e.payload for e in sent if isinstance(e, Publish) and e.topic.endswith(("live", "backfill"))]
    edge.core.begin()
    edge.core.take_too_large(frame, edge.now)
    edge.core.commit()
    return edge


def test_it_is_in_quarantine_with_the_reason_and_what_helps() -> None:
    (item,) = items(one_aside())
    assert item.reason.startswith("too large for the line: its frame takes ") and "max_packet_size" in item.reason
    assert len(item.reason) <= 200 and item.identity[1] == 1 and item.state is State.OPEN


def test_nobody_waits_for_it_and_it_is_tried_again_after_an_hour_or_a_restart() -> None:
    edge = one_aside()
    edge.say(3)
    assert [(first, last) for _, first, last in ranges(edge.effects(30))] == [(2, 4)]
    edge.core.take_down()
    assert [(first, last) for _, first, last in ranges(edge.greet())] == [(2, 4)], "not even on a new line"
    edge.core.take_down()
    edge.wait(AGAIN_MS)
    assert 1 in [first for _, first, _ in ranges(edge.greet())]
    again = Edge(edge.db)
    assert 1 in [first for _, first, _ in ranges(again.greet())]


def test_once_the_hub_has_it_whichever_way_it_is_in_quarantine_no_longer() -> None:
    edge = one_aside()
    assert len(items(edge)) == 1
    edge.hear(edge.receipt(received=1))
    assert items(edge) == []
    other = Edge(one_aside().db)  # also after a restart
    other.greet()
    other.hear(other.receipt(received=1))
    assert items(other) == []


def test_a_shorter_fact_takes_its_place_and_travels_at_once() -> None:
    edge = one_aside()
    (item,) = items(edge)
    edge.core.begin()
    take_resubmit(edge.core, edge.now, qid=item.qid, event=replace(event("order-0"), details={}))
    edge.core.commit()
    assert items(edge)[0].state is State.RESUBMITTED
    assert [(first, last) for _, first, last in ranges(edge.effects(30))] == [(2, 2)]
    edge.hear(edge.receipt(received=1))
    assert [one.state for one in items(edge)] == [State.RESUBMITTED], "what was done about it stays in the history"


def test_it_can_be_given_up() -> None:
    edge = one_aside()
    (item,) = items(edge)
    edge.core.begin()
    take_discard(edge.core, edge.now, qid=item.qid, why="a test", actor="ana")
    edge.core.commit()
    assert items(edge)[0].state is State.DISCARDED
