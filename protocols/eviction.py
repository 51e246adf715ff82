"""Letting go of facts of one's own that are not settled yet, because there is no room: telemetry only, never facts of orders.

What goes leaves its place: a run of kind EVICTED in the stream's chain, whose two ends are known, and how many facts went for which reason.
Whoever misses the range asks, and is given the author's signed record (sync.md, rule 9); whoever holds the data goes on offering it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from protocols.chains import RunKind
from protocols.ledger import ORDERS, Ledger
from protocols.streams import Stream

REASONS: Final = ("settled", "superseded", "oldest")
"""`settled`: the central store has it, and is only kept from going back by its backups. `superseded`: a later fact of the same device and
kind is here. `oldest`: it was the oldest there was."""


class Gone(NamedTuple):
    """What an eviction did."""

    facts: int
    size: int
    """bytes of their rows"""


def evict(ledger: Ledger, stream: Stream, first: int, last: int, reason: str) -> Gone:
    """Let go of first..last, all of them held; nothing where that cannot be: facts of orders, a forked stream, the head. Inside a
    transaction; `reason` is one of `REASONS`."""
    if stream.key.cls == ORDERS or not stream.own or first <= stream.freed_seq:
        return Gone(0, 0)
    ledger.flush()
    facts, size = ledger.weights.weigh(stream, first - 1, last)
    if facts != last - first + 1:
        return Gone(0, 0)
    run = ledger.log.evict(stream, first, last)
    if run is None:
        return Gone(0, 0)
    ledger.weights.forget(stream, first, last, facts, size)
    counts = dict.fromkeys(REASONS, 0)
    for row in ledger.db.query(
        "SELECT settled, superseded, oldest FROM evictions WHERE sid=? AND last BETWEEN ? AND ?", (stream.sid, run.first, run.last)
    ):
        counts = {name: counts[name] + n for name, n in zip(REASONS, row, strict=True)}
    counts[reason] += facts
    ledger.db.run("DELETE FROM evictions WHERE sid=? AND last BETWEEN ? AND ?", (stream.sid, run.first, run.last))
    ledger.db.run("INSERT INTO evictions VALUES (?, ?, ?, ?, ?)", (stream.sid, run.last, *counts.values()))
    return Gone(facts, size)


def evicted_by_reason(ledger: Ledger) -> dict[str, int]:
    """Facts of this node that were evicted, since its database was made."""
    row = ledger.db.one("SELECT coalesce(sum(settled), 0), coalesce(sum(superseded), 0), coalesce(sum(oldest), 0) FROM evictions")
    return dict(zip(REASONS, row or (0, 0, 0), strict=True))


def why_evicted(ledger: Ledger, stream: Stream, last: int) -> str:
    """The words that a record about a place in an evicted run carries; empty where nothing is known."""
    run = evicted_at(stream, last)
    row = ledger.db.one("SELECT settled, superseded, oldest FROM evictions WHERE sid=? AND last=?", (stream.sid, run.last)) if run else None
    return ", ".join(f"{n} {name}" for name, n in zip(REASONS, row, strict=True) if n) if row else ""


def evicted_at(stream: Stream, seq: int) -> Evicted | None:
    """The run of evicted facts of an own stream that a seq lies in."""
    for r in stream.chain.runs:
        if r.kind is RunKind.EVICTED and r.first <= seq <= r.last:
            return Evicted(r.first, r.h_before, r.last, r.h_last)
    return None


class Evicted(NamedTuple):
    """An evicted run, by its ends."""

    first: int
    h_before: bytes
    last: int
    h_last: bytes
