"""The end, read by somebody else: plain sqlite3 instead of the product's connection, msgpack instead of its codec, hashes and the fold
written again from the specification. What is said here of an order follows from the set of its facts and the lifecycle table alone.

Read only when nobody writes any more. Nothing here shares code with the product but the lifecycle table, which is data.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgpack

from protocols.lifecycle import ROWS, Status
from protocols.sqlite import Db
from tests.chaos.history import Stored

ORDERS: Final = 0
ORDER_EVENT: Final = 1
CONTINUES: Final = 2
TOKEN: Final = "op"
"""the key in an event's details that carries the token of the history"""


class FactId(NamedTuple):
    """Who, when in the stream, and which branch."""

    node: str
    epoch: int
    cls: int
    seq: int
    h: bytes

    def __str__(self) -> str:
        return f"{self.node}/{self.epoch:x}/{self.seq}/{self.h[:4].hex()}"


@dataclass(frozen=True)
class Fact:
    """A row of a log."""

    id: FactId
    prev: bytes
    row: bytes

    @cached_property
    def values(self) -> list[Any]:
        """The row, unpacked."""
        return msgpack.unpackb(self.row, strict_map_key=False)

    @property
    def order(self) -> tuple[str, str] | None:
        """(org, order id); None for what is no order event."""
        return (self.values[1], self.values[2]) if self.values[0] == ORDER_EVENT else None

    @property
    def site(self) -> str | None:
        """Of an order event."""
        return self.values[9]

    @property
    def status(self) -> Status:
        """Of an order event."""
        return Status(self.values[4])

    def stored(self) -> Stored:
        """As the history checker reads it."""
        node, epoch, cls, seq, _ = self.id
        if self.order is None or cls != ORDERS:
            return Stored(node, epoch, seq, str(self.id), "", (), self.values[1] if self.values[0] == CONTINUES else 0)
        details = self.values[11]
        content = (self.values[1], self.values[2], self.status.name, self.values[3])
        return Stored(node, epoch, seq, str(self.id), str(details.get(TOKEN, "?")), content)


@dataclass(frozen=True)
class Shown:
    """What is to be seen of an order."""

    status: str
    heads: tuple[FactId, ...]
    conflict: bool
    facts: int

    def __str__(self) -> str:
        heads = ", ".join(map(str, self.heads[:5])) + (f" and {len(self.heads) - 5} more" if len(self.heads) > 5 else "")
        return f"{self.status}{' with a conflict' if self.conflict else ''} by {heads} ({self.facts} facts)"


@dataclass
class Books:
    """One database as it was left."""

    name: str
    facts: dict[FactId, Fact]
    own: dict[tuple[str, int, int], tuple[int, int, int]]
    """own streams: (head or 0, settled_seq, freed_seq)"""
    view: dict[tuple[str, str], Shown] = field(default_factory=dict)
    quarantined: int = 0
    integrity: str = "ok"
    others: dict[FactId, None] = field(default_factory=dict)
    """facts that a node keeps of others, as copies"""
    closed: dict[tuple[str, int, int], list[tuple[int, int]]] = field(default_factory=dict)
    """per stream, holes that a signed record closes"""


# ------------------------------------------------------------ reading


def read(path: Path, *, whole: bool = True) -> Books:
    """Everything that is compared. `view` from the store's table `view`, or a ledger's `orders`. `whole`: nobody writes any more, and its
    integrity is looked at, too."""
    integrity = _integrity(path) if whole else "ok"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        facts = {}
        if db.execute("SELECT 1 FROM sqlite_master WHERE name='log'").fetchone() is None:  # killed before it was made, and not up again yet
            return Books(f"{path.parent.name}/{path.name}", {}, {}, integrity=integrity)
        for node, epoch, cls, seq, h, prev, row in db.execute(
            "SELECT node, epoch, cls, seq, h, prev, row FROM log JOIN streams USING (sid)"
        ):
            fid = FactId(node, epoch, cls, seq, bytes(h))
            facts[fid] = Fact(fid, bytes(prev), bytes(row))
        heads: dict[tuple[str, int, int], int] = {}
        for fid in facts:
            heads[fid[:3]] = max(heads.get(fid[:3], 0), fid.seq)
        own = {
            (node, epoch, cls): (heads.get((node, epoch, cls), freed), settled, freed)
            for node, epoch, cls, settled, freed in db.execute("SELECT node, epoch, cls, settled_seq, freed_seq FROM streams WHERE own=1")
        }
        others = {
            FactId(node, epoch, cls, seq, bytes(h)): None
            for node, epoch, cls, seq, h in db.execute("SELECT node, epoch, cls, seq, h FROM copies JOIN streams USING (sid)")
        }
        closed: dict[tuple[str, int, int], list[tuple[int, int]]] = {}
        for node, epoch, cls, first, last in db.execute(
            "SELECT node, epoch, cls, first, last FROM runs JOIN streams USING (sid) WHERE kind>0"
        ):
            closed.setdefault((node, epoch, cls), []).append((first, last))
        (quarantined,) = db.execute("SELECT count(*) FROM quarantine").fetchone()
        return Books(f"{path.parent.name}/{path.name}", facts, own, _read_view(db), quarantined, integrity, others, closed)


def _integrity(path: Path) -> str:
    """By the product's own SQLite, which is let go before the other one reads: 3.40.1 finds nulls in columns of tables WITHOUT ROWID
    that hold none, when a key's columns are not the first."""
    db = Db(path, read_only=True)
    try:
        return str(db.query("PRAGMA integrity_check")[0][0])
    finally:
        db.close()


def _read_view(db: sqlite3.Connection) -> dict[tuple[str, str], Shown]:
    sids = {sid: (node, epoch, cls) for sid, node, epoch, cls in db.execute("SELECT sid, node, epoch, cls FROM streams")}
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")]
    what = "facts FROM view" if "view" in tables else "0 FROM orders WHERE followed=1"
    return shown(db.execute(f"SELECT org, order_id, status, heads, conflict, {what}"), sids)


def shown(rows: Iterable[Sequence[Any]], sids: Mapping[int, tuple[str, int, int]]) -> dict[tuple[str, str], Shown]:
    """Views as their table says them: (org, order id, status, heads, conflict, facts). `sids`: the streams that its heads name."""
    out = {}
    for org, order_id, status, heads, conflict, n in rows:
        ids = sorted(FactId(*sids[h[0]], h[1], bytes(h[2])) for h in msgpack.unpackb(heads, strict_map_key=False))
        out[org, order_id] = Shown(Status(status).name if status else "", tuple(ids), bool(conflict), n)
    return out


# ------------------------------------------------------------ the chain


def broken_chains(facts: Mapping[FactId, Fact], closed: Mapping[tuple[str, int, int], Sequence[tuple[int, int]]]) -> Iterator[str]:
    """Facts whose hash is not that of their row behind the fact before them, or that hang on nothing, not even on a signed record."""
    for fid, fact in facts.items():
        if blake2b(fact.prev + fact.row, digest_size=8).digest() != fid.h:
            yield f"{fid} is not the hash of its row"
        below = fid._replace(seq=fid.seq - 1, h=fact.prev)
        if fid.seq == 1 and fact.prev != _genesis(fid):
            yield f"{fid} does not begin its stream"
        if fid.seq > 1 and below not in facts and not any(lo <= below.seq <= hi for lo, hi in closed.get(fid[:3], ())):
            yield f"{fid} hangs on nothing"


def _genesis(fid: FactId) -> bytes:
    return blake2b(b"longshore/stream/1" + msgpack.packb(list(fid[:3])), digest_size=8).digest()


# ------------------------------------------------------------ the fold


def fold(facts: Mapping[FactId, Fact]) -> dict[tuple[str, str], Shown]:
    """What is to be shown of every order, from all facts and what their authors say they had seen."""
    orders: dict[tuple[str, str], list[Fact]] = {}
    for fact in facts.values():
        if fact.order is not None and fact.id.cls == ORDERS:
            orders.setdefault(fact.order, []).append(fact)
    reach = _Reach(facts)
    return {order: _shown(members, reach) for order, members in orders.items()}


def _shown(facts: Sequence[Fact], reach: _Reach) -> Shown:
    seen: dict[FactId, None] = {}
    for f in facts:
        seen |= dict.fromkeys(g.id for g in facts if g is not f and reach.seen(f, g))
    heads = [f for f in facts if f.id not in seen]
    top = max(heads, key=lambda f: (int(ROWS[f.status].policy), ROWS[f.status].rank, f.id.h))
    clash = any(not _agree(a.status, b.status) for i, a in enumerate(heads) for b in heads[i + 1 :])
    return Shown(top.status.name, tuple(sorted(f.id for f in heads)), clash, len(facts))


def _agree(a: Status, b: Status) -> bool:
    return a == b or a in ROWS[b].after or b in ROWS[a].after


class _Reach:
    """Who had seen whom: a fact had seen what stands before it on its branch, and before each entry of its context on the entry's."""

    def __init__(self, facts: Mapping[FactId, Fact]) -> None:
        self._facts = facts
        self._at: dict[tuple[str, int, int, int], list[FactId]] = {}
        for fid in facts:
            self._at.setdefault(fid[:4], []).append(fid)
        self._forked = {place[:3] for place, ids in self._at.items() if len(ids) > 1}

    def seen(self, f: Fact, g: Fact) -> bool:
        """Had the author of f seen g?"""
        if f.id[:3] == g.id[:3] and g.id.seq < f.id.seq:
            return self._below(g.id, f.id)
        for node, epoch, seq, h4 in f.values[12]:
            if (node, epoch, f.id.cls) == g.id[:3] and g.id.seq <= seq:
                tips = [t for t in self._at.get((node, epoch, f.id.cls, seq), []) if t.h[:4] == h4]
                if g.id[:3] not in self._forked or any(self._below(g.id, t) for t in tips):
                    return True
        return False

    def _below(self, low: FactId, high: FactId) -> bool:
        if low[:3] not in self._forked:
            return low.seq <= high.seq
        at = high
        while at.seq > low.seq:
            at = at._replace(seq=at.seq - 1, h=self._facts[at].prev)
        return at == low


# ------------------------------------------------------------ the comparison


def compare(store: Books, hub: Books, edges: Sequence[Books], *, put_back: Sequence[str] = ()) -> list[str]:
    """Whatever is not as it must be once everything is quiet. `put_back`: nodes that were restored from a backup, and need not have in
    their ledgers all that they once said."""
    said = [f"{b.name}: integrity check says {b.integrity}" for b in (store, hub, *edges) if b.integrity != "ok"]
    said += [f"{b.name}: {b.quarantined} facts in quarantine" for b in (store, hub, *edges) if b.quarantined]
    said += [f"{b.name}: {what}" for b in (store, hub) for what in broken_chains(b.facts, b.closed)]
    for b in (hub, *edges):
        said += list(_unsettled(b, store))
    said += list(_differing(store, hub))
    said += list(_phantoms(store, (hub, *edges), put_back))
    right = fold(store.facts)
    said += [f"view of {order[1]}: shows {store.view.get(order)}, right is {s}" for order, s in right.items() if store.view.get(order) != s]
    said += [f"view of {order[1]}: there is no such order" for order in store.view if order not in right]
    return said


def compare_views(store: Books, right: Mapping[tuple[str, str], Shown], edge: Books, place: str) -> list[str]:
    """Each order that one of its heads places at the edge's site is shown there as the centre shows it. Of others an edge may know more or
    less: what it said of them itself, and what has been here before. `right`: the fold of the store's facts."""
    said = []
    for order, want in right.items():
        if place not in [store.facts[h].site for h in want.heads]:
            continue
        have = edge.view.get(order)
        if have is None or (have.status, have.heads, have.conflict) != (want.status, want.heads, want.conflict):
            said.append(f"{edge.name} at {place}: of {order[1]} shows {have}, right is {want}")
    return said


def _unsettled(node: Books, store: Books) -> Iterator[str]:
    """Own facts that the store lacks or has with other bytes, and streams that do not know that all is settled."""
    held: dict[tuple[str, int, int], dict[int, None]] = {}
    for fid in store.facts:
        held.setdefault(fid[:3], {})[fid.seq] = None
    for fid, fact in node.facts.items():
        if fid[:3] in node.own and (fid not in store.facts or store.facts[fid].row != fact.row):
            yield f"{node.name}: {fid} is not in the store as it is here"
    for stream, (head, settled, freed) in node.own.items():
        if settled != head:
            yield f"{node.name}: {stream[0]}/{stream[1]:x} has {head} facts and believes {settled} settled"
        gone = [seq for seq in range(1, freed + 1) if seq not in held.get(stream, {})]
        if gone:
            yield f"{node.name}: freed {len(gone)} facts of {stream[0]}/{stream[1]:x} that the store lacks: {gone[:5]}"


def _differing(store: Books, hub: Books) -> Iterator[str]:
    for fid, fact in hub.facts.items():
        if fid not in store.facts:
            yield f"the hub holds {fid}, the store does not"
        elif store.facts[fid].row != fact.row:
            yield f"{fid} has other bytes at the hub than in the store"


def _phantoms(store: Books, nodes: Sequence[Books], put_back: Sequence[str]) -> Iterator[str]:
    """Facts of the store that their author does not have and never freed."""
    freed = {stream: below for node in nodes for stream, (_, _, below) in node.own.items()}
    for fid in store.facts:
        if (
            fid.node not in put_back
            and fid.seq > freed.get(fid[:3], 0)
            and not any(fid in node.facts for node in nodes if fid[:3] in node.own)
        ):
            yield f"the store holds {fid}, which its author does not"
