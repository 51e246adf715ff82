"""Who may call the LAN API: a token, or this very machine where the configuration says so."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from edge_agent.runtime import EdgeRuntime
from tests.unit.edge_agent.callers import TOKEN, problem, tell
from tests.unit.edge_agent.edges import event_json, stored


def test_health_is_open_and_everything_else_asks_for_a_token(tmp_path: Path) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        for path in ("/healthz", "/readyz", "/openapi.json"):
            assert (await client.get(path)).status_code == 200
        for path in ("/v1/status", "/v1/orders", "/v1/orders/A1", "/v1/quarantine", "/metrics", "/nothing"):
            answer = await client.get(path)
            assert "api.token" in problem(answer, 401)["remedy"]
            assert answer.headers["www-authenticate"].startswith("Bearer")
        problem(await client.post("/v1/events", json=event_json()), 401)
        assert stored(tmp_path) == []

    tell(tmp_path, story, token=None, peer="127.0.0.1")


@pytest.mark.parametrize(
    "header",
    ["Bearer wrong", "Bearer", "Basic abc", "", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"],
    ids=["another", "no token", "another scheme", "empty", "one too many", "one short"],
)
def test_a_wrong_token_is_refused_also_on_loopback(tmp_path: Path, header: str) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        problem(await client.get("/v1/status", headers={"authorization": header}), 401)

    tell(tmp_path, story, token=None, peer="127.0.0.1", loopback_without_token=True)


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {"host": "[::1]:8700"}, 200),
        ("127.0.0.1", {"host": "localhost"}, 200),
        ("192.168.1.7", {}, 401),
        ("127.0.0.1", {"x-forwarded-for": "8.8.8.8"}, 401),
        ("127.0.0.1", {"forwarded": "for=8.8.8.8"}, 401),
        ("127.0.0.1", {"host": "evil.example"}, 403),
        ("127.0.0.1", {"host": "[::1"}, 403),
    ],
)
def test_loopback_without_a_token_must_be_meant_for_loopback(tmp_path: Path, peer: str, headers: dict[str, str], status: int) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        assert (await client.get("/v1/status", headers=headers)).status_code == status

    tell(tmp_path, story, token=None, peer=peer, loopback_without_token=True)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:8700"}, 201),
        ({"sec-fetch-site": "same-origin"}, 201),
    ],
)
def test_another_sites_page_may_not_write_through_a_browser_on_this_machine(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    async def story(client: httpx.AsyncClient, runtime: EdgeRuntime) -> None:
        assert (await client.post("/v1/events", json=event_json(), headers=headers)).status_code == status

    tell(tmp_path, story, token=None, peer="127.0.0.1", loopback_without_token=True)
