"""I9: the same world with every wall clock somewhere else must end the same."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

from protocols.ledger import parse_row
from tests.sim.options import DAY, Options
from tests.sim.truth import bits
from tests.sim.world import World

FARTHEST_MS = 20 * 365 * DAY
ROOMY_BYTES = 1_000_000_000
"""a budget that no world uses up"""


def elsewhere(machine: str) -> int:
    """A shift for each machine, up to twenty years to either side."""
    return (crc32(machine.encode()) % 41 - 20) * FARTHEST_MS // 20


@dataclass(frozen=True, slots=True)
class Ending:
    """How a world ended: per order the requests that are its heads and the status shown; every request in the store; facts per node."""

    orders: tuple[tuple[str, str, str, tuple[int, ...]], ...]
    stored: tuple[int, ...]
    settled: tuple[tuple[str, int], ...]


def ending(world: World) -> Ending:
    """How a world ended that was played."""
    truth, store = world.check.truth, world.store
    orders = []
    for (org, order_id), mask in sorted(truth.orders.items()):
        heads = truth.heads(mask & store.disk.held)
        view = store.store.order(org, order_id)
        orders.append((org, order_id, view.status if view else "", tuple(sorted(_number(truth.facts[i].row) for i in bits(heads)))))
    stored = sorted(_number(truth.facts[i].row) for i in bits(store.disk.held) if truth.facts[i].order is not None)
    settled = tuple((e.name, sum(s.settled_seq for s in e.core.ledger.own_streams())) for e in world.edges)
    return Ending(tuple(orders), tuple(stored), settled)


def comparable(options: Options) -> bool:
    """May a world be played again with its clocks elsewhere and end alike?"""
    if options.profile == "small" and options.damage:
        return False  # there the length of a message, and so what time it is, decides what chance does next
    # With little room the length of a time in a row decides which request still finds some, and so what is said at all.
    return options.budget_bytes >= ROOMY_BYTES and not any(fault.endswith("disk_full") for fault in options.faults)


def clock_matters(options: Options, here: Ending | None = None) -> str:
    """What comes out otherwise with the clocks elsewhere; empty when nothing does, or where worlds cannot be compared. `here`: how the
    world ended with the clocks where they are, when it was played by `World` itself. Raises Violation, or whatever the product raises."""
    if not comparable(options):
        return ""
    here, there = here or _played(options, shifted=False), _played(options, shifted=True)
    for one, other in zip(here.orders, there.orders, strict=False):
        if one != other:
            return f"I9 {one[1]} ends as {one[2]} of {one[3]}, and with other clocks as {other[2]} of {other[3]}"
    return "" if here == there else "I9 other clocks, other facts in the store"


def _played(options: Options, *, shifted: bool) -> Ending:
    world = World(options, shift=elsewhere if shifted else None)
    try:
        return ending(world.run())
    finally:
        world.close()


def _number(row: bytes) -> int:
    """The number that the workload gave to a request."""
    n = parse_row(row).details["n"]
    assert isinstance(n, int)
    return n
