"""The order in which facts of an order are shown: first what their authors had seen, then time as far as it is known. Decides nothing.

A fact comes after those that its author had seen, whatever any clock says; facts of which neither had seen the other stand by the time at
which they were recorded, corrected where it is known to be off. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

Lane = tuple[str, int]
"""(node, epoch)"""


class Step(NamedTuple):
    """A fact of a timeline: its causal place (node, epoch, seq), what it had seen of others (a context), when it was recorded."""

    node: str
    epoch: int
    seq: int
    context: Sequence[Sequence[Any]]
    time_ms: int


def causal_order(steps: Sequence[Step]) -> list[int]:
    """The places of the steps in the order in which they are shown. The same for any order of `steps`, but for those with one place and
    time."""
    keys = [(s.time_ms, s.node, s.epoch, s.seq, i) for i, s in enumerate(steps)]
    after: list[list[int]] = [[] for _ in steps]
    waits = [0] * len(steps)
    for i, before in enumerate(_directly_before(steps)):
        waits[i] = len(before)
        for j in before:
            after[j].append(i)
    ready = [keys[i] for i, n in enumerate(waits) if not n]
    heapify(ready)
    out: list[int] = []
    while ready:
        i = heappop(ready)[-1]
        out.append(i)
        for j in after[i]:
            waits[j] -= 1
            if not waits[j]:
                heappush(ready, keys[j])
    shown = dict.fromkeys(out)
    return out + sorted(
        (i for i in range(len(steps)) if i not in shown), key=keys.__getitem__
    )  # authors that each claim to have seen the other


def _directly_before(steps: Sequence[Step]) -> list[list[int]]:
    """For each step the one below it in its own stream, and the last one it had seen of each other."""
    lanes: dict[Lane, list[int]] = {}
    for i in sorted(range(len(steps)), key=lambda i: (steps[i].seq, i)):
        lanes.setdefault((steps[i].node, steps[i].epoch), []).append(i)
    seqs = {lane: [steps[i].seq for i in places] for lane, places in lanes.items()}
    out: list[list[int]] = [[] for _ in steps]
    for lane, places in lanes.items():
        for n, i in enumerate(places):
            out[i] = [places[n - 1]] if n else []
            for node, epoch, seq, *_ in steps[i].context:
                other = (node, epoch)
                if other != lane and other in seqs and (at := bisect_right(seqs[other], seq)):
                    out[i].append(lanes[other][at - 1])
    return out
