"""Looks on all the while: who does not serve, for how long, and whether the hub says what it lacks while it lacks it."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.chaos.site import HUB
from tests.chaos.waiting import ask, until
from tests.real.plan import BROKER, KAFKA, POSTGRES
from tests.real.site import RealSite
from tests.support.patience import WITHIN_S

STEP_S: Final = 0.2
GRACE_S: Final = 1.0
"""what was on its way when the store went may still be told to edges"""
CHANCE: Final = 40
"""facts that an edge takes and the hub receives while the store is away: who settles without the store settles some of them"""
CHANCE_S: Final = 20.0
WORDS: Final[Mapping[str, str]] = {BROKER: "line to the broker", KAFKA: "bridge to Kafka", POSTGRES: "PostgreSQL"}
"""by what the hub names each of those that it cannot do without"""


@dataclass(slots=True)
class _Away:
    """A kind that is held down. `reason`: what the hub said of it, once it did."""

    since_s: float
    reason: str = ""
    named_s: float = 0.0


@dataclass(slots=True)
class _Told:
    """What an edge believes while the store is away. `asked`: facts it had taken when the hub had named the store; `settled`: what it
    believed settled when the hub had received more than those."""

    asked: int
    settled: int | None = None
    received: int = 0


class Watch:
    """Of a site for the length of a `with` block. `longest`: per service, the longest that it did not serve, in seconds; `naming`: per
    kind, the longest it was away unnamed, and `judged`: how many edges were seen to take facts for settled, or not, without the store."""

    def __init__(self, site: RealSite, name_within_s: float = WITHIN_S) -> None:
        self.site, self._name_within_s = site, name_within_s
        self.longest: dict[str, float] = {}
        self.naming: dict[str, float] = {}
        self.judged = 0
        self._since: dict[str, float] = {}
        self._away: dict[str, _Away] = {}
        self._told: dict[str, _Told] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    # ------------------------------------------------------------ what is done

    def went(self, kind: str) -> None:
        """All of a kind that the hub cannot do without are gone and stay away."""
        self._away[kind] = _Away(time.monotonic())

    def returns(self, kind: str) -> None:
        """They are to start again: once the hub has named them, and once a hub that settles without the store would have done it."""
        away = self._away.get(kind)
        if away is None:
            return
        until(lambda: bool(away.reason), self._name_within_s, step_s=STEP_S)
        if kind == POSTGRES:
            until(self._had_its_chance, CHANCE_S, step_s=STEP_S)
        del self._away[kind]
        away_s = time.monotonic() - away.since_s
        said = {"said": away.reason, "named_after": round(away.named_s, 1)}
        self.site.supervisor.journal.write("away", who=kind, seconds=round(away_s, 1), **said)
        self.naming[kind] = max(self.naming.get(kind, 0.0), away.named_s if away.reason else away_s)
        if not away.reason:
            self.site.supervisor.complain(f"readyz: {kind} was away for {away_s:.1f} s, and the hub did not name it")
        if kind == POSTGRES:
            self._judge_settled()

    def _had_its_chance(self) -> bool:
        return len(self._told) == len(self.site.nodes) and all(t.received >= t.asked + CHANCE for t in self._told.values())

    def _judge_settled(self) -> None:
        """Only the store's word settles, and it could not say one."""
        told, self._told = self._told, {}
        for node, before in told.items():
            now = self._stream_counts(node)
            if now is None or before.settled is None:
                continue
            self.judged += 1
            # Both hold: what was taken since cannot be in the store, and nothing more is settled than when the hub had more than that.
            more = now["settled"] - min(before.asked, before.settled)
            if more > 0:
                self.site.supervisor.complain(f"settled: {node} believes {more} facts more settled than before the store was away")

    # ------------------------------------------------------------ looking

    def _run(self) -> None:
        while not self._stop.wait(STEP_S):
            self._look()

    def _look(self) -> None:
        now_s, unready = time.monotonic(), self.site.unready()
        for name in unready:
            since = self._since.setdefault(name, now_s)
            self.longest[name] = max(self.longest.get(name, 0.0), now_s - since)
        self._since = {name: since for name, since in self._since.items() if name in unready}
        away = dict(self._away)
        if not away:
            return
        self._hear(away)
        store = away.get(POSTGRES)
        if store is not None and store.reason and now_s - store.since_s > GRACE_S:
            self._look_at_edges()

    def _hear(self, away: Mapping[str, _Away]) -> None:
        said = health(self.site.url(HUB))
        for kind, one in away.items():
            reason = next((r for r in said.get("reasons", ()) if WORDS[kind] in r), "")
            if reason and not said["ready"] and not one.reason:
                one.named_s, one.reason = time.monotonic() - one.since_s, reason

    def _look_at_edges(self) -> None:
        """A receipt for a fact that was taken after the hub had named the store says nothing that the store said before."""
        for node in self.site.nodes:
            counts = self._stream_counts(node)
            if counts is None:
                continue
            told = self._told.setdefault(node, _Told(counts["captured"]))
            told.received = counts["received"]
            if told.settled is None and told.received > told.asked:
                told.settled = counts["settled"]

    def _stream_counts(self, node: str) -> dict[str, int] | None:
        """Facts of orders that an edge has taken, that the hub has and that are settled; None when it does not say."""
        status = ask(f"{self.site.url(node)}/v1/status")
        if status is None:
            return None
        streams = [stream for stream in status["streams"] if stream["class"] == "orders"]
        captured, away, settled = (sum(stream[key] for stream in streams) for key in ("captured", "notReceived", "settled"))
        return {"captured": captured, "received": captured - away, "settled": settled}


def health(url: str) -> Any:
    """What `readyz` says, ready or not; {} when nobody answers."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2.0) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return json.loads(error.read())
    except (OSError, ValueError):
        return {}
