"""A whole hub in one process: real broker, real line, real files, real HTTP; real edges beside it. Ports are free ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from edge_agent.core import EdgeIdentity
from edge_agent.runtime import EdgeRuntime
from edge_agent.serve import presence
from hub.broker_access import UNKNOWN_NODE
from hub.broker_apart import ApartBroker
from hub.config import HubConfig, new_file, read_config
from hub.line import says_online
from hub.metrics import FAMILIES
from hub.runtime import Hub, running
from protocols.errors import ConfigError, LedgerBusy
from protocols.topics import Address, Channel
from protocols.transport.mqtt import MqttSettings, MqttTransport
from protocols.transport.port import Transport
from protocols.trust import NodeKey, hash_password, new_token, parse_address, token_hash, verify, write_secret
from protocols.trust import make_card as signed_card
from tests.support.patience import WITHIN_S
from tests.support.ports import free_port
from tests.unit.hub.hub_world import FAST, order_event

pytestmark = pytest.mark.slow  # whole processes

TOKEN: Final = new_token()
PASSWORD: Final = "an edge's password"
PASSWORD_HASH: Final = hash_password(PASSWORD, n=2)
EVENT: Final = {"orderId": "GLOBAL1234", "source": "ERP", "status": "PLACED", "timestamp": "2026-05-21T14:05:12Z"}


def make_hub(folder: Path, **more: Any) -> HubConfig:
    """What `init` makes, with free ports and quick rhythms."""
    chosen = {
        "hub.org": "acme",
        "api.port": 0,
        "broker.port": 0,
        "sync.store_check_s": 1,
        "api.token_hashes": token_hash(TOKEN),
        "api.loopback_without_token": True,
        **{k.replace("__", "."): v for k, v in more.items()},
    }
    (folder / "hub.toml").write_text(new_file(chosen), "utf-8")
    if not (folder / "hub.key").exists():
        NodeKey.generate().save(folder / "hub.key")
        write_secret(folder / "api.token", TOKEN + "\n", what="token")
    return read_config(folder, {})


@dataclass
class EdgeKit:
    """An edge that is not running: what `init` would have made."""

    folder: Path
    node: str

    @property
    def key(self) -> NodeKey:
        return NodeKey(self.node.encode().ljust(32, b"-"))

    @property
    def address(self) -> Address:
        return Address("acme", "EMEA", "Madrid", self.node)

    @property
    def card(self) -> dict[str, str]:
        return signed_card(self.key, node=self.node, org="acme", region="EMEA", site="Madrid", password_hash=PASSWORD_HASH)

    def runtime(self, hub_address: str) -> EdgeRuntime:
        hub = parse_address(hub_address)
        settings = MqttSettings(hub.host, hub.port, self.node, PASSWORD, backoff_min_s=0.05, backoff_max_s=0.2)

        def line(epoch: int) -> Transport:
            presence_here = presence(self.address.topic(Channel.STATE), epoch, "0.1.0")
            return MqttTransport(settings, subscriptions=self.address.subscriptions(), presence=presence_here)

        identity = EdgeIdentity(self.address, hub.hub, hub.public_key)
        return EdgeRuntime(self.folder / f"{self.node}.db", identity, self.key.sign, verify, settings=FAST, make_transport=line)


class Caller:
    """Asks the hub's API."""

    def __init__(self, hub: Hub, client: httpx.AsyncClient) -> None:
        self.hub, self.client = hub, client

    async def get(self, path: str) -> Any:
        answer = await self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def balance(self) -> dict[str, Any]:
        return dict((await self.get("/v1/balance"))["fleet"])

    async def settled(self, count: int) -> None:
        async def enough() -> bool:
            row = await self.balance()
            return row["settled"] == count and row["balanced"]

        await until(enough, f"{count} settled and the balance closed")


@asynccontextmanager
async def calling(config: HubConfig) -> AsyncIterator[Caller]:
    async with running(config) as hub, httpx.AsyncClient(base_url=f"http://127.0.0.1:{hub.api_port}", timeout=WITHIN_S) as client:
        yield Caller(hub, client)


async def until(true: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + WITHIN_S
    while not await true():
        assert asyncio.get_running_loop().time() < deadline, f"never: {what}"
        await asyncio.sleep(0.02)


def in_loop(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 60))


def test_what_an_edge_captures_is_in_the_consolidated_view_and_the_balance_closes(tmp_path: Path) -> None:
    async def story() -> None:
        async with calling(make_hub(tmp_path)) as hub:
            kit = EdgeKit(tmp_path, "dock-7")
            assert (await hub.client.post("/v1/nodes", json=kit.card)).status_code == 201
            async with kit.runtime(hub.hub.address) as edge:
                await edge.append([order_event(f"A{n}", "PLACED") for n in range(1_200)])
                await edge.append([order_event("A7", "SHIPPED")])
                await hub.settled(1_201)
                assert (await hub.get("/v1/orders/A7"))["status"] == "SHIPPED"
                timeline = await hub.get("/v1/orders/A7/events")
                assert [e["status"] for e in timeline["events"]] == ["PLACED", "SHIPPED"]

                async def in_step() -> bool:
                    rows = (await hub.get("/v1/fleet"))["fleet"]
                    return [(r["node"], r["online"], r["settled"], r["notHereYet"]["facts"]) for r in rows] == [("dock-7", True, 1_201, 0)]

                await until(in_step, "the fleet row")
                assert edge.core.ledger.own().settled_seq == 1_201
                text = (await hub.client.get("/metrics")).text
                assert "\nlongshore_store_facts_total 1201\n" in text
                assert all(f"# TYPE {family.name} {family.type}" in text for family in FAMILIES)

    in_loop(story)


def test_an_edge_that_nobody_admitted_is_visible_until_it_is(tmp_path: Path) -> None:
    async def story() -> None:
        async with calling(make_hub(tmp_path)) as hub:
            kit = EdgeKit(tmp_path, "dock-7")

            async def away() -> list[tuple[str, str]]:
                return [(one["node"], one["reason"]) for one in (await hub.get("/v1/refused"))["turnedAway"]]

            async def seen() -> bool:
                return await away() == [("dock-7", UNKNOWN_NODE)]

            async with kit.runtime(hub.hub.address):
                await until(seen, "turned away, by name")
                page = await hub.client.get("/quarantine", headers={"accept": "text/html"})
                assert "dock-7" in page.text
                assert (await hub.client.post("/v1/nodes", json=kit.card)).status_code == 201

                async def gone() -> bool:
                    return await away() == []

                await until(gone, "forgotten once it is in")

    in_loop(story)


@pytest.mark.parametrize("process", ["own", "hub"])
def test_an_edge_is_let_in_as_soon_as_it_is_admitted_without_any_restart(tmp_path: Path, process: str) -> None:
    async def story() -> None:
        async with calling(make_hub(tmp_path, broker__process=process)) as hub:
            kit = EdgeKit(tmp_path, "dock-7")
            async with kit.runtime(hub.hub.address) as edge:
                await edge.append([order_event("A1", "PLACED")])

                async def turned_away() -> bool:
                    assert hub.hub.broker is not None
                    return hub.hub.broker.counts.refused_total > 0

                await until(turned_away, "refused by the broker")
                await hub.client.post("/v1/nodes", json=kit.card)
                await hub.settled(1)

    in_loop(story)


def test_a_hub_whose_brokers_process_is_killed_goes_on_by_itself(tmp_path: Path) -> None:
    async def story() -> None:
        async with calling(make_hub(tmp_path, broker__process="own")) as hub:
            kit = EdgeKit(tmp_path, "dock-7")
            await hub.client.post("/v1/nodes", json=kit.card)
            async with kit.runtime(hub.hub.address) as edge:
                for number in range(3):
                    await edge.append([order_event(f"A{number}", "PLACED")])
                    assert isinstance(hub.hub.broker, ApartBroker)
                    killed = hub.hub.broker.pid
                    if killed:
                        os.kill(killed, signal.SIGKILL)
                    await edge.append([order_event(f"B{number}", "PLACED")])
                    await hub.settled(2 * (number + 1))
            assert (await hub.get("/readyz"))["ready"]

    in_loop(story)


def test_a_hub_that_stops_and_starts_again_catches_up_with_its_edges(tmp_path: Path) -> None:
    config = make_hub(tmp_path, broker__port=free_port())
    kit = EdgeKit(tmp_path, "dock-7")

    async def story() -> None:
        async with contextlib.AsyncExitStack() as stack:
            async with calling(config) as hub:
                await hub.client.post("/v1/nodes", json=kit.card)
                edge = await stack.enter_async_context(kit.runtime(hub.hub.address))
                await edge.append([order_event("A1", "PLACED")])
                await hub.settled(1)
            await edge.append([order_event("A1", "SHIPPED")])
            async with calling(config) as hub:
                await hub.settled(2)
                assert (await hub.get("/v1/orders/A1"))["status"] == "SHIPPED"
                assert hub.hub.engine.counts.doubled_total == 0, "applied once"

    in_loop(story)


def test_an_edge_that_leaves_is_away_at_once_and_its_row_stays(tmp_path: Path) -> None:
    async def story() -> None:
        async with calling(make_hub(tmp_path)) as hub:
            kit = EdgeKit(tmp_path, "dock-7")
            await hub.client.post("/v1/nodes", json=kit.card)

            async def online(wanted: bool) -> bool:
                rows = (await hub.get("/v1/fleet"))["fleet"]
                return [row["online"] for row in rows] == [wanted]

            async with kit.runtime(hub.hub.address) as edge:
                await edge.append([order_event("A1", "PLACED")])
                await until(lambda: online(True), "online")
                await hub.settled(1)
            await until(lambda: online(False), "away")

    in_loop(story)


def test_a_clone_of_an_edge_shows_as_a_fork_and_both_histories_settle(tmp_path: Path) -> None:
    async def story() -> None:
        async with calling(make_hub(tmp_path)) as hub:
            kit = EdgeKit(tmp_path, "dock-7")
            twin = EdgeKit(tmp_path / "twin", "dock-7")
            twin.folder.mkdir()
            await hub.client.post("/v1/nodes", json=kit.card)
            async with kit.runtime(hub.hub.address) as edge:
                await edge.append([order_event("A1", "PLACED")])
                await hub.settled(1)
            (twin.folder / "dock-7.db").write_bytes((tmp_path / "dock-7.db").read_bytes())
            async with kit.runtime(hub.hub.address) as edge:
                await edge.append([order_event("A1", "PICKED")])
                await hub.settled(2)
            async with twin.runtime(hub.hub.address) as edge:
                await edge.append([order_event("A1", "CANCELLED")])

                async def both() -> bool:
                    events = (await hub.get("/v1/orders/A1/events"))["events"]
                    rows = (await hub.get("/v1/fleet"))["fleet"]
                    return {e["status"] for e in events} == {"PLACED", "PICKED", "CANCELLED"} and rows[0]["forked"]

                await until(both, "both branches, and the fork named")

                async def closed() -> bool:
                    return bool((await hub.balance())["balanced"])

                await until(closed, "balanced")

    in_loop(story)


# ------------------------------------------------------------------ HTTP of the hub itself


def test_source_systems_append_at_the_centre_and_a_repeat_returns_the_first_ids(tmp_path: Path) -> None:
    async def story() -> None:
        async with calling(make_hub(tmp_path)) as hub:
            keyed = EVENT | {"idempotencyKey": "k1"}
            first = await hub.client.post("/v1/events", json=[keyed, EVENT | {"status": "APPROVED"}])
            assert first.status_code == 201
            again = await hub.client.post("/v1/events", json=keyed)
            assert (again.status_code, again.json()["ids"]) == (200, first.json()["ids"][:1])
            other = await hub.client.post("/v1/events", json=keyed | {"status": "SHIPPED"})
            assert other.status_code == 409
            await hub.settled(2)
            order = await hub.get("/v1/orders/GLOBAL1234")
            assert (order["status"], order["region"], order["node"]) == ("APPROVED", "central", "hub")

    in_loop(story)


def test_the_live_feed_tells_of_each_fact_and_goes_on_from_the_last_id(tmp_path: Path) -> None:
    async def story() -> None:
        async with calling(make_hub(tmp_path)) as hub:

            async def heard(wanted: int, headers: dict[str, str]) -> list[tuple[str, str]]:
                found: list[tuple[str, str]] = []
                async with hub.client.stream("GET", "/v1/stream", headers=headers) as answer:
                    last = ""
                    async for line in answer.aiter_lines():
                        if line.startswith("id: "):
                            last = line[4:]
                        elif line.startswith("data: ") and "orderId" in line:
                            found.append((last, json.loads(line[6:])["orderId"]))
                            if len(found) == wanted:
                                return found
                return found

            live = asyncio.create_task(heard(1, {}))

            async def listening() -> bool:
                return hub.hub.feed.listeners == 1

            await until(listening, "a listener")
            await hub.client.post("/v1/events", json=EVENT)
            first = await asyncio.wait_for(live, WITHIN_S)
            await hub.client.post("/v1/events", json=EVENT | {"orderId": "B2"})
            await hub.settled(2)
            assert [name for _, name in first] == ["GLOBAL1234"]
            assert [name for _, name in await heard(1, {"Last-Event-ID": first[0][0]})] == ["B2"]

    in_loop(story)


def test_the_hub_stops_promptly_while_somebody_listens_to_the_feed(tmp_path: Path) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            hub = await stack.enter_async_context(running(make_hub(tmp_path)))
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{hub.api_port}") as client:
                async with client.stream("GET", "/v1/stream") as answer:
                    assert answer.status_code == 200
                    began = loop.time()
                    await stack.aclose()
                    assert loop.time() - began < 3.0

    in_loop(story)


def test_a_token_opens_what_the_configuration_closes(tmp_path: Path) -> None:
    async def story() -> None:
        async with calling(make_hub(tmp_path, api__loopback_without_token=False)) as hub:
            assert (await hub.client.get("/v1/fleet")).status_code == 401
            assert (await hub.client.get("/v1/fleet", headers={"authorization": "Bearer wrong"})).status_code == 401
            assert (await hub.client.get("/v1/fleet", headers={"authorization": f"Bearer {TOKEN}"})).status_code == 200
            assert (await hub.client.get("/healthz")).status_code == 200

    in_loop(story)


def test_ready_names_what_is_missing(tmp_path: Path) -> None:
    async def story() -> None:
        async with calling(make_hub(tmp_path)) as hub:
            line = {"connected": True, "protocol": "MQTT 3.1.1", "problem": "", "refusals": []}
            assert await hub.get("/readyz") == {"ready": True, "reasons": [], "findings": [], "line": line, "bridge": None}
            assert hub.hub.broker is not None
            await hub.hub.broker.stop()

            async def down() -> bool:
                answer = await hub.client.get("/readyz")
                return answer.status_code == 503 and answer.json()["reasons"][0].startswith("the line to the broker is down: ")

            await until(down, "not ready")

    in_loop(story)


# ------------------------------------------------------------------ what keeps it from starting


async def _start(config: HubConfig) -> None:
    async with running(config):
        pass


def test_a_second_hub_on_the_same_data_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(make_hub(tmp_path)):
            with pytest.raises(LedgerBusy):
                await _start(read_config(tmp_path, {}))

    in_loop(story)


@pytest.mark.parametrize("setting", ["api__port", "broker__port"])
def test_a_port_in_use_is_named_and_nothing_is_left_behind(tmp_path: Path, setting: str) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    first.mkdir()
    second.mkdir()

    async def story() -> None:
        async with running(make_hub(first)) as hub:
            port = hub.api_port if setting == "api__port" else hub.broker_port
            with pytest.raises(ConfigError, match=str(port)):
                await _start(make_hub(second, **{setting: port}))
        await _start(make_hub(second))

    in_loop(story)


def test_a_store_made_by_a_later_version_is_refused_untouched(tmp_path: Path) -> None:
    async def story() -> None:
        await _start(make_hub(tmp_path))
        from protocols.sqlite import Db

        db = Db(tmp_path / "hub.db")
        db.run("UPDATE versions SET version = 99 WHERE part = 'ledger'")
        db.close()
        with pytest.raises(ConfigError, match="upgrade"):
            await _start(read_config(tmp_path, {}))

    in_loop(story)


@pytest.mark.parametrize(
    ("payload", "online"),
    [
        (b'{"state":"online"}', True),
        (b'{"state":"lost"}', False),
        (b"", False),
        (b"[" * 10_000, False),
        (b'"online"', False),
        (b"\xff", False),
    ],
)
def test_a_birth_is_told_from_everything_else(payload: bytes, online: bool) -> None:
    assert says_online(payload) is online


def test_the_words_of_an_edges_presence_are_the_ones_that_the_hub_knows() -> None:
    said = presence("topic", 1, "0.1.0")
    assert says_online(said.birth)
    assert not says_online(said.will)
    assert not says_online(said.farewell or b"")
