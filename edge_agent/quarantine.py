"""Putting right what was refused, at an edge: the handlers of the LAN API, and the same for the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import Response

from edge_agent.client import LocalApi
from edge_agent.core import EdgeCore, Now
from edge_agent.runtime import EdgeRuntime, system_now
from protocols.bodies import Bodies
from protocols.errors import InvalidInput, NotKnown
from protocols.event import EventDefaults, OrderEvent, load_json, parse_event
from protocols.ledger import Appended
from protocols.limits import BATCH_BYTES
from protocols.parameters import choice, page_size, query
from protocols.problem import NOT_FOUND, Problem
from protocols.quarantine import Item, discard, resubmit
from protocols.quarantine_view import STATES, list_json, parse_discard, parse_id, whole_json

if TYPE_CHECKING:
    from edge_agent.config import EdgeConfig

Json = dict[str, Any]
PATH: Final = "/v1/quarantine"


def take_resubmit(core: EdgeCore, now: Now, *, qid: int, event: OrderEvent) -> list[Appended]:
    """Inside a transaction. Also where the ledger is full: what is resolved no longer keeps it from being freed."""
    stamp = core.clock.recording(now)
    done = resubmit(core.ledger, qid, event, stamp.ms, clock=stamp.clock)
    core.clock.recorded([done], stamp, now)
    core.uplink.on_appended(now.mono)
    return [done]


def take_discard(core: EdgeCore, now: Now, *, qid: int, why: str, actor: str | None) -> list[Appended]:
    """Inside a transaction."""
    stamp = core.clock.recording(now)
    done = discard(core.ledger, qid, why, stamp.ms, actor=actor, clock=stamp.clock)
    core.uplink.on_appended(now.mono)
    return [done]


# ------------------------------------------------------------ the API


class QuarantineApi:
    """The handlers. `reply` renders an answer."""

    def __init__(self, runtime: EdgeRuntime, defaults: EventDefaults, bodies: Bodies, reply: Callable[..., Response]) -> None:
        self._runtime, self._defaults, self._bodies, self._reply = runtime, defaults, bodies, reply

    def table(self) -> tuple[tuple[str, str, Callable[[Request], Any]], ...]:
        """Addresses, methods, handlers."""
        return (
            (PATH, "GET", self.listed),
            (PATH + "/{id}", "GET", self.show),
            (PATH + "/{id}/resubmit", "POST", self.resubmit),
            (PATH + "/{id}/discard", "POST", self.discard),
        )

    async def listed(self, request: Request) -> Response:
        """Facts that the hub refused or that cannot be read here."""
        params = query(request.query_params.multi_items(), ("limit", "state"))
        return self._reply({"quarantine": list_json(self._runtime.core.ledger, page_size(params), choice(params, "state", STATES))})

    async def show(self, request: Request) -> Response:
        """One of them, with its bytes."""
        return self._reply(whole_json(self._runtime.core.ledger, self._item(request)))

    async def resubmit(self, request: Request) -> Response:
        """A new fact in the place of the refused one; answers once it is on disk."""
        item = self._item(request)
        async with self._bodies.json(request) as body:
            event = parse_event(body, defaults=self._defaults, now_ms=self._runtime.judging_ms())
            return await self._done(item, partial(take_resubmit, qid=item.qid, event=event))

    async def discard(self, request: Request) -> Response:
        """The refused fact is given up; answers once that is on disk."""
        item = self._item(request)
        async with self._bodies.json(request) as body:
            why, actor = parse_discard(body)
            return await self._done(item, partial(take_discard, qid=item.qid, why=why, actor=actor))

    def _item(self, request: Request) -> Item:
        item = self._runtime.core.ledger.quarantine_rows.get(parse_id(request.path_params["id"]))
        if item is None:
            raise Problem(NOT_FOUND, "Nothing in quarantine has this number.", remedy=f"List them: {PATH}")
        return item

    async def _done(self, item: Item, work: Callable[[EdgeCore, Now], list[Appended]]) -> Response:
        (fact,) = await self._runtime.act(work)
        return self._reply(resolved(self._runtime.core, item.qid, fact), 201)


def resolved(core: EdgeCore, qid: int, fact: Appended) -> Json:
    """What was written, and how the refused fact stands now."""
    item = core.ledger.quarantine_rows.get(qid)
    assert item is not None
    return {"factId": fact.fact_id, "item": whole_json(core.ledger, item)}


# ------------------------------------------------------------ the command line


def ls(held: EdgeCore | LocalApi, state: str | None, limit: int) -> Json:
    """The list, wherever it comes from."""
    if isinstance(held, LocalApi):
        return held.get(f"{PATH}?limit={limit}" + (f"&state={state}" if state else ""))
    return {"quarantine": list_json(held.ledger, limit, state)}


def show(held: EdgeCore | LocalApi, qid: int) -> Json:
    """One item. Errors: NotKnown."""
    if isinstance(held, LocalApi):
        return held.get(f"{PATH}/{qid}")
    item = held.ledger.quarantine_rows.get(qid)
    if item is None:
        raise NotKnown(f"Nothing in quarantine has the number {qid}.", remedy="List them: longshore-edge queue quarantine ls")
    return whole_json(held.ledger, item)


def put_right(config: EdgeConfig, held: EdgeCore | LocalApi, qid: int, file: str) -> Json:
    """Resubmit with the event in a file. Errors: InvalidInput, Conflict."""
    value = _read(file)
    now = system_now()
    judging_ms = now.wall if isinstance(held, LocalApi) else held.clock.judging_ms(now)
    event = parse_event(value, defaults=config.defaults, now_ms=judging_ms)
    if isinstance(held, LocalApi):
        return held.post(f"{PATH}/{qid}/resubmit", value)
    return _write(held, qid, partial(take_resubmit, qid=qid, event=event), now)


def give_up(held: EdgeCore | LocalApi, qid: int, why: str, actor: str | None) -> Json:
    """Discard. Errors: InvalidInput, Conflict."""
    said = {"reason": why} | ({"actor": actor} if actor else {})
    parse_discard(said)
    if isinstance(held, LocalApi):
        return held.post(f"{PATH}/{qid}/discard", said)
    return _write(held, qid, partial(take_discard, qid=qid, why=why, actor=actor), system_now())


def _write(core: EdgeCore, qid: int, work: Callable[[EdgeCore, Now], list[Appended]], now: Now) -> Json:
    core.begin()
    (fact,) = work(core, now)
    core.commit()
    return resolved(core, qid, fact)


def _read(file: str) -> object:
    remedy = "Give a file with one event, or - for standard input."
    try:
        with open(file, "rb") if file != "-" else open(0, "rb", closefd=False) as source:
            data = source.read(BATCH_BYTES + 1)
    except OSError as error:
        raise InvalidInput(file, f"cannot be read ({error.strerror}).", remedy=remedy) from None
    return load_json(data, "standard input" if file == "-" else file, remedy)


def list_text(found: Json) -> str:
    """For people."""
    if not found["quarantine"]:
        return "nothing is in quarantine"
    return "\n".join(
        f"{row['id']:>5}  {row['at']}  {row['state']:<11}  {row['factId']}  {row['reason']}{_pair(row)}" for row in found["quarantine"]
    )


def _pair(row: Json) -> str:
    return f"  -> {row['resolution']['factId']} by {row['resolution']['who']}" if row["resolution"] else ""


def item_text(row: Json) -> str:
    """One, for people."""
    lines = [f"{row['id']}: {row['factId']} of {row['author']}, {row['state']}", f"why    {row['reason']}", f"since  {row['at']}"]
    if row["ask"]:
        lines.append(f"next   {row['ask']}")
    if row["resolution"]:
        done = row["resolution"]
        lines.append(f"done   {done['factId']} by {done['who']} at {done['at']}{': ' + done['why'] if done['why'] else ''}")
    if row["event"] is not None:
        lines.append(f"event  {json.dumps(row['event'], ensure_ascii=False)}")
    lines.append(f"bytes  {row['bytes']}{' (cut)' if row['truncated'] else ''}: {row['hex']}")
    return "\n".join(lines)
