"""Who may call the hub, from where, and what every answer tells a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hub import guard
from hub.api import HubApi
from hub.guard import CSP
from tests.support.fake_hub import TOKEN, AppClient, FakeHub, assert_problem

EVENT: dict[str, Any] = {"orderId": "N-1", "status": "PLACED", "source": "ERP", "timestamp": "2026-05-21T14:00:00Z"}
BEARER = {"authorization": f"Bearer {TOKEN}"}


def test_without_a_token_only_loopback_may_and_only_where_it_is_said(tmp_path: Path, hub: FakeHub) -> None:
    assert AppClient(hub).get("/v1/orders").status_code == 200
    assert_problem(AppClient(hub, host="10.1.2.3").get("/v1/orders"), 401, "unauthorized")
    hub.open_loopback = False
    assert_problem(AppClient(hub).get("/v1/orders"), 401, "unauthorized")
    assert AppClient(hub).get("/healthz").status_code == 200


@pytest.mark.parametrize("path", [path for path, methods in HubApi(None, None).routes().items() if "GET" in methods])  # type: ignore[arg-type]
def test_every_address_but_health_and_openapi_wants_the_token(hub: FakeHub, path: str) -> None:
    answer = AppClient(hub, host="10.1.2.3").get(path.replace("{order:path}", "A-1"))
    if path in guard.OPEN_PATHS:
        assert answer.status_code == 200
    else:
        assert_problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("value", ["Bearer wrong", "Bearer", "Basic bHN0", f"bearer {TOKEN}x", "", f"Token {TOKEN}"])
def test_a_wrong_token_is_refused_even_on_loopback(client: AppClient, value: str) -> None:
    assert_problem(client.get("/v1/orders", headers={"authorization": value}), 401, "unauthorized")


def test_the_token_opens_from_anywhere(hub: FakeHub) -> None:
    client = AppClient(hub, host="10.1.2.3", name="hub.example")
    assert client.get("/v1/orders", headers=BEARER).status_code == 200
    assert client.post("/v1/events", json=EVENT, headers=BEARER).status_code == 201


def test_what_a_proxy_passes_on_is_not_loopback(client: AppClient) -> None:
    assert_problem(client.get("/v1/orders", headers={"x-forwarded-for": "10.1.2.3"}), 401, "unauthorized")


@pytest.mark.parametrize(
    ("name", "status"),
    [("127.0.0.1", 200), ("localhost", 200), ("[::1]", 200), ("evil.example", 403), ("127.0.0.1.evil.example", 403)],
)
def test_a_name_that_was_bent_to_loopback_is_refused(hub: FakeHub, name: str, status: int) -> None:
    assert AppClient(hub, name=name).get("/v1/orders").status_code == status


def test_another_sites_page_may_change_nothing(client: AppClient, hub: FakeHub) -> None:
    foreign = ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"})
    for headers in foreign:
        assert_problem(client.post("/v1/events", json=EVENT, headers=headers), 403, "forbidden")
    assert hub.store.totals()["facts"] == 0
    assert client.post("/v1/events", json=EVENT, headers={"origin": "http://127.0.0.1"}).status_code == 201


def test_a_browsers_own_word_counts_more_than_an_origin_that_a_policy_hides(client: AppClient) -> None:
    own = {"origin": "null", "sec-fetch-site": "same-origin"}
    assert client.post("/v1/events", json=EVENT, headers=own).status_code == 201


def test_a_person_reads_a_refusal_as_a_page(client: AppClient) -> None:
    answer = client.post("/sign-in", headers={"origin": "https://evil.example", "accept": "text/html"})
    assert (answer.status_code, answer.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert "A page of another site may not do this in your name." in answer.text


def test_the_cookie_reads_but_never_writes(hub: FakeHub) -> None:
    hub.open_loopback = False
    client = AppClient(hub)
    client.cookies.set(guard.COOKIE, TOKEN)
    assert client.get("/v1/orders").status_code == 200
    assert_problem(client.post("/v1/events", json=EVENT), 401, "unauthorized")


def test_every_answer_carries_the_policy(client: AppClient) -> None:
    for path in ("/v1/orders", "/v1/none", "/healthz", "/static/app.js"):
        answer = client.get(path)
        assert answer.headers["content-security-policy"] == CSP
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/v1/orders").headers["cache-control"] == "no-store"
