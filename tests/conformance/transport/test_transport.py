"""The transport port, said in tests: the same for the in-memory broker, the embedded one, and Mosquitto in both protocol versions, also
over TLS as it is shipped."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocols.errors import InvalidInput, TransportError
from protocols.limits import FRAME_WIRE_BYTES
from protocols.topics import Channel, hub_subscriptions
from protocols.transport.port import Down, Dropped, Message, Presence, Published, Up
from tests.conformance.transport.brokers import HUB, LISBON, MADRID, PASSWORDS, Bench, Embedded, Harness, Line, Memory, MosquittoUnderTest
from tests.support.needs import needs

LIVE = MADRID.topic(Channel.LIVE)
CONTROL = MADRID.topic(Channel.CONTROL)
RECEIPT = MADRID.topic(Channel.RECEIPT)
STATE = MADRID.topic(Channel.STATE)
PRESENCE = Presence(STATE, b"here", b"gone", b"bye")
STATES = "longshore/v1/acme/+/+/+/state"

KINDS = [
    "memory",
    "embedded",
    pytest.param("mosquitto", marks=needs("mosquitto")),
    pytest.param("mosquitto-5", marks=needs("mosquitto")),
    pytest.param("mosquitto-tls", marks=needs("mosquitto")),
    pytest.param("mosquitto-tls-5", marks=needs("mosquitto")),
]


def make(kind: str, folder: Path) -> Harness:
    if kind == "memory":
        return Memory()
    if kind == "embedded":
        return Embedded()
    return MosquittoUnderTest(folder, mqtt5=kind.endswith("-5"), tls="tls" in kind)


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    threads = set(threading.enumerate())
    bench = Bench(make(request.param, tmp_path))
    bench.harness.start()
    try:
        yield bench
    finally:
        bench.close()
    left = [thread.name for thread in threading.enumerate() if thread not in threads]
    assert left == [], "threads outlived their transport or broker"


def patient(bench: Bench) -> Line:
    """A node that waits for minutes before it tries again by itself, where there is a clock."""
    slow: dict[str, Any] = {"backoff_min_s": 600.0, "backoff_max_s": 600.0} if bench.harness.pump is None else {}
    return bench.line(MADRID.node, **slow)


# --- there and back


def test_bytes_arrive_as_they_were_sent_in_both_directions(bench: Bench) -> None:
    hub, node = bench.line(HUB, *hub_subscriptions("acme")), bench.line(MADRID.node, *MADRID.subscriptions())
    anything = bytes(range(256))
    node.transport.publish(LIVE, anything)
    hub.transport.publish(RECEIPT, b"got it")
    assert hub.until(Message) == [Message(LIVE, anything)]
    assert node.until(Message) == [Message(RECEIPT, b"got it")]
    assert hub.transport.connected and node.transport.connected


def test_a_wildcard_hears_every_node_and_only_its_own_channel(bench: Bench) -> None:
    hub = bench.line(HUB, "longshore/v1/acme/+/+/+/up/live")
    madrid, lisbon = bench.line(MADRID.node), bench.line(LISBON.node)
    madrid.transport.publish(CONTROL, b"not for this filter")
    madrid.transport.publish(LIVE, b"madrid")
    lisbon.transport.publish(LISBON.topic(Channel.LIVE), b"lisbon")
    assert sorted(hub.payloads(2)) == [b"lisbon", b"madrid"]


def test_each_token_ends_once_as_published(bench: Bench) -> None:
    node = bench.line(MADRID.node)
    tokens = [node.transport.publish(LIVE, b"x", qos=qos) for qos in (1, 0, 1)]
    ends = node.ended(tokens)
    assert len(set(tokens)) == 3
    assert all(isinstance(end, Published) for end in ends.values())


def test_a_frame_of_the_greatest_size_passes(bench: Bench) -> None:
    hub, node = bench.line(HUB, *hub_subscriptions("acme")), bench.line(MADRID.node)
    frames = [bytes([i]) * FRAME_WIRE_BYTES for i in range(5)]
    tokens = [node.transport.publish(LIVE, frame) for frame in frames]
    assert hub.payloads(5) == frames
    assert all(isinstance(end, Published) for end in node.ended(tokens).values())


def test_order_is_kept_on_a_topic(bench: Bench) -> None:
    hub, node = bench.line(HUB, *hub_subscriptions("acme")), bench.line(MADRID.node)
    sent = [b"%d" % i for i in range(200)]
    for payload in sent:
        node.transport.publish(LIVE, payload)
    assert hub.payloads(200) == sent


def test_an_empty_payload_is_a_payload(bench: Bench) -> None:
    hub, node = bench.line(HUB, *hub_subscriptions("acme")), bench.line(MADRID.node)
    node.transport.publish(LIVE, b"")
    assert hub.payloads(1) == [b""]


# --- retained, birth and will


def test_a_retained_message_waits_for_those_who_come_later(bench: Bench) -> None:
    early, node = bench.line(HUB, STATES), bench.line(MADRID.node)
    node.ended([node.transport.publish(STATE, b"1", retain=True), node.transport.publish(STATE, b"2", retain=True)])
    assert early.payloads(2) == [b"1", b"2"]
    assert bench.line(HUB, STATES).until(Message) == [Message(STATE, b"2", retain=True)]


def test_an_empty_retained_message_clears_the_topic(bench: Bench) -> None:
    node = bench.line(MADRID.node)
    lisbon_state = LISBON.topic(Channel.STATE)
    lisbon = bench.line(LISBON.node)
    node.ended([node.transport.publish(STATE, b"1", retain=True), node.transport.publish(STATE, b"", retain=True)])
    lisbon.ended([lisbon.transport.publish(lisbon_state, b"kept", retain=True)])
    assert bench.line(HUB, STATES).until(Message) == [Message(lisbon_state, b"kept", retain=True)]


def test_a_newcomer_is_not_told_what_was_retained_for_others(bench: Bench) -> None:
    hub, madrid = bench.line(HUB, STATES), bench.line(MADRID.node, presence=PRESENCE)
    hub.payloads(1)
    lisbon = bench.line(LISBON.node, *LISBON.subscriptions())
    hub.transport.publish(LISBON.topic(Channel.RECEIPT), b"yours")
    assert lisbon.payloads(1) == [b"yours"]
    assert madrid.of(Message) == []


def test_a_broken_line_publishes_the_will_and_the_next_one_the_birth(bench: Bench) -> None:
    hub = bench.line(HUB, STATES)
    node = bench.line(MADRID.node, presence=PRESENCE)
    assert hub.payloads(1) == [b"here"]
    node.transport.restart()
    node.until(Up, 2)
    assert Counter(hub.payloads(3)) == Counter({b"here": 2, b"gone": 1})


def test_a_clean_end_says_farewell_and_no_will(bench: Bench) -> None:
    hub, node = bench.line(HUB, STATES), bench.line(MADRID.node, presence=PRESENCE)
    hub.payloads(1)
    node.transport.stop()
    assert hub.payloads(2) == [b"here", b"bye"]
    after = bench.line(MADRID.node, presence=Presence(STATE, b"again", b"gone"))
    assert after.transport.connected
    assert hub.payloads(3) == [b"here", b"bye", b"again"]
    assert bench.line(HUB, STATES).until(Message) == [Message(STATE, b"again", retain=True)]


# --- down and up again


def test_a_transport_may_be_started_before_its_broker(bench: Bench) -> None:
    bench.harness.stop()
    hub = bench.line(HUB, *hub_subscriptions("acme"), up=False)
    hub.until(Down, 2)
    assert not hub.transport.connected and hub.of(Up) == []
    bench.harness.start()
    hub.until(Up)
    assert hub.transport.connected


def test_after_a_restart_of_the_broker_subscriptions_are_there_again(bench: Bench) -> None:
    hub, node = bench.line(HUB, *hub_subscriptions("acme")), bench.line(MADRID.node, *MADRID.subscriptions())
    bench.harness.stop()
    hub.until(Down)
    node.until(Down)
    bench.harness.start()
    hub.until(Up, 2)
    node.until(Up, 2)
    node.transport.publish(LIVE, b"after")
    hub.transport.publish(RECEIPT, b"after, too")
    assert hub.payloads(1) == [b"after"]
    assert node.payloads(1) == [b"after, too"]


def test_what_is_published_while_down_is_dropped_at_once_and_never_sent(bench: Bench) -> None:
    node = patient(bench)
    bench.harness.stop()
    node.until(Down)
    tokens = [node.transport.publish(LIVE, b"lost") for _ in range(20)]
    assert all(isinstance(end, Dropped) and end.reason for end in node.ended(tokens).values())
    bench.harness.start()
    node.transport.restart()
    node.until(Up, 2)
    hub = bench.line(HUB, *hub_subscriptions("acme"))
    node.transport.publish(LIVE, b"kept")
    assert hub.payloads(1) == [b"kept"]


def test_each_token_ends_once_also_when_the_broker_dies_in_between(bench: Bench) -> None:
    node = bench.line(MADRID.node)
    tokens = [node.transport.publish(LIVE, bytes(20_000)) for _ in range(100)]
    bench.harness.stop()
    tokens += [node.transport.publish(LIVE, b"late") for _ in range(10)]
    assert len(node.ended(tokens)) == 110


def test_outgoing_bytes_are_bounded(bench: Bench) -> None:
    node = bench.line(MADRID.node, max_outgoing_bytes=50_000)
    tokens = [node.transport.publish(LIVE, bytes(20_000)) for _ in range(200)]
    ends = node.ended(tokens)
    dropped = [end for end in ends.values() if isinstance(end, Dropped)]
    assert 0 < len(dropped) < 200
    assert "no room" in dropped[0].reason
    again = node.transport.publish(LIVE, bytes(50_000))
    assert isinstance(node.ended([again])[again], Published), "the room was not given back"
    too_big = node.transport.publish(LIVE, bytes(50_001))
    assert isinstance(node.ended([too_big])[too_big], Dropped)


def test_restart_builds_a_new_line_at_once(bench: Bench) -> None:
    node = patient(bench)
    node.transport.restart()
    node.until(Up, 2)
    token = node.transport.publish(LIVE, b"x")
    assert isinstance(node.ended([token])[token], Published)
    assert [type(event) for event in node.events][:3] == [Up, Down, Up]


# --- who may


def test_a_wrong_password_is_refused_again_and_again(bench: Bench) -> None:
    stranger = bench.line(MADRID.node, password="guess", up=False)
    downs = stranger.until(Down, 3)
    assert stranger.of(Up) == [] and not stranger.transport.connected
    assert "refused" in downs[0].reason and "uthori" in downs[0].reason


@pytest.mark.parametrize("user", ["", "nobody"])
def test_nobody_is_let_in_without_a_name_that_is_known(bench: Bench, user: str) -> None:
    stranger = bench.line(user, password="", up=False)
    stranger.until(Down, 2)
    assert stranger.of(Up) == []


def test_what_a_node_publishes_beyond_its_own_topics_reaches_nobody(bench: Bench) -> None:
    hub = bench.line(HUB, *hub_subscriptions("acme"))
    lisbon = bench.line(LISBON.node, *LISBON.subscriptions())
    madrid = bench.line(MADRID.node)
    for topic in (LISBON.topic(Channel.LIVE), LISBON.topic(Channel.RECEIPT), RECEIPT, "longshore/v1/acme/EMEA/x/y/up/live", "other"):
        madrid.transport.publish(topic, b"forged")
    madrid.transport.publish(LIVE, b"own")
    assert hub.payloads(1) == [b"own"]
    hub.transport.publish(LISBON.topic(Channel.RECEIPT), b"real")
    assert lisbon.payloads(1) == [b"real"]


@pytest.mark.parametrize("topic_filter", ["#", "longshore/v1/acme/EMEA/W8-Madrid/madrid-1/#", LIVE, RECEIPT])
def test_what_belongs_to_another_cannot_be_read(bench: Bench, topic_filter: str) -> None:
    hub = bench.line(HUB, *hub_subscriptions("acme"))
    spy = bench.line(LISBON.node, LISBON.topic(Channel.RECEIPT), topic_filter, up=False)
    spy.wait(lambda: bool(spy.of(Up) or spy.of(Down)), "answer to the subscription")
    madrid = bench.line(MADRID.node, *MADRID.subscriptions())
    madrid.transport.publish(LIVE, b"secret")
    hub.payloads(1)
    hub.transport.publish(RECEIPT, b"secret")
    madrid.payloads(1)
    hub.transport.publish(LISBON.topic(Channel.RECEIPT), b"own")
    if spy.of(Up):
        spy.until(Message)
    assert b"secret" not in spy.payloads()


def test_two_with_the_same_credentials_do_not_push_each_other_out(bench: Bench) -> None:
    hub = bench.line(HUB, *hub_subscriptions("acme"))
    card, clone = (bench.line(MADRID.node, *MADRID.subscriptions()) for _ in range(2))
    for i in range(5):
        for line in (card, clone):
            line.ended([line.transport.publish(LIVE, b"%d" % i)])
    assert len(hub.payloads(10)) == 10
    hub.transport.publish(RECEIPT, b"to both")
    assert card.payloads(1) == clone.payloads(1) == [b"to both"]
    assert card.of(Down) == clone.of(Down) == []


# --- the end


def test_stop_ends_everything_and_may_be_called_twice(bench: Bench) -> None:
    node = bench.line(MADRID.node)
    token = node.transport.publish(LIVE, b"x")
    node.transport.stop()
    assert node.ended([token])
    assert isinstance(node.events[-1], Down)
    heard = len(node.events)
    node.transport.stop()
    assert not node.transport.connected
    with pytest.raises(TransportError):
        node.transport.publish(LIVE, b"x")
    bench.settle()
    assert len(node.events) == heard


def test_a_transport_starts_once_and_stops_without_a_start(bench: Bench) -> None:
    node = bench.line(MADRID.node)
    with pytest.raises(TransportError):
        node.transport.start(lambda _event: None)
    never = Line(bench.harness.transport(MADRID.node, PASSWORDS[MADRID.node], (), None), bench.harness.pump)
    with pytest.raises(TransportError):
        never.transport.publish(LIVE, b"x")
    never.transport.stop()


def test_stop_does_not_wait_for_a_broker_that_is_not_there(bench: Bench) -> None:
    bench.harness.stop()
    node = bench.line(MADRID.node, up=False)
    node.until(Down)
    node.transport.stop(timeout_s=20.0)
    assert not node.transport.connected


@pytest.mark.parametrize("topic", ["", "a/#", "a/+/b", "$SYS/x", "a\0b"])
def test_a_topic_that_cannot_be_published_to_is_the_callers_error(bench: Bench, topic: str) -> None:
    node = bench.line(MADRID.node)
    with pytest.raises(InvalidInput):
        node.transport.publish(topic, b"x")
    assert node.transport.connected
