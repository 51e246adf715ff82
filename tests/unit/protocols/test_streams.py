"""The log of a database: what is held of each stream, on which branch, and that a restart forgets nothing of it."""

from __future__ import annotations

import pytest

from protocols.chains import RunKind
from protocols.fact import chain, genesis
from protocols.schema import migrate
from protocols.sqlite import Db
from protocols.streams import LogRow, Stream, StreamKey, StreamLog

KEY = StreamKey("edge-1", 101, 0)
GENESIS = genesis(*KEY)
TRUNK = [f"fact {i}".encode() for i in range(1, 11)]
BRANCH = [b"other 4", b"other 5", b"other 6"]
TRUNK_H = chain(GENESIS, TRUNK)
BRANCH_H = chain(TRUNK_H[2], BRANCH)


@pytest.fixture
def log() -> StreamLog:
    db = Db(":memory:")
    migrate(db)
    return StreamLog(db)


def rows(sid: int, first: int, prev: bytes, facts: list[bytes]) -> list[LogRow]:
    hashes = chain(prev, facts)
    before = [prev, *hashes]
    return [LogRow(sid, first + i, hashes[i], before[i], None, 0, fact) for i, fact in enumerate(facts)]


def put(log: StreamLog, first: int, last: int) -> bool:
    """Facts first..last of the trunk."""
    stream = log.open(KEY)
    return log.extend(stream, rows(stream.sid, first, ([GENESIS, *TRUNK_H])[first - 1], TRUNK[first - 1 : last]))


def fork(log: StreamLog) -> bool:
    """Facts 4..6 of another branch, which leaves the trunk after 3."""
    stream = log.open(KEY)
    return log.extend(stream, rows(stream.sid, 4, TRUNK_H[2], BRANCH))


def again(log: StreamLog) -> StreamLog:
    """The same after a restart."""
    log.flush()
    return StreamLog(log._db)


def shape(stream: Stream) -> list[tuple[int, int, int]]:
    return [(r.first, r.last, int(r.kind)) for r in stream.chain.runs]


def read(log: StreamLog, first: int, last: int, *, max_bytes: int = 10**6, max_facts: int = 100) -> list[bytes]:
    return [r.row for r in log.read(log.open(KEY), first, last, max_bytes=max_bytes, max_facts=max_facts)]


# ------------------------------------------------------------ streams


def test_streams_are_numbered_as_they_become_known_and_keep_their_number(log: StreamLog) -> None:
    other = StreamKey("edge-2", 7, 0)
    assert [log.open(KEY).sid, log.open(other, own=True).sid, log.open(KEY).sid] == [1, 2, 1]
    later = again(log)
    assert [(s.sid, s.key, s.own) for s in later.all()] == [(1, KEY, False), (2, other, True)]
    assert later.by_sid(2) is later.get(other)
    assert later.get(StreamKey("edge-3", 1, 0)) is None


def test_a_nodes_streams_of_every_epoch_and_class_are_found(log: StreamLog) -> None:
    keys = [KEY, StreamKey("edge-2", 1, 0), StreamKey("edge-1", 102, 0), StreamKey("edge-1", 101, 1)]
    for key in keys:
        log.open(key)
    assert [s.key for s in log.of_node("edge-1")] == [keys[0], keys[2], keys[3]]


def test_an_empty_stream_stands_at_its_genesis(log: StreamLog) -> None:
    assert log.open(KEY).head == (0, GENESIS)
    assert log.hash_at(log.open(KEY), 0) == GENESIS


# ------------------------------------------------------------ facts


def test_facts_in_order_are_one_run(log: StreamLog) -> None:
    put(log, 1, 4)
    put(log, 5, 10)
    stream = again(log).open(KEY)
    assert shape(stream) == [(1, 10, 0)]
    assert stream.head == (10, TRUNK_H[9])


def test_reading_stops_at_bytes_and_facts_and_at_a_hole_but_gives_at_least_one(log: StreamLog) -> None:
    put(log, 1, 4)
    put(log, 7, 10)
    assert read(log, 1, 10) == TRUNK[:4]
    assert read(log, 7, 99) == TRUNK[6:]
    assert read(log, 2, 10, max_facts=2) == TRUNK[1:3]
    assert read(log, 1, 10, max_bytes=len(TRUNK[0]) * 2) == TRUNK[:2]
    assert read(log, 1, 10, max_bytes=1) == TRUNK[:1]
    assert read(log, 5, 10) == []


def test_what_is_pending_is_read_before_it_is_written_down(log: StreamLog) -> None:
    put(log, 1, 2)
    assert read(log, 1, 9) == TRUNK[:2]
    put(log, 3, 3)
    assert log.has(1, 3, TRUNK_H[2])
    assert not log.has(1, 3, b"elsewhat")


# ------------------------------------------------------------ branches


def test_a_fork_is_found_where_the_branches_part_and_after_a_restart_too(log: StreamLog) -> None:
    assert not put(log, 1, 6)
    assert fork(log)
    stream = log.open(KEY)
    assert (stream.chain.fork_point, list(log.forked_nodes)) == (3, ["edge-1"])
    assert shape(stream) == [(1, 3, 0), (4, 6, 0), (4, 6, 0)]
    later = again(log)
    assert (later.fork_point(1), list(later.forked_nodes)) == (3, ["edge-1"])


def test_a_fork_that_was_known_is_not_news(log: StreamLog) -> None:
    put(log, 1, 6)
    fork(log)
    assert not put(log, 7, 8)


def test_the_log_says_which_points_lie_on_which_branch(log: StreamLog) -> None:
    put(log, 1, 6)
    fork(log)
    assert log.on_chain(1, 6, TRUNK_H[5], 5, TRUNK_H[4]) is True
    assert log.on_chain(1, 6, TRUNK_H[5], 5, BRANCH_H[1]) is False
    assert log.on_chain(1, 6, BRANCH_H[2][:4], 4, BRANCH_H[0]) is True, "a context names its tip by 4 bytes"
    assert log.on_chain(1, 6, BRANCH_H[2], 2, TRUNK_H[1]) is True, "the trunk is on both"
    assert log.on_chain(1, 6, b"nope", 4, BRANCH_H[0]) is None
    assert log.on_chain(1, 9, TRUNK_H[8], 4, TRUNK_H[3]) is None, "not here yet"


def test_a_walk_ends_at_a_hole(log: StreamLog) -> None:
    put(log, 1, 3)
    put(log, 6, 8)
    assert log.walk(1, 8, TRUNK_H[7], 6) == TRUNK_H[5]
    assert log.walk(1, 8, TRUNK_H[7], 3) is None
    assert log.walk(1, 8, TRUNK_H[7], 5) is None, "named by the fact above, but not here"


def test_a_forked_stream_is_read_along_the_branch_of_its_head(log: StreamLog) -> None:
    put(log, 1, 10)
    fork(log)
    assert read(log, 1, 10) == TRUNK
    assert read(log, 4, 5) == TRUNK[3:5]
    assert log.hash_at(log.open(KEY), 5) == TRUNK_H[4]


def test_each_branch_can_be_read_by_its_run(log: StreamLog) -> None:
    put(log, 1, 6)
    fork(log)
    stream = log.open(KEY)
    ends = {r.h_last: r for r in stream.chain.runs}
    branch, trunk = ends[BRANCH_H[2]], ends[TRUNK_H[5]]
    assert [r.row for r in log.read_branch(stream, branch, 4, 6)] == BRANCH
    assert [r.row for r in log.read_branch(stream, branch, 4, 5)] == BRANCH[:2]
    assert [r.row for r in log.read_branch(stream, trunk, 5, 6)] == TRUNK[4:6]


def test_facts_that_fill_the_hole_below_a_branch_are_announced(log: StreamLog) -> None:
    put(log, 1, 4)
    fork(log)
    stream = log.open(KEY)
    put(log, 9, 10)
    filling = rows(stream.sid, 5, TRUNK_H[3], TRUNK[4:8])
    assert log.joins(stream, filling)
    assert not log.joins(stream, filling[:-1])
    log.extend(stream, filling)
    assert shape(stream) == [(1, 3, 0), (4, 6, 0), (4, 10, 0)]


def test_without_a_fork_nothing_hangs_on_a_hole(log: StreamLog) -> None:
    put(log, 1, 4)
    put(log, 9, 10)
    assert not log.joins(log.open(KEY), rows(1, 5, TRUNK_H[3], TRUNK[4:8]))


# ------------------------------------------------------------ records and freeing


def test_a_record_says_whether_it_closed_a_hole_whatever_else_changed(log: StreamLog) -> None:
    put(log, 1, 4)
    put(log, 7, 8)
    stream = log.open(KEY)
    assert log.close_hole(stream, 5, TRUNK_H[3], 6, TRUNK_H[5], RunKind.PRUNED)
    assert not log.close_hole(stream, 5, TRUNK_H[3], 6, TRUNK_H[5], RunKind.PRUNED)
    assert shape(again(log).open(KEY)) == [(1, 4, 0), (5, 6, 3), (7, 8, 0)]


def test_the_settled_point_and_what_was_freed_outlive_a_restart(log: StreamLog) -> None:
    put(log, 1, 10)
    stream = log.open(KEY)
    stream.settled_seq, stream.dirty = 7, True
    assert log.free(stream, 5) == 5
    later = again(log)
    stream = later.open(KEY)
    assert (stream.settled_seq, stream.freed_seq, stream.freed_h, stream.head) == (7, 5, TRUNK_H[4], (10, TRUNK_H[9]))
    assert [later.hash_at(stream, seq) for seq in (4, 5, 6)] == [None, *TRUNK_H[4:6]]
    assert later.walk(1, 10, TRUNK_H[9], 5) == TRUNK_H[4]
    assert later.walk(1, 10, TRUNK_H[9], 4) is None
    assert later.read(stream, 1, 10, max_bytes=99, max_facts=9) == []


def test_nothing_is_freed_beyond_what_is_held(log: StreamLog) -> None:
    put(log, 1, 3)
    put(log, 6, 8)
    assert log.free(log.open(KEY), 5) == 0
    assert log.free(log.open(KEY), 99) == 0
    assert read(log, 1, 3) == TRUNK[:3]


# ------------------------------------------------------------ a record that was freed, and its facts come after all


def freed_over_a_record(log: StreamLog) -> Stream:
    """Facts 1..10, of which 5..6 are a record, freed up to 8, and then the facts themselves."""
    put(log, 1, 4)
    put(log, 7, 10)
    stream = log.open(KEY)
    log.close_hole(stream, 5, TRUNK_H[3], 6, TRUNK_H[5], RunKind.PRUNED)
    log.free(stream, 8, hashed=True)
    assert not log.has(stream.sid, 5, TRUNK_H[4])
    put(log, 5, 6)
    return stream


def test_facts_that_come_where_a_record_was_freed_count_as_freed(log: StreamLog) -> None:
    stream = freed_over_a_record(log)
    assert log.came_late == [(stream.sid, 5, TRUNK_H[4]), (stream.sid, 6, TRUNK_H[5])]
    assert [log.freed.at(stream.sid, seq) for seq in range(1, 9)] == TRUNK_H[:8]
    assert stream.chain.covered(10, TRUNK_H[9]).covers(1, 10)


def test_and_when_that_is_a_hole_again_they_are_runs_and_nothing_is_logged_twice(log: StreamLog) -> None:
    stream = freed_over_a_record(log)
    log.unfree(stream, 3)
    assert shape(stream) == [(1, 3, 0), (5, 6, 0), (9, 10, 0)]
    put(log, 4, 4)
    put(log, 7, 8)
    log.flush()
    assert stream.chain.covered(10, TRUNK_H[9]).covers(1, 10)


def test_facts_of_a_branch_below_what_was_freed_do_not_count_as_freed(log: StreamLog) -> None:
    stream = log.open(KEY)
    put(log, 1, 4)
    put(log, 7, 10)
    log.close_hole(stream, 5, TRUNK_H[3], 6, TRUNK_H[5], RunKind.PRUNED)
    log.free(stream, 8, hashed=True)
    fork(log)
    assert log.came_late == []
    assert [log.freed.at(stream.sid, seq) for seq in (4, 5, 6)] == [TRUNK_H[3], None, None]


@pytest.mark.parametrize("first", [1, 5])
def test_what_a_record_closed_was_never_here_however_much_was_freed(log: StreamLog, first: int) -> None:
    """The freed point itself may be the end of a record: that its hash is known does not make it a fact that was here."""
    stream = log.open(KEY)
    if first > 1:
        put(log, 1, first - 1)
    put(log, 7, 10)
    log.close_hole(stream, first, ([GENESIS, *TRUNK_H])[first - 1], 6, TRUNK_H[5], RunKind.PRUNED)
    log.free(stream, 6, hashed=True)
    assert stream.freed_seq == 6
    assert [log.has(stream.sid, seq, TRUNK_H[seq - 1]) for seq in (4, 5, 6)] == [first > 1, False, False]
