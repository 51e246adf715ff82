"""Which MQTT a connection speaks, from its first bytes, however they are cut."""

from __future__ import annotations

import pytest

from hub.broker_connect import connect_level

BODY = b"\0\4MQTT"


@pytest.mark.parametrize("level", [3, 4, 5, 6])
@pytest.mark.parametrize("head", [b"\x10\x20", b"\x10\xff\x01", b"\x10\xff\xff\xff\x01"], ids=["short", "longer", "longest"])
def test_the_level_is_found_however_long_the_head_is(head: bytes, level: int) -> None:
    whole = head + BODY + bytes([level]) + b"\2\0\x1e"
    known = [connect_level(whole[:size]) for size in range(len(whole) + 1)]
    at = len(head) + len(BODY)
    assert known == [None] * (at + 1) + [level] * (len(whole) - at)


@pytest.mark.parametrize("begun", [b"GET / HTTP/1.1\r\n", b"\x10\x20\0\6MQIsdp\3", b"\x10\xff\xff\xff\xff\xff" + BODY + b"\5", bytes(16)])
def test_all_else_is_no_such_connect(begun: bytes) -> None:
    assert connect_level(begun) == 0
