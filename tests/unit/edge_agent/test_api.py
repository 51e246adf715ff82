"""The LAN API, through ASGI, over a real runtime and a real ledger."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from edge_agent.api import EdgeApi
from edge_agent.core import EdgeSettings
from edge_agent.counts import Bounds
from edge_agent.metrics import ALWAYS, OPEN
from edge_agent.openapi import OPERATIONS, document
from edge_agent.runtime import EdgeRuntime
from protocols import limits
from protocols.errors import LedgerBroken
from tests.unit.edge_agent.callers import problem, tell
from tests.unit.edge_agent.edges import DEFAULTS, edge, event, event_json, stored

# ------------------------------------------------------------ events


def test_one_event_is_answered_with_its_id_once_it_is_on_disk(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        answer = await client.post("/v1/events", json=event_json())
        assert answer.status_code == 201
        (fact_id,) = answer.json()["ids"]
        assert answer.json() == {"ids": [fact_id], "accepted": 1, "repeated": 0}
        assert fact_id.startswith("madrid-1/")
        assert len(stored(tmp_path)) == 1

    tell(tmp_path, story)


def test_a_batch_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        answer = await client.post("/v1/events", json=[event_json("A1"), event_json("A2")])
        assert (answer.status_code, answer.json()["accepted"]) == (201, 2)
        bad = await client.post("/v1/events", json=[event_json("A3"), event_json("A4", status="SHIPED")])
        said = problem(bad, 422)
        assert said["field"] == "[1].status"
        assert "SHIPPED" in said["allowed"]
        assert said["remedy"] == "Did you mean SHIPPED?"
        assert len(stored(tmp_path)) == 2

    tell(tmp_path, story)


def test_a_repeated_key_gives_the_first_ids_and_another_content_409(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        first = await client.post("/v1/events", json=event_json(idempotencyKey="k1"))
        again = await client.post("/v1/events", json=event_json(idempotencyKey="k1"))
        assert (again.status_code, again.json()) == (200, {"ids": first.json()["ids"], "accepted": 0, "repeated": 1})
        half = await client.post("/v1/events", json=[event_json(idempotencyKey="k1"), event_json("A2")])
        assert (half.status_code, half.json()["accepted"], half.json()["repeated"]) == (201, 1, 1)
        other = await client.post("/v1/events", json=event_json("A9", idempotencyKey="k1"))
        assert "k1" in problem(other, 409)["detail"]
        assert len(stored(tmp_path)) == 2

    tell(tmp_path, story)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{", "body"),
        (b"\xff", "body"),
        (b"[]", "body"),
        (b"3", "body"),
        (b"[" * 100_000, "body"),
        (json.dumps({**event_json(), "colour": "red"}).encode(), "colour"),
        (json.dumps({**event_json(), "timestamp": "2026-05-21T14:05:12"}).encode(), "timestamp"),
        (json.dumps({**event_json(), "details": {"weight": 1.5}}).encode(), "details.weight"),
        (json.dumps({**event_json(), "orderId": "x" * 129}).encode(), "orderId"),
        (json.dumps({**event_json(), "actor": "\ud800"}).encode(), "actor"),
    ],
)
def test_a_malformed_event_is_refused_by_the_name_of_its_field(tmp_path: Path, body: bytes, field: str) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        answer = await client.post("/v1/events", content=body, headers={"content-type": "application/json"})
        assert problem(answer, 422)["field"] == field
        assert stored(tmp_path) == []

    tell(tmp_path, story)


def test_an_improbable_time_is_kept_and_marked(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        assert (await client.post("/v1/events", json=event_json(timestamp="1970-01-02T00:00:00Z"))).status_code == 201
        (fact,) = (await client.get("/v1/orders/A1")).json()["timeline"]
        assert (fact["timestamp"], fact["timeQuality"]) == ("1970-01-02T00:00:00Z", "improbable")

    tell(tmp_path, story)


def test_too_many_events_and_too_many_bytes_are_413(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        many = await client.post("/v1/events", json=[event_json()] * (limits.BATCH_EVENTS + 1))
        assert "smaller" in problem(many, 413)["remedy"]
        assert stored(tmp_path) == []

    tell(tmp_path, story)


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_beyond_the_bound_is_refused_before_it_is_read_whole(tmp_path: Path, declared: bool) -> None:
    read: list[int] = []

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            read.append(100_000)
            yield b" " * 100_000

    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        headers = {"content-type": "application/json"} | ({"content-length": "10000000"} if declared else {})
        problem(await client.post("/v1/events", content=chunks(), headers=headers), 413)
        assert sum(read) <= (limits.BATCH_BYTES + 200_000)

    tell(tmp_path, story)
    assert (sum(read) <= 100_000) is declared


def test_bodies_of_all_requests_together_are_bounded(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        problem(await client.post("/v1/events", json=event_json(details={"note": "x" * 2_000})), 503)
        for _ in range(3):
            assert (await client.post("/v1/events", json=event_json())).status_code == 201, "what was held was given back"

    tell(tmp_path, story, max_held_bytes=1_000)


def test_a_form_of_a_web_page_is_not_taken(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        for media in ("text/plain", "application/x-www-form-urlencoded", ""):
            answer = await client.post("/v1/events", content=json.dumps(event_json()), headers={"content-type": media})
            problem(answer, 415)
        assert stored(tmp_path) == []

    tell(tmp_path, story)


def test_without_room_it_says_507_and_without_patience_503(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        settings, runtime.core.settings = runtime.core.settings, EdgeSettings(budget_bytes=1)
        assert "budget" in problem(await client.post("/v1/events", json=event_json()), 507)["detail"]
        assert problem(await client.get("/readyz"), 503)["reasons"]
        runtime.core.settings = settings
        answers = await asyncio.gather(*(client.post("/v1/events", json=event_json(f"A{i}")) for i in range(5)))
        busy = [answer for answer in answers if answer.status_code != 201]
        assert [problem(answer, 503)["status"] for answer in busy] == [503] * 3
        assert busy[0].headers["retry-after"] == "1"

    tell(tmp_path, story, bounds=Bounds(waiting_requests=2))


def test_while_the_ledger_is_opened_again_it_says_503_everywhere_but_health(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        core, runtime._core = runtime._core, None
        runtime._why = LedgerBroken("the disk is away")
        for path in ("/v1/status", "/v1/orders", "/v1/orders/A1", "/v1/quarantine", "/readyz"):
            assert "the disk is away" in problem(await client.get(path), 503)["detail"], path
        problem(await client.post("/v1/events", json=event_json()), 503)
        assert (await client.get("/healthz")).json() == {"healthy": True}
        assert "longshore_edge_ready 0.0" in (await client.get("/metrics")).text
        runtime._core = core

    tell(tmp_path, story)


# ------------------------------------------------------------ orders


def test_an_order_shows_its_way_with_times_and_what_was_strange(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        for status in ("PLACED", "SHIPPED", "PICKED"):
            await client.post("/v1/events", json=event_json("A/1", status=status, actor="staff-17"))
        order = (await client.get("/v1/orders/A%2F1")).json()
        assert (order["org"], order["orderId"], order["status"], order["conflict"]) == ("acme", "A/1", "PICKED", False)
        assert [(fact["status"], fact["abnormal"], fact["isHead"]) for fact in order["timeline"]] == [
            ("PLACED", False, False),
            ("SHIPPED", False, False),
            ("PICKED", True, True),
        ]
        assert order["timeline"][0]["timestamp"] == "2026-05-21T14:05:12Z"
        assert order["timeline"][0]["actor"] == "staff-17"
        assert order["timeline"][0]["site"] == "W8-Madrid"
        assert order["jeopardy"] is None
        assert "model" in order["jeopardyNote"]
        assert [head["status"] for head in order["heads"]] == ["PICKED"]

    tell(tmp_path, story)


def test_a_conflict_is_said_in_plain_words(tmp_path: Path) -> None:
    """What another node said without having seen ours, as it will come down from the hub."""
    from protocols.codec import pack
    from protocols.fact import chain, genesis, to_row
    from protocols.streams import StreamKey

    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        await client.post("/v1/events", json=event_json(status="SHIPPED"))
        key = StreamKey("centre", 5, 0)
        values = to_row(event(status="CANCELLED", site="HQ"), 1_779_372_312_000, [])
        start = genesis(*key)
        runtime.core.begin()
        runtime.core.ledger.offer(key, 1, start, [(pack(values), values)], chain(start, [pack(values)]), 1_779_372_312_000)
        runtime.core.commit()
        order = (await client.get("/v1/orders/A1")).json()
        assert order["conflict"] is True
        assert order["conflicts"][0]["sentence"].startswith("Cancelled at HQ by centre while shipped at W8-Madrid by madrid-1, neither")
        assert {fact["abnormal"] for fact in order["timeline"]} == {False}, "neither came after the other"
        assert {head["site"] for head in order["heads"]} == {"HQ", "W8-Madrid"}
        listed = (await client.get("/v1/orders?conflict=true")).json()["orders"]
        assert [one["orderId"] for one in listed] == ["A1"]
        assert (await client.get("/v1/orders?conflict=false")).json()["orders"] == []

    tell(tmp_path, story)


def test_an_order_of_another_org_is_another_order(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        await client.post("/v1/events", json=[event_json(), event_json(status="SHIPPED", org="other")])
        assert (await client.get("/v1/orders/A1")).json()["status"] == "PICKED"
        assert (await client.get("/v1/orders/A1?org=other")).json()["status"] == "SHIPPED"
        assert "other-2" in problem(await client.get("/v1/orders/A1?org=other-2"), 404)["detail"]
        problem(await client.get("/v1/orders/A1?org=a/b"), 422)

    tell(tmp_path, story)


def test_the_list_pages_without_a_gap_while_orders_arrive(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        await runtime.append([event(f"A{i:02}") for i in range(25)])
        seen: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            answer = await client.get("/v1/orders", params={"limit": 10, "cursor": cursor})
            page = answer.json()
            seen += [one["orderId"] for one in page["orders"]]
            cursor = page["cursor"]
            assert (f"cursor={cursor}" in answer.headers.get("link", "")) is (cursor is not None)
            await runtime.append([event(f"new {len(seen)}")])
        assert seen == [f"A{i:02}" for i in reversed(range(25))]

    tell(tmp_path, story)


def test_the_list_is_filtered_by_status_and_by_a_fragment_taken_literally(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        await runtime.append([event("GLOBAL1"), event("GLOBAL2", "SHIPPED"), event("100%_x"), event("a~b")])

        async def ids(**params: str) -> list[str]:
            return sorted(one["orderId"] for one in (await client.get("/v1/orders", params=params)).json()["orders"])

        assert await ids(status="SHIPPED") == ["GLOBAL2"]
        assert await ids(q="obal") == ["GLOBAL1", "GLOBAL2"]
        assert await ids(q="obal", status="PICKED") == ["GLOBAL1"]
        assert (await ids(q="%"), await ids(q="_"), await ids(q="~")) == (["100%_x"], ["100%_x"], ["a~b"])

    tell(tmp_path, story)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=GONE", "status"),
        ("colour=red", "colour"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("cursor=xyz", "cursor"),
        ("cursor=" + "f" * 99, "cursor"),
        ("conflict=maybe", "conflict"),
        ("q=a&q=b", "q"),
        ("q=" + "x" * 600, "q"),
        ("limit=٣", "limit"),
    ],
)
def test_a_wrong_filter_is_named(tmp_path: Path, query: str, field: str) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        assert problem(await client.get(f"/v1/orders?{query}"), 422)["field"] == field

    tell(tmp_path, story)


# ------------------------------------------------------------ the edge itself


def test_status_says_what_waits_and_how_the_link_is(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        await runtime.append([event("A1"), event("A2")])
        status = (await client.get("/v1/status")).json()
        assert (status["node"], status["api"], status["ready"]) == ("madrid-1", "v1", True)
        assert (status["queue"]["events"], status["queue"]["notReceived"]) == (2, 2)
        assert status["queue"]["bytes"] == sum(len(row) for _, row in stored(tmp_path))
        assert status["uptimeMs"] >= 0
        assert status["link"]["connected"] is False

    tell(tmp_path, story)


def test_quarantine_lists_what_stepped_aside(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        (done,) = await runtime.append([event("A1")])
        runtime.core.begin()
        runtime.core.ledger.quarantine(1, done.seq, done.h, "a later version's", 1_779_372_312_000)
        runtime.core.commit()
        (row,) = (await client.get("/v1/quarantine")).json()["quarantine"]
        assert (row["factId"], row["reason"], row["at"]) == (done.fact_id, "a later version's", "2026-05-21T14:05:12Z")

    tell(tmp_path, story)


def test_metrics_are_named_by_the_rules_and_hold_no_ids(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        await runtime.append([event("GLOBAL-ORDER-1")])
        answer = await client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
        assert "longshore_edge_events_total 1" in lines
        assert "longshore_queue_events 1" in lines
        assert not any("{" in line or "GLOBAL" in line or "madrid" in line for line in lines)

    tell(tmp_path, story)


@pytest.mark.parametrize("metric", [*ALWAYS, *OPEN], ids=lambda metric: metric.name)
def test_a_metric_says_its_unit_and_its_kind(metric: Any) -> None:
    assert metric.name.startswith(
        ("longshore_edge_", "longshore_ledger_", "longshore_link_", "longshore_queue_", "longshore_c", "longshore_settled_")
    )
    assert (metric.kind == "counter") is metric.name.endswith("_total")
    assert metric.help.endswith(".")
    assert not metric.name.endswith(("_ms", "_millis", "_kb"))


# ------------------------------------------------------------ refusals and the description


def test_unknown_addresses_and_methods_are_problems_too(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        assert "/openapi.json" in problem(await client.get("/v1/nothing"), 404)["detail"]
        wrong = await client.delete("/v1/orders")
        assert problem(wrong, 405)["allowed"] == ["GET", "HEAD"]
        assert "GET" in wrong.headers["allow"]

    tell(tmp_path, story)


def test_a_fault_of_ours_is_a_problem_without_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        def failing() -> dict[str, Any]:
            raise KeyError("secret detail")

        monkeypatch.setattr(runtime, "status", failing)
        answer = await client.get("/v1/status")
        problem(answer, 500)
        assert "secret" not in answer.text
        assert "KeyError" not in answer.text
        assert (await client.get("/v1/orders")).status_code == 200

    tell(tmp_path, story)
    assert "secret detail" in caplog.text


def test_the_description_names_exactly_the_addresses_that_there_are(tmp_path: Path) -> None:
    api = EdgeApi(edge(tmp_path), DEFAULTS, 1)
    routes = {
        (route.path.replace("{id:path}", "{id}"), method.lower())
        for route in api.routes()
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert routes == {(operation.path, operation.method) for operation in OPERATIONS}


def test_the_examples_of_the_description_have_the_shape_of_real_answers(tmp_path: Path) -> None:
    def example(path: str, status: int = 200) -> Any:
        method = "post" if path == "/v1/events" else "get"
        return document()["paths"][path][method]["responses"][str(status)]["content"]["application/json"]["example"]

    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        body = document()["paths"]["/v1/events"]["post"]["requestBody"]["content"]["application/json"]["examples"]
        for one in body.values():
            assert (await client.post("/v1/events", json=one["value"])).status_code in (200, 201, 409)
        real = (await client.get("/v1/orders/GLOBAL1234")).json()
        assert example("/v1/orders/{id}").keys() == real.keys()
        assert example("/v1/orders/{id}")["timeline"][0].keys() == real["timeline"][0].keys()
        assert example("/v1/orders/{id}")["heads"][0].keys() == real["heads"][0].keys()
        listed = (await client.get("/v1/orders")).json()
        assert example("/v1/orders").keys() == listed.keys()
        assert example("/v1/orders")["orders"][0].keys() == listed["orders"][0].keys()
        status = (await client.get("/v1/status")).json()
        assert example("/v1/status").keys() <= status.keys()
        assert example("/v1/status")["queue"].keys() == status["queue"].keys()
        assert (await client.get("/openapi.json")).json() == document()

    tell(tmp_path, story)
