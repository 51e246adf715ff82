"""The pages of Operational 360: fetch, let the presenters say it in words, fill a template. Everything a page shows is in its address.

They work without JavaScript. With it, parts marked `data-part` are fetched again when the stream says that something changed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import jinja2
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from hub import device_views, devices_api, requests, views, words
from hub.facade import HubFacade
from hub.guard import COOKIE, local_target
from hub.snapshot import Snapshot, Snapshots
from hub.store.port import Change, Disputed, EventView, OrderQuery, OrderView
from hub.times import as_shown
from hub.web import timeline
from hub.web.static_files import StaticFiles
from protocols import limits, parameters
from protocols.bodies import Bodies
from protocols.clashes import credited, notes_json
from protocols.event import iso
from protocols.lifecycle import STATUS_NAMES
from protocols.problem import AMBIGUOUS, NOT_FOUND, Problem
from protocols.provisioning import Device

FEED_SHOWN: Final = 25
TIMELINE_SHOWN: Final = 500
CONFLICTS_SHOWN: Final = 200
DEVICES_SHOWN: Final = 100
KEPT_SHOWN: Final = 200
FILTERS: Final = ("q", "site", "region", "status", "org", "conflict")
SIGN_IN_BYTES: Final = 4_096
SIGN_INS_HELD_BYTES: Final = 1_000_000
"""of all sign-ins at once: who has no token must not use up the room of those who have"""

_NOTHING_MORE: Final = {"field": "", "remedy": "", "allowed": (), "links": ()}
"""members of a problem that a page can do without"""

NAV: Final = (("/", "Overview"), ("/orders", "Orders"), ("/fleet", "Fleet"), ("/conflicts", "Conflicts"), ("/balance", "Balance"))

Handler = Callable[[Request], Awaitable[Response]]


class Pages:
    """The handlers of every page."""

    def __init__(self, facade: HubFacade, snapshots: Snapshots) -> None:
        self._hub = facade
        self._snapshots = snapshots
        self._bodies = Bodies(SIGN_INS_HELD_BYTES, ClientDisconnect)
        self._static = StaticFiles()
        self._templates = environment(self._static)

    def routes(self) -> dict[str, dict[str, Handler]]:
        """Handlers by path and method."""
        return {
            "/": {"GET": self.overview},
            "/orders": {"GET": self.orders},
            "/orders/{order:path}": {"GET": self.order},
            "/fleet": {"GET": self.fleet},
            "/devices": {"GET": self.devices},
            "/conflicts": {"GET": self.conflicts},
            "/balance": {"GET": self.balance},
            "/gaps": {"GET": self.gaps},
            "/quarantine": {"GET": self.quarantine},
            "/sign-in": {"GET": self.sign_in, "POST": self.signed_in},
            "/sign-out": {"POST": self.sign_out},
            "/static/{name}": {"GET": self._static.serve},
        }

    # ------------------------------------------------------------------ pages

    async def overview(self, request: Request) -> Response:
        """Totals, what is not here yet, the live feed."""
        feed_id = self._hub.feed.wire_id(self._hub.feed.newest)
        items = [json.loads(item.text) for item in self._hub.feed.recent(FEED_SHOWN) if item.kind == "change"]
        seen = await self._snapshots.take()
        if not items:
            items = [_as_change(view) for view in (await asyncio.to_thread(self._hub.store.orders, OrderQuery(limit=FEED_SHOWN))).orders]
        shown: dict[str, Any] = {"totals": seen.totals, "cards": cards(seen), "headline": views.fleet_headline(seen.fleet)}
        return self._page(request, "overview.html", "Overview", items=items, feed_id=feed_id, statuses=STATUS_NAMES, **shown)

    async def orders(self, request: Request) -> Response:
        """Search and filters, page by page."""
        params = requests.query(request, (*FILTERS, "cursor", "limit"))
        requests.status(params)
        get = params.get
        conflict, limit = requests.flag(params, "conflict"), parameters.page_size(params)
        query = OrderQuery(get("site"), get("region"), get("status"), get("q"), get("org"), conflict, get("cursor"), limit)
        page = await asyncio.to_thread(self._hub.store.orders, query)
        seen = await self._snapshots.take()
        filters: dict[str, str] = {name: params[name] for name in FILTERS if name in params}
        more = {**filters, "cursor": page.cursor} if page.cursor else {}
        return self._page(
            request, "orders.html", "Orders", orders=page.orders, paged="cursor" in params,
            filters=dict.fromkeys(FILTERS, "") | filters, filtered=bool(filters),
            next_url=f"/orders?{urlencode(more)}" if more else "", first_url=_with("/orders", filters),
            json_url=_with("/v1/orders", filters), csv_url=_with("/v1/orders", {**filters, "format": "csv"}),
            statuses=STATUS_NAMES, sites=sorted({row.site for row in seen.fleet}), regions=sorted({row.region for row in seen.fleet}),
        )  # fmt: skip

    async def order(self, request: Request) -> Response:
        """One order: status, promise, conflict, timeline."""
        params = requests.query(request, ("org",))
        order_id, _ = requests.order_and_part(request, "/orders/", ())
        found = await asyncio.to_thread(self._hub.store.find, order_id)
        here = [view for view in found if params.get("org") in (None, view.org)]
        if not here:
            raise Problem(NOT_FOUND, "No order with this id has been heard of here.", remedy="Search for a fragment of it.")
        if len(here) > 1:
            links = [{"url": views.order_url(view.org, view.order_id), "text": f"{view.order_id} of {view.org}"} for view in here]
            raise Problem(AMBIGUOUS, "Several organisations have an order with this id. Which one do you mean?", links=links)
        view = here[0]
        events, disputed = await asyncio.to_thread(self._timeline, view)
        return self._page(request, "order.html", view.order_id, **order_shown(view, events, disputed, self._hub.now_ms()))

    def _timeline(self, view: OrderView) -> tuple[list[EventView], Disputed]:
        events = as_shown(self._hub.store.events(view.org, view.order_id), self._hub.shifts())
        return events, self._hub.store.disputed(view.org, view.order_id)

    async def fleet(self, request: Request) -> Response:
        """Every node in one table."""
        seen = await self._snapshots.take()
        return self._page(request, "fleet.html", "Fleet", cards=cards(seen), headline=views.fleet_headline(seen.fleet))

    async def devices(self, request: Request) -> Response:
        """What gateways told of the devices around them."""
        params = requests.query(request, devices_api.PARAMS)
        limit = parameters.page_size(params, DEVICES_SHOWN)
        chosen: dict[str, str] = {name: params[name] for name in ("node", "state") if name in params}
        found = await self._hub.do(lambda core, _: devices_api.select(core, params, limit))
        seen, now_ms = await self._snapshots.take(), self._hub.now_ms()
        cursor = device_views.cursor_of(found, limit)
        return self._page(
            request, "devices.html", "Devices", rows=[device_row(d, now_ms) for d in found[:limit]],
            headline=device_views.headline([row.told for row in seen.fleet if row.told is not None]),
            filters={"node": "", "state": ""} | chosen, filtered=bool(chosen), states=device_views.SHOWN_STATES,
            nodes=[row.node for row in seen.fleet if row.told is not None], json_url=_with("/v1/devices", chosen),
            next_url=_with("/devices", {**chosen, "cursor": cursor}) if cursor else "",
        )  # fmt: skip

    async def conflicts(self, request: Request) -> Response:
        """What people must settle, and what they have settled."""
        params = requests.query(request, ("open",))
        open_only = requests.flag(params, "open") is not False
        found = await asyncio.to_thread(lambda: self._hub.store.conflicts(open_only=open_only, limit=CONFLICTS_SHOWN + 1))
        rows = [{"view": view, "url": views.order_url(view.org, view.order_id)} for view in found[:CONFLICTS_SHOWN]]
        return self._page(request, "conflicts.html", "Conflicts", rows=rows, open_only=open_only, more=len(found) > CONFLICTS_SHOWN)

    async def balance(self, request: Request) -> Response:
        """Does it close?"""
        balance = self._hub.balance()
        rows = [_balance_row(row) for row in balance["nodes"]]
        off = [row for row in rows if row["good"] is False]
        whole = _balance_row(balance["fleet"])
        shown: dict[str, Any] = {"fleet": whole, "rows": rows, "off": off, "alarms": balance.get("alarms", [])}
        return self._page(request, "balance.html", "Balance", as_of=balance["asOfMs"], **shown)

    async def gaps(self, request: Request) -> Response:
        """What this hub knows that it does not have."""
        seen = self._hub.gaps()
        shown = {"holes": seen["open"][:KEPT_SHOWN], "beyond": seen["beyond"][:KEPT_SHOWN], "closed": seen["closed"][:KEPT_SHOWN]}
        return self._page(request, "gaps.html", "Gaps", all_holes=seen["holes"], **shown)

    async def quarantine(self, request: Request) -> Response:
        """What stepped aside, and what was refused."""
        facts, frames = self._hub.quarantined(), self._hub.refused()
        shown: dict[str, Any] = {"facts": facts[:KEPT_SHOWN], "frames": frames[:KEPT_SHOWN], "away": self._hub.turned_away()}
        shown |= {"all_facts": len(facts), "all_frames": len(frames)}
        return self._page(request, "quarantine.html", "Quarantine", **shown)

    # ------------------------------------------------------------------ signing in

    async def sign_in(self, request: Request) -> Response:
        """The form; a signed-in caller is sent on."""
        return self._page(request, "sign_in.html", "Sign in", next=local_target(request.query_params.get("next", "/")), wrong=False)

    async def signed_in(self, request: Request) -> Response:
        """Keep the token in a cookie that scripts cannot read and other sites cannot send."""
        async with self._bodies.whole(request, SIGN_IN_BYTES) as data:
            sent = data.decode("utf-8", "replace")
        form = dict(parse_qsl(sent, max_num_fields=8))
        token, target = form.get("token", "").strip(), local_target(form.get("next", "/"))
        if not token or not self._hub.check_token(token, False):
            return self._page(request, "sign_in.html", "Sign in", 401, next=target, wrong=True)
        answer = RedirectResponse(target, 303)
        secure = self._hub.https or request.url.scheme == "https"
        answer.set_cookie(COOKIE, token, path="/", httponly=True, samesite="strict", secure=secure)
        return answer

    async def sign_out(self, request: Request) -> Response:
        """Forget the cookie."""
        answer = RedirectResponse("/sign-in", 303)
        answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return answer

    # ------------------------------------------------------------------ drawing

    def problem(self, request: Request, problem: Problem) -> Response:
        """A refusal as a page."""
        answer = self._page(request, "error.html", problem.kind.title, problem.kind.status, problem={**_NOTHING_MORE, **problem.document()})
        answer.headers.update(problem.headers)
        return answer

    def _page(self, request: Request, template: str, title: str, status: int = 200, **shown: Any) -> Response:
        now_ms = self._hub.now_ms()
        base = {
            "title": title,
            "nav": NAV,
            "path": request.url.path,
            "now_ms": now_ms,
            "q": request.query_params.get("q", ""),
            "signed_in": COOKIE in request.cookies,
            "org": self._hub.defaults.org,
        }
        return Response(self._templates.get_template(template).render({**base, **shown}), status, media_type="text/html; charset=utf-8")


def environment(static: StaticFiles) -> jinja2.Environment:
    """The templates: everything escaped, a missing name is an error, words as filters."""
    env = jinja2.Environment(
        loader=jinja2.PackageLoader("hub.web"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters.update(
        count=words.count, moment=words.moment, clock=words.clock, day=words.day, duration=words.duration, size=words.size,
        status=words.status_words, iso=iso, policy=timeline.policy_class,
    )  # fmt: skip
    env.globals.update(ago=words.ago, plural=words.plural, order_url=views.order_url, static=static.url, text_most=limits.TEXT_CHARS)
    return env


# ------------------------------------------------------------------ what templates get


@dataclass(frozen=True, slots=True)
class Card:
    """One node for the overview and the fleet table. `tone`: good, late (it owes us facts), away (out of reach), bad (a fork, refusals)."""

    row: views.FleetRow
    sentence: str
    tone: str
    state: str
    progress: views.Progress | None

    @property
    def draining(self) -> bool:
        """Whether there is progress to show: a node that is cut off makes none."""
        return self.progress is not None and self.progress.done > 0


def device_row(d: Device, now_ms: int) -> dict[str, Any]:
    """A device with its chips."""
    tone, state = device_views.state_chip(d)
    return {"device": d, "tone": tone, "state": state, "look": device_views.to_look_at(d, now_ms)}


def cards(seen: Snapshot) -> list[Card]:
    """Every node, those that need a look first."""
    out = []
    for row in seen.fleet:
        progress = seen.progress.get(row.node)
        tone, state = _tone(row, progress)
        out.append(Card(row, views.not_here_yet(row, seen.at_ms, progress), tone, state, progress))
    return sorted(out, key=lambda card: (_TONES.index(card.tone), card.row.node))


_TONES: Final = ("bad", "away", "late", "good")


def _tone(row: views.FleetRow, progress: views.Progress | None) -> tuple[str, str]:
    if not row.admitted:
        return "bad", "waits for admission"
    if row.forked:
        return "bad", "forked"
    if not row.online:
        return "away", "out of reach" if row.last_seen_ms is not None else "never seen"
    if progress is not None:
        return "late", "catching up"
    return "good", "in reach"


def order_shown(view: OrderView, events: list[EventView], disputed: Disputed, now_ms: int) -> dict[str, Any]:
    """What the page of an order shows; the newest fact comes first."""
    tone, promise = timeline.promise_words(view, events, now_ms)
    newest = events[::-1][:TIMELINE_SHOWN]
    facts = [{"event": event, "lags": timeline.lag_words(event), "details": _flat(event.details)} for event in newest]
    return {
        "view": view,
        "promise_tone": tone,
        "promise": promise,
        "steps": timeline.milestones(view, events),
        "disputed": disputed,
        "notes": notes_json(disputed.heads),
        "credited": credited([told for told, _ in disputed.heads]),
        "facts": facts,
        "all_facts": len(events),
        "links": views.order_json(view)["links"],
    }


def _flat(details: dict[str, Any], lead: str = "") -> list[tuple[str, str]]:
    """Details as lines of name and text; what is nested gets a dotted name, a list is written as JSON."""
    out: list[tuple[str, str]] = []
    for name, value in details.items():
        if isinstance(value, dict):
            out += _flat(value, f"{lead}{name}.")
        elif isinstance(value, str):
            out.append((lead + name, value))
        else:
            out.append((lead + name, json.dumps(value, ensure_ascii=False)))
    return out


def _as_change(view: OrderView) -> views.Json:
    """The state of an order in the shape of a feed item, for a page opened right after a restart."""
    change = Change(
        view.org, view.order_id, view.status, view.status, view.source, view.site, view.region, view.node, view.happened_ms,
        view.received_ms, view.conflict, True,
    )  # fmt: skip
    return views.change_json(change)


def _balance_row(row: views.BalanceRow) -> dict[str, Any]:
    evicted = [(reason, number) for reason, number in sorted(row["evicted"].items()) if number]
    good = views.is_balanced(row)
    sure = good is not None or row["captured"] == views.accounted(row)  # sums that are not known yet must not look like a false equation
    return {"row": row, "good": good, "sure": sure, "sentence": views.balance_sentence(row), "evicted": evicted}


def _with(path: str, params: dict[str, str]) -> str:
    return f"{path}?{urlencode(params)}" if params else path
