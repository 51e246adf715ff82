"""Messages off the wire: read here as the library reads them, or left to it."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

import pytest
from paho.mqtt import _packet
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from protocols.trace import read_traceparent
from protocols.transport.mqtt_packets import beside, join, read_publish
from protocols.transport.port import Extra

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def packet(topic: bytes, payload: bytes, properties: bytes | None, *, mid: int = 258) -> bytes:
    """What stands behind the length of a PUBLISH. `properties`: packed; None: of MQTT 3.1.1."""
    return len(topic).to_bytes(2, "big") + topic + mid.to_bytes(2, "big") + (properties or b"") + payload


def as_paho_reads(head: int, data: bytes, *, five: bool) -> tuple[Any, ...]:
    """(topic, payload, retain, mid, trace)."""
    came = _packet.decode_publish(head, bytearray(data), MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311)
    trace = read_traceparent(dict(getattr(came.properties, "UserProperty", ())).get("traceparent")) if five else ""
    return came.topic.decode(), bytes(came.payload), came.retain, came.mid, trace


def some_properties(rng: Random) -> bytes:
    """Ours, another's, or several."""
    if rng.random() < 0.5:
        sent = beside(Extra(rng.choice([None, 600]), rng.choice(["", TRACE])))
        return sent.pack() if sent is not None else b"\0"
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if rng.random() < 0.3:
        properties.ContentType = "x" * rng.randrange(200)
    if rng.random() < 0.3:
        properties.MessageExpiryInterval = rng.randrange(2**32)
    for _ in range(rng.randrange(3)):
        properties.UserProperty = (rng.choice(["traceparent", "other"]), rng.choice([TRACE, "nonsense", ""]))
    return bytes(properties.pack())  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("five", [True, False])
def test_what_is_read_here_is_what_the_library_reads(five: bool) -> None:
    rng, read = Random(7), 0
    for n in range(3_000):
        topic = rng.choice([b"ls/acme/EMEA/Madrid/dock-7/live", "ö".encode(), b"", b"\xff"])
        data = packet(topic, rng.randbytes(rng.randrange(40)), some_properties(rng) if five else None, mid=rng.randrange(1, 65_536))
        if rng.random() < 0.2:
            data = data[: rng.randrange(len(data))]
        head = 0x30 | rng.choice([0, 2, 2, 2, 2, 3, 10, 4])
        came = read_publish(head, bytearray(data), five=five)
        if came is not None:
            read += 1
            assert tuple(came) == as_paho_reads(head, data, five=five), (n, head, data)
    assert read > 500


@pytest.mark.parametrize("extra", [Extra(), Extra(600), Extra(None, TRACE), Extra(600, TRACE)], ids=["bare", "expiry", "trace", "both"])
def test_what_this_product_sends_is_read_here(extra: Extra) -> None:
    sent = beside(extra)
    data = packet(b"ls/x", b"payload", sent.pack() if sent is not None else b"\0")
    came = read_publish(0x32, data, five=True)
    assert came is not None
    assert tuple(came) == ("ls/x", b"payload", False, 258, extra.traceparent)


def test_what_the_library_calls_malformed_is_left_to_it() -> None:
    whole = packet(b"ls/x", b"", b"\0")
    for cut in range(len(whole)):
        assert read_publish(0x32, whole[:cut], five=True) is None
        with pytest.raises((MalformedPacket, IndexError)):
            as_paho_reads(0x32, whole[:cut], five=True)


def waits(command: int, data: bytes, *, qos: int = 1, mid: int = 1) -> dict[str, Any]:
    """A packet in the library's queue."""
    return {"command": command, "mid": mid, "qos": qos, "pos": 0, "to_process": len(data), "packet": data, "info": None}


PUBLISH, PUBACK, DISCONNECT = 0x32, 0x40, 0xE0


def test_what_waits_goes_together_in_order_however_little_the_socket_takes() -> None:
    rng = Random(5)
    waiting: deque[dict[str, Any]] = deque()
    said, sent = bytearray(), bytearray()
    for n in range(300):
        for _ in range(rng.randrange(6)):
            data = rng.randbytes(rng.choice([4, 120, 120, 900, 20_000]))
            waiting.append(waits(rng.choice([PUBLISH, PUBACK]), data))
            said += data
        join(waiting)
        while waiting and (rng.random() < 0.8 or n == 299):  # as the library does with what a socket took
            packet = waiting.popleft()
            took = rng.randrange(1, packet["to_process"] + 1)
            sent += packet["packet"][packet["pos"] : packet["pos"] + took]
            packet["pos"] += took
            packet["to_process"] -= took
            if packet["to_process"]:
                waiting.appendleft(packet)
    assert sent == said


def test_a_thousand_small_ones_are_few_pieces_and_none_is_large() -> None:
    waiting = deque(waits(PUBLISH, b"x" * 120, mid=n) for n in range(1_000))
    join(waiting)
    sizes = [packet["to_process"] for packet in waiting]
    assert (sum(sizes), len(sizes)) == (120_000, 8)
    assert max(sizes) <= 16_384
    assert all(len(packet["packet"]) == packet["to_process"] and packet["pos"] == 0 for packet in waiting)


@pytest.mark.parametrize(("command", "qos"), [(DISCONNECT, 0), (0x30, 0)], ids=["farewell", "unacknowledged"])
def test_what_something_follows_upon_goes_alone(command: int, qos: int) -> None:
    last = waits(command, b"last", qos=qos)
    waiting = deque([waits(PUBACK, b"a"), waits(PUBLISH, b"b"), last, waits(PUBACK, b"c"), waits(PUBACK, b"d")])
    join(waiting)
    assert [bytes(packet["packet"]) for packet in waiting] == [b"ab", b"last", b"cd"]
    assert waiting[1] is last
