"""What the hub hands over to the central store: whatever the store's last statement lacks (sync.md, rule 10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from hub.store.port import StoreFact, StoreRecord
from protocols.chains import Run, RunKind
from protocols.fact import FactRow
from protocols.ledger import Ledger, Offered
from protocols.messages import RunStated
from protocols.streams import LogRow, Stream, StreamKey
from protocols.sync.handover import Gap, lacking, records_lacking
from protocols.sync.receiver import Receiver

HAND_OVER_SHARE: Final = 200
"""of these, for each stream at least: smaller pieces cost more than they are fair"""
NEWEST_SHARE: Final = 4
"""a quarter of the room, as live frames have at least of a node's credit"""
READ_KEPT: Final = 20_000
"""facts that were read when they came and are handed over soon: the store is spared the reading"""


Spans = list[tuple[StreamKey, RunStated]]
"""runs of streams"""


class Handing:
    """See the module. `unhanded`: streams of which the store may lack something; `stated`: its last word on each."""

    def __init__(self, ledger: Ledger, receiver: Receiver) -> None:
        self._ledger, self._receiver = ledger, receiver
        self.unhanded: dict[StreamKey, None] = {}
        self.stated: dict[StreamKey, tuple[RunStated, ...]] = {}
        self._read: dict[tuple[int, int], tuple[LogRow, FactRow]] = {}
        self.elsewhere: Callable[[StreamKey], Sequence[RunStated]] = lambda _: ()
        """what is on its way to the store by other means, and is not handed over again"""

    def _has(self, key: StreamKey) -> tuple[RunStated, ...]:
        return (*self.stated.get(key, ()), *self.elsewhere(key))

    @property
    def read_kept(self) -> int:
        """How many read facts are in memory."""
        return len(self._read)

    def keep_read(self, done: Offered) -> None:
        """Facts that were just logged and are handed over soon: the log and the store are spared reading them."""
        if len(self._read) + len(done.folded) > READ_KEPT:
            self._read.clear()
        for row, fact, _ in done.folded:
            self._read[row.sid, row.seq] = row, fact

    def lacking(self, limit: int) -> tuple[list[StoreFact], list[StoreRecord]]:
        """What the store's last statement lacks, at most `limit` facts, each stream in chain order.

        Streams take turns, so that one node's month of backlog does not hold back the others' fresh facts.
        """
        facts: list[StoreFact] = []
        records: list[StoreRecord] = []
        share = max(HAND_OVER_SHARE, limit // max(1, len(self.unhanded)))
        for key in sorted(self.unhanded, key=lambda k: k.cls):  # facts of orders before telemetry
            stream = self._ledger.log.open(key)
            has = self._has(key)
            gaps = lacking(stream.chain, has)
            room = min(share, limit - len(facts))
            for run, first, last in _pieces(gaps, room):
                taken = list(self.facts(stream, run, first, last))
                facts += taken
                room -= len(taken)
            if room <= 0:
                del self.unhanded[key]
                self.unhanded[key] = None
                if len(facts) >= limit:
                    return facts, records
                continue
            new_records = records_lacking(stream.chain, has)
            if new_records:
                records += self.records(stream, {(r.last, r.h_last) for r in new_records})
            elif not gaps:
                del self.unhanded[key]
        return facts, records

    def facts(self, stream: Stream, run: Run, first: int, last: int) -> Iterator[StoreFact]:
        """A part of a run as the store is given it."""
        why, key = self._receiver.quarantine_reasons(stream.sid, first, last), stream.key
        sid, pop = stream.sid, self._read.pop
        kept = [pop((sid, seq), None) for seq in range(first, last + 1)]
        if not why and stream.fork_point is None and None not in kept:  # without branches, a seq names a fact
            yield from [_fact((key, r.seq, r.h, r.prev, r.row, r.at_ms, "", fact)) for r, fact in filter(None, kept)]
            return
        read = {(row.seq, row.h): fact for row, fact in filter(None, kept)}
        for r in self._ledger.log.read_branch(stream, run, first, last):
            yield StoreFact(key, r.seq, r.h, r.prev, r.row, r.at_ms, why.get((r.seq, r.h), ""), read.get((r.seq, r.h)))

    def records(self, stream: Stream, wanted: set[tuple[int, bytes]]) -> list[StoreRecord]:
        """The records of a stream that end in these points."""
        rows = self._ledger.db.query("SELECT first, last, h_last, signed, at_ms FROM records WHERE sid=? ORDER BY last", (stream.sid,))
        signed = [(int(first), int(last), bytes(h), bytes(data), int(at)) for first, last, h, data, at in rows]
        return [
            StoreRecord(stream.key, r.first, r.h_before, r.last, r.h_last, r.kind, *_word_on(r, signed))
            for r in stream.chain.runs
            if r.kind is not RunKind.DATA and (r.last, r.h_last) in wanted
        ]


_fact: Final = partial(tuple.__new__, StoreFact)


def _pieces(gaps: Sequence[Gap], room: int) -> Iterator[tuple[Run, int, int]]:
    """What to hand over of a stream, (run, first, last), at most `room` facts.

    What was captured just now lies at its end and does not stand behind a backlog: first of that, a share of the room, then all from the
    lowest.
    """
    if len(gaps) > 1 and room > 1:
        newest = gaps[-1]
        last = min(newest.last, newest.first + max(1, room // NEWEST_SHARE) - 1)
        yield newest.run, newest.first, last
        room -= last - newest.first + 1
        rest = [newest._replace(first=last + 1)] if last < newest.last else []
        gaps = [*gaps[:-1], *rest]
    for gap in gaps:
        if room <= 0:
            return
        last = min(gap.last, gap.first + room - 1)
        yield gap.run, gap.first, last
        room -= last - gap.first + 1


def _word_on(record: Run, signed: Sequence[tuple[int, int, bytes, bytes, int]]) -> tuple[bytes, int]:
    """What the author signed about a run, and when it came: with its very end, or, where data has shortened it since, around it."""
    exact = (w for w in signed if (w[1], w[2]) == (record.last, record.h_last))
    around = (w for w in signed if w[0] <= record.last <= w[1])
    found = next(exact, None) or next(around, None)
    return (found[3], found[4]) if found is not None else (b"", 0)


def spans_of(facts: Sequence[StoreFact], records: Sequence[StoreRecord]) -> Spans:
    """What these are as runs: facts of one stream where each follows the one before it, and each record."""
    out: Spans = []
    start = 0
    for i in _ends(facts):
        first, below = facts[start], facts[i - 1]
        out.append((first.stream, RunStated(first.seq, first.prev, below.seq, below.h)))
        start = i
    return [*out, *((r.stream, RunStated(r.first, r.h_before, r.last, r.h_last, r.kind)) for r in records)]


def _ends(facts: Sequence[StoreFact]) -> list[int]:
    """Where another stretch begins, and the end. Nearly always there is one: then nothing is looked at by itself."""
    if not facts:
        return []
    streams, seqs, hashes, prevs = list(zip(*facts, strict=True))[:4]
    count = len(facts)
    if prevs[1:] == hashes[:-1] and seqs == tuple(range(seqs[0], seqs[0] + count)) and streams.count(streams[0]) == count:
        return [count]
    breaks = [i for i in range(1, count) if streams[i] != streams[i - 1] or seqs[i] != seqs[i - 1] + 1 or prevs[i] != hashes[i - 1]]
    return [*breaks, count]
