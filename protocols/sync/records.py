"""What a node signs about holes that it cannot fill: it freed or evicted those facts, or they went with another branch (rule 9)."""

from __future__ import annotations

from collections.abc import Sequence

from protocols.chains import RunKind
from protocols.eviction import evicted_at, why_evicted
from protocols.ledger import Ledger
from protocols.messages import Record, RunStated, StreamStated
from protocols.streams import Stream


def records(ledger: Ledger, stream: Stream | None, said: StreamStated, now_ms: int) -> list[Record]:
    """One for each hole that `said` wants closed and this node has no data for. `stream`: its own of that name, None where it is gone."""
    return [found for first, last, h in said.wants if (found := _record(ledger, stream, said, first, last, h, now_ms)) is not None]


def gone(stream: Stream) -> list[tuple[int, int]]:
    """What its author has no data for any more."""
    return [(r.first, r.last) for r in stream.chain.runs if r.kind is not RunKind.DATA]


def below_records(stream: Stream, stated: Sequence[RunStated], seq: int) -> int:
    """How far up to `seq` may be freed: who still holds what a record says is gone frees nothing because of it (rule 9)."""
    data = stream.chain.data()
    here = (r.first - 1 for r in stated if r.kind is not RunKind.DATA and any(d.first <= r.last and r.first <= d.last for d in data))
    return min([seq, *here])


def _record(ledger: Ledger, stream: Stream | None, said: StreamStated, first: int, last: int, h: bytes, now_ms: int) -> Record | None:
    gone = evicted_at(stream, last) if stream is not None else None
    if stream is not None and gone is not None:
        h_before = gone.h_before if gone.first > first else b""  # below it there may be data, which travels
        why = why_evicted(ledger, stream, last)
        return Record(said.epoch, said.cls, max(first, gone.first), h_before, last, h, RunKind.EVICTED, now_ms, why)
    kind = _why_not(ledger, stream, last, h)
    return None if kind is None else Record(said.epoch, said.cls, first, b"", last, h, kind, now_ms)


def _why_not(ledger: Ledger, stream: Stream | None, last: int, h: bytes) -> RunKind | None:
    if stream is None or last > stream.head[0]:
        return RunKind.LOST
    if last <= stream.freed_seq:
        return RunKind.PRUNED
    return None if ledger.log.hash_at(stream, last) == h else RunKind.LOST
