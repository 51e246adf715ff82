"""What a broker refused, in words that people can act on: kinds, the reason codes that mean them, and a transport's books.

A refusal changes nothing about what is owed: what was refused is sent again, with back-off, until a receipt comes. The books only make it
visible, for as long as it lasts: an entry ends when the same passes, or when it was not seen again for a while.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from protocols.event import format_time


class Refusal(Enum):
    """What was refused, and by what. The values are words of status, logs and metrics."""

    CREDENTIALS = "credentials"
    CERTIFICATE = "certificate"
    CLOSED = "closed"
    ACL = "acl"
    TOO_LARGE = "too-large"
    QUOTA = "quota"
    NOBODY = "nobody"
    UNANSWERED = "unanswered"
    OTHER = "other"


REMEDIES: Final[dict[Refusal, str]] = {
    Refusal.CREDENTIALS: "Has `longshore-hub nodes add` seen this node's card? Mosquitto must then be told: `longshore-hub broker "
    "passwords`, `broker acl`. At a hub: check broker.username and broker.password_file.",
    Refusal.CERTIFICATE: "Check the broker's certificate, its name in the address, and ca_file here.",
    Refusal.CLOSED: "Look into the broker's log: it may have reached max_connections, or want a certificate of its clients.",
    Refusal.ACL: "Write the broker's rules anew (longshore-hub broker acl) and reload it.",
    Refusal.TOO_LARGE: "Raise max_packet_size at the broker to 132000; until then frames are cut smaller.",
    Refusal.QUOTA: "The broker is at a limit of its own: see its log, its memory_limit and its queue limits.",
    Refusal.NOBODY: "No hub listens at this broker: is it running, connected, and allowed to read?",
    Refusal.UNANSWERED: "A broker may refuse in silence (MQTT 3.1.1), or drop for a slow hub: check its ACL, its log, and `nodes ls`.",
    Refusal.OTHER: "See the broker's log.",
}

_CODES: Final[dict[int, Refusal]] = {
    0x10: Refusal.NOBODY,
    0x86: Refusal.CREDENTIALS, 0x8A: Refusal.CREDENTIALS, 0x8C: Refusal.CREDENTIALS,
    0x87: Refusal.ACL, 0x90: Refusal.ACL,
    0x95: Refusal.TOO_LARGE,
    0x88: Refusal.QUOTA, 0x89: Refusal.QUOTA, 0x93: Refusal.QUOTA, 0x96: Refusal.QUOTA, 0x97: Refusal.QUOTA, 0x9F: Refusal.QUOTA,
}  # fmt: skip
"""Reason codes of MQTT 5 (2.4). 0x87, not authorised, is about a topic, unless a connection is refused with it."""
UNSUPPORTED_VERSION: Final = 0x84


def of_publish(code: int) -> Refusal | None:
    """What the reason code of an acknowledgement says; None: nothing was refused."""
    return None if code < 0x80 and code != 0x10 else _CODES.get(code, Refusal.OTHER)


def of_connection(code: int) -> Refusal:
    """What the reason code of a CONNACK that refuses, or of a broker's DISCONNECT, says."""
    return Refusal.CREDENTIALS if code == 0x87 else _CODES.get(code, Refusal.OTHER)


KEPT: Final = 64
QUIET_MS: Final = 600_000
"""what was not seen again for so long is over"""


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing that is being refused. `topic` is empty where a connection is; `size_bytes`: the smallest that was refused there."""

    kind: Refusal
    topic: str
    reason: str
    count: int
    since_ms: int
    last_ms: int
    size_bytes: int = 0

    def as_json(self) -> dict[str, Any]:
        """As status shows it."""
        shown: dict[str, Any] = {"kind": self.kind.value, "topic": self.topic, "reason": self.reason, "count": self.count}
        return shown | {"since": format_time(self.since_ms), "last": format_time(self.last_ms), "remedy": REMEDIES[self.kind]}


class Refusals:
    """A transport's books: written in its thread, read from any. Bounded: of too many entries the one seen longest ago goes."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._open: dict[tuple[Refusal, str], Seen] = {}
        self._totals = dict.fromkeys(Refusal, 0)

    def note(self, kind: Refusal, reason: str, topic: str = "", size_bytes: int = 0) -> None:
        """It was refused (again)."""
        now_ms, key = self._now_ms(), (kind, topic)
        with self._lock:
            self._totals[kind] += 1
            before = self._open.pop(key, None)
            if before is None:
                self._open[key] = Seen(kind, topic, reason, 1, now_ms, now_ms, size_bytes)
            else:
                least = min(before.size_bytes, size_bytes)
                self._open[key] = replace(before, reason=reason, count=before.count + 1, last_ms=now_ms, size_bytes=least)
            if len(self._open) > KEPT:
                del self._open[next(iter(self._open))]

    def passed(self, topic: str, size_bytes: int, but: Refusal | None = None) -> None:
        """The broker took a message and said so: what it refused there before is over, if that was no larger. `but`: all else is."""
        if self._open:
            with self._lock:
                for key in [k for k, seen in self._open.items() if k[1] == topic and k[0] is not but and seen.size_bytes <= size_bytes]:
                    del self._open[key]

    def entered(self) -> None:
        """A connection is up: whatever kept it down is over."""
        with self._lock:
            for key in [k for k in self._open if not k[1]]:
                del self._open[key]

    def seen(self) -> tuple[Seen, ...]:
        """What is being refused now, the latest last."""
        now_ms = self._now_ms()
        with self._lock:
            return tuple(seen for seen in self._open.values() if now_ms - seen.last_ms < QUIET_MS)

    def totals(self) -> dict[str, int]:
        """How often, by kind, since the start."""
        with self._lock:
            return {kind.value: count for kind, count in self._totals.items()}
