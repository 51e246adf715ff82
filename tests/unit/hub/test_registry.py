"""Who may speak, and the bounds of what is kept for those who may not (yet)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hub.registry import Registry
from protocols.errors import InvalidInput
from protocols.fact import HASH_BYTES
from protocols.limits import FRAME_WIRE_BYTES, REFUSED_KEPT, WAITING_BYTES, WAITING_NODES
from protocols.messages import Heartbeat, StreamQueue
from protocols.sqlite import Db
from protocols.trust import NodeKey
from tests.unit.hub.hub_world import START_MS, make_card

KEY, OTHER = NodeKey(b"a" * 32), NodeKey(b"b" * 32)


@pytest.fixture
def db() -> Iterator[Db]:
    db = Db(":memory:")
    yield db
    db.close()


@contextmanager
def changing(db: Db) -> Iterator[Registry]:
    registry = Registry(db)
    db.begin()
    yield registry
    db.commit()


def test_an_admitted_node_is_known_after_a_restart(db: Db) -> None:
    with changing(db) as registry:
        registry.admit(make_card(KEY, "dock-7"), "hub", START_MS)
    found = Registry(db).get("dock-7")
    assert found is not None
    assert (found.public_key, found.address.site) == (KEY.public, "Madrid")


def test_the_same_card_twice_is_harmless(db: Db) -> None:
    with changing(db) as registry:
        registry.admit(make_card(KEY, "dock-7"), "hub", START_MS)
        registry.admit(make_card(KEY, "dock-7"), "hub", START_MS)
    assert [node.address.node for node in Registry(db).all()] == ["dock-7"]


@pytest.mark.parametrize(
    ("key", "node", "why"),
    [(OTHER, "dock-7", "taken by another key"), (KEY, "dock-8", "belongs to 'dock-7'"), (OTHER, "hub", "taken")],
    ids=["another key under a taken name", "a taken key under another name", "the hub's own name"],
)
def test_a_taken_name_or_key_is_refused(db: Db, key: NodeKey, node: str, why: str) -> None:
    with changing(db) as registry:
        registry.admit(make_card(KEY, "dock-7"), "hub", START_MS)
        with pytest.raises(InvalidInput, match=why):
            registry.admit(make_card(key, node), "hub", START_MS)
    assert [n.address.node for n in Registry(db).all()] == ["dock-7"]


def test_what_waits_for_one_node_is_bounded_in_bytes(db: Db) -> None:
    with changing(db) as registry:
        taken = [registry.wait("dock-7", bytes(FRAME_WIRE_BYTES), START_MS) for _ in range(WAITING_BYTES // FRAME_WIRE_BYTES + 5)]
    assert taken.count(True) == WAITING_BYTES // FRAME_WIRE_BYTES
    assert Registry(db).waiting()["dock-7"] <= WAITING_BYTES
    assert Registry(db).counters()["waiting_full"] == 5


def test_only_so_many_unknown_names_may_wait(db: Db) -> None:
    with changing(db) as registry:
        taken = [registry.wait(f"n{number}", b"hello", START_MS) for number in range(WAITING_NODES + 3)]
        assert registry.wait("n0", b"again", START_MS), "who waits already may say more"
    assert taken.count(True) == WAITING_NODES
    assert Registry(db).waiting_frames()["n0"] == 2


def test_release_gives_what_waited_in_its_order_and_forgets_it(db: Db) -> None:
    with changing(db) as registry:
        for text in (b"one", b"two"):
            registry.wait("dock-7", text, START_MS)
        assert registry.release("dock-7") == [b"one", b"two"]
        assert registry.release("dock-7") == []
    assert Registry(db).waiting() == {}


def test_evidence_is_kept_up_to_its_bound_newest_first_and_counted_beyond(db: Db) -> None:
    with changing(db) as registry:
        for number in range(REFUSED_KEPT + 7):
            registry.refuse("dock-7", number.to_bytes(16), f"reason {number}", b"x", START_MS)
    kept = Registry(db).refused(REFUSED_KEPT * 2)
    assert len(kept) == REFUSED_KEPT
    assert kept[0]["reason"] == f"reason {REFUSED_KEPT + 6}"
    assert Registry(db).counters()["refused"] == REFUSED_KEPT + 7
    assert Registry(db).refused_by_node() == {"dock-7": REFUSED_KEPT}


def test_heartbeats_are_told_as_they_stand_on_disk(db: Db) -> None:
    with changing(db) as registry:
        for at_ms, node in enumerate(("dock-8", "dock-7", "dock-9", "dock-7")):
            queue = StreamQueue(7, 0, (at_ms, b"h" * HASH_BYTES), 1, 20, None)
            registry.note_beat(node, Heartbeat(START_MS, (queue,), "0.1.0", disk_free_bytes=at_ms), START_MS + at_ms)
        told = registry.beats()
    assert list(told.items()) == list(Registry(db).beats().items())
    assert list(told) == ["dock-7", "dock-8", "dock-9"]


def test_the_last_heartbeat_survives_a_restart_and_one_of_a_later_version_is_skipped(db: Db) -> None:
    with changing(db) as registry:
        registry.note_beat("dock-7", Heartbeat(START_MS, (), "0.1.0"), START_MS + 5)
        db.run("INSERT INTO beats VALUES ('dock-8', ?, 1)", (b"\x93future",))
    beats = Registry(db).beats()
    assert list(beats) == ["dock-7"]
    assert beats["dock-7"][1] == START_MS + 5
