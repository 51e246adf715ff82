"""Every causal history of a few facts about one order, for the tests of the fold: who wrote what, and what each author had really seen.

Writers: a, its clone x (the same node and epoch, sharing a's first facts), a again in a second epoch once it learnt of the clone, and c,
another node. A fact may also be about another order: it lengthens its author's chain, and its order says nothing of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from protocols.codec import pack
from protocols.event import OrderEvent, TimeQuality
from protocols.fact import chain, genesis, to_row
from protocols.lifecycle import Status
from protocols.merge import Entry, Head, context, refold

Key = tuple[str, int]

SIDS: Final[dict[Key, int]] = {("a", 1): 1, ("a", 2): 2, ("c", 1): 3}
KEYS: Final = {sid: key for key, sid in SIDS.items()}


@dataclass(frozen=True, slots=True)
class Shape:
    """A fact before it has bytes: its stream, the facts of its author's chain below it (across epochs), what its author had seen."""

    key: Key
    path: tuple[int, ...]
    past: frozenset[int]
    on: bool


@dataclass(frozen=True, slots=True)
class Told:
    """A fact as it travels. `head` is None for a fact of another order."""

    key: Key
    seq: int
    h: bytes
    prev: bytes
    row: bytes
    head: Head | None


@dataclass(frozen=True, slots=True)
class History:
    """Facts in an order in which they may have been said, and which of them are right as heads once all are known."""

    facts: tuple[Told, ...]
    heads: frozenset[Head]


def shapes(count: int, *, links: bool) -> Iterator[tuple[Shape, ...]]:
    """Every causal history of so many facts. `links`: some may be about another order."""
    return _grow((), {"a": (), "x": (), "c": ()}, forked=False, second=False, count=count, links=links)


def _grow(
    facts: tuple[Shape, ...], tips: dict[str, tuple[int, ...]], *, forked: bool, second: bool, count: int, links: bool
) -> Iterator[tuple[Shape, ...]]:
    if len(facts) == count:
        yield facts
        return
    if not forked:  # the card is copied here
        yield from _grow(facts, {**tips, "x": tips["a"]}, forked=True, second=second, count=count, links=links)
    for writer in "axc" if forked else "ac":
        for seen in _closed_sets(facts, frozenset(tips[writer])):
            learnt = writer != "c" and any(facts[j].key == ("a", 1) for j in seen if j not in tips[writer])
            if learnt and writer == "x":
                continue  # the clone stays as it is; the other way round is the same with other names
            later = second or learnt
            key = ("c", 1) if writer == "c" else ("a", 2) if writer == "a" and later else ("a", 1)
            for on in (True, False) if links else (True,):
                said = (*facts, Shape(key, tips[writer], seen, on))
                moved = {**tips, writer: (*tips[writer], len(facts))}
                yield from _grow(said, moved, forked=forked, second=later, count=count, links=links)


def _closed_sets(facts: Sequence[Shape], own: frozenset[int]) -> Iterator[frozenset[int]]:
    """What an author may have seen: its own past, and with a fact everything that this fact had seen."""
    for size in range(len(facts) + 1):
        for some in itertools.combinations(range(len(facts)), size):
            seen = frozenset(some)
            if own <= seen and all(facts[j].past <= seen for j in seen):
                yield seen


@dataclass(slots=True)
class Known:
    """What one place knows, as the fold asks for it (`merge.Ancestry`): links between facts, and who is forked."""

    prev: dict[tuple[int, int, bytes], bytes] = field(default_factory=dict)
    at: dict[tuple[int, int], dict[bytes, None]] = field(default_factory=dict)

    def take(self, fact: Told) -> None:
        """One more fact, which also tells the hash before it."""
        sid = SIDS[fact.key]
        self.prev[sid, fact.seq, fact.h] = fact.prev
        self.at.setdefault((sid, fact.seq), {})[fact.h] = None
        if fact.seq > 1:
            self.at.setdefault((sid, fact.seq - 1), {})[fact.prev] = None

    def fork_point(self, sid: int) -> int | None:
        """See `merge.Ancestry`."""
        forks = [seq for (s, seq), hashes in self.at.items() if s == sid and len(hashes) > 1]
        return min(forks) - 1 if forks else None

    def on_chain(self, sid: int, tip_seq: int, tip_h: bytes, seq: int, h: bytes) -> bool | None:
        """See `merge.Ancestry`."""
        tips = [t for (s, q, t) in self.prev if (s, q) == (sid, tip_seq) and t.startswith(tip_h)]
        at, below = (tips[0], tip_seq) if tips else (None, 0)
        while at is not None and below > seq:
            at, below = self.prev.get((sid, below, at)), below - 1
        return None if at is None or (sid, below, at) not in self.prev else at == h


def told(history: Sequence[Shape]) -> History:
    """A history with bytes: contexts as their authors would have computed them, hashes over real rows."""
    facts: list[Told] = []
    for shape in history:
        seq = 1 + sum(history[j].key == shape.key for j in shape.path)
        below = next((facts[j] for j in reversed(shape.path) if history[j].key == shape.key), None)
        prev = below.h if below is not None else genesis(*shape.key, 0)
        ctx = _context(facts, shape) if shape.on else ()
        names = sorted([*KEYS[sid], n, h4] for sid, n, h4 in ctx)
        event = OrderEvent(
            "acme", "o" if shape.on else "other", "s", Status.PLACED, None, TimeQuality.UNKNOWN, None, None, None, {"n": len(facts)}
        )
        row = pack(to_row(event, 1, names))
        h = chain(prev, [row])[0]
        facts.append(Told(shape.key, seq, h, prev, row, Head(SIDS[shape.key], seq, h, 1, ctx) if shape.on else None))
    on = [i for i, shape in enumerate(history) if shape.on]
    right = frozenset(head for i in on if not any(i in history[j].past for j in on) and (head := facts[i].head) is not None)
    return History(tuple(facts), right)


def _context(facts: Sequence[Told], shape: Shape) -> tuple[Entry, ...]:
    known = Known()
    for j in sorted(shape.past):
        known.take(facts[j])
    seen = [head for j in sorted(shape.past) if (head := facts[j].head) is not None]
    return context(refold(seen, known), SIDS[shape.key], known)
