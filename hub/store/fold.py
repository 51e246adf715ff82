"""The fold of one order from all its facts, in any order of arrival: heads, abnormal transitions, the promise.

Everything here is a function of the *set* of facts, so that late, doubled or shuffled arrival ends in the same view:

- heads: the facts that no other fact had seen (sync.md, rule 14).
- a fact came *directly after* those it had seen that none of the others it had seen had seen in turn. It is abnormal when there are such
  facts and by the lifecycle table it may normally follow none of them. A first fact, and one that had seen nothing, is never abnormal.
- the promise: among the facts that state one, the shown one of those that no other of them had seen.

Where no stream of the order is forked, having seen is a comparison of seqs and the fold takes a few operations per fact; otherwise the
ancestry is asked of what lies above a fork point. Pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from protocols.lifecycle import Status, may_follow
from protocols.merge import Ancestry, Entry, Head, reaches, shown


class Known(NamedTuple):
    """A fact as the view needs it. `expected_ms`: the promise it states, if any."""

    head: Head
    expected_ms: int | None


class OrderFold(NamedTuple):
    """What an order's facts amount to. `covered`: the one head has seen every fact, also through each of their contexts."""

    heads: tuple[Head, ...]
    abnormal: tuple[Head, ...]
    expected_ms: int | None
    covered: bool
    merges: tuple[tuple[Head, tuple[Head, ...]], ...] = ()
    """facts that came directly after several others, and those: what they had seen side by side"""


def covers(f: Head, g: Head) -> bool:
    """Has f seen g and all that g's context names? Only where no stream named is forked."""
    reach = _reach(f)
    return reach.get(g.sid, 0) >= g.seq and all(reach.get(sid, 0) >= seq for sid, seq, _ in g.ctx)


def fold_order(facts: Sequence[Known], ancestry: Ancestry) -> OrderFold:
    """Fold the facts of one order; at least one."""
    heads = [k.head for k in facts]
    promised = [k for k in facts if k.expected_ms is not None]
    sids = dict.fromkeys(sid for h in heads for sid in (h.sid, *(e[0] for e in h.ctx)))
    seen: _Plain | _Forked = _Plain() if all(ancestry.fork_point(sid) is None for sid in sids) else _Forked(ancestry)
    top = seen.undominated(heads)
    latest = shown(seen.undominated([k.head for k in promised])) if promised else None
    expected_ms = next((k.expected_ms for k in promised if k.head == latest), None)
    covered = len(top) == 1 and isinstance(seen, _Plain) and all(g is top[0] or covers(top[0], g) for g in heads)
    steps = seen.steps(heads)
    abnormal = tuple(f for f, before in steps if _follows_none(f, before))
    return OrderFold(top, abnormal, expected_ms, covered, tuple((f, tuple(before)) for f, before in steps if len(before) > 1))


def _reach(f: Head) -> dict[int, int]:
    """Per stream the last seq that f had seen."""
    if not f.ctx:
        return {f.sid: f.seq - 1}
    reach: dict[int, int] = {}
    for sid, seq, _ in f.ctx:
        if seq > reach.get(sid, 0):
            reach[sid] = seq
    reach[f.sid] = f.seq - 1
    return reach


def _or_all(heads: Iterable[Head], facts: Sequence[Head]) -> tuple[Head, ...]:
    """Facts that each claim to have seen the other (one of their authors is wrong) must not leave an order without a state."""
    return tuple(heads) or tuple(facts)


def _follows_none(f: Head, before: Sequence[Head]) -> bool:
    return bool(before) and not any(may_follow(Status(p.status), Status(f.status)) for p in before)


class _Plain:
    """No fork in sight: what f has seen of a stream is all its facts up to one seq."""

    def undominated(self, facts: Sequence[Head]) -> tuple[Head, ...]:
        most: dict[int, int] = {}
        for f in facts:
            for sid, seq in _reach(f).items():
                if seq > most.get(sid, 0):
                    most[sid] = seq
        return _or_all((f for f in facts if f.seq > most.get(f.sid, 0)), facts)

    def steps(self, facts: Sequence[Head]) -> list[tuple[Head, list[Head]]]:
        """Each fact, and those that it came directly after."""
        lanes: dict[int, list[Head]] = {}
        for f in sorted(facts, key=lambda f: f.seq):
            lanes.setdefault(f.sid, []).append(f)
        return [(f, self._directly_before(f, lanes)) for f in facts]

    def _directly_before(self, f: Head, lanes: dict[int, list[Head]]) -> list[Head]:
        """The last fact seen of each stream, without those that another of them had seen."""
        last = [
            g for sid, seq in _reach(f).items() if sid in lanes for g in [_at_or_below(lanes[sid], seq)] if g is not None and g is not f
        ]
        return last if len(last) < 2 else [g for g in last if not any(o is not g and _reach(o).get(g.sid, 0) >= g.seq for o in last)]


def _at_or_below(lane: list[Head], seq: int) -> Head | None:
    """The last fact of a stream, in ascending order, whose seq is not beyond `seq`."""
    low, high = 0, len(lane)
    while low < high:
        middle = (low + high) // 2
        if lane[middle].seq <= seq:
            low = middle + 1
        else:
            high = middle
    return lane[low - 1] if low else None


class _Forked:
    """Some author of the order has two histories: what lies above a fork point is asked of the ancestry, all else is a comparison.

    Sets of facts are numbers with a bit for each: nested loops over the pairs of a busy order took seconds."""

    def __init__(self, ancestry: Ancestry) -> None:
        self._ancestry = ancestry
        self._seen: dict[Head, int] = {}
        self._bits: dict[Head, int] = {}

    def undominated(self, facts: Sequence[Head]) -> tuple[Head, ...]:
        """The first call, with all facts of the order, is the one that looks at them; others may ask of some of these."""
        if not self._seen:
            self._look(facts)
        seen = 0
        for f in facts:
            seen |= self._seen[f]
        return _or_all((g for g in facts if not seen & self._bits[g]), facts)

    def _look(self, facts: Sequence[Head]) -> None:
        self._bits = {f: 1 << n for n, f in enumerate(facts)}
        on: dict[int, list[Head]] = {}
        for f in sorted(self._bits, key=_place):
            on.setdefault(f.sid, []).append(f)
        lanes = {sid: _Lane(lane, self._bits, self._ancestry) for sid, lane in on.items()}
        for f in facts:
            seen = lanes[f.sid].seen(f.seq - 1, (f.sid, f.seq, f.h))
            for entry in f.ctx:
                if entry[0] in lanes:
                    seen |= lanes[entry[0]].seen(entry[1], entry)
            for g in lanes[f.sid].at(f.seq):  # in one place stands what was said last of it
                if g.h == f.h:
                    seen = seen | self._bits[g] if f.by > g.by else seen & ~self._bits[g]
            self._seen[f] = seen & ~self._bits[f]

    def steps(self, facts: Sequence[Head]) -> list[tuple[Head, list[Head]]]:
        """Each fact, and those that it came directly after."""
        seen = [self._seen[f] for f in facts]
        return [(f, _directly_before(before, seen, facts)) for f, before in zip(facts, seen, strict=True)]


class _Lane:
    """The facts of an order that lie on one stream, in ascending order. `bits`: of each the set that is only it."""

    def __init__(self, facts: Sequence[Head], bits: dict[Head, int], ancestry: Ancestry) -> None:
        self._facts, self._ancestry = facts, ancestry
        self._seqs = [f.seq for f in facts]
        fork = ancestry.fork_point(facts[0].sid)
        self._trunk = len(facts) if fork is None else bisect_right(self._seqs, fork)
        """so many lie where the stream has no branches yet"""
        self._below: list[int] = [0]
        """the sets of the first so many of those"""
        for f in facts[: self._trunk]:
            self._below.append(self._below[-1] | bits[f])
        self._branches: list[int] = []
        """of each fact above: what stands in its place, and those above that it stands on"""
        for f in facts[self._trunk :]:
            here = sum(bits[g] for g in self.at(f.seq) if g.h == f.h)
            self._branches.append(here | self._branch(bisect_left(self._seqs, f.seq), (f.sid, f.seq, f.h)))

    def at(self, seq: int) -> Sequence[Head]:
        """Those with one seq."""
        return self._facts[bisect_left(self._seqs, seq) : bisect_right(self._seqs, seq)]

    def seen(self, seq: int, tip: Entry) -> int:
        """The set of what is not beyond `seq` and on the branch of a tip: (sid, seq, how its hash begins)."""
        end = bisect_right(self._seqs, seq)
        return self._below[min(end, self._trunk)] | self._branch(end, tip)

    def _branch(self, end: int, tip: Entry) -> int:
        """Of the first so many, those above the fork point and below a tip: the last of them, and what that one stands on."""
        for n in range(end - 1, self._trunk - 1, -1):
            if reaches(*tip, self._facts[n], self._ancestry):
                return self._branches[n - self._trunk]
        return 0


def _place(f: Head) -> int:
    return f.seq


def _directly_before(before: int, seen: Sequence[int], facts: Sequence[Head]) -> list[Head]:
    """Of the facts in a set those that no other of it had seen."""
    below = 0
    for n in _numbers(before):
        below |= seen[n]
    return [facts[n] for n in _numbers(before & ~below)]


def _numbers(bits: int) -> Iterator[int]:
    """The places of the bits that are set, ascending."""
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low
