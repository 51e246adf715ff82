"""What a Mosquitto refuses is seen, named and given back to who can act; over TLS, in the configuration that is shipped."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from protocols import mosquitto
from protocols.errors import ConfigError
from protocols.topics import Channel, claims_of, hub_subscriptions
from protocols.trace import traceparent
from protocols.transport.mqtt import MqttSettings, MqttTransport
from protocols.transport.mqtt_packets import beside
from protocols.transport.port import Down, Dropped, Event, Extra, Message, Presence, Published, Up
from protocols.transport.refusals import Refusal
from tests.conformance.transport.brokers import HUB, LISBON, MADRID, PASSWORDS, Bench, Embedded, Line, MosquittoUnderTest
from tests.support.certificates import make_certificates
from tests.support.needs import needs
from tests.support.ports import free_port

pytestmark = needs("mosquitto")

LIVE, RECEIPT = MADRID.topic(Channel.LIVE), MADRID.topic(Channel.RECEIPT)
TRACE = traceparent("madrid-1", 7, 1, b"\1" * 8)
CLAIM = claims_of("acme", "hub", 3)


@contextmanager
def broker(folder: Path, *, mqtt5: bool, acl: list[str] | None = None, **limits: str) -> Iterator[Bench]:
    bench = Bench(MosquittoUnderTest(folder, mqtt5=mqtt5, tls=True, limits=limits))
    if acl is not None:
        (folder / "acl").write_text("\n".join([*acl, ""]))
    bench.harness.start()
    try:
        yield bench
    finally:
        bench.close()


def kinds(line: Line) -> list[tuple[Refusal, str]]:
    return [(seen.kind, seen.topic) for seen in line.transport.refusals()]


def end_of(line: Line, token: int) -> Event:
    return line.ended([token])[token]


# ------------------------------------------------------------------ what is refused


def test_a_topic_that_the_rules_forbid(tmp_path: Path) -> None:
    with broker(tmp_path, mqtt5=True) as bench:
        node = bench.line(MADRID.node)
        forbidden = LISBON.topic(Channel.LIVE)
        ended = end_of(node, node.transport.publish(forbidden, b"x"))
        assert isinstance(ended, Dropped) and ended.refusal is Refusal.ACL and "Not authorized" in ended.reason
        assert ended.payload == b"", "there is nothing to cut"
        assert kinds(node) == [(Refusal.ACL, forbidden)]
        assert node.transport.refused_totals()["acl"] == 1


def test_one_that_is_refused_first_and_allowed_later_is_over(tmp_path: Path) -> None:
    with broker(tmp_path, mqtt5=True) as bench:
        rules = tmp_path / "acl"
        right = rules.read_text()
        rules.write_text(right.replace(f"topic write {LIVE}\n", ""))
        harness = bench.harness
        assert isinstance(harness, MosquittoUnderTest)
        harness.process.reload()
        node = bench.line(MADRID.node, wants_reader=True)

        def refused() -> bool:
            return isinstance(end_of(node, node.transport.publish(LIVE, b"x")), Dropped)

        node.wait(refused, "a refusal")
        assert (Refusal.ACL, LIVE) in kinds(node)
        rules.write_text(right)
        harness.process.reload()
        node.wait(lambda: not refused(), "an end of it")
        assert kinds(node) == [(Refusal.NOBODY, LIVE)], "it is allowed, and nobody reads it"
        hub = bench.line(HUB, *hub_subscriptions("acme"))
        end_of(node, node.transport.publish(LIVE, b"seen"))
        assert hub.payloads(1) == [b"seen"]
        assert kinds(node) == []


def test_a_birth_that_is_refused_is_named_too(tmp_path: Path) -> None:
    with broker(tmp_path, mqtt5=True) as bench:
        state = LISBON.topic(Channel.STATE)
        node = bench.line(MADRID.node, presence=Presence(state, b"here", b"gone"))
        node.wait(lambda: kinds(node) == [(Refusal.ACL, state)], "the refused birth")


def test_a_birth_that_nobody_reads_yet_is_kept_by_the_broker_and_no_refusal(tmp_path: Path) -> None:
    with broker(tmp_path, mqtt5=True) as bench:
        state = MADRID.topic(Channel.STATE)
        node = bench.line(MADRID.node, presence=Presence(state, b"here", b"gone"), wants_reader=True)
        assert isinstance(end_of(node, node.transport.publish(LIVE, b"x")), Published)
        assert kinds(node) == [(Refusal.NOBODY, LIVE)]


def test_a_packet_beyond_what_the_broker_said_is_not_sent(tmp_path: Path) -> None:
    with broker(tmp_path, mqtt5=True, max_packet_size="5000") as bench:
        node = bench.line(MADRID.node)
        ended = end_of(node, node.transport.publish(LIVE, bytes(6_000)))
        assert isinstance(ended, Dropped) and ended.refusal is Refusal.TOO_LARGE
        assert "5000" in ended.reason and ended.payload == bytes(6_000)
        assert isinstance(end_of(node, node.transport.publish(LIVE, bytes(4_000))), Published)
        assert len(node.of(Up)) == 1 and node.of(Down) == [], "the line stays up"
        assert kinds(node) == [(Refusal.TOO_LARGE, LIVE)]
        again = node.transport.publish(LIVE, bytes(4_999), extra=Extra(600, TRACE))
        assert isinstance(end_of(node, again), Dropped), "what goes beside it counts"


def test_over_3_1_1_two_lines_that_break_over_it_tell(tmp_path: Path) -> None:
    with broker(tmp_path, mqtt5=False, max_packet_size="5000") as bench:
        node = bench.line(MADRID.node)
        assert isinstance(end_of(node, node.transport.publish(LIVE, bytes(3_000))), Published)
        first = end_of(node, node.transport.publish(LIVE, bytes(6_000)))
        assert isinstance(first, Dropped) and first.refusal is None, "a line may break for any reason"
        node.until(Up, 2)
        second = end_of(node, node.transport.publish(LIVE, bytes(6_000)))
        assert isinstance(second, Dropped) and second.refusal is Refusal.TOO_LARGE and second.payload == bytes(6_000)
        assert kinds(node) == [(Refusal.TOO_LARGE, LIVE)]


def test_over_3_1_1_lines_that_break_over_something_small_tell_nothing(tmp_path: Path) -> None:
    with broker(tmp_path, mqtt5=False, max_packet_size="400") as bench:
        node = bench.line(MADRID.node)
        for lines in (1, 2, 3):
            node.until(Up, lines)
            ended = end_of(node, node.transport.publish(LIVE, bytes(450)))
            assert isinstance(ended, Dropped) and ended.refusal is None
        assert kinds(node) == []


def test_over_3_1_1_lines_that_break_over_what_has_passed_before_tell_nothing(tmp_path: Path) -> None:
    bench = Bench(MosquittoUnderTest(tmp_path, mqtt5=False))
    bench.harness.start()
    try:
        node = bench.line(MADRID.node)
        end_of(node, node.transport.publish(LIVE, bytes(9_000)))
        for lines in (2, 3, 4):
            tokens = [node.transport.publish(LIVE, bytes(9_000)) for _ in range(50)]
            bench.harness.stop()
            ends = node.ended(tokens).values()
            bench.harness.start()
            node.until(Up, lines)
            assert all(end.refusal is None for end in ends if isinstance(end, Dropped))
        assert kinds(node) == []
    finally:
        bench.close()


@pytest.mark.parametrize("mqtt5", [True, False], ids=["5", "3.1.1"])
def test_a_password_that_is_wrong(tmp_path: Path, mqtt5: bool) -> None:
    with broker(tmp_path, mqtt5=mqtt5) as bench:
        stranger = bench.line(MADRID.node, password="guess", up=False)
        assert stranger.until(Down, 2)[0].refusal is Refusal.CREDENTIALS
        assert kinds(stranger) == [(Refusal.CREDENTIALS, "")]


@pytest.mark.parametrize("mqtt5", [True, False], ids=["5", "3.1.1"])
def test_a_certificate_of_another_authority(tmp_path: Path, mqtt5: bool) -> None:
    with broker(tmp_path, mqtt5=mqtt5) as bench:
        other = tmp_path / "other"
        other.mkdir()
        wary = bench.line(MADRID.node, up=False, ca_file=make_certificates(other).ca)
        down = wary.until(Down, 2)[0]
        assert (down.refusal is Refusal.CERTIFICATE and "verify failed" in down.reason) or "unable to get" in down.reason
        assert kinds(wary) == [(Refusal.CERTIFICATE, "")]


def test_a_broker_that_wants_a_certificate_of_ours_and_gets_it(tmp_path: Path) -> None:
    mutual: dict[str, Any] = {"tls_version": f"tlsv1.2\nrequire_certificate true\ncafile {tmp_path / 'ca.pem'}"}
    with broker(tmp_path, mqtt5=True, **mutual) as bench:
        without = bench.line(MADRID.node, up=False)
        without.until(Down, 2)
        assert kinds(without)[0][0] in (Refusal.CLOSED, Refusal.CERTIFICATE)
        shown: dict[str, Any] = {"cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem")}
        assert bench.line(MADRID.node, **shown).transport.connected


def test_a_certificate_of_ours_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    with pytest.raises(ConfigError, match="client certificate missing"):
        MqttTransport(MqttSettings("127.0.0.1", 1, tls=True, cert_file="missing.pem", key_file=certificates.key))
    with pytest.raises(ConfigError, match="cannot be used"):
        MqttTransport(MqttSettings("127.0.0.1", 1, tls=True, cert_file=certificates.ca, key_file=certificates.key))


def settled(line: Line) -> bool:
    return bool(kinds(line) or line.of(Up))


def test_who_comes_when_the_broker_is_full_is_told_where_to_look(tmp_path: Path) -> None:
    with broker(tmp_path, mqtt5=True, max_connections="1") as bench:
        for user in (HUB, MADRID.node, LISBON.node):  # Mosquitto's count may be off by one that came and went before
            late = bench.line(user, up=False)
            late.wait(partial(settled, late), "a refusal, or a place")
        late.wait(lambda: bool(kinds(late)), "a refusal")
        assert {kind for kind, _ in kinds(late)} <= {Refusal.CLOSED, Refusal.CERTIFICATE, Refusal.QUOTA}


# ------------------------------------------------------------------ limits and what goes beside


def test_no_more_waits_for_the_broker_than_it_said_it_takes() -> None:
    """Mosquitto says so and bears more; this one counts."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    line = Line(MqttTransport(MqttSettings("127.0.0.1", port, version="5"), subscriptions=()), None).start()
    connection, _ = listener.accept()
    try:
        connection.recv(4_096)
        connection.sendall(b"\x20\x06\0\0\3\x21\0\3")  # success; Receive Maximum 3
        line.until(Up)
        for number in range(9):
            line.transport.publish("a", b"%d" % number)
        taken = b""
        connection.settimeout(0.3)
        with suppress(TimeoutError):
            while True:
                taken += connection.recv(4_096)
        assert taken[8::9] == b"012", "three packets of nine bytes, and then it waits"
        connection.sendall(b"\x40\x02\0\1")  # the first is acknowledged
        assert connection.recv(4_096).endswith(b"3")
    finally:
        connection.close()
        listener.close()
        line.transport.stop()


def test_not_one_more_is_sent_at_the_end_either(tmp_path: Path) -> None:
    with broker(tmp_path, mqtt5=True, max_inflight_messages="3") as bench:
        node = bench.line(MADRID.node, presence=Presence(MADRID.topic(Channel.STATE), b"here", b"gone", b"bye"))
        tokens = [node.transport.publish(LIVE, b"x" * 2_000) for _ in range(100)]
        assert all(isinstance(end, Published) for end in node.ended(tokens).values())
        node.transport.stop()
        assert [down.reason for down in node.of(Down)] == ["stopped"]


def test_trace_context_goes_along_on_mqtt_5(tmp_path: Path) -> None:
    with broker(tmp_path, mqtt5=True) as bench:
        hub, node = bench.line(HUB, *hub_subscriptions("acme")), bench.line(MADRID.node)
        node.transport.publish(LIVE, b"1", extra=Extra(traceparent=TRACE))
        node.transport.publish(LIVE, b"2", extra=Extra(traceparent="nonsense"))
        node.transport.publish(LIVE, b"3")
        hub.payloads(3)
        assert hub.of(Message) == [Message(LIVE, b"1", traceparent=TRACE), Message(LIVE, b"2"), Message(LIVE, b"3")]


def test_what_goes_beside_is_written_as_the_standard_says() -> None:
    expiry = beside(Extra(600))
    assert expiry is not None and expiry.pack() == b"\x05\x02\0\0\2\x58"
    both = beside(Extra(600, TRACE))
    assert both is not None and both.pack()[1:] == b"\x02\0\0\2\x58\x26\0\x0btraceparent\0\x37" + TRACE.encode()
    assert beside(Extra()) is None, "most messages carry nothing, and cost nothing"


def test_patterns_confine_nodes_as_well(tmp_path: Path) -> None:
    with broker(tmp_path, mqtt5=True, acl=mosquitto.acl_patterns(hub_user=HUB)) as bench:
        hub, node = bench.line(HUB, *hub_subscriptions("acme")), bench.line(MADRID.node, *MADRID.subscriptions())
        forged = end_of(node, node.transport.publish(LISBON.topic(Channel.LIVE), b"forged"))
        assert isinstance(forged, Dropped) and forged.refusal is Refusal.ACL
        assert isinstance(end_of(node, node.transport.publish(RECEIPT, b"forged")), Dropped), "what it reads it may not write"
        assert isinstance(end_of(node, node.transport.publish(CLAIM, b"forged", retain=True)), Dropped)
        hub.ended([hub.transport.publish(CLAIM, b"of a worker", retain=True)])
        assert bench.line(HUB, claims_of("acme", "hub")).payloads(1) == [b"of a worker"], "for whoever comes later, and the hub alone"
        node.transport.publish(LIVE, b"own")
        assert hub.payloads(1) == [b"own"]
        hub.transport.publish(LISBON.topic(Channel.RECEIPT), b"not for Madrid")
        hub.transport.publish(RECEIPT, b"for Madrid")
        assert node.payloads(1) == [b"for Madrid"]


def test_trace_context_is_left_out_on_3_1_1(tmp_path: Path) -> None:
    with broker(tmp_path, mqtt5=False) as bench:
        hub, node = bench.line(HUB, *hub_subscriptions("acme")), bench.line(MADRID.node)
        node.transport.publish(LIVE, b"1", extra=Extra(600, TRACE))
        assert hub.until(Message) == [Message(LIVE, b"1")]


def test_a_session_ends_with_its_connection(tmp_path: Path) -> None:
    with broker(tmp_path, mqtt5=True) as bench:
        hub = bench.line(HUB, *hub_subscriptions("acme"))
        bench.line(MADRID.node, *MADRID.subscriptions()).transport.stop()
        for number in range(3):
            hub.ended([hub.transport.publish(MADRID.topic(Channel.RECEIPT), b"%d" % number)])
        back = bench.line(MADRID.node, *MADRID.subscriptions())
        hub.transport.publish(MADRID.topic(Channel.RECEIPT), b"now")
        assert back.payloads(1) == [b"now"], "nothing was kept for it"
        harness = bench.harness
        assert isinstance(harness, MosquittoUnderTest)
        assert "p5, c1" in harness.process.output()


# ------------------------------------------------------------------ versions


def found_out(port: int, **more: Any) -> Line:
    quick = {"backoff_min_s": 0.05, "backoff_max_s": 0.2, "connect_timeout_s": 0.5, "answer_timeout_s": 0.5, **more}
    return Line(MqttTransport(MqttSettings("127.0.0.1", port, MADRID.node, PASSWORDS[MADRID.node], **quick)), None).start()


def test_5_is_spoken_where_the_broker_has_it(tmp_path: Path) -> None:
    harness = MosquittoUnderTest(tmp_path, mqtt5=True)
    harness.start()
    line = found_out(harness.port)
    try:
        line.until(Up)
        assert line.transport.protocol == "MQTT 5"
    finally:
        line.transport.stop()
        harness.stop()


def test_where_it_has_not_3_1_1_is_spoken_and_nobody_hears_of_the_first_attempt() -> None:
    harness = Embedded()
    harness.start()
    line = found_out(harness.port, answer_timeout_s=600.0)  # it is not by time that this is found out
    try:
        line.until(Up)
        assert line.transport.protocol == "MQTT 3.1.1"
        assert line.of(Down) == []
        line.transport.restart()
        line.until(Up, 2)
        assert line.transport.refusals() == ()
    finally:
        line.transport.stop()
        harness.stop()


def test_where_nobody_answers_both_versions_are_tried() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    levels: list[int] = []
    line = found_out(listener.getsockname()[1])
    try:
        for _ in range(4):
            connection, _ = listener.accept()
            begun = connection.recv(4_096)
            levels.append(begun[begun.index(b"MQTT") + 4])
            connection.close()
        assert levels == [5, 4, 5, 4]
        assert "before the broker answered" in line.until(Down)[0].reason
        assert line.of(Down)[0].refusal is Refusal.CLOSED
    finally:
        line.transport.stop()
        listener.close()


def test_a_place_where_nobody_listens_is_tried_in_one_version() -> None:
    line = found_out(free_port())
    try:
        assert line.until(Down, 2)[0].refusal is None
    finally:
        line.transport.stop()
