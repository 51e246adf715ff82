"""Phones: each follows the tasks of its staff, wherever they are; what enters comes whole, what is over leaves, nothing else goes down."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from hub.tasks import Tasks, staff_scope
from protocols.copies import Copies
from protocols.sqlite import Db
from tests.support.often import seeds
from tests.unit.hub.hub_world import Edge, World
from tests.unit.hub.test_downlink import Tap, follows, heads, same, state


def phone(world: World, staff: str = "ana", node: str = "", **more: Any) -> Edge:
    return world.edge(node or f"phone-{staff}", site="Home", staff=staff, **more)


def scope_at_the_hub(world: World, staff: str) -> list[str]:
    return world.concerned(staff_scope(staff))


def test_an_order_given_to_staff_reaches_their_phone_and_no_other() -> None:
    world = World()
    ana, ben, dock = phone(world), phone(world, "ben"), world.edge("dock-1")
    world.run()
    dock.says("A1", "PLACED")
    dock.says("A2", "PLACED")
    world.says("A1", "APPROVED", to="ana")
    world.run()
    assert (follows(ana), follows(ben), follows(dock)) == (["A1"], [], ["A1", "A2"])
    same(world, ana, "A1")


def test_what_happens_to_a_task_afterwards_reaches_the_phone_wherever_it_happens() -> None:
    world = World()
    ana, dock = phone(world), world.edge("dock-2", site="Oslo")
    world.says("A1", "PLACED", to="ana")
    world.run()
    dock.says("A1", "PICKED", site="Oslo", actor="ben")  # who does not say so leaves it with whom it was given to
    world.run()
    assert state(ana, "A1") == "PICKED"
    same(world, ana, "A1")


def test_the_last_word_is_a_task_until_somebody_else_has_it() -> None:
    world = World()
    ana, ben, dock = phone(world), phone(world, "ben"), world.edge("dock-1")
    dock.says("A1", "PICKED", actor="ana")
    world.run()
    assert (follows(ana), follows(ben)) == (["A1"], [])
    dock.says("A1", "PACKED", actor="ben")
    world.run()
    assert (follows(ana), follows(ben)) == ([], ["A1"])
    assert ana.core.ledger.db.one("SELECT count(*) FROM copies") == (0,)
    same(world, ben, "A1")


def test_what_enters_the_scope_comes_whole_with_every_head() -> None:
    world = World()
    ana, one, other = phone(world), world.edge("dock-1"), world.edge("dock-2", site="Oslo")
    world.run()
    one.says("A1", "PLACED", "PICKED")
    world.run()
    for edge in (one, other):
        edge.cut()
    one.says("A1", "PACKED")
    other.says("A1", "CANCELLED", site="Oslo", actor="ana")  # concurrent to PACKED
    for edge in (one, other):
        edge.link()
        world.run()
    assert len(heads(world.hub.ledger.book, "A1")) == 2
    same(world, ana, "A1")
    rows = ana.core.ledger.db.query("SELECT h FROM copies")
    assert len(rows) == 4  # its past is there to be shown, too


@pytest.mark.parametrize("status", ["DELIVERED", "RETURNED", "CANCELLED", "REFUNDED"])
def test_an_order_that_is_over_leaves(status: str) -> None:
    world = World()
    ana = phone(world)
    world.says("A1", "PLACED", to="ana")
    world.run()
    assert follows(ana) == ["A1"]
    world.says("A1", status)
    world.run()
    assert follows(ana) == [] == scope_at_the_hub(world, "ana")


def test_an_order_that_is_over_for_one_only_stays_and_comes_back_with_a_dispute() -> None:
    """Delivered, says Ana; cancelled, said the centre, which did not know: she has to look at it."""
    world = World()
    ana = phone(world)
    world.says("A1", "PLACED", to="ana")
    world.run()
    ana.cut()
    world.says("A1", "CANCELLED")
    world.run()
    ana.says("A1", "DELIVERED")
    ana.link()
    world.run()
    assert len(heads(world.hub.ledger.book, "A1")) == 2
    assert follows(ana) == ["A1"] == scope_at_the_hub(world, "ana")
    same(world, ana, "A1")
    world.says("A1", "RETURNED")
    world.settle()
    assert follows(ana) == [] == scope_at_the_hub(world, "ana")


def test_what_a_phone_says_itself_is_its_staffs_and_is_kept_when_the_order_leaves() -> None:
    world = World()
    ana = phone(world)
    dock = world.edge("dock-1")
    dock.says("A1", "PLACED")
    world.run()
    assert follows(ana) == []
    ana.says("A1", "PICKED")  # has not seen it, and says no actor: it comes whole
    world.run(store=False)
    same(world, ana, "A1")
    assert len(heads(world.hub.ledger.book, "A1")) == 2
    dock.says("A1", "PACKED", actor="ben")
    world.run(store=False)
    assert follows(ana) == []
    status = ana.core.ledger.own_streams()[0]
    assert (status.head[0], status.settled_seq) == (1, 0)
    assert ana.core.ledger.db.one("SELECT count(*) FROM log") == (1,)
    world.settle()
    assert ana.core.ledger.own_streams()[0].settled_seq == 1


def test_an_order_handed_over_leaves_whoever_handed_it_over() -> None:
    world = World()
    ana, ben = phone(world), phone(world, "ben")
    ana.says("A1", "PICKED", to=["ben", "cleo"])
    world.run()
    assert (follows(ana), follows(ben)) == ([], ["A1"])
    world.says("A1", "PACKED", to=[])
    world.run()
    assert follows(ben) == []


def test_the_first_sync_pulls_the_scope_only() -> None:
    world = World()
    dock = world.edge("dock-1")
    for n in range(300):
        dock.says(f"A{n}", "PLACED", "PICKED", actor=f"staff-{n % 100}")
    world.settle()
    tap = Tap(world)
    ana = phone(world, "staff-7")
    world.settle()
    assert follows(ana) == ["A107", "A207", "A7"]
    same(world, ana, "A107", "A207", "A7")
    down = [feed for feed in tap.feeds if feed.places or feed.orders]
    assert sum(len(feed.places) for feed in down) == 6
    assert sorted({order.order_id for feed in down for order in feed.orders}) == ["A107", "A207", "A7"]
    assert tap.bytes < 4_000


def test_tasks_of_before_the_first_phone_are_found_a_page_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.tasks.PAGE", 10)
    world = World()
    dock = world.edge("dock-1")
    for n in range(35):
        dock.says(f"A{n}", "PICKED", actor="ana" if n % 5 == 0 else "ben")
    world.settle()
    assert world.hub.ledger.db.query("SELECT name FROM scope_names") == [("Madrid",)]  # without phones nothing is kept
    ana = phone(world)
    world.says("B", "PLACED")
    assert world.hub.feeds.scopes.tasks.behind
    world.settle()
    assert not world.hub.feeds.scopes.tasks.behind
    assert follows(ana) == scope_at_the_hub(world, "ana") == ["A0", "A10", "A15", "A20", "A25", "A30", "A5"]


def test_the_next_phone_costs_no_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    phone(world)
    world.run()
    walked: list[object] = []
    real = Tasks.of_before
    monkeypatch.setattr(Tasks, "of_before", lambda self: walked.append(self) or real(self))  # type: ignore[func-returns-value]
    world.says("A1", "PLACED", to="ben")
    ben = phone(world, "ben")
    world.run()
    world.restart()
    cleo = phone(world, "cleo")
    world.says("A2", "PLACED", to="cleo")
    world.settle()
    assert (follows(ben), follows(cleo), walked) == (["A1"], ["A2"], [])


def test_a_phone_that_was_away_while_its_scope_changed_has_it_right_by_digests() -> None:
    world = World()
    ana = phone(world)
    for n in range(40):
        world.says(f"A{n}", "PLACED", to="ana")
    world.run()
    ana.cut()
    for n in range(0, 40, 2):
        world.says(f"A{n}", "PICKED", to="ben")
    for n in range(10):
        world.says(f"B{n}", "PLACED", to="ana")
    world.restart()
    ana.link()
    world.settle()
    assert follows(ana) == scope_at_the_hub(world, "ana") == sorted([*(f"A{n}" for n in range(1, 40, 2)), *(f"B{n}" for n in range(10))])


def test_digests_agree_once_the_scope_is_the_same() -> None:
    """Also where the phone's own last word ended an order: it is not listed again each day."""
    world = World()
    ana = phone(world)
    for n in range(20):
        world.says(f"A{n}", "PLACED", to="ana")
    world.run()
    for n in range(5):
        ana.says(f"A{n}", "DELIVERED")
    ana.says("N1", "DELIVERED")
    world.settle()
    ana.core.follower._compare_due = 0
    world.settle()
    tap = Tap(world)
    ana.core.follower._compare_due = 0
    world.settle()
    assert ana.core.follower.passes_total == 3
    assert not any(feed.orders or feed.left for feed in tap.feeds)
    assert tap.bytes < 400


def test_a_phone_that_is_handed_to_other_staff_follows_their_tasks() -> None:
    world = World()
    ana = phone(world)
    world.says("A1", "PLACED", to="ana")
    world.says("B1", "PLACED", to="ben")
    world.run()
    assert follows(ana) == ["A1"]
    ana.staff = "ben"
    world.admit(ana)
    world.settle()
    assert follows(ana) == ["B1"]
    ana.cut()
    world.restart()
    ana.link()
    world.says("B2", "PLACED", to="ben")
    world.settle()
    assert follows(ana) == ["B1", "B2"]


def test_two_phones_of_one_person_hear_of_each_other() -> None:
    world = World()
    one, other = phone(world), phone(world, node="phone-2")
    one.says("A1", "PICKED")
    world.run()
    assert follows(other) == ["A1"]
    other.says("A1", "PACKED")
    world.run()
    same(world, one, "A1")
    same(world, other, "A1")


def test_a_site_of_that_name_is_another_scope() -> None:
    world = World()
    ana, dock = phone(world), world.edge("dock-1", site="ana")
    world.says("A1", "PLACED", site="ana")
    world.says("A2", "PLACED", to="ana")
    world.run()
    assert (follows(ana), follows(dock)) == (["A2"], ["A1"])


def test_what_leaves_drops_no_fact_that_is_not_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of it: a phone that forgets its log with the order."""
    real = Copies._leave

    def leave(self: Copies, org: str, order_id: str) -> bool:
        self._ledger.db.run("DELETE FROM log")
        return real(self, org, order_id)

    monkeypatch.setattr(Copies, "_leave", leave)
    with pytest.raises(AssertionError):
        test_what_a_phone_says_itself_is_its_staffs_and_is_kept_when_the_order_leaves()


@pytest.mark.parametrize("seed", seeds(4, quick=1))
def test_whatever_is_lost_in_the_end_each_phone_has_its_scope(seed: int) -> None:
    rng = Random(seed)
    world = World()
    staff = ["ana", "ben", "cleo"]
    phones = [phone(world, name) for name in staff]
    edges = [world.edge("dock-1"), world.edge("dock-2", site="Oslo"), *phones]
    tap = Tap(world)
    tap.lose = lambda: rng.random() < 0.3
    world.bend = lambda _, payload: [] if rng.random() < 0.2 else [payload]
    backup = world.db.dump()
    for _ in range(40):
        people: list[World | Edge] = [world, *edges]
        who, to = rng.choice(people), rng.choice([None, None, rng.choice(staff), [], rng.sample(staff, 2)])
        status = rng.choice(("PLACED", "PICKED", "SHIPPED", "CANCELLED", "DELIVERED"))
        who.says(f"A{rng.randrange(10)}", status, site=rng.choice(("Madrid", "Oslo", None)), actor=rng.choice([None, *staff]), to=to)
        edge = rng.choice(edges)
        if rng.random() < 0.2:
            edge.cut() if edge.linked else edge.link()
        if rng.random() < 0.05:
            world.restart(backup if rng.random() < 0.5 else None)
        if rng.random() < 0.1:
            backup = world.db.dump()
        world.run(rng.randrange(3))
    tap.lose = lambda: False
    world.bend = lambda _, payload: [payload]
    for edge in edges:
        if not edge.linked:
            edge.link()
    world.run(150, 15_000)
    for edge in edges:
        edge.core.follower._compare_due = 0
    world.run(60)
    for name, edge in zip(staff, phones, strict=True):
        assert follows(edge) == scope_at_the_hub(world, name), (seed, name)
        same(world, edge, *follows(edge))


def test_a_hub_of_before_phones_is_brought_forward() -> None:
    db = Db(":memory:")
    world = World()
    world.db = db
    world.restart()
    for statement in ("DROP TABLE phones", "UPDATE versions SET version=3 WHERE part='registry'"):
        db.run(statement)
    world.restart()
    ana = phone(world)
    world.says("A1", "PLACED", to="ana")
    world.run()
    assert follows(ana) == ["A1"]
