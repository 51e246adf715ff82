"""What a relay takes from its peers, and what it refuses: others' facts are kept whole or not at all (rule 16)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.relay import RelaySettings, Verdict
from protocols.custody_spans import Span
from protocols.messages import Hello
from protocols.sync.seal import Control, seal, unseal
from protocols.sync.uplink import Out
from protocols.topics import Channel
from tests.unit.edge_agent.relay_world import (
    SMALL,
    again,
    befriend,
    bring,
    frames_of,
    gateway,
    kept,
    orders,
    pair,
    roaming,
    spoken,
    stored,
)
from tests.unit.hub.hub_world import World

# ------------------------------------------------------------ taking


def test_a_peers_facts_are_kept_and_shown_at_once_without_any_link() -> None:
    _, gate, phone = pair(linked=False)
    phone.says("A1", "PLACED", "PICKED")
    phone.says("A2", "SHIPPED")
    done = bring(gate, frames_of(phone))
    assert [(t.verdict, t.author, t.new) for t in done] == [(Verdict.KEPT, "phone-1", 3)]
    assert orders(gate) == orders(phone)
    assert kept(gate) == (3, 1)


def test_what_a_relay_keeps_survives_a_restart() -> None:
    world, gate, phone = pair(linked=False)
    phone.says("A1", "PLACED", "PICKED")
    bring(gate, frames_of(phone))
    again(gate)
    assert kept(gate) == (2, 1)
    gate.link()
    world.run(12)
    assert stored(world, phone) == 2


def test_the_same_facts_are_kept_once_however_they_are_cut() -> None:
    _, gate, phone = pair(linked=False)
    phone.says("A1", *["PICKED"] * 6)
    first = bring(gate, frames_of(phone))
    assert [t.verdict for t in first] == [Verdict.KEPT, Verdict.KEPT]
    assert {t.verdict for t in bring(gate, frames_of(phone))} == {Verdict.KNOWN}
    phone.says("A1", "PACKED")
    assert [t.verdict for t in bring(gate, frames_of(phone))] == [Verdict.KNOWN, Verdict.KEPT]
    assert kept(gate) == (9, 3), "facts 5 and 6 lie in two frames"
    phone.core.uplink.settings = replace(phone.core.uplink.settings, frame_facts=8)
    assert [t.verdict for t in bring(gate, frames_of(phone))] == [Verdict.KNOWN]


def test_nothing_of_a_stranger_is_kept() -> None:
    _, gate, phone = pair()
    stranger = roaming(gate.world, "phone-9")
    stranger.says("A1", "PLACED")
    (done,) = bring(gate, frames_of(stranger))
    assert (done.verdict, done.author, done.reason) == (Verdict.STRANGER, "phone-9", "phone-9 is no peer of this edge")
    assert kept(gate) == (0, 0)
    assert orders(gate) == {}
    del phone


def test_a_name_is_no_key() -> None:
    _, gate, phone = pair()
    phone.says("A1", "PLACED")
    (payload,) = frames_of(phone)
    forged = payload[:-64] + gate.key.sign(payload[:-64])
    assert [t.verdict for t in bring(gate, [forged])] == [Verdict.REFUSED]
    assert kept(gate) == (0, 0)


@pytest.mark.parametrize("at", [0, 2, 3, 9, 40, -70, -1])
def test_damage_is_refused_and_moves_nothing(at: int) -> None:
    _, gate, phone = pair()
    phone.says("A1", "PLACED", "PICKED")
    good = frames_of(phone)[0]
    bad = bytearray(good)
    bad[at] ^= 0xFF
    done = bring(gate, [bytes(bad), b"", good[:50], good])
    assert [t.verdict for t in done] == [Verdict.REFUSED, Verdict.REFUSED, Verdict.REFUSED, Verdict.KEPT], "and the good one is taken"


def test_a_frame_whose_facts_are_not_on_its_chain_is_not_kept() -> None:
    _, gate, phone = pair()
    phone.says("A1", "PLACED", "PICKED")
    opened = unseal(frames_of(phone)[0])
    assert not isinstance(opened, Control)
    header = replace(opened[1], h_after=b"elsewher").to_list()
    lie = seal(Out(Channel.LIVE, opened[0].kind, header, opened[0].body), "phone-1", "", phone.key.sign)
    wrong_start = replace(opened[1], h_before=b"nogenes!").to_list()
    lie2 = seal(Out(Channel.LIVE, opened[0].kind, wrong_start, opened[0].body), "phone-1", "", phone.key.sign)
    assert [t.verdict for t in bring(gate, [lie, lie2])] == [Verdict.REFUSED, Verdict.REFUSED]
    assert kept(gate) == (0, 0)


def test_a_frame_in_a_dictionary_of_tomorrow_is_carried_unread() -> None:
    _, gate, phone = pair()
    phone.says("A1", "PLACED", "PICKED")
    opened = unseal(frames_of(phone)[0])
    assert not isinstance(opened, Control)
    header = replace(opened[1], dictionary=77).to_list()
    later = seal(Out(Channel.LIVE, opened[0].kind, header, b"written by a later version"), "phone-1", "", phone.key.sign)
    assert [(t.verdict, t.new) for t in bring(gate, [later])] == [(Verdict.KEPT, 0)]
    assert orders(gate) == {}


def test_a_full_custody_says_so_and_the_edges_own_events_are_still_taken() -> None:
    world = World()
    gate = gateway(world, "gate-1", linked=False, settings=replace(SMALL, relay=RelaySettings(custody_bytes=600)))
    phone = roaming(world, "phone-1")
    befriend(gate, phone)
    phone.says("A1", *["PICKED"] * 40)
    done = bring(gate, frames_of(phone))
    assert {t.verdict for t in done} == {Verdict.KEPT, Verdict.NO_ROOM}
    assert next(t for t in done if t.verdict is Verdict.NO_ROOM).reason.startswith("the custody of others")
    before = kept(gate)
    gate.says("B1", "PLACED")
    assert kept(gate) == before
    assert gate.core.custody.kept_bytes <= 600


def test_an_edge_at_its_budget_takes_no_more_of_others_and_keeps_its_reserve_for_its_own() -> None:
    world = World()
    gate = gateway(world, "gate-1", linked=False, settings=replace(SMALL, budget_bytes=10_000_000, reserve_bytes=9_999_000))
    phone = roaming(world, "phone-1")
    befriend(gate, phone)
    phone.says("A1", "PLACED")
    assert [t.verdict for t in bring(gate, frames_of(phone))] == [Verdict.NO_ROOM]
    assert orders(gate) == {}
    gate.says("B1", "PLACED")


def test_an_edges_own_frames_that_come_home_are_known() -> None:
    _, gate, _ = pair(linked=False)
    gate.says("B1", "PLACED")
    assert [t.verdict for t in bring(gate, frames_of(gate))] == [Verdict.KNOWN]
    assert kept(gate) == (0, 0)


def test_only_what_is_meant_for_the_hub_is_passed_on() -> None:
    _, gate, phone = pair()
    spoken(gate)
    hello = Hello(b"n" * 8, ())
    out = Out(Channel.CONTROL, hello.KIND, [], hello.to_list())
    good, astray = (seal(out, "phone-1", to, phone.key.sign) for to in ("hub", "gate-1"))
    assert [t.verdict for t in bring(gate, [good, astray])] == [Verdict.FORWARDED, Verdict.REFUSED]
    assert spoken(gate) == [good], "byte for byte"


# ------------------------------------------------------------ what came down the hub's feed


def test_scattered_facts_of_the_feed_are_let_go_within_few_hellos_and_never_sent_back_to_a_hub_that_has_them() -> None:
    world = World()
    gate = gateway(world, "gate-1", linked=False)
    dock = world.edge("dock-1")
    dock.says("A1", *["PICKED"] * 400)
    world.settle()
    stream = dock.core.ledger.own()
    assert stream.settled_seq == 400
    gate.core.begin()
    for seq in range(2, 400, 2):
        h, before = (dock.core.ledger.log.hash_at(stream, at) for at in (seq, seq - 1))
        assert h is not None
        assert before is not None
        gate.core.custody.keep(b"LS\x01\x0cfeed %d" % seq, [Span(stream.key, seq, before, seq, h)], world.now_ms)
    gate.core.commit()
    assert kept(gate) == (199, 199)
    sent: list[bytes] = []
    world.bend = lambda node, payload: [payload] if not sent.append(payload) else []  # type: ignore[func-returns-value]
    gate.link()
    world.run(3)
    assert kept(gate) == (0, 0)
    assert gate.core.custody.kept_bytes == 0
    assert [payload for payload in sent if payload.startswith(b"LS\x01\x0c")] == []
    assert world.hub.receiver.carriers.of("dock-1") == (), "what came down makes nobody a carrier"


def test_a_hub_that_lost_what_it_once_sent_down_is_given_it_back() -> None:
    world = World()
    gate, dock = gateway(world, "gate-1", linked=False), world.edge("dock-1")
    dock.says("A1", "PLACED")
    key = dock.key_of_stream
    gate.core.begin()
    gate.core.custody.keep(b"LS\x01\x0cfeed", [Span(key, 1, b"h" * 8, 1, b"i" * 8)], world.now_ms)
    gate.core.commit()
    sent: list[bytes] = []
    world.bend = lambda node, payload: [payload] if not sent.append(payload) and node == "gate-1" else []  # type: ignore[func-returns-value]
    gate.link()
    world.run(3)
    assert b"LS\x01\x0cfeed" in sent
