"""Keys go where every other Kafka client puts them."""

from __future__ import annotations

from aiokafka.partitioner import murmur2 as theirs
from hypothesis import given
from hypothesis import strategies as st

from hub.partitioning import murmur2, partition_of


@given(st.binary(max_size=70))
def test_the_hash_is_kafkas(data: bytes) -> None:
    assert murmur2(data) == theirs(data) & 0xFFFFFFFF


def test_known_values() -> None:
    """From Kafka's own tests (`UtilsTest.testMurmur2`)."""
    known = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536, b"abc": 479470107}
    assert {data: murmur2(data) for data in known} == {data: value & 0xFFFFFFFF for data, value in known.items()}
    assert {partition_of(b"acme/A%d" % n, 6) for n in range(100)} == set(range(6))
