"""The LAN API of an edge: what the machines and people of a site speak to. A shell: bytes to events, the runtime's answers to JSON.

Handlers take the raw request; the way of an event from socket to ledger parses once and validates once. What may be called, by whom, and
what every refusal looks like is the same for all: see `Guard` and `problems`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from edge_agent import views
from edge_agent.conflicts import ConflictsApi
from edge_agent.guard import Guard
from edge_agent.metrics import exposition
from edge_agent.openapi import document
from edge_agent.quarantine import QuarantineApi
from edge_agent.runtime import EdgeRuntime
from edge_agent.syncing import SyncApi
from protocols.bodies import Bodies
from protocols.errors import LongshoreError
from protocols.event import EventDefaults, check_org, parse_batch
from protocols.ledger import Appended
from protocols.lifecycle import STATUS_NAMES, Status
from protocols.parameters import choice, page_size, query
from protocols.problem import BROKEN, MEDIA_TYPE, METHOD, NOT_FOUND, UNAVAILABLE, Kind, Problem, as_problem
from protocols.telemetry import parse_readings

log = logging.getLogger(__name__)

API_VERSION: Final = "v1"
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def create_app(
    runtime: EdgeRuntime,
    defaults: EventDefaults,
    *,
    token_hashes: Sequence[str] = (),
    loopback_without_token: bool = False,
    max_held_bytes: int = 16_000_000,
) -> Guard:
    """The application over a running edge. `defaults`: what an event means that does not say its org, region or site."""
    api = EdgeApi(runtime, defaults, max_held_bytes)
    handlers: dict[Any, Any] = dict.fromkeys((Problem, HTTPException, LongshoreError, Exception), render_error)
    app = Starlette(routes=api.routes(), exception_handlers=handlers)
    return Guard(app, token_hashes, loopback_without_token=loopback_without_token)


def reply(data: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON. A text may hold lone surrogates (JSON can write them); they come out as `?`."""
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(body, status, headers, media_type="application/json")


async def render_error(request: Request, error: Exception) -> Response:
    """Any error as a problem document; of one that nobody foresaw, the log has the trace and the caller nothing."""
    problem = _http_problem(error) if isinstance(error, HTTPException) else as_problem(error)
    if problem.kind is BROKEN:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return Response(problem.body(), problem.kind.status, problem.headers, media_type=MEDIA_TYPE)


def _http_problem(error: HTTPException) -> Problem:
    """What the router says about an address or a method."""
    headers = dict(error.headers or {})
    if error.status_code == 405:
        allowed = sorted(headers.get("Allow", "").split(", "))
        return Problem(METHOD, f"Allowed here: {', '.join(allowed)}.", headers=headers, allowed=allowed)
    if error.status_code == 404:
        return Problem(NOT_FOUND, "No such address; /openapi.json lists them all.", headers=headers)
    return Problem(Kind(f"http-{error.status_code}", error.status_code, "The request cannot be taken"), str(error.detail), headers=headers)


class EdgeApi:
    """The handlers, one per address."""

    def __init__(self, runtime: EdgeRuntime, defaults: EventDefaults, max_held_bytes: int) -> None:
        self._runtime, self._defaults = runtime, defaults
        self._bodies = Bodies(max_held_bytes, ClientDisconnect)
        self._quarantine = QuarantineApi(runtime, defaults, self._bodies, reply)
        self._conflicts = ConflictsApi(runtime, defaults, self._bodies, reply)
        self._sync = SyncApi(runtime, self._bodies, reply)

    def routes(self) -> list[Route]:
        """Addresses and methods; a test holds the OpenAPI document against them."""
        table: tuple[tuple[str, str, Callable[[Request], Any]], ...] = (
            ("/v1/events", "POST", self.post_events),
            ("/v1/orders", "GET", self.get_orders),
            ("/v1/orders/{id:path}", "GET", self.get_order),
            ("/v1/telemetry", "POST", self.post_telemetry),
            ("/v1/devices", "GET", self.get_devices),
            ("/v1/status", "GET", self.get_status),
            *self._quarantine.table(),
            *self._conflicts.table(),
            *self._sync.table(),
            ("/healthz", "GET", self.get_health),
            ("/readyz", "GET", self.get_ready),
            ("/metrics", "GET", self.get_metrics),
            ("/openapi.json", "GET", self.get_openapi),
        )
        return [Route(path, handler, methods=[method]) for path, method, handler in table]

    # ------------------------------------------------------------ events

    async def post_events(self, request: Request) -> Response:
        """Answers once everything is on disk: 201, or 200 where all of it was there already."""
        async with self._bodies.json(request) as body:
            events = parse_batch(body, defaults=self._defaults, now_ms=self._runtime.judging_ms())
            return _taken(await self._runtime.append(events))

    async def post_telemetry(self, request: Request) -> Response:
        """The same for what devices say of themselves."""
        async with self._bodies.json(request) as body:
            readings = parse_readings(body, now_ms=self._runtime.judging_ms())
            return _taken(await self._runtime.append_telemetry(readings))

    # ------------------------------------------------------------ orders

    async def get_orders(self, request: Request) -> Response:
        """A page of local truth."""
        params = query(request.query_params.multi_items(), ("status", "q", "conflict", "held", "cursor", "limit"))
        status = choice(params, "status", STATUS_NAMES)
        conflict = choice(params, "conflict", ("true", "false"))
        held = choice(params, "held", ("true", "false"))
        wanted = views.OrderQuery(
            None if status is None else Status[status],
            params.get("q"),
            None if conflict is None else conflict == "true",
            params.get("cursor"),
            page_size(params),
            None if held is None else held == "true",
        )
        page = views.list_orders(self._runtime.core.ledger, wanted)
        url = "" if page["cursor"] is None else str(request.url.include_query_params(cursor=page["cursor"]))
        return reply(page, headers={"link": f'<{url}>; rel="next"'} if url else None)

    async def get_order(self, request: Request) -> Response:
        """One order with its timeline. Its org is the node's own unless `org` says another."""
        org = check_org(query(request.query_params.multi_items(), ("org",)).get("org", self._defaults.org))
        core = self._runtime.core
        found = views.order_json(core.ledger, org, request.path_params["id"], core.clock.about_ms)
        if found is None:
            raise Problem(
                NOT_FOUND, f"No fact of such an order of {org} is here.", remedy="Search for a fragment of its id: /v1/orders?q=…"
            )
        return reply(found)

    # ------------------------------------------------------------ devices

    async def get_devices(self, request: Request) -> Response:
        """The latest reading per device and kind, a page of devices."""
        params = query(request.query_params.multi_items(), ("cursor", "limit"))
        page = views.list_devices(self._runtime.core.ledger, params.get("cursor"), page_size(params))
        url = "" if page["cursor"] is None else str(request.url.include_query_params(cursor=page["cursor"]))
        return reply(page, headers={"link": f'<{url}>; rel="next"'} if url else None)

    # ------------------------------------------------------------ the edge itself

    async def get_status(self, request: Request) -> Response:
        """Queue, oldest age, receipts, clock, disk, versions."""
        return reply(self._runtime.status() | {"api": API_VERSION})

    async def get_health(self, request: Request) -> Response:
        """The loop runs: it answered."""
        return reply({"healthy": True})

    async def get_ready(self, request: Request) -> Response:
        """Events would be taken. Whether the hub is in reach does not matter to that."""
        reasons = self._runtime.unready()
        if reasons:
            raise Problem(UNAVAILABLE, f"Not ready: {'; '.join(reasons)}.", headers={"retry-after": "1"}, reasons=reasons)
        return reply({"ready": True})

    async def get_metrics(self, request: Request) -> Response:
        """For Prometheus."""
        return Response(exposition(self._runtime), media_type=METRICS_TYPE)

    async def get_openapi(self, request: Request) -> Response:
        """This API, described."""
        return reply(document())


def _taken(done: Sequence[Appended]) -> Response:
    repeated = sum(one.repeated for one in done)
    body = {"ids": [one.fact_id for one in done], "accepted": len(done) - repeated, "repeated": repeated}
    return reply(body, 200 if repeated == len(done) else 201)
