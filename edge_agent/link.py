"""What an edge says of its line to the hub: once per change in the log, and all of it in its status."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from protocols.transport.port import Down, Event, Transport, Up
from protocols.transport.refusals import Refusal, Seen

log = logging.getLogger(__name__)


class Link:
    """Remembers what was said last. `stopping`: whatever ends the line now is no news."""

    def __init__(self, stopping: Callable[[], bool]) -> None:
        self._stopping = stopping
        self._told = ""
        self._named: dict[tuple[str, str], None] = {}

    def tell(self, event: Event, protocol: str = "") -> None:
        """Once per change: an outage of a week is one line, not one per attempt. `protocol`: what the line speaks."""
        up, way = isinstance(event, Up), "over HTTP" if protocol == "HTTP" else "to the broker"
        said = f"connected {way}" if up else f"no line {way}: {event.reason}" if isinstance(event, Down) else ""
        if not said or said == self._told or self._stopping():
            return
        self._told = said
        more = "" if up else "; capturing goes on, trying again"
        log.log(logging.INFO if up else logging.WARNING, "%s%s", said, more)

    def name(self, refused: list[dict[str, Any]]) -> None:
        """Each thing that is refused is one line when it begins."""
        found = {(row["kind"], row["topic"]): None for row in refused}
        for row in refused:
            if (row["kind"], row["topic"]) not in self._named:
                log.warning(
                    "refused (%s)%s: %s. %s", row["kind"], f" on {row['topic']}" if row["topic"] else "", row["reason"], row["remedy"]
                )
        self._named = found

    def status(self, transport: Transport | None, link: dict[str, Any], now_ms: int) -> dict[str, Any]:
        """What `GET /v1/status` adds to what the core says of the line: protocol, problem, and what is refused."""
        connected = transport is not None and transport.connected
        refused = [seen.as_json() for seen in transport.refusals()] if transport is not None else []
        protocol = transport.protocol if transport is not None else ""
        if protocol != "HTTP":  # there the hub may be out of reach of who answers, and that is no refusal
            refused += _unanswered(link, now_ms)
        return {"problem": "" if connected else self._told, "protocol": protocol, "refusals": refused}


def _unanswered(link: dict[str, Any], now_ms: int) -> list[dict[str, Any]]:
    """What a broker took and of which nobody was heard: the only sign there is where it refuses in silence."""
    silent = link.get("unanswered")
    if not silent or not link["connected"]:
        return []
    missing = "and no receipt came" if silent["what"] == "frames" else "and the hub does not answer"
    reason = f"{silent['count']:,} {silent['what']} were sent in {silent['forMs'] // 1_000:,} s, {missing}"
    return [Seen(Refusal.UNANSWERED, "", reason, silent["count"], now_ms - silent["forMs"], now_ms).as_json()]


def lines(link: dict[str, Any]) -> list[str]:
    """What is refused, for people."""
    found = []
    for row in link.get("refusals") or []:
        where = f" on {row['topic']}" if row["topic"] else ""
        often = f", {row['count']:,} times since {row['since']}" if row["count"] > 1 else ""
        found.append(f"       REFUSED ({row['kind']}){where}: {row['reason']}{often}. {row['remedy']}")
    return found
