"""A card is cloned before it said anything of a kind, and hears of the other machine's facts of it before it says something itself."""

from __future__ import annotations

import pytest

from protocols.codec import DICTIONARIES, encode_body
from protocols.copies import Copies
from protocols.downlink import Feed
from protocols.event import TimeQuality
from protocols.fact import continues_row, read_continues
from protocols.ledger import TELEMETRY
from protocols.streams import StreamKey
from protocols.telemetry import Reading
from tests.unit.protocols.ledgers import NOW_MS, Range, clone, event, ledger, offer, range_of, say

READING = Reading("d1", "health", NOW_MS, TimeQuality.STATED, {"batteryPercent": 87})


def test_orders_that_a_twin_began_are_not_written_to() -> None:
    first = ledger(epochs=[101])
    first.begin()
    first.append_telemetry([READING], NOW_MS)
    first.commit()
    second = clone(first)
    say(first, event("A"), event("B"))
    offer(second, range_of(first))
    (mine,) = say(second, event("C"))
    assert (mine.stream, mine.seq) == (StreamKey("edge-1", 900, 0), 1)
    assert mine.stream in [stream.key for stream in second.own_streams()], "so it is sent"


def test_telemetry_that_a_twin_began_is_not_written_to_and_the_new_epoch_goes_on_from_the_orders() -> None:
    led = ledger(epochs=[101, 102])
    (said,) = say(led, event("D"))
    led.begin()
    led.log.open(StreamKey("edge-1", 101, TELEMETRY))  # a twin's
    (report,) = led.append_telemetry([READING], NOW_MS)
    led.commit()
    assert (report.stream, report.seq) == (StreamKey("edge-1", 102, TELEMETRY), 1)
    assert report.stream in [stream.key for stream in led.own_streams()]
    (opening,) = range_of(led).facts
    assert read_continues(opening[1]) == read_continues(continues_row(101, 1, said.h))


def fed(given: Range) -> Feed:
    """Facts of one stream on their way down, from a hub that does not know yet that it has branches."""
    prev = [given.h_before, *given.hashes]
    places = tuple((0, given.first + n, prev[n]) for n in range(len(given.facts)))
    body = encode_body([row for row, _ in given.facts], dictionary=DICTIONARIES[-1])
    return Feed(b"an epoch", True, 0, 1, False, ((*given.key, 0),), places, DICTIONARIES[-1], body)


@pytest.mark.parametrize(("mine", "named", "fork"), [(3, 1, 2), (3, 2, 2), (1, 3, 2), (0, 1, None)])
def test_a_fact_of_a_twin_that_comes_down_shows_that_the_stream_has_branches(mine: int, named: int, fork: int | None) -> None:
    """`mine` facts were said here since the card was cloned; `named`: how many the twin said. Beyond the own head nobody can
    tell where they part."""
    one = ledger(epochs=[101])
    say(one, event("A"), event("B"))
    twin = clone(one)
    said = say(twin, *(event(f"C{n}") for n in range(named)))
    say(one, *(event(f"D{n}") for n in range(mine)))
    one.begin()
    taken = Copies(one).take(fed(range_of(twin, 3, said[-1].seq)), NOW_MS)
    assert (taken.new, taken.twin, one.own().fork_point) == (named, True, fork)
    again = Copies(one).take(fed(range_of(one, 1, 2)), NOW_MS)
    assert not again.twin, "that is on its own chain"
