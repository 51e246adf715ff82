"""`GET /v1/devices`: devices of the fleet by their latest readings, page by page; and the same for the page and the command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from hub import device_views, requests
from hub.core import HubCore
from hub.facade import HubFacade
from protocols import parameters
from protocols.provisioning import Device

Handler = Callable[[Request], Awaitable[Response]]
PARAMS = ("node", "state", "cursor", "limit")


class DevicesApi:
    """The handler. `reply`: an object as a JSON response."""

    def __init__(self, facade: HubFacade, reply: Callable[..., Response]) -> None:
        self._hub, self._reply = facade, reply

    def routes(self) -> dict[str, dict[str, Handler]]:
        """Handlers by path and method."""
        return {"/v1/devices": {"GET": self.devices}}

    async def devices(self, request: Request) -> Response:
        """By node and name."""
        params = requests.query(request, PARAMS)
        limit = parameters.page_size(params, 200)
        found = await self._hub.do(lambda core, _: select(core, params, limit))
        page = device_views.page_json(found, limit)
        headers = {}
        if page["cursor"] is not None:
            url = request.url.include_query_params(cursor=page["cursor"])
            headers["link"] = f'<{url.path}?{url.query}>; rel="next"'
        return self._reply(page, headers=headers)


def select(core: HubCore, params: Mapping[str, str], limit: int) -> list[Device]:
    """One more than `limit`, where there are. Errors: InvalidInput."""
    key, state = device_views.after(params.get("cursor")), device_views.check_state(params.get("state"))
    return core.ledger.devices.index().page(key, limit + 1, node=params.get("node"), state=state)
