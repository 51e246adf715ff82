"""Lines about facts on their way: off by default, one per fact and step, with the trace id that every place computes."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from edge_agent import logs
from hub.cli_admin import _JsonLines
from hub.tracing import Fresh, places
from protocols.codec import FrameHeader, Kind, encode_body, envelope
from protocols.fact import chain, genesis
from protocols.ledger import Appended, Offered
from protocols.streams import StreamKey
from protocols.trace import trace_id
from protocols.trace_log import LOGGER, switch, traced

KEY = StreamKey("dock-7", 7, 0)
ROWS = [b"\x91\x01", b"\x91\x02"]
HASHES = chain(genesis(*KEY), ROWS)


class Fact(NamedTuple):
    stream: StreamKey
    seq: int
    h: bytes


class Kept(logging.Handler):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def said() -> Iterator[list[logging.LogRecord]]:
    """What the log of traces says, switched on."""
    handler = Kept()
    logging.getLogger(LOGGER).addHandler(handler)
    switch(True)
    yield handler.records
    switch(False)
    logging.getLogger(LOGGER).removeHandler(handler)


def names(records: list[logging.LogRecord]) -> list[str]:
    return [record.getMessage() for record in records]


def frame() -> bytes:
    header = FrameHeader(*KEY, 1, 2, genesis(*KEY), HASHES[-1], 1)
    return envelope(Kind.FRAME, header.to_list(), encode_body(ROWS)) + bytes(64)


def offered(new: int) -> Offered:
    return Offered(new, 2 - new, [], False, [])


def test_a_line_names_step_fact_and_trace(said: list[logging.LogRecord]) -> None:
    traced("committed", [Fact(KEY, 1, HASHES[0])])
    assert names(said) == [f"committed dock-7/7/1/{HASHES[0][:4].hex()}"]
    for formatter in (logs.JsonFormatter(), _JsonLines()):
        line = json.loads(formatter.format(said[0]))
        assert (line["step"], line["traceId"]) == ("committed", trace_id("dock-7", 7, 1, HASHES[0]))


def test_switched_off_nothing_is_said(said: list[logging.LogRecord]) -> None:
    switch(False)
    traced("committed", [Fact(KEY, 1, HASHES[0])])
    fresh = Fresh()
    assert fresh.came(frame(), offered(2)) == 2
    fresh.committed([])
    assert said == []


def test_the_setting_of_an_edge_switches_it() -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    before, level, uvicorn = root.handlers[:], root.level, logging.getLogger("uvicorn").level
    try:
        logs.setup("warning", "json", stream, trace=True)
        traced("committed", [Fact(KEY, 1, HASHES[0])])
        logs.setup("info", "json", stream)
        traced("committed", [Fact(KEY, 2, HASHES[1])])
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        logging.getLogger("uvicorn").setLevel(uvicorn)
        switch(False)
    assert [json.loads(line)["factId"].split("/")[2] for line in stream.getvalue().splitlines()] == ["1"]


def test_what_was_received_is_said_after_its_commit_and_only_then(said: list[logging.LogRecord]) -> None:
    fresh = Fresh()
    fresh.begin()
    assert fresh.came(frame(), offered(2)) == 2
    fresh.begin()  # that transaction failed
    fresh.committed([])
    assert said == []
    fresh.came(frame(), offered(2))
    assert said == []
    own = [Appended(KEY, 3, bytes(8), False), Appended(KEY, 4, bytes(8), True)]
    fresh.committed([own, "something else", None])
    assert [name.split("/")[2] for name in names(said)] == ["1", "2", "3"]


@pytest.mark.parametrize("done", [None, offered(0)], ids=["refused", "known"])
def test_what_changed_nothing_is_not_received(said: list[logging.LogRecord], done: Offered | None) -> None:
    fresh = Fresh()
    assert fresh.came(frame(), done) == 0
    fresh.committed([])
    assert said == []


def test_what_is_no_frame_holds_no_facts() -> None:
    assert [(one.seq, one.h) for one in places(frame())] == [(1, HASHES[0]), (2, HASHES[1])]
    assert places(b"LS\x01\x02\x90" + bytes(80)) == []
    assert places(frame()[:40]) == []
    assert places(b"") == []
