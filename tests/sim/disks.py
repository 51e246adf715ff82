"""Disks of the simulated world: production databases in memory whose next commit can fail, and what an observer knows to be on them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from protocols.codec import unpack_own
from protocols.errors import LedgerBroken
from protocols.schema import LEDGER, migrate
from protocols.sqlite import Db, Value
from protocols.streams import StreamKey
from tests.sim.truth import FactId, Mask, Order, Truth

NO_LIMIT_PAGES: Final = 1_073_741_823


class SimDb(Db):
    """A database whose next commit can fail: `fail` is "before" (nothing was written) or "after" (all was written, nobody learns it).

    `filled`: its disk is full, so that it may grow by a few pages at most. `written`: how many statements were run that write to each
    table, also when that was rolled back, so that nobody need look at what cannot have changed (none of them is a query: a test sees it).
    `copied`: orders, by their numbers, whose copies of others' facts were written to since somebody last looked; None: it may be any.
    """

    fail = ""
    filled = False
    copied: dict[Value, None] | None = None

    def __init__(self, *args: Any, **more: Any) -> None:
        self.written: dict[str, int] = {}
        super().__init__(*args, **more)

    def run(self, sql: str, params: Sequence[Value] = ()) -> None:
        """See `Db.run`."""
        self._writes(sql, params)
        super().run(sql, params)

    def many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """See `Db.many`."""
        self._writes(sql)
        super().many(sql, rows)

    def _writes(self, sql: str, params: Sequence[Value] = ()) -> None:
        table = table_written(sql)
        if table:
            self.written[table] = self.written.get(table, 0) + 1
            if table in ("copies", "*"):
                if self.copied is not None and params and of_one_order(sql):
                    self.copied[params[0]] = None
                else:
                    self.copied = None

    def fill(self, spare_pages: int) -> None:
        """The disk it is on has room for so many more pages."""
        pages = self.one("PRAGMA page_count")
        self._most_pages(max(1, pages[0] if pages else 1) + spare_pages)
        self.filled = True

    def clear(self) -> None:
        """There is room again."""
        self._most_pages(NO_LIMIT_PAGES)
        self.filled = False

    def _most_pages(self, pages: int) -> None:
        self.query(f"PRAGMA max_page_count={pages}")

    def commit(self) -> None:
        """See `Db.commit`."""
        how, self.fail = self.fail, ""
        if how == "before":
            self.rollback()
            raise LedgerBroken("the power went before the commit")
        super().commit()
        if how == "after":
            raise LedgerBroken("the power went after the commit")


@lru_cache(maxsize=4_096)
def table_written(sql: str) -> str:
    """The table that a statement writes to; "" when it writes to none, and "*" when that cannot be told."""
    found = re.match(r"\s*(?:INSERT(?: OR \w+)? INTO|REPLACE INTO|UPDATE(?: OR \w+)?|DELETE FROM)\s+(\w+)", sql)
    if found is not None:
        return found[1]
    return "" if re.match(r"\s*(?:SELECT|PRAGMA|BEGIN|COMMIT|ROLLBACK)\b", sql) else "*"


@lru_cache(maxsize=64)
def of_one_order(sql: str) -> bool:
    """Does a statement write to copies of facts of one order only, and its first parameter say of which?"""
    return re.match(r"\s*(?:INSERT INTO copies \(okey,.*\) VALUES \(\?,|DELETE FROM copies WHERE okey=\?\s*$)", sql) is not None


@dataclass(slots=True)
class Disk:
    """A database and its mirror. `seen`: facts that were ever logged in it; `held`: those whose bytes are there now; `keys`: requests
    that it answers for, as (content, the fact of it); `own`: the facts of the node's own streams on the branch that this database wrote."""

    name: str
    db: SimDb
    seen: Mask = 0
    held: Mask = 0
    keys: dict[str, tuple[object, int]] = field(default_factory=dict)
    own: dict[StreamKey, list[int]] = field(default_factory=dict)
    views: dict[Order, Mask] = field(default_factory=dict)
    """heads of each order as last read"""
    shown: dict[Order, bytes] = field(default_factory=dict)
    """at an edge, heads of each order as they were written down when feeds were last looked at"""
    copied: Mask = 0
    """at an edge, facts of others that came down"""
    gone: bool = False
    names: dict[int, StreamKey] = field(default_factory=dict)
    """streams by their numbers here, which they keep"""
    sids: dict[StreamKey, int] = field(default_factory=dict)
    """and their numbers"""
    freed: Mask = 0
    """at a hub: facts that it let go by rule 11 and still speaks for, as the store has them"""
    looked: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """how much had been written to some tables when somebody last looked at them"""
    copies: dict[Value, Mask] = field(default_factory=dict)
    """at an edge, which facts of others there are copies of, by the numbers of their orders"""

    @classmethod
    def blank(cls, name: str) -> Disk:
        """A new, empty disk."""
        return cls(name, SimDb(":memory:"))

    @classmethod
    def formatted(cls, name: str) -> Disk:
        """A disk with a ledger in which nothing stands yet, as a first start leaves it: made once, and copied from then on."""
        db = SimDb.load(_empty_ledger())
        assert isinstance(db, SimDb)
        return cls(name, db)

    def moved(self, who: str, *tables: str) -> bool:
        """Has anything been written to these tables since `who` asked last?"""
        written = self.db.written
        state = tuple(written.get(table, 0) for table in (*tables, "*"))
        before = self.looked.get(who)
        self.looked[who] = state
        return before != state

    def clear(self) -> None:
        """There is room on it again; harmless when it is gone."""
        if self.db.filled and not self.gone:
            self.db.clear()

    def close(self) -> None:
        """It is thrown away."""
        self.gone = True
        self.db.close()

    def copy(self, name: str) -> Disk:
        """Another disk with the same bytes: a clone, a backup."""
        db = SimDb.load(self.db.dump())
        assert isinstance(db, SimDb)
        own = {key: list(mine) for key, mine in self.own.items()}
        mirror = Disk(name, db, self.seen, self.held, dict(self.keys), own, dict(self.views), dict(self.shown), self.copied)
        mirror.freed = self.freed
        return mirror

    def logged(self, key: StreamKey, first: int, last: int) -> list[tuple[FactId, bytes, bytes]]:
        """(identity, hash before it, row) of what lies in the log of a stretch of a stream."""
        sid = self.sids.get(key)
        if sid is None:
            row = self.db.one("SELECT sid FROM streams WHERE node=? AND epoch=? AND cls=?", key)
            if row is None:
                return []
            sid = self.sids[key] = row[0]
        rows = self.db.query("SELECT seq, h, prev, row FROM log WHERE sid=? AND seq BETWEEN ? AND ? ORDER BY seq, h", (sid, first, last))
        return [(FactId(*key, seq, bytes(h)), bytes(prev), bytes(row)) for seq, h, prev, row in rows]

    def logged_after(self, sid: int, key: StreamKey, seq: int) -> list[tuple[FactId, bytes, bytes]]:
        """The same of all that follows a place, of the stream with this number here."""
        rows = self.db.query("SELECT seq, h, prev, row FROM log WHERE sid=? AND seq>? ORDER BY seq, h", (sid, seq))
        return [(FactId(*key, n, bytes(h)), bytes(prev), bytes(row)) for n, h, prev, row in rows]

    def everything(self) -> list[tuple[FactId, bytes]]:
        """(identity, row) of every fact in the log."""
        rows = self.db.query("SELECT sid, seq, h, row FROM log")
        return [(FactId(*self.stream(sid), seq, bytes(h)), bytes(row)) for sid, seq, h, row in rows]

    def evicted(self, truth: Truth) -> Mask:
        """Facts of the node's own streams that it gave up: its chain keeps their place, and no row is there."""
        out = 0
        for node, epoch, cls, first, last in self.db.query(
            "SELECT s.node, s.epoch, s.cls, r.first, r.last FROM runs r JOIN streams s USING (sid) WHERE r.kind = 2 AND s.own = 1"
        ):
            own = self.own.get(StreamKey(node, epoch, cls), [])
            out |= truth.up_to(own, min(last, len(own))) & ~truth.up_to(own, min(first - 1, len(own)))
        return out

    def freed_now(self, truth: Truth) -> Mask:
        """Facts below the freed points of others' and own streams, whose rows are gone."""
        out = 0
        for node, epoch, cls, seq, h in self.db.query("SELECT node, epoch, cls, freed_seq, freed_h FROM streams WHERE freed_seq > 0"):
            at = truth.of.get(FactId(node, epoch, cls, seq, bytes(h)))
            out |= truth.facts[at].chain if at is not None else 0
        return out & ~self.held

    def recorded(self, truth: Truth) -> Mask:
        """Facts whose places are closed by a signed record and not by data.

        A record speaks for its branch down to where data begins: where a branch left the others cannot be told without its facts.
        """
        out = 0
        for node, epoch, cls, first, last, h_last in self.db.query(
            "SELECT s.node, s.epoch, s.cls, r.first, r.last, r.h_last FROM runs r JOIN streams s USING (sid) WHERE r.kind > 0"
        ):
            at = truth.of.get(FactId(node, epoch, cls, last, bytes(h_last)))
            while at is not None and (truth.facts[at].id.seq >= first or not self.held >> at & 1):
                out |= 1 << at
                at = truth.below_of(at)
        return out

    def heads(self, truth: Truth, table: str, order: tuple[str, str]) -> Mask:
        """The heads of an order as they are written down; raises KeyError for one that nobody committed."""
        row = self.db.one(f"SELECT heads FROM {table} WHERE org=? AND order_id=?", order)
        return 0 if row is None else truth.mask(self._head_id(h) for h in _unpacked(bytes(row[0])))

    def _head_id(self, head: list[Any]) -> FactId:
        sid, seq, h = (head[5][3], head[5][1], head[5][2]) if len(head) > 5 and head[5] else head[:3]  # a fix names itself last
        return FactId(*self.stream(sid), seq, h)

    def stream(self, sid: int) -> StreamKey:
        """The stream that has this number here."""
        key = self.names.get(sid)
        if key is None:
            row = self.db.one("SELECT node, epoch, cls FROM streams WHERE sid=?", (sid,))
            assert row is not None
            key = self.names[sid] = StreamKey(*row)
        return key


@lru_cache(maxsize=1)
def newer_tables_bytes() -> int:
    """How much larger an empty ledger is than one of version 1, so that a budget that was drawn then still leaves the same room."""
    sizes = []
    for migrations in (LEDGER[:1], LEDGER):
        db = SimDb(":memory:")
        migrate(db, migrations)
        sizes.append(db.file_bytes())
        db.close()
    return sizes[1] - sizes[0]


@lru_cache(maxsize=1)
def _empty_ledger() -> bytes:
    db = SimDb(":memory:")
    migrate(db, LEDGER)
    image = db.dump()
    db.close()
    return image


def _unpacked(heads: bytes) -> list[list[Any]]:
    rows = unpack_own(heads)
    assert isinstance(rows, list)
    return rows
