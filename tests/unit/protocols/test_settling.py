"""Conflicts as ledgers keep them: open, held, settled by a fact like any other; the same at every node, whatever came first."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.store.port import StoreFact
from hub.store.sqlite import SqliteStore
from protocols.clashes import Clash, State, clash_json, read_clashes
from protocols.errors import Conflict, InvalidInput
from protocols.event import EventDefaults, OrderEvent, TimeQuality
from protocols.fact import FactRow
from protocols.ledger import Appended, Ledger
from protocols.lifecycle import Status
from protocols.merged import totals
from protocols.policies import FILE, parse, shipped
from protocols.policy import Outcome, Policies
from protocols.settling import closed_words, parse_settlement
from protocols.sqlite import Db
from tests.unit.protocols.ledgers import NOW_MS, ORG, Range, offer, range_of, say

DEFAULTS = EventDefaults(ORG, "EMEA", "W8")


def watched(node: str, db: Db | None = None, policies: Policies | None = None) -> Ledger:
    """A ledger that keeps its conflicts, as an edge's does."""
    numbers = count(101)
    return Ledger(db or Db(":memory:"), node=node, new_epoch=lambda: next(numbers), policies=policies or shipped())


def event(status: Status, site: str | None = "W8", actor: str | None = None, order_id: str = "A", **details: object) -> OrderEvent:
    """What somebody says of an order; without a site, at the centre."""
    return OrderEvent(ORG, order_id, "WMS", status, NOW_MS, TimeQuality.STATED, "EMEA", site, actor, details)


def tell(*ledgers: Ledger) -> None:
    """Each hears everything that the others wrote."""
    said = [(led, range_of(led)) for led in ledgers if led.own().head[0]]
    for led in ledgers:
        for author, facts in said:
            if author is not led:
                offer(led, facts)


def clashes(led: Ledger) -> list[Clash]:
    led.flush()
    return read_clashes(led.db, "1", (), "cid")


def open_ones(led: Ledger) -> list[Clash]:
    return [clash for clash in clashes(led) if clash.state is State.OPEN]


def settle(led: Ledger, clash: Clash, status: str = "RETURNED", now_ms: int = NOW_MS, **more: object) -> Appended:
    """As API and command line do."""
    said = {"status": status, "actor": "ana", **more}
    try:
        (done,) = say(led, parse_settlement(said, clash, ORG, "A", defaults=DEFAULTS, now_ms=now_ms), now_ms=now_ms)
    except Conflict:
        led.db.rollback()
        raise
    return done


@pytest.fixture
def pair() -> tuple[Ledger, Ledger]:
    """Cancelled at the centre while picked at a dock that was cut off; then the link is back."""
    dock, centre = watched("dock-7"), watched("hub")
    say(centre, event(Status.PLACED, None))
    tell(dock, centre)
    say(dock, event(Status.PICKED, actor="ana"))
    say(centre, event(Status.CANCELLED, None, "desk-2"))
    tell(dock, centre)
    return dock, centre


def test_a_cancellation_beside_a_pick_holds_the_order_and_opens_a_task_at_both_ends(pair: tuple[Ledger, Ledger]) -> None:
    told = [clash_json(clash, ORG, "A") for led in pair for clash in open_ones(led)]
    assert told[0] | {"raisedAt": ""} == told[1] | {"raisedAt": ""}
    assert (told[0]["outcome"], told[0]["held"], told[0]["policy"], told[0]["state"]) == ("hold", True, "cancelled-in-hand", "open")
    assert (told[0]["task"]["for"], told[0]["task"]["open"], told[0]["credited"]) == ("dock", True, ["desk-2", "ana"])
    for led in pair:
        order = led.book.get(ORG, "A")
        assert order is not None
        assert (order.conflict, order.held, len(order.heads)) == (True, True, 2)
        assert led.db.query("SELECT conflict, held, status FROM orders") == [(1, 1, int(Status.CANCELLED))]


def test_settled_at_the_dock_it_is_settled_everywhere_by_name_and_note(pair: tuple[Ledger, Ledger]) -> None:
    dock, centre = pair
    (clash,) = open_ones(dock)
    done = settle(dock, clash, note="back on shelf 3")
    tell(dock, centre)
    for led in pair:
        (closed,) = clashes(led)
        assert (closed.id, closed.state, closed.outcome) == (clash.id, State.SETTLED, Outcome.HOLD)
        (by,) = closed.settled_by
        assert (by.fact_id, by.actor, by.status, by.note) == (done.fact_id, "ana", Status.RETURNED, "back on shelf 3")
        assert set(by.settles) == {clash.shown.fact_id, clash.other.fact_id}
        told = clash_json(closed, ORG, "A")
        assert (told["open"], told["held"], told["task"]["open"]) == (False, False, False)
        order = led.book.get(ORG, "A")
        assert order is not None
        assert (order.conflict, order.held, [head.status for head in order.heads]) == (False, False, [Status.RETURNED])
    assert "settled already: returned at W8 by ana" in closed_words(clashes(centre)[0])


def test_the_order_of_arrival_does_not_matter_for_who_settled(pair: tuple[Ledger, Ledger]) -> None:
    dock, centre = pair
    settle(dock, open_ones(dock)[0])
    late = watched("late")
    for facts in reversed([*range_of(centre).singles(), *range_of(dock).singles()]):
        offer(late, facts)
    assert open_ones(late) == []
    order = late.book.get(ORG, "A")
    assert order is not None
    assert (order.conflict, order.held) == (False, False)


def test_an_ordinary_event_that_has_seen_both_settles_too(pair: tuple[Ledger, Ledger]) -> None:
    dock, _ = pair
    (done,) = say(dock, event(Status.RETURNED, actor="ben"))
    (closed,) = clashes(dock)
    assert (closed.state, closed.settled_by[0].fact_id, closed.settled_by[0].settles) == (State.SETTLED, done.fact_id, ())


def test_what_is_settled_is_not_settled_again_and_says_who_did(pair: tuple[Ledger, Ledger]) -> None:
    dock, _ = pair
    (clash,) = open_ones(dock)
    settle(dock, clash)
    with pytest.raises(Conflict, match="not open here any more"):
        settle(dock, clash, "PACKED")


def test_the_same_request_again_gives_the_first_answer_also_later(pair: tuple[Ledger, Ledger]) -> None:
    dock, _ = pair
    (clash,) = open_ones(dock)
    first = settle(dock, clash, idempotencyKey="k1")
    again = settle(dock, clash, idempotencyKey="k1", now_ms=NOW_MS + 60_000)
    assert (again.fact_id, first.repeated, again.repeated) == (first.fact_id, False, True)
    with pytest.raises(Conflict, match="k1"):
        settle(dock, clash, "PACKED", idempotencyKey="k1")


def test_who_names_what_he_saw_does_not_settle_what_he_did_not_see(pair: tuple[Ledger, Ledger]) -> None:
    dock, _ = pair
    (clash,) = open_ones(dock)
    seen = [clash.shown.fact_id, clash.other.fact_id]
    third = watched("dock-9")
    say(third, event(Status.PACKED, "W9"))
    tell(dock, third)
    with pytest.raises(Conflict, match="has changed since"):
        settle(dock, clash, heads=seen)
    settle(dock, clash)
    assert open_ones(dock) == []


def test_two_who_settle_at_once_are_a_conflict_of_their_own_if_they_disagree(pair: tuple[Ledger, Ledger]) -> None:
    dock, centre = pair
    (clash,) = open_ones(dock)
    settle(dock, clash, "RETURNED")
    settle(centre, clash, "PACKED", actor="desk-2", site="HQ")
    tell(dock, centre)
    for led in pair:
        first, second = clashes(led)
        assert (first.state, sorted(str(told.actor) for told in first.settled_by)) == (State.SETTLED, ["ana", "desk-2"])
        assert (second.state, second.policy, second.outcome) == (State.OPEN, "settled-differently", Outcome.TASK)
    settle(centre, open_ones(centre)[0], "RETURNED", actor="boss")
    tell(dock, centre)
    assert [open_ones(led) for led in pair] == [[], []]


def test_two_who_settle_at_once_alike_agree(pair: tuple[Ledger, Ledger]) -> None:
    dock, centre = pair
    (clash,) = open_ones(dock)
    settle(dock, clash)
    settle(centre, clash, actor="desk-2")
    tell(dock, centre)
    assert [open_ones(led) for led in pair] == [[], []]
    assert [len(led.book.get(ORG, "A").heads) for led in pair] == [2, 2]  # type: ignore[union-attr]


def test_one_who_goes_on_without_knowing_makes_it_another_conflict(pair: tuple[Ledger, Ledger]) -> None:
    dock, centre = watched("dock-7"), watched("hub")
    say(dock, event(Status.PICKED))
    say(centre, event(Status.CANCELLED, None))
    offer(centre, range_of(dock))
    say(dock, event(Status.PACKED))
    offer(centre, range_of(dock))
    first, second = clashes(centre)
    assert (first.state, first.settled_by, second.state) == (State.WENT_ON, (), State.OPEN)
    assert "went on without knowing" in closed_words(first)


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ([], "body"),
        ({"actor": "ana"}, "status"),
        ({"status": "GONE", "actor": "ana"}, "status"),
        ({"status": "RETURNED"}, "actor"),
        ({"status": "RETURNED", "actor": 7}, "actor"),
        ({"status": "RETURNED", "actor": "a", "note": "x" * 500}, "note"),
        ({"status": "RETURNED", "actor": "a", "heads": "x"}, "heads"),
        ({"status": "RETURNED", "actor": "a", "orderId": "B"}, "orderId"),
        ({"status": "RETURNED", "actor": "a", "details": {"settles": []}}, "details.settles"),
        ({"status": "RETURNED", "actor": "a", "timestamp": "yesterday"}, "timestamp"),
    ],
)
def test_a_bad_settlement_is_refused_by_its_field(said: object, field: str, pair: tuple[Ledger, Ledger]) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_settlement(said, open_ones(pair[0])[0], ORG, "A", defaults=DEFAULTS, now_ms=NOW_MS)
    assert caught.value.field == field


def test_another_table_of_policies_judges_at_the_next_start(tmp_path: Path) -> None:
    dock, centre = watched("dock-7", Db(tmp_path / "a.db")), watched("hub")
    say(dock, event(Status.PICKED))
    say(centre, event(Status.CANCELLED, None))
    tell(dock, centre)
    assert [clash.outcome for clash in open_ones(dock)] == [Outcome.HOLD]
    dock.db.close()
    softer = parse(FILE.read_text("utf-8").replace("outcome: hold", "outcome: task"), "softer.yaml")
    again = watched("dock-7", Db(tmp_path / "a.db"), softer)
    assert [clash.outcome for clash in open_ones(again)] == [Outcome.TASK]
    assert again.db.query("SELECT conflict, held FROM orders") == [(1, 0)]
    again.db.close()


def test_an_edge_that_freed_a_fact_still_knows_who_said_it() -> None:
    dock, centre = watched("dock-7"), watched("hub")
    say(dock, event(Status.PICKED, actor="ana"))
    say(centre, event(Status.CANCELLED, None, "desk-2"))
    offer(dock, range_of(centre))
    (before,) = open_ones(dock)
    dock.begin()
    dock.db.run("DELETE FROM log WHERE sid=?", (dock.own().sid,))
    dock.commit()
    say(centre, event(Status.REFUNDED, None, "desk-2"))
    offer(dock, range_of(centre))
    after = open_ones(dock)
    assert [(clash.policy, clash.other.actor) for clash in after] == [("refunded-in-hand", "ana")]
    assert before.other.actor == "ana"


# ------------------------------------------------------------ the same at edge, hub and store, whatever came first


def history(seed: int, steps: int) -> list[Ledger]:
    """Three nodes that write about one order, hear of each other now and then, count, and settle what they see open."""
    chance = Random(seed)
    nodes = [watched("dock-1"), watched("dock-2"), watched("hub")]
    for _ in range(steps):
        led = chance.choice(nodes)
        found = open_ones(led)
        what = chance.random()
        if what < 0.25:
            tell(*chance.sample(nodes, 2))
        elif what < 0.4 and found:
            settle(led, chance.choice(found), chance.choice(["RETURNED", "PACKED", "DELIVERED"]))
        else:
            status = chance.choice([Status.PICKED, Status.PACKED, Status.SHIPPED, Status.CANCELLED, Status.REFUNDED, Status.HELD])
            counted = {"quantities": {"picked": chance.randint(-2, 9)}} if chance.random() < 0.5 else {}
            said = event(status, None if led.node == "hub" else "W8", chance.choice([None, "ana", "ben"]))
            say(led, replace(said, details=dict(counted)))
    return nodes


def outcome(led: Ledger) -> tuple[object, ...]:
    order = led.book.get(ORG, "A")
    if order is None:
        return ()
    found = sorted((clash.id, clash.policy, clash.outcome, clash.sentence) for clash in open_ones(led))
    return found, order.conflict, order.held, totals(order.counted)


def outcome_of_store(ranges: list[Range]) -> tuple[object, ...]:
    store = SqliteStore(":memory:")
    for facts in ranges:
        ((row, _),) = facts.facts
        store.apply([StoreFact(facts.key, facts.first, facts.hashes[0], facts.h_before, row, NOW_MS)], [], NOW_MS)
    view = store.order(ORG, "A")
    found = sorted((c.clash.id, c.clash.policy, c.clash.outcome, c.sentence) for c in store.conflicts(open_only=True, limit=10_000))
    store.close()
    return () if view is None else (found, view.conflict, view.held, view.quantities)


@given(seed=st.integers(0, 2**32), steps=st.integers(2, 30))
def test_outcomes_holds_and_quantities_are_the_same_everywhere_in_any_order_of_arrival(seed: int, steps: int) -> None:
    nodes = history(seed, steps)
    singles = [one for led in nodes if led.own().head[0] for one in range_of(led).singles()]
    tell(*nodes)
    expected = outcome(nodes[0])
    assert outcome(nodes[1]) == expected
    assert outcome(nodes[2]) == expected
    chance = Random(seed)
    for _ in range(2):
        chance.shuffle(singles)
        stranger = watched("late")
        for facts in [*singles, *singles[:3]]:
            offer(stranger, facts)
        assert outcome(stranger) == expected
        assert outcome_of_store([*singles, *singles[:3]]) == expected
    added = [row.details for led in nodes for row in facts_of(led)]
    counted = [d["quantities"]["picked"] for d in added if "quantities" in d]  # type: ignore[index]
    assert not expected or expected[3] == ({"picked": sum(counted)} if counted else {})


def facts_of(led: Ledger) -> list[FactRow]:
    order = led.book.get(ORG, "A")
    own = led.own().sid
    return [] if order is None else [fact for row, fact in led.events(order) if row.sid == own]


def test_who_settled_is_remembered_when_that_fact_was_freed(pair: tuple[Ledger, Ledger]) -> None:
    dock, centre = pair
    (clash,) = open_ones(dock)
    settle(dock, clash)
    dock.begin()
    dock.db.run("DELETE FROM log WHERE sid=?", (dock.own().sid,))
    dock.commit()
    settle(centre, clash, "PACKED", actor="desk-2", site="HQ")
    offer(dock, range_of(centre))
    assert sorted(str(told.actor) for told in clashes(dock)[0].settled_by) == ["ana", "desk-2"]


def test_a_later_fact_carries_the_sum_to_who_knows_only_that_one() -> None:
    dock, late = watched("dock-7"), watched("late")
    say(dock, event(Status.PICKED, quantities={"picked": 3}), event(Status.PICKED, quantities={"picked": -1}), event(Status.PACKED))
    offer(late, range_of(dock).part(3, 3))
    order = late.book.get(ORG, "A")
    assert order is not None
    assert totals(order.counted) == {"picked": 2}


def test_a_table_of_ones_own_may_accept_what_the_shipped_one_holds() -> None:
    """And what nobody has to look at is in no list, at a ledger as in the store."""
    easy = """
version: 1
policies:
  - {id: fine, first: ANY, second: ANY, outcome: accept, says: "{First} and {second}."}
"""
    dock, centre = watched("dock-7", policies=parse(easy, "easy.yaml")), watched("hub")
    say(dock, event(Status.PICKED))
    say(centre, event(Status.CANCELLED, None))
    offer(dock, range_of(centre))
    order = dock.book.get(ORG, "A")
    assert order is not None
    assert (clashes(dock), order.conflict, order.held, len(order.heads)) == ([], False, False, 2)
    store = SqliteStore(":memory:", policies=parse(easy, "easy.yaml"))
    for led in (dock, centre):
        facts = range_of(led)
        store.apply([StoreFact(facts.key, 1, facts.hashes[0], facts.h_before, facts.facts[0][0], NOW_MS)], [], NOW_MS)
    view = store.order(ORG, "A")
    assert view is not None
    assert (store.conflicts(), view.conflict, view.held, view.heads) == ([], False, False, 2)
    assert [verdict.rule.id for verdict in store.disputed(ORG, "A").verdicts] == ["fine"]
    store.close()


def test_a_store_that_is_given_another_table_judges_anew(tmp_path: Path) -> None:
    dock, centre = watched("dock-7"), watched("hub")
    say(dock, event(Status.PICKED))
    say(centre, event(Status.CANCELLED, None))
    store = SqliteStore(tmp_path / "s.db")
    for led in (dock, centre):
        facts = range_of(led)
        store.apply([StoreFact(facts.key, 1, facts.hashes[0], facts.h_before, facts.facts[0][0], NOW_MS)], [], NOW_MS)
    assert [c.clash.outcome for c in store.conflicts(open_only=True)] == [Outcome.HOLD]
    store.close()
    softer = parse(FILE.read_text("utf-8").replace("outcome: hold", "outcome: task"), "softer.yaml")
    store = SqliteStore(tmp_path / "s.db", policies=softer)
    (view,) = store.find("A")
    assert ([c.clash.outcome for c in store.conflicts(open_only=True)], view.conflict, view.held) == ([Outcome.TASK], True, False)
    store.close()


def test_a_ledger_of_version_1_learns_of_its_conflicts_when_it_is_opened(tmp_path: Path) -> None:
    plain = Ledger(Db(tmp_path / "a.db"), node="dock-7", new_epoch=lambda: 5)
    centre = watched("hub")
    say(plain, event(Status.PICKED))
    say(centre, event(Status.CANCELLED, None))
    offer(plain, range_of(centre))
    assert plain.db.query("SELECT conflict, held FROM orders") == [(1, 0)]
    plain.db.close()
    again = watched("dock-7", Db(tmp_path / "a.db"))
    assert [clash.outcome for clash in open_ones(again)] == [Outcome.HOLD]
    assert again.db.query("SELECT conflict, held FROM orders") == [(1, 1)]
    again.db.close()


def test_of_an_endless_quarrel_the_newest_conflicts_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocols.clashes.CLOSED_KEPT", 5)
    dock, centre = watched("dock-7"), watched("hub")
    say(centre, event(Status.CANCELLED, None))
    offer(dock, range_of(centre))
    say(centre, event(Status.CANCELLED, None))
    for _ in range(12):
        say(centre, event(Status.PICKED, None))
    quarrel = watched("quarrel")
    offer(quarrel, range_of(dock)) if dock.own().head[0] else None
    for one in range_of(centre).singles():
        offer(quarrel, one)
        say(quarrel, event(Status.CANCELLED))
    states = [clash.state for clash in clashes(quarrel)]
    assert sum(state is not State.OPEN for state in states) <= 5
