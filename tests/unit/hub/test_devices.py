"""Devices of the fleet as the API, the page and the command show them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from hub import cli, device_views
from hub.config import read_config
from hub.core import HubCore, HubIdentity
from hub.fleet import fleet_rows
from hub.views import fleet_json
from protocols.device_index import DeviceIndex
from protocols.event import TimeQuality
from protocols.sqlite import Db
from protocols.telemetry import Reading
from protocols.trust import NodeKey, verify
from tests.support.fake_hub import NOW_MS, AppClient, FakeHub, a_day_at_the_docks
from tests.unit.hub.hub_world import World
from tests.unit.hub.test_web import HTML, XSS, text_of

HOUR_MS = 3_600_000


def of(device: str, kind: str = "health", happened_ms: int | None = NOW_MS - HOUR_MS, **values: Any) -> Reading:
    return Reading(device, kind, happened_ms, TimeQuality.STATED, values)


FLEET = [
    of("scanner-1", "provisioning", provisioning="active", serial="SN-1", mac="02:42:ac:11:00:02", firmware="2.4.1"),
    of("scanner-1", batteryPercent=12, signalDbm=-92),
    of("scanner-2", "provisioning", NOW_MS - 48 * HOUR_MS, provisioning="active", serial="SN-2"),
    of("scanner-3", "provisioning", NOW_MS - 48 * HOUR_MS, provisioning="retired", serial="SN-3", batteryPercent=1),
    of("scanner-4", batteryPercent=40),
]


def tell(hub: FakeHub, *readings: Reading) -> AppClient:
    """The fake hub's own ledger, as a node's that told of devices."""
    asyncio.run(hub.do(lambda core, now_ms: core.ledger.append_telemetry(readings, now_ms)))
    return AppClient(hub)


@pytest.fixture
def client(hub: FakeHub) -> AppClient:
    return tell(hub, *FLEET)


# ------------------------------------------------------------------ the API


def test_each_device_with_what_was_told_last(client: AppClient) -> None:
    first = client.get("/v1/devices").json()["devices"][0]
    assert first == {
        "node": "hub", "device": "scanner-1", "state": "active", "mac": "02:42:ac:11:00:02", "serial": "SN-1", "firmware": "2.4.1",
        "lastSeenAt": "2026-05-21T13:05:12Z", "heardAt": first["heardAt"], "signalDbm": -92, "batteryPercent": 12,
    }  # fmt: skip
    assert first["heardAt"]


def test_pages_lead_to_one_another_by_link_and_cursor(client: AppClient) -> None:
    page = client.get("/v1/devices?limit=3")
    assert [d["device"] for d in page.json()["devices"]] == ["scanner-1", "scanner-2", "scanner-3"]
    assert page.json()["cursor"] == "hub/scanner-3"
    rest = client.get(page.headers["link"].partition(">")[0][1:]).json()
    assert [d["device"] for d in rest["devices"]] == ["scanner-4"]
    assert rest["cursor"] is None


def test_filters_by_node_and_state(client: AppClient) -> None:
    assert [d["device"] for d in client.get("/v1/devices?state=active").json()["devices"]] == ["scanner-1", "scanner-2"]
    assert [d["device"] for d in client.get("/v1/devices?state=unstated&node=hub").json()["devices"]] == ["scanner-4"]
    assert client.get("/v1/devices?node=nobody").json() == {"devices": [], "cursor": None}


@pytest.mark.parametrize(
    ("query", "field"),
    [("state=lost", "state"), ("cursor=scanner-1", "cursor"), ("limit=0", "limit"), ("limit=501", "limit"), ("colour=red", "colour")],
)
def test_a_bad_question_names_its_parameter(client: AppClient, query: str, field: str) -> None:
    answer = client.get(f"/v1/devices?{query}")
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_the_fleet_sums_up_and_shows_the_first(hub: FakeHub) -> None:
    world = World()
    dock, _ = world.edge("dock-7"), world.edge("gate-1")
    dock.reports(*(f"scanner-{n:02}" for n in range(15)))
    world.settle()
    rows = {r.node: fleet_json(r, world.now_ms) for r in fleet_rows(world.hub, {}, world.now_ms, lambda _: None, 30_000)}
    seen = rows["dock-7"]["deviceSummary"]
    assert (rows["dock-7"]["devices"], seen["states"], len(seen["first"])) == (15, {"unstated": 15}, 10)
    assert seen["url"] == "/v1/devices?node=dock-7"
    assert seen["first"][0]["device"] == "scanner-00"
    assert rows["gate-1"]["deviceSummary"] == {**device_views.summary_json("gate-1", None)}
    assert rows["gate-1"]["deviceSummary"]["first"] == []


# ------------------------------------------------------------------ the page


def test_the_page_tells_state_names_times_and_what_to_look_at(client: AppClient) -> None:
    said = text_of(client.get("/devices", headers=HTML).text)
    assert "SN-1 02:42:ac:11:00:02 2.4.1 1 h ago" in said
    assert "-92 dBm 12 % battery low signal weak" in said
    assert "silent" in said.split("scanner-2")[1].split("scanner-3")[0], "in service, and not heard of for two days"
    assert "battery low" not in said.split("scanner-3")[1], "what is retired may be empty"
    assert "silent" not in said.split("scanner-3")[1], "and silent"
    assert "unstated" in said.split("scanner-4")[1]


def test_the_page_filters_and_pages(client: AppClient) -> None:
    assert "scanner-3" not in text_of(client.get("/devices?state=active", headers=HTML).text)
    html = client.get("/devices?limit=1&state=active", headers=HTML).text
    assert "/devices?state=active&amp;cursor=hub%2Fscanner-1" in html
    assert "No device is like that." in text_of(client.get("/devices?node=nobody", headers=HTML).text)


def test_without_devices_it_says_how_to_tell_of_them(hub: FakeHub) -> None:
    assert "POST /v1/telemetry" in text_of(AppClient(hub).get("/devices", headers=HTML).text)


def test_what_devices_say_is_never_markup(hub: FakeHub) -> None:
    client = tell(hub, of(XSS, "provisioning", provisioning="active", serial=XSS, firmware=XSS))
    html = client.get("/devices", headers=HTML).text
    assert XSS not in html and "<img" not in html.replace('<img src="/static', "")
    assert "<script>alert" not in client.get(f"/devices?node={XSS}", headers=HTML).text


def test_the_fleet_page_leads_to_a_nodes_devices(hub: FakeHub) -> None:
    a_day_at_the_docks(hub)
    index = DeviceIndex()
    for n, reading in enumerate(FLEET):
        index.note(hub.rows[0].node, reading, (1, n), NOW_MS)
    summary = index.summaries()[hub.rows[0].node]
    hub.rows[0] = replace(hub.rows[0], devices=summary.devices, told=summary)
    html = AppClient(hub).get("/fleet", headers=HTML).text
    assert f'href="/devices?node={hub.rows[0].node}"' in html
    assert "4 devices 2 in service · 1 low" in text_of(html)
    assert device_views.headline([summary]) == "4 devices at 1 node, 2 in service; 1 with a low battery."


# ------------------------------------------------------------------ the command


def test_the_command_lists_them_where_the_hub_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "hub"
    assert cli.main(["init", str(folder)]) == 0
    config = read_config(folder, {})
    key = NodeKey.load(config.key_file)
    core = HubCore(Db(config.storage.path("hub.db")), HubIdentity("acme", "central", "hub", key.public), key.sign, verify, Random(1))
    core.begin()
    core.ledger.append_telemetry(FLEET, NOW_MS)
    core.commit()
    core.ledger.db.close()
    capsys.readouterr()
    assert cli.main(["devices", "--dir", str(folder), "--limit", "2"]) == 0
    out = capsys.readouterr().out
    assert "scanner-1" in out and "scanner-3" not in out and "more: --cursor 'hub/scanner-2'" in out
    assert cli.main(["devices", "--dir", str(folder), "--state", "retired", "--json"]) == 0
    assert [d["device"] for d in json.loads(capsys.readouterr().out)["devices"]] == ["scanner-3"]
    assert cli.main(["devices", "--dir", str(folder), "--limit", "0"]) == 2
