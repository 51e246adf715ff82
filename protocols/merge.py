"""What an order is: the set of its facts that no other fact had seen (sync.md, rules 13 and 14).

A fact carries a context: for each other stream that touched the order, the last fact its author had seen, one entry per branch. An entry
stands for everything before it on its branch, so "had seen" is a comparison, never a walk through facts that may be pruned or not here yet.
The fold keeps the undominated facts, the heads. Late, doubled, shuffled: the same set. Which head is shown is decided by one total order
(policy, lifecycle rank, digest), never by a clock. Heads of which neither may follow the other are a conflict, for people to settle.

A fix of a fact that was refused takes its causal place: as a head it stands where the first one stood, and `by` says which fact it is. Of
heads at one place the one with the greater `by` dominates. Who keeps facts leaves out what a fix overruled before folding
(`protocols.fixes`): what a refused fact claimed to have seen must count nowhere, as it does not where it could not be read.

Streams are named here by small local integers (`sid`); only comparisons within one database use them, so no outcome depends on them.
Pure: everything about forks comes from an `Ancestry`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from protocols.codec import pack, unpack_own
from protocols.lifecycle import Status, can_coexist, sort_key

Entry = tuple[int, int, bytes]
"""(sid, seq, first 4 bytes of the hash)"""


By = tuple[int, int, bytes, int] | tuple[()]
"""(turn, seq, h, sid) of a fix: compared by the first three, which are the same everywhere; () for an ordinary fact"""


class Head(NamedTuple):
    """A fact as the fold needs it. `ctx` is sorted; `h` has 8 bytes, a context entry the first 4 of them.

    (sid, seq, h) is its causal place: its own, or for a fix that of the fact it replaces; `by` is then the fix itself.
    """

    sid: int
    seq: int
    h: bytes
    status: int
    ctx: tuple[Entry, ...] = ()
    by: By = ()

    @property
    def fact(self) -> tuple[int, int, bytes]:
        """(sid, seq, h) of the fact that says it, as it lies in the log."""
        return (self.by[3], self.by[1], self.by[2]) if self.by else (self.sid, self.seq, self.h)

    @property
    def place(self) -> tuple[int, int, bytes]:
        """(sid, seq, h) of its causal place."""
        return self[:3]


class Ancestry(Protocol):
    """What is known of the streams' branches where the fold runs."""

    def fork_point(self, sid: int) -> int | None:
        """The highest seq up to which no two hashes are known; None where the stream is not forked."""

    def on_chain(self, sid: int, tip_seq: int, tip_h: bytes, seq: int, h: bytes) -> bool | None:
        """Is (seq, h) on the chain that ends in the fact at tip_seq whose hash begins with tip_h? None: not known here."""


def dominates(f: Head, g: Head, ancestry: Ancestry) -> bool:
    """Had the author of f seen g? Where the branch is not known yet, up to the known fork point."""
    if f.sid == g.sid:
        if g.seq < f.seq and reaches(f.sid, f.seq, f.h, g, ancestry):
            return True
        if g.seq == f.seq and g.h == f.h:
            return f.by > g.by
    return any(sid == g.sid and g.seq <= seq and reaches(sid, seq, h4, g, ancestry) for sid, seq, h4 in f.ctx)


def reaches(sid: int, seq: int, h: bytes, g: Head, ancestry: Ancestry) -> bool:
    """Is g, of the same stream and not beyond `seq`, on the branch of the fact at `seq` whose hash begins with h?"""
    fork = ancestry.fork_point(sid)
    if fork is None or g.seq <= fork:
        return True
    if seq == g.seq:
        return g.h.startswith(h)
    return bool(ancestry.on_chain(sid, seq, h, g.seq, g.h))


def above_fork(g: Head, ancestry: Ancestry) -> bool:
    """Does it stand where its stream has branches? Only who has the rows between, or their hashes, can tell what came after it there."""
    fork = ancestry.fork_point(g.sid)
    return fork is not None and g.seq > fork


def admit(heads: Sequence[Head], fact: Head, ancestry: Ancestry) -> tuple[Head, ...] | None:
    """The heads after one more fact; None when it is history (some head had seen it) or here already."""
    if not heads:
        return (fact,)
    if len(heads) == 1:  # nearly every fact: the next one of a stream that alone says something of the order
        before = heads[0]
        if before.sid == fact.sid and before.seq < fact.seq and not before.ctx and ancestry.fork_point(fact.sid) is None:
            return (fact,)
    for h in heads:
        if (h.sid == fact.sid and h.seq == fact.seq and h.h == fact.h and h.by == fact.by) or dominates(h, fact, ancestry):
            return None
    return (*[h for h in heads if not dominates(fact, h, ancestry)], fact)


def refold(facts: Iterable[Head], ancestry: Ancestry) -> tuple[Head, ...]:
    """The heads of an order from all its facts, in any order. Used when a fork of one of its authors comes to light.

    Authors that each claim to have seen the other's later fact leave nothing undominated: then all stand, and people see a conflict.
    """
    known = list(facts)
    return tuple(g for g in known if not any(f is not g and dominates(f, g, ancestry) for f in known)) or tuple(known)


def shown(heads: Sequence[Head]) -> Head:
    """The head whose state is shown: the maximum under policy class, lifecycle rank, digest."""
    return heads[0] if len(heads) == 1 else max(heads, key=_rank)


def ranked(heads: Sequence[Head]) -> list[Head]:
    """The one shown first, and the others as they would follow it."""
    return sorted(heads, key=_rank, reverse=True)


def _rank(head: Head) -> tuple[tuple[int, int], bytes]:
    return sort_key(Status(head.status)), head.h


def conflicts(heads: Sequence[Head]) -> list[tuple[Head, Head]]:
    """Pairs of heads of which neither may follow the other, the one shown first in each pair."""
    if len(heads) == 1:
        return []
    row = ranked(heads)
    return [(a, b) for i, a in enumerate(row) for b in row[i + 1 :] if not can_coexist(Status(a.status), Status(b.status))]


def context(heads: Sequence[Head], own: int, ancestry: Ancestry) -> tuple[Entry, ...]:
    """What an author that has seen these heads has seen of other streams: the join of their contexts and of themselves."""
    if not heads or (len(heads) == 1 and heads[0].sid == own and not heads[0].ctx):
        return ()  # nearly every fact: only its own stream touched the order
    latest: dict[int, list[Entry]] = {}
    for h in heads:
        for entry in (*h.ctx, (h.sid, h.seq, h.h[:4])):
            if entry[0] != own:
                latest[entry[0]] = _join(latest.get(entry[0], []), entry, ancestry)
    return tuple(sorted(e for entries in latest.values() for e in entries))


def _join(entries: list[Entry], new: Entry, ancestry: Ancestry) -> list[Entry]:
    """One entry per branch: an entry goes when another stands on the same branch above it."""
    if new in entries:
        return entries
    if any(_below(new, e, ancestry) for e in entries):
        return entries
    return [*[e for e in entries if not _below(e, new, ancestry)], new]


def _below(low: Entry, high: Entry, ancestry: Ancestry) -> bool:
    """Is `low` on the branch of `high`, at or below it?"""
    if low[1] >= high[1]:
        return low == high
    fork = ancestry.fork_point(low[0])
    if fork is None or low[1] <= fork:
        return True
    return bool(ancestry.on_chain(high[0], high[1], high[2], low[1], low[2]))


# ---------------------------------------------------------------- how heads are stored


def dump_heads(heads: Sequence[Head]) -> bytes:
    """Heads as bytes for a column."""
    data: bytes = pack([_listed(h) for h in heads])
    return data


def _listed(h: Head) -> list[object]:
    """As short as it may be: nearly all heads have seen nobody else's facts, and hardly any is a fix."""
    if h.by:
        return [h.sid, h.seq, h.h, h.status, [list(e) for e in h.ctx], list(h.by)]
    return [h.sid, h.seq, h.h, h.status, [list(e) for e in h.ctx]] if h.ctx else [h.sid, h.seq, h.h, h.status]


def load_heads(data: bytes) -> tuple[Head, ...]:
    """What `dump_heads` wrote. Without a bound of its own: what was written must be readable, or its order would be lost to everybody."""
    rows: list[list[Any]] = unpack_own(data)  # type: ignore[assignment]
    return tuple([Head(r[0], r[1], r[2], r[3], _entries(r), tuple(r[5]) if len(r) > 5 else ()) for r in rows])


def _entries(row: list[Any]) -> tuple[Entry, ...]:
    return tuple((e[0], e[1], e[2]) for e in row[4]) if len(row) > 4 else ()
