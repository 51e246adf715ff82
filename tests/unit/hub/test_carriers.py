"""Relays at the hub: what it says to an author goes along every way its facts came, in the same bytes, and to nobody it may not know."""

from __future__ import annotations

from dataclasses import replace

from hub.core import Publish
from protocols.carried import CustodyStated, StreamCarried
from protocols.codec import FrameHeader
from protocols.messages import Answer, Heartbeat, Hello, Receipt, Refused, StreamStated
from protocols.sync.carriers import CARRIERS_MOST, Carriers
from protocols.sync.seal import Control, seal, unseal
from protocols.sync.uplink import Out
from protocols.topics import Channel, parse_topic
from protocols.trust import NodeKey, parse_card
from protocols.trust import make_card as signed_card
from tests.unit.hub.hub_world import PASSWORD_HASH, Edge, World, order_event


def frames(edge: Edge) -> list[bytes]:
    """What the edge has to hand over, as a line to the hub would carry it after an answer that knows nothing."""
    world = edge.world
    edge.link()
    (hello,) = edge.speaks()
    control = unseal(hello)
    assert isinstance(control, Control)
    nonce = control.message().nonce  # type: ignore[union-attr]
    answer = Answer(nonce, b"fakehub!", world.now_ms, 1_000, ())
    edge.hears(seal(Out(Channel.RECEIPT, Answer.KIND, [], answer.to_list()), "hub", edge.address.node, world.key.sign))
    world.now_ms += 100
    out = [payload for payload in edge.speaks() if not isinstance(unseal(payload), Control)]
    edge.cut()
    return out


def brought(world: World, by: str, *payloads: bytes) -> list[Publish]:
    """They arrive on the topics of `by`; what the hub says then."""
    world.hub.begin()
    for payload in payloads:
        world.hub.take_message(by, payload, world.now_ms)
    world.hub.commit()
    return world.hub.effects(world.now_ms)


def told(effects: list[Publish], kind: type) -> dict[str, list[bytes]]:
    """Who was sent messages of a kind, by topic: {node: payloads}."""
    found: dict[str, list[bytes]] = {}
    for effect in effects:
        control = unseal(effect.payload)
        if isinstance(control, Control) and isinstance(control.message(), kind):
            found.setdefault(parse_topic(effect.topic)[0].node, []).append(effect.payload)
    return found


def spoken(edge: Edge, message: Hello | Heartbeat) -> bytes:
    return seal(Out(Channel.CONTROL, message.KIND, [], message.to_list()), edge.address.node, "hub", edge.key.sign)


def statements(payload: bytes) -> tuple[StreamStated, ...]:
    control = unseal(payload)
    assert isinstance(control, Control)
    message = control.message()
    assert isinstance(message, Answer | Receipt)
    return message.streams


def test_receipts_go_to_the_author_and_to_every_relay_that_brought_something() -> None:
    world = World()
    phone, *_ = (world.edge(name, linked=False) for name in ("phone-1", "gate-1", "gate-2"))
    phone.says("A1", "PLACED", "PICKED")
    payloads = frames(phone)
    assert list(told(brought(world, "gate-1", *payloads), Receipt)) == ["phone-1", "gate-1"]
    said = told(brought(world, "gate-2", *payloads), Receipt)
    assert list(said) == ["phone-1", "gate-1", "gate-2"]
    assert len({payload for all_of in said.values() for payload in all_of}) == 1, "the same bytes for all"
    assert {unseal(p).addressee for all_of in said.values() for p in all_of} == {"phone-1"}  # type: ignore[union-attr]


def test_an_author_that_speaks_for_itself_has_no_carrier() -> None:
    world = World()
    phone = world.edge("phone-1", linked=False)
    phone.says("A1", "PLACED")
    assert list(told(brought(world, "phone-1", *frames(phone)), Receipt)) == ["phone-1"]


def test_nobody_becomes_a_carrier_by_what_is_not_signed() -> None:
    world = World()
    phone, _ = world.edge("phone-1", linked=False), world.edge("gate-1", linked=False)
    phone.says("A1", "PLACED")
    (payload,) = frames(phone)
    refused = told(brought(world, "gate-1", payload[:-1] + bytes([payload[-1] ^ 1])), Refused)
    assert list(refused) == ["gate-1"], "and the author is not bothered with what it did not sign"
    assert world.hub.receiver.carriers.of("phone-1") == ()


def test_a_relay_of_another_organisation_hears_nothing() -> None:
    world = World()
    phone = world.edge("phone-1", linked=False)
    key = NodeKey(b"s" * 32)
    card = parse_card(signed_card(key, node="spy-1", org="evil", region="EMEA", site="Madrid", password_hash=PASSWORD_HASH))
    world.hub.begin()
    world.hub.take_card(card, world.now_ms)
    world.hub.commit()
    phone.says("A1", "PLACED")
    assert list(told(brought(world, "spy-1", *frames(phone)), Receipt)) == ["phone-1"]
    stream = phone.key_of_stream
    hello = Hello(b"n" * 8, (), held=(StreamCarried(*stream, ((1, b"h" * 8),)),))
    out = Out(Channel.CONTROL, hello.KIND, [], hello.to_list())
    (answer,) = told(brought(world, "spy-1", seal(out, "spy-1", "hub", key.sign)), Answer)["spy-1"]
    assert statements(answer) == ()


def test_a_topic_of_nobody_is_no_carrier() -> None:
    world = World()
    phone = world.edge("phone-1", linked=False)
    phone.says("A1", "PLACED")
    assert list(told(brought(world, "", *frames(phone)), Receipt)) == ["phone-1"]


def test_a_hello_names_what_is_in_custody_and_the_answer_states_it_exactly() -> None:
    world = World()
    phone, gate = world.edge("phone-1", linked=False), world.edge("gate-1", linked=False)
    phone.says("A1", "PLACED", "ALLOCATED", "PICKED", "PACKED")
    brought(world, "phone-1", *frames(phone))
    world.store_turn()
    world.store_turn()
    stream = phone.core.ledger.own()
    middle = phone.core.ledger.log.hash_at(stream, 2)
    assert middle is not None
    held = StreamCarried(*stream.key, (stream.head, (2, middle), (2, b"strange!")))
    (answer,) = told(brought(world, "gate-1", spoken(gate, Hello(b"n" * 8, (), held=(held,)))), Answer)["gate-1"]
    said = statements(answer)
    assert {(one.node, one.epoch) for one in said} == {stream.key[:2]}
    assert [(r.first, r.last, r.h_last) for one in said for r in one.runs] == [(1, 4, stream.head[1]), (1, 2, middle)]
    assert [point for one in said for point in one.settled] == [stream.head, (2, middle)]
    assert [point for one in said for point in one.freeable] == [stream.head, (2, middle)]


def test_who_says_it_has_something_in_custody_hears_of_it_from_then_on() -> None:
    world = World()
    phone, gate = world.edge("phone-1", linked=False), world.edge("gate-1", linked=False)
    held = StreamCarried(*phone.key_of_stream, ((1, b"h" * 8),))
    brought(world, "gate-1", spoken(gate, Hello(b"n" * 8, (), held=(held,))))
    phone.says("A1", "PLACED")
    assert list(told(brought(world, "phone-1", *frames(phone)), Receipt)) == ["phone-1", "gate-1"]


def test_the_hubs_own_facts_in_custody_are_answered_and_receipted_to_who_has_them() -> None:
    world = World()
    gate = world.edge("gate-1", linked=False)
    world.hub.begin()
    world.hub.take_events([order_event("C1", "CANCELLED")], world.now_ms)
    world.hub.commit()
    own = world.hub.ledger.own()
    held = StreamCarried(*own.key, (own.head,))
    (answer,) = told(brought(world, "gate-1", spoken(gate, Hello(b"n" * 8, (), held=(held,)))), Answer)["gate-1"]
    assert [(s.node, s.settled) for s in statements(answer)] == [("hub", ())]
    sent: list[Publish] = []
    world._send = sent.extend  # type: ignore[method-assign, assignment]
    world.store_turn()
    world.store_turn()
    (receipt, *_) = told(sent, Receipt)["gate-1"]
    assert unseal(receipt).addressee == "gate-1"  # type: ignore[union-attr]
    assert [(s.node, s.settled) for s in statements(receipt)] == [("hub", (own.head,))]


def test_a_well_signed_frame_that_does_not_decode_is_named_to_its_author_too() -> None:
    world = World()
    phone, _ = world.edge("phone-1", linked=False), world.edge("gate-1", linked=False)
    phone.says("A1", "PLACED", "PICKED")
    opened = unseal(frames(phone)[0])
    assert not isinstance(opened, Control)
    header: FrameHeader = opened[1]
    bad = seal(Out(Channel.LIVE, opened[0].kind, header.to_list(), b"\0" * 40), "phone-1", "hub", phone.key.sign)
    assert sorted(told(brought(world, "gate-1", bad), Refused)) == ["gate-1", "phone-1"]
    world.hub.begin()
    world.hub.refuse("gate-1", b"x" * 100, "poison", world.now_ms)
    world.hub.commit()
    assert sorted(told(world.hub.effects(world.now_ms), Refused)) == ["gate-1"], "of other bytes the phone knows nothing"


def test_what_a_relay_kept_does_not_make_its_author_look_alive() -> None:
    world = World()
    phone, _ = world.edge("phone-1", linked=False), world.edge("gate-1", linked=False)
    phone.says("A1", "PLACED")
    payloads = frames(phone)
    brought(world, "gate-1", *payloads)
    assert world.hub.seen_ms("phone-1") is None
    brought(world, "phone-1", *payloads)
    assert world.hub.seen_ms("phone-1") == world.now_ms


def test_the_balance_shows_custody_by_relay_and_by_author() -> None:
    world = World()
    phone, gate = world.edge("phone-1"), world.edge("gate-1")
    phone.says("A1", "PLACED", "PICKED", "PACKED")
    world.bend = lambda node, payload: [] if not isinstance(unseal(payload), Control) else [payload]  # heartbeats come, frames do not
    world.run(8)
    assert world.row("phone-1")["queued"] == 3
    beat = Heartbeat(world.now_ms, (), "0.1", custody=CustodyStated(2, 300, 77, (("phone-1", 2),)))
    brought(world, "gate-1", spoken(gate, beat))
    row, relay = world.row("phone-1"), world.row("gate-1")
    assert (row["captured"], row["queued"], row["inCustody"], row["notHereYet"], row["balanced"]) == (3, 1, 2, 3, True)
    assert relay["custody"] == {"events": 2, "bytes": 300, "oldestMs": 77}
    brought(world, "gate-1", spoken(gate, replace(beat, custody=CustodyStated(9, 300, 77, (("phone-1", 9),)))))
    assert world.row("phone-1")["inCustody"] == 3, "never more than is missing"


def test_of_many_relays_the_last_ones_are_remembered() -> None:
    carriers = Carriers()
    for i in range(50):
        carriers.note("phone-1", f"gate-{i}")
    assert carriers.of("phone-1") == tuple(f"gate-{i}" for i in range(50 - CARRIERS_MOST, 50))
    carriers.note("phone-1", "gate-45")
    assert carriers.of("phone-1")[-1] == "gate-45"
    assert len(carriers.of("phone-1")) == CARRIERS_MOST
    assert carriers.of("phone-2") == ()


def test_the_feed_goes_the_way_on_which_the_node_spoke_last() -> None:
    carriers = Carriers()
    assert carriers.way("phone-1") == "phone-1"
    carriers.speaks("phone-1", "gate-1")
    carriers.note("phone-1", "gate-2")
    assert carriers.way("phone-1") == "gate-1"
    world = World()
    phone, dock, gate = (world.edge(name, linked=False) for name in ("phone-1", "dock-1", "gate-1"))
    brought(world, "gate-1", spoken(phone, Heartbeat(world.now_ms, (), "0.1")))
    assert world.hub.receiver.carriers.way("phone-1") == "gate-1"
    dock.says("A1", "PLACED")
    brought(world, "phone-1", *frames(dock))
    assert world.hub.receiver.carriers.way("phone-1") == "gate-1", "facts of whenever show no way"
    brought(world, "phone-1", spoken(phone, Heartbeat(world.now_ms, (), "0.1")))
    assert world.hub.receiver.carriers.way("phone-1") == "phone-1"
    brought(world, "", spoken(phone, Heartbeat(world.now_ms, (), "0.1")))
    assert world.hub.receiver.carriers.way("phone-1") == "phone-1", "an operator's stick is no way back"
    del gate
