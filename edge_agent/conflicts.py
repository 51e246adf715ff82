"""Conflicts at an edge: the handlers of the LAN API, what an order tells of them, and the same for the command line.

Open ones follow from the facts that are here and the table of policies, as at the hub. They are settled here as there: by an event of this
node whose author has seen both, taken without any link.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from edge_agent.client import LocalApi
from edge_agent.core import EdgeCore
from edge_agent.runtime import EdgeRuntime, system_now
from protocols.bodies import Bodies
from protocols.clashes import Clash, State, clash_json, concurrent_json, credited, judged, notes_json, policies_json, read_clashes
from protocols.disputes import Watch
from protocols.errors import Conflict, NotKnown
from protocols.event import EventDefaults
from protocols.ledger import Ledger
from protocols.merge import ranked
from protocols.merged import totals
from protocols.orderbook import Order
from protocols.parameters import choice, page_size, query
from protocols.problem import CONFLICT, NOT_FOUND, Problem
from protocols.settling import Settlement, closed_words, parse_settlement, settlement_json

Json = dict[str, Any]
PATH: Final = "/v1/conflicts"
MOST: Final = 1_000
OF_AN_ORDER: Final = 100


# ------------------------------------------------------------ asking a ledger


def watch_of(ledger: Ledger) -> Watch:
    """Whoever keeps the conflicts of an edge's ledger."""
    assert ledger.book.watch is not None
    return ledger.book.watch


def list_json(ledger: Ledger, *, open_only: bool, limit: int) -> Json:
    """Conflicts, newest first, and the table that judged them."""
    ledger.flush()
    here = "okey IN (SELECT okey FROM orders WHERE followed = 1)"  # an order that left the scope is looked after elsewhere
    found = read_clashes(ledger.db, f"{here} AND state = 0" if open_only else here, (), f"cid DESC LIMIT {int(limit) + 1}")
    told = [one_json(ledger, clash) for clash in found[:limit]]
    return {"conflicts": told, "policies": policies_json(watch_of(ledger).policies), "bound": limit, "more": len(found) > limit}


def find(ledger: Ledger, clash_id: str) -> Clash | None:
    """The conflict of this name."""
    ledger.flush()
    return next(iter(read_clashes(ledger.db, "id = ?", (clash_id,), "cid")), None)


def name_of(ledger: Ledger, clash: Clash) -> tuple[str, str]:
    """(org, order id) of a conflict."""
    row = ledger.db.one("SELECT org, order_id FROM orders WHERE okey=?", (clash.okey,))
    assert row is not None
    return str(row[0]), str(row[1])


def one_json(ledger: Ledger, clash: Clash) -> Json:
    """One conflict with its task and its history."""
    return clash_json(clash, *name_of(ledger, clash))


def disputed_json(ledger: Ledger, order: Order) -> Json:
    """What an order adds to its state: hold, conflicts, what the table says of each pair that stands side by side, who is credited, notes,
    quantities."""
    watch = watch_of(ledger)
    kept = read_clashes(ledger.db, "okey = ?", (order.okey,), f"cid DESC LIMIT {OF_AN_ORDER}")
    heads = ranked(order.heads)
    told = {head.fact: watch.tell(order.okey, head, kept) for head in heads}
    facts = {head.fact: ledger.fact_of(order, *head.fact) for head in heads}
    details = [(told[fact], dict(row.details) if row is not None else {}) for fact, row in facts.items()]
    conflicts = [clash_json(clash, order.org, order.order_id) for clash in kept]
    return {
        "conflict": order.conflict,
        "held": order.held,
        "heldBecause": next((one["sentence"] for one in conflicts if one["held"]), None),
        "conflicts": conflicts,
        "concurrent": concurrent_json([verdict for verdict, _ in judged(watch.policies, heads, lambda head: told[head.fact])]),
        "credited": credited(list(told.values())),
        "notes": notes_json(details),
        "quantities": totals(order.counted),
    }


# ------------------------------------------------------------ the API


class ConflictsApi:
    """The handlers. `reply` renders an answer."""

    def __init__(self, runtime: EdgeRuntime, defaults: EventDefaults, bodies: Bodies, reply: Callable[..., Response]) -> None:
        self._runtime, self._defaults, self._bodies, self._reply = runtime, defaults, bodies, reply

    def table(self) -> tuple[tuple[str, str, Callable[[Request], Any]], ...]:
        """Addresses, methods, handlers."""
        return ((PATH, "GET", self.listed), (PATH + "/{id}", "GET", self.show), (PATH + "/{id}/settle", "POST", self.settle))

    async def listed(self, request: Request) -> Response:
        """Conflicts, newest first."""
        params = query(request.query_params.multi_items(), ("open", "limit"))
        open_only = choice(params, "open", ("true", "false")) == "true"
        return self._reply(list_json(self._ledger, open_only=open_only, limit=page_size(params, 200, MOST)))

    async def show(self, request: Request) -> Response:
        """One of them."""
        return self._reply(one_json(self._ledger, self._find(request)))

    async def settle(self, request: Request) -> Response:
        """Say what is true now, as a fact of this node whose author has seen both; answers once it is on disk."""
        clash = self._find(request)
        async with self._bodies.json(request) as body:
            event = _parsed(self._ledger, clash, body, self._defaults, self._runtime.now().wall)
            try:
                (done,) = await self._runtime.append([event])
            except Conflict as error:
                raise Problem(CONFLICT, _why_not(self._ledger, clash, error), remedy=error.remedy) from None
        return self._reply(settlement_json(event, clash, done.fact_id, repeated=done.repeated), 200 if done.repeated else 201)

    @property
    def _ledger(self) -> Ledger:
        return self._runtime.core.ledger

    def _find(self, request: Request) -> Clash:
        clash = find(self._ledger, request.path_params["id"])
        if clash is None:
            raise Problem(NOT_FOUND, "There is no conflict with this id here.", remedy=f"List them: {PATH}")
        return clash


def _parsed(ledger: Ledger, clash: Clash, said: object, defaults: EventDefaults, now_ms: int) -> Settlement:
    """Errors: InvalidInput; Conflict where it is closed, unless it may be a request that comes again."""
    event = parse_settlement(said, clash, *name_of(ledger, clash), defaults=defaults, now_ms=now_ms)
    if clash.state is not State.OPEN and event.idempotency_key is None:
        raise Conflict(closed_words(clash))
    return event


def _why_not(ledger: Ledger, clash: Clash, error: Conflict) -> str:
    now = find(ledger, clash.id)
    return error.reason if now is None or now.state is State.OPEN else closed_words(now)


# ------------------------------------------------------------ the command line


def ls(held: EdgeCore | LocalApi, *, open_only: bool) -> Json:
    """The list, wherever it comes from."""
    if isinstance(held, LocalApi):
        return held.get(PATH + ("?open=true" if open_only else ""))
    return list_json(held.ledger, open_only=open_only, limit=200)


def show(held: EdgeCore | LocalApi, clash_id: str) -> Json:
    """One of them. Errors: NotKnown."""
    if isinstance(held, LocalApi):
        return held.get(f"{PATH}/{quote(clash_id, safe='')}")
    return one_json(held.ledger, _existing(held, clash_id))


def settle(held: EdgeCore | LocalApi, clash_id: str, said: Json, defaults: EventDefaults) -> Json:
    """Through the edge that runs, or straight into its ledger. Errors: InvalidInput, NotKnown, Conflict, LedgerFull."""
    if isinstance(held, LocalApi):
        return held.post(f"{PATH}/{quote(clash_id, safe='')}/settle", said)
    clash, now = _existing(held, clash_id), system_now()
    event = _parsed(held.ledger, clash, said, defaults, now.wall)
    held.begin()
    (done,) = held.take_events([event], now)
    held.commit()
    return settlement_json(event, clash, done.fact_id, repeated=done.repeated)


def _existing(core: EdgeCore, clash_id: str) -> Clash:
    clash = find(core.ledger, clash_id)
    if clash is None:
        raise NotKnown(f"There is no conflict {clash_id[:40]!r} here.", remedy="List them: longshore-edge conflicts ls")
    return clash
