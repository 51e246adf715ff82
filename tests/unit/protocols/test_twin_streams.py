"""A card is cloned before it said anything of a kind, and hears of the other machine's facts of it before it says something itself."""

from __future__ import annotations

from protocols.event import TimeQuality
from protocols.fact import continues_row, read_continues
from protocols.ledger import TELEMETRY
from protocols.streams import StreamKey
from protocols.telemetry import Reading
from tests.unit.protocols.ledgers import NOW_MS, clone, event, ledger, offer, range_of, say

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
