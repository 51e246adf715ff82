"""Letting go of one's own telemetry: the place stays, both ends are known, and who misses the range is given the author's record."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from protocols.chains import RunKind
from protocols.event import TimeQuality
from protocols.eviction import evict, evicted_by_reason
from protocols.ledger import ORDERS, TELEMETRY, Ledger
from protocols.messages import Pull, Record, RunStated
from protocols.streams import Stream
from protocols.sync.handover import lacking
from protocols.sync.records import below_records
from protocols.telemetry import Reading
from tests.unit.protocols.ledgers import NOW_MS, event, ledger, offer, range_of, runs, say
from tests.unit.protocols.pair import SMALL, Pair, frames, greeted, record_of


def tell(led: Ledger, count: int) -> Stream:
    led.begin()
    led.append_telemetry([Reading(f"d{i}", "health", NOW_MS, TimeQuality.STATED, {"n": i}) for i in range(count)], NOW_MS)
    led.commit()
    return led.own(TELEMETRY)


def gone(led: Ledger, first: int, last: int, reason: str = "oldest") -> int:
    led.begin()
    done = evict(led, led.own(TELEMETRY), first, last, reason)
    led.commit()
    return done.facts


def hub_runs(pair: Pair) -> list[tuple[int, int, int]]:
    return runs(pair.hub, pair.edge.own(TELEMETRY).key)


# ------------------------------------------------------------ the ledger


def test_the_place_stays_and_its_ends_are_known() -> None:
    led = ledger()
    stream = tell(led, 20)
    h5, h8 = led.log.hash_at(stream, 5), led.log.hash_at(stream, 8)
    assert gone(led, 6, 8) == 3
    assert runs(led, stream.key) == [(1, 5, 0), (6, 8, 2), (9, 20, 0)]
    assert (led.log.hash_at(stream, 5), led.log.hash_at(stream, 7), led.log.hash_at(stream, 8)) == (h5, None, h8)
    record = stream.chain.runs[1]
    assert (record.h_before, record.h_last) == (h5, h8)
    again = ledger(db=led.db)
    assert runs(again, stream.key) == [(1, 5, 0), (6, 8, 2), (9, 20, 0)]


def test_neighbours_become_one_place_and_reasons_are_added_up() -> None:
    led = ledger()
    stream = tell(led, 20)
    for first, last, reason in ((1, 3, "settled"), (7, 8, "superseded"), (4, 6, "oldest"), (11, 11, "oldest")):
        gone(led, first, last, reason)
    assert runs(led, stream.key) == [(1, 8, 2), (9, 10, 0), (11, 11, 2), (12, 20, 0)]
    assert evicted_by_reason(led) == {"settled": 3, "superseded": 2, "oldest": 4}
    assert led.db.query("SELECT last, settled, superseded, oldest FROM evictions ORDER BY last") == [(8, 3, 2, 3), (11, 0, 0, 1)]


def test_facts_of_orders_the_head_what_is_gone_and_what_was_freed_never_go() -> None:
    led = ledger()
    say(led, *(event(f"o{i}") for i in range(5)))
    tell(led, 10)
    led.begin()
    assert evict(led, led.own(ORDERS), 1, 3, "oldest").facts == 0
    led.free(led.own(TELEMETRY), 2, NOW_MS)
    led.commit()
    assert [gone(led, *r) for r in ((9, 10), (10, 10), (2, 4), (4, 5), (5, 6))] == [0, 0, 0, 2, 0]
    assert led.db.query("SELECT count(*) FROM log") == [(5 + 6,)]


def test_what_waits_is_weighed_without_it() -> None:
    led = ledger()
    stream = tell(led, 10)
    assert led.unsettled(stream)[0] == 10
    gone(led, 3, 6)
    tell(led, 2)
    gone(led, 8, 10)  # across what was weighed and what was not
    fresh = ledger(db=led.db)
    assert led.unsettled(stream) == fresh.unsettled(fresh.own(TELEMETRY))
    assert led.unsettled(stream)[0] == 5


def test_a_stream_with_places_goes_on_and_is_freed_like_any_other() -> None:
    led = ledger()
    stream = tell(led, 10)
    gone(led, 3, 5)
    tell(led, 10)
    assert runs(led, stream.key) == [(1, 2, 0), (3, 5, 2), (6, 20, 0)]
    led.begin()
    assert led.free(stream, 5, NOW_MS) > 0, "the end of a place is a point like any other"
    assert led.free(stream, 8, NOW_MS) > 0
    led.commit()
    assert led.db.query("SELECT min(seq) FROM log") == [(9,)]


# ------------------------------------------------------------ on the wire


def test_the_hub_is_given_a_signed_record_for_what_it_misses() -> None:
    pair = greeted()
    tell(pair.edge, 20)
    gone(pair.edge, 4, 9, "superseded")
    pair.uplink.on_evicted()
    pair.uplink.on_appended(pair.now)
    outs = pair.send(SMALL.linger_ms)
    assert frames(outs) == [("live", 1, 3), ("live", 10, 13)], "what is gone is not looked for"
    pair.hear(*pair.hub_takes(outs))
    record = record_of(pair.send())
    assert (record.first, record.last, record.kind, record.reason) == (4, 9, RunKind.EVICTED, "6 superseded")
    assert Record.parse(record.to_list()) == record
    pair.hear(*pair.hub_takes([o for o in pair.send() if o.kind.name != "RECORD"]))
    pair.uplink.on_up(pair.now)
    pair.greet()
    pair.run()
    assert hub_runs(pair) == [(1, 3, 0), (4, 9, 2), (10, 20, 0)]
    assert pair.uplink.unreceived(pair.edge.own(TELEMETRY)) == 0


def test_a_record_reaches_down_to_the_data_that_the_hub_still_lacks_and_no_further() -> None:
    """The hub misses 1..9: of them 1..3 are here and travel, 4..9 are not."""
    pair = greeted()
    stream = tell(pair.edge, 20)
    offer(pair.hub, range_of(pair.edge, 10, 20, stream))
    gone(pair.edge, 4, 9)
    pair.greet()
    outs = pair.send()
    assert (record_of(outs).first, record_of(outs).last) == (4, 9)
    pair.hear(*pair.hub_takes(outs))
    pair.run()
    assert hub_runs(pair) == [(1, 3, 0), (4, 9, 2), (10, 20, 0)]


def test_what_the_hub_holds_is_no_place_there_though_its_author_let_go() -> None:
    """A record never takes the place of data; and a run that ends where this node knows no hash any more is no fork."""
    pair = greeted()
    stream = tell(pair.edge, 20)
    offer(pair.hub, range_of(pair.edge, 1, 7, stream))
    gone(pair.edge, 4, 9)
    epoch = pair.edge.own(TELEMETRY).key.epoch
    pair.greet()
    pair.run()
    assert hub_runs(pair) == [(1, 7, 0), (8, 9, 2), (10, 20, 0)]
    assert pair.edge.own(TELEMETRY).key.epoch == epoch
    assert pair.uplink.unreceived(stream) == 0


def test_data_that_comes_after_all_supersedes_the_record() -> None:
    pair = greeted()
    stream = tell(pair.edge, 20)
    whole = range_of(pair.edge, 1, 20, stream)
    gone(pair.edge, 4, 9)
    pair.greet()
    pair.run()
    assert hub_runs(pair) == [(1, 3, 0), (4, 9, 2), (10, 20, 0)]
    offer(pair.hub, whole.part(4, 9))
    assert hub_runs(pair) == [(1, 20, 0)]


def test_a_hub_that_asks_again_for_what_is_gone_gets_the_record_and_no_frame() -> None:
    pair = greeted()
    stream = tell(pair.edge, 20)
    offer(pair.hub, range_of(pair.edge, 1, 20, stream))
    pair.greet()
    gone(pair.edge, 4, 9, "settled")
    pair.uplink.on_evicted()
    pair.hear(Pull(pair.receiver.incarnation, ((stream.key.epoch, TELEMETRY, 1, 20),)))
    assert ("backfill", 1, 3) in frames(pair.send(SMALL.linger_ms))
    assert all(last < 4 or first > 9 for _, first, last in frames(pair.send(SMALL.linger_ms)))


@pytest.mark.parametrize("seed", range(40))
def test_whatever_goes_whenever_the_hub_ends_with_data_or_records_and_no_hole(seed: int) -> None:
    rng = Random(seed)
    pair = Pair(settings=replace(SMALL, window_facts=60, turn_frames=3))
    pair.greet()
    stream = pair.edge.own(TELEMETRY)
    let_go: set[int] = set()
    for _ in range(rng.randrange(5, 25)):
        tell(pair.edge, rng.randrange(1, 12))
        pair.uplink.on_appended(pair.now)
        if rng.random() < 0.6:
            first = rng.randint(1, stream.head[0])
            last = rng.randint(first, min(stream.head[0], first + 9))
            under_way = [r for r in pair.uplink.streams_under_way() if r[0] == stream.sid]
            if not any(a <= last and first <= b for _, a, b in under_way) and gone(pair.edge, first, last):
                let_go |= set(range(first, last + 1))
                pair.uplink.on_evicted()
        outs = pair.send(SMALL.linger_ms)
        if rng.random() < 0.7:
            pair.hear(*pair.hub_takes(outs))
        elif rng.random() < 0.5:
            pair.uplink.on_down()
            pair.greet()
    tell(pair.edge, 1)
    pair.uplink.on_down()
    pair.restart_hub()
    for _ in range(4):
        pair.greet()
        pair.run(400)
    held = pair.hub.log.open(stream.key).chain
    assert held.holes() == [], f"seed {seed}"
    closed = {n for r in held.runs if r.kind is RunKind.EVICTED for n in range(r.first, r.last + 1)}
    data = {n for r in held.data() for n in range(r.first, r.last + 1)}
    assert closed | data == set(range(1, stream.head[0] + 1)), f"seed {seed}"
    assert not closed & data, f"seed {seed}"
    assert closed <= let_go, f"seed {seed}: nothing is called evicted that was not"
    assert pair.uplink.unreceived(stream) == 0, f"seed {seed}"
    assert pair.edge.own(TELEMETRY) is stream, f"seed {seed}: no fork was seen"
    assert lacking(held, ()) != []


def test_who_still_holds_what_a_record_says_is_gone_frees_nothing_because_of_it() -> None:
    """The author's own disk came back from before the eviction: its facts are here, and the hub's record says that they are not."""
    led = ledger()
    stream = tell(led, 20)
    record = RunStated(6, led.log.hash_at(stream, 5) or b"", 9, led.log.hash_at(stream, 9) or b"", RunKind.EVICTED)
    assert below_records(stream, (record,), 20) == 5
    gone(led, 6, 9)
    assert below_records(stream, (record,), 20) == 20, "nothing of it is here any more"
