"""The bound on streams that contexts name and of which nothing is here: a fact that names too many is quarantined, its neighbours flow."""

from __future__ import annotations

from typing import Any

import pytest

import protocols.streams
from protocols.chains import RunKind
from protocols.errors import DecodeError
from protocols.ledger import Ledger
from protocols.messages import Record
from protocols.streams import StreamKey, StreamLog
from protocols.sync.receiver import Receiver
from tests.unit.protocols.ledgers import NOW_MS, event, heads, ledger, offer, order_row, range_of, rows_range, say

KEY = StreamKey("mallory", 7, 0)
WHY = "names more streams than are kept here"


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols.streams, "STREAMS_MENTIONED", 4)


def naming(order_id: str, *epochs: int, node: str = "nobody") -> list[Any]:
    """A fact that has seen these streams."""
    return order_row(order_id, context=[[node, epoch, 1, b"hhhh"] for epoch in epochs])


def known(led: Ledger) -> int:
    """Streams in the database."""
    row = led.db.one("SELECT count(*) FROM streams")
    return row[0] if row else 0


def test_a_fact_that_names_too_many_is_quarantined_and_its_neighbours_flow() -> None:
    hub = ledger("hub")
    rows = [order_row("0"), naming("A", 1, 2), naming("B", 3, 4, 5), naming("C", 2, 3, 4), naming("D", 9), order_row("E")]
    given = rows_range(KEY, rows)
    offer(hub, given.part(1, 1))
    done = offer(hub, given)
    assert [(seq, why) for seq, _, why in done.quarantined] == [(3, WHY), (5, WHY)]
    assert (done.new, known(hub), hub.log.mentioned) == (5, 5, 4)
    assert [bool(heads(hub, order)) for order in "ABCDE"] == [True, False, True, False, True]


def test_a_stream_counts_no_more_when_its_first_fact_is_here() -> None:
    hub, edge = ledger("hub"), ledger("edge-1")
    say(edge, event("X"))
    given = rows_range(KEY, [naming("A", 101, node="edge-1"), naming("A", 1, 2, 3)])
    for part in given.singles():
        offer(hub, part)
    assert hub.log.mentioned == 4
    offer(hub, range_of(edge))
    assert hub.log.mentioned == 3
    offer(hub, rows_range(StreamKey("mallory", 8, 0), [order_row()]))
    assert not offer(hub, rows_range(StreamKey("mallory", 8, 0), [order_row(), naming("A", 4)])).quarantined
    assert StreamLog(hub.db).mentioned == hub.log.mentioned == 4, "the same when it is read from disk"


def test_own_streams_do_not_count() -> None:
    hub = ledger("hub")
    hub.begin()
    hub.own()
    hub.commit()
    assert hub.log.mentioned == StreamLog(hub.db).mentioned == 0


def test_what_comes_from_the_central_store_is_taken_as_it_was_there() -> None:
    hub, given = ledger("hub"), rows_range(KEY, [naming("A", 1, 2, 3, 4, 5)])
    hub.begin()
    done = hub.offer(given.key, given.first, given.h_before, given.facts, given.hashes, NOW_MS, bounded=False)
    hub.commit()
    assert (done.quarantined, hub.log.mentioned) == ([], 5)


def test_bad_frames_and_records_make_no_stream_known() -> None:
    hub = ledger("hub")
    receiver = Receiver(hub, b"hub is 1")
    with pytest.raises(DecodeError):
        offer(hub, rows_range(KEY, [order_row()], h_before=b"not this"))
    hub.db.rollback()
    hub.begin()
    assert not receiver.record("mallory", Record(5, 0, 1, b"", 3, b"at three", RunKind.LOST, NOW_MS), b"signed", NOW_MS)
    hub.commit()
    ((_, receipt),) = receiver.receipts(NOW_MS)
    assert receipt.streams[0].runs == ()
    assert known(hub) == 0
