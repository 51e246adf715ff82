"""The hub's HTTP API over a real store: what each address answers, and how each refusal reads."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from hub.api import CSV_ROWS, create_app
from hub.facade import Metric
from hub.metrics_text import metrics_text
from protocols import limits
from protocols.errors import LedgerBroken, LedgerFull
from tests.support.fake_hub import NOW_MS, TOKEN, AppClient, FakeHub, Serving, assert_problem, balance_row, card_of, event
from tests.support.patience import ANSWER_S

EVENT: dict[str, Any] = {"orderId": "N-1", "status": "PLACED", "source": "ERP", "timestamp": "2026-05-21T14:00:00Z"}
BEARER = {"authorization": f"Bearer {TOKEN}"}


# ------------------------------------------------------------------ orders


def test_orders_are_listed_most_recent_first_and_paged_without_gaps(day: FakeHub) -> None:
    client, seen, cursor = AppClient(day), [], ""
    for _ in range(20):
        page = client.get(f"/v1/orders?limit=9{cursor}").json()
        seen += [order["orderId"] for order in page["orders"]]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert len(seen) == len(set(seen)) == day.store.totals()["orders"]
    assert seen[0] == "SCMS-0259911"


def test_the_link_header_leads_to_the_next_page(day: FakeHub) -> None:
    client = AppClient(day)
    first = client.get("/v1/orders?limit=2&site=W8-Madrid")
    assert first.headers["link"].endswith('; rel="next"')
    following = client.get(first.headers["link"].split(">")[0].removeprefix("<")).json()["orders"]
    assert [order["site"] for order in following] == ["W8-Madrid", "W8-Madrid"]
    assert not {order["orderId"] for order in following} & {order["orderId"] for order in first.json()["orders"]}
    assert "link" not in client.get("/v1/orders?limit=500").headers


def test_filters_narrow_the_list(day: FakeHub) -> None:
    client = AppClient(day)
    assert {order["status"] for order in client.get("/v1/orders?status=SHIPPED").json()["orders"]} == {"SHIPPED"}
    assert {order["site"] for order in client.get("/v1/orders?site=X2-Lyon").json()["orders"]} == {"X2-Lyon"}
    assert [order["orderId"] for order in client.get("/v1/orders?conflict=true").json()["orders"]] == ["SCMS-0259910"]
    assert [order["orderId"] for order in client.get("/v1/orders?q=59911").json()["orders"]] == ["SCMS-0259911"]
    assert client.get("/v1/orders?region=APAC").json()["orders"] == []
    assert client.get("/v1/orders?region=&q=").json()["orders"] != []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("jeopardy=HIGH", "jeopardy"),
        ("status=SHIPED", "status"),
        ("cursor=nonsense", "cursor"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=٣", "limit"),
        ("conflict=maybe", "conflict"),
        ("format=xml", "format"),
        ("state=SHIPPED", "state"),
        ("site=A&site=B", "site"),
        ("q=" + "x" * 600, "q"),
        ("q=%ED%A0%80%00", "q"),
    ],
)
def test_a_query_that_cannot_be_taken_names_its_field(client: AppClient, query: str, field: str) -> None:
    assert_problem(client.get(f"/v1/orders?{query}"), 422, "invalid-input", field=field)


def test_jeopardy_says_when_it_comes(client: AppClient) -> None:
    assert "arrives with the model" in client.get("/v1/orders?jeopardy=LOW").json()["detail"]


def test_csv_has_every_order_that_matches(day: FakeHub) -> None:
    answer = AppClient(day).get("/v1/orders?format=csv&site=W8-Madrid")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    assert answer.headers["longshore-rows"] == str(len(rows))
    assert len(rows) == len(AppClient(day).get("/v1/orders?site=W8-Madrid&limit=500").json()["orders"])
    assert {row["site"] for row in rows} == {"W8-Madrid"}


def test_csv_is_bounded_and_its_link_leads_on(day: FakeHub) -> None:
    client = AppClient(day)
    first = client.get("/v1/orders?format=csv&limit=40")
    second = client.get(first.headers["link"].split(">")[0].removeprefix("<"))
    ids = [row["orderId"] for text in (first.text, second.text) for row in csv.DictReader(io.StringIO(text))]
    assert len(ids) == len(set(ids)) == day.store.totals()["orders"]
    assert_problem(client.get(f"/v1/orders?format=csv&limit={CSV_ROWS + 1}"), 422, "invalid-input", field="limit")


@pytest.mark.parametrize("lead", ["=", "+", "-", "@"])
def test_csv_runs_nothing_in_a_spreadsheet(hub: FakeHub, lead: str) -> None:
    one = event(f"{lead}cmd|' /C calc'!A0", "PLACED", NOW_MS, site=f"{lead}SUM(A1)", source=f"{lead}1")
    hub.fact("dock-7", one, recorded_ms=NOW_MS, received_ms=NOW_MS)
    row = next(csv.DictReader(io.StringIO(AppClient(hub).get("/v1/orders?format=csv").text)))
    assert all(row[name].startswith(f"'{lead}") for name in ("orderId", "site", "source"))


# ------------------------------------------------------------------ one order


@pytest.mark.parametrize("order_id", ["SCMS 1", "PO/7", "PO/7/events", "a%2Fb", "ñ?#&+", "..x", "events", "日本"])
def test_an_order_is_found_whatever_its_id_holds(hub: FakeHub, order_id: str) -> None:
    hub.fact("dock-7", event(order_id, "PLACED", NOW_MS), recorded_ms=NOW_MS, received_ms=NOW_MS)
    client = AppClient(hub)
    links = client.get("/v1/orders").json()["orders"][0]["links"]
    assert client.get(links["self"]).json()["orderId"] == order_id
    assert [fact["status"] for fact in client.get(links["events"]).json()["events"]] == ["PLACED"]
    assert client.get(links["page"]).status_code == 200


def test_a_plain_slash_in_an_id_works_too(hub: FakeHub) -> None:
    hub.fact("dock-7", event("PO/7", "PLACED", NOW_MS), recorded_ms=NOW_MS, received_ms=NOW_MS)
    assert AppClient(hub).get("/v1/orders/PO/7").json()["orderId"] == "PO/7"
    assert AppClient(hub).get("/v1/orders/PO/7/events").json()["total"] == 1


def test_an_ambiguous_id_lists_its_organisations(hub: FakeHub) -> None:
    for org in ("zeta", "acme"):
        hub.fact("dock-7", event("1001", "PLACED", NOW_MS, org=org), recorded_ms=NOW_MS, received_ms=NOW_MS)
    client = AppClient(hub)
    assert_problem(client.get("/v1/orders/1001"), 409, "ambiguous", orgs=["acme", "zeta"], field="org")
    assert_problem(client.get("/v1/orders/1001/events"), 409, "ambiguous")
    assert client.get("/v1/orders/1001?org=zeta").json()["org"] == "zeta"
    assert_problem(client.get("/v1/orders/1001?org=other"), 404, "not-found")


def test_an_unknown_order_is_a_problem_and_a_score_not_yet(client: AppClient) -> None:
    assert_problem(client.get("/v1/orders/none"), 404, "not-found")
    assert_problem(client.get("/v1/orders/none/events"), 404, "not-found")
    assert "arrives with the model" in client.get("/v1/orders/none/jeopardy").json()["detail"]


def test_a_timeline_tells_heads_and_what_was_seen(day: FakeHub) -> None:
    told = AppClient(day).get("/v1/orders/SCMS-0259910/events").json()
    assert {fact["status"]: fact["isHead"] for fact in told["events"]} == {"ALLOCATED": False, "SHIPPED": True, "CANCELLED": True}
    assert told["total"] == 3
    clocks = AppClient(day).get("/v1/orders/SCMS-0259911/events").json()["events"]
    assert [(fact["timestamp"], fact["timeQuality"]) for fact in clocks] == [(None, "unknown"), ("1970-01-01T01:00:00Z", "improbable")]


def test_conflicts_are_told_in_plain_words_and_bounded(day: FakeHub) -> None:
    told = AppClient(day).get("/v1/conflicts?open=true").json()
    assert told["more"] is False
    assert told["conflicts"][0]["orderId"] == "SCMS-0259910"
    assert told["conflicts"][0]["sentence"].startswith("Cancelled at the centre by service-desk while shipped at W3-Lisbon by Ana")
    assert_problem(AppClient(day).get("/v1/conflicts?limit=2000"), 422, "invalid-input", field="limit")


# ------------------------------------------------------------------ taking events


def test_an_event_is_taken_once(client: AppClient, hub: FakeHub) -> None:
    body = {**EVENT, "idempotencyKey": "k1"}
    first, again = client.post("/v1/events", json=body), client.post("/v1/events", json=body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["ids"] == again.json()["ids"]
    assert (first.json()["repeated"], again.json()["repeated"]) == (0, 1)
    assert hub.store.totals()["facts"] == 1
    assert client.get("/v1/orders/N-1").json()["org"] == "acme"


def test_a_batch_in_part_repeated_is_still_news(client: AppClient) -> None:
    client.post("/v1/events", json={**EVENT, "idempotencyKey": "k1"})
    answer = client.post("/v1/events", json=[{**EVENT, "idempotencyKey": "k1"}, {**EVENT, "orderId": "N-2"}])
    assert (answer.status_code, len(answer.json()["ids"]), answer.json()["repeated"]) == (201, 2, 1)


def test_the_same_key_with_other_content_is_a_conflict(client: AppClient) -> None:
    client.post("/v1/events", json={**EVENT, "idempotencyKey": "k1"})
    assert_problem(client.post("/v1/events", json={**EVENT, "orderId": "N-2", "idempotencyKey": "k1"}), 409, "conflict")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**EVENT, "status": "SHIPED"}, "status"),
        ({**EVENT, "timestamp": "2026-05-21T14:00:00"}, "timestamp"),
        ({**EVENT, "sorce": "ERP"}, "sorce"),
        ([EVENT, {**EVENT, "orderId": "x" * 200}], "[1].orderId"),
        ({**EVENT, "details": {"weight": 1.5}}, "details.weight"),
        ([], "body"),
        ("text", "body"),
    ],
)
def test_a_malformed_event_names_its_field_and_stores_nothing(client: AppClient, hub: FakeHub, body: Any, field: str) -> None:
    assert_problem(client.post("/v1/events", json=body), 422, "invalid-input", field=field)
    assert hub.store.totals()["facts"] == 0


def test_a_wrong_status_is_told_what_is_allowed(client: AppClient) -> None:
    told = assert_problem(client.post("/v1/events", json={**EVENT, "status": "SHIPED"}), 422, "invalid-input")
    assert "SHIPPED" in told["allowed"]
    assert "SHIPPED" in told["remedy"]


def test_broken_json_is_the_callers_fault(client: AppClient) -> None:
    for body in (b"{", b"\xff", b"[" * 100_000):
        answer = client.post("/v1/events", content=body, headers={"content-type": "application/json"})
        assert_problem(answer, 422, "invalid-input", field="body")


def test_too_many_and_too_large_are_told_apart_from_malformed(client: AppClient) -> None:
    assert_problem(client.post("/v1/events", json=[EVENT] * (limits.BATCH_EVENTS + 1)), 413, "too-large", field="body")
    declared = {"content-type": "application/json", "content-length": str(limits.BATCH_BYTES + 1)}
    assert_problem(client.post("/v1/events", content=b"", headers=declared), 413, "too-large", field="body")


def test_a_body_without_a_length_is_not_read_beyond_its_bound(client: AppClient) -> None:
    sent = []

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(10_000):
            sent.append(1)
            yield b" " * 100_000

    answer = client.post("/v1/events", content=endless(), headers={"content-type": "application/json"})
    assert_problem(answer, 413, "too-large")
    assert len(sent) <= limits.BATCH_BYTES // 100_000 + 2


def test_bodies_of_all_requests_together_are_bounded(hub: FakeHub) -> None:
    async def story() -> None:
        held, go_on = asyncio.Event(), asyncio.Event()
        whole = json.dumps(EVENT | {"details": {"note": "x" * 2_000}}).encode()

        async def slow() -> AsyncIterator[bytes]:
            yield whole[:900]
            held.set()
            await go_on.wait()
            yield whole[900:]

        headers = {"content-type": "application/json"}
        transport = httpx.ASGITransport(create_app(hub, max_held_bytes=len(whole) + 100), client=("127.0.0.1", 5000))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            first = asyncio.create_task(client.post("/v1/events", content=slow(), headers=headers))
            await held.wait()
            answer = await client.post("/v1/events", content=whole, headers=headers)
            assert_problem(answer, 503, "unavailable")
            assert answer.headers["retry-after"] == "1"
            go_on.set()
            assert (await first).status_code == 201, "who came first is not sent away"
            for _ in range(3):
                assert (await client.post("/v1/events", content=whole, headers=headers)).status_code == 201, "what was held was given back"

    asyncio.run(story())


def test_only_json_is_taken(client: AppClient, hub: FakeHub) -> None:
    for media in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = client.post("/v1/events", content=json.dumps(EVENT), headers={"content-type": media})
        assert_problem(answer, 415, "unsupported-media-type")
    assert hub.store.totals()["facts"] == 0


def test_a_full_disk_and_a_broken_ledger_have_their_own_answers(client: AppClient, hub: FakeHub) -> None:
    hub.fails_with = LedgerFull("The disk is full.")
    assert_problem(client.post("/v1/events", json=EVENT), 507, "no-room")
    hub.fails_with = LedgerBroken("A sync failed.")
    answer = client.post("/v1/events", json=EVENT)
    assert_problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "1"


def test_an_unforeseen_fault_tells_nothing_of_our_insides(client: AppClient, hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    hub.fails_with = ZeroDivisionError("secret-path")
    answer = client.post("/v1/events", json=EVENT)
    assert_problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert "ZeroDivision" not in answer.text
    assert "secret-path" in caplog.text, "the log must say what the answer does not"
    page = client.post("/sign-in", headers={"accept": "text/html"}, content=b"x" * 5_000)
    assert page.status_code == 413


# ------------------------------------------------------------------ nodes, fleet, balance, what was kept


def test_a_balance_that_is_not_known_is_neither_good_nor_bad(hub: FakeHub) -> None:
    row: Any = {**balance_row("", 3, settled=1), "balanced": None, "unknown": "the central store has not said yet what it holds"}
    sheet: Any = {"asOfMs": NOW_MS, "fleet": row, "nodes": [{**row, "node": "dock-7"}]}
    hub.sheet = sheet
    told = AppClient(hub).get("/v1/balance").json()
    for one in (told["fleet"], told["nodes"][0]):
        assert (one["balanced"], one["unknown"]) == (None, "the central store has not said yet what it holds")
        assert one["sentence"].startswith("not known yet")
    page = AppClient(hub).get("/balance", headers={"accept": "text/html"}).text
    assert "Not known yet" in page
    assert "Not balanced" not in page
    assert "off by" not in page


def test_a_node_is_admitted_by_its_card(client: AppClient) -> None:
    card = card_of("dock-9")
    answer = client.post("/v1/nodes", json=card)
    assert answer.status_code == 201
    assert "brokerPassword" not in answer.text
    assert [node["node"] for node in client.get("/v1/nodes").json()["nodes"]] == ["dock-9"]
    assert_problem(client.post("/v1/nodes", json=card_of("dock-9")), 409, "conflict")
    assert_problem(client.post("/v1/nodes", json={**card, "site": "W2"}), 422, "invalid-input", field="signature")
    assert_problem(client.post("/v1/nodes", json={"pad": "x" * 20_000}), 413, "too-large")


def test_the_fleet_is_paged_by_name(day: FakeHub) -> None:
    client = AppClient(day)
    first = client.get("/v1/fleet?limit=3").json()
    assert [node["node"] for node in first["fleet"]] == ["dock-7", "lyon-x2", "madrid-8"]
    assert first["fleet"][0]["notHereYet"]["sentence"].startswith("at least 412 events, 1.9 MB, oldest 3 h 12 m")
    assert [node["node"] for node in client.get(f"/v1/fleet?cursor={first['cursor']}").json()["fleet"]] == ["porto-1"]


def test_balance_quarantine_and_refused_are_told(day: FakeHub) -> None:
    client = AppClient(day)
    balance = client.get("/v1/balance").json()
    assert balance["fleet"]["balanced"] is True
    assert balance["nodes"][0]["notHereYet"] == 412
    assert client.get("/v1/quarantine").json()["quarantined"][0]["reason"] == "kind 7 is not an order event"
    assert client.get("/v1/refused").json()["refused"][0]["at"] == "2026-05-21T14:03:42Z"


# ------------------------------------------------------------------ machines


def test_health_and_readiness(client: AppClient, hub: FakeHub) -> None:
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 200
    hub.reasons = ["the store does not answer"]
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["reasons"]) == (503, ["the store does not answer"])
    assert client.get("/healthz").status_code == 200


def test_metrics_are_prometheus_text(day: FakeHub) -> None:
    answer = AppClient(day).get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert answer.text.splitlines()[:7] == [
        "# HELP longshore_hub_facts_total Facts applied.",
        "# TYPE longshore_hub_facts_total counter",
        'longshore_hub_facts_total{node="dock-7"} 7711',
        'longshore_hub_facts_total{node="we\\"ird\\\\"} 2',
        "# HELP longshore_hub_feed_listeners Open streams.",
        "# TYPE longshore_hub_feed_listeners gauge",
        "longshore_hub_feed_listeners 0.5",
    ]
    assert "\nlongshore_conflicts_open 1\n" in answer.text


def test_a_line_end_in_a_metric_cannot_forge_a_sample() -> None:
    text = metrics_text([Metric("a_total", "x\ny", "counter", {"l": 'v\n"} 9'}, 1)])
    assert text == '# HELP a_total x\\ny\n# TYPE a_total counter\na_total{l="v\\n\\"} 9"} 1\n'


@pytest.mark.parametrize("path", ["/v1/nothing", "/nothing", "/v1/orders/", "/docs", "/static/../api.py", "/static/none.css"])
def test_an_unknown_address_is_a_problem(client: AppClient, path: str) -> None:
    assert_problem(client.get(path), 404, "not-found")


def test_a_wrong_method_says_which_are_right(client: AppClient) -> None:
    answer = client.delete("/v1/nodes")
    told = assert_problem(answer, 405, "method-not-allowed")
    assert sorted(told["allowed"]) == sorted(answer.headers["allow"].split(", ")) == ["GET", "HEAD", "POST"]
    assert_problem(client.get("/v1/events"), 405, "method-not-allowed")


def test_head_answers_like_get_without_a_body(client: AppClient) -> None:
    answer = client.head("/v1/orders")
    assert (answer.status_code, answer.content) == (200, b"")


# ------------------------------------------------------------------ the stream


def lines_of(response: httpx.Response, until: str) -> list[str]:
    """The stream's lines up to the first that begins with `until`."""
    seen = []
    for line in response.iter_lines():
        seen.append(line)
        if line.startswith(until):
            return seen
    raise AssertionError(f"the stream ended without {until!r}: {seen}")


def test_the_stream_resumes_by_last_event_id(day: FakeHub) -> None:
    with Serving(day) as serving, httpx.Client(base_url=serving.url, timeout=ANSWER_S) as client:
        newest = day.feed.newest
        with client.stream("GET", "/v1/stream", headers={"last-event-id": f"t1-{newest - 2}"}) as first:
            assert first.headers["content-type"].startswith("text/event-stream")
            seen = lines_of(first, f"id: t1-{newest}")
            assert "retry: 2000" in seen
            assert f"id: t1-{newest - 1}" in seen
        client.post("/v1/events", json=EVENT).raise_for_status()
        with client.stream("GET", "/v1/stream", headers={"last-event-id": f"t1-{newest}"}) as second:
            data = lines_of(second, "data: ")[-1]
            assert json.loads(data.removeprefix("data: "))["orderId"] == "N-1"


def test_the_stream_begins_now_or_after_an_id_or_with_a_reset(day: FakeHub) -> None:
    with Serving(day) as serving, httpx.Client(base_url=serving.url, timeout=ANSWER_S) as client:
        with client.stream("GET", "/v1/stream?after=t0-5") as lost:
            assert "event: reset" in lines_of(lost, "data: ")
        with client.stream("GET", f"/v1/stream?after=t1-{day.feed.newest - 1}") as after:
            assert lines_of(after, "id: ")[-1] == f"id: t1-{day.feed.newest}"
        with client.stream("GET", "/v1/stream?state=1") as fresh:
            state = json.loads(lines_of(fresh, "data: ")[-1].removeprefix("data: "))
            assert state["totals"]["notHereYet"] == 4_412
            assert state["totals"]["conflicts"] == 1
        assert_problem(client.get("/v1/stream?state=2"), 422, "invalid-input", field="state")


def test_streams_are_bounded(client: AppClient, hub: FakeHub) -> None:
    hub.feed.listeners = 200
    assert_problem(client.get("/v1/stream"), 503, "unavailable")


def test_a_closed_feed_ends_streams_so_that_the_hub_can_stop(client: AppClient, hub: FakeHub) -> None:
    hub.feed.close()
    assert_problem(client.get("/v1/stream"), 503, "unavailable")
