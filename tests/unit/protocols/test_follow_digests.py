"""What a node compares: the digests of the orders it follows, without those of which the hub has not received everything."""

from __future__ import annotations

from random import Random

import pytest

from protocols.downlink import ROOT, order_k
from protocols.ledger import Ledger
from protocols.lifecycle import Status
from protocols.orderbook import digest_of
from protocols.sync import follow
from protocols.sync.follow import Follower, Snapshot
from tests.unit.protocols.ledgers import ORG, event, ledger, say


def follower(led: Ledger, *above: tuple[int, int]) -> Follower:
    made = Follower(led, Random(1))
    made.unreceived = lambda: above
    return made


def pairs(led: Ledger, *names: str) -> list[tuple[int, int]]:
    orders = [led.book.get(ORG, name) for name in names]
    return sorted((order_k(o.org, o.order_id), digest_of(o.heads)) for o in orders if o is not None)


@pytest.mark.parametrize("page", [1, 3, 1_000])
def test_orders_with_facts_that_the_hub_lacks_are_left_out(monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(follow, "_PAGE", page)
    led = ledger()
    say(led, *(event(f"A{n}") for n in range(10)))
    say(led, event("A3", Status.APPROVED), event("B1"))
    sid = led.own().sid
    known = [f"A{n}" for n in range(10) if n != 3]
    assert list(follower(led, (sid, 10))._digests()) == pairs(led, *known)
    assert list(follower(led)._digests()) == pairs(led, *known, "A3", "B1")
    assert list(follower(led, (sid, 0))._digests()) == []


def test_two_streams_that_the_hub_lacks_a_part_of() -> None:
    led = ledger()
    say(led, event("A1"), event("A2"))
    first = led.own().sid
    led.begin()
    led.start_new_epoch(1)
    led.commit()
    say(led, event("A3"), event("A4"))
    assert list(follower(led, (first, 1), (led.own().sid, 2))._digests()) == pairs(led, "A1", "A3")


def test_sums_of_a_snapshot_are_those_of_its_parts_however_large_they_grow() -> None:
    rng = Random(7)
    orders = sorted((rng.getrandbits(32), rng.getrandbits(48)) for _ in range(5_000))
    snapshot = Snapshot(iter(orders))
    vector = snapshot.vector(ROOT)
    for part, digest in zip(ROOT.children(), vector.digests, strict=True):
        assert digest == sum(d for k, d in orders if part.low <= k <= part.high) % 2**48
    assert snapshot.count(ROOT) == 5_000
    assert snapshot.leaf(ROOT, orders[4_990][0]).orders == tuple(orders[4_990:])
