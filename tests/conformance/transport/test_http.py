"""The transport port over HTTP: the same tests as for MQTT, as far as HTTP can mean them.

Not here, and why: retained messages, birth and will (there is no broker that keeps anything, and no line whose end somebody would notice);
wildcards, and what a node may read or write beyond its own topics (topics do not travel: whoever signs in hands over for itself and gets
its own mail, which `tests/unit/hub/test_syncing.py` says); who is refused hears HTTP's words, not MQTT's.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hub.broker_access import NodeGrant
from protocols.codec import Kind
from protocols.errors import ConfigError
from protocols.sync.parcel import MEDIA_TYPE
from protocols.topics import Channel, check_topic, node_acl, parse_topic
from protocols.transport.http import HttpSettings, HttpTransport
from protocols.transport.port import PLAIN, Down, Extra, Listener, Message, Presence, Transport, Up
from protocols.transport.refusals import Seen
from protocols.trust import hash_password
from tests.conformance.transport.brokers import HUB, LISBON, MADRID, PASSWORDS, Bench, Line
from tests.conformance.transport.test_transport import (  # noqa: F401 - collected here, over this harness
    LIVE,
    RECEIPT,
    test_a_frame_of_the_greatest_size_passes,
    test_a_topic_that_cannot_be_published_to_is_the_callers_error,
    test_a_transport_may_be_started_before_its_broker,
    test_a_transport_starts_once_and_stops_without_a_start,
    test_after_a_restart_of_the_broker_subscriptions_are_there_again,
    test_an_empty_payload_is_a_payload,
    test_bytes_arrive_as_they_were_sent_in_both_directions,
    test_each_token_ends_once_also_when_the_broker_dies_in_between,
    test_each_token_ends_once_as_published,
    test_order_is_kept_on_a_topic,
    test_outgoing_bytes_are_bounded,
    test_restart_builds_a_new_line_at_once,
    test_stop_does_not_wait_for_a_broker_that_is_not_there,
    test_stop_ends_everything_and_may_be_called_twice,
    test_what_is_published_while_down_is_dropped_at_once_and_never_sent,
)
from tests.support.certificates import make_certificates
from tests.support.fake_hub import FakeHub, Serving
from tests.support.patience import WITHIN_S

ADDRESSES = {address.node: address for address in (MADRID, LISBON)}


class HubSide:
    """What stands behind the API, as a line: what nodes hand over is heard, what is published goes into their mailboxes."""

    def __init__(self, harness: OverHttp) -> None:
        self._harness = harness
        self._listener: Listener | None = None
        self.connected = False
        self.protocol = "test"

    def refusals(self) -> tuple[Seen, ...]:
        return ()

    def refused_totals(self) -> dict[str, int]:
        return {}

    def start(self, listener: Listener) -> None:
        self._listener = listener
        self._harness.sides.append(self)
        self.served(self._harness.serving is not None)

    def served(self, up: bool) -> None:
        if self._listener is not None:
            self.connected = up
            self._listener(Up() if up else Down("the API is not served"))
            if not up:
                self._listener(Down("still not"))

    def came(self, node: str, payload: bytes) -> None:
        if self._listener is not None and node in ADDRESSES:
            self._listener(Message(ADDRESSES[node].topic(Channel.LIVE), payload))

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, extra: Extra = PLAIN) -> int:
        self._harness.hub.post.published(check_topic(topic), payload)
        return 0

    def restart(self) -> None:
        pytest.fail("what stands behind the API has no line of its own to build anew")

    def stop(self, timeout_s: float = 5.0) -> None:
        self._listener = None


class OverHttp:
    """A hub's API on a port that outlives a restart; behind it, `HubSide`."""

    def __init__(self, folder: Path) -> None:
        self.pump: Callable[[], object] | None = None
        self._folder = folder
        self.sides: list[HubSide] = []
        self.serving: Serving | None = None
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = int(found.getsockname()[1])
        self.hub = self._hub()

    def _hub(self) -> FakeHub:
        hub = FakeHub(self._folder)
        for node in ADDRESSES.values():
            hub.grants[node.node] = NodeGrant(hash_password(PASSWORDS[node.node], n=2), node_acl(node))
        hub.heard = self._came
        return hub

    def _came(self, node: str, payload: bytes) -> None:
        for side in self.sides:
            side.came(node, payload)

    def start(self) -> None:
        if self.serving is None:
            self.hub = self._hub()
            self.serving = Serving(self.hub, port=self.port)
            self.serving.__enter__()
            for side in self.sides:
                side.served(True)

    def stop(self) -> None:
        if self.serving is not None:
            self.serving.do(self.hub.post.hush)
            self.serving.__exit__()
            self.serving = None
            self.hub.post.close()
            for side in self.sides:
                side.served(False)

    def transport(self, user: str, password: str, subscriptions: Sequence[str], presence: Presence | None, **settings: Any) -> Transport:
        if user == HUB:
            return HubSide(self)
        quick = {"backoff_min_s": 0.05, "backoff_max_s": 0.4, "stable_s": 1.0, "wait_s": 5, **settings}
        return HttpTransport(HttpSettings(f"http://127.0.0.1:{self.port}", password=password, **quick), ADDRESSES[user])


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    threads = set(threading.enumerate())
    bench = Bench(OverHttp(tmp_path))
    bench.harness.start()
    try:
        yield bench
    finally:
        bench.close()
    left = [thread.name for thread in threading.enumerate() if thread not in threads and thread.name.startswith("http-")]
    assert left == [], "threads outlived their transport"


def test_a_wrong_password_is_told_in_words_again_and_again(bench: Bench) -> None:
    stranger = bench.line(MADRID.node, password="guess", up=False)
    downs = stranger.until(Down, 3)
    assert stranger.of(Up) == [] and not stranger.transport.connected
    assert "401" in downs[0].reason and "No admitted node" in downs[0].reason


def test_two_with_the_same_credentials_do_not_push_each_other_out(bench: Bench) -> None:
    """They share one mailbox: each message reaches one of them, and the hub says everything again to who asks."""
    hub = bench.line(HUB)
    card, clone = (bench.line(MADRID.node) for _ in range(2))
    for i in range(5):
        for line in (card, clone):
            line.ended([line.transport.publish(LIVE, b"%d" % i)])
    assert len(hub.payloads(10)) == 10
    hub.transport.publish(RECEIPT, b"to one")
    card.wait(lambda: len(card.of(Message)) + len(clone.of(Message)) == 1, "mail for one of them")
    assert card.of(Down) == clone.of(Down) == []


def test_feeds_come_on_the_channel_of_orders(bench: Bench) -> None:
    hub, node = bench.line(HUB), bench.line(MADRID.node)
    for kind in (Kind.FEED, Kind.DIFFER, Kind.RECEIPT):
        hub.transport.publish(RECEIPT, b"LS\x01" + bytes((kind,)) + b"body")
    assert [parse_topic(message.topic)[1] for message in node.until(Message, 3)] == [Channel.ORDERS, Channel.ORDERS, Channel.RECEIPT]


def test_what_is_no_hub_is_told_so(bench: Bench) -> None:
    with Plain(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi") as plain:
        line = Line(HttpTransport(HttpSettings(plain.url), MADRID), None).start()
        try:
            assert "no gateway and no hub" in line.until(Down)[0].reason
        finally:
            line.transport.stop()
    assert bench.harness is not None


def test_an_answer_without_an_end_is_cut_off(bench: Bench) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: " + MEDIA_TYPE.encode() + b"\r\nconnection: close\r\n\r\n"
    with Plain(head + bytes(1_200_000)) as plain:
        line = Line(HttpTransport(HttpSettings(plain.url), MADRID), None).start()
        try:
            assert "longer than" in line.until(Down)[0].reason
        finally:
            line.transport.stop()
    assert bench.harness is not None


def test_a_request_that_hangs_does_not_hold_up_the_end(bench: Bench) -> None:
    with Plain(b"") as plain:
        line = Line(HttpTransport(HttpSettings(plain.url), MADRID), None).start()
        assert plain.asked.wait(WITHIN_S)
        line.transport.stop(timeout_s=10.0)  # of the 15 s that a request may take
        assert not line.transport.connected
    assert bench.harness is not None


def test_over_tls_only_whom_the_given_authority_vouches_for_is_believed(tmp_path: Path) -> None:
    good, other = make_certificates(tmp_path), tmp_path / "other"
    other.mkdir()
    hub = FakeHub(tmp_path)
    hub.grants[MADRID.node] = NodeGrant(hash_password(PASSWORDS[MADRID.node], n=2), node_acl(MADRID))
    with Serving(hub, ssl_certfile=good.cert, ssl_keyfile=good.key) as serving:
        url = serving.url.replace("http:", "https:")

        def line(ca_file: str | None) -> Line:
            return Line(HttpTransport(HttpSettings(url, password=PASSWORDS[MADRID.node], ca_file=ca_file, wait_s=1), MADRID), None).start()

        lines = [line(good.ca), line(make_certificates(other).ca), line(None)]
        try:
            lines[0].until(Up)
            for fooled in lines[1:]:
                assert "certificate" in fooled.until(Down)[0].reason.lower()
                assert fooled.of(Up) == []
        finally:
            for one in lines:
                one.transport.stop()
        serving.do(hub.post.close)


def test_certificates_that_cannot_be_read_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.pem"):
        HttpTransport(HttpSettings("https://127.0.0.1:1", ca_file=str(tmp_path / "nowhere.pem")), MADRID)


class Plain:
    """A server that says one thing to whoever asks, and keeps silent after it."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.asked = threading.Event()
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, name="plain")

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._socket.accept()
            except OSError:
                return
            self._held.append(caller)
            try:
                caller.recv(65_536)
                self.asked.set()
                if self._answer:
                    caller.sendall(self._answer)
                    caller.close()
            except OSError:
                continue

    def __enter__(self) -> Plain:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for caller in self._held:
            caller.close()
        self._thread.join(5)
