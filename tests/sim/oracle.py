"""The view as it must be, written from the rules and the table alone, over the full set of facts with what each author had really seen."""

from __future__ import annotations

from dataclasses import dataclass

from protocols.lifecycle import ROWS, Status
from tests.sim.truth import Mask, Truth, bits


@dataclass(frozen=True, slots=True)
class Right:
    """What must be shown of one order."""

    heads: Mask
    status: str
    conflict: bool
    facts: int


def right(truth: Truth, known: Mask) -> Right:
    """The fold of these facts of one order: at least one. What was once folded stays so: a fact never changes."""
    found = truth.folds.get(known)
    if found is None:
        found = truth.folds[known] = _fold(truth, known)
    return found


def _fold(truth: Truth, known: Mask) -> Right:
    heads = truth.heads(known)
    ranked = sorted(bits(heads), key=lambda i: (_rank(truth.facts[i].status), truth.facts[i].id.h))
    statuses = [truth.facts[i].status for i in bits(heads)]
    clash = any(not _agree(a, b) for n, a in enumerate(statuses) for b in statuses[n + 1 :])
    return Right(heads, Status(truth.facts[ranked[-1]].status).name, clash, known.bit_count())


def _rank(status: int) -> tuple[int, int]:
    return int(ROWS[status].policy), ROWS[status].rank


def _agree(a: int, b: int) -> bool:
    return a == b or Status(a) in ROWS[b].after or Status(b) in ROWS[a].after
