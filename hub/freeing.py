"""What a hub frees of its ledger, and when it takes that back (sync.md, rules 11 and 12). Pure; runs inside the core's transactions.

A fact goes when the central store has it, every backup of the store has it (or the budget presses, where there is none), and it has been so
for the floor, by this hub's clock. Its place stays in the runs, its hash is kept: a branch that leaves below is still told apart. Facts
in which orders end stay too: edges that follow a scope are given them.

What was freed counts as held only while the store's rows have it. The store's word is compared at each statement; where it went back
below what is freed here, those places become a hole again, and the nodes give the facts back. Before the store has spoken nothing that was
freed is stated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from protocols.chains import RunKind
from protocols.freeing import Freeing
from protocols.ledger import Ledger
from protocols.merge import load_heads
from protocols.messages import Point, RunStated
from protocols.streams import Stream, StreamKey
from protocols.sync.receiver import StoreSays
from protocols.sync.records import below_records

TURN_ROWS: Final = 20_000
"""freed in one transaction at most: edges wait for it"""

CUT_PAGES: Final = 2_000
"""cut off the file in one transaction at most, where more than SPARE_BYTES lie unused"""
SPARE_BYTES: Final = 16_000_000

Identity = tuple[int, int, bytes]
"""(sid, seq, h)"""


class HubFreeing:
    """See the module."""

    def __init__(self, ledger: Ledger, floor_ms: int) -> None:
        self._ledger = ledger
        self._freeing = Freeing(ledger, floor_ms, hashed=True)
        self._freeable: dict[int, int] = {}
        self.taken_back = 0
        """places that were freed here and became holes again, since this start"""
        self.swept = 0
        """facts that came late, into a place that had been freed, and went again"""

    @property
    def freed(self) -> int:
        """Facts freed since this start."""
        return self._freeing.freed

    # ------------------------------------------------------------ the store's word

    def lower(self, key: StreamKey, runs: Sequence[RunStated]) -> bool:
        """The store holds these runs of a stream. Is anything that was freed here not among them? Then it is a hole again."""
        stream = self._ledger.log.get(key)
        if stream is None or not stream.freed_seq:
            return False
        support = self._supported(stream, runs)
        if support >= stream.freed_seq:
            return False
        self.taken_back += stream.freed_seq - support
        self._ledger.log.unfree(stream, support)
        self._freeable.pop(stream.sid, None)
        return True

    def _supported(self, stream: Stream, runs: Sequence[RunStated]) -> int:
        """Up to which seq the store has what was freed here, by chain hashes alone: a run of another branch supports nothing."""
        log = self._ledger.log
        at, h = 0, stream.chain.genesis
        while at < stream.freed_seq:
            above = [r for r in runs if r.first == at + 1 and r.h_before in (h, b"")]
            if any(r.last >= stream.freed_seq and self._leads_to_freed(stream, r) for r in above):
                return stream.freed_seq
            mine = next((r for r in above if r.last < stream.freed_seq and log.hash_of_freed(stream, r.last) == r.h_last), None)
            if mine is None:
                return at
            at, h = mine.last, mine.h_last
        return at

    def _leads_to_freed(self, stream: Stream, run: RunStated) -> bool:
        """Does a run that ends at or above the freed point pass through it?"""
        point = (stream.freed_seq, stream.freed_h)
        if (run.last, run.h_last) == point:
            return True
        found = stream.chain.locate(run.last, run.h_last) is not None or any(
            (r.last, r.h_last) == (run.last, run.h_last) for r in stream.chain.runs
        )
        if stream.chain.fork_point is None:
            return found
        return any(r.first <= point[0] <= last and self._ledger.log.hash_in(stream, r, point[0]) == point[1]
                   for r, last in stream.chain.path(run.last, run.h_last))  # fmt: skip

    # ------------------------------------------------------------ letting go

    def mark(self, says: Mapping[StreamKey, StoreSays], runs: Mapping[StreamKey, Sequence[RunStated]], now_ms: int) -> None:
        """What may go, as of now: where the store has everything below, and every backup of it."""
        for key, said in says.items():
            stream = self._ledger.log.get(key)
            if stream is not None:
                held = self._may_go(stream, said.settled, ())  # a backup may have what a store restored from an older one has not
                self._freeable[stream.sid] = min(held, self._may_go(stream, said.freeable, runs.get(key, ())))
                self._freeing.mark(stream, self._freeable[stream.sid], now_ms)

    def _may_go(self, stream: Stream, ends: Iterable[Point], stated: Sequence[RunStated]) -> int:
        """The highest of these points on the own chain, below any fork, and below what the store calls evicted and is here after all."""
        fork = stream.chain.fork_point
        seq = max((s for s, h in ends if (fork is None or s <= fork) and self._ledger.log.hash_at(stream, s) == h), default=0)
        return below_records(stream, stated, min(seq, stream.chain.prefix()))

    def step(self, now_ms: int) -> int:
        """Free what is due, within a turn's bound. Returns how many places went."""
        self._sweep_late()
        left = TURN_ROWS
        for stream in self._ledger.log.all():
            freeable = self._freeable.get(stream.sid, 0)
            if left <= 0 or freeable <= stream.freed_seq:
                continue
            up_to = self._end(stream, min(self._freeing.due(stream, freeable, now_ms), stream.freed_seq + left))
            if up_to > stream.freed_seq:
                left -= self._free(stream, up_to, now_ms)
        self._ledger.db.trim(CUT_PAGES, SPARE_BYTES)
        return TURN_ROWS - left

    def _end(self, stream: Stream, up_to: int) -> int:
        """Not in the middle of a record, where no hash is known: before it, or beyond it."""
        inside = next((r for r in stream.chain.runs if r.kind is not RunKind.DATA and r.first <= up_to < r.last), None)
        return up_to if inside is None else inside.first - 1

    def _free(self, stream: Stream, up_to: int, now_ms: int) -> int:
        self._ledger.flush()
        rows = self._ledger.db.query(
            """SELECT l.seq, l.h, l.okey, o.heads FROM log l LEFT JOIN orders o USING (okey)
               WHERE l.sid=? AND l.seq>? AND l.seq<=? ORDER BY l.seq""",
            (stream.sid, stream.freed_seq, up_to),
        )
        heads = {okey: _heads(data) for _, _, okey, data in rows if okey is not None and data is not None}
        kept = [(seq, bytes(h)) for seq, h, okey, _ in rows if okey is not None and (stream.sid, seq, bytes(h)) in heads.get(okey, {})]
        kept += [
            (seq, bytes(h))
            for seq, h in self._ledger.db.query(
                "SELECT seq, h FROM quarantine WHERE sid=? AND seq>? AND seq<=?", (stream.sid, stream.freed_seq, up_to)
            )
        ]
        gone = self._freeing.free(stream, up_to, now_ms, kept=dict.fromkeys(kept))
        if gone:
            self._sweep(heads)
            self._ledger.forget_requests(now_ms)
        return gone

    def _sweep_late(self) -> None:
        """Facts that came when their place had been freed, unless an order ends in them or they stepped aside."""
        late, self._ledger.log.came_late = self._ledger.log.came_late, []
        if late:
            self._ledger.flush()
        for identity in late:
            stream = self._ledger.log.by_sid(identity[0])
            if identity[1] > stream.freed_seq or self._ledger.log.hash_of_freed(stream, identity[1]) != identity[2]:
                continue  # the store went back below it meanwhile
            row = self._ledger.db.one(
                """SELECT o.heads, q.sid FROM log l LEFT JOIN orders o USING (okey) LEFT JOIN quarantine q USING (sid, seq, h)
                   WHERE l.sid=? AND l.seq=? AND l.h=?""",
                identity,
            )
            if row is not None and row[1] is None and (row[0] is None or identity not in _heads(row[0])):
                self._ledger.db.run("DELETE FROM log WHERE sid=? AND seq=? AND h=?", identity)
                self.swept += 1

    def _sweep(self, heads: Mapping[int, Mapping[Identity, None]]) -> None:
        """Facts that were freed and stayed because orders ended in them, and do not any more."""
        log = self._ledger.log
        for okey, ends in heads.items():
            for sid, seq, h in self._ledger.db.query("SELECT sid, seq, h FROM log WHERE okey=?", (okey,)):
                stream = log.by_sid(sid)
                if seq <= stream.freed_seq and (sid, seq, bytes(h)) not in ends and log.hash_of_freed(stream, seq) == bytes(h):
                    self._ledger.db.run("DELETE FROM log WHERE sid=? AND seq=? AND h=?", (sid, seq, h))


def _heads(data: bytes) -> dict[Identity, None]:
    return {head.fact: None for head in load_heads(data)}
