"""`/v1/backups`: the list of the central store's backups over HTTP, for `longshore-hub backup` and for other tools that copy the store.

Register first, copy then, and say when it is complete: what a backup lacks is kept elsewhere from the moment it is registered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hub import requests
from hub.backup_register import shown
from hub.facade import HubFacade
from protocols.bodies import Bodies
from protocols.errors import InvalidInput
from protocols.limits import TEXT_CHARS

BODY_BYTES: Final = 16_384
PLACE_CHARS: Final = 1_024
STATES: Final = ("complete", "expired")

Handler = Callable[[Request], Awaitable[Response]]


class BackupsApi:
    """The handlers. `bodies` bounds what callers may send."""

    def __init__(self, facade: HubFacade, bodies: Bodies) -> None:
        self._hub, self._bodies = facade, bodies

    def routes(self) -> dict[str, dict[str, Handler]]:
        """Handlers by path and method."""
        return {
            "/v1/backups": {"GET": self.listed, "POST": self.begin},
            "/v1/backups/retention": {"POST": self.retention},
            "/v1/backups/{id}": {"POST": self.change},
        }

    async def listed(self, request: Request) -> Response:
        """Every backup that is known."""
        requests.query(request, ())
        found = await self._hub.with_register(lambda register: register.all())
        return JSONResponse({"backups": [shown(b) for b in found]})

    async def begin(self, request: Request) -> Response:
        """Register one before its first byte is copied; durable when answered."""
        requests.query(request, ())
        async with self._bodies.json(request, BODY_BYTES) as body:
            tool, place = _text(body, "tool", TEXT_CHARS), _text(body, "place", PLACE_CHARS)
        backup = await self._hub.with_register(lambda register: register.begin(tool, place))
        return JSONResponse(shown(backup), 201)

    async def change(self, request: Request) -> Response:
        """It is complete, or it will never be restored."""
        requests.query(request, ())
        backup_id = str(request.path_params["id"])
        async with self._bodies.json(request, BODY_BYTES) as body:
            state = _text(body, "state", TEXT_CHARS)
        if state not in STATES:
            raise InvalidInput("state", "is not one that a backup can be brought to.", allowed=STATES)
        if state == "complete":
            first, *gone = await self._hub.with_register(lambda register: register.complete(backup_id))
        else:
            first, gone = await self._hub.with_register(lambda register: register.expire(backup_id)), []
        return JSONResponse({"backup": shown(first), "expired": [shown(b) for b in gone]})

    async def retention(self, request: Request) -> Response:
        """Expire what hub.toml does not keep."""
        requests.query(request, ())
        gone = await self._hub.with_register(lambda register: register.retention())
        return JSONResponse({"expired": [shown(b) for b in gone]})


def _text(body: object, name: str, most_chars: int) -> str:
    value: Any = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, str) or not 0 < len(value) <= most_chars or not value.isprintable():
        raise InvalidInput(name, f"must be text of 1 to {most_chars} characters.")
    return value
