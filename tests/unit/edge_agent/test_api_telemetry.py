"""`POST /v1/telemetry` and `GET /v1/devices`, through ASGI, over a real runtime and a real ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from edge_agent.runtime import EdgeRuntime
from tests.unit.edge_agent.callers import problem, tell
from tests.unit.edge_agent.edges import event_json, stored


def reading_json(device: str = "scanner-7", kind: str = "health", **more: Any) -> dict[str, Any]:
    return {"device": device, "kind": kind, "timestamp": "2026-05-21T14:05:12Z", "values": {"batteryPercent": 87}, **more}


def test_readings_are_answered_with_their_ids_once_they_are_on_disk(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        answer = await client.post("/v1/telemetry", json=[reading_json(), reading_json(values={"temperature": "21.5"})])
        assert (answer.status_code, answer.json()["accepted"], len(answer.json()["ids"])) == (201, 2, 2)
        assert len(stored(tmp_path)) == 2
        status = (await client.get("/v1/status")).json()
        assert {s["class"]: s["captured"] for s in status["streams"]} == {"orders": 0, "telemetry": 2}
        assert runtime.counts.readings_total == 2
        assert (await client.get("/v1/orders")).json()["orders"] == []

    tell(tmp_path, story)


def test_keys_make_a_repeated_request_harmless_and_are_shared_with_events(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        first = await client.post("/v1/telemetry", json=reading_json(idempotencyKey="k1"))
        again = await client.post("/v1/telemetry", json=reading_json(idempotencyKey="k1"))
        assert (first.status_code, again.status_code, again.json()["ids"]) == (201, 200, first.json()["ids"])
        problem(await client.post("/v1/telemetry", json=reading_json("other", idempotencyKey="k1")), 409)
        problem(await client.post("/v1/events", json=event_json(idempotencyKey="k1")), 409)
        assert len(stored(tmp_path)) == 1

    tell(tmp_path, story)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (reading_json(values={"batteryPercent": 187}), "values.batteryPercent"),
        (reading_json(device=""), "device"),
        (reading_json(timestamp="2026-05-21T14:05:12"), "timestamp"),
        ([reading_json(), {"kind": "health"}], "[1].timestamp"),
        ([], "body"),
        (reading_json("d", "provisioning", values={"serial": "S1"}), "values.provisioning"),
        (reading_json("d", "provisioning", values={"provisioning": "active"}), "values.serial"),
        (reading_json("d", "provisioning", values={"provisioning": "lost", "serial": "S1"}), "values.provisioning"),
    ],
    ids=["bound", "device", "offset", "second", "empty", "no state", "no maker's name", "no such state"],
)
def test_a_bad_reading_is_refused_by_the_name_of_its_field_and_nothing_is_stored(tmp_path: Path, body: object, field: str) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        assert problem(await client.post("/v1/telemetry", json=body), 422)["field"] == field
        assert stored(tmp_path) == []

    tell(tmp_path, story)


def test_the_latest_of_every_device_by_pages(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        await client.post("/v1/telemetry", json=[reading_json(f"d{n}") for n in range(5)])
        await client.post("/v1/telemetry", json=[reading_json("d1", values={"batteryPercent": 9}), reading_json("d1", "dock")])
        page = await client.get("/v1/devices?limit=3")
        (d1,) = [d for d in page.json()["devices"] if d["device"] == "d1"]
        assert [(one["kind"], one["values"]["batteryPercent"]) for one in d1["latest"]] == [("dock", 87), ("health", 9)]
        rest = await client.get(page.headers["link"].partition(">")[0][1:])
        assert [d["device"] for d in [*page.json()["devices"], *rest.json()["devices"]]] == ["d0", "d1", "d2", "d3", "d4"]
        assert rest.json()["cursor"] is None

    tell(tmp_path, story)
