"""`POST /v1/sync` and what belongs to it at an edge: peers come with frames for the hub and leave with what the hub said to them; who may
come; and everything that another may carry for this edge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from edge_agent.core import EdgeCore, Now
from edge_agent.peers import peer_json
from edge_agent.relay import Taken, Verdict
from edge_agent.runtime import EdgeRuntime
from protocols.bodies import Bodies
from protocols.parameters import query
from protocols.problem import FORBIDDEN, FULL, NOT_FOUND, Problem
from protocols.sync.parcel import MEDIA_TYPE, PARCEL_BYTES, parcel_of, parse_wait, write_parcel

PAGE_BYTES: Final = PARCEL_BYTES // 2
CURSOR_HEADER: Final = "longshore-cursor"


class SyncApi:
    """The handlers. `reply` renders JSON."""

    def __init__(self, runtime: EdgeRuntime, bodies: Bodies, reply: Callable[..., Response]) -> None:
        self._runtime, self._bodies, self._reply = runtime, bodies, reply

    def table(self) -> tuple[tuple[str, str, Callable[[Request], Any]], ...]:
        """Addresses, methods, handlers."""
        return (
            ("/v1/sync", "POST", self.sync),
            ("/v1/queue/frames", "GET", self.frames),
            ("/v1/peers", "GET", self.peers),
            ("/v1/peers", "POST", self.add_peer),
            ("/v1/peers/{node}", "DELETE", self.remove_peer),
        )

    async def sync(self, request: Request) -> Response:
        """Take what peers signed; answer, once it is on disk, with what waits for the caller. JSON where that is asked for: what became
        of each message."""
        params = query(request.query_params.multi_items(), ("node", "wait"))
        node, wait_s = params.get("node", ""), parse_wait(params)
        if node and self._runtime.core.relay.peers.get(node) is None:
            raise _stranger(f"{node} is no peer of this edge.")
        async with self._bodies.of_type(request, MEDIA_TYPE, PARCEL_BYTES) as body:
            payloads = parcel_of(body)
            taken = await self._runtime.act(lambda core, now: core.take_sync(payloads, now)) if payloads else []
        if "application/json" in request.headers.get("accept", ""):
            return self._reply(summary(taken))
        _raise_for(taken)
        if node:
            await self._runtime.mail.until(node, wait_s)
        mail = self._runtime.core.relay.mailboxes.take(node, PARCEL_BYTES // 2) if node else []
        return Response(write_parcel(mail), media_type=MEDIA_TYPE)

    async def frames(self, request: Request) -> Response:
        """A page of everything that another may carry for this edge, to be taken away."""
        params = query(request.query_params.multi_items(), ("cursor",))
        page = self._runtime.core.carry.page(params.get("cursor"), PAGE_BYTES)
        headers = {} if page.cursor is None else {CURSOR_HEADER: page.cursor}
        return Response(write_parcel(page.payloads), headers=headers, media_type=MEDIA_TYPE)

    async def peers(self, request: Request) -> Response:
        """Whose frames this edge carries."""
        query(request.query_params.multi_items(), ())
        return self._reply({"peers": [peer_json(card, added_ms) for card, added_ms in self._runtime.core.relay.peers.all()]})

    async def add_peer(self, request: Request) -> Response:
        """Admit a peer by its card, durable once answered."""
        query(request.query_params.multi_items(), ())
        async with self._bodies.json(request) as body:
            peer = await self._runtime.act(lambda core, now: add_peer(core, now, body))
        return self._reply(peer, 201)

    async def remove_peer(self, request: Request) -> Response:
        """Take nothing more of a peer."""
        node = request.path_params["node"]
        if not await self._runtime.act(lambda core, _: core.relay.peers.remove(node)):
            raise Problem(NOT_FOUND, f"{node} is no peer of this edge.", remedy="List them: /v1/peers")
        return self._reply({"removed": node})


def add_peer(core: EdgeCore, now: Now, card: object) -> dict[str, Any]:
    """Inside a transaction. Errors: InvalidInput."""
    peer = core.relay.peers.add(card, core.clock.ms(now))
    return next(peer_json(known, added_ms) for known, added_ms in core.relay.peers.all() if known.node == peer.node)


def summary(taken: Sequence[Taken]) -> dict[str, Any]:
    """What became of the messages, counted, and which were not taken and why."""
    counts = {verdict.value: sum(one.verdict is verdict for one in taken) for verdict in Verdict}
    bad = (Verdict.REFUSED, Verdict.STRANGER, Verdict.NO_ROOM)
    left = [{"index": i, "author": one.author, "reason": one.reason} for i, one in enumerate(taken) if one.verdict in bad]
    return {**counts, "newFacts": sum(one.new for one in taken), "left": left}


def _raise_for(taken: Sequence[Taken]) -> None:
    """What the caller has to do something about. What was damaged on the way is sent again anyway. Errors: Problem."""
    for one in taken:
        if one.verdict is Verdict.STRANGER:
            raise _stranger(f"{one.reason[:1].upper()}{one.reason[1:]}.")
    full = [one for one in taken if one.verdict is Verdict.NO_ROOM]
    if full:
        remedy = "Send it again later, or take it elsewhere: what was taken is known."
        raise Problem(FULL, f"{full[0].reason}: {len(full)} of {len(taken)} messages were not taken.", remedy=remedy)


def _stranger(detail: str) -> Problem:
    return Problem(FORBIDDEN, detail, remedy="Add its card here: longshore-edge peer add CARD.json")
