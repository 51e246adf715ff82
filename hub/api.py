"""The hub's HTTP face: `/v1`, health, metrics and the pages. One handler per address; what it says comes from `views`, how it fails from
`problems`, who may call from `guard`. Handlers take the raw request: nothing is parsed or validated twice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from hub import problems, requests, views
from hub.api_backups import BackupsApi
from hub.conflicts_api import ConflictsApi
from hub.devices_api import DevicesApi
from hub.facade import HubFacade
from hub.guard import Guard
from hub.metrics_store import stored
from hub.metrics_text import metrics_text
from hub.openapi import document
from hub.quarantine import QuarantineApi
from hub.snapshot import Snapshots
from hub.store.port import OrderQuery, OrderView
from hub.stream import Listener
from hub.syncing import SyncApi
from hub.times import as_shown
from hub.web.pages import Pages
from protocols import limits, parameters
from protocols.bodies import Bodies
from protocols.errors import InvalidInput
from protocols.event import iso, parse_batch
from protocols.problem import AMBIGUOUS, NOT_FOUND, UNAVAILABLE, Problem

MAX_HELD_BYTES: Final = 32_000_000
CSV_ROWS: Final = 10_000
_CSV_PAGE: Final = 500
EVENTS_SHOWN: Final = 1_000
KEPT_SHOWN: Final = limits.REFUSED_KEPT
STREAMS_MOST: Final = 200
_PARSED_ASIDE_BYTES: Final = 65_536
"""a larger batch is parsed in a worker thread: the loop also answers edges"""
ORDER_PARAMETERS: Final = ("site", "status", "region", "jeopardy", "q", "cursor", "org", "conflict", "held", "limit", "format")
_JEOPARDY: Final = "Nothing scores orders yet: jeopardy arrives with the model."

Handler = Callable[[Request], Awaitable[Response]]


def create_app(facade: HubFacade, *, max_held_bytes: int = MAX_HELD_BYTES) -> FastAPI:
    """The application over a running hub. `max_held_bytes`: of request bodies, all together."""
    app = FastAPI(title="Longshore hub", openapi_url=None, docs_url=None, redoc_url=None)
    snapshots = Snapshots(facade)
    pages = Pages(facade, snapshots)
    for path, handlers in {**HubApi(facade, snapshots, max_held_bytes).routes(), **pages.routes()}.items():
        app.router.add_route(path, _by_method(handlers), methods=list(handlers), name=path, include_in_schema=False)
    problems.install(app, pages.problem)
    app.openapi = document  # type: ignore[method-assign]
    app.add_middleware(Guard, check_token=facade.check_token, page=pages.problem)
    return app


def _by_method(handlers: Mapping[str, Handler]) -> Handler:
    async def endpoint(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return endpoint


def reply(data: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON."""
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(body, status, headers, media_type="application/json")


async def find_order(facade: HubFacade, order_id: str, org: str | None) -> OrderView:
    """The order with this id, of `org` where it is given. Raises Problem: none, or several and nobody said which."""
    if org is not None:
        view = await asyncio.to_thread(facade.store.order, org, order_id)
        found = [] if view is None else [view]
    else:
        found = await asyncio.to_thread(facade.store.find, order_id)
    if not found:
        raise Problem(NOT_FOUND, "No order with this id has been heard of here.", remedy="Search for a fragment of it: /v1/orders?q=…")
    if len(found) > 1:
        orgs = sorted(view.org for view in found)
        remedy = "Say which: add ?org= to the address."
        raise Problem(AMBIGUOUS, "Several organisations have an order with this id.", field="org", allowed=orgs, orgs=orgs, remedy=remedy)
    return found[0]


def order_query(params: Mapping[str, str], limit: int, flags: tuple[bool | None, bool | None]) -> OrderQuery:
    """The store's question from checked parameters. `flags`: in conflict, on hold."""
    get = params.get
    return OrderQuery(get("site"), get("region"), get("status"), get("q"), get("org"), flags[0], get("cursor"), limit, flags[1])


class HubApi:
    """The handlers below /v1, and what machines ask for."""

    def __init__(self, facade: HubFacade, snapshots: Snapshots, max_held_bytes: int = MAX_HELD_BYTES) -> None:
        self._hub = facade
        self._snapshots = snapshots
        self._bodies = Bodies(max_held_bytes, ClientDisconnect)
        self._quarantine = QuarantineApi(facade, self._bodies, reply)
        self._conflicts = ConflictsApi(facade, self._bodies, reply)
        self._devices = DevicesApi(facade, reply)
        self._sync = SyncApi(facade, self._bodies, reply)

    def routes(self) -> dict[str, dict[str, Handler]]:
        """Handlers by path and method. OpenAPI describes exactly these (a test compares)."""
        return {
            "/v1/orders": {"GET": self.orders},
            "/v1/orders/{order:path}": {"GET": self.order},
            "/v1/fleet": {"GET": self.fleet},
            **self._devices.routes(),
            "/v1/workers": {"GET": self.workers},
            "/v1/balance": {"GET": self.balance},
            **self._conflicts.routes(),
            "/v1/stream": {"GET": self.stream},
            "/v1/events": {"POST": self.append},
            "/v1/nodes": {"GET": self.nodes, "POST": self.admit},
            "/v1/gaps": {"GET": self.gaps},
            "/v1/refused": {"GET": self.refused},
            "/v1/quarantine": {"GET": self.quarantine},
            **self._quarantine.routes(),
            "/v1/sync": {"POST": self._sync.sync},
            "/healthz": {"GET": self.healthz},
            "/readyz": {"GET": self.readyz},
            "/metrics": {"GET": self.metrics},
            "/openapi.json": {"GET": self.openapi},
            **BackupsApi(self._hub, self._bodies).routes(),
        }

    # ------------------------------------------------------------------ orders

    async def orders(self, request: Request) -> Response:
        """A page of the consolidated view, as JSON or CSV."""
        params = requests.query(request, ORDER_PARAMETERS)
        if "jeopardy" in params:
            raise InvalidInput("jeopardy", _JEOPARDY, remedy="Leave it out for now.")
        requests.status(params)
        flags = requests.flag(params, "conflict"), requests.flag(params, "held")
        if parameters.choice(params, "format", ("json", "csv")) == "csv":
            return await self._orders_csv(request, params, flags)
        page = await asyncio.to_thread(self._hub.store.orders, order_query(params, parameters.page_size(params), flags))
        listed = {"orders": [views.order_json(view) for view in page.orders], "cursor": page.cursor}
        return reply(listed, headers=_next(request, page.cursor))

    async def _orders_csv(self, request: Request, params: dict[str, str], flags: tuple[bool | None, bool | None]) -> Response:
        """Up to CSV_ROWS orders in one file, read before the first byte goes out: a fault half-way is an error, not a short file."""
        most = parameters.page_size(params, CSV_ROWS, CSV_ROWS)
        rows, cursor = await asyncio.to_thread(self._collect, params, flags, most)
        text = await asyncio.to_thread(views.orders_csv, rows)
        headers = {"content-disposition": 'attachment; filename="orders.csv"', "longshore-rows": str(len(rows))}
        return Response(text.encode("utf-8", "replace"), 200, {**headers, **_next(request, cursor)}, media_type="text/csv; charset=utf-8")

    def _collect(self, params: dict[str, str], flags: tuple[bool | None, bool | None], most: int) -> tuple[list[OrderView], str | None]:
        rows: list[OrderView] = []
        cursor = params.get("cursor")
        while True:
            here = {**params, "cursor": cursor} if cursor else {name: value for name, value in params.items() if name != "cursor"}
            page = self._hub.store.orders(order_query(here, min(_CSV_PAGE, most - len(rows)), flags))
            rows += page.orders
            cursor = page.cursor
            if cursor is None or len(rows) >= most:
                return rows, cursor

    async def order(self, request: Request) -> Response:
        """One order, or its timeline."""
        params = requests.query(request, ("org",))
        order_id, part = requests.order_and_part(request, "/v1/orders/", ("events", "jeopardy"))
        if part == "jeopardy":
            raise Problem(NOT_FOUND, _JEOPARDY)
        view = await find_order(self._hub, order_id, params.get("org"))
        if not part:
            disputed = await asyncio.to_thread(self._hub.store.disputed, view.org, view.order_id)
            return reply(views.order_json(view) | views.disputed_json(disputed))
        shifts = self._hub.shifts()
        events = await asyncio.to_thread(lambda: as_shown(self._hub.store.events(view.org, view.order_id), shifts))
        shown = [views.event_view_json(event) for event in events[-EVENTS_SHOWN:]]
        return reply({"org": view.org, "orderId": view.order_id, "events": shown, "total": len(events), "bound": EVENTS_SHOWN})

    async def append(self, request: Request) -> Response:
        """Events of source systems: yes only after the sync."""
        requests.query(request, ())
        async with self._bodies.json(request, limits.BATCH_BYTES) as obj:
            declared = request.headers.get("content-length", "")
            if declared.isdigit() and int(declared) <= _PARSED_ASIDE_BYTES:
                events = parse_batch(obj, defaults=self._hub.defaults, now_ms=self._hub.now_ms())
            else:
                events = await asyncio.to_thread(parse_batch, obj, defaults=self._hub.defaults, now_ms=self._hub.now_ms())
            taken = await self._hub.append(events)
        repeated = sum(one.repeated for one in taken)
        body = {"ids": [one.fact_id for one in taken], "accepted": len(taken) - repeated, "repeated": repeated}
        return reply(body, 200 if repeated == len(taken) else 201)

    # ------------------------------------------------------------------ nodes

    async def nodes(self, request: Request) -> Response:
        """The admitted nodes."""
        return self._listed(request, "nodes", self._hub.nodes(), lambda row: row)

    async def admit(self, request: Request) -> Response:
        """Admit a node by the card that its `init` printed. `org`: others that it may speak for, between commas."""
        params = requests.query(request, ("org",))
        orgs = [org.strip() for org in params["org"].split(",")] if "org" in params else None
        async with self._bodies.json(request, requests.CARD_BYTES) as card:
            return reply(await self._hub.admit(card, orgs), 201)

    async def workers(self, _request: Request) -> Response:
        """Who shares this hub's nodes."""
        return reply(self._hub.workers_json())

    async def fleet(self, request: Request) -> Response:
        """Every node, with what is not here yet."""
        seen = await self._snapshots.take()

        def render(row: views.FleetRow) -> views.Json:
            return views.fleet_json(row, seen.at_ms, seen.progress.get(row.node))

        return self._listed(request, "fleet", seen.fleet, render, asOf=iso(seen.at_ms))

    def _listed(self, request: Request, name: str, rows: Sequence[Any], render: Callable[[Any], Any], **more: Any) -> Response:
        params = requests.query(request, ("cursor", "limit"))
        shown, cursor = views.page_by_key(rows, "node", params.get("cursor"), parameters.page_size(params, 200))
        return reply({name: [render(row) for row in shown], "cursor": cursor, **more}, headers=_next(request, cursor))

    async def balance(self, request: Request) -> Response:
        """captured = settled + queued + in custody + quarantined + evicted, per node and in all."""
        requests.query(request, ())
        return reply(views.balance_json(self._hub.balance()))

    async def gaps(self, request: Request) -> Response:
        """What this hub knows that it does not have."""
        requests.query(request, ())
        return reply(views.gaps_json(self._hub.gaps(), self._hub.now_ms()))

    async def refused(self, request: Request) -> Response:
        """Frames kept as evidence, and names that the broker did not let in."""
        away = [views.kept_json(row) for row in self._hub.turned_away()]
        return self._kept(request, "refused", self._hub.refused(), turnedAway=away)

    async def quarantine(self, request: Request) -> Response:
        """Facts that stepped aside."""
        return self._kept(request, "quarantined", self._hub.quarantined())

    def _kept(self, request: Request, name: str, rows: Sequence[Any], **more: Any) -> Response:
        requests.query(request, ())
        shown = [views.kept_json(row) for row in rows[:KEPT_SHOWN]]
        return reply({name: shown, "bound": KEPT_SHOWN, "more": len(rows) > KEPT_SHOWN, **more})

    # ------------------------------------------------------------------ machines

    async def stream(self, request: Request) -> Response:
        """The live feed as server-sent events."""
        params = requests.query(request, ("after", "state"))
        feed = self._hub.feed
        if feed.closed or feed.listeners >= STREAMS_MOST:
            raise Problem(UNAVAILABLE, f"At most {STREAMS_MOST} streams are served at once.", headers={"retry-after": "5"})
        asked = request.headers.get("last-event-id") or params.get("after")
        start = feed.read_id(asked)
        with_state = parameters.choice(params, "state", ("1",)) is not None
        listener = Listener(feed, self._hub.now_ms, feed.newest if start is None else start, self._snapshots.state if with_state else None)
        lost = asked is not None and start is None
        return StreamingResponse(_encoded(listener.events(lost=lost)), media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def healthz(self, request: Request) -> Response:
        """The loop answers."""
        return reply({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """The hub can take and show facts."""
        health = self._hub.health()
        return reply(health, 200 if health["ready"] else 503)

    async def metrics(self, request: Request) -> Response:
        """Prometheus' text format."""
        samples = [*self._hub.metrics(), *await stored(self._snapshots)]
        return Response(metrics_text(samples), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, request: Request) -> Response:
        """This API as an OpenAPI 3.1 document."""
        return reply(document())


async def _encoded(text: AsyncIterator[str]) -> AsyncIterator[bytes]:
    async for piece in text:
        yield piece.encode("utf-8", "replace")


def _next(request: Request, cursor: str | None) -> dict[str, str]:
    if cursor is None:
        return {}
    url = request.url.include_query_params(cursor=cursor)
    return {"link": f'<{url.path}?{url.query}>; rel="next"'}
