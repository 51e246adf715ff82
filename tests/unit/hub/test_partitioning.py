"""Keys go where every other Kafka client puts them."""

from __future__ import annotations

from aiokafka.partitioner import murmur2 as theirs
from hypothesis import given
from hypothesis import strategies as st

from hub.partitioning import hashes, murmur2, partitions_of


@given(st.binary(max_size=70))
def test_the_hash_is_kafkas(data: bytes) -> None:
    assert murmur2(data) == theirs(data) & 0xFFFFFFFF


@given(st.integers(0, 70), st.lists(st.binary(min_size=70, max_size=70), min_size=1, max_size=9), st.lists(st.binary(max_size=9)))
def test_many_at_once_are_hashed_as_each_by_itself(length: int, same: list[bytes], others: list[bytes]) -> None:
    keys = [*others[::2], *(key[:length] for key in same), *others[1::2]]
    assert hashes(keys) == [theirs(key) & 0xFFFFFFFF for key in keys]


def test_known_values() -> None:
    """From Kafka's own tests (`UtilsTest.testMurmur2`)."""
    known = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536, b"abc": 479470107}
    assert {data: murmur2(data) for data in known} == {data: value & 0xFFFFFFFF for data, value in known.items()}
    assert set(partitions_of([b"acme/A%d" % n for n in range(100)], 6)) == set(range(6))
