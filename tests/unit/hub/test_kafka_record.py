"""Batches are byte for byte what the library's own builder makes of the same records; headers are what was packed."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import given
from hypothesis import strategies as st

from hub.bus import Place, Taken
from hub.kafka import _Fetched
from hub.kafka_record import Batch, Packed, Whole, packed, unpacked, varint, whole
from protocols.errors import DecodeError

NOW = 1_795_000_000_000
_HEADERS = st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), st.binary(max_size=90)), max_size=70)
_RECORDS = st.lists(
    st.tuples(st.binary(max_size=9), st.binary(max_size=9_000), _HEADERS, st.integers(NOW - 10_000, NOW + 10_000)), min_size=1, max_size=6
)


@given(_RECORDS, st.tuples(st.integers(-1, 2**63 - 1), st.integers(-1, 2**15 - 1), st.integers(0, 2**31 - 1)))
def test_a_batch_is_what_the_library_makes_of_its_records(
    records: list[tuple[bytes, bytes, list[tuple[str, bytes]], int]], state: tuple[int, int, int]
) -> None:
    theirs = DefaultRecordBatchBuilder(2, 0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=0, batch_size=1 << 24)
    ours = Batch(1 << 24, calc_crc32c)
    for n, (key, value, headers, at_ms) in enumerate(records):
        theirs.append(n, at_ms, key, value, headers)
        assert ours.add(whole(key, value, headers), at_ms)
    theirs.set_producer_state(*state)
    ours._set_producer_state(*state)
    assert ours.record_count() == len(records)
    assert ours._build() == bytes(theirs.build())
    assert ours._build() is ours._build() and ours.size() == len(ours._build()), "sent again, it is the same"


def test_the_first_record_always_has_room_and_the_next_only_where_there_is_some() -> None:
    batch = Batch(1_000, calc_crc32c)
    assert batch.add(whole(b"k", bytes(2_000), []), NOW)
    assert not batch.add(whole(b"k", b"", []), NOW)
    assert batch.record_count() == 1
    small = Batch(1_000, calc_crc32c)
    taken = sum(small.add(whole(b"k", bytes(50), [("a", b"b")]), NOW) for _ in range(99))
    assert 5 < taken < 20 and len(small._build()) <= 1_000


@given(_HEADERS)
def test_packed_headers_are_read_as_pairs(headers: list[tuple[str, bytes]]) -> None:
    made = Packed(packed(headers))
    assert list(made) == headers == made and len(made) == len(headers) and packed(made) == made.data


@given(_HEADERS, st.binary(max_size=99))
def test_headers_of_a_whole_record_are_what_lies_at_its_end(headers: list[tuple[str, bytes]], value: bytes) -> None:
    record = whole(b"key", value, headers)
    made = Whole(record, len(record) - len(packed(headers)))
    assert list(made) == headers == made and packed(made) == packed(headers)
    assert whole(b"key", value, made) is record and record.startswith(b"\x06key" + varint(len(value)) + value)


@given(st.binary(max_size=60))
def test_other_bytes_are_no_headers(data: bytes) -> None:
    try:
        found = unpacked(data)
    except (DecodeError, UnicodeDecodeError):
        return
    assert unpacked(packed(found)) == found


@pytest.mark.parametrize(
    ("number", "data"),
    [(0, "00"), (-1, "01"), (1, "02"), (63, "7e"), (64, "8001"), (-64, "7f"), (-65, "8101"), (8_191, "fe7f"), (8_192, "808001")],
    ids=str,
)
def test_numbers(number: int, data: str) -> None:
    assert varint(number).hex() == data


class _Assigned:
    """An assignment of one partition that is read from its beginning."""

    active, paused, position = True, False, 0

    def state_value(self, _: object) -> _Assigned:
        return self

    def consumed_to(self, offset: int) -> None:
        self.position = offset


@given(_RECORDS)
def test_what_is_fetched_is_taken_as_the_library_reads_it(records: list[tuple[bytes, bytes, list[tuple[str, bytes]], int]]) -> None:
    batch, where = Batch(1 << 24, calc_crc32c), TopicPartition("orders", 3)
    for key, value, headers, at_ms in records:
        assert batch.add(whole(key, value, headers), at_ms)

    def parts() -> PartitionRecords:
        return PartitionRecords(where, MemoryRecords(bytes(batch._build())), None, 0, None, None, True, 0)

    assigned = _Assigned()
    fetched = _Fetched()
    fetched[where] = FetchResult(where, partition_records=parts(), assignment=assigned, backoff=0.1)
    found = fetched[where].getall()
    assert [type(one) for one in found] == [Taken] * len(records) and assigned.position == len(records)
    theirs = [(Place("orders", 3), r.offset, r.key, r.value, list(r.headers), r.timestamp) for r in parts()]
    assert [(*one[:4], list(one.headers), one.timestamp_ms) for one in found] == theirs
