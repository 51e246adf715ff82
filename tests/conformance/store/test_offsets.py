"""Consumer offsets move with the batch, by compare-and-set: of two that believe they own a partition only one applies."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.store.offsets import Advance, Move, Offset
from hub.store.port import CentralStore
from protocols.errors import Fenced, LedgerError
from protocols.lifecycle import Status
from tests.conformance.store.kinds import StoreKind
from tests.conformance.store.test_any_order import everything
from tests.conformance.store.test_exactly_once import NOW_MS, small_world
from tests.conformance.store.worlds import World

TOPIC = "longshore.orders.events.v1"
MINE, OTHERS = 11, 2**63 - 1


def move(expected: int | None, next_offset: int, *, partition: int = 0, fence: int = MINE) -> Advance:
    return Advance((Move(TOPIC, partition, fence, expected, next_offset),))


def test_a_partition_that_nobody_applied_has_no_offset(store: CentralStore) -> None:
    assert store.offsets() == []
    assert store.claim(TOPIC, 3, MINE) is None
    assert store.offsets() == [Offset(TOPIC, 3, None, MINE)]


def test_a_batch_moves_its_offset_and_a_claim_finds_it(store: CentralStore) -> None:
    _, facts = small_world()
    store.claim(TOPIC, 0, MINE)
    assert store.apply(facts[:6], [], NOW_MS, move(None, 106)).new == 6
    assert store.apply(facts[6:], [], NOW_MS, move(106, 112)).new == 6
    assert store.apply([], [], NOW_MS, move(112, 113)).new == 0
    assert store.claim(TOPIC, 0, OTHERS) == 113
    assert store.offsets() == [Offset(TOPIC, 0, 113, OTHERS)]


def test_a_zombie_changes_nothing_and_the_store_goes_on(store: CentralStore) -> None:
    _, facts = small_world()
    store.claim(TOPIC, 0, MINE)
    store.apply(facts[:4], [], NOW_MS, move(None, 4))
    assert store.claim(TOPIC, 0, OTHERS) == 4
    before = everything(store)
    with pytest.raises(Fenced, match=f"{TOPIC}/0 stands no longer at 4"):
        store.apply(facts[4:8], [], NOW_MS, move(4, 8))
    assert everything(store) == before
    assert store.offsets() == [Offset(TOPIC, 0, 4, OTHERS)]
    assert store.apply(facts[4:8], [], NOW_MS, move(4, 8, fence=OTHERS)).new == 4


@pytest.mark.parametrize("expected", [None, 3, 5])
def test_an_offset_that_is_not_the_stores_is_fenced(store: CentralStore, expected: int | None) -> None:
    _, facts = small_world()
    store.claim(TOPIC, 0, MINE)
    store.apply(facts[:4], [], NOW_MS, move(None, 4))
    with pytest.raises(Fenced):
        store.apply(facts[4:], [], NOW_MS, move(expected, 12))
    assert store.totals()["facts"] == 4


def test_a_partition_that_was_never_claimed_is_fenced(store: CentralStore) -> None:
    _, facts = small_world()
    with pytest.raises(Fenced):
        store.apply(facts, [], NOW_MS, move(None, 12))
    assert (store.totals()["facts"], store.offsets()) == (0, [])


def test_of_several_partitions_all_move_or_none(store: CentralStore) -> None:
    _, facts = small_world()
    store.claim(TOPIC, 0, MINE)
    store.claim(TOPIC, 1, OTHERS)
    both = Advance((Move(TOPIC, 1, MINE, None, 7), Move(TOPIC, 0, MINE, None, 5)))
    with pytest.raises(Fenced, match=f"{TOPIC}/1"):
        store.apply(facts, [], NOW_MS, both)
    assert [o.next_offset for o in store.offsets()] == [None, None]
    store.claim(TOPIC, 1, MINE)
    assert store.apply(facts, [], NOW_MS, both).new == 12
    assert [o.next_offset for o in store.offsets()] == [5, 7]


def test_a_batch_that_fails_moves_no_offset(kind: StoreKind, tmp_path: Path) -> None:
    store = kind.open(tmp_path)
    world = World()
    fact = world.say(world.author("w1"), "O-1", Status.PLACED)
    store.claim(TOPIC, 0, MINE)
    with pytest.raises((LedgerError, TypeError)):
        store.apply([fact._replace(row=object())], [], NOW_MS, move(None, 1))  # type: ignore[arg-type]
    store.close()
    again = kind.open(tmp_path)
    assert again.offsets() == [Offset(TOPIC, 0, None, MINE)]
    assert again.apply([fact], [], NOW_MS, move(None, 1)).new == 1
    again.close()


def test_offsets_last_and_readers_see_them(kind: StoreKind, tmp_path: Path) -> None:
    store = kind.open(tmp_path)
    store.claim(TOPIC, 0, MINE)
    store.apply([], [], NOW_MS, move(None, 9))
    store.close()
    again, reader = kind.open(tmp_path), kind.reader(tmp_path)
    assert again.offsets() == reader.offsets() == [Offset(TOPIC, 0, 9, MINE)]
    again.close()
    reader.close()
