"""Each fact has one effect, a batch is taken whole or not at all, and what was taken is there after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.store.port import CentralStore, OrderQuery, StoreFact
from protocols.codec import pack
from protocols.errors import LedgerError
from protocols.ledger import parse_row
from protocols.lifecycle import Status
from protocols.streams import StreamKey
from tests.conformance.store.kinds import StoreKind
from tests.conformance.store.test_any_order import everything
from tests.conformance.store.worlds import ORG, START_MS, World

NOW_MS = START_MS + 10_000_000


def small_world(facts: int = 12) -> tuple[World, list[StoreFact]]:
    world = World()
    authors = [world.author("w1"), world.author("w2")]
    given = [world.say(authors[n % 2], f"O-{n % 4}", Status.PLACED if n < 4 else Status.PICKED) for n in range(facts)]
    return world, given


def test_a_batch_that_comes_again_changes_nothing(store: CentralStore) -> None:
    _, facts = small_world()
    first = store.apply(facts, [], NOW_MS)
    before = everything(store)
    second = store.apply(facts, [], NOW_MS + 5)
    assert (first.new, first.known, second.new, second.known, second.changes) == (12, 0, 0, 12, [])
    assert everything(store) == before


def test_a_fact_twice_in_one_batch_counts_once(store: CentralStore) -> None:
    _, facts = small_world()
    applied = store.apply([*facts[:6], *facts[:6], facts[5], *facts[6:]], [], NOW_MS)
    assert (applied.new, applied.known, len(applied.changes)) == (12, 7, 12)
    assert store.totals() == {"orders": 4, "facts": 12, "conflicts": 0, "quarantined": 0}


def test_a_batch_that_overlaps_an_earlier_one_adds_only_its_rest(store: CentralStore) -> None:
    world = World()
    author = world.author("w1")
    facts = [world.say(author, f"O-{n}", Status.PLACED) for n in range(10)]
    store.apply(facts[:6], [], NOW_MS)
    applied = store.apply(facts[3:9], [], NOW_MS)
    assert (applied.new, [c.order_id for c in applied.changes]) == (3, ["O-6", "O-7", "O-8"])


def test_the_same_seq_with_another_hash_is_another_fact(store: CentralStore) -> None:
    world = World()
    author = world.author("w1")
    clone = world.fork(author)
    store.apply([world.say(author, "O-1", Status.PLACED)], [], NOW_MS)
    assert store.apply([world.say(clone, "O-1", Status.CANCELLED)], [], NOW_MS).new == 1


def test_changes_say_what_the_order_shows_after_the_batch(store: CentralStore) -> None:
    world = World()
    author = world.author("w1")
    placed = world.say(author, "O-1", Status.PLACED)
    picked = world.say(author, "O-1", Status.PICKED, site="Madrid", region="EMEA")
    first, second = store.apply([placed, picked], [], NOW_MS).changes
    assert (first.status, first.shown, first.is_head) == ("PLACED", "PICKED", False)
    assert (second.status, second.shown, second.is_head, second.site, second.region) == ("PICKED", "PICKED", True, "Madrid", "EMEA")
    assert (second.node, second.received_ms, second.happened_ms) == ("w1", picked.received_ms, world.now_ms)


def test_facts_read_by_the_deliverer_and_facts_read_here_end_alike(kind: StoreKind) -> None:
    _, facts = small_world()
    results = []
    for batch in (facts, [f._replace(fact=parse_row(f.row)) for f in facts]):
        store = kind.scratch()
        store.apply(batch, [], NOW_MS)
        results.append(everything(store))
        store.close()
    assert results[0] == results[1]


@pytest.mark.parametrize("field", ["h", "row", "received_ms", "prev", "seq"])
def test_a_batch_that_fails_leaves_nothing(kind: StoreKind, tmp_path: Path, field: str) -> None:
    world, facts = small_world()
    store = kind.open(tmp_path)
    store.apply(facts[:4], [], NOW_MS)
    before = everything(store)
    unstorable = world.say(world.author("w3"), "NEW", Status.PLACED)._replace(**{field: object()}, fact=parse_row(facts[0].row))  # type: ignore[arg-type]
    with pytest.raises((LedgerError, TypeError)):
        store.apply([*facts[4:8], unstorable, *facts[8:]], [], NOW_MS)
    assert everything(store) == before
    with pytest.raises(LedgerError, match="open it again"):
        store.apply(facts, [], NOW_MS)
    store.close()
    again = kind.open(tmp_path)
    assert everything(again) == before
    assert again.apply(facts, [], NOW_MS).new == 8
    again.close()


def test_after_a_restart_it_says_the_same_and_goes_on(kind: StoreKind, tmp_path: Path) -> None:
    _, facts = small_world()
    store = kind.open(tmp_path)
    store.apply([facts[0], *facts[4:]], [], NOW_MS)
    before = everything(store)
    store.close()
    again = kind.open(tmp_path)
    assert everything(again) == before
    assert again.apply(facts, [], NOW_MS).new == 3
    assert {o.facts for o in again.orders(OrderQuery()).orders} == {3}
    again.close()
    again.close()


def test_what_cannot_be_read_goes_to_quarantine_with_its_bytes_and_the_rest_flows(store: CentralStore) -> None:
    world = World()
    author = world.author("w1")
    good = world.say(author, "O-1", Status.PLACED)
    opaque = world.opaque(author, "does not decode")
    after = world.say(author, "O-1", Status.PICKED)
    applied = store.apply([good, opaque, after], [], NOW_MS)
    assert (applied.new, [c.status for c in applied.changes]) == (3, ["PLACED", "PICKED"])
    (counts,) = store.counts()
    assert (counts.facts, counts.quarantined, store.totals()["quarantined"]) == (2, 1, 1)
    (run,) = store.statement().streams[author.key]
    assert (run.first, run.last) == (1, 3)
    assert store.facts(author.key, run, 10) == [good, opaque, after]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"\xc1", "msgpack"),
        (pack([9, "a later kind"]), "kind 9"),
        (pack([1, "acme", "O-1", "WMS", 99, None, 1, 0, None, None, None, {}, []]), "status"),
        (pack([1, "acme", 7, "WMS", 1, None, 1, 0, None, None, None, {}, []]), "order_id"),
        (pack([1, "acme", "O-1", "WMS", 1, None, 1, 2**63, None, None, None, {}, []]), "recorded_ms"),
    ],
)
def test_a_row_that_only_the_store_cannot_read_is_quarantined_too(store: CentralStore, row: bytes, reason: str) -> None:
    world = World()
    author = world.author("w1")
    bad = world.opaque(author, "x")._replace(row=row, quarantined="")
    assert store.apply([bad, world.say(author, "O-1", Status.PLACED)], [], NOW_MS).new == 2
    (kept, _) = store.facts(author.key, store.statement().streams[author.key][0], 10)
    assert kept.row == row
    assert reason in kept.quarantined


def test_the_first_fact_of_a_new_epoch_is_no_order_and_no_poison(store: CentralStore) -> None:
    world = World()
    author = world.author("w1", epoch=2)
    opening = world.opaque(author, "x")._replace(row=pack([2, 1, 5, b"12345678"]), quarantined="")
    assert store.apply([opening], [], NOW_MS).new == 1
    (counts,) = store.counts()
    assert (counts.stream, counts.facts, counts.quarantined) == (StreamKey("w1", 2, 0), 1, 0)
    assert store.find("O-1") == []
    assert store.order(ORG, "O-1") is None
    assert store.events(ORG, "O-1") == []
