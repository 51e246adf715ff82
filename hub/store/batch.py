"""One batch on its way into the log and the view: what is new of it, in which runs it belongs, which holes it closes.

Everything happens inside the transaction of the owner. Exactly once is by identity (stream, seq, h), asked of the log unless the chain
says already that the facts lengthen its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from hub.store.log import StoreLog, StoreRow
from hub.store.port import Applied, Change, StoreFact, StoreRecord
from hub.store.view import Order, ViewBook
from protocols.chains import RunKind
from protocols.codec import unpack
from protocols.errors import DecodeError
from protocols.fact import FactRow
from protocols.ledger import readable
from protocols.lifecycle import STATUS_NAMES
from protocols.limits import FRAME_UNPACKED_BYTES
from protocols.merge import Head
from protocols.sqlite import Db
from protocols.streams import Stream, StreamKey

_NAMES: Final = ("", *STATUS_NAMES)
"""by status code, which run from 1 without a gap"""


class _Fresh(NamedTuple):
    """A new fact of an order, logged and about to be folded. `at` is its place in the batch."""

    at: int
    head: Head
    order: Order
    fact: FactRow


class Batch:
    """Applies one batch. `closing`: the streams that have signed records; it grows when one comes."""

    def __init__(self, db: Db, log: StoreLog, book: ViewBook, closing: dict[int, None], now_ms: int) -> None:
        self._db, self._log, self._book, self._closing, self._now_ms = db, log, book, closing, now_ms
        self._fresh: list[_Fresh] = []
        self._forked: dict[int, None] = {}
        self._touched: dict[int, Stream] = {}
        self._poison: list[tuple[int, int, bytes, str, int]] = []
        self._new = 0

    def take(self, facts: Sequence[StoreFact], records: Sequence[StoreRecord]) -> Applied:
        """Log and fold what is new; the owner commits next."""
        read = [_read(f) for f in facts]
        self._book.fetch(dict.fromkeys((r.org, r.order_id) for r, _ in read if r is not None))
        for key, lane in _lanes(facts).items():
            self._take_lane(self._log.open(key), lane, facts, read)
        self._close_holes(records)
        self._fold(facts)
        if self._poison:
            self._db.many("INSERT OR IGNORE INTO quarantine (sid, seq, h, reason, at_ms) VALUES (?, ?, ?, ?, ?)", self._poison)
        self._book.finish(self._now_ms)
        self._log.flush()
        return Applied(self._new, len(facts) - self._new, [self._change(f, facts[f.at]) for f in self._fresh])

    # ------------------------------------------------------------ facts

    def _take_lane(
        self, stream: Stream, lane: Sequence[int], facts: Sequence[StoreFact], read: Sequence[tuple[FactRow | None, str]]
    ) -> None:
        for group in _linked(lane, facts):
            for part in self._unknown(stream, group, facts):
                rows = [self._row(stream, i, facts[i], *read[i]) for i in part]
                if self._log.take(stream, rows):
                    self._forked[stream.sid] = None
                self._touched[stream.sid] = stream
                self._new += len(part)

    def _unknown(self, stream: Stream, group: Sequence[int], facts: Sequence[StoreFact]) -> list[Sequence[int]]:
        """The stretches of a group that are not logged yet."""
        first, last = facts[group[0]], facts[group[-1]]
        if not stream.chain.runs or stream.chain.extends(first.seq, first.prev) is not None:
            return [group]
        known = self._log.known(stream.sid, first.seq, last.seq)
        if not known:
            return [group]
        parts: list[list[int]] = []
        for i in group:
            if (facts[i].seq, facts[i].h) in known:
                continue
            if parts and parts[-1][-1] in group and facts[parts[-1][-1]].seq == facts[i].seq - 1:
                parts[-1].append(i)
            else:
                parts.append([i])
        return list(parts)

    def _row(self, stream: Stream, at: int, f: StoreFact, fact: FactRow | None, why: str) -> StoreRow:
        okey = None
        if fact is not None:
            order = self._book.open(fact.org, fact.order_id)
            okey = order.okey
            head = self._book.as_head(stream.sid, stream.key.cls, f.seq, f.h, fact)
            self._fresh.append(_Fresh(at, head, order, fact))
        elif why:
            self._poison.append((stream.sid, f.seq, f.h, why, self._now_ms))
        return StoreRow(stream.sid, f.seq, f.h, f.prev, okey, self._now_ms, f.row, f.received_ms)

    def _fold(self, facts: Sequence[StoreFact]) -> None:
        """In the order in which the batch names them: whoever delivers sends causes before effects where it can."""
        self._fresh.sort(key=lambda f: f.at)
        for f in self._fresh:
            given = facts[f.at]
            self._book.fold(f.order, f.head, f.fact, given.stream.node, given.received_ms)
        for sid in self._forked:
            self._book.mark_forked(sid, self._log.fork_point(sid) or 0)
        self._book.mark_unsure(self._touched)

    def _change(self, f: _Fresh, given: StoreFact) -> Change:
        order, fact = f.order, f.fact
        return Change(
            order.org, order.order_id, _NAMES[fact.status], _NAMES[order.status], fact.source, fact.site, fact.region, given.stream.node,
            fact.happened_ms, given.received_ms, order.conflict, f.head in order.heads,
        )  # fmt: skip

    # ------------------------------------------------------------ records

    def _close_holes(self, records: Sequence[StoreRecord]) -> None:
        """A record is kept whenever it comes, and tried again while its stream has holes: the facts around its hole may come later."""
        for r in records:
            stream = self._log.open(r.stream)
            self._touched[stream.sid], self._closing[stream.sid] = stream, None
            row = (stream.sid, r.first, r.h_before, r.last, r.h_last, int(r.kind), r.signed, r.received_ms)
            self._db.run("INSERT OR IGNORE INTO closures VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        for sid, stream in self._touched.items():
            if sid in self._closing and stream.chain.holes():
                self._close_from(stream)

    def _close_from(self, stream: Stream) -> None:
        for first, h_before, last, h_last, kind in self._db.query(
            "SELECT first, h_before, last, h_last, kind FROM closures WHERE sid=? ORDER BY last DESC, h_last, first", (stream.sid,)
        ):
            self._log.close_hole(stream, first, h_before, last, h_last, RunKind(kind))


def _read(f: StoreFact) -> tuple[FactRow | None, str]:
    """A fact of an order; or (None, "") for one that is none; or (None, why it goes to quarantine)."""
    if f.quarantined:
        return None, f.quarantined
    if f.fact is not None:
        return f.fact, ""
    try:
        return readable(unpack(f.row, max_bytes=FRAME_UNPACKED_BYTES))
    except DecodeError as e:
        return None, e.reason


def _lanes(facts: Sequence[StoreFact]) -> dict[StreamKey, list[int]]:
    """The places of each stream's facts in the batch."""
    lanes: dict[StreamKey, list[int]] = {}
    for i, f in enumerate(facts):
        lane = lanes.get(f.stream)
        if lane is None:
            lanes[f.stream] = [i]
        else:
            lane.append(i)
    return lanes


def _linked(lane: Sequence[int], facts: Sequence[StoreFact]) -> list[Sequence[int]]:
    """A lane in stretches in which each fact follows the one before on its chain."""
    starts = [
        k for k in range(1, len(lane)) if facts[lane[k]].prev != facts[lane[k - 1]].h or facts[lane[k]].seq != facts[lane[k - 1]].seq + 1
    ]
    return [lane[a:b] for a, b in zip([0, *starts], [*starts, len(lane)], strict=True)]
