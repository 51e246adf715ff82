"""One batch on its way into the log and the view: what is new of it, in which runs it belongs, which holes it closes.

Everything happens inside the transaction of the owner. Exactly once is by identity (stream, seq, h), asked of the log unless the chain
says already that the facts lengthen its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

from hub.store.log import StoreLog, StoreRow
from hub.store.port import Applied, StoreFact, StoreRecord
from hub.store.reading import Fresh, Read, applied, lanes, linked, read_all
from hub.store.view import ViewBook
from protocols.chains import RunKind
from protocols.fact import Replaces
from protocols.fixes import Identity, withdrawal
from protocols.sqlite import Db
from protocols.streams import Stream


class Batch:
    """Applies one batch. `closing`: the streams that have signed records; it grows when one comes."""

    def __init__(self, db: Db, log: StoreLog, book: ViewBook, closing: dict[int, None], now_ms: int) -> None:
        self._db, self._log, self._book, self._closing, self._now_ms = db, log, book, closing, now_ms
        self._fresh: list[Fresh] = []
        self._forked: dict[int, None] = {}
        self._touched: dict[int, Stream] = {}
        self._below_records: dict[int, None] = {}
        self._poison: list[tuple[int, int, bytes, str, int]] = []
        self._fixes: list[tuple[Stream, int, bytes, Replaces, bool]] = []
        self._new = 0

    def take(self, facts: Sequence[StoreFact], records: Sequence[StoreRecord]) -> Applied:
        """Log and fold what is new; the owner commits next."""
        read = read_all(facts)
        self._book.fetch(dict.fromkeys((r.org, r.order_id) for r, _ in read if r is not None))
        for key, lane in lanes(facts).items():
            self._take_lane(self._log.open(key), lane, facts, read)
        self._close_holes(records)
        self._fold(facts)
        if self._poison:
            self._db.many("INSERT OR IGNORE INTO quarantine (sid, seq, h, reason, at_ms) VALUES (?, ?, ?, ?, ?)", self._poison)
        self._book.finish(self._now_ms)
        self._log.flush()
        return applied(self._fresh, facts, self._new)

    # ------------------------------------------------------------ facts

    def _take_lane(self, stream: Stream, lane: Sequence[int], facts: Sequence[StoreFact], read: Sequence[Read]) -> None:
        for group in linked(lane, facts):
            for part in self._unknown(stream, group, facts):
                if self._log.take(stream, self._rows(stream, part, facts, read)):
                    self._forked[stream.sid] = None
                if facts[part[0]].seq <= max((r.last for r in stream.chain.runs if r.kind is not RunKind.DATA), default=0):
                    self._below_records[stream.sid] = None
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
            if parts and facts[parts[-1][-1]].seq == facts[i].seq - 1:
                parts[-1].append(i)
            else:
                parts.append([i])
        return list(parts)

    def _rows(self, stream: Stream, part: Sequence[int], facts: Sequence[StoreFact], read: Sequence[Read]) -> list[StoreRow]:
        """New facts as rows of the log; what belongs to an order goes on to the fold, what cannot be read to quarantine."""
        sid, cls, now_ms, rows = stream.sid, stream.key.cls, self._now_ms, []
        for i in part:
            _, seq, h, prev, row, received_ms, _, _ = facts[i]
            fact, why = read[i]
            okey = None
            if fact is not None:
                order = self._book.open(fact.org, fact.order_id)
                okey = order.okey
                self._fresh.append((i, self._book.as_head(sid, cls, seq, h, fact), order, fact))
                if fact.replaces is not None:
                    self._fixes.append((stream, seq, h, fact.replaces, False))
            elif why:
                self._poison.append((sid, seq, h, why, now_ms))
            elif (given_up := withdrawal(row)) is not None:
                self._fixes.append((stream, seq, h, given_up.replaces, True))
            rows.append(StoreRow(sid, seq, h, prev, okey, now_ms, row, received_ms))
        return rows

    def _fold(self, facts: Sequence[StoreFact]) -> None:
        """In the order in which the batch names them: whoever delivers sends causes before effects where it can."""
        self._fresh.sort(key=itemgetter(0))
        replaced: dict[Identity, None] = {}
        for stream, seq, h, replaces, gone in self._fixes:
            replaced |= dict.fromkeys(self._book.fixes.take(stream, seq, h, replaces, gone=gone))
        fold = self._book.fold
        for i, head, order, fact in self._fresh:
            given = facts[i]
            fold(order, head, fact, given.stream.node, given.received_ms)
        for sid in self._forked:
            self._book.mark_forked(sid, self._log.fork_point(sid) or 0)
        if replaced:
            self._book.mark_replaced(list(replaced))
        self._book.mark_unsure(self._touched)

    # ------------------------------------------------------------ records

    def _close_holes(self, records: Sequence[StoreRecord]) -> None:
        """A record is kept whenever it comes, and tried again while its stream has holes: the facts around its hole may come later."""
        for r in records:
            stream = self._log.open(r.stream)
            self._touched[stream.sid], self._closing[stream.sid] = stream, None
            row = (stream.sid, r.first, r.h_before, r.last, r.h_last, int(r.kind), r.signed, r.received_ms)
            self._db.run("INSERT OR IGNORE INTO closures VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        for sid, stream in self._touched.items():
            if sid in self._closing and (stream.chain.holes() or sid in self._below_records):
                sql = "SELECT first, h_before, last, h_last, kind FROM closures WHERE sid=? ORDER BY last DESC, h_last, first"
                self._log.place(stream, [(r[0], r[1], r[2], r[3], r[4]) for r in self._db.query(sql, (sid,))])
