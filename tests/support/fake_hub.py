"""A hub without sockets: the facade that the HTTP face asks, over a real SQLite store filled with a small, realistic day.

    hub = FakeHub(tmp_path)          # empty
    a_day_at_the_docks(hub)          # edges, orders, a conflict, a backlog, something in quarantine
    AppClient(hub).get("/v1/orders")

`python -m tests.support.fake_hub DIR PORT` serves it, with facts that keep coming: for looking at the pages.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

import httpx
import uvicorn

from hub.api import create_app
from hub.backup_register import Register, RegisterFiles
from hub.broker_access import NodeGrant
from hub.core import HubCore, HubIdentity
from hub.facade import Metric
from hub.post import Post
from hub.store.port import StoreFact
from hub.store.sqlite import SqliteStore
from hub.stream import Feed
from hub.times import Shifts
from hub.views import Balance, BalanceRow, FleetRow, change_json
from protocols import trust
from protocols.clock import Shift
from protocols.codec import pack
from protocols.errors import Conflict
from protocols.event import EventDefaults, OrderEvent, TimeQuality, format_time, parse_event
from protocols.fact import Context, chain, genesis, to_row
from protocols.ledger import Appended
from protocols.sqlite import Db
from protocols.streams import StreamKey

T = TypeVar("T")
NOW_MS: Final = 1_779_372_312_000
"""2026-05-21T14:05:12Z"""
TOKEN: Final = "lst_test-token"
EPOCH: Final = 0x51C3A9E2B7D01F44
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000


class Locked:
    """A store that worker threads and the test's own thread share: one call at a time."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*args: Any, **named: Any) -> Any:
            with self._lock:
                return method(*args, **named)

        return call


class FakeHub:
    """Implements `hub.facade.HubFacade`. Set the public attributes to stage a situation."""

    def __init__(self, folder: Path, *, open_loopback: bool = True, feed: Feed | None = None) -> None:
        self.store: Any = Locked(SqliteStore(folder / "store.db"))
        self.holes: dict[str, Any] = {"open": [], "beyond": [], "closed": [], "holes": 0, "facts": 0}
        self.register_files = RegisterFiles(folder / "backups.d")
        self.feed = feed or Feed(boot="t1")
        self.came: list[tuple[str, bytes]] = []
        self.heard: Callable[[str, bytes], object] | None = None
        self.grants: dict[str, NodeGrant] = {}
        self.is_full = False
        self.post: Post = Post(self.grants.get, self._came, lambda: self.is_full)
        self.defaults = EventDefaults("acme", "EMEA", "HQ")
        self.https = False
        self.open_loopback = open_loopback
        self.clock_ms = NOW_MS
        self.rows: list[FleetRow] = []
        self.sheet: Balance | None = None
        self.kept: list[dict[str, Any]] = []
        self.away: list[dict[str, Any]] = []
        self.core: HubCore | None = None
        self.told_shifts: dict[str, list[Shift]] = {}
        self.bad_facts: list[dict[str, Any]] = []
        self.cards: list[dict[str, Any]] = []
        self.reasons: list[str] = []
        self.samples: list[Metric] = []
        self.fails_with: Exception | None = None
        self._heads: dict[str, tuple[int, bytes]] = {}
        self._keys: dict[str, tuple[OrderEvent, Appended]] = {}

    # ------------------------------------------------------------------ facts

    def fact(self, node: str, event: OrderEvent, *, recorded_ms: int, received_ms: int, seen: Context | None = None) -> list[Any]:
        """Write one fact of a node into the store and tell the feed. Returns its entry for the context of later facts."""
        key = StreamKey(node, EPOCH, 0)
        seq, prev = self._heads.get(node, (0, genesis(*key)))
        row = pack(to_row(event, recorded_ms, seen or []))
        h = chain(prev, [row])[0]
        applied = self.store.apply([StoreFact(key, seq + 1, h, prev, row, received_ms)], [], received_ms)
        self._heads[node] = (seq + 1, h)
        for change in applied.changes:
            self.feed.publish("change", change_json(change), received_ms)
        return [node, EPOCH, seq + 1, h[:4]]

    async def append(self, events: list[OrderEvent]) -> list[Appended]:
        if self.fails_with is not None:
            raise self.fails_with
        return [self._append(event) for event in events]

    async def with_register(self, work: Callable[[Register], T]) -> T:
        return work(Register(self.store, self.register_files, self.clock_ms))

    def _append(self, event: OrderEvent) -> Appended:
        key = event.idempotency_key
        if key is not None and key in self._keys:
            before, appended = self._keys[key]
            if before != event:
                raise Conflict(f"idempotencyKey {key!r} was used for another event.")
            return appended._replace(repeated=True)
        self.fact("hub", event, recorded_ms=self.clock_ms, received_ms=self.clock_ms)
        seq, h = self._heads["hub"]
        appended = Appended(StreamKey("hub", EPOCH, 0), seq, h, False)
        if key is not None:
            self._keys[key] = (event, appended)
        return appended

    # ------------------------------------------------------------------ the rest of the facade

    def now_ms(self) -> int:
        return self.clock_ms

    def check_token(self, token: str | None, client_is_loopback: bool) -> bool:
        return token == TOKEN or (token is None and client_is_loopback and self.open_loopback)

    def _came(self, node: str, payload: bytes) -> bool:
        self.came.append((node, payload))
        if self.heard is not None:
            self.heard(node, payload)
            return True
        return len(self.came) < 50

    async def do(self, work: Callable[[HubCore, int], T], *, writes: bool = False) -> T:
        if self.core is None:
            key = trust.NodeKey.generate()
            identity = HubIdentity("acme", "central", "hub", key.public)
            self.core = HubCore(Db(":memory:"), identity, key.sign, trust.verify, Random(1))
            if self.bad_facts:
                self._one_of_its_own(self.core)
        self.core.begin()
        try:
            return work(self.core, self.clock_ms)
        finally:
            self.core.commit()

    def _one_of_its_own(self, core: HubCore) -> None:
        """A fact of the hub in quarantine, number 1."""
        core.begin()
        (done,) = core.ledger.append_all([event("H1", "PLACED", self.clock_ms)], self.clock_ms)
        core.ledger.quarantine(core.ledger.own().sid, done.seq, done.h, "refused elsewhere", self.clock_ms)
        core.commit()

    async def admit(self, card: object, orgs: Sequence[str] | None = None) -> dict[str, Any]:
        parsed = trust.parse_card(card)
        if any(one["node"] == parsed.node for one in self.cards):
            raise Conflict(f"The name {parsed.node} is taken by another key.", remedy="Choose another name.")
        place = {"org": parsed.org, "region": parsed.region, "site": parsed.site}
        admitted = {"node": parsed.node, **place, "fingerprint": parsed.fingerprint, "orgs": list(orgs or ())}
        self.cards.append(admitted)
        return admitted

    def nodes(self) -> list[dict[str, Any]]:
        return self.cards

    def fleet(self) -> list[FleetRow]:
        return self.rows

    def shifts(self) -> Shifts:
        return self.told_shifts

    def balance(self) -> Balance:
        return self.sheet or {"asOfMs": self.clock_ms, "fleet": balance_row("", 0), "nodes": []}

    def gaps(self) -> dict[str, Any]:
        return self.holes

    def refused(self) -> list[dict[str, Any]]:
        return self.kept

    def workers_json(self) -> dict[str, Any]:
        return {"worker": "", "held": 0, "heldOver": 0, "workers": [], "unheld": [], "troubles": []}

    def turned_away(self) -> list[dict[str, Any]]:
        return self.away

    def quarantined(self) -> list[dict[str, Any]]:
        return self.bad_facts

    def health(self) -> dict[str, Any]:
        line = {"connected": True, "protocol": "MQTT 5", "problem": "", "refusals": []}
        counts = ("backlog", "backlogAgeMs", "unsettled", "unsettledAgeMs", "produced", "producedAgain", "producers", "errors", "tooLarge")
        bridge = {"kind": "kafka", "up": True, "error": "", **dict.fromkeys(counts, 0)}
        return {"ready": not self.reasons, "reasons": self.reasons, "findings": [], "line": line, "bridge": bridge}

    def metrics(self) -> list[Metric]:
        return self.samples

    def close(self) -> None:
        self.feed.close()
        self.store.close()


def assert_problem(answer: httpx.Response, status: int, slug: str, **members: Any) -> dict[str, Any]:
    """The answer is an RFC 9457 document of this kind that tells nothing of our insides."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told: dict[str, Any] = answer.json()
    assert told["type"] == f"urn:longshore:problem:{slug}"
    assert told["status"] == status
    assert told["title"]
    assert told["detail"]
    assert "Traceback" not in answer.text
    assert {name: told.get(name) for name in members} == members
    return told


def card_of(node: str) -> dict[str, str]:
    password = trust.hash_password(trust.new_password(), n=2)
    return trust.make_card(trust.NodeKey.generate(), node=node, org="acme", region="EMEA", site="W1", password_hash=password)


# ---------------------------------------------------------------------- a day at the docks


def balance_row(node: str, captured: int, *, settled: int | None = None, queued: int = 0, quarantined: int = 0, **more: Any) -> BalanceRow:
    """Balanced unless `more` says otherwise."""
    evicted: dict[str, int] = more.get("evicted", {})
    in_custody = more.get("in_custody", 0)
    rest = captured - queued - quarantined - in_custody - sum(evicted.values())
    return {
        "node": node, "captured": captured, "settled": rest if settled is None else settled, "queued": queued,
        "inCustody": in_custody, "custody": {"events": 0, "bytes": 0, "oldestMs": None},
        "quarantined": quarantined, "quarantinedResolved": 0, "evicted": evicted, "balanced": more.get("balanced", True),
        "notHereYet": queued,
    }  # fmt: skip


def event(
    order_id: str, status: str, happened_ms: int | None, *, source: str = "WMS", site: str | None = "W8-Madrid", **more: Any
) -> OrderEvent:
    """An event through the same door as everybody's."""
    obj: dict[str, Any] = {"orderId": order_id, "status": status, "source": source, "site": site, **more}
    if happened_ms is None:
        obj["timeQuality"] = "unknown"
    else:
        obj["timestamp"] = format_time(happened_ms)
    return parse_event(obj, defaults=EventDefaults("acme", "EMEA", None), now_ms=NOW_MS)


PROMISE: Final = {"carrier": "DHL", "expectedDelivery": "2026-05-25T10:00:00Z", "customerTier": "GOLD", "weightKg": "12.50", "parcels": 3}
_SITES: Final = ("W8-Madrid", "W3-Lisbon", "X2-Lyon")
_STEPS: Final = ("PLACED", "ALLOCATED", "PICKED", "PACKED", "SHIPPED", "IN_TRANSIT", "DELIVERED")


def a_day_at_the_docks(hub: FakeHub, orders: int = 60) -> None:
    """Orders on their way, one in conflict, one with a lost clock; three edges, of which one is cut off and one catches up."""
    for n in range(orders):
        _one_order(hub, n)
    _a_conflict(hub, "SCMS-0259910")
    _a_lost_clock(hub, "SCMS-0259911")
    hub.rows = fleet()
    hub.sheet = {
        "asOfMs": NOW_MS,
        "fleet": balance_row("", 24_181, queued=4_412, in_custody=18, quarantined=1),
        "nodes": [
            balance_row("dock-7", 8_123, queued=412),
            balance_row("lyon-x2", 9_020, queued=4_000, in_custody=18),
            balance_row("madrid-8", 7_038, quarantined=1),
        ],
    }
    bad = {"node": "madrid-8", "reason": "kind 7 is not an order event", "atMs": NOW_MS - HOUR_MS}
    open_ = {
        "id": 1,
        "author": "madrid-8",
        "mine": False,
        "class": "orders",
        "state": "open",
        "resolution": None,
        "ask": "only madrid-8 can",
    }
    hub.bad_facts = [{"factId": f"madrid-8/{EPOCH:x}/214/9f3a01bc", **bad, **open_}]
    why = "the signature is not its claimed author's"
    hub.kept = [{"digest": "5d41402abc4b2a76", "node": "lyon-x2", "reason": why, "atMs": NOW_MS - 90_000, "bytes": 1_934}]
    gap = {"node": "madrid-8", "epoch": f"{EPOCH:x}", "class": 0, "branch": "9f3a01bc55d0e7c2", "asked": 14, "askedMs": NOW_MS - 40_000}
    hole = {**gap, "first": 215, "last": 1_240, "facts": 1_026, "sinceMs": NOW_MS - 3 * HOUR_MS}
    one = {**gap, "node": "lyon-x2", "first": 9, "last": 9, "facts": 1, "sinceMs": NOW_MS - 70_000, "asked": 0, "askedMs": None}
    more = {**gap, "node": "lyon-x2", "first": 9_021, "last": 13_020, "facts": 4_000, "sinceMs": NOW_MS - 9 * MINUTE_MS}
    ended = {**hole, "first": 100, "last": 130, "facts": 31, "closedMs": NOW_MS - 2 * HOUR_MS, "how": "data"}
    lost = {**one, "first": 40, "last": 44, "facts": 5, "closedMs": NOW_MS - 60_000, "how": "a record: lost"}
    hub.holes = {"open": [hole, one], "beyond": [more], "closed": [lost, ended], "holes": 2, "facts": 5_027}
    hub.samples = [
        Metric("longshore_hub_facts_total", "Facts applied.", "counter", {"node": "dock-7"}, 7_711),
        Metric("longshore_hub_facts_total", "Facts applied.", "counter", {"node": 'we"ird\\'}, 2),
        Metric("longshore_hub_feed_listeners", "Open streams.", "gauge", {}, 0.5),
    ]


def _one_order(hub: FakeHub, n: int) -> None:
    site, order_id = _SITES[n % 3], f"SCMS-{n * 7919 % 99991:06d}"
    node = ("madrid-8", "dock-7", "lyon-x2")[n % 3]
    began = NOW_MS - 5 * DAY_MS + n * 97 * MINUTE_MS
    seen: Context = []
    for step, status in enumerate(_STEPS[: 1 + n % len(_STEPS)]):
        at = began + step * 5 * HOUR_MS + n * 1_000
        source, actor = ("ERP", None) if step < 2 else ("WMS", f"staff-{n % 9}")
        one = event(order_id, status, at, source=source, site=site, actor=actor, details=PROMISE)
        seen = [hub.fact(node, one, recorded_ms=at + 900, received_ms=min(at + 2_300 + n * 40, NOW_MS), seen=seen)]


def _a_conflict(hub: FakeHub, order_id: str) -> None:
    at = NOW_MS - 4 * HOUR_MS
    placed = hub.fact("hub", event(order_id, "ALLOCATED", at, source="ERP", details=PROMISE), recorded_ms=at, received_ms=at)
    shipped = event(order_id, "SHIPPED", at + HOUR_MS, site="W3-Lisbon", actor="Ana", details={"pallet": {"id": "P-77", "layers": 4}})
    hub.fact("dock-7", shipped, recorded_ms=at + HOUR_MS + 800, received_ms=NOW_MS - 40_000, seen=[placed])
    at += 2 * HOUR_MS
    why = {"reason": "customer changed her mind"}
    cancelled = event(order_id, "CANCELLED", at, source="CRM", site=None, actor="service-desk", details=why)
    hub.fact("hub", cancelled, recorded_ms=at, received_ms=at, seen=[placed])


def _a_lost_clock(hub: FakeHub, order_id: str) -> None:
    unknown = event(order_id, "PICKED", None, site="X2-Lyon", actor="scanner-4")
    hub.fact("lyon-x2", unknown, recorded_ms=NOW_MS - 30_000, received_ms=NOW_MS - 20_000)
    late = event(order_id, "PACKED", 3_600_000, site="X2-Lyon", actor="scanner-4")
    assert late.quality is TimeQuality.IMPROBABLE
    hub.fact("lyon-x2", late, recorded_ms=NOW_MS - 9_000, received_ms=NOW_MS - 5_000)


def fleet() -> list[FleetRow]:
    """One cut off, one that catches up, one in step, one that is not admitted."""
    return [
        FleetRow("dock-7", "acme", "EMEA", "W3-Lisbon", "SHA256:qF3x9Zr0aW…", False, NOW_MS - 2 * MINUTE_MS, 140, 8_123, 7_711, 412,
                 1_900_000, 3 * HOUR_MS + 12 * MINUTE_MS, 7_711, 1_900_000, 0, 0, "0.1.0", 12_000_000_000),
        FleetRow("lyon-x2", "acme", "EMEA", "X2-Lyon", "SHA256:Hh81mmQe7d…", True, NOW_MS - 1_000, -4_200, 9_020, 5_020, 4_000, 96_000,
                 26 * HOUR_MS, 5_002, 120_000, 1, 0, "0.1.0", 800_000_000, incarnations=2, holes=1),
        FleetRow("madrid-8", "acme", "EMEA", "W8-Madrid", "SHA256:0pLk2vTz9s…", True, NOW_MS - 800, 12, 7_038, 7_038, 0, 0, None, 7_037,
                 0, 0, 0, "0.1.0", 41_000_000_000),
        FleetRow("porto-1", "acme", "EMEA", "W9-Porto", "SHA256:zz72kLm1Qx…", True, NOW_MS - 4_000, waiting=3, admitted=False),
    ]  # fmt: skip


# ---------------------------------------------------------------------- asked directly, and behind a real socket


class AppClient:
    """Asks the application over a hub without a socket; `host` is where the caller seems to be, `name` what it calls the hub."""

    def __init__(self, hub: FakeHub, *, host: str = "127.0.0.1", name: str = "127.0.0.1") -> None:
        self.cookies = httpx.Cookies()
        self._app = create_app(hub)
        self._host, self._base = host, f"http://{name}"

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """The whole answer; faults of the application come back as its own 500. Redirects are not followed, cookies are kept."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False, client=(self._host, 5000))
            async with httpx.AsyncClient(transport=transport, base_url=self._base, cookies=self.cookies) as client:
                answer = await client.request(method, path, **more)
                self.cookies = client.cookies
                return answer

        return asyncio.run(ask())

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def head(self, path: str, **more: Any) -> httpx.Response:
        return self.request("HEAD", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.request("POST", path, **more)

    def delete(self, path: str, **more: Any) -> httpx.Response:
        return self.request("DELETE", path, **more)


class Serving:
    """The application over a hub on a free port of loopback, in a thread of its own; `do` runs something on its loop's thread."""

    def __init__(self, hub: FakeHub, *, port: int = 0, **uvicorn_settings: Any) -> None:
        self.hub = hub
        self._socket = socket.create_server(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(create_app(hub), log_level="critical", lifespan="off", **uvicorn_settings))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="serving")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._server.serve(sockets=[self._socket]))

    def do(self, call: Callable[[], T]) -> T:
        async def inside() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(inside(), self._loop).result(10)

    def __enter__(self) -> Serving:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self.hub.feed.close)
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()


# ---------------------------------------------------------------------- for looking at it


async def _serve(folder: Path, port: int) -> None:
    """Real time, a fact every now and then, an edge that drains and begins again."""
    hub = FakeHub(folder)
    a_day_at_the_docks(hub)
    started = time.time()
    server = uvicorn.Server(uvicorn.Config(create_app(hub), host="127.0.0.1", port=port, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    for n in range(1_000_000):
        if serving.done():
            break
        hub.clock_ms = NOW_MS + int((time.time() - started) * 1_000)
        left = max(4_000 - (n * 40) % 4_400, 0)
        lyon = next(row for row in hub.rows if row.node == "lyon-x2")
        drained = replace(lyon, missing=left, received=9_020 - left, missing_bytes=left * 24, last_seen_ms=hub.clock_ms)
        hub.rows[hub.rows.index(lyon)] = drained
        one = event(f"LIVE-{n:05d}", _STEPS[n % 7], hub.clock_ms - 700, site=_SITES[n % 3], actor=f"staff-{n % 9}", details=PROMISE)
        hub.fact("madrid-8", one, recorded_ms=hub.clock_ms - 500, received_ms=hub.clock_ms)
        await asyncio.sleep(0.4)
    hub.close()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
