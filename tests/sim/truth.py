"""What really happened, as only somebody outside can know it: every fact that a commit made durable, who had seen what, who holds what.

Facts are numbered as they are committed; sets of facts are ints with a bit each. Nothing here comes from the code under test but the rows
that lie in its databases, read with plain SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from protocols.codec import unpack
from protocols.errors import DecodeError
from protocols.fact import genesis
from protocols.messages import RunStated
from protocols.streams import StreamKey

Mask = int
Order = tuple[str, str]


class FactId(NamedTuple):
    """(node, epoch, class, seq, h): nothing less names a fact."""

    node: str
    epoch: int
    cls: int
    seq: int
    h: bytes

    @property
    def stream(self) -> StreamKey:
        """The stream it is on."""
        return StreamKey(self.node, self.epoch, self.cls)

    def __str__(self) -> str:
        return f"{self.node}/{self.epoch % 4096:03x}/{self.seq}/{self.h[:2].hex()}"


@dataclass(frozen=True, slots=True)
class Fact:
    """A committed fact. `past`: facts of its order that its author had seen, and what those had seen. `chain`: its branch up to itself."""

    i: int
    id: FactId
    prev: bytes
    row: bytes
    order: Order | None
    status: int
    site: str | None
    past: Mask
    chain: Mask


def bits(mask: Mask) -> Iterator[int]:
    """The numbers in a set, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


class Truth:
    """Every fact that was ever durable somewhere. `told`: somebody was answered yes.

    `excused`: gone with disks that the scenario destroyed. `freed`: let go by a rule. `evicted`: given up for want of room.
    `forked`: streams with two facts at one seq.
    """

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.of: dict[FactId, int] = {}
        self.orders: dict[Order, Mask] = {}
        self.rows: dict[bytes, Order | None] = {}
        """what was committed, and the order it is about"""
        self.sites: dict[Order, dict[str | None, None]] = {}
        """per order the sites that its facts ever named"""
        self.streams: dict[StreamKey, Mask] = {}
        self.told: Mask = 0
        self.excused: Mask = 0
        self.freed: Mask = 0
        self.evicted: Mask = 0
        self.forked: dict[StreamKey, None] = {}
        self.folds: dict[Mask, Any] = {}
        """what the oracle has folded, by the facts of one order"""
        self._seqs: dict[tuple[StreamKey, int], int] = {}
        self._heads: dict[Mask, Mask] = {}

    def add(self, fid: FactId, prev: bytes, row: bytes, seen: Mask) -> int:
        """A fact that its author has committed, and what that author's database held when it was said."""
        if fid in self.of:
            return self.of[fid]
        i = len(self.facts)
        order, status, site = read_order(row)
        past = self.closure(seen & self.orders.get(order, 0)) if order is not None else 0
        below = self.of.get(fid._replace(seq=fid.seq - 1, h=prev))
        chain = (self.facts[below].chain if below is not None else 0) | 1 << i
        if below is None and prev != genesis(*fid.stream):
            raise AssertionError(f"{fid} hangs on nothing that was ever committed")
        self.facts.append(Fact(i, fid, prev, row, order, status, site, past, chain))
        self.of[fid] = i
        self.rows[row] = order
        self.streams[fid.stream] = self.streams.get(fid.stream, 0) | 1 << i
        if order is not None:
            self.orders[order] = self.orders.get(order, 0) | 1 << i
            self.sites.setdefault(order, {})[site] = None
        if self._seqs.setdefault((fid.stream, fid.seq), i) != i:
            self.forked[fid.stream] = None
        return i

    def closure(self, seen: Mask) -> Mask:
        """These facts and all that they had seen."""
        out = seen
        for i in bits(seen):
            out |= self.facts[i].past
        return out

    def heads(self, known: Mask) -> Mask:
        """Of these facts of one order, those that no other of them had seen."""
        found = self._heads.get(known)
        if found is None:
            seen = 0
            for i in bits(known):
                seen |= self.facts[i].past
            found = self._heads[known] = known & ~seen
        return found

    def up_to(self, own: Sequence[int], last: int) -> Mask:
        """The first so many facts of a branch that is listed from its beginning."""
        return self.facts[own[last - 1]].chain if last and own else 0

    def below(self, known: Mask) -> Mask:
        """Everything on the branches that end in these facts."""
        out = 0
        for i in sorted(bits(known), key=lambda i: -self.facts[i].id.seq):
            if not out >> i & 1:
                out |= self.facts[i].chain
        return out

    def below_of(self, i: int) -> int | None:
        """The fact before it on its branch."""
        fact = self.facts[i]
        return self.of.get(fact.id._replace(seq=fact.id.seq - 1, h=fact.prev))

    def run(self, key: StreamKey, run: RunStated) -> Mask | None:
        """The facts that a stated run names; None where there are no such facts."""
        last = self.of.get(FactId(*key, run.last, run.h_last))
        if last is None:
            return None
        mask = self.facts[last].chain
        if run.first > 1:
            at = next((i for i in bits(mask) if self.facts[i].id.seq == run.first - 1), None)
            if at is None or (run.h_before and self.facts[at].id.h != run.h_before):
                return None
            mask &= ~self.facts[at].chain
        return mask

    def runs(self, known: Mask) -> dict[StreamKey, tuple[RunStated, ...]]:
        """Facts as stretches of their branches; one ends where branches part."""
        facts = [self.facts[i] for i in bits(known)]
        after: dict[tuple[StreamKey, int, bytes], int] = {}
        for f in facts:
            after[f.id.stream, f.id.seq, f.prev] = after.get((f.id.stream, f.id.seq, f.prev), 0) + 1
        out: dict[StreamKey, list[RunStated]] = {}
        for f in facts:
            runs = out.setdefault(f.id.stream, [])
            alone = after[f.id.stream, f.id.seq, f.prev] == 1
            below = next((k for k, r in enumerate(runs) if alone and (r.last, r.h_last) == (f.id.seq - 1, f.prev)), None)
            if below is None:
                runs.append(RunStated(f.id.seq, f.prev, f.id.seq, f.id.h))
            else:
                runs[below] = RunStated(runs[below].first, runs[below].h_before, f.id.seq, f.id.h)
        return {key: tuple(runs) for key, runs in out.items()}

    def show(self, mask: Mask, most: int = 8) -> str:
        """Facts for people."""
        names = [str(self.facts[i].id) for i in bits(mask)]
        return " ".join(names[:most]) + (f" … {len(names)} in all" if len(names) > most else "")

    def mask(self, ids: Iterable[FactId]) -> Mask:
        """Facts by name. Errors: KeyError for one that nobody ever committed."""
        out = 0
        for fid in ids:
            out |= 1 << self.of[fid]
        return out


def read_order(row: bytes) -> tuple[Order | None, int, str | None]:
    """(org, order id), status and site of an order event; (None, 0, None) for any other row."""
    try:
        values = unpack(row, max_bytes=1_000_000)
    except DecodeError:
        return None, 0, None
    if isinstance(values, list) and len(values) >= 13 and values[0] == 1:
        return (str(values[1]), str(values[2])), int(values[4]), values[9]
    return None, 0, None
