"""POST /v1/sync of the hub: nodes sign in as at the broker's door, hand over what they signed, and fetch what was said to them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from hub.api import create_app
from hub.broker_access import NodeGrant
from hub.syncing import take_imported
from protocols.problem import KINDS
from protocols.sync.parcel import MEDIA_TYPE, PARCEL_BYTES, read_parcel, write_parcel
from protocols.topics import Address, Channel, node_acl
from protocols.trust import hash_password
from tests.support.fake_hub import TOKEN, FakeHub
from tests.unit.edge_agent.relay_world import frames_of, roaming
from tests.unit.hub.hub_world import World

PASSWORD = "a phone's password"
PHONE = Address("acme", "EMEA", "Madrid", "phone-1")
SYNC = {"content-type": MEDIA_TYPE}
Story = Callable[[httpx.AsyncClient, FakeHub], Awaitable[None]]


def basic(name: str, password: str) -> dict[str, str]:
    return {**SYNC, "authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


SIGNED_IN = basic("phone-1", PASSWORD)


@pytest.fixture
def hub(tmp_path: Path) -> FakeHub:
    fake = FakeHub(tmp_path)
    fake.grants["phone-1"] = NodeGrant(hash_password(PASSWORD, n=2), node_acl(PHONE))
    return fake


def tell(hub: FakeHub, story: Story, *, host: str = "192.168.1.9") -> None:
    async def whole() -> None:
        transport = httpx.ASGITransport(create_app(hub), raise_app_exceptions=False, client=(host, 5000))
        async with httpx.AsyncClient(transport=transport, base_url="http://hub.example") as client:
            await story(client, hub)
        hub.post.close()

    asyncio.run(asyncio.wait_for(whole(), 30))


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    said: dict[str, Any] = answer.json()
    assert said["type"] in {kind.urn for kind in KINDS}
    return said


def test_what_a_node_hands_over_comes_as_from_its_own_topics(hub: FakeHub) -> None:
    async def story(client: httpx.AsyncClient, hub: FakeHub) -> None:
        answer = await client.post("/v1/sync", content=write_parcel([b"one", b"two"]), headers=SIGNED_IN)
        assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"", MEDIA_TYPE)
        assert hub.came == [("phone-1", b"one"), ("phone-1", b"two")]

    tell(hub, story)


@pytest.mark.parametrize(
    "headers",
    [
        basic("phone-1", "wrong"),
        basic("phone-2", PASSWORD),
        basic("", ""),
        {**SYNC, "authorization": "Basic"},
        {**SYNC, "authorization": "Basic !!!"},
        {**SYNC, "authorization": "Basic //79"},
        {**SYNC, "authorization": "Bearer wrong"},
        SYNC,
    ],
    ids=["wrong password", "unknown node", "empty", "nothing", "no base64", "no utf-8", "wrong token", "nobody"],
)
def test_nobody_else_gets_in(hub: FakeHub, headers: dict[str, str]) -> None:
    async def story(client: httpx.AsyncClient, hub: FakeHub) -> None:
        answer = await client.post("/v1/sync", content=write_parcel([b"one"]), headers=headers)
        assert problem(answer, 401)["remedy"]
        assert "www-authenticate" in answer.headers
        assert hub.came == []

    tell(hub, story)


def test_a_password_opens_nothing_but_sync(hub: FakeHub) -> None:
    async def story(client: httpx.AsyncClient, hub: FakeHub) -> None:
        for path in ("/v1/orders", "/v1/sync/x", "/v1/fleet", "/"):
            assert (await client.get(path, headers=SIGNED_IN)).status_code in (401, 404)
        assert (await client.get("/v1/orders", headers=SIGNED_IN)).status_code == 401

    tell(hub, story)


def test_what_the_hub_says_reaches_a_node_that_comes_over_http(hub: FakeHub) -> None:
    async def story(client: httpx.AsyncClient, hub: FakeHub) -> None:
        topic = PHONE.topic(Channel.RECEIPT)
        hub.post.published(topic, b"before it ever came: nobody keeps that")
        await client.post("/v1/sync", headers=SIGNED_IN)
        hub.post.published(topic, b"receipt")
        hub.post.published(Address("acme", "EMEA", "Madrid", "phone-2").topic(Channel.RECEIPT), b"another's")
        hub.post.published("no/topic", b"x")
        answer = await client.post("/v1/sync?wait=20", headers=SIGNED_IN)
        assert read_parcel(answer.content) == [b"receipt"]
        waits = asyncio.create_task(client.post("/v1/sync?node=phone-1&wait=20", headers=SIGNED_IN))
        while not hub.post._poll.callers:
            await asyncio.sleep(0.001)
        hub.post.published(topic, b"later")
        assert read_parcel((await waits).content) == [b"later"]

    tell(hub, story)


def test_who_waits_is_let_go_when_the_hub_stops(hub: FakeHub) -> None:
    async def story(client: httpx.AsyncClient, hub: FakeHub) -> None:
        waits = asyncio.create_task(client.post("/v1/sync?wait=25", headers=SIGNED_IN))
        while not hub.post._poll.callers:
            await asyncio.sleep(0.001)
        hub.post.hush()
        assert (await waits).status_code == 200

    tell(hub, story)


def test_what_is_wrong_is_a_problem_document(hub: FakeHub) -> None:
    async def story(client: httpx.AsyncClient, hub: FakeHub) -> None:
        problem(await client.post("/v1/sync", content=b"\0\0\0\x09cut", headers=SIGNED_IN), 422)
        problem(await client.post("/v1/sync", content=b"\0" * (PARCEL_BYTES + 1), headers=SIGNED_IN), 413)
        problem(await client.post("/v1/sync", content=b"{}", headers={**SIGNED_IN, "content-type": "application/json"}), 415)
        assert problem(await client.post("/v1/sync?wait=26", headers=SIGNED_IN), 422)["field"] == "wait"
        assert problem(await client.post("/v1/sync?node=phone-2", headers=SIGNED_IN), 422)["field"] == "node"
        assert hub.came == []
        busy = await client.post("/v1/sync", content=write_parcel([b"x"] * 60), headers=SIGNED_IN)
        assert problem(busy, 503)["remedy"]

    tell(hub, story)


def test_a_full_hub_takes_hellos_but_no_frames(hub: FakeHub) -> None:
    async def story(client: httpx.AsyncClient, hub: FakeHub) -> None:
        hub.is_full = True
        phone = roaming(World(), "phone-1")
        phone.says("A1", "PLACED")
        problem(await client.post("/v1/sync", content=write_parcel(frames_of(phone)), headers=SIGNED_IN), 507)
        assert hub.came == []
        assert (await client.post("/v1/sync", content=write_parcel([b"LS\x01\x02hello"]), headers=SIGNED_IN)).status_code == 200
        assert len(hub.came) == 1

    tell(hub, story)


def test_an_operator_brings_a_stick_and_hears_what_became_of_each_message(hub: FakeHub) -> None:
    async def story(client: httpx.AsyncClient, hub: FakeHub) -> None:
        phone = roaming(World(), "phone-1")
        phone.says("A1", "PLACED")
        headers = {**SYNC, "accept": "application/json", "authorization": f"Bearer {TOKEN}"}
        body = write_parcel([*frames_of(phone), b"junk"])
        said = (await client.post("/v1/sync", content=body, headers=headers)).json()
        assert (said["waiting"], said["refused"], [left["index"] for left in said["left"]]) == (1, 1, [0, 1])
        assert problem(await client.post("/v1/sync?node=phone-1", content=body, headers=headers), 422)["field"] == "node"

    tell(hub, story)


def test_the_same_stick_twice_changes_nothing_and_the_counts_say_so() -> None:
    world = World()
    phone = roaming(world, "phone-1")
    phone.says("A1", "PLACED", "PICKED")
    stranger = world.edge("phone-9", admitted=False, linked=False)
    stranger.says("A2", "PLACED")
    payloads = [*frames_of(phone), *frames_of(stranger), b"junk"]

    def brought() -> dict[str, Any]:
        world.hub.begin()
        done = take_imported("", payloads, world.hub, world.now_ms)
        world.hub.commit()
        world.hub.effects(world.now_ms)
        return done

    first, again = brought(), brought()
    assert {name: first[name] for name in ("new", "known", "taken", "waiting", "refused", "newFacts")} == {
        "new": 1, "known": 0, "taken": 0, "waiting": 1, "refused": 1, "newFacts": 2,
    }  # fmt: skip
    assert (again["new"], again["known"], again["newFacts"]) == (0, 1, 0)
    assert [(left["index"], left["author"]) for left in first["left"]] == [(1, "phone-9"), (2, "")]
    assert world.held(phone.key_of_stream) == [(1, 2)]
