"""The HTTP transport against servers that do what a test says: its own faults to find, not the hub's."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from protocols.codec import Kind
from protocols.sync.parcel import MEDIA_TYPE, PARCEL_MESSAGES, SENT_BYTES, read_parcel, write_parcel
from protocols.topics import Channel
from protocols.transport import http
from protocols.transport.http import HttpSettings, HttpTransport
from protocols.transport.port import Down, Dropped, Message, Published, Up
from tests.conformance.transport.brokers import MADRID, Line
from tests.support.patience import WITHIN_S
from tests.support.ports import free_port

LIVE = MADRID.topic(Channel.LIVE)


@dataclass(frozen=True)
class Asked:
    """One request as the server got it."""

    query: dict[str, list[str]]
    authorization: str
    payloads: list[bytes]
    at_s: float

    @property
    def waits(self) -> bool:
        """Does it wait for mail?"""
        return "wait" in self.query


@dataclass(frozen=True)
class Says:
    """An answer. Bytes that are no parcel where the test wants damage."""

    body: bytes = b""
    status: int = 200
    media: str = MEDIA_TYPE


NOTHING = Says()


class Server:
    """Answers every request with what `answer` says of it; None: held until the end."""

    def __init__(self, answer: Callable[[Asked], Says | None]) -> None:
        self.asked: list[Asked] = []
        self.ended = threading.Event()
        self._changed = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                query = parse_qs(urlsplit(self.path).query)
                asked = Asked(query, self.headers.get("authorization", ""), read_parcel(body), time.monotonic())
                outer._note(asked)
                says = answer(asked)
                if says is None:
                    outer.ended.wait(WITHIN_S)
                    says = NOTHING
                self.send_response(says.status)
                self.send_header("content-type", says.media)
                self.send_header("content-length", str(len(says.body)))
                self.end_headers()
                self.wfile.write(says.body)

            def log_message(self, *_: Any) -> None:
                pass

            def handle(self) -> None:
                try:
                    super().handle()
                except ConnectionError:  # the transport was stopped meanwhile
                    return

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def _note(self, asked: Asked) -> None:
        with self._changed:
            self.asked.append(asked)
            self._changed.notify_all()

    def until(self, ready: Callable[[list[Asked]], bool]) -> list[Asked]:
        """Wait until the requests so far are what a test waits for."""
        with self._changed:
            assert self._changed.wait_for(lambda: ready(self.asked), WITHIN_S), self.asked
            return list(self.asked)

    def __enter__(self) -> Server:
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), name="scripted")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def holding(answer: Callable[[Asked], Says]) -> Callable[[Asked], Says | None]:
    """Mail never comes; `answer` minds the rest."""
    return lambda asked: None if asked.waits else answer(asked)


class Counting(HttpTransport):
    """Notes after how many failures it waits, and waits hardly."""

    def __init__(self, settings: HttpSettings) -> None:
        super().__init__(settings, MADRID)
        self.failures: list[int] = []

    def _backoff_s(self, failures: int) -> float:
        self.failures.append(failures)
        return 0.01


@contextmanager
def line(url: str, make: Callable[[HttpSettings], HttpTransport] = lambda s: HttpTransport(s, MADRID), **changes: Any) -> Iterator[Line]:
    quick = {"backoff_min_s": 0.02, "backoff_max_s": 0.1, "wait_s": 5, "password": "secret", **changes}
    started = Line(make(HttpSettings(url, **quick)), None).start()
    try:
        yield started
    finally:
        started.transport.stop()


# --- what is asked


@pytest.mark.parametrize(
    ("token", "authorization"), [("", f"Basic {base64.b64encode(b'madrid-1:secret').decode()}"), ("lst_abc", "Bearer lst_abc")]
)
def test_it_signs_in_as_the_node_or_with_the_token_of_a_gateway(token: str, authorization: str) -> None:
    with Server(holding(lambda _: NOTHING)) as server, line(server.url, token=token) as node:
        node.until(Up)
        asked = server.until(lambda all_: len(all_) == 2)
    assert {one.authorization for one in asked} == {authorization}
    assert {tuple(one.query["node"]) for one in asked} == {("madrid-1",)}


def test_the_first_request_waits_for_nothing_and_the_one_for_mail_as_long_as_it_may() -> None:
    with Server(holding(lambda _: NOTHING)) as server, line(server.url) as node:
        node.until(Up)
        asked = server.until(lambda all_: len(all_) == 2)
    assert [one.query.get("wait") for one in asked] == [None, ["5"]]


def test_who_answers_at_once_with_nothing_is_not_asked_in_a_circle() -> None:
    with Server(lambda _: NOTHING) as server, line(server.url):
        polls = [one.at_s for one in server.until(lambda all_: sum(one.waits for one in all_) == 5) if one.waits]
    assert polls[4] - polls[0] > 0.8, "two seconds on a machine where no thread comes late, nothing in a circle"


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway stands in the same network; what a machine's proxy makes of signed parcels is nobody's promise."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Server(holding(lambda _: NOTHING)) as server, line(server.url) as node:
        node.until(Up)
        assert node.of(Down) == []


# --- what is handed over


def test_a_parcel_that_was_not_taken_is_dropped_with_the_reason() -> None:
    def answer(asked: Asked) -> Says:
        full = json.dumps({"detail": "The hub is full.", "remedy": "Come again later."}).encode()
        return Says(full, 507, "application/problem+json") if asked.payloads else NOTHING

    with Server(holding(answer)) as server, line(server.url) as node:
        node.until(Up)
        tokens = [node.transport.publish(LIVE, b"x"), node.transport.publish(LIVE, b"y")]
        ends = node.ended(tokens)
        down = node.until(Down)[0]
    assert all(isinstance(end, Dropped) for end in ends.values())
    assert down.reason.endswith("answered 507: The hub is full. Come again later.")


def test_many_messages_are_handed_over_in_parcels_within_their_bounds_and_in_order() -> None:
    release = threading.Event()

    def answer(asked: Asked) -> Says:
        if asked.payloads:
            release.wait(WITHIN_S)
        return NOTHING

    sent = [b"%d" % n for n in range(300)] + [bytes([n]) * 40_000 for n in range(12)]
    with Server(holding(answer)) as server, line(server.url) as node:
        node.until(Up)
        tokens = [node.transport.publish(LIVE, payload) for payload in sent]
        release.set()
        assert {type(end) for end in node.ended(tokens).values()} == {Published}
        parcels = [one.payloads for one in server.asked if one.payloads]
    assert [payload for parcel in parcels for payload in parcel] == sent
    assert max(map(len, parcels)) <= PARCEL_MESSAGES
    assert max(len(write_parcel(parcel)) for parcel in parcels) <= SENT_BYTES


def test_what_waits_when_a_line_ends_is_dropped_once_never_sent_and_leaves_its_room() -> None:
    fail = threading.Event()

    def answer(asked: Asked) -> Says:
        if asked.payloads == [b"a" * 60]:
            fail.wait(WITHIN_S)
            return Says(b"", 500)
        return NOTHING

    with Server(holding(answer)) as server, line(server.url, max_outgoing_bytes=100) as node:
        node.until(Up)
        first = node.transport.publish(LIVE, b"a" * 60)
        server.until(lambda all_: any(one.payloads for one in all_))
        second = node.transport.publish(LIVE, b"b" * 40)
        fail.set()
        ends = node.ended([first, second])
        assert {type(end) for end in ends.values()} == {Dropped}
        node.until(Up, 2)
        third = node.transport.publish(LIVE, b"c" * 100)
        assert isinstance(node.ended([third])[third], Published), "the room is free again"
    assert [one.payloads for one in server.asked if one.payloads] == [[b"a" * 60], [b"c" * 100]]


def test_what_waits_at_the_end_is_still_handed_over() -> None:
    with Server(holding(lambda _: NOTHING)) as server, line(server.url) as node:
        node.until(Up)
        token = node.transport.publish(LIVE, b"last words")
        node.transport.stop()
        assert isinstance(node.ended([token])[token], Published)
    assert [b"last words"] in [one.payloads for one in server.asked]


# --- what comes back


def test_mail_comes_with_any_answer_also_with_that_to_a_parcel() -> None:
    def answer(asked: Asked) -> Says:
        return Says(write_parcel([b"LS\x01" + bytes((Kind.RECEIPT,)) + asked.payloads[0], b"LS"])) if asked.payloads else NOTHING

    with Server(holding(answer)) as server, line(server.url) as node:
        node.until(Up)
        node.transport.publish(LIVE, b"x")
        mail = node.until(Message, 2)
    assert [one.payload[-1:] for one in mail] == [b"x", b"S"]
    assert {one.topic for one in mail} == {MADRID.topic(Channel.RECEIPT)}, "what is too short to have a kind is judged by who reads it"


# --- what goes wrong


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (Says(b"\0\0\0\x09abc"), "answered with damage: message 0 of the body is cut off"),
        (Says(media="text/html"), "is no gateway and no hub of Longshore"),
        (Says(b"\xff\xfe", 503), "answered 503: it gave no reason"),
        (Says(b"null", 503), "answered 503: it gave no reason"),
        (Says(b"[]", 503), "answered 503: it gave no reason"),
        (Says(b'{"title": "x"}', 503), "answered 503: it gave no reason"),
        (Says(json.dumps({"detail": "x" * 900}).encode(), 401), f"answered 401: {'x' * 300}"),
    ],
    ids=["damage", "media", "no-text", "null", "list", "no-detail", "long"],
)
def test_each_bad_answer_is_a_reason_and_another_try(says: Says, reason: str) -> None:
    with Server(lambda _: says) as server, line(server.url) as node:
        downs = node.until(Down, 2)
        assert node.of(Up) == []
    assert reason in downs[0].reason
    assert len(downs[0].reason) < 400


def test_nobody_there_is_a_reason_that_names_the_place() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with line(url) as alone:
        assert f"cannot reach {url}" in alone.until(Down, 2)[0].reason


def test_a_request_for_mail_that_fails_ends_the_line_with_its_reason() -> None:
    with Server(lambda asked: Says(b"{}", 503) if asked.waits else NOTHING) as server, line(server.url) as node:
        assert "answered 503" in node.until(Down)[0].reason
        node.until(Up, 2)


def test_a_fault_that_nobody_foresaw_ends_its_line_only(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    faults: list[Exception] = [ZeroDivisionError("a bug")]

    def clumsy(body: bytes) -> list[bytes]:
        if faults:
            raise faults.pop()
        return read_parcel(body)

    monkeypatch.setattr(http, "read_parcel", clumsy)
    with Server(holding(lambda _: NOTHING)) as server, line(server.url) as node:
        node.until(Up)
        assert "a bug" in node.of(Down)[0].reason
    assert "ZeroDivisionError" in caplog.text


def failures(answer: Callable[[Asked], Says | None], **changes: Any) -> list[int]:
    """After how many failures in a row it waited, the first four times."""
    with Server(answer) as server, line(server.url, Counting, **changes) as node:
        node.until(Down, 5)
        assert isinstance(node.transport, Counting)
        return node.transport.failures[:4]


def test_each_failure_in_a_row_makes_the_wait_longer() -> None:
    assert failures(lambda _: Says(b"{}", 503)) == [1, 2, 3, 4]


def test_a_line_that_breaks_at_once_is_a_failure_too() -> None:
    assert failures(lambda asked: Says(b"{}", 503) if asked.waits else NOTHING, stable_s=60.0) == [1, 2, 3, 4]


def test_after_a_line_that_held_the_wait_is_short_again() -> None:
    assert failures(lambda asked: Says(b"{}", 503) if asked.waits else NOTHING, stable_s=0.0) == [0, 0, 0, 0]


def test_settings_show_no_secret() -> None:
    shown = repr(HttpSettings("https://h", "hush-token", "hush-password"))
    assert "hush" not in shown
