"""One fact followed through the JSON logs of real processes by its trace id, from the edge's commit to the central store."""

from __future__ import annotations

import asyncio
import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from aiokafka import AIOKafkaConsumer

from hub.bridge_topics import EVENTS
from hub.cli_ask import client_of
from hub.config import read_config
from hub.kafka_record import Headers
from tests.support.commands import done_at_last, new_pair
from tests.support.engines.kafka import Kafka
from tests.support.needs import needs
from tests.support.patience import WITHIN_S
from tests.support.procs import Child, python, started

pytestmark = pytest.mark.slow  # whole processes

TRACED: Final = {"LONGSHORE_LOG__TRACE": "true", "LONGSHORE_LOG__FORMAT": "json"}


def traced(child: Child) -> list[tuple[str, str, str]]:
    """(step, fact, trace id) of each line that says so; every line of a log is JSON."""
    lines = [json.loads(line) for line in child.output().splitlines() if line.startswith("{")]
    return [(line["step"], line["factId"], line["traceId"]) for line in lines if "step" in line]


class Site:
    """A hub and an edge in two folders."""

    def __init__(self, folder: Path) -> None:
        self.hub, self.edge = new_pair(folder)

    @contextmanager
    def running(self, env: dict[str, str]) -> Iterator[tuple[Child, Child]]:
        """Hub and edge."""
        ready = self.edge / "ready"
        with (
            started(python("-m", "hub.cli", "run", "--dir", self.hub), env=env) as hub,
            started(python("-m", "edge_agent.cli", "run", "--config", self.edge / "edge.toml", "--ready-file", ready), env=env) as edge,
        ):
            edge.wait_until(ready.exists)
            hub.wait_until(lambda: "ready: " in hub.output())
            yield hub, edge

    def capture(self, *events: dict[str, Any], path: str = "/v1/events") -> list[str]:
        """At the edge, over HTTP; the facts' ids."""
        url = (self.edge / "ready").read_text("utf-8").strip()
        request = urllib.request.Request(f"{url}{path}", json.dumps(events).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
            return list(json.load(answer)["ids"])

    def ask(self, path: str) -> Any:
        """The hub's API."""
        return client_of(read_config(self.hub, {})).get(path)


EVENT: Final = {"orderId": "GLOBAL/1234", "source": "DOCK", "status": "SHIPPED", "timestamp": "2026-05-21T14:05:12Z"}
READING: Final = {"device": "scanner-7", "kind": "health", "timestamp": "2026-05-21T14:05:12Z", "values": {"batteryPercent": 87}}


def test_one_trace_id_from_the_commit_to_the_store(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.running(TRACED) as (hub, edge):
        [fact] = site.capture(EVENT)
        [other] = site.capture(READING, path="/v1/telemetry")

        def arrived() -> bool:
            said = {(step, told) for step, told, _ in traced(hub)}
            return {("applied", fact), ("applied", other)} <= said

        hub.wait_until(arrived, what="applying both facts")
        events = site.ask(f"/v1/orders/{urllib.parse.quote(str(EVENT['orderId']), safe='')}/events")["events"]
        [trace] = {one["traceId"] for one in events if one["factId"] == fact}
        assert [(step, told) for step, told, _ in traced(edge)] == [("committed", fact), ("committed", other)]
        for name in (fact, other):
            steps = [(step, mark) for step, told, mark in [*traced(edge), *traced(hub)] if told == name]
            assert [step for step, _ in steps] == ["committed", "received", "applied"]
            assert len({mark for _, mark in steps}) == 1
        assert [mark for _, told, mark in traced(edge) if told == fact] == [trace]
        assert len({mark for _, _, mark in traced(edge)}) == 2
        assert len(trace) == 32


def test_nothing_is_traced_where_nobody_asked(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.running({"LONGSHORE_LOG__FORMAT": "json"}) as (hub, edge):
        site.capture(EVENT)
        hub.wait_until(lambda: bool(site.ask("/v1/orders")["orders"]), what="showing the order")
        assert traced(hub) == traced(edge) == []


@needs("kafka")
def test_the_same_trace_id_goes_through_kafka(tmp_path: Path) -> None:
    """Hub and projector each log their part, and the record in the topic bears it, too."""
    kafka = Kafka(tmp_path / "kafka")
    site = Site(tmp_path)
    (site.hub / "hub.toml.d").mkdir()
    (site.hub / "hub.toml.d" / "kafka.toml").write_text(f'[bridge]\nkind = "kafka"\nservers = "{kafka.servers}"\n', "utf-8")
    hub_dir = ("--dir", site.hub)
    with ExitStack() as undo:
        undo.callback(kafka.stop)
        kafka.start()
        done_at_last("hub.cli", "topics", "create", *hub_dir)
        projector = undo.enter_context(started(python("-m", "hub.cli", "project", *hub_dir), env=TRACED))
        hub, edge = undo.enter_context(site.running(TRACED))
        [fact] = site.capture(EVENT)
        projector.wait_until(lambda: "applied" in [step for step, _, _ in traced(projector)], what="applying it")
        said = [*traced(edge), *traced(hub), *traced(projector)]
        assert [step for step, told, _ in said if told == fact] == ["committed", "received", "bridged", "applied"]
        assert [step for step, _, _ in traced(projector)] == ["applied"]
        [trace] = {mark for _, told, mark in said if told == fact}
        [record] = asyncio.run(records(kafka.servers, EVENTS))
        assert dict(record)["traceparent"].decode().split("-")[1] == trace
        assert dict(record)["ce_id"].decode().startswith("dock-7/")


async def records(servers: str, topic: str) -> list[Headers]:
    """Headers of all that lies in a topic, of which there is something."""
    async with AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        found = await consumer.getmany(timeout_ms=20_000)
    return [list(record.headers) for batch in found.values() for record in batch]
