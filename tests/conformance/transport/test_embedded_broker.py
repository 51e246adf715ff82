"""The embedded broker beyond the port: what it must refuse, bound and forget, where the library underneath would not. In this process, and
in one of its own; what looks inside, or would take long, runs here only (`here`)."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hub import broker as broker_module
from hub import broker_access
from hub.broker import BrokerSettings, BrokerThread, EmbeddedBroker, HubAccess
from protocols.errors import ConfigError
from protocols.topics import Channel, hub_subscriptions
from protocols.transport.mqtt import MqttSettings, MqttTransport
from protocols.transport.port import Down, Message, Published, Up
from protocols.trust import password_matches
from tests.conformance.transport.brokers import HUB, LISBON, MADRID, PASSWORDS, Apart, Bench, Embedded, Line
from tests.conformance.transport.raw import Raw, connect, packet, subscribe, text
from tests.support.certificates import make_certificates
from tests.support.patience import WITHIN_S

LIVE, STATE, RECEIPT = MADRID.topic(Channel.LIVE), MADRID.topic(Channel.STATE), MADRID.topic(Channel.RECEIPT)
ACCEPTED, REFUSED = b"\x20\x02\x00\x00", b"\x20\x02\x00\x05"


WAYS = [Embedded, Apart]


@pytest.fixture(params=WAYS)
def embedded(request: pytest.FixtureRequest) -> Iterator[Embedded]:
    harness: Embedded = request.param()
    harness.start()
    yield harness
    harness.stop()


here = pytest.mark.parametrize("embedded", [Embedded], indirect=True)


@pytest.fixture
def bench(embedded: Embedded) -> Iterator[Bench]:
    bench = Bench(embedded)
    yield bench
    bench.close()


def inside(embedded: Embedded) -> Any:
    assert isinstance(embedded.broker, EmbeddedBroker)
    return embedded.broker._broker


def counted(embedded: Embedded, name: str, number: int) -> None:
    """A process of its own tells a moment later."""
    until_s = time.monotonic() + WITHIN_S
    while getattr(embedded.broker.counts, name) != number:
        assert time.monotonic() < until_s, (name, embedded.broker.counts)
        threading.Event().wait(0.01)


def madrid(**changes: object) -> bytes:
    return connect(MADRID.node, PASSWORDS[MADRID.node], **changes)  # type: ignore[arg-type]


# --- start and stop


def test_it_starts_and_stops_many_times_and_leaves_nothing_on_the_loop() -> None:
    async def cycles() -> None:
        broker = EmbeddedBroker(BrokerSettings(port=0), lambda _node: None)
        secrets: list[str] = []
        for _ in range(8):
            await broker.start()
            secrets.append(broker.hub_access.password)
            _, writer = await asyncio.open_connection("127.0.0.1", broker.port)
            await broker.stop()
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        await broker.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert len(set(secrets)) == 8

    before = threading.active_count()
    asyncio.run(cycles(), debug=True)
    assert threading.active_count() == before
    assert logging.getLogger("amqtt").handlers == [] and logging.getLogger("amqtt").propagate


def test_connected_clients_do_not_keep_it_from_stopping(bench: Bench, embedded: Embedded) -> None:
    node = bench.line(MADRID.node, *MADRID.subscriptions())
    embedded.stop()
    node.until(Down)


@pytest.mark.parametrize("way", WAYS)
def test_a_port_in_use_is_one_line(way: type[Embedded]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        thread = BrokerThread(way().make(BrokerSettings(port=port)))
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}") as caught:
            thread.start()
        assert [one.name for one in threading.enumerate() if one.name == "broker"] == [], "who could not start leaves no thread"
        thread.stop()
    assert caught.value.remedy


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_beyond_loopback_it_demands_tls(host: str, way: type[Embedded]) -> None:
    thread = BrokerThread(way().make(BrokerSettings(host=host, port=0)))
    with pytest.raises(ConfigError, match="without TLS"):
        thread.start()
    thread.stop()


@pytest.mark.parametrize("way", WAYS)
def test_a_certificate_that_cannot_be_used_is_one_line(tmp_path: Path, way: type[Embedded]) -> None:
    with pytest.raises(ConfigError, match="only one"):
        BrokerSettings(cert_file="cert.pem")
    nonsense = tmp_path / "cert.pem"
    nonsense.write_text("nonsense")
    for path in (str(nonsense), str(tmp_path / "missing.pem")):
        thread = BrokerThread(way().make(BrokerSettings(port=0, cert_file=path, key_file=path)))
        with pytest.raises(ConfigError, match="certificate"):
            thread.start()
        thread.stop()


@pytest.mark.parametrize("way", WAYS)
def test_with_tls_nodes_check_the_certificate_and_the_hub_comes_by_its_own_door(tmp_path: Path, way: type[Embedded]) -> None:
    good, other = make_certificates(tmp_path), tmp_path / "other"
    other.mkdir()
    thread = BrokerThread(way().make(BrokerSettings(host="0.0.0.0", port=0, cert_file=good.cert, key_file=good.key)))
    thread.start()
    lines: list[Line] = []

    def line(**tls: object) -> Line:
        settings = MqttSettings("127.0.0.1", thread.broker.port, MADRID.node, PASSWORDS[MADRID.node], backoff_min_s=0.05, **tls)  # type: ignore[arg-type]
        lines.append(Line(MqttTransport(settings), None).start())
        return lines[-1]

    try:
        node = line(tls=True, ca_file=good.ca)
        node.until(Up)
        fooled = line(tls=True, ca_file=make_certificates(other).ca).until(Down, 2)
        line().until(Down, 1)
        hub = hub_line(thread.broker.hub_access)
        lines.append(hub)
        hub.until(Up)
        node.transport.publish(LIVE, bytes(100_000))
        assert hub.payloads(1) == [bytes(100_000)]
        assert "TLS" in fooled[0].reason
    finally:
        for each in lines:
            each.transport.stop()
        thread.stop()


def test_a_machine_whose_clock_is_behind_judges_certificates_by_what_is_known_to_have_passed(tmp_path: Path) -> None:
    """To a clock a month behind, a certificate of today is one of next month."""
    later, now_ms, day_ms = make_certificates(tmp_path, in_days=30), time.time_ns() // 1_000_000, 86_400_000
    broker = BrokerThread(
        EmbeddedBroker(BrokerSettings(host="0.0.0.0", port=0, cert_file=later.cert, key_file=later.key), Embedded().lookup)
    )
    broker.start()
    lines: list[Line] = []

    def line(known_ms: int, ca: str = later.ca) -> Line:
        settings = MqttSettings(
            "127.0.0.1", broker.broker.port, MADRID.node, PASSWORDS[MADRID.node], backoff_min_s=0.05, tls=True, ca_file=ca,
            known_ms=lambda: known_ms,
        )  # fmt: skip
        lines.append(Line(MqttTransport(settings), None).start())
        return lines[-1]

    try:
        line(now_ms + 30 * day_ms).until(Up)
        assert "not yet valid" in line(0).until(Down, 1)[0].reason
        assert "known to have passed" in line(now_ms + 40 * day_ms).until(Down, 1)[0].reason
        other = tmp_path / "other"
        other.mkdir()
        assert "TLS" in line(now_ms + 30 * day_ms, make_certificates(other).ca).until(Down, 1)[0].reason
    finally:
        for each in lines:
            each.transport.stop()
        broker.stop()


def test_an_authority_that_cannot_be_read_is_the_operators_error() -> None:
    with pytest.raises(ConfigError, match=r"missing\.pem"):
        MqttTransport(MqttSettings("127.0.0.1", 1, tls=True, ca_file="missing.pem"))


# --- who comes in, and by which door


def hub_line(access: HubAccess) -> Line:
    settings = MqttSettings(access.host, access.port, access.username, access.password, backoff_min_s=0.05)
    return Line(MqttTransport(settings, subscriptions=hub_subscriptions()), None).start()


def test_the_hub_comes_in_by_its_secret_and_only_by_its_own_door(embedded: Embedded) -> None:
    access = embedded.broker.hub_access
    hub = hub_line(access)
    hub.until(Up)
    hub.transport.stop()
    for port, login in [
        (embedded.port, connect(access.username, access.password)),
        (access.port, madrid()),
        (access.port, connect(access.username, "guess")),
        (access.port, connect(access.username, "")),
    ]:
        with Raw(port) as raw:
            raw.send(login)
            assert raw.read(4) == REFUSED
            assert raw.ended()


@here
def test_logins_that_failed_leave_nothing_behind(embedded: Embedded) -> None:
    for i in range(20):
        with Raw(embedded.port) as raw:
            raw.send(connect(MADRID.node, "guess", client_id=f"c{i}"))
            assert raw.read(4) == REFUSED
            assert raw.ended()
    with Raw(embedded.port) as raw:
        raw.send(madrid())
        assert raw.read(4) == ACCEPTED
        assert len(inside(embedded).sessions) <= 2
    counted(embedded, "refused_total", 20)


@here
def test_two_clients_with_one_client_id_are_two_clients(bench: Bench, embedded: Embedded) -> None:
    hub = bench.line(HUB)
    with Raw(embedded.port) as first, Raw(embedded.port) as second:
        for raw in (first, second):
            raw.send(madrid(client_id="same") + subscribe(RECEIPT))
            assert raw.read(4) == ACCEPTED
            assert raw.read(5) == b"\x90\x03\x00\x01\x01"
        hub.transport.publish(RECEIPT, b"to both")
        for raw in (first, second):
            assert raw.read(2 + 2 + len(RECEIPT) + 2 + 7).endswith(b"to both")


@here
def test_a_session_that_wants_to_be_kept_is_not(embedded: Embedded) -> None:
    for _ in range(2):
        with Raw(embedded.port) as raw:
            raw.send(madrid(clean=False, client_id="mine") + subscribe(RECEIPT))
            assert raw.read(4) == ACCEPTED, "session present"
            raw.read(5)
            raw.send(b"\xe0\x00")
            assert raw.ended()


def test_a_will_for_somebody_elses_topic_keeps_its_author_out(embedded: Embedded) -> None:
    for topic, answer in [(LISBON.topic(Channel.STATE), REFUSED), (RECEIPT, REFUSED), (STATE, ACCEPTED)]:
        with Raw(embedded.port) as raw:
            raw.send(madrid(will=(topic, b"forged")))
            assert raw.read(4) == answer


def test_a_client_that_falls_silent_is_put_out_and_its_will_is_published(bench: Bench, embedded: Embedded) -> None:
    hub = bench.line(HUB, *hub_subscriptions("acme"))
    with Raw(embedded.port) as raw:
        raw.send(madrid(keepalive_s=1, will=(STATE, b"gone")))
        assert raw.read(4) == ACCEPTED
        assert raw.ended()
    assert hub.until(Message) == [Message(STATE, b"gone")]


@here
@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xc0\x00",
        b"\x10\xff\xff\xff\xff\xff",
        b"\x10\x10\x00\x04MQTT\x04\xff\xff\xff\xff\xff",
        b"\x10\x0c\x00\x04MQTT\x05\x02\x00\x3c\x00\x00",
        b"\x30\x05\x00\xff",
        b"\x10\x04\xff\xff" + bytes(65_535),
    ],
)
def test_garbage_from_a_stranger_ends_with_the_stranger(bench: Bench, embedded: Embedded, first: bytes) -> None:
    with Raw(embedded.port) as raw:
        raw.send(first)
        raw._socket.shutdown(socket.SHUT_WR)
        assert raw.ended()
    assert bench.line(MADRID.node).transport.connected


@here
def test_a_stranger_that_says_nothing_is_put_out(embedded: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "CONNECT_S", 0.1)
    with Raw(embedded.port) as raw:
        raw.send(b"\x10")
        assert raw.ended()


@pytest.mark.parametrize("way", WAYS)
def test_more_connections_than_allowed_are_turned_away(way: type[Embedded]) -> None:
    thread = BrokerThread(way().make(BrokerSettings(port=0, max_connections=2)))
    thread.start()
    try:
        with Raw(thread.broker.port) as first, Raw(thread.broker.port) as second:
            for raw in (first, second):
                raw.send(madrid())
                assert raw.read(4) == ACCEPTED
            with Raw(thread.broker.port) as third:
                assert third.ended()
            hub = hub_line(thread.broker.hub_access)
            hub.until(Up)
            hub.transport.stop()
    finally:
        thread.stop()


# --- passwords


@here
def test_a_herd_that_comes_back_costs_one_hash(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def slowly(password: str, encoded: str) -> bool:
        hashed.append(password)
        return password_matches(password, encoded)

    monkeypatch.setattr(broker_access, "password_matches", slowly)
    for _ in range(6):
        bench.line(MADRID.node)
    assert hashed == [PASSWORDS[MADRID.node]]


@here
def test_a_remembered_password_does_not_outlive_its_hash_nor_open_other_doors(embedded: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    def login(user: str) -> bytes:
        with Raw(embedded.port) as raw:
            raw.send(connect(user, PASSWORDS[MADRID.node]))
            return raw.read(4)

    assert login(MADRID.node) == ACCEPTED
    assert login(LISBON.node) == REFUSED
    monkeypatch.setitem(embedded.HASHES, MADRID.node, broker_access.HUB_USER)
    assert login(MADRID.node) == REFUSED


def test_logs_hold_no_secret_and_are_not_filled_by_guessing(embedded: Embedded, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for guess in ("first-guess", "second-guess", "third-guess"):
        with Raw(embedded.port) as raw:
            raw.send(connect(MADRID.node, guess))
            assert raw.read(4) == REFUSED
    with Raw(embedded.port) as raw:
        raw.send(madrid())
        assert raw.read(4) == ACCEPTED
    text = caplog.text
    assert "guess" not in text and PASSWORDS[MADRID.node] not in text and embedded.broker.hub_access.password not in text
    assert [record.getMessage() for record in caplog.records if "refused" in record.getMessage()] == [
        f"The broker refused '{MADRID.node}' from 127.0.0.1: wrong password"
    ]
    assert not any(record.name.startswith(("amqtt", "transitions")) for record in caplog.records)


# --- bounds


def test_a_packet_that_is_too_long_ends_its_line_only(bench: Bench, embedded: Embedded) -> None:
    hub, node = bench.line(HUB, *hub_subscriptions("acme")), bench.line(MADRID.node)
    token = node.transport.publish(LIVE, bytes(broker_module.PACKET_BYTES + 1))
    assert not isinstance(node.ended([token])[token], Published)
    node.until(Up, 2)
    node.transport.publish(LIVE, b"well")
    assert hub.payloads(1) == [b"well"]
    counted(embedded, "oversized_total", 1)


def test_only_states_are_retained(bench: Bench) -> None:
    node = bench.line(MADRID.node)
    node.ended([node.transport.publish(LIVE, b"kept?", retain=True), node.transport.publish(STATE, b"kept", retain=True)])
    assert bench.line(HUB, *hub_subscriptions("acme")).until(Message) == [Message(STATE, b"kept", retain=True)]


@here
def test_a_new_subscription_does_not_write_out_all_that_are_there(bench: Bench, embedded: Embedded) -> None:
    bench.line(HUB, *hub_subscriptions("acme"))
    filters = inside(embedded)._subscriptions
    assert len(filters) == len(hub_subscriptions("acme"))
    assert repr(filters) == f"<{len(filters)} filters>"


@here
def test_what_waits_for_a_node_that_does_not_read_is_bounded(bench: Bench, embedded: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "NODE_WAITING", 16)
    hub = bench.line(HUB)
    with Raw(embedded.port) as deaf:
        deaf.send(madrid() + subscribe(RECEIPT))
        assert deaf.read(9)[:4] == ACCEPTED
        tokens = [hub.transport.publish(RECEIPT, bytes(1_000)) for _ in range(400)]
        assert all(isinstance(end, Published) for end in hub.ended(tokens).values())
        hub.wait(lambda: embedded.broker.counts.dropped_total > 100, "drops")
        lisbon = bench.line(LISBON.node, *LISBON.subscriptions())
        hub.transport.publish(LISBON.topic(Channel.RECEIPT), b"yours")
        assert lisbon.payloads(1) == [b"yours"]


def test_who_publishes_with_qos_2_is_read_no_more(bench: Bench, embedded: Embedded) -> None:
    """amqtt would keep each such message until its sender releases it: 65,535 of 130 kB on one connection."""
    with Raw(embedded.port) as hoarder:
        hoarder.send(madrid() + packet(0x34, text(LIVE) + b"\0\1kept?"))
        assert hoarder.read(4) == ACCEPTED
        with suppress(ConnectionError):  # it may have hung up at the first one
            hoarder.send(packet(0x34, text(LIVE) + b"\0\2kept?"))
            assert hoarder.read(1) == b"", "no PUBREC, and the end"
    counted(embedded, "oversized_total", 1)


@here
def test_while_the_hub_is_behind_nodes_are_not_read(bench: Bench, embedded: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "HUB_WAITING", 16)
    access = embedded.broker.hub_access
    node = bench.line(MADRID.node, max_in_flight=1_000)
    with Raw(access.port) as deaf:
        deaf.send(connect(access.username, access.password) + subscribe(hub_subscriptions()[0]))
        assert deaf.read(9)[:4] == ACCEPTED
        tokens = [node.transport.publish(LIVE, b"x") for _ in range(800)]
        with pytest.raises(AssertionError, match="no 800"):
            node.until(Published, 800, within_s=1.0)
        assert len(node.of(Published)) < 200
    assert len(node.ended(tokens)) == 800, "nodes are read again when the hub is gone"
