"""Authors who write facts of shared orders, knowing or not knowing of each other's, and what must come of it whatever arrives when.

The world remembers for each fact exactly which others its author had seen. That is the oracle: it never looks at a context or a hash.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from hub.store.port import StoreFact
from protocols.codec import pack
from protocols.event import OrderEvent, TimeQuality
from protocols.fact import chain, genesis, to_row
from protocols.lifecycle import Status, can_coexist, may_follow, sort_key
from protocols.streams import StreamKey

ORG = "acme"
START_MS = 1_767_225_600_000
"""2026-01-01"""


@dataclass(eq=False)
class Said:
    """A fact, and all facts of its order that its author had seen."""

    given: StoreFact
    order_id: str
    status: Status
    seen: dict[Said, None]
    line: tuple[Said, ...]
    """the facts below it on its own chain"""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def context_entry(self) -> list[Any]:
        """How another author's context names it."""
        key = self.given.stream
        return [key.node, key.epoch, self.given.seq, self.given.h[:4]]


@dataclass(eq=False)
class Author:
    """One branch of one stream. `knows`: per order what it has seen, its own facts included."""

    key: StreamKey
    line: list[Said] = field(default_factory=list)
    knows: dict[str, dict[Said, None]] = field(default_factory=dict)
    forked: bool = False


class World:
    """Makes facts. Times tick on by a second for each."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self.now_ms = START_MS

    def author(self, node: str, epoch: int = 1) -> Author:
        """A new stream."""
        return Author(StreamKey(node, epoch, 0))

    def say(self, author: Author, order_id: str, status: Status, **more: Any) -> StoreFact:
        """The author records an event, having seen what it has seen."""
        self.now_ms += 1000
        seen = dict(author.knows.get(order_id, {}))
        row = pack(to_row(_event(order_id, status, self.now_ms, author.key.node, more), self.now_ms, _context(seen, author.key)))
        said = Said(self._link(author, row), order_id, status, seen, tuple(author.line), more.get("details", {}))
        author.line.append(said)
        author.knows.setdefault(order_id, {})[said] = None
        self.said.append(said)
        return said.given

    def opaque(self, author: Author, why: str) -> StoreFact:
        """The author's next fact is one that the hub could not read."""
        given = self._link(author, b"\xc1 not msgpack")._replace(quarantined=why)
        author.line.append(Said(given, "", Status.PLACED, {}, tuple(author.line)))
        return given

    def _link(self, author: Author, row: bytes) -> StoreFact:
        prev = author.line[-1].given.h if author.line else genesis(*author.key)
        return StoreFact(author.key, len(author.line) + 1, chain(prev, [row])[0], prev, row, self.now_ms + 100)

    def learn(self, author: Author, other: Author, order_id: str) -> None:
        """The author gets to see what the other knows of an order."""
        if author.key != other.key and not author.forked:
            author.knows.setdefault(order_id, {}).update(other.knows.get(order_id, {}))

    def fork(self, author: Author) -> Author:
        """A clone of the author's disk starts up: both go on, neither learning anything any more (they would begin new epochs)."""
        author.forked = True
        return Author(author.key, list(author.line), {o: dict(k) for o, k in author.knows.items()}, forked=True)


def _event(order_id: str, status: Status, now_ms: int, node: str, more: dict[str, Any]) -> OrderEvent:
    details = more.get("details", {"scan": now_ms // 1000 % 100_000})
    return OrderEvent(
        more.get("org", ORG), order_id, more.get("source", "WMS"), status, now_ms, TimeQuality.STATED,
        more.get("region", "EMEA"), more.get("site", f"site-{node}"), more.get("actor"), details,
    )  # fmt: skip


def _context(seen: dict[Said, None], own: StreamKey) -> list[list[Any]]:
    """One entry for each branch of each other stream: the facts seen that no other fact seen stands above."""
    others = [s for s in seen if s.given.stream != own]
    return sorted(s.context_entry for s in others if not any(s in o.line for o in others))


# ---------------------------------------------------------------- the oracle


def heads(facts: list[Said]) -> list[Said]:
    """The facts of an order that none of the others had seen."""
    return [f for f in facts if not any(f in g.seen for g in facts)]


def shown(facts: list[Said]) -> Said:
    """The head that is shown."""
    return max(heads(facts), key=lambda s: (sort_key(s.status), s.given.h))


def abnormal(fact: Said, facts: list[Said]) -> bool:
    """May it normally follow none of those it came directly after?"""
    before = [g for g in facts if g in fact.seen]
    directly = [g for g in before if not any(g in o.seen for o in before)]
    return bool(directly) and not any(may_follow(g.status, fact.status) for g in directly)


def clashes(facts: list[Said]) -> int:
    """How many pairs of heads are people's business by the shipped table."""
    top = heads(facts)
    return sum(disputed(a, b) for i, a in enumerate(top) for b in top[i + 1 :])


def disputed(a: Said, b: Said) -> bool:
    """Does somebody have to look at these two? Two settlements are judged by what they say, all else by the lifecycle."""
    if "settles" in a.details and "settles" in b.details:
        return a.status is not b.status
    return not can_coexist(a.status, b.status)


def settled(facts: list[Said]) -> dict[frozenset[str], set[str]]:
    """Pairs that some facts had seen side by side, by the ids of both, and the ids of those facts."""
    out: dict[frozenset[str], set[str]] = {}
    for after in facts:
        before = [g for g in facts if g in after.seen]
        directly = [g for g in before if not any(g in o.seen for o in before)]
        for i, a in enumerate(directly):
            for b in directly[i + 1 :]:
                if disputed(a, b):
                    out.setdefault(frozenset((fact_id(a), fact_id(b))), set()).add(fact_id(after))
    return out


def fact_id(s: Said) -> str:
    """As the product names it."""
    key = s.given.stream
    return f"{key.node}/{key.epoch:x}/{s.given.seq}/{s.given.h[:4].hex()}"


# ---------------------------------------------------------------- random worlds


def random_world(seed: int, steps: int, *, forks: bool) -> World:
    """A few authors and orders. With `forks`, disks are cloned on the way. Dense on purpose: most facts meet others of their order."""
    chance, world = random.Random(seed), World()
    authors = [world.author(node) for node in ("hub", "w1", "w2")[: chance.randint(1, 3)]]
    orders = ("O-1", "O-2", "O-3")[: chance.choice((1, 1, 2, 3))]
    clones = chance.randint(1, 2) if forks else 0
    for _ in range(steps):
        author, order_id = chance.choice(authors), chance.choice(orders)
        what = chance.random()
        if what < 0.55:
            promise = chance.choice((None, None, "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z"))
            details: dict[str, Any] = {"expectedDelivery": promise} if promise else {}
            if chance.random() < 0.2:
                details["settles"] = ["a", "b"]
            if chance.random() < 0.3:
                details["quantities"] = {"picked": chance.randint(-2, 5)}
            world.say(author, order_id, chance.choice(list(Status)), details=details, site=chance.choice((None, "W8")))
        elif what < 0.9 or not clones:
            world.learn(author, chance.choice(authors), order_id)
        else:
            authors.append(world.fork(author))
            clones -= 1
    return world


def worlds(*, forks: bool) -> st.SearchStrategy[World]:
    """Random worlds; fewer steps are simpler, the seed has no meaning."""
    return st.builds(lambda seed, steps: random_world(seed, steps, forks=forks), st.integers(0, 2**32), st.integers(3, 40))


def deliveries(facts: list[StoreFact]) -> st.SearchStrategy[list[list[StoreFact]]]:
    """The facts in batches: in some order, a third of them twice, in the same batch or later."""
    return st.builds(lambda seed: _delivery(random.Random(seed), facts), st.integers(0, 2**32))


def _delivery(chance: random.Random, facts: list[StoreFact]) -> list[list[StoreFact]]:
    rest = facts + [f for f in facts if chance.random() < 0.3]
    reach = chance.choice((0, 2, len(rest)))  # how far facts overtake each other
    rest = [f for _, f in sorted(enumerate(rest), key=lambda at: at[0] + chance.random() * reach)]
    batches = []
    while rest:
        size = chance.randint(1, max(1, min(len(rest), chance.choice((1, 3, len(rest))))))
        batches.append(rest[:size])
        rest = rest[size:]
    return batches
