"""What commands and logs say: numbers as people read them, tables, one line per record."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from edge_agent import logs
from edge_agent.link import Link, lines
from edge_agent.report import duration, queue_text, size, status_text, table
from protocols.errors import LongshoreError
from protocols.transport.port import Down, Up
from protocols.transport.refusals import REMEDIES, Refusal, Seen


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0.0 s"),
        (400, "0.4 s"),
        (9_999, "10.0 s"),
        (12_345, "12 s"),
        (59_999, "59 s"),
        (60_000, "1 m"),
        (3_599_999, "59 m"),
        (11_520_000, "3 h 12 m"),
        (3_600_000, "1 h"),
        (356_400_000, "4 d 3 h"),
        (86_400_000 * 400, "400 d"),
    ],
)
def test_durations(ms: int, text: str) -> None:
    assert duration(ms) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_951, "1.0 MB"),
        (64_000_000, "64.0 MB"),
        (5 * 10**12, "5.0 TB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_columns_stand_below_each_other() -> None:
    assert table([("a", "bb"), ("cccc", "d")]) == ["a     bb", "cccc  d"]


STATUS: dict[str, Any] = {
    "node": "n", "site": "S", "region": "R", "org": "o", "version": "1", "uptimeMs": 1_000,
    "link": {"connected": False, "answered": False, "lastHeardAgoMs": None, "refused": 0},
    "queue": {"events": 1, "bytes": 10, "oldestAgeMs": 5_000, "notReceived": 1, "quarantined": 0},
    "clock": {
        "skewMs": None, "offsetMs": None, "quality": "hub", "says": "confirmed by the hub", "recordsMs": 1_779_372_312_000, "shifts": [],
    },
    "disk": {
        "ledgerBytes": 1, "budgetBytes": 2, "full": False, "telemetryFull": False, "telemetryBytes": 0, "telemetryBudgetBytes": 9_000,
        "evicted": {"superseded": 0},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("section", "change", "says"),
    [
        ("link", {}, "down; capturing goes on"),
        ("link", {"connected": True}, "is this node added there?"),
        ("link", {"connected": True, "answered": True, "lastHeardAgoMs": 2_000}, "heard 2.0 s ago"),
        ("link", {"connected": True, "answered": True, "lastHeardAgoMs": 5, "waitsForTurn": True}, "what waited here has its turn soon"),
        ("link", {"refused": 3}, "3 frames refused"),
        ("queue", {}, "1 event not settled"),
        ("queue", {"events": 0, "oldestAgeMs": None}, "nothing waits"),
        ("queue", {"quarantined": 2}, "2 in quarantine"),
        ("clock", {"skewMs": 400}, "agrees with the hub's"),
        ("clock", {"skewMs": -120_000}, "2 m behind the hub's"),
        ("clock", {"skewMs": 120_000}, "2 m ahead of the hub's"),
        ("clock", {"skewMs": 400, "offsetMs": 7_200_000}, "confirmed by the hub; 2 h ahead of the hub's"),
        ("clock", {"quality": "unset"}, "stamped 2026-05-21T14:05:12Z and marked"),
        ("clock", {"shifts": [{"first": 3, "last": 12}]}, "10 facts were recorded by a clock that was wrong"),
        ("disk", {"full": True}, "FULL"),
        ("disk", {"telemetryFull": True}, "nothing but facts of orders"),
        ("disk", {"telemetryBytes": 8_000}, "telemetry 8.0 kB of 9.0 kB"),
        ("disk", {"evicted": {"superseded": 1_200, "oldest": 0}}, "evicted: 1,200 superseded"),
    ],
)
def test_a_status_says_what_matters(section: str, change: dict[str, Any], says: str) -> None:
    assert says in status_text({**STATUS, section: {**STATUS[section], **change}})


def test_a_queue_names_what_stepped_aside() -> None:
    aside = {"at": "2026-05-21T14:05:12Z", "factId": "n/1/2/ab", "reason": "a later version's"}
    text = queue_text({"running": True, "status": {**STATUS, "streams": []}, "quarantine": [aside]})
    assert "2026-05-21T14:05:12Z  n/1/2/ab  a later version's" in text


@pytest.mark.parametrize(
    ("reason", "remedy", "text"),
    [
        ("It broke.", "Mend it.", "It broke. Mend it."),
        ("it broke", "mend it", "it broke; mend it"),
        ("it broke", "", "it broke"),
        ("two\nlines", "", "two lines"),
    ],
)
def test_an_error_is_one_line_however_it_was_written(reason: str, remedy: str, text: str) -> None:
    assert str(LongshoreError(reason, remedy=remedy)) == text


# ------------------------------------------------------------ logs


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield logging.getLogger("edge_agent.test")
    root.handlers[:] = handlers
    root.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_off_a_terminal_each_record_is_one_json_object(log: logging.Logger) -> None:
    out = io.StringIO()
    logs.setup("info", "auto", out)
    log.debug("not this")
    try:
        raise KeyError("secret")
    except KeyError:
        log.exception("two\nlines")
    (line,) = out.getvalue().splitlines()
    record = json.loads(line)
    assert (record["level"], record["message"], record["logger"]) == ("error", "two\nlines", "edge_agent.test")
    assert record["trace"].endswith("KeyError: 'secret'")
    assert record["time"].endswith("Z")


def test_on_a_terminal_it_is_short(log: logging.Logger) -> None:
    out = Terminal()
    logs.setup("info", "auto", out)
    log.warning("careful")
    log.info("fine")
    first, second = out.getvalue().splitlines()
    assert first[8:] == " warning: careful"
    assert second[8:] == " fine"


def test_what_the_broker_refuses_stands_under_the_link() -> None:
    link = {"connected": True, "answered": True, "lastHeardAgoMs": 5, "protocol": "MQTT 5"}
    rows = [
        Seen(Refusal.ACL, "a/up/live", "Not authorized", 3, 0, 5_000).as_json(),
        Seen(Refusal.CREDENTIALS, "", "no", 1, 0, 0).as_json(),
    ]
    said = lines(link | {"refusals": rows})
    assert said[0].startswith("       REFUSED (acl) on a/up/live: Not authorized, 3 times since 1970-01-01T00:00:00")
    assert said[0].endswith(REMEDIES[Refusal.ACL])
    assert said[1].startswith("       REFUSED (credentials): no. ")
    assert lines(link) == []


def test_clients_and_servers_do_not_log_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    before = {name: logging.getLogger(name).level for name in (None, "httpx", "uvicorn")}
    try:
        logs.setup("info", "json", io.StringIO())
        assert [logging.getLogger(name).isEnabledFor(logging.INFO) for name in ("httpx", "uvicorn", "edge_agent")] == [False, False, True]
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize(("protocol", "way"), [("MQTT 5", "to the broker"), ("HTTP", "over HTTP")])
def test_a_line_is_named_by_what_it_is(protocol: str, way: str, caplog: pytest.LogCaptureFixture) -> None:
    link = Link(lambda: False)
    with caplog.at_level(logging.INFO):
        link.tell(Up(), protocol)
        link.tell(Down("gone"), protocol)
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [f"connected {way}", f"no line {way}: gone"]


def test_a_silence_is_named_while_the_line_is_up_and_the_log_has_it_once(caplog: pytest.LogCaptureFixture) -> None:
    link = Link(lambda: False)
    silent = {"connected": True, "unanswered": {"what": "frames", "count": 1_200, "forMs": 65_000}}
    row = link.status(None, silent, 1_000_000)["refusals"][0]
    assert (row["kind"], row["reason"]) == ("unanswered", "1,200 frames were sent in 65 s, and no receipt came")
    assert link.status(None, silent | {"connected": False}, 1_000_000)["refusals"] == []
    with caplog.at_level(logging.WARNING):
        for rows in ([row], [row], [], [row]):
            link.name(rows)
    assert [record.getMessage()[:20] for record in caplog.records] == ["refused (unanswered)"] * 2
