"""Programs that use a site as scanners, source systems and people do: some hand over events, some look, all through lines that lie.

A writer asks one thing at a time of one node and notes each question and each answer in the history. With an idempotency key it asks
again until it knows; without, once. A reader looks at what must hold at any moment: who was told yes finds it there, and what was once to
be seen of an order at the centre is to be seen ever after.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

from tests.chaos.history import Entry, Wanted, What
from tests.chaos.init import ORG
from tests.chaos.journal import Journal
from tests.chaos.oracle import TOKEN

TIMEOUT_S: Final = 2.5
STATUSES: Final = (
    "PLACED", "APPROVED", "ALLOCATED", "PICKED", "PACKED", "SHIPPED", "IN_TRANSIT", "DELIVERED", "HELD", "CANCELLED", "RETURNED",
)  # fmt: skip
SOURCE: Final = "CHAOS"
HUB: Final = "hub"
GIVE_UP_TRIES: Final = 60
ORDERS: Final = 150
PAUSE_MS: Final = (10, 120)
"""of a writer between two requests"""


class Chronicle:
    """The history of a run as it grows; also in the journal. Methods may be called from any thread."""

    def __init__(self, journal: Journal) -> None:
        self.entries: list[Entry] = []
        self.said: dict[str, list[tuple[str, str]]] = {}
        """per node: (order, fact id) of what it said yes to"""
        self.lives: Counter[str] = Counter()
        """per node: how often it was put back to an earlier state; then it need not know old keys, nor show what it showed"""
        self.paused: dict[str, None] = {}
        """nodes that are asked nothing new for now"""
        self.open: Counter[str] = Counter()
        """per node: requests that are being asked now"""
        self.oks = 0
        """requests that were answered with yes"""
        self._journal = journal
        self._lock = threading.Lock()
        self._ops = 0

    def number(self) -> int:
        """Of a new request."""
        with self._lock:
            self._ops += 1
            return self._ops

    def note(self, entry: Entry) -> None:
        """One more line."""
        with self._lock:
            self.entries.append(entry)
            self.open[entry.node] += 1 if entry.what is What.INVOKE else -1
            self.oks += entry.what is What.OK
            self._journal.write("op", **entry.as_json())

    def put_back(self, node: str) -> None:
        """A node is about to be put back to an earlier state."""
        with self._lock:
            self.lives[node] += 1
            self.said[node] = []

    def told(self, node: str, pairs: list[tuple[str, str]]) -> None:
        """A node said yes to these (order, fact id)."""
        with self._lock:
            self.said.setdefault(node, []).extend(pairs)


class Http:
    """One client's line: a connection that is kept while it works."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._line: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """(status, JSON). Errors: OSError, HTTPException: no answer, or half of one."""
        line = self._line or http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
        self._line = None
        kept = False
        try:
            payload = None if body is None else json.dumps(body).encode()
            line.request(method, path, payload, {"Content-Type": "application/json"} if payload else {})
            answer = line.getresponse()
            data = answer.read()
            kept = not answer.will_close
        finally:
            if not kept:
                line.close()
        self._line = line if kept else None
        try:
            return answer.status, json.loads(data)
        except ValueError as error:
            raise http.client.HTTPException(f"half an answer: {data[:80]!r}") from error

    def close(self) -> None:
        """Give the connection back."""
        if self._line is not None:
            self._line.close()


@dataclass(eq=False)
class Writer:
    """See the module. `run` in a thread of its own until `stop`; a request with a key is then still asked to its end."""

    name: str
    node: str
    port: int
    seed: int
    chronicle: Chronicle
    stop: threading.Event
    abandon: threading.Event
    complain: Callable[[str], None]
    sites: Sequence[str] = ()
    """of which its events name one; empty: they leave that to the node"""
    pause_ms: tuple[int, int] = PAUSE_MS
    _n: int = 0
    _life: int = 0
    _old: list[tuple[int, list[dict[str, Any]]]] = field(default_factory=list)
    """requests with a key that were said yes to, for those who empty their buffer twice"""

    def run(self) -> None:
        """Ask and ask."""
        rng, line = Random(f"{self.seed}/{self.name}"), Http(self.port)
        try:
            while not self.stop.wait(rng.randint(*self.pause_ms) / 1_000):
                if self.node not in self.chronicle.paused:
                    self._request(rng, line)
        finally:
            line.close()

    def hand_over(self, requests: int) -> None:
        """So many, without a pause, in the thread of the caller."""
        rng, line = Random(f"{self.seed}/{self.name}"), Http(self.port)
        for _ in range(requests):
            self._request(rng, line)
        line.close()

    def _request(self, rng: Random, line: Http) -> None:
        keyed = rng.random() < 0.7
        life = self.chronicle.lives[self.node]
        if life != self._life:
            self._life, self._old = life, []
        if keyed and self._old and rng.random() < 0.2:
            op, events = rng.choice(self._old)
        else:
            op, events = self.chronicle.number(), [self._event(rng, keyed) for _ in range(rng.choice((1, 1, 1, 2, 5, 20)))]
        wanted = tuple(Wanted(e["details"][TOKEN], (ORG, e["orderId"], e["status"], SOURCE)) for e in events)
        for _ in range(GIVE_UP_TRIES if keyed else 1):
            self.chronicle.note(Entry(What.INVOKE, op, self.node, wanted))
            what = self._ask(op, line, events)
            if what is What.OK and keyed:
                self._old = [*self._old[-30:], (op, events)]
            if what is not What.INFO or self.abandon.wait(rng.uniform(0.05, 0.4)) or self.chronicle.lives[self.node] != life:
                return

    def _event(self, rng: Random, keyed: bool) -> dict[str, Any]:
        self._n += 1
        token = f"{self.name}.{self._n}"
        event = {
            "orderId": f"C{rng.randint(1, ORDERS):04}", "source": SOURCE, "status": rng.choice(STATUSES),
            "timestamp": datetime.now(UTC).isoformat(), "details": {TOKEN: token, "note": "x" * rng.randint(0, 60)},
        }  # fmt: skip
        if self.sites:
            event["site"] = rng.choice(self.sites)
        return event | ({"idempotencyKey": token} if keyed else {})

    def _ask(self, op: int, line: Http, events: list[dict[str, Any]]) -> What:
        try:
            status, said = line.ask("POST", "/v1/events", events)
        except (OSError, http.client.HTTPException):
            self.chronicle.note(Entry(What.INFO, op, self.node))
            return What.INFO
        if status in (200, 201):
            self.chronicle.note(Entry(What.OK, op, self.node, ids=tuple(said["ids"])))
            self.chronicle.told(self.node, [(e["orderId"], i) for e, i in zip(events, said["ids"], strict=False)])
            return What.OK
        if status == 503:  # busy, or broken while it was stored: it says itself that it does not know
            self.chronicle.note(Entry(What.INFO, op, self.node))
            return What.INFO
        self.chronicle.note(Entry(What.FAIL, op, self.node))
        self.complain(f"{self.node} answered {status} to a good request: {str(said)[:300]}")
        return What.FAIL


@dataclass(eq=False)
class Gauge:
    """A device that tells an edge its temperature: facts of another class, beside the orders. Without a history: the chains tell."""

    node: str
    port: int
    seed: int
    stop: threading.Event
    told: int = 0

    def run(self) -> None:
        """Tell and tell."""
        rng, line = Random(f"{self.seed}/gauge/{self.node}"), Http(self.port)
        try:
            while not self.stop.wait(rng.uniform(0.1, 0.6)):
                now = datetime.now(UTC).isoformat()
                reading = {
                    "device": f"g{rng.randint(1, 3)}",
                    "kind": "climate",
                    "timestamp": now,
                    "values": {"temperature": str(rng.randint(1, 30))},
                }
                try:
                    self.told += line.ask("POST", "/v1/telemetry", [reading])[0] == 201
                except (OSError, http.client.HTTPException):
                    continue
        finally:
            line.close()


@dataclass(eq=False)
class EdgeReader:
    """Looks up at an edge what that edge said yes to."""

    node: str
    port: int
    seed: int
    chronicle: Chronicle
    stop: threading.Event
    complain: Callable[[str], None]
    looked: int = 0

    def run(self) -> None:
        """Look and look."""
        rng, line = Random(f"{self.seed}/reader/{self.node}"), Http(self.port)
        try:
            while not self.stop.wait(rng.uniform(0.05, 0.3)):
                self.look(rng, line)
        finally:
            line.close()

    def look(self, rng: Random, line: Http) -> None:
        """One order, and all that had been said of it before the question."""
        life, said = self.chronicle.lives[self.node], list(self.chronicle.said.get(self.node, ()))
        if not said:
            return
        order = rng.choice(said[-200:])[0]
        try:
            status, found = line.ask("GET", f"/v1/orders/{order}")
        except (OSError, http.client.HTTPException):
            return
        if self.chronicle.lives[self.node] != life:
            return
        if status == 200:
            self._judge(order, [i for o, i in said if o == order], found)
        elif status != 503:
            self.complain(f"{self.node} answers {status} for {order}, of which it took facts")

    def _judge(self, order: str, said: list[str], found: dict[str, Any]) -> None:
        """A fact that is neither in the timeline nor a head was lost, or freed: then the order is still known by its heads."""
        self.looked += 1
        there = [f["factId"] for f in found["timeline"]]
        missing = [i for i in said if i not in there]
        lowest = min((_seq(i) for i in there if i.startswith(f"{self.node}/")), default=1 << 62)
        lost = [i for i in missing if _seq(i) > lowest]  # what was freed is the beginning of the stream
        if lost or not found["heads"]:
            self.complain(f"{self.node} shows {order} without {lost}, to which it said yes")


@dataclass(eq=False)
class HubReader:
    """Looks at orders at the centre: what was there once stays."""

    port: int
    seed: int
    chronicle: Chronicle
    stop: threading.Event
    complain: Callable[[str], None]
    seen: dict[str, dict[str, None]] = field(default_factory=dict)
    life: int = 0
    looked: int = 0

    def run(self) -> None:
        """Look and look."""
        rng, line = Random(f"{self.seed}/reader/hub"), Http(self.port)
        try:
            while not self.stop.wait(rng.uniform(0.05, 0.3)):
                self.look(f"C{rng.randint(1, ORDERS):04}", line)
        finally:
            line.close()

    def look(self, order: str, line: Http) -> None:
        """One order, beside what was seen of it before."""
        life = self.chronicle.lives[HUB]
        if life != self.life:
            self.seen, self.life = {}, life
        try:
            status, found = line.ask("GET", f"/v1/orders/{order}/events")
        except (OSError, http.client.HTTPException):
            return
        if self.chronicle.lives[HUB] != life:
            return
        before = self.seen.setdefault(order, {})
        if status == 200:
            self.looked += 1
            there = dict.fromkeys(e["factId"] for e in found["events"])
            gone = [i for i in before if i not in there]
            if gone and found["total"] <= found["bound"]:
                self.complain(f"the centre does not show {gone} of {order} any more")
            before |= there
        elif before and status != 503:
            self.complain(f"the centre answers {status} for {order}, of which it had shown facts")


def _seq(fact_id: str) -> int:
    return int(fact_id.split("/")[2])
