"""Conflicts below `/v1`: listed with what the table of policies says of them, told one by one, and settled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from hub import requests, views
from hub.facade import HubFacade
from hub.store.port import CentralStore, ConflictView
from protocols import parameters
from protocols.bodies import Bodies
from protocols.clashes import State
from protocols.errors import Conflict
from protocols.problem import CONFLICT, NOT_FOUND, Problem
from protocols.settling import Settlement, at_centre, closed_words, parse_settlement, settlement_json

CONFLICTS_MOST: Final = 1_000
SETTLEMENT_BYTES: Final = 32_768

Handler = Callable[[Request], Awaitable[Response]]


def standing(store: CentralStore, org: str, order_id: str) -> tuple[str | None, str | None]:
    """(region, site) at which an order stands: that which is shown, else of a fact that stands beside it, else the last one named."""
    shown = store.order(org, order_id)
    if shown is not None and shown.site is not None:
        return shown.region, shown.site
    named = [fact for fact in store.events(org, order_id) if fact.site is not None]
    where = [fact for fact in named if fact.is_head] or named
    return (where[-1].region, where[-1].site) if where else (None, None)


class ConflictsApi:
    """The handlers. `reply`: an object as a JSON response."""

    def __init__(self, facade: HubFacade, bodies: Bodies, reply: Callable[..., Response]) -> None:
        self._hub, self._bodies, self._reply = facade, bodies, reply

    def routes(self) -> dict[str, dict[str, Handler]]:
        """Handlers by path and method."""
        return {
            "/v1/conflicts": {"GET": self.conflicts},
            "/v1/conflicts/{id}": {"GET": self.conflict},
            "/v1/conflicts/{id}/settle": {"POST": self.settle},
        }

    async def conflicts(self, request: Request) -> Response:
        """Conflicts, newest first, and which table judged them."""
        params = requests.query(request, ("open", "limit"))
        limit = parameters.page_size(params, 200, CONFLICTS_MOST)
        open_only = requests.flag(params, "open") or False
        found = await asyncio.to_thread(lambda: self._hub.store.conflicts(open_only=open_only, limit=limit + 1))
        policies = await asyncio.to_thread(self._hub.store.judged_by)
        return self._reply(views.conflicts_json(found[:limit], policies) | {"bound": limit, "more": len(found) > limit})

    async def conflict(self, request: Request) -> Response:
        """One of them."""
        requests.query(request, ())
        return self._reply(views.conflict_json(await self._find(request)))

    async def settle(self, request: Request) -> Response:
        """Say what is true now, as a fact of this hub whose author has seen both; yes only after the sync."""
        requests.query(request, ())
        view = await self._find(request)
        async with self._bodies.json(request, SETTLEMENT_BYTES) as obj:
            event = parse_settlement(obj, view.clash, view.org, view.order_id, defaults=self._hub.defaults, now_ms=self._hub.now_ms())
            event = await self._placed(event)
            if view.clash.state is not State.OPEN and event.idempotency_key is None:
                raise Problem(CONFLICT, closed_words(view.clash))
            try:
                (done,) = await self._hub.append([event])
            except Conflict as error:
                raise Problem(CONFLICT, await self._why_not(view, error), remedy=error.remedy) from None
        return self._reply(settlement_json(event, view.clash, done.fact_id, repeated=done.repeated), 200 if done.repeated else 201)

    async def _placed(self, event: Settlement) -> Settlement:
        """The centre has no site of its own: the order stays where it stands."""
        return at_centre(event, *await asyncio.to_thread(standing, self._hub.store, event.org, event.order_id))

    async def _why_not(self, view: ConflictView, error: Conflict) -> str:
        """Who settled it, where the store knows that already."""
        now = await asyncio.to_thread(self._hub.store.conflict, view.clash.id)
        return error.reason if now is None or now.clash.state is State.OPEN else closed_words(now.clash)

    async def _find(self, request: Request) -> ConflictView:
        view = await asyncio.to_thread(self._hub.store.conflict, request.path_params["id"])
        if view is None:
            raise Problem(NOT_FOUND, "There is no conflict with this id here.", remedy="/v1/conflicts lists them.")
        return view
