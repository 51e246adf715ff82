"""A relay brings what it keeps to the hub, passes on what the hub says, and lets go by rule 11; whichever way facts come, once each."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest

from edge_agent.relay import Verdict
from hub.core import HubSettings
from protocols.codec import Kind
from protocols.custody import POINTS_HELD
from protocols.messages import Hello, Receipt, StreamStated
from protocols.sync.seal import Control, seal, unseal
from protocols.sync.uplink import Out
from protocols.topics import Channel
from tests.unit.edge_agent.relay_world import (
    again,
    arrive,
    befriend,
    bring,
    frames_of,
    gateway,
    kept,
    leave,
    orders,
    pair,
    roaming,
    spoken,
    stored,
    visit,
)
from tests.unit.hub.hub_world import Edge, World

DAY_MS = 86_400_000


# ------------------------------------------------------------ to the hub and back


def test_through_a_gateway_a_phone_is_received_and_settled_as_if_it_were_there() -> None:
    world, gate, phone = pair()
    world.run(3)
    arrive(phone)
    phone.says("A1", "PLACED", "PICKED", "PACKED")
    visit(phone, gate, 8)
    stream = phone.core.ledger.own()
    assert phone.core.uplink.unreceived(stream) == 0
    assert stream.settled_seq == 3
    assert stored(world, phone) == 3
    assert kept(gate) == (0, 0), "custody has ended"


def test_an_outage_of_the_gateway_is_bridged() -> None:
    world, gate, phone = pair(linked=False)
    arrive(phone)
    phone.says("A1", "PLACED", "PICKED", "PACKED")
    visit(phone, gate, 5)
    assert kept(gate) == (3, 1), "handed over though no hub answers"
    assert phone.core.uplink.unreceived(phone.core.ledger.own()) == 3, "custody is not received"
    phone.says("A1", "SHIPPED")
    visit(phone, gate, 2)
    assert orders(gate) == orders(phone)
    leave(phone)  # it goes away, and may never come back
    gate.link()
    world.run(15)
    assert stored(world, phone) == 4
    assert kept(gate) == (0, 0)
    arrive(phone)
    visit(phone, gate, 8)
    assert phone.core.ledger.own().settled_seq == 4


def test_a_phone_that_waits_at_the_gateway_hears_soon_when_the_link_is_back() -> None:
    world, gate, phone = pair(linked=False)
    arrive(phone)
    phone.says("A1", "PLACED")
    visit(phone, gate, 60)
    gate.link()
    visit(phone, gate, 6)
    assert phone.core.ledger.own().settled_seq == 1
    assert stored(world, phone) == 1


def test_nothing_is_handed_out_twice_to_the_same_relay_nor_what_the_hub_has() -> None:
    world, gate, phone = pair()
    world.run(3)
    arrive(phone)
    phone.says("A1", "PLACED", "PICKED")
    visit(phone, gate, 8)
    gate.cut()
    phone.says("A2", "PLACED")
    done = visit(phone, gate, 20)
    frames = [t for t in done if t.verdict in (Verdict.KEPT, Verdict.KNOWN)]
    assert [(t.verdict, t.new) for t in frames][:1] == [(Verdict.KEPT, 1)]
    assert sum(t.new for t in frames) == 1
    assert len(frames) <= 2, "once as a live frame, once handed out"


def test_a_hub_that_was_restored_is_given_back_what_it_lost() -> None:
    world, gate, phone = pair()
    world.run(3)
    image = world.db.dump()
    phone.says("A1", "PLACED", "PICKED")
    bring(gate, frames_of(phone))
    world.run(3, store=False)
    assert world.held(phone.key_of_stream) == [(1, 2)]
    world.restart(image)
    assert world.held(phone.key_of_stream) == []
    gate.says("B1", "PLACED")  # whatever is said shows the gateway another incarnation
    world.run(12)
    assert world.held(phone.key_of_stream) == [(1, 2)]
    assert stored(world, phone) == 2
    assert kept(gate) == (0, 0)


def test_what_the_hub_holds_is_not_sent_again_however_much_came_down_of_its_author() -> None:
    """Its frames end far below, of what came down later most facts stand alone, and nothing goes: the backup is older."""
    world, gate, phone = pair()
    world.run(3)
    world.begin_backup()
    phone.says("A1", "PLACED", "PICKED", "PACKED")
    bring(gate, frames_of(phone))
    world.run(8)
    phone.link()
    for n in range(POINTS_HELD + 8):
        phone.says(f"M{n}", "PLACED")
        phone.says(f"L{n}", "PLACED", site="Lyon")
    world.run(30, store=False)
    assert kept(gate)[0] > POINTS_HELD
    world.run(30)
    sent: list[bytes] = []

    def bend(node: str, payload: bytes) -> list[bytes]:
        sent.extend([payload] if node == "gate-1" else [])
        return [payload]

    world.bend = bend
    for _ in range(4):
        hear_again(world, gate)
        world.run(30)
    carried = [opened for opened in map(unseal, sent) if not isinstance(opened, Control) or opened.envelope.kind is Kind.FEED]
    assert len(sent) > 4 and carried == [] and gate.core.custody.payloads() != []
    assert kept(gate) == (0, 0), "each point has had its turn to be asked about"


def test_what_gets_lost_on_the_way_is_sent_again_with_growing_pauses() -> None:
    world, gate, phone = pair()
    world.run(3)
    phone.says("A1", "PLACED")
    lost: list[int] = []

    def swallow(node: str, payload: bytes) -> list[bytes]:
        if isinstance(unseal(payload), Control):
            return [payload]
        lost.append(world.now_ms)
        return []

    world.bend = swallow
    bring(gate, frames_of(phone))
    world.run(60)
    pauses = [b - a for a, b in pairwise(lost)]
    assert 3 <= len(lost) <= 12
    assert pauses[0] <= 4_000
    assert max(pauses) >= 10_000
    world.bend = lambda node, payload: [payload]
    world.run(40)
    assert stored(world, phone) == 1
    assert kept(gate) == (0, 0)


def test_no_more_is_under_way_than_the_window_and_credit_allow() -> None:
    world = World(HubSettings(credit_facts=16))
    gate, phone = gateway(world, "gate-1"), roaming(world, "phone-1")
    befriend(gate, phone)
    world.run(3)
    phone.says("A1", *["PICKED"] * 40)
    bring(gate, frames_of(phone))
    first = [p for p in spoken(gate) if not isinstance(unseal(p), Control)]
    assert len(first) == 2, "8 facts: half of the credit"
    for payload in first:
        world.deliver("gate-1", payload)
    world.run(30)
    assert stored(world, phone) == 40


def test_without_credit_custody_waits() -> None:
    world = World(HubSettings(budget_bytes=1))
    gate, phone = gateway(world, "gate-1"), roaming(world, "phone-1")
    befriend(gate, phone)
    world.run(3)
    phone.says("A1", "PLACED")
    bring(gate, frames_of(phone))
    assert spoken(gate) == []


def test_a_phone_that_is_not_admitted_waits_in_custody_until_it_is() -> None:
    world = World()
    gate = gateway(world, "gate-1")
    phone = world.edge("phone-1", admitted=False, linked=False)
    again(phone)
    befriend(gate, phone)
    phone.says("A1", "PLACED")
    bring(gate, frames_of(phone))
    world.run(20)
    assert kept(gate) == (1, 1)
    world.admit(phone)
    world.run(30)
    assert stored(world, phone) == 1
    assert kept(gate) == (0, 0)


# ------------------------------------------------------------ many ways, any order


@pytest.mark.parametrize("seed", range(6))
def test_by_two_gateways_and_directly_twice_and_shuffled_each_fact_is_applied_once(seed: int) -> None:
    rng = Random(seed)
    print("seed", seed)
    world = World()
    one, two = gateway(world, "gate-1"), gateway(world, "gate-2", linked=bool(seed % 2))
    phone = roaming(world, "phone-1")
    befriend(one, phone)
    befriend(two, phone)
    world.run(2)
    for i in range(6):
        phone.says(f"A{i % 2}", *["PLACED", "PICKED", "PACKED"][: 1 + rng.randrange(3)])
        payloads = frames_of(phone) * 2
        rng.shuffle(payloads)
        for payload in payloads:
            where = rng.randrange(3)
            if where == 2:
                world.deliver("phone-1", payload)
            else:
                bring((one, two)[where], [payload])
        world.run(rng.randrange(3))
    two.link() if not two.linked else None
    arrive(phone)
    visit(phone, one, 5)
    leave(phone)
    phone.link()  # and in the end it comes by itself
    world.settle()
    head = phone.core.ledger.own().head[0]
    assert stored(world, phone) == head
    assert phone.core.ledger.own().settled_seq == head
    assert world.held(phone.key_of_stream) == [(1, head)]
    assert kept(one) == kept(two) == (0, 0)
    hub: dict[str, int] = dict(world.hub.ledger.db.query("SELECT order_id, status FROM orders ORDER BY order_id"))
    assert {order_id: str(status) for order_id, status in hub.items()} == orders(phone)
    assert world.applied_new == head


def test_a_fork_brought_by_a_relay_is_kept_beside_the_other_branch_until_it_is_settled() -> None:
    world, gate, phone = pair(linked=False)
    phone.says("A1", "PLACED", "PICKED")
    image = phone.db.dump()
    phone.says("A1", "PACKED", "SHIPPED")
    world.deliver("phone-1", frames_of(phone)[0])
    twin = world.edge("phone-1", image=image, linked=False)
    again(twin)
    twin.says("A1", "CANCELLED")
    bring(gate, frames_of(twin))
    assert kept(gate) == (3, 1)
    world.run(3)  # the store has the first branch and says so
    gate.link()
    world.run(1, store=False)
    assert kept(gate) == (3, 1), "settled up to 4 on another branch says nothing of this one"
    world.run(12)
    assert kept(gate) == (0, 0)
    assert stored(world, phone) == 5


# ------------------------------------------------------------ what the hub says, and to whom


def test_what_the_hub_says_to_a_phone_waits_at_the_gateway_unchanged() -> None:
    world, gate, phone = pair()
    world.run(3)
    phone.says("A1", "PLACED")
    bring(gate, frames_of(phone))
    world.run(2)
    waiting = gate.core.relay.mailboxes.take("phone-1", 10**6)
    assert waiting
    for payload in waiting:
        control = unseal(payload)
        assert isinstance(control, Control)
        assert (control.author, control.addressee) == ("hub", "phone-1")
    assert gate.core.damaged == 0


def test_what_is_said_to_nobodys_peer_is_damage_and_nothing_else() -> None:
    world, gate, phone = pair()
    other = roaming(world, "phone-9")
    world.run(3)
    phone.says("A1", "PLACED")
    receipt = seal(Out(Channel.RECEIPT, Hello.KIND, [], Hello(b"n" * 8, ()).to_list()), "hub", "phone-9", world.key.sign)
    gate.hears(receipt)
    assert gate.core.damaged == 1
    forged = seal(Out(Channel.RECEIPT, Hello.KIND, [], Hello(b"n" * 8, ()).to_list()), "hub", "phone-1", other.key.sign)
    gate.hears(forged)
    assert gate.core.damaged == 2
    assert not gate.core.relay.mailboxes.waits("phone-1")


def test_a_word_of_an_older_hub_frees_nothing() -> None:
    world, gate, phone = pair()
    world.run(3)
    said: list[bytes] = []
    hears = gate.hears
    gate.hears = lambda payload: said.append(payload)  # type: ignore[method-assign]
    phone.says("A1", "PLACED")
    bring(gate, frames_of(phone))
    world.run(4)  # received and settled, but the gateway does not hear of it yet
    gate.hears = hears  # type: ignore[method-assign]
    world.restart()
    gate.says("B1", "PLACED")
    world.run(2, store=False)
    for payload in said:
        gate.hears(payload)
    assert kept(gate) == (1, 1), "those words are of an incarnation that is no more"
    world.run(12)
    assert kept(gate) == (0, 0)


def hear_again(world: World, gate: Edge) -> None:
    """The gateway asks, and hears what is settled and what may be freed."""
    gate.core.uplink.ask()
    world.run(2)


def test_peers_facts_and_settled_bytes_go_by_rule_11() -> None:
    """Older than the floor by the hub's time and, where no backup is configured, only under pressure."""
    world, gate, phone = pair()
    world.run(3)
    phone.says("A1", "PLACED", "PICKED")
    bring(gate, frames_of(phone))
    world.run(8)
    assert kept(gate) == (0, 0)

    def here() -> tuple[int, int]:
        return len(gate.core.custody.payloads()), gate.core.ledger.db.query("SELECT count(*) FROM log")[0][0]

    world.now_ms += 8 * DAY_MS
    hear_again(world, gate)
    assert here() == (1, 2), "nothing presses"
    phone.says("A1", "PACKED")
    bring(gate, frames_of(phone)[-1:])
    world.run(8)
    gate.core.relay.settings = replace(gate.core.relay.settings, pressure_percent=0)
    gate.core.settings = replace(gate.core.settings, pressure_percent=0)
    hear_again(world, gate)
    assert here() == (1, 1), "what was settled just now is younger than the floor"
    assert orders(gate) == orders(phone), "what is freed stays folded"
    world.now_ms += 8 * DAY_MS
    hear_again(world, gate)
    hear_again(world, gate)
    assert here()[0] == 0


def test_with_backups_nothing_goes_that_one_of_them_lacks() -> None:
    world, gate, phone = pair()
    world.run(3)
    phone.says("A1", "PLACED", "PICKED")
    bring(gate, frames_of(phone))
    world.run(8)
    stream = phone.core.ledger.own()
    gate.core.relay.settings = replace(gate.core.relay.settings, pressure_percent=0)
    later = world.now_ms + 8 * DAY_MS
    bare = StreamStated(*stream.key, settled=(stream.head,))
    gate.core.begin()
    gate.core.relay.believe(bare, later, 0, backed_up=True)
    gate.core.commit()
    assert len(gate.core.custody.payloads()) == 1
    gate.core.begin()
    gate.core.relay.believe(replace(bare, freeable=(stream.head,)), later, 0, backed_up=True)
    gate.core.commit()
    assert gate.core.custody.payloads() == []


def test_a_receipt_of_another_incarnation_to_the_relay_itself_frees_nothing() -> None:
    world, gate, phone = pair(linked=False)
    phone.says("A1", "PLACED")
    bring(gate, frames_of(phone))
    gate.link()
    world.bend = lambda node, payload: [payload] if isinstance(unseal(payload), Control) else []
    world.run(2)
    said = StreamStated(*phone.key_of_stream, settled=(phone.core.ledger.own().head,))
    for incarnation, left in ((b"of-old!!", (1, 1)), (world.hub.receiver.incarnation, (0, 0))):
        receipt = Receipt(incarnation, world.now_ms, 100, (said,))
        world.run(3)
        gate.hears(seal(Out(Channel.RECEIPT, Receipt.KIND, [], receipt.to_list()), "hub", "gate-1", world.key.sign))
        assert kept(gate) == left


def test_frames_for_others_are_cut_alike_wherever_they_begin() -> None:
    _, _, phone = pair()
    phone.says("A1", *["PICKED"] * 10)

    def ranges() -> list[tuple[int, int]]:
        headers = [opened[1] for opened in map(unseal, frames_of(phone)) if not isinstance(opened, Control)]
        return [(header.first, header.first + header.count - 1) for header in headers]

    assert ranges() == [(1, 4), (5, 8), (9, 10)]
    phone.core.ledger.own().settled_seq = 2
    assert ranges() == [(3, 4), (5, 8), (9, 10)]


def test_what_the_hub_is_believed_to_hold_is_not_handed_out() -> None:
    world, gate, phone = pair()
    world.run(3)
    arrive(phone)
    phone.says("A1", "PLACED", "PICKED")
    for _ in range(4):
        bring(gate, spoken(phone))
        world.run(1, store=False)
        for payload in gate.core.relay.mailboxes.take("phone-1", 1_000_000):
            phone.hears(payload)
    assert phone.core.uplink.unreceived(phone.core.ledger.own()) == 0
    phone.core.uplink.ask()
    gate.cut()
    world.now_ms += 10_000
    spoken(phone)
    world.now_ms += 10_000
    assert [p for p in spoken(phone) if not isinstance(unseal(p), Control)] == []
    phone.says("A1", "PACKED")
    assert len([p for p in spoken(phone) if not isinstance(unseal(p), Control)]) == 1


# ------------------------------------------------------------ what it says of itself


def test_the_heartbeat_names_custody_by_author() -> None:
    world, gate, phone = pair()
    world.run(3)
    phone.says("A1", "PLACED", "PICKED")
    bring(gate, frames_of(phone))
    world.bend = lambda node, payload: [payload] if isinstance(unseal(payload), Control) else []
    world.run(8)
    row = world.row("gate-1")
    assert row["custody"]["events"] == 2
    assert row["custody"]["bytes"] > 0
    assert world.hub.registry.beats()["gate-1"][0].custody.by_author == (("phone-1", 2),)  # type: ignore[union-attr]
    status = gate.core.status(gate.now)["custody"]
    assert (status["events"], status["peers"], status["underWay"]) == (2, 1, 1)


def test_a_peer_that_is_removed_is_taken_from_no_more_and_what_is_kept_goes_on() -> None:
    world, gate, phone = pair(linked=False)
    phone.says("A1", "PLACED")
    bring(gate, frames_of(phone))
    gate.core.begin()
    assert gate.core.relay.peers.remove("phone-1")
    assert not gate.core.relay.peers.remove("phone-1")
    gate.core.commit()
    phone.says("A2", "PLACED")
    assert {t.verdict for t in bring(gate, frames_of(phone))} == {Verdict.STRANGER}
    gate.link()
    world.run(15)
    assert stored(world, phone) == 1
    assert kept(gate) == (0, 0)
