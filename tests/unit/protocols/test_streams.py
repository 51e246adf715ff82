"""The log of streams: what it says it did."""

from __future__ import annotations

from protocols.chains import RunKind
from protocols.fact import chain, genesis
from protocols.schema import migrate
from protocols.sqlite import Db
from protocols.streams import LogRow, StreamKey, StreamLog


def test_a_record_closes_nothing_where_nothing_is_missing_also_beside_facts_not_yet_written_down() -> None:
    db, key = Db(":memory:"), StreamKey("w1", 1, 0)
    migrate(db)
    log = StreamLog(db)
    stream = log.open(key)
    hashes = chain(genesis(*key), [b"a", b"b", b"c"])
    log.extend(stream, [LogRow(stream.sid, 1, hashes[0], genesis(*key), None, 0, b"a")])
    assert not log.close_hole(stream, 1, genesis(*key), 1, hashes[0], RunKind.LOST)
    log.extend(stream, [LogRow(stream.sid, 3, hashes[2], hashes[1], None, 0, b"c")])
    assert log.close_hole(stream, 2, hashes[0], 2, hashes[1], RunKind.LOST)
    assert not log.close_hole(stream, 2, hashes[0], 2, hashes[1], RunKind.LOST)
