"""Callers of the LAN API for tests: through ASGI, from any address, with or without a token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from edge_agent.api import create_app
from edge_agent.core import EdgeSettings
from edge_agent.counts import Bounds
from edge_agent.runtime import EdgeRuntime
from protocols.problem import KINDS
from protocols.trust import new_token, token_hash
from tests.unit.edge_agent.edges import DEFAULTS, edge, run

TOKEN: Final = new_token()
Story = Callable[[httpx.AsyncClient, EdgeRuntime], Awaitable[None]]


@asynccontextmanager
async def client_of(
    runtime: EdgeRuntime, *, token: str | None = TOKEN, peer: str = "192.168.1.7", **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(runtime, DEFAULTS, token_hashes=[token_hash(TOKEN)], **options)
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(app=app, client=(peer, 5000))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8700", headers=headers) as client:
        yield client


def tell(folder: Path, story: Story, *, settings: EdgeSettings | None = None, bounds: Bounds | None = None, **options: Any) -> None:
    async def whole() -> None:
        async with edge(folder, settings=settings, bounds=bounds) as runtime, client_of(runtime, **options) as client:
            await story(client, runtime)

    run(whole())


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document of a refusal; its form is checked once for all."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    data: dict[str, Any] = answer.json()
    assert data["status"] == status
    assert data["title"]
    assert data["detail"]
    assert data["type"] in {f"urn:longshore:problem:{kind.slug}" for kind in KINDS}
    return data
