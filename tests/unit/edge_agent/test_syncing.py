"""POST /v1/sync of an edge, its peers and its frames to go, through ASGI over a real runtime and a real ledger."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from edge_agent import syncing
from edge_agent.core import EdgeSettings
from edge_agent.relay import RelaySettings
from edge_agent.runtime import EdgeRuntime
from protocols.messages import Hello, Refused
from protocols.sync.parcel import MEDIA_TYPE, PARCEL_BYTES, read_parcel, write_parcel
from protocols.sync.seal import Control, seal, unseal
from protocols.sync.uplink import Out
from protocols.topics import Channel
from protocols.trust import NodeKey, make_card
from tests.unit.edge_agent.callers import problem, tell
from tests.unit.edge_agent.edges import HUB_KEY, event, event_json, until
from tests.unit.edge_agent.relay_world import card_of, frames_of, roaming
from tests.unit.hub.hub_world import PASSWORD_HASH, Edge, World

SYNC = {"content-type": MEDIA_TYPE}


def phone(name: str = "phone-1", *statuses: str) -> Edge:
    edge = roaming(World(), name)
    edge.says("A1", *(statuses or ("PLACED", "PICKED")))
    return edge


async def befriended(client: httpx.AsyncClient, *phones: Edge) -> None:
    for one in phones:
        answer = await client.post("/v1/peers", json=card_of(one))
        assert answer.status_code == 201, answer.text


def facts(runtime: EdgeRuntime) -> int:
    return runtime.core.custody.counts().events


def test_frames_of_a_peer_are_on_disk_and_shown_once_answered(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        one = phone()
        await befriended(client, one)
        for _ in range(2):  # the answer may get lost: twice is as good as once
            answer = await client.post("/v1/sync?node=phone-1", content=write_parcel(frames_of(one)), headers=SYNC)
            assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"", MEDIA_TYPE)
        assert facts(runtime) == 2
        order = (await client.get("/v1/orders/A1")).json()
        assert (order["status"], len(order["timeline"])) == ("PICKED", 2)
        assert (await client.get("/v1/status")).json()["custody"]["events"] == 2

    tell(tmp_path, story)


def test_a_stranger_is_told_what_to_do_and_nothing_is_kept(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        one = phone()
        for path in ("/v1/sync", "/v1/sync?node=phone-1"):
            said = problem(await client.post(path, content=write_parcel(frames_of(one)), headers=SYNC), 403)
            assert "peer add" in said["remedy"]
        assert "phone-1 is no peer" in problem(await client.post("/v1/sync?node=phone-1", headers=SYNC), 403)["detail"], "nor is there mail"
        assert facts(runtime) == 0

    tell(tmp_path, story)


def test_without_the_token_of_the_edge_nobody_gets_in(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        for method, path in (("POST", "/v1/sync"), ("GET", "/v1/queue/frames"), ("GET", "/v1/peers"), ("DELETE", "/v1/peers/phone-1")):
            problem(await client.request(method, path, headers=SYNC), 401)

    tell(tmp_path, story, token=None)


def test_no_room_is_507_and_what_was_taken_stays(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        one = phone("phone-1", *["PICKED"] * 40)
        await befriended(client, one)
        said = problem(await client.post("/v1/sync?node=phone-1", content=write_parcel(frames_of(one)), headers=SYNC), 507)
        assert "messages were not taken" in said["detail"]
        assert 0 < facts(runtime) < 40
        headers = {**SYNC, "accept": "application/json"}
        counted = (await client.post("/v1/sync", content=write_parcel(frames_of(one)), headers=headers)).json()
        assert counted["noRoom"] > 0
        assert [left["author"] for left in counted["left"]] == ["phone-1"] * counted["noRoom"]
        assert (await client.post("/v1/events", json=event_json())).status_code == 201, "this edge's own are taken"

    tell(tmp_path, story, settings=replace(EdgeSettings(), relay=RelaySettings(custody_bytes=1_000)))


def test_what_is_no_parcel_is_refused_and_damage_leaves_the_rest_alone(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        one = phone()
        await befriended(client, one)
        problem(await client.post("/v1/sync", content=b"\0\0\0\x09cut", headers=SYNC), 422)
        problem(await client.post("/v1/sync", content=b"{}", headers={"content-type": "application/json"}), 415)
        problem(await client.post("/v1/sync", content=b"\0" * (PARCEL_BYTES + 1), headers=SYNC), 413)
        assert problem(await client.post("/v1/sync?nodes=phone-1", headers=SYNC), 422)["field"] == "nodes"
        for bad in ("26", "-1", "1.5", "x", "0000000"):
            assert problem(await client.post(f"/v1/sync?wait={bad}", headers=SYNC), 422)["field"] == "wait"
        (good,) = frames_of(one)
        body = write_parcel([b"junk", good[:-1] + bytes([good[-1] ^ 1]), good])
        answer = await client.post("/v1/sync", content=body, headers={**SYNC, "accept": "application/json"})
        said = answer.json()
        assert (answer.status_code, said["kept"], said["refused"], said["newFacts"]) == (200, 1, 2, 2)
        assert [(left["index"], left["author"]) for left in said["left"]] == [(0, ""), (1, "phone-1")]
        assert facts(runtime) == 2

    tell(tmp_path, story)


def test_mail_for_a_peer_is_the_answer_also_to_who_waits_for_it(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        await befriended(client, phone("phone-1"), phone("phone-2"))
        refused = Refused(b"incarnat", b"d" * 16, "because")
        mail = seal(Out(Channel.RECEIPT, Refused.KIND, [], refused.to_list()), "hub", "phone-1", HUB_KEY.sign)
        waits = asyncio.create_task(client.post("/v1/sync?node=phone-1&wait=25", headers=SYNC))
        await until(lambda: runtime.mail.callers == 1, "waiting")
        await runtime.act(lambda core, now: core.take_message(mail, now))
        assert read_parcel((await waits).content) == [mail]
        assert (await client.post("/v1/sync?node=phone-1", headers=SYNC)).content == b"", "once"
        await runtime.act(lambda core, now: core.take_message(mail, now))
        assert (await client.post("/v1/sync?node=phone-2&wait=0", headers=SYNC)).content == b"", "another's mail is another's"
        assert read_parcel((await client.post("/v1/sync?node=phone-1&wait=9", headers=SYNC)).content) == [mail]

    tell(tmp_path, story)


def test_much_mail_comes_in_parcels_that_the_caller_takes(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        await befriended(client, phone("phone-1"))
        mail = [bytes([n]) * 90_000 for n in range(11)]
        for one in mail:
            runtime.core.relay.mailboxes.put("phone-1", one)
        got: list[bytes] = []
        while answer := (await client.post("/v1/sync?node=phone-1", headers=SYNC)).content:
            got += read_parcel(answer)
            assert len(answer) <= PARCEL_BYTES // 2 + 100
        assert got == mail

    tell(tmp_path, story)


def test_who_waits_is_let_go_when_the_edge_stops(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        await befriended(client, phone())
        waits = asyncio.create_task(client.post("/v1/sync?node=phone-1&wait=25", headers=SYNC))
        await until(lambda: runtime.mail.callers == 1, "waiting")
        runtime.mail.close()
        assert (await asyncio.wait_for(waits, 5)).status_code == 200

    tell(tmp_path, story)


def test_a_hello_is_passed_on_and_not_kept(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        one = phone()
        await befriended(client, one)
        out = Out(Channel.CONTROL, Hello.KIND, [], Hello(b"n" * 8, ()).to_list())
        hello = seal(out, "phone-1", "hub", one.key.sign)
        answer = await client.post("/v1/sync", content=write_parcel([hello]), headers={**SYNC, "accept": "application/json"})
        assert answer.json()["forwarded"] == 1
        assert runtime.core.custody.payloads() == []

    tell(tmp_path, story)


def test_peers_are_listed_and_removed(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        one = phone()
        await befriended(client, one, one)
        assert [(p["node"], p["site"]) for p in (await client.get("/v1/peers")).json()["peers"]] == [("phone-1", "Madrid")]
        twin = {**card_of(phone("phone-2")), "node": "phone-1"}
        assert problem(await client.post("/v1/peers", json=twin), 422)["field"] == "signature"
        assert (await client.delete("/v1/peers/phone-1")).json() == {"removed": "phone-1"}
        problem(await client.delete("/v1/peers/phone-1"), 404)
        assert (await client.get("/v1/peers")).json() == {"peers": []}

    tell(tmp_path, story)


def test_only_nodes_of_the_same_organisation_and_no_stolen_names_become_peers(tmp_path: Path) -> None:
    def card(node: str, org: str = "acme", key: bytes = b"k") -> dict[str, str]:
        return make_card(NodeKey(key * 32), node=node, org=org, region="EMEA", site="S", password_hash=PASSWORD_HASH)

    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        assert problem(await client.post("/v1/peers", json=card("phone-1", "evil")), 422)["field"] == "org"
        for name in ("hub", "madrid-1"):
            assert problem(await client.post("/v1/peers", json=card(name)), 422)["field"] == "node"
        assert (await client.post("/v1/peers", json=card("phone-1"))).status_code == 201
        assert problem(await client.post("/v1/peers", json=card("phone-1", key=b"x")), 422)["field"] == "node"
        problem(await client.post("/v1/peers", json=[1]), 422)

    tell(tmp_path, story)


def test_peers_are_there_after_a_restart(tmp_path: Path) -> None:
    async def first(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        await befriended(client, phone())

    async def second(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        assert [p["node"] for p in (await client.get("/v1/peers")).json()["peers"]] == ["phone-1"]
        runtime.core.ledger.db.run("UPDATE peers SET card='{\"longshore\": 2}'")
        runtime.core.ledger.db.run("INSERT INTO peers VALUES ('phone-0', 'not json', 1)")

    async def third(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        assert (await client.get("/v1/peers")).json() == {"peers": []}, "whoever cannot be read is nobody's peer, and no reason to stop"

    for story in (first, second, third):
        tell(tmp_path, story)


def test_everything_that_may_be_carried_away_comes_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        one = phone()
        await befriended(client, one)
        await client.post("/v1/sync", content=write_parcel(frames_of(one)), headers=SYNC)
        for i in range(700):
            runtime.core.ledger.begin()
            runtime.core.ledger.append_all([event(f"B{i}")], 1)
            runtime.core.ledger.commit()
        monkeypatch.setattr(syncing, "PAGE_BYTES", 300)
        cursor, pages = "", []
        while True:
            answer = await client.get("/v1/queue/frames", params={"cursor": cursor} if cursor else {})
            pages.append(read_parcel(answer.content))
            cursor = answer.headers.get("longshore-cursor", "")
            if not cursor:
                break
        headers = [opened[1] for page in pages for opened in map(unseal, page) if not isinstance(opened, Control)]
        assert [(h.author, h.first, h.first + h.count - 1) for h in headers] == [
            ("madrid-1", 1, 500), ("madrid-1", 501, 700), ("phone-1", 1, 2),
        ]  # fmt: skip
        assert len(pages) > 1
        problem(await client.get("/v1/queue/frames?cursor=own:x:1"), 422)

    tell(tmp_path, story)


def test_pages_are_as_small_as_asked_and_lose_nothing(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        phones = [phone(f"phone-{i}", *["PICKED"] * 9) for i in range(3)]
        await befriended(client, *phones)
        payloads = [p for one in phones for p in frames_of(one)]
        await client.post("/v1/sync", content=write_parcel(payloads), headers=SYNC)
        await client.post("/v1/events", json=[event_json(f"B{i}") for i in range(9)])
        core = runtime.core
        core.uplink.settings = replace(core.uplink.settings, frame_facts=2)
        for most in (1, 300, 700, 10**9):
            cursor, got = None, []
            while True:
                page = core.carry.page(cursor, most)
                got += page.payloads
                cursor = page.cursor
                if cursor is None:
                    break
            own = [opened[1] for opened in map(unseal, got) if not isinstance(opened, Control) and opened[1].author == "madrid-1"]
            assert [(h.first, h.count) for h in own] == [(1, 2), (3, 2), (5, 2), (7, 2), (9, 1)]
            assert got[5:] == payloads

    tell(tmp_path, story)


def test_json_answers_count_every_verdict(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        answer = await client.post("/v1/sync", headers={**SYNC, "accept": "application/json"})
        assert json.loads(answer.content) == {
            "kept": 0, "known": 0, "forwarded": 0, "refused": 0, "stranger": 0, "noRoom": 0, "newFacts": 0, "left": [],
        }  # fmt: skip

    tell(tmp_path, story)
