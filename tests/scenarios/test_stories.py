"""Short stories about a hub, its edges and what happens to them, in a simulated world; every checker of the simulation watches."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from protocols.clashes import read_clashes
from protocols.codec import pack
from protocols.errors import Conflict
from protocols.event import EventDefaults
from protocols.lifecycle import PATH, Status
from protocols.policy import Outcome
from protocols.settling import parse_settlement
from tests.sim.disks import Disk
from tests.sim.options import DAY, HOUR, MINUTE
from tests.sim.scene import scene


def test_a_hub_restored_twice_in_a_row_has_everything_again() -> None:
    with scene(edges=2) as s:
        said = s.says(s.docks[0], "1001", Status.PLACED, Status.APPROVED)
        backup = s.hub.disk.copy("backup")
        s.wait()
        said += s.says(s.hub, "1001", Status.PICKED) + s.says(s.docks[1], "1002", Status.PLACED)
        s.wait()
        s.hub.swap(backup.copy("hub"))
        said += s.says(s.docks[0], "1001", Status.SHIPPED)
        s.hub.swap(backup)
        s.heals()
        assert all(s.stored(said))
        assert s.shown("1001").facts == 4


def test_a_two_week_outage_drains_in_order() -> None:
    with scene(latency_ms=0) as s:  # nothing overtakes on the way
        dock = s.docks[0]
        dock.cut(silent=False)
        said = []
        for day in range(14):
            said += s.says(dock, f"day-{day}", *PATH[:4])
            s.wait(DAY)
        assert not any(s.stored(said))
        dock.join()
        while not all(s.stored(said)):
            s.wait(10)
            there = s.stored(said)
            assert there == sorted(there, reverse=True), "a later fact of the backlog is in the store before an earlier one"
        s.heals()


def test_cancelled_at_the_centre_while_shipped_at_the_dock_is_a_conflict_that_people_see() -> None:
    with scene() as s:
        dock = s.docks[0]
        s.says(dock, "1001", Status.PLACED)
        s.wait()
        dock.cut(silent=False)
        s.says(dock, "1001", Status.SHIPPED)
        s.says(s.hub, "1001", Status.CANCELLED)
        s.heals()
        view = s.shown("1001")
        assert (view.conflict, view.heads, view.facts) == (True, 2, 3)
        (conflict,) = s.world.store.store.conflicts(open_only=True)
        assert re.match(r"Cancelled at \S+( centre)? by hub-1 while shipped at \S+( centre)? by dock-0, neither", conflict.sentence)


def test_a_pick_beside_a_cancellation_holds_the_order_at_both_ends_until_the_dock_settles_it_in_the_next_cut() -> None:
    with scene() as s:
        dock = s.docks[0]
        site = dock.address.site
        s.repeats(dock, replace(s.world.clients.event(dock, "1001", Status.PLACED), site=site, actor="ana"))
        s.wait()
        dock.cut(silent=False)
        s.repeats(dock, replace(s.world.clients.event(dock, "1001", Status.PICKED), site=site, actor="ana"))
        s.repeats(s.hub, replace(s.world.clients.event(s.hub, "1001", Status.CANCELLED), site=None, actor="desk-2"))
        s.heals()
        ledger = dock.core.ledger
        (there,) = s.world.store.store.conflicts(open_only=True)
        (here,) = read_clashes(ledger.db, "state = 0", (), "cid")
        assert (here.id, here.outcome, here.sentence, here.task) == (there.clash.id, Outcome.HOLD, there.sentence, there.clash.task)
        order = ledger.book.get("acme", "1001")
        assert order is not None
        assert (s.shown("1001").held, order.held, s.shown("1001").status) == (True, True, "CANCELLED")

        dock.cut(silent=False)
        said = {"status": "RETURNED", "actor": "ana", "note": "shelf 3", "site": site}
        done = s.repeats(dock, parse_settlement(said, here, "acme", "1001", defaults=EventDefaults("acme"), now_ms=dock.now().wall))
        s.heals()
        (closed,) = s.world.store.store.conflicts()
        assert [(by.fact_id, by.actor, by.note) for by in closed.clash.settled_by] == [(done.fact_id, "ana", "shelf 3")]
        assert read_clashes(dock.core.ledger.db, "state = 0", (), "cid") == []
        assert (s.shown("1001").held, s.shown("1001").conflict, s.shown("1001").status) == (False, False, "RETURNED")


def test_who_had_seen_the_cancellation_and_ships_all_the_same_makes_no_conflict() -> None:
    with scene() as s:
        s.says(s.docks[0], "1001", Status.PLACED)
        s.wait()
        s.says(s.hub, "1001", Status.CANCELLED, Status.REFUNDED)
        s.heals()
        assert (s.shown("1001").status, s.shown("1001").heads) == ("REFUNDED", 1)


def test_a_cloned_card_loses_nothing_and_both_go_on_in_epochs_of_their_own() -> None:
    with scene() as s:
        dock = s.docks[0]
        said = s.says(dock, "1001", Status.PLACED)
        s.wait()
        twin = s.later("twin", dock.disk.copy("twin"), dock)
        said += s.says(dock, "1001", Status.PICKED) + s.says(twin, "1001", Status.BACKORDERED)
        s.wait(10 * MINUTE)
        assert {a.stream.epoch for a in said} == {said[0].stream.epoch}, "until they meet, both write to one epoch"
        said += s.says(dock, "1001", Status.SHIPPED) + s.says(twin, "1002", Status.PLACED)
        s.heals()
        assert all(s.stored(said))
        assert len({a.stream.epoch for a in (said[0], *said[3:])}) >= 2
        assert dock.core.ledger.own().key != twin.core.ledger.own().key


def test_a_branch_that_leaves_ours_far_below_gets_on_with_a_small_window() -> None:
    """No point of its hello is known here, and its window is smaller than what both branches share."""
    with scene() as s:
        dock = s.docks[0]
        said = [a for n in range(12) for a in s.says(dock, f"{n}", Status.PLACED)]
        s.wait()
        twin = s.later("twin", dock.disk.copy("twin"), dock)
        twin.cut(silent=False)
        said += [a for n in range(12) for a in s.says(dock, f"{n}", Status.PICKED)]
        said += [a for n in range(60) for a in s.says(twin, f"{n}", Status.CANCELLED)]
        s.heals()
        assert all(s.stored(said))


def test_a_fork_that_lies_below_what_was_freed_is_noticed() -> None:
    with scene(pressed=True, floor_ms=0) as s:
        dock = s.docks[0]
        s.says(dock, "1001", Status.PLACED)
        s.wait()
        twin = s.later("twin", dock.disk.copy("twin"), dock)
        dock.cut(silent=False)
        last = s.says(twin, "1001", *PATH[1:6])[-1]
        s.wait(2 * DAY)
        assert twin.core.ledger.own().freed_seq == last.seq
        s.says(dock, "1001", Status.CANCELLED)
        s.heals()
        assert twin.core.ledger.own().key != last.stream


def test_what_an_unknown_node_sends_waits_until_somebody_admits_it() -> None:
    with scene(edges=2, strangers=["dock-1"]) as s:
        stranger = s.docks[1]
        said = s.says(stranger, "1001", Status.PLACED)
        s.wait(HOUR)
        assert not any(s.stored(said))
        assert stranger.core.uplink.incarnation is None, "it hears no answer, and no receipt"
        assert list(s.hub.core.registry.waiting()) == ["dock-1"]
        s.world.strangers.clear()
        s.heals()
        assert all(s.stored(said))


def test_a_fact_of_a_later_version_steps_aside_and_what_stands_behind_it_flows() -> None:
    with scene() as s:
        dock = s.docks[0]
        said = s.says(dock, "1001", Status.PLACED)
        dock.give([9, "from the future"])
        said += s.says(dock, "1001", Status.APPROVED, Status.SHIPPED)
        s.wait()
        assert all(s.stored(said))
        (kept,) = s.world.store.disk.db.query("SELECT q.seq, l.row, q.reason FROM quarantine q JOIN log l USING (sid, seq, h)")
        assert (kept[0], bytes(kept[1])) == (2, pack([9, "from the future"]))
        assert len(dock.core.ledger.quarantined()) == 1, "its author is told"
        s.heals()


def test_after_a_reconnect_what_is_fresh_is_in_the_store_before_the_backlog_is() -> None:
    with scene() as s:
        dock = s.docks[0]
        dock.cut(silent=False)
        backlog = [a for n in range(40) for a in s.says(dock, f"old-{n}", Status.PLACED)]
        dock.join()
        while not any(s.stored(backlog)):
            s.wait(20)
        fresh = s.says(dock, "fresh", Status.PLACED)
        while not all(s.stored(fresh)):
            s.wait(20)
        assert not all(s.stored(backlog))
        s.heals()
        assert all(s.stored(backlog))


def test_an_edge_replaced_by_an_empty_one_signs_for_the_holes_it_left_behind() -> None:
    with scene() as s:
        dock = s.docks[0]
        dock.cut(silent=False)
        lost = [a for n in range(30) for a in s.says(dock, f"old-{n}", Status.PLACED)]
        dock.join()
        while not any(s.stored(lost)):
            s.wait(20)
        fresh = s.says(dock, "fresh", Status.PLACED)
        while not all(s.stored(fresh)):
            s.wait(20)
        dock.swap(Disk.blank("dock-0"), "replaced by an empty one")
        s.heals()
        (counts,) = [c for c in s.world.store.store.counts() if c.stream == fresh[0].stream]
        assert counts.records["lost"] == s.stored(lost).count(False) > 0


def test_a_request_whose_answer_was_lost_in_a_crash_gets_the_first_ids() -> None:
    with scene() as s:
        dock = s.docks[0]
        first = s.asks(dock, "1001", Status.PLACED, key="scan-1")
        event = s.world.check.asked[next(iter(s.world.check.asked))]
        dock.stop()
        dock.start()
        assert event.idempotency_key == "scan-1"
        again = s.repeats(dock, event)
        assert (again.repeated, again.fact_id) == (True, first.fact_id)
        with pytest.raises(Conflict):
            s.asks(dock, "1001", Status.APPROVED, key="scan-1")
        s.heals()
