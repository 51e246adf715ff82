"""Looks on all the while: who does not serve, for how long, and whether the hub says what it lacks while it lacks it."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final

from tests.chaos.site import HUB
from tests.chaos.waiting import ask
from tests.real.plan import BROKER, KAFKA, POSTGRES
from tests.real.site import RealSite

STEP_S: Final = 0.2
GRACE_S: Final = 1.0
"""what was on its way when the store went may still be told to edges"""
WORDS: Final[Mapping[str, str]] = {BROKER: "line to the broker", KAFKA: "bridge to Kafka", POSTGRES: "PostgreSQL"}
"""by what the hub names each of those that it cannot do without"""


class Watch:
    """Of a site for the length of a `with` block. `longest`: per service, the longest that it did not serve, in seconds."""

    def __init__(self, site: RealSite) -> None:
        self.site = site
        self.longest: dict[str, float] = {}
        self._since: dict[str, float] = {}
        self._away: dict[str, float] = {}
        """kinds that are held down, and since when"""
        self._named: dict[str, str] = {}
        self._settled: dict[str, int] = {}
        """per edge, what it believed settled once the store was away for a moment"""
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
        self._named.pop(kind, None)
        self._away[kind] = time.monotonic()

    def returns(self, kind: str) -> None:
        """They are about to start again."""
        since = self._away.pop(kind, None)
        if since is None:
            return
        away_s = time.monotonic() - since
        self.site.supervisor.journal.write("away", who=kind, seconds=round(away_s, 1), said=self._named.get(kind, ""))
        if kind not in self._named:
            self.site.supervisor.complain(f"readyz: {kind} was away for {away_s:.1f} s, and the hub did not name it")
        if kind == POSTGRES:
            self._judge_settled()

    def _judge_settled(self) -> None:
        """Only the store's word settles, and it could not say one."""
        before, self._settled = self._settled, {}
        for node, settled in before.items():
            now = self._settled_at(node)
            if now is not None and now > settled:
                self.site.supervisor.complain(f"settled: {node} believes {now - settled} facts more settled than before the store was away")

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
        said = health(self.site.url(HUB))
        for kind in away:
            reason = next((r for r in said.get("reasons", ()) if WORDS[kind] in r), "")
            if reason and not said["ready"]:
                self._named.setdefault(kind, reason)
        if POSTGRES in away and now_s - away[POSTGRES] > GRACE_S:
            for node in self.site.nodes:
                settled = self._settled_at(node)
                if settled is not None:
                    self._settled.setdefault(node, settled)

    def _settled_at(self, node: str) -> int | None:
        status = ask(f"{self.site.url(node)}/v1/status")
        return None if status is None else sum(stream["settled"] for stream in status["streams"])


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
