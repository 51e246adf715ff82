"""The store's log: that of every ledger, with the time at which the hub received a fact beside the time at which the store took it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from protocols.chains import Chain, Run, RunKind
from protocols.streams import LogRow, Stream, StreamLog


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

    def write(self) -> None:
        """Put the rows that are pending into the log, so that queries see them."""
        self._write()

    def known(self, sid: int, first: int, last: int) -> dict[tuple[int, bytes], None]:
        """The identities (seq, h) that are logged of a stretch of a stream."""
        self._write()
        return dict.fromkeys(
            (seq, bytes(h)) for seq, h in self._db.query("SELECT seq, h FROM log WHERE sid=? AND seq BETWEEN ? AND ?", (sid, first, last))
        )

    def rebuild(self, stream: Stream) -> None:
        """Make the runs of a stream anew from the rows that are there: some were lost after they had been committed."""
        self._write()
        links = self._db.query("SELECT seq, h, prev FROM log WHERE sid=? ORDER BY seq, h", (stream.sid,))
        closed = [r for r in stream.chain.runs if r.kind is not RunKind.DATA]
        chain = Chain(stream.chain.genesis, stream.chain._points, [*_linked([(q, bytes(h), bytes(p)) for q, h, p in links]), *closed])
        if stream.chain.fork_point is not None and (chain.fork_point is None or stream.chain.fork_point < chain.fork_point):
            chain.fork_point = stream.chain.fork_point
        stream.chain, stream.dirty = chain, True


def _linked(facts: Sequence[tuple[int, bytes, bytes]]) -> list[Run]:
    """Facts (seq, h, prev), ascending, as runs: a fact lengthens the run that it follows alone."""
    children: dict[tuple[int, bytes], int] = {}
    for seq, _, prev in facts:
        children[seq, prev] = children.get((seq, prev), 0) + 1
    runs: dict[tuple[int, bytes], Run] = {}
    for seq, h, prev in facts:
        below = runs.get((seq - 1, prev)) if children[seq, prev] == 1 else None
        if below is None:
            runs[seq, h] = Run(seq, prev, seq, h)
        else:
            del runs[below.last, below.h_last]
            below.last, below.h_last = seq, h
            runs[seq, h] = below
    return list(runs.values())
