"""The handlers below /v1/quarantine/{id}."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from hub import requests
from hub.facade import HubFacade
from hub.quarantine_rows import give_up, look, put_right
from protocols.bodies import Bodies
from protocols.event import parse_event
from protocols.limits import BATCH_BYTES, TEXT_CHARS
from protocols.problem import NOT_FOUND, Problem
from protocols.quarantine_view import parse_discard, parse_id

Json = dict[str, Any]
PATH: Final = "/v1/quarantine"
_DISCARD_BYTES: Final = 8 * TEXT_CHARS + 4_096
_RESUBMIT_BYTES: Final = min(BATCH_BYTES, 262_144)


class QuarantineApi:
    """The handlers; `reply` renders an answer."""

    def __init__(self, facade: HubFacade, bodies: Bodies, reply: Callable[..., Response]) -> None:
        self._hub, self._bodies, self._reply = facade, bodies, reply

    def routes(self) -> dict[str, dict[str, Callable[[Request], Any]]]:
        """Handlers by path and method."""
        return {
            PATH + "/{id}": {"GET": self.show},
            PATH + "/{id}/resubmit": {"POST": self.resubmit},
            PATH + "/{id}/discard": {"POST": self.discard},
        }

    async def show(self, request: Request) -> Response:
        """One fact that stepped aside, with its bytes."""
        requests.query(request, ())
        qid = parse_id(request.path_params["id"])
        found = await self._hub.do(lambda core, _: look(core, qid))
        if found is None:
            raise Problem(NOT_FOUND, "Nothing in quarantine has this number.", remedy=f"List them: {PATH}")
        return self._reply(found)

    async def resubmit(self, request: Request) -> Response:
        """The hub puts a fact of its own right."""
        requests.query(request, ())
        qid = parse_id(request.path_params["id"])
        async with self._bodies.json(request, _RESUBMIT_BYTES) as value:
            event = parse_event(value, defaults=self._hub.defaults, now_ms=self._hub.now_ms())
            return self._reply(await self._hub.do(lambda core, now_ms: put_right(core, now_ms, qid, event), writes=True), 201)

    async def discard(self, request: Request) -> Response:
        """The hub gives up a fact of its own."""
        requests.query(request, ())
        qid = parse_id(request.path_params["id"])
        async with self._bodies.json(request, _DISCARD_BYTES) as value:
            why, actor = parse_discard(value)
            return self._reply(await self._hub.do(lambda core, now_ms: give_up(core, now_ms, qid, why, actor), writes=True), 201)
