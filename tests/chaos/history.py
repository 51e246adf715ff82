"""The history checker, in the manner of Jepsen's queue workload: what was asked and answered, against what the central store ended with.

A history is a list of entries in the order in which they happened: a request is invoked, and then ends as `ok` (said yes, with
identities), `fail` (refused: it must have no effect) or `info` (no answer, or one that leaves it open: it may have had its effect, once).
A request with an idempotency key may be invoked again and answered again; it stays one request.

Five things can be wrong, and nothing else is looked for here:

- lost: said yes, and not there; or a request of several events of which only some are there.
- duplicate: one event there twice, or two identities said for one.
- inversion: in its node's stream an event stands before one that was said yes to before it was asked.
- skip: a stream with a hole.
- phantom: there, and never asked for; or refused; or asked for with another content or of another node.

Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple


class What(StrEnum):
    """How an entry comes about."""

    INVOKE = "invoke"
    OK = "ok"
    FAIL = "fail"
    INFO = "info"


class Kind(StrEnum):
    """The anomalies."""

    LOST = "lost"
    DUPLICATE = "duplicate"
    INVERSION = "inversion"
    SKIP = "skip"
    PHANTOM = "phantom"


class Wanted(NamedTuple):
    """One event of a request: `token` is unique and travels in its details; `content` is what must arrive unchanged."""

    token: str
    content: tuple[str, ...]


class Entry(NamedTuple):
    """One line of a history. `wanted` and `node` count with `invoke`, `ids` (in the order of the events) with `ok`."""

    what: What
    op: int
    node: str = ""
    wanted: tuple[Wanted, ...] = ()
    ids: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For a journal."""
        wanted = [[w.token, *w.content] for w in self.wanted]
        return {"what": str(self.what), "op": self.op, "node": self.node, "wanted": wanted, "ids": list(self.ids)}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Entry:
        """What `as_json` gave."""
        wanted = tuple(Wanted(w[0], tuple(w[1:])) for w in said["wanted"])
        return cls(What(said["what"]), said["op"], said["node"], wanted, tuple(said["ids"]))


class Stored(NamedTuple):
    """One fact as the store ended with it. `token` "" for what is no order event; `continues`: the epoch that this one goes on from."""

    node: str
    epoch: int
    seq: int
    id: str
    token: str
    content: tuple[str, ...] = ()
    continues: int = 0


class Anomaly(NamedTuple):
    """One promise that was not kept."""

    kind: Kind
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


Stream = tuple[str, int]
"""(node, epoch)"""
Ranges = Mapping[Stream, Sequence[tuple[int, int]]]
"""seqs, both ends included, that are closed by signed records"""
NOTHING_CLOSED: Final[Ranges] = {}


@dataclass(slots=True)
class _Op:
    node: str
    wanted: tuple[Wanted, ...]
    floors: dict[Stream, int]
    """per stream of its node the highest seq that had been said when it was first asked"""
    ids: list[tuple[str, ...]] = field(default_factory=list)
    open: bool = False
    """some attempt may have had its effect, though nobody was told"""

    @property
    def refused(self) -> bool:
        return not (self.ids or self.open)


def check(
    history: Iterable[Entry], stored: Iterable[Stored], closed: Ranges = NOTHING_CLOSED, excused: Container[str] = ()
) -> list[Anomaly]:
    """All that is wrong, in the order: lost, duplicate, inversion, skip, phantom. `excused`: identities that went with the only disks that
    had them, by the scenario's own doing."""
    facts = list(stored)
    ops = _operations(history, {f.id: f for f in facts})
    by_token: dict[str, list[Stored]] = {}
    for f in facts:
        by_token.setdefault(f.token, []).append(f)
    return [
        *_lost(ops, {f.id: f for f in facts}, by_token, excused),
        *_duplicates(ops, facts),
        *_inversions(ops, facts, by_token),
        *_skips(facts, closed),
        *_phantoms(ops, facts),
    ]


def _operations(history: Iterable[Entry], known: Mapping[str, Stored]) -> dict[int, _Op]:
    """The history per request. An invocation that nothing ended (its client died) is open."""
    ops: dict[int, _Op] = {}
    said: dict[str, dict[Stream, int]] = {}
    running: Counter[int] = Counter()
    for e in history:
        if e.what is What.INVOKE:
            running[e.op] += 1
            if e.op not in ops:
                ops[e.op] = _Op(e.node, e.wanted, dict(said.get(e.node, {})))
            continue
        running[e.op] -= 1
        op = ops[e.op]
        op.open = op.open or e.what is What.INFO
        if e.what is What.OK:
            op.ids.append(e.ids)
            for fact in (known[i] for i in e.ids if i in known):
                reached = said.setdefault(op.node, {})
                reached[fact.node, fact.epoch] = max(reached.get((fact.node, fact.epoch), 0), fact.seq)
    for number, n in running.items():
        ops[number].open = ops[number].open or n > 0
    return ops


def _lost(
    ops: Mapping[int, _Op], by_id: Mapping[str, Stored], by_token: Mapping[str, list[Stored]], excused: Container[str]
) -> Iterator[Anomaly]:
    for op in ops.values():
        for ids in op.ids:
            if len(ids) != len(op.wanted):
                yield Anomaly(Kind.LOST, f"{op.node} said {len(ids)} identities for {len(op.wanted)} events of {op.wanted[0].token}")
            for wanted, said in zip(op.wanted, ids, strict=False):
                fact = by_id.get(said)
                if (fact is None and said not in excused) or (fact is not None and fact.token != wanted.token):
                    yield Anomaly(Kind.LOST, f"{op.node} said yes to {wanted.token} as {said}, which is not in the store")
        there = [w.token for w in op.wanted if w.token in by_token]
        if not op.ids and 0 < len(there) < len(op.wanted):
            yield Anomaly(Kind.LOST, f"of one request to {op.node} only {', '.join(there)} of {len(op.wanted)} events are there")


def _duplicates(ops: Mapping[int, _Op], facts: Sequence[Stored]) -> Iterator[Anomaly]:
    for token, n in Counter(f.token for f in facts if f.token).items():
        if n > 1:
            yield Anomaly(Kind.DUPLICATE, f"{token} is there {n} times: {', '.join(f.id for f in facts if f.token == token)}")
    for fact, n in Counter(f.id for f in facts).items():
        if n > 1:
            yield Anomaly(Kind.DUPLICATE, f"{fact} is there {n} times")
    for op in ops.values():
        answers = list(dict.fromkeys(op.ids))
        if len(answers) > 1:
            yield Anomaly(Kind.DUPLICATE, f"{op.node} said {len(answers)} identities for {op.wanted[0].token}: {answers}")


def _inversions(ops: Mapping[int, _Op], facts: Sequence[Stored], by_token: Mapping[str, list[Stored]]) -> Iterator[Anomaly]:
    older = _older_epochs(facts)
    for op in ops.values():
        places = [f for w in op.wanted for f in by_token.get(w.token, ())[:1]]
        for f in places:
            for stream, seq in op.floors.items():
                later = f.seq if stream == (f.node, f.epoch) else None
                if later is not None and later <= seq:
                    yield Anomaly(Kind.INVERSION, f"{f.token} stands at {f.id}, though seq {seq} had been said before it was asked")
                if later is None and (f.node, f.epoch) in older.get(stream, ()):
                    yield Anomaly(Kind.INVERSION, f"{f.token} stands in an epoch that had been left for {stream[1]:x} before it was asked")
        order = [(f.node, f.epoch, f.seq) for f in places]
        if order != sorted(order) and len({o[:2] for o in order}) == 1:
            yield Anomaly(Kind.INVERSION, f"the events of one request stand as {[f.id for f in places]}")


def _older_epochs(facts: Iterable[Stored]) -> dict[Stream, list[Stream]]:
    """Per stream, those that it goes on from."""
    before = {(f.node, f.epoch): (f.node, f.continues) for f in facts if f.continues}
    out: dict[Stream, list[Stream]] = {}
    for stream in before:
        at, chain = stream, list[Stream]()
        while at in before and before[at] not in chain:
            at = before[at]
            chain.append(at)
        out[stream] = chain
    return out


def _skips(facts: Sequence[Stored], closed: Ranges) -> Iterator[Anomaly]:
    seqs: dict[Stream, dict[int, None]] = {}
    for f in facts:
        seqs.setdefault((f.node, f.epoch), {})[f.seq] = None
    for stream, held in seqs.items():
        inside = dict.fromkeys(s for lo, hi in closed.get(stream, ()) for s in range(lo, hi + 1))
        missing = [s for s in range(1, max(held) + 1) if s not in held and s not in inside]
        if missing:
            yield Anomaly(Kind.SKIP, f"{stream[0]}/{stream[1]:x} lacks {len(missing)} of {max(held)}: {', '.join(map(str, missing[:8]))} …")


def _phantoms(ops: Mapping[int, _Op], facts: Iterable[Stored]) -> Iterator[Anomaly]:
    asked = {w.token: (op, w) for op in ops.values() for w in op.wanted}
    for f in facts:
        if not f.token:
            if not f.continues:
                yield Anomaly(Kind.PHANTOM, f"{f.id} is of no request")
            continue
        if f.token not in asked:
            yield Anomaly(Kind.PHANTOM, f"{f.id} ({f.token}) was never asked for")
            continue
        op, wanted = asked[f.token]
        if op.refused:
            yield Anomaly(Kind.PHANTOM, f"{f.id} ({f.token}) had been refused")
        if op.node != f.node:
            yield Anomaly(Kind.PHANTOM, f"{f.id} ({f.token}) was asked of {op.node}")
        if wanted.content != f.content:
            yield Anomaly(Kind.PHANTOM, f"{f.id} ({f.token}) says {f.content}, asked was {wanted.content}")
