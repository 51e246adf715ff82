"""Who may enter the embedded broker, and what they may do there. Knows nothing of MQTT or of the library that speaks it.

Passwords are kept as scrypt hashes, which are slow on purpose. So they are computed off the event loop, by few threads, with a bounded
queue; and a password that was right is remembered, for this process only, as an HMAC under a key that never leaves it. A herd of nodes
that reconnects costs microseconds each.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from protocols.errors import InvalidInput
from protocols.topics import Access, Rule, allows, check_node, hub_acl
from protocols.trust import password_matches

HUB_USER: Final = "longshore:hub"
"""No node can have this name: a node's has no colon."""

UNKNOWN_NODE: Final = "unknown node; if it is yours, admit it: longshore-hub nodes add CARD"

_HASHING_THREADS: Final = 2
_HASHING_WAITS: Final = 256
"""Logins that may wait for a hash. Beyond it they are refused and try again by their own back-off."""
_REMEMBERED: Final = 16_384
_VERDICTS: Final = 256


@dataclass(frozen=True, slots=True)
class NodeGrant:
    """What the registry says of a node: the hash of its broker password, and its access rules (`protocols.topics.node_acl`)."""

    password_hash: str
    rules: tuple[Rule, ...]


Lookup = Callable[[str], NodeGrant | None]
"""From a node id to its grant; None for a node that is not admitted. Called on the broker's loop: it must not block."""


@dataclass(slots=True)
class Member:
    """One connection that was let in. Remembers the verdicts of its rules, because they are asked for on each message."""

    name: str
    rules: tuple[Rule, ...]
    is_hub: bool = False
    _verdicts: dict[tuple[Access, str], bool] = field(default_factory=dict)

    def may(self, access: Access, topic: str) -> bool:
        """Whether the rules allow this access to a topic or a topic filter."""
        verdict = self._verdicts.get((access, topic))
        if verdict is None:
            if len(self._verdicts) >= _VERDICTS:
                self._verdicts.clear()
            verdict = self._verdicts[access, topic] = allows(self.rules, access, topic)
        return verdict


class Gatekeeper:
    """Answers logins. `hub_secret` is made anew at each start and never written anywhere; empty: the hub does not come this way."""

    def __init__(self, lookup: Lookup, hub_rules: Sequence[Rule] | None = None, hub_secret: str = "") -> None:
        self._hub_secret = hub_secret
        self._lookup = lookup
        self._hub_rules = tuple(hub_acl() if hub_rules is None else hub_rules)
        self._threads = ThreadPoolExecutor(_HASHING_THREADS, thread_name_prefix="broker-password")
        self._waiting = 0
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()

    def close(self) -> None:
        """End the threads. Idempotent."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def admit_hub(self, username: str, password: str) -> Member | str:
        """The hub itself, or why not."""
        right = bool(self._hub_secret) and hmac.compare_digest(password.encode(), self._hub_secret.encode())
        return Member(HUB_USER, self._hub_rules, is_hub=True) if right and username == HUB_USER else "wrong hub secret"

    async def admit_node(self, username: str, password: str) -> Member | str:
        """A node by its id and password, or why not (for the log: the client hears only that it was refused)."""
        grant = self._lookup(username)
        if grant is None:
            return UNKNOWN_NODE
        try:
            right = await self._matches(username, password, grant.password_hash)
        except InvalidInput as error:
            return f"the stored {error}"
        return Member(username, grant.rules) if right else "wrong password"

    async def _matches(self, username: str, password: str, encoded: str) -> bool:
        mark = hmac.digest(self._key, "\0".join((username, encoded, password)).encode("utf-8", "surrogatepass"), hashlib.sha256)
        if mark in self._right:
            self._right.move_to_end(mark)
            return True
        if self._waiting >= _HASHING_WAITS:
            return False
        self._waiting += 1
        try:
            right = await asyncio.get_running_loop().run_in_executor(self._threads, password_matches, password, encoded)
        finally:
            self._waiting -= 1
        if right:
            self._right[mark] = None
            if len(self._right) > _REMEMBERED:
                self._right.popitem(last=False)
        return right


NO_NAME: Final = "(no name of a node)"
_TURNED_AWAY: Final = 200


class Door:
    """Who was not let in, so that an edge that nobody admitted is visible. Bounded, and whatever stands here is printable: a name that no
    node can have is the attacker's choice and counts with all others like it; of too many the one that came last is forgotten last."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[int, int, str]] = OrderedDict()

    def refuse(self, username: str, why: str, now_ms: int, times: int = 1) -> None:
        """Note a login that failed, for the so many-th time since the last note."""
        try:
            name = check_node(username)
        except InvalidInput:
            name = NO_NAME
        count = self._seen.pop(name, (0, 0, ""))[0]
        self._seen[name] = (count + times, now_ms, why)
        if len(self._seen) > _TURNED_AWAY:
            self._seen.popitem(last=False)

    def enter(self, name: str) -> None:
        """It was let in, or admitted: what was is of no interest any more."""
        self._seen.pop(name, None)

    def turned_away(self) -> list[dict[str, Any]]:
        """`node` (as it calls itself), `count`, `atMs` of the last time, `reason`; newest first."""
        return [{"node": name, "count": count, "atMs": at_ms, "reason": why} for name, (count, at_ms, why) in reversed(self._seen.items())]


class Seldom:
    """Says yes once per key and period, and how often it said no since: so that an attacker cannot fill a log."""

    def __init__(self, period_s: float = 30.0, keys: int = 1_024) -> None:
        self._period_s = period_s
        self._keys = keys
        self._seen: dict[str, tuple[float, int]] = {}

    def ask(self, key: str) -> int | None:
        """The number of suppressed lines since the last yes, or None for: not now."""
        now_s = time.monotonic()
        last_s, suppressed = self._seen.get(key, (float("-inf"), 0))
        if now_s - last_s < self._period_s:
            self._seen[key] = (last_s, suppressed + 1)
            return None
        if len(self._seen) >= self._keys:
            self._seen.clear()
        self._seen[key] = (now_s, 0)
        return suppressed
