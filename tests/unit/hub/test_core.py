"""The hub's core in short stories: what comes up the wire, what is answered, and what reaches the central store."""

from __future__ import annotations

import pytest

from edge_agent.core import EdgeSettings
from hub.core import HubSettings
from protocols.chains import RunKind
from protocols.codec import FrameHeader, Kind, envelope, pack
from protocols.errors import DecodeError, InvalidInput, LedgerFull
from protocols.messages import Record
from protocols.sync import receiver
from protocols.sync.frames import Opened, open_frame
from protocols.sync.seal import Control, seal, unseal
from protocols.sync.uplink import Out, UplinkSettings
from protocols.topics import Channel
from protocols.trust import NodeKey
from tests.unit.hub.hub_world import START_MS, World, make_card, order_event


def is_frame(payload: bytes) -> bool:
    return not isinstance(unseal(payload), Control)


def refused_reasons(world: World) -> list[str]:
    return [row["reason"] for row in world.hub.registry.refused()]


# ------------------------------------------------------------------ who may speak


def test_the_frames_of_an_unknown_node_wait_and_are_taken_when_it_is_admitted() -> None:
    world = World()
    dock = world.edge("dock-7", admitted=False)
    dock.says("A1", "PLACED")
    world.run(2)
    assert world.hub.registry.waiting_frames() == {"dock-7": 1}, "its hello"
    assert world.held(dock.key_of_stream) == []
    world.admit(dock)
    world.settle()
    assert world.hub.registry.waiting_frames() == {}
    assert world.row("dock-7")["settled"] == 1


def test_an_unknown_node_gets_no_receipt() -> None:
    world = World()
    dock = world.edge("dock-7", admitted=False)
    dock.says("A1", "PLACED")
    world.run(3)
    assert dock.core.uplink.incarnation is None


def test_a_frame_signed_by_another_key_is_refused_and_kept_and_the_stream_flows() -> None:
    world = World()
    dock = world.edge("dock-7")
    thief = NodeKey(b"t" * 32)
    dock.says("A1", "PLACED")

    def stolen_pen(_node: str, payload: bytes) -> list[bytes]:
        return [payload[:-64] + thief.sign(payload[:-64]), payload] if is_frame(payload) else [payload]

    world.bend = stolen_pen
    world.settle()
    assert len(refused_reasons(world)) == 1
    assert "signature" in refused_reasons(world)[0]
    assert world.row("dock-7")["settled"] == 1


def test_an_admitted_nodes_name_cannot_be_taken_by_another_key() -> None:
    world = World()
    world.edge("dock-7")
    with pytest.raises(InvalidInput, match="taken by another key"):
        world.hub.take_card(make_card(NodeKey(b"x" * 32), "dock-7"), START_MS)


def test_what_is_addressed_to_another_hub_is_refused() -> None:
    world = World()
    dock = world.edge("dock-7", linked=False)
    world.deliver("dock-7", seal(Out(Channel.CONTROL, Kind.HELLO, [], [b"12345678", [], [1], [0]]), "dock-7", "other-hub", dock.key.sign))
    assert refused_reasons(world) == ["addressed to 'other-hub', this is 'hub'"]


# ------------------------------------------------------------------ damage and poison


def test_a_frame_damaged_on_its_way_moves_nothing_and_is_sent_again() -> None:
    world = World()
    dock = world.edge("dock-7")
    dock.says("A1", "PLACED", "SHIPPED")
    hurt: list[bytes] = []

    def flip_once(_node: str, payload: bytes) -> list[bytes]:
        if not is_frame(payload) or hurt:
            return [payload]
        hurt.append(payload)
        return [payload[:-70] + bytes([payload[-70] ^ 1]) + payload[-69:]]

    world.bend = flip_once
    world.run(2)
    assert len(refused_reasons(world)) == 1
    assert world.held(dock.key_of_stream) == []
    world.settle()
    assert world.row("dock-7")["settled"] == 2


def test_a_refused_frame_is_cut_by_halves_until_the_bad_fact_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that fails on one fact: the author halves, the neighbours flow, the one ends in quarantine as bytes."""
    world = World()
    dock = world.edge("dock-7")
    dock.cut()
    dock.says("A1", *["PLACED"] * 8)
    bad = 5
    refused_counts: list[int] = []

    def fails_on_one(header: FrameHeader, body: bytes) -> Opened:
        if header.first <= bad < header.first + header.count:
            refused_counts.append(header.count)
            raise DecodeError("a fact that this reader fails on")
        return open_frame(header, body)

    monkeypatch.setattr(receiver, "open_frame", fails_on_one)
    dock.link()
    world.settle()
    assert refused_counts[:4] == [8, 4, 2, 1]
    counts = world.counts(dock.key_of_stream)
    assert counts is not None
    assert (counts.facts, counts.quarantined) == (7, 1)
    assert world.row("dock-7")["balanced"]
    assert dock.core.uplink.unreceived(dock.core.ledger.own()) == 0


def test_a_fact_of_a_later_version_is_quarantined_and_its_neighbours_flow() -> None:
    world = World()
    dock = world.edge("dock-7")
    dock.says("A1", "PLACED")
    dock.core.begin()
    dock.core.ledger._log_own(dock.core.ledger.own(), pack([99, "from the future"]), None, START_MS)
    dock.core.commit()
    dock.says("A1", "SHIPPED")
    world.settle()
    counts = world.counts(dock.key_of_stream)
    assert counts is not None
    assert (counts.facts, counts.quarantined) == (2, 1)
    view = world.store.order("acme", "A1")
    assert view is not None
    assert view.status == "SHIPPED"
    assert [row["fact"].split("/")[0] for row in world.hub.ledger.quarantined()] == ["dock-7"]


@pytest.mark.parametrize("data", [b"", b"x", b"LS" + bytes(200), bytes(200_000)], ids=["empty", "one byte", "noise", "too long"])
def test_bytes_that_are_no_message_are_kept_as_evidence_and_counted(data: bytes) -> None:
    world = World()
    world.edge("dock-7", linked=False)
    world.deliver("dock-7", data)
    assert len(refused_reasons(world)) == 1
    assert world.hub.registry.counters()["refused"] == 1


# ------------------------------------------------------------------ starts and backups


def test_a_restarted_hub_is_a_new_incarnation_and_the_edge_greets_it_again() -> None:
    world = World()
    dock = world.edge("dock-7")
    dock.says("A1", "PLACED")
    world.settle()
    before = world.hub.receiver.incarnation
    assert dock.core.uplink.incarnation == before
    world.restart()
    dock.says("A1", "SHIPPED")
    world.settle()
    assert world.hub.receiver.incarnation != before
    assert dock.core.uplink.incarnation == world.hub.receiver.incarnation
    assert world.row("dock-7")["settled"] == 2
    assert world.applied_known == 0, "nothing was handed over twice"


def test_nothing_is_handed_over_before_the_store_has_spoken() -> None:
    world = World()
    dock = world.edge("dock-7")
    dock.says("A1", "PLACED")
    world.run(3, store=False)
    assert world.held(dock.key_of_stream) == [(1, 1)]
    assert world.hub.lacking_in_store() == ([], [])


def test_a_hub_restored_from_an_older_backup_is_refilled_by_the_store() -> None:
    world = World()
    dock = world.edge("dock-7")
    dock.says("A1", "PLACED")
    world.settle()
    backup = world.db.dump()
    dock.says("A1", "PICKED", "SHIPPED")
    world.settle()
    dock.cut()
    applied = world.applied_new
    world.restart(backup)
    assert world.held(dock.key_of_stream) == [(1, 1)]
    world.settle()
    assert world.held(dock.key_of_stream) == [(1, 3)]
    assert world.applied_new == applied, "one effect per identity"
    assert world.row("dock-7")["balanced"]


def test_a_hub_that_lost_facts_of_its_own_never_goes_on_in_that_epoch() -> None:
    world = World()
    world.hub.begin()
    world.hub.take_events([order_event("C1", "PLACED")], world.now_ms)
    world.hub.commit()
    world.settle()
    backup = world.db.dump()
    world.hub.begin()
    world.hub.take_events([order_event("C1", "CANCELLED")], world.now_ms)
    world.hub.commit()
    world.settle()
    lost_epoch = world.hub.ledger.own().key.epoch
    world.restart(backup)
    world.settle()
    assert world.hub.ledger.own().key.epoch != lost_epoch
    view = world.store.order("acme", "C1")
    assert view is not None
    assert view.status == "CANCELLED"


def test_a_store_that_was_emptied_is_given_everything_again() -> None:
    world = World()
    dock = world.edge("dock-7")
    dock.says("A1", "PLACED", "SHIPPED")
    world.settle()
    world.store = type(world.store)(type(world.db)(":memory:"))
    world.restart()
    world.settle()
    assert world.row("dock-7")["settled"] == 2


# ------------------------------------------------------------------ forks, holes, bounds


def test_both_branches_of_a_clone_reach_the_store_and_the_balance_closes() -> None:
    world = World()
    dock = world.edge("dock-7")
    dock.says("A1", "PLACED")
    world.settle()
    clone = world.edge("dock-7", image=dock.db.dump(), linked=False)
    dock.says("A1", "PICKED")
    clone.says("A1", "CANCELLED")
    world.settle()
    dock.cut()
    clone.link()
    world.settle()
    row = world.row("dock-7")
    assert row["settled"] >= 3
    assert {view.status for view in world.store.events("acme", "A1")} == {"PLACED", "PICKED", "CANCELLED"}
    assert row["balanced"], row
    stream = world.hub.ledger.log.get(dock.core.ledger.own_streams()[0].key)
    assert stream is not None
    assert stream.chain.fork_point == 1


def test_a_record_closes_a_hole_and_data_that_comes_after_all_supersedes_it() -> None:
    world = World(edge_settings=EdgeSettings(UplinkSettings(frame_facts=3, linger_ms=0)))
    dock = world.edge("dock-7", linked=False)
    dock.says("A1", *["PLACED"] * 9)
    stream = dock.core.ledger.own()
    frames: dict[int, bytes] = {}

    def three_at_a_time(_node: str, payload: bytes) -> list[bytes]:
        opened = unseal(payload)
        if isinstance(opened, Control):
            return [payload]
        frames[opened[1].first] = payload
        return []

    world.bend = three_at_a_time
    dock.link()
    world.run(3)
    assert sorted(frames) == [1, 4, 7]
    dock.cut()
    world.deliver("dock-7", frames[1])
    world.deliver("dock-7", frames[7])
    world.run(2)
    assert world.row("dock-7")["queued"] == 3

    rows = dock.core.ledger.log.read(stream, 3, 6, max_bytes=100_000, max_facts=10)
    record = Record(stream.key.epoch, 0, 4, rows[0].h, 6, rows[-1].h, RunKind.LOST, world.now_ms)
    world.deliver("dock-7", seal(Out(Channel.CONTROL, Kind.RECORD, [], record.to_list()), "dock-7", "hub", dock.key.sign))
    world.run(2)
    row = world.row("dock-7")
    assert (row["settled"], row["queued"], row["evicted"], row["balanced"]) == (6, 0, {"lost": 3}, True)

    world.deliver("dock-7", frames[4])
    world.run(2)
    row = world.row("dock-7")
    assert (row["settled"], row["queued"], row["evicted"], row["balanced"]) == (9, 0, {}, True)


def test_a_hub_at_its_budget_grants_no_credit_and_the_edge_keeps_what_it_has() -> None:
    world = World(HubSettings(budget_bytes=1))
    dock = world.edge("dock-7")
    dock.says("A1", *["PLACED"] * 20)
    world.run(5)
    assert dock.core.uplink.credit == 0
    assert dock.core.uplink.unreceived(dock.core.ledger.own()) == 20
    world.hub.begin()
    with pytest.raises(LedgerFull):
        world.hub.take_events([], 1)
    world.hub.commit()
    world.hub.settings = HubSettings()
    world.run(400)
    assert world.row("dock-7")["settled"] == 20


def test_a_heartbeat_that_names_more_than_is_here_is_answered_by_a_pull() -> None:
    world = World()
    dock = world.edge("dock-7")
    dock.says("A1", "PLACED")

    def only_control(_node: str, payload: bytes) -> list[bytes]:
        return [] if is_frame(payload) else [payload]

    world.bend = only_control
    world.run(12)
    assert world.row("dock-7")["notHereYet"] == 1
    assert not world.row("dock-7")["settled"]
    assert world.row("dock-7")["balanced"], "not here yet is an honest place to be"


def test_events_at_the_centre_are_the_hubs_own_and_settle_too() -> None:
    world = World()
    world.hub.begin()
    done = world.hub.take_events([order_event("C1", "PLACED"), order_event("C1", "CANCELLED")], world.now_ms)
    world.hub.commit()
    world.settle()
    assert [one.seq for one in done] == [1, 2]
    assert world.hub.ledger.own().settled_seq == 2
    row = world.row("hub")
    assert (row["captured"], row["settled"], row["balanced"]) == (2, 2, True)


def test_a_hub_that_counts_less_than_its_nodes_say_is_out_of_balance() -> None:
    """The check itself can fail: a row that vanished from the store is missed."""
    world = World()
    dock = world.edge("dock-7")
    dock.says("A1", "PLACED", "SHIPPED")
    world.settle()
    assert world.row("dock-7")["balanced"]
    world.store._db.run("DELETE FROM log WHERE seq=1")
    row = world.row("dock-7")
    assert (row["captured"], row["settled"], row["balanced"]) == (2, 1, False)


def test_facts_are_handed_over_as_they_were_read_and_without_that_after_a_restart() -> None:
    """The store is spared a second reading; what it is given means the same either way."""
    world = World()
    dock = world.edge("dock-7")
    world.store_turn()
    dock.says("A1", "PLACED", "SHIPPED")
    world.run(3, store=False)
    read, _ = world.hub.lacking_in_store()
    assert [fact.fact.status.name for fact in read if fact.fact is not None] == ["PLACED", "SHIPPED"]
    world.restart()
    world.hub.begin()
    world.hub.take_statement(world.store.statement(None), whole=True)
    world.hub.commit()
    unread, _ = world.hub.lacking_in_store()
    assert [fact._replace(fact=None) for fact in read] == unread


def test_a_name_that_no_node_can_have_does_not_get_into_the_waiting_room() -> None:
    """It would be shown to people: on a page, and on a terminal that obeys escape sequences."""
    world = World()
    for author in ("\x1b[2J", "a\nb", "", "Dock-7"):
        unsigned = envelope(Kind.HELLO, [author, "hub"], pack([b"8 bytes!", [], [1], [0]]))
        world.hub.begin()
        world.hub.take_message("dock-7", unsigned + bytes(64), 1)
        world.hub.commit()
    assert world.hub.registry.waiting() == {}
    assert [row["reason"] for row in world.hub.registry.refused()] == ["the author of a control message is not a node name"] * 4
