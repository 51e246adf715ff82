"""The store's log: that of every ledger, with the time at which the hub received a fact beside the time at which the store took it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from protocols.chains import Chain, Run, RunKind
from protocols.streams import LogRow, Stream, StreamLog

Closure = tuple[int, bytes, int, bytes, int]
"""a signed record: first, hash before it, last, hash at it, kind"""


class StoreRow(NamedTuple):
    """A `LogRow` with `received_ms`; the first seven fields are the same."""

    sid: int
    seq: int
    h: bytes
    prev: bytes
    okey: int | None
    at_ms: int
    row: bytes
    received_ms: int


class StoreLog(StreamLog):
    """`StreamLog` over the store's wider log."""

    def take(self, stream: Stream, rows: Sequence[StoreRow]) -> bool:
        """`extend` for the store's rows. True when this brought a fork to light."""
        return self.extend(stream, cast("Sequence[LogRow]", rows))

    def _write(self) -> None:
        if self._pending:
            rows, self._pending = self._pending, []
            self._db.many("INSERT INTO log (sid, seq, h, prev, okey, at_ms, row, received_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def known(self, sid: int, first: int, last: int) -> dict[tuple[int, bytes], None]:
        """The identities (seq, h) that are logged of a stretch of a stream."""
        self._write()
        return dict.fromkeys(
            (seq, bytes(h)) for seq, h in self._db.query("SELECT seq, h FROM log WHERE sid=? AND seq BETWEEN ? AND ?", (sid, first, last))
        )

    def place(self, stream: Stream, closures: Sequence[Closure]) -> None:
        """Let the signed records of a stream close what holes there are, from scratch: what they amount to depends on the data and on the
        records alone, not on which of them came first."""
        self._write()
        before = _as_tuples(stream.chain.runs)
        place(stream.chain, closures)
        stream.dirty = stream.dirty or _as_tuples(stream.chain.runs) != before

    def rebuild(self, stream: Stream) -> None:
        """Make the runs of a stream anew from the rows that are there: some were lost after they had been committed."""
        self._write()
        rows = self._db.query("SELECT seq, h, prev FROM log WHERE sid=? ORDER BY seq, h", (stream.sid,))
        closed = [r for r in stream.chain.runs if r.kind is not RunKind.DATA]
        links = joined([Run(seq, prev, seq, h) for seq, h, prev in rows])
        chain = Chain(stream.chain.genesis, stream.chain._points, [*links, *closed])
        if stream.chain.fork_point is not None and (chain.fork_point is None or stream.chain.fork_point < chain.fork_point):
            chain.fork_point = stream.chain.fork_point  # evidence of a fork is never unlearnt
        stream.chain, stream.dirty = chain, True


def place(chain: Chain, closures: Sequence[Closure]) -> None:
    """See `StoreLog.place`. The highest closures come first."""
    chain.runs = joined(chain.data())
    for first, h_before, last, h_last, kind in closures:
        _descend(chain, first, h_before, (last, h_last), RunKind(kind))


def _as_tuples(runs: Sequence[Run]) -> list[tuple[int, bytes, int, bytes, int]]:
    return [(r.first, r.h_before, r.last, r.h_last, r.kind) for r in runs]


def _descend(chain: Chain, first: int, h_before: bytes, end: tuple[int, bytes], kind: RunKind) -> None:
    """From the upper end of a record down: past what is held, closing each hole on the way, to the first seq that the record names."""
    while end[0] >= first:
        run = chain.locate(*end) or next((r for r in chain.runs if (r.last, r.h_last) == end), None)
        if run is not None:
            end = (run.first - 1, run.h_before)
        elif not _close(chain, first, h_before, end, kind):
            return


def _close(chain: Chain, first: int, h_before: bytes, end: tuple[int, bytes], kind: RunKind) -> bool:
    lowest = next((low for low, high, h in chain.holes() if (high, h) == end), None)
    if lowest is None:
        return False
    if lowest > first and chain.fork_point is None:
        return chain.close(lowest, b"", *end, kind)  # the lower part is held: what is left follows on that
    return chain.close(first, h_before, *end, kind)


def joined(runs: Sequence[Run]) -> list[Run]:
    """Runs of data, each lengthened by the one that alone follows it."""
    children: dict[tuple[int, bytes], int] = {}
    for r in runs:
        children[r.first - 1, r.h_before] = children.get((r.first - 1, r.h_before), 0) + 1
    ends: dict[tuple[int, bytes], Run] = {}
    for r in sorted(runs, key=lambda r: (r.first, r.last, r.h_last)):
        below = (
            ends.pop((r.first - 1, r.h_before)) if children[r.first - 1, r.h_before] == 1 and (r.first - 1, r.h_before) in ends else None
        )
        if below is None:
            ends[r.last, r.h_last] = Run(r.first, r.h_before, r.last, r.h_last)
        else:
            below.last, below.h_last = r.last, r.h_last
            ends[r.last, r.h_last] = below
    return sorted(ends.values(), key=lambda r: (r.first, r.last, r.h_last))
