"""What goes over the bus, and what goes again: what the bridge sent, with the store's word held against it. Pure.

A fact is *new* until it was given to the bus, *under way* until the bus answered, *sent* from then on, and *settled* when the central
store states it: nothing else ends the wait (sync.md, rule 10; acknowledgements and offsets of the bus never do). What was sent and is not
settled after a time T is sent again, after another 2T once more, and so on up to 64T; in all at most `AGAIN_FACTS` within T, so that a
projector that is away for a day does not fill the bus with copies. Copies have the same identity, and the store takes each once.

What was sent is kept as runs in the hub's database, the durable cursor: one run per branch, normally. A hub that starts again goes on
from there. What the store has lost since (it came back older) waits for T like all else that was sent, and then goes again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from hub.handing import Handing, Spans, spans_of
from hub.store.port import StoreFact, StoreRecord
from protocols.chains import Run, RunKind
from protocols.ledger import Ledger
from protocols.messages import RunStated
from protocols.schema import migrate
from protocols.streams import Stream, StreamKey
from protocols.sync.handover import lacking, records_lacking
from protocols.sync.intervals import Intervals

AGAIN_FACTS: Final = 20_000
"""sent again within T, at most"""
MOST_DOUBLINGS: Final = 6
BRIDGE: Final = (
    (
        # runs of a stream that the bus acknowledged; kind as in `runs`
        """CREATE TABLE bridged (
             node TEXT NOT NULL, epoch INTEGER NOT NULL, cls INTEGER NOT NULL, first INTEGER NOT NULL, h_before BLOB NOT NULL,
             last INTEGER NOT NULL, h_last BLOB NOT NULL, kind INTEGER NOT NULL,
             PRIMARY KEY (node, epoch, cls, last, h_last, kind)) WITHOUT ROWID""",
    ),
)


class Batch(NamedTuple):
    """What is given to the bus at once. `tries`: how often all of it was sent before."""

    number: int
    facts: list[StoreFact]
    records: list[StoreRecord]
    spans: Spans
    tries: int = 0


@dataclass(slots=True)
class _Wait:
    """Places first..last of a stream were sent at `at_ms`, for the (tries + 1)th time, and the store has not stated all of them."""

    first: int
    last: int
    at_ms: int
    tries: int


@dataclass(slots=True)
class BridgeCounts:
    """Totals since the start."""

    sent_total: int = 0
    again_total: int = 0


class Bridging:
    """See the module. Belongs to the owner of the ledger; `acknowledged` writes, inside the owner's transaction."""

    def __init__(self, ledger: Ledger, handing: Handing, again_ms: int, now_ms: int) -> None:
        self._ledger, self._handing, self.again_ms = ledger, handing, again_ms
        migrate(ledger.db, BRIDGE, part="bridge")
        self._sent: dict[StreamKey, list[RunStated]] = {}
        rows = ledger.db.query("SELECT node, epoch, cls, first, h_before, last, h_last, kind FROM bridged ORDER BY first, last")
        for node, epoch, cls, first, before, last, h_last, kind in rows:
            run = RunStated(first, bytes(before), last, bytes(h_last), RunKind(kind))
            self._sent.setdefault(StreamKey(node, epoch, cls), []).append(run)
        self._waits = {key: [_Wait(run.first, run.last, now_ms, 0) for run in runs] for key, runs in self._sent.items()}
        """of a hub that starts: the first word of the store drops what it has"""
        self._underway: dict[int, Batch] = {}
        self._number = 0
        self._again: list[tuple[int, int]] = []
        """(when, how many) went again within the last T"""
        self._stated_ms: dict[StreamKey, int] = {}
        """when the store last spoke of a stream, since this start: before it has, nothing of it goes again"""
        self._new_last = False
        self.counts = BridgeCounts()
        handing.elsewhere = self.elsewhere
        for key in self._sent:
            handing.unhanded[key] = None

    # ------------------------------------------------------------ on the way

    @property
    def begun(self) -> bool:
        """Was anything ever sent from this ledger?"""
        return bool(self._sent)

    @property
    def underway(self) -> int:
        """Batches that the bus has not answered for."""
        return len(self._underway)

    def elsewhere(self, key: StreamKey) -> list[RunStated]:
        """What was sent of a stream, or is under way."""
        return [*self._sent.get(key, ()), *(run for b in self._underway.values() for k, run in b.spans if k == key)]

    def next_batch(self, limit: int, now_ms: int) -> Batch | None:
        """What to give to the bus next, at most about `limit` facts: in turn what is new and what goes again. None: nothing now."""
        again = self._due(min(limit, self._room(now_ms)), now_ms) if self._new_last else None
        self._new_last = False
        if again is not None:
            return again
        facts, records = self._handing.lacking(limit)
        if facts or records:
            self._new_last = True
            return self._give(facts, records, 0)
        return self._due(min(limit, self._room(now_ms)), now_ms)

    def _give(self, facts: list[StoreFact], records: list[StoreRecord], tries: int) -> Batch:
        self._number += 1
        batch = Batch(self._number, facts, records, spans_of(facts, records), tries)
        self._underway[batch.number] = batch
        return batch

    def failed(self, number: int) -> None:
        """The bus did not acknowledge a batch, or not all of it: it is as if it had not been given."""
        batch = self._underway.pop(number, None)
        for key, run in batch.spans if batch is not None else ():
            self._handing.unhanded[key] = None
            if batch is not None and batch.tries:
                self._wait(key, run, 0, batch.tries - 1)

    def acknowledged(self, number: int, now_ms: int) -> None:
        """The bus has a batch: durable with the owner's commit."""
        batch = self._underway.pop(number, None)
        if batch is None:
            return
        for key, run in batch.spans:
            self._wait(key, run, now_ms, batch.tries)
            if not batch.tries:
                self._extend(key, run)
        count = len(batch.facts) + len(batch.records)
        self.counts.sent_total += count
        if batch.tries:
            self.counts.again_total += count

    def _wait(self, key: StreamKey, run: RunStated, now_ms: int, tries: int) -> None:
        waits = self._waits.setdefault(key, [])
        if waits and waits[-1].last + 1 == run.first and waits[-1].tries == tries and now_ms - waits[-1].at_ms < self.again_ms // 4:
            waits[-1].last = run.last
        else:
            waits.append(_Wait(run.first, run.last, now_ms, tries))

    def _extend(self, key: StreamKey, new: RunStated) -> None:
        """Sent runs that follow each other are one."""
        runs = self._sent.setdefault(key, [])
        below = next((r for r in runs if (r.last + 1, r.h_last, r.kind) == (new.first, new.h_before, new.kind)), None)
        above = next((r for r in runs if (r.first - 1, r.h_before, r.kind) == (new.last, new.h_last, new.kind)), None)
        for gone in (below, above):
            if gone is not None:
                runs.remove(gone)
                sql = "DELETE FROM bridged WHERE node=? AND epoch=? AND cls=? AND last=? AND h_last=? AND kind=?"
                self._ledger.db.run(sql, (*key, gone.last, gone.h_last, int(gone.kind)))
        low, high = below or new, above or new
        whole = RunStated(low.first, low.h_before, high.last, high.h_last, new.kind)
        runs.append(whole)
        values = (*key, whole.first, whole.h_before, whole.last, whole.h_last, int(whole.kind))
        self._ledger.db.run("INSERT OR REPLACE INTO bridged VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    # ------------------------------------------------------------ the store's word

    def waiting(self) -> list[StreamKey]:
        """Streams of which something was sent and is not settled."""
        return [key for key, waits in self._waits.items() if waits]

    def stated(self, keys: Iterable[StreamKey], now_ms: int) -> int:
        """The store has spoken of these streams, and `Handing.stated` is what it said. Returns how many places are settled by that."""
        return sum(self._compare(key, now_ms) for key in keys)

    def _compare(self, key: StreamKey, now_ms: int) -> int:
        self._stated_ms[key] = now_ms
        sent, stream = self._sent.get(key), self._ledger.log.get(key)
        if not sent or stream is None:
            return 0
        missing = Intervals(sorted(self._missing(stream)))
        settled, kept = 0, []
        known = Intervals()
        for wait in self._waits.get(key, ()):
            left = _common(missing, wait.first, wait.last)
            settled += wait.last - wait.first + 1 - sum(hi - lo + 1 for lo, hi in left)
            if left:
                wait.first, wait.last = left[0][0], left[-1][1]
                wait.at_ms = min(wait.at_ms, now_ms)  # a clock that was set back makes nobody wait for years
                kept.append(wait)
                known.add(wait.first, wait.last)
        for run in sent:  # what the store had, and has no more
            for lo, hi in _common(missing, run.first, run.last):
                kept += [_Wait(a, b, now_ms, 0) for a, b in known.missing(lo, hi)]
        if kept:
            self._waits[key] = kept
        else:
            self._waits.pop(key, None)
        return settled

    def _missing(self, stream: Stream) -> list[tuple[int, int]]:
        """Places that are held here and that the store does not state, of whatever branch: what is sent once too often does no harm."""
        stated = self._handing.stated.get(stream.key, ())
        gaps = [(gap.first, gap.last) for gap in lacking(stream.chain, stated)]
        return gaps + [(r.first, r.last) for r in records_lacking(stream.chain, stated)]

    # ------------------------------------------------------------ again

    def _room(self, now_ms: int) -> int:
        self._again = [(at, n) for at, n in self._again if 0 <= now_ms - at < self.again_ms]
        return AGAIN_FACTS - sum(n for _, n in self._again)

    def _due(self, limit: int, now_ms: int) -> Batch | None:
        """The oldest of what was sent long enough ago: all of it that was sent equally often, within the limit."""
        due = [(wait.at_ms, key, wait) for key, waits in self._waits.items() for wait in waits if self._is_due(key, wait)]
        if not due or limit <= 0:
            return None
        due.sort(key=lambda one: (one[2].tries, one[0], one[1], one[2].first))
        tries = due[0][2].tries
        facts: list[StoreFact] = []
        records: list[StoreRecord] = []
        for _, key, wait in due:
            if wait.tries != tries or len(facts) >= limit:
                break
            found = self._read_again(key, wait, limit - len(facts))
            facts += found[0]
            records += found[1]
        if not facts and not records:
            return None
        self._again.append((now_ms, len(facts) + len(records)))
        return self._give(facts, records, tries + 1)

    def _is_due(self, key: StreamKey, wait: _Wait) -> bool:
        """By the store's last word: what it has not said since does not make a fact late."""
        said_ms = self._stated_ms.get(key)
        return said_ms is not None and said_ms - wait.at_ms >= self.again_ms << min(wait.tries, MOST_DOUBLINGS)

    def _read_again(self, key: StreamKey, wait: _Wait, limit: int) -> tuple[list[StoreFact], list[StoreRecord]]:
        """What the store lacks of a wait, which it leaves: it waits anew once it was sent."""
        stream = self._ledger.log.get(key)
        if stream is None:
            return [], []
        stated = self._handing.stated.get(key, ())
        facts: list[StoreFact] = []
        end = wait.last
        for gap in lacking(stream.chain, stated):
            first, last = max(gap.first, wait.first), min(gap.last, wait.last, max(gap.first, wait.first) + limit - len(facts) - 1)
            if first <= last:
                facts += self._handing.facts(stream, gap.run, first, last)
            if len(facts) >= limit:
                end = min(end, last)
                break
        inside = [r for r in records_lacking(stream.chain, stated) if wait.first <= r.last and r.first <= end]
        records = self._handing.records(stream, {(r.last, r.h_last) for r in inside}) if inside else []
        self._leave(key, wait, end)
        return facts, records

    def _leave(self, key: StreamKey, wait: _Wait, end: int) -> None:
        if end < wait.last:
            wait.first = end + 1
        else:
            self._waits[key] = [w for w in self._waits[key] if w is not wait]

    # ------------------------------------------------------------ asking

    def unsettled(self) -> tuple[int, int | None]:
        """How many places were sent and wait for the store's word, and since when the oldest does (None: none)."""
        all_waits = [wait for waits in self._waits.values() for wait in waits]
        return sum(w.last - w.first + 1 for w in all_waits), min((w.at_ms for w in all_waits), default=None)

    def backlog(self) -> tuple[int, int | None]:
        """How many facts were never acknowledged by the bus nor stated by the store, and when this hub took the oldest of them."""
        count, oldest = 0, None
        underway = [key for batch in self._underway.values() if not batch.tries for key, _ in batch.spans]
        for key in dict.fromkeys([*self._handing.unhanded, *underway]):
            stream = self._ledger.log.get(key)
            if stream is None:
                continue
            has = [*self._handing.stated.get(key, ()), *self._sent.get(key, ())]
            gaps = lacking(stream.chain, has)
            count += sum(gap.last - gap.first + 1 for gap in gaps)
            if gaps:
                at_ms = self._taken_ms(stream, gaps[0].run, gaps[0].first)
                oldest = at_ms if oldest is None or (at_ms is not None and at_ms < oldest) else oldest
        return count, oldest

    def _taken_ms(self, stream: Stream, run: Run, seq: int) -> int | None:
        row = self._ledger.db.one("SELECT at_ms FROM log WHERE sid=? AND seq=?", (stream.sid, seq))
        return None if row is None else int(row[0])


def _common(ranges: Intervals, lo: int, hi: int) -> list[tuple[int, int]]:
    """What of lo..hi is in the set."""
    outside = list(ranges.missing(lo, hi))
    return list(Intervals(outside).missing(lo, hi))
