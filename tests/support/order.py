"""Which test begins when.

pytest-xdist gives each worker one stretch of the list, and moves what is left at the end of others' stretches: so each begins with its part
of the tests that take longest. Otherwise somebody begins one when all others have ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

LONG: Final = (
    "tests/real/test_real.py", "tests/chaos/test_chaos.py", "tests/scenarios/", "tests/conformance/bus/", "tests/sim/test_sim.py",
    "tests/sim/test_planted.py",
)  # fmt: skip
"""where they are, the longest first"""
TOGETHER: Final = ("tests/conformance/bus/",)
"""tests of one worker: they share an engine that takes seconds to start"""


def long_first(names: Sequence[str], workers: int) -> list[int]:
    """Places of the tests (`nodeid`s) in the order in which they are to be handed out. The same in each worker."""
    ranks = [next((rank for rank, where in enumerate(LONG) if name.startswith(where)), len(LONG)) for name in names]
    blocks: dict[object, list[int]] = {}
    for n in sorted((n for n, rank in enumerate(ranks) if rank < len(LONG)), key=lambda n: (ranks[n], n)):
        blocks.setdefault(next((where for where in TOGETHER if names[n].startswith(where)), n), []).append(n)
    long = list(blocks.values())
    short = [n for n, rank in enumerate(ranks) if rank == len(LONG)]
    order: list[int] = []
    begun = 0
    for worker in range(workers):
        size = (len(names) - begun) // (workers - worker)  # as pytest-xdist cuts it
        mine = [n for block in long[worker::workers] for n in block]
        rest = max(0, size - len(mine))
        order += [*mine, *short[:rest]]
        short, begun = short[rest:], begun + size
    return order + short
