"""Walks what a store says it holds: does each hash follow from the one before and the row, and does each run end as stated?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from hub.store.port import CentralStore
from protocols.chains import RunKind
from protocols.fact import chain
from protocols.messages import RunStated
from protocols.streams import StreamKey

PAGE: Final = 5_000
WRONG_TOLD: Final = 100


@dataclass(slots=True)
class Checked:
    """What was walked, and what is wrong in words, at most WRONG_TOLD."""

    facts: int = 0
    streams: int = 0
    wrong: list[str] = field(default_factory=list)


def check(store: CentralStore, tell: Callable[[str, int, int], None]) -> Checked:
    """See the module. Reads only; others may write meanwhile. Errors: LedgerBusy, LedgerBroken."""
    done = Checked()
    stated = store.statement().streams
    of = sum(r.last - r.first + 1 for runs in stated.values() for r in runs if r.kind is RunKind.DATA)
    for key, runs in stated.items():
        done.streams += 1
        for run in runs:
            if run.kind is RunKind.DATA and len(done.wrong) < WRONG_TOLD:
                _walk(store, key, run, done, lambda: tell("walking chains", done.facts, of))
    return done


def _walk(store: CentralStore, key: StreamKey, run: RunStated, done: Checked, tell: Callable[[], None]) -> None:
    seq, h = run.first - 1, run.h_before
    while seq < run.last:
        page = store.facts(key, RunStated(seq + 1, h, run.last, run.h_last), PAGE)
        for fact in page:
            if (fact.seq, fact.prev) != (seq + 1, h) or chain(fact.prev, [fact.row])[0] != fact.h:
                done.wrong.append(f"{key.node}/{key.epoch:x}/{key.cls}: the fact at seq {fact.seq} is not what its author signed")
                return
            seq, h = fact.seq, fact.h
        done.facts += len(page)
        tell()
        if not page:
            done.wrong.append(f"{key.node}/{key.epoch:x}/{key.cls}: facts {seq + 1} to {run.last} are stated, and not there")
            return
    if h != run.h_last:
        done.wrong.append(f"{key.node}/{key.epoch:x}/{key.cls}: the chain up to seq {run.last} ends in another hash than was stated")
