"""The MQTT transport against brokers that misbehave: its own faults to find, not the broker's."""

from __future__ import annotations

import logging
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from protocols.topics import Channel
from protocols.transport.mqtt import MqttSettings, MqttTransport
from protocols.transport.port import Down, Event, Message, Published, Up
from protocols.transport.versions import THREE
from tests.conformance.transport.brokers import HUB, LISBON, MADRID, Bench, Embedded, Line, MosquittoUnderTest
from tests.support.needs import needs
from tests.support.patience import ANSWER_S
from tests.support.ports import free_port


@contextmanager
def server(*answers: bytes) -> Iterator[int]:
    """Accepts connections and gives each the same answers, one per chunk received; then it is silent."""
    listener = socket.create_server(("127.0.0.1", 0))
    accepted: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            accepted.append(connection)
            for answer in answers:
                if not connection.recv(4_096):
                    break
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in accepted:
            connection.close()


@contextmanager
def line(port: int, *subscriptions: str, **changes: object) -> Iterator[Line]:
    quick = {"backoff_min_s": 0.02, "backoff_max_s": 0.1, "connect_timeout_s": 0.2, "answer_timeout_s": 0.2, "version": THREE, **changes}
    started = Line(MqttTransport(MqttSettings("127.0.0.1", port, **quick), subscriptions=subscriptions), None).start()  # type: ignore[arg-type]
    try:
        yield started
    finally:
        started.transport.stop()


CONNACK = b"\x20\x02\x00\x00"


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ((), "did not answer"),
        ((CONNACK,), "did not answer"),
        ((CONNACK, b"\x90\x03\x00\x01\x80"), "refused the subscription to a/b"),
        ((b"\x20\x02\x00\x05",), "Not authorized"),
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), "did not answer"),
        ((b"\x20\xff\xff\xff\xff\xff",), "lost"),
        ((b"\x20\x00",), "lost"),
    ],
)
def test_a_broker_that_misbehaves_is_a_reason_and_another_try(answers: tuple[bytes, ...], reason: str) -> None:
    with server(*answers) as port, line(port, "a/b") as broken:
        downs = broken.until(Down, 2)
        assert broken.of(Up) == []
        assert reason in downs[0].reason


def test_what_comes_at_one_go_is_all_heard_though_nothing_more_comes() -> None:
    """More small packets than are read in one step, and they lie in memory: the socket shows nothing of them."""
    many = b"".join(b"\x30\x06\x00\x03a/b%c" % (n % 256) for n in range(300))
    with server(CONNACK, b"\x90\x03\x00\x01\x01" + many) as port, line(port, "a/b", answer_timeout_s=5) as busy:
        heard = busy.until(Message, 300)
        assert [message.payload[0] for message in heard] == [n % 256 for n in range(300)]


def test_nobody_there_is_a_reason_that_names_the_place() -> None:
    port = free_port()
    with line(port) as alone:
        assert f"127.0.0.1:{port}" in alone.until(Down, 2)[0].reason


def test_a_name_that_no_host_can_have_is_a_reason_too() -> None:
    transport = MqttTransport(MqttSettings("a" * 70, 1883, backoff_min_s=0.02, backoff_max_s=0.1))
    alone = Line(transport, None).start()
    try:
        assert "cannot reach" in alone.until(Down, 2)[0].reason
    finally:
        transport.stop()


def test_back_off_doubles_up_to_its_ceiling_with_jitter() -> None:
    transport = MqttTransport(MqttSettings("h", 1, backoff_min_s=1.0, backoff_max_s=60.0), rng=random.Random(7))
    for failures, ceiling_s in [(0, 1.0), (1, 2.0), (3, 8.0), (10, 60.0), (100_000, 60.0)]:
        drawn = [transport._backoff_s(failures) for _ in range(50)]
        assert ceiling_s / 2 <= min(drawn) < max(drawn) <= ceiling_s
        assert len(set(drawn)) == 50


def test_settings_show_no_password() -> None:
    assert "hush" not in repr(MqttSettings("h", 1, "node", "hush"))


def test_a_listener_that_raises_is_reported_and_does_not_silence_the_line(caplog: pytest.LogCaptureFixture) -> None:
    harness = Embedded()
    harness.start()
    bench = Bench(harness)
    heard: list[Event] = []
    twice = threading.Semaphore(0)

    def clumsy(event: Event) -> None:
        heard.append(event)
        twice.release()
        raise RuntimeError("clumsy")

    transport = harness.transport(MADRID.node, "madrid secret", MADRID.subscriptions(), None)
    try:
        with caplog.at_level(logging.ERROR):
            transport.start(clumsy)
            assert twice.acquire(timeout=ANSWER_S)
            bench.line(HUB).transport.publish(MADRID.topic(Channel.RECEIPT), b"still there")
            assert twice.acquire(timeout=ANSWER_S)
        assert [type(event).__name__ for event in heard] == ["Up", "Message"]
        assert "clumsy" in caplog.text
    finally:
        transport.stop()
        bench.close()


def test_a_subscription_that_a_broker_refuses_keeps_the_line_down_and_says_which() -> None:
    harness = Embedded()
    harness.start()
    bench = Bench(harness)
    try:
        spy = bench.line(LISBON.node, MADRID.topic(Channel.RECEIPT), up=False)
        assert MADRID.topic(Channel.RECEIPT) in spy.until(Down, 2)[0].reason
        assert spy.of(Up) == []
    finally:
        bench.close()


@needs("mosquitto")
def test_mqtt_5_tells_a_refused_publish_from_a_taken_one(tmp_path: Path) -> None:
    harness = MosquittoUnderTest(tmp_path, mqtt5=True)
    harness.start()
    bench = Bench(harness)
    try:
        node = bench.line(MADRID.node)
        forged, own = node.transport.publish(LISBON.topic(Channel.LIVE), b"x"), node.transport.publish(MADRID.topic(Channel.LIVE), b"x")
        ends = node.ended([forged, own])
        assert "Not authorized" in getattr(ends[forged], "reason", "")
        assert isinstance(ends[own], Published)
    finally:
        bench.close()
