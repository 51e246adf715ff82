"""`POST /v1/sync` at the hub: roaming nodes hand over signed messages and fetch what the hub said; an operator brings a stick."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from hub import requests
from hub.core import HubCore
from hub.facade import HubFacade
from hub.guard import basic, is_basic
from protocols.bodies import Bodies
from protocols.errors import DecodeError, InvalidInput
from protocols.problem import UNAUTHORIZED, Problem
from protocols.sync.parcel import MEDIA_TYPE, PARCEL_BYTES, parcel_of, parse_wait, write_parcel
from protocols.sync.seal import Control, unseal

Json = dict[str, Any]
VERDICTS: Final = ("new", "known", "taken", "waiting", "refused")
"""frame with new facts; frame of known ones; another message; of an author who is not admitted yet; damaged"""


class SyncApi:
    """The handler."""

    def __init__(self, facade: HubFacade, bodies: Bodies, reply: Callable[..., Response]) -> None:
        self._hub, self._bodies, self._reply = facade, bodies, reply

    async def sync(self, request: Request) -> Response:
        """Take signed messages, whoever brings them; answer with what waits for the node that asks. JSON where that is asked for: what
        became of each message, once it is on disk."""
        params = requests.query(request, ("node", "wait"))
        node, wait_s = await self._who(request, params.get("node", "")), parse_wait(params)
        async with self._bodies.of_type(request, MEDIA_TYPE, PARCEL_BYTES) as body:
            payloads = parcel_of(body)
            if "application/json" in request.headers.get("accept", ""):
                return self._reply(await self._hub.do(partial(take_imported, node, payloads)))
            mail = await self._hub.post.exchange(node, payloads, 0)
        if node and not mail and wait_s:
            mail = await self._hub.post.exchange(node, (), wait_s)
        return Response(write_parcel(mail), media_type=MEDIA_TYPE)

    async def _who(self, request: Request, said: str) -> str:
        """The node that signed in; "" for an operator, whose token the guard has checked. Errors: Problem, InvalidInput."""
        if not is_basic(request.headers):
            if said:
                raise InvalidInput("node", "is for nodes, which sign in with their name and password.", remedy="Leave it out.")
            return ""
        name, password = basic(request.headers)
        if not await self._hub.post.sign_in(name, password):
            remedy = "Sign in with the node's name and its broker password; `longshore-hub nodes add` admits a node."
            raise Problem(
                UNAUTHORIZED,
                "No admitted node has this name and password.",
                headers={"www-authenticate": 'Basic realm="longshore"'},
                remedy=remedy,
            )
        if said not in ("", name):
            raise InvalidInput("node", f"is {said}, and {name} signed in.", remedy="Leave it out.")
        return name


def take_imported(node: str, payloads: Sequence[bytes], core: HubCore, now_ms: int) -> Json:
    """Inside the hub's transaction: take each message as if it had come on a line, and say what became of it."""
    counts = dict.fromkeys(VERDICTS, 0)
    left: list[Json] = []
    new_facts = 0
    for i, payload in enumerate(payloads):
        verdict, reason, facts = _take(core, node, payload, now_ms)
        counts[verdict] += 1
        new_facts += facts
        if reason:
            left.append({"index": i, "author": _author(payload), "reason": reason})
    return {**counts, "newFacts": new_facts, "left": left}


def _take(core: HubCore, node: str, payload: bytes, now_ms: int) -> tuple[str, str, int]:
    author = _author(payload)
    known = core.registry.get(author) is not None or author == core.identity.node
    before = _newest_refused(core)
    done = core.take_message(node, payload, now_ms)
    after = _newest_refused(core)
    if after != before:
        return "refused", str(after["reason"]) if after is not None else "", 0
    if done is not None:
        return ("new" if done.new else "known"), "", done.new
    if author and not known:
        return "waiting", f"{author} is not admitted here yet; it is kept until then, within bounds", 0
    return "taken", "", 0


def _newest_refused(core: HubCore) -> Json | None:
    return next(iter(core.registry.refused(1)), None)


def _author(payload: bytes) -> str:
    try:
        opened = unseal(payload)
    except DecodeError:
        return ""
    return opened.author if isinstance(opened, Control) else opened[1].author
