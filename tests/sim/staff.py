"""Whose task an order is, from the rules alone: over the full set of facts, with a reading of rows of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from protocols.codec import unpack
from tests.sim.truth import Fact, Mask, Order, bits

if TYPE_CHECKING:
    from tests.sim.world import World

OVER = (9, 13, 14, 15)
"""delivered, returned, cancelled, refunded"""


class Hands(NamedTuple):
    """Whom a fact names: `given` is None where it gives the order to nobody, and `said` are those whose word it is."""

    given: tuple[str, ...] | None
    said: tuple[str, ...]


def hands(world: World, fact: Fact) -> Hands:
    """What one fact says of staff."""
    row = unpack(fact.row, max_bytes=1_000_000)
    assert isinstance(row, list)
    given = row[11].get("assignedTo")
    said = (row[10], world.staff.get(fact.id.node))
    return Hands(None if given is None else tuple([given] if isinstance(given, str) else given), tuple(n for n in said if n is not None))


def ever_theirs(world: World, order: Order, staff: str) -> bool:
    """Did any fact of an order ever name a person, whatever became of it?"""
    truth = world.check.truth
    named = (hands(world, truth.facts[i]) for i in bits(truth.orders.get(order, 0)))
    return any(staff in (*(one.given or ()), *one.said) for one in named)


def is_over(world: World, heads: Mask) -> bool:
    """Is there nothing more to do?"""
    statuses = [world.check.truth.facts[i].status for i in bits(heads)]
    return statuses[0] in OVER and statuses == statuses[:1] * len(statuses)


def tasks_of(world: World, staff: str) -> Iterator[tuple[Order, Mask]]:
    """Orders that are certainly a person's, with their heads: one of those names them. (Who had an order before a fact that names nobody,
    the hub knows by what it heard first.)"""
    truth, stored = world.check.truth, world.store.disk.held
    for order, mask in truth.orders.items():
        if not mask & stored or order[0] != "acme":
            continue
        heads = world.check.centre_heads(order)
        said = [hands(world, truth.facts[i]) for i in bits(heads)]
        if not is_over(world, heads) and any(staff in (one.said if one.given is None else one.given) for one in said):
            yield order, heads


def too_many(world: World, name: str, staff: str, followed: list[Order]) -> Iterator[str]:
    """Orders that a phone follows and that are certainly not its staff's: over, or in nobody's name ever."""
    truth, stored = world.check.truth, world.store.disk.held
    for order in followed:
        mask = truth.orders.get(order, 0) & stored
        if mask and (is_over(world, world.check.centre_heads(order)) or not ever_theirs(world, order, staff)):
            yield f"I10 {name} still follows {order[1]}, which is no task of {staff}"
