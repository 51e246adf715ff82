"""Real processes over a real Kafka: edge, hub, Kafka, projectors, store; each is killed in turn, and nothing is missing or twice.

A story captures at an edge, runs hub and projectors from their commands, and reads the store's database when all have ended.
"""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from hub.bridge_records import Encoder
from hub.bridge_topics import EVENTS
from hub.bus import BusRecord
from hub.cli_ask import Client, client_of
from hub.config import read_config
from hub.kafka import Access, KafkaSender
from hub.store.port import StoreFact
from protocols.codec import pack
from protocols.errors import LongshoreError
from protocols.event import EXAMPLES, EventDefaults, parse_event
from protocols.fact import chain, genesis, to_row
from protocols.streams import StreamKey
from tests.conformance.bus.test_bus import settings
from tests.scenarios.test_backup_processes import rows
from tests.support.commands import done, done_at_last, new_pair
from tests.support.engines.kafka import Kafka
from tests.support.engines.postgres import Postgres, server
from tests.support.needs import needs
from tests.support.patience import ANSWER_S
from tests.support.ports import lasting_port
from tests.support.procs import Child, ChildError, python

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("copies"), needs("kafka")]

EVERY: Final = 40


class Site:
    """An edge and a hub with its projectors, in folders of their own; `ends` holds what runs."""

    def __init__(self, folder: Path, kafka: Kafka, postgres: Postgres | None) -> None:
        self.kafka, self.postgres = kafka, postgres
        self.broker_port = lasting_port()
        store: tuple[str | Path, ...] = ()
        if postgres is not None:
            where = postgres.server("central")
            store = ("--store", "postgres", "--dsn", where.dsn, "--password-file", where.password_file)
        self.hub, self.edge = new_pair(folder, *store, broker_port=self.broker_port)
        (self.hub / "hub.toml.d").mkdir()
        settings = (
            f'[bridge]\nkind = "kafka"\nservers = "{kafka.servers}"\nproduce_again_s = 5\npartitions = 4\n[sync]\nstore_check_s = 2\n'
        )
        (self.hub / "hub.toml.d" / "kafka.toml").write_text(settings)
        self.children: dict[str, Child] = {}
        self.said = 0

    def start(self, name: str) -> Child:
        """One of hub, edge, projector, projector-2."""
        if name == "hub":
            child = Child(python("-m", "hub.cli", "run", "--config", self.hub / "hub.toml"))
            child.wait_until(lambda: "ready: " in child.output())
        elif name == "edge":
            env = {"LONGSHORE_SYNC__HEARTBEAT_MS": "500", "LONGSHORE_SYNC__IDLE_HELLO_MS": "1000"}
            ready = self.edge / "ready"
            ready.unlink(missing_ok=True)
            args = python("-m", "edge_agent.cli", "run", "--config", self.edge / "edge.toml", "--ready-file", ready)
            child = Child(args, env=env)
            child.wait_until(ready.exists)
        else:
            child = Child(python("-m", "hub.cli", "project", "--config", self.hub / "hub.toml", "--listen", "0"))
            child.wait_until(lambda: "listening: " in child.output())
        self.children[name] = child
        return child

    def kill(self, name: str) -> None:
        child = self.children.pop(name)
        child.kill()
        child.discard()

    def stop(self) -> None:
        for name in list(self.children):
            self.children.pop(name).discard()

    @property
    def api(self) -> Client:
        return client_of(read_config(self.hub, {}))

    def says(self, count: int = EVERY) -> None:
        """New events of as many orders, captured at the edge, running or not."""
        events = [
            {"orderId": f"A{n}", "source": "DOCK", "status": "PLACED", "timestamp": "2026-05-21T14:05:12Z"}
            for n in range(self.said, self.said + count)
        ]
        self.said += count
        done("edge_agent.cli", "events", "append", "--config", self.edge / "edge.toml", stdin="\n".join(json.dumps(e) for e in events))

    def waits(self, condition: Callable[[], bool], what: str) -> None:
        """Until it holds; the hub that runs lends its deadline."""
        try:
            self.children["hub"].wait_until(lambda: tried(condition), what=what)
        except ChildError as error:
            others = "\n".join(f"--- {name}\n{child.output()[-2_000:]}" for name, child in self.children.items() if name != "hub")
            raise ChildError(f"{error}\n{others}") from None

    def settled(self) -> None:
        """Until the edge knows that the store has everything."""
        self.waits(lambda: balanced(self.api, self.said), f"{self.said} settled")

    def stored(self) -> list[str]:
        if self.postgres is None:
            found = rows(self.hub / "store.db", "SELECT order_id FROM view")
        else:
            found = self.postgres.sql("SELECT order_id FROM orders JOIN states USING (okey)", "central").split()
        return sorted(found, key=lambda one: int(one[1:]))

    def logged(self) -> int:
        """Rows of the store's log."""
        if self.postgres is None:
            return int(rows(self.hub / "store.db", "SELECT count(*) FROM log")[0])
        return int(self.postgres.sql("SELECT count(*) FROM log", "central"))

    def whole(self) -> None:
        """All that was said is in the store, once, and every chain holds."""
        self.stop()
        assert self.stored() == [f"A{n}" for n in range(self.said)]
        assert self.logged() == self.said
        assert done("hub.cli", *(("store", "check") if self.postgres else ("audit",)), "--dir", self.hub, "--json")["ok"]


def tried(condition: Callable[[], bool]) -> bool:
    """A hub that starts again answers nobody for a moment."""
    try:
        return condition()
    except LongshoreError:
        return False


def balanced(api: Client, settled: int) -> bool:
    row = api.get("/v1/balance")["fleet"]
    return bool(row["balanced"]) and row["settled"] >= settled and not row["queued"]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=needs("postgres"))])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    kafka = Kafka(tmp_path / "kafka")
    with ExitStack() as undo:
        postgres = undo.enter_context(server()) if request.param == "postgres" else None
        undo.callback(kafka.stop)
        kafka.start()
        site = Site(tmp_path, kafka, postgres)
        undo.callback(site.stop)
        yield site


def letters(site: Site, *more: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = done_at_last("hub.cli", "dlq", "ls", *more, "--dir", site.hub, "--json")["deadLetters"]
    return found


def put(servers: str, *records: BusRecord) -> None:
    """Somebody writes to a topic."""

    async def whole() -> None:
        sender = KafkaSender(Access(settings(servers, "x")), list(dict.fromkeys(r.topic for r in records)))
        await sender.start()
        assert await sender.send(records) == []
        await sender.close()

    asyncio.run(whole())


def test_a_record_that_nobody_can_read_is_a_dead_letter_and_is_replayed(site: Site) -> None:
    done_at_last("hub.cli", "topics", "create", "--dir", site.hub)
    assert letters(site) == []
    for name in ("hub", "projector", "edge"):
        site.start(name)
    strange = BusRecord(EVENTS, b"acme/A1", b'{"hello": 1}', [("ce_id", b"foreign/1")], 1)
    fact = the_first_fact()
    broken = fact._replace(headers=[(name, value[:-1] + b"\xff" if name == "ls_fact" else value) for name, value in fact.headers])
    put(site.kafka.servers, strange, broken)
    site.says()
    site.settled()
    site.waits(lambda: len(letters(site)) == 2, "two dead letters")
    told = {one["ceId"]: one for one in letters(site)}
    assert "ls_fact: missing" in told["foreign/1"]["error"]
    assert told["foreign/1"]["from"].startswith(f"{EVENTS}/")
    (wrong,) = (one for one in told.values() if one["ceId"] != "foreign/1")
    assert "h: not the hash" in wrong["error"]
    assert done("hub.cli", "dlq", "replay", wrong["id"], "--dir", site.hub, "--json") == {"replayed": [wrong["id"]], "tooLarge": []}
    site.waits(lambda: len(letters(site, "--all")) == 3, "it came back, and is a dead letter again")
    assert len(letters(site)) == 2
    site.whole()


def the_first_fact() -> BusRecord:
    """A record such as a hub makes."""
    key = StreamKey("dock-9", 7, 0)
    row = pack(to_row(parse_event(EXAMPLES[0], defaults=EventDefaults("acme"), now_ms=1_795_000_000_000), 1_795_000_000_000, []))
    prev = genesis(*key)
    return Encoder().fact(StoreFact(key, 1, chain(prev, [row])[0], prev, row, 1_795_000_000_000))


def told(site: Site, name: str) -> dict[str, Any]:
    """What a projector says of itself."""
    url = site.children[name].output().split("listening: ")[1].split()[0]
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=ANSWER_S) as answer:
            found: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:  # not ready: it says why
        with error:
            found = json.load(error)
    return found


def test_two_projectors_share_the_partitions_and_one_that_is_killed_is_replaced(site: Site) -> None:
    done_at_last("hub.cli", "topics", "create", "--dir", site.hub)
    for name in ("hub", "projector", "projector-2", "edge"):
        site.start(name)
    site.waits(lambda: [len(told(site, n)["partitions"]) for n in ("projector", "projector-2")] == [6, 6], "shared")
    site.says(120)
    site.settled()
    assert told(site, "projector")["applied_total"] and told(site, "projector-2")["applied_total"], "both had their part"
    site.kill("projector")
    site.says()
    site.waits(lambda: len(told(site, "projector-2")["partitions"]) == 12, "taken over")
    site.settled()
    assert told(site, "projector-2")["known_total"] <= bridge(site)["producedAgain"], "what came twice was sent twice, and is counted"
    site.whole()


def test_projector_hub_and_kafka_are_killed_in_turn_and_nothing_is_missing_or_twice(site: Site) -> None:
    made = done_at_last("hub.cli", "topics", "create", "--dir", site.hub, "--json")
    assert made["ok"] and {row["state"] for row in made["topics"]} == {"made"}
    for name in ("hub", "projector", "edge"):
        site.start(name)
    site.says()
    site.settled()
    site.kill("projector")
    site.says()
    site.waits(lambda: bridge(site)["unsettled"] == EVERY, "in Kafka, and not in the store")
    site.start("projector")
    site.settled()
    site.kill("hub")
    site.says()
    site.start("hub")
    site.settled()
    site.kafka.kill()
    site.says()
    site.waits(lambda: bridge(site)["backlog"] == EVERY and not bridge(site)["up"], "received, and waiting for Kafka")
    assert "the bridge to Kafka is down" in site.api.get("/readyz", fine=(503,))["reasons"][0]
    site.kafka.start()
    site.settled()
    if site.postgres is not None:
        site.postgres.crash()
        site.says()
        site.waits(lambda: bridge(site)["produced"] > 0 and not site.api.get("/readyz", fine=(200, 503))["ready"], "the store is away")
        site.postgres.start()
        site.settled()
    site.waits(lambda: bool(site.api.get("/readyz")["ready"]), "ready again")
    assert bridge(site)["producedAgain"] <= 2 * site.said, "again after T, and ever more seldom"
    site.whole()


def bridge(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = site.api.get("/readyz", fine=(200, 503))["bridge"]
    return found
