"""A projector's own small HTTP face: health, readiness, metrics. For probes on this machine; it says nothing of facts."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from typing import Any, Final

import uvicorn

from hub.claims import listen
from hub.facade import Metric
from hub.metrics_text import metrics_text
from hub.project import Projection

Send = Callable[[dict[str, Any]], Awaitable[None]]
_HELP: Final = {
    "batches_total": "Batches applied to the central store.",
    "applied_total": "Facts that the central store took.",
    "known_total": "Facts that it had already: the topic holds them twice.",
    "records_total": "Words of authors on holes.",
    "dead_total": "Records that could not be taken and are dead letters.",
    "fenced_total": "Batches that changed nothing, as another projector had taken over.",
    "store_errors_total": "Times the central store failed.",
}


def status(projection: Projection) -> dict[str, Any]:
    """What a projector says of itself, as JSON."""
    lag = projection.lag()
    return {
        "ready": not projection.error,
        "reasons": [projection.error] if projection.error else [],
        "partitions": [f"{place.topic}/{place.partition}" for place in projection.places()],
        "lag": sum(lag.values()),
        "rejoined": projection.rejoined_total,
        **asdict(projection.counts),
    }


def samples(projection: Projection) -> list[Metric]:
    """Every figure for Prometheus."""
    said = status(projection)
    found = [Metric(f"longshore_projector_{name}", text, "counter", {}, float(said[name])) for name, text in _HELP.items()]
    gauges = (
        ("ready", "1 while facts are applied as they come.", float(said["ready"])),
        ("partitions", "Partitions that the group gave to this projector.", float(len(said["partitions"]))),
        ("lag_records", "Records of these that are not applied yet.", float(said["lag"])),
    )
    found += [Metric(f"longshore_projector_{name}", text, "gauge", {}, value) for name, text, value in gauges]
    return [
        *found,
        Metric("longshore_projector_rejoined_total", "Times the group was joined again.", "counter", {}, float(said["rejoined"])),
    ]


@contextlib.asynccontextmanager
async def answering(projection: Projection, host: str, port: int) -> AsyncIterator[int]:
    """Listens for the length of the block; yields the port. Errors: ConfigError: it is taken."""
    listener = listen(host, port, "--listen", "The projector")

    async def app(scope: dict[str, Any], receive: object, send: Send) -> None:
        if scope["type"] == "http":
            await _answer(projection, str(scope["path"]), send)

    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, server_header=False, ws="none")
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        await serving
        listener.close()


class _Server(uvicorn.Server):
    """Leaves signals to the command."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Nothing to do."""
        yield


async def _answer(projection: Projection, path: str, send: Send) -> None:
    code, kind = 200, b"application/json"
    if path == "/metrics":
        body, kind = metrics_text(samples(projection)).encode(), b"text/plain; version=0.0.4; charset=utf-8"
    elif path == "/healthz":
        body = b'{"status":"ok"}'
    elif path == "/readyz":
        said = status(projection)
        code, body = 200 if said["ready"] else 503, json.dumps(said).encode()
    else:
        code, body = 404, b'{"title":"no such address","status":404}'
    await send({"type": "http.response.start", "status": code, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body})
