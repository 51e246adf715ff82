"""Which partitions of the nodes this worker holds, decided; pure, on a clock that never steps (its owner's monotonic one, ms).

The nodes of a hub are spread over a fixed number of partitions by organisation and site: all of a site are on one. Workers hold partitions
by leases in the central store (`hub.store.leases`). A round is a renewal of this worker's life and a look at the whole table; from it
follow what to give back (more than a fair share, or another's by now) and what to take (nobody's, up to the fair share).

What is held counts from the moment *before* the store was asked, and is given up a margin before the store can call it dead.

Where the store cannot be reached nothing can be renewed, and facts have to be taken all the same. So a worker that runs, and tries in vain,
*holds over* what it had: each attempt that failed is worth as much as a renewal. A process that was stopped for longer than that has made
no attempt, and gives everything up before it looks at anything else. What is held over ends when the store answers (its table says whose a
partition is), or when another worker *claims* it: one that reaches the store, and was given it with a higher fence. When a store is back
after a silence all rows have run out, so what was others' is left to them for a lease more (`Table.spares`).

So two workers believe in one partition only where one of them was stopped between two steps of it, or is cut off from the store alone and
has not heard the claim. That is harmless: both keep on disk what they take and hand it over, the store knows facts by identity, and a node
believes the worker that answered its latest hello.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from hub.store.leases import Me, Table

RENEWALS: Final = 3
"""in the time of a lease"""
MARGIN: Final = 6
"""a sixth of a lease before its end it is given up"""


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """`partitions`: how many; the same for all workers of a hub, for good. `lease_ms`: a worker not heard for so long is taken for dead."""

    partitions: int = 64
    lease_ms: int = 15_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What follows from a look at the table: partitions with their fences. `lost` are another's by now, or may be; `release` are to be let
    go of first and then given back; `take` are nobody's."""

    lost: tuple[int, ...] = ()
    release: tuple[tuple[int, int], ...] = ()
    take: tuple[tuple[int, int], ...] = ()


def partition_of(org: str, site: str, partitions: int) -> int:
    """The partition of all nodes of a site. The same on every machine and in every version."""
    return int.from_bytes(blake2b(f"{org}/{site}".encode(), digest_size=8).digest(), "big") % partitions


class Leasing:
    """See the module. `me`: this process."""

    def __init__(self, me: Me, settings: LeaseSettings) -> None:
        self.me, self.settings = me, settings
        self._held: dict[int, int] = {}
        self._until: int | None = None
        self._granted = 0
        """until when by the store's own word; what is held beyond it is held over"""
        self._asked = 0
        self._due: int | None = None
        self.alone = True
        """False: another process that lives has this worker's name"""

    # ------------------------------------------------------------ asking

    def holds(self, partition: int, now: int) -> bool:
        """Is it this worker's, as of now?"""
        return partition in self._held and self._valid(now)

    def held(self, now: int) -> dict[int, int]:
        """Partitions and their fences, as of now."""
        return dict(self._held) if self._valid(now) else {}

    def held_over(self, now: int) -> int:
        """How many partitions are held beyond the last lease, because the store was tried and did not answer."""
        return len(self.held(now)) if now >= self._granted else 0

    def _valid(self, now: int) -> bool:
        return self._until is not None and now < self._until

    def next_deadline(self) -> int:
        """When there is something to do: a round, or giving up."""
        due = self._due if self._due is not None else 0
        return min(due, self._until) if self._until is not None and self._held else due

    def round_due(self, now: int) -> bool:
        """Is it time to ask the store?"""
        return self._due is None or now >= self._due

    # ------------------------------------------------------------ what happens

    def expired(self, now: int) -> tuple[int, ...]:
        """Partitions that have to be given up by the clock alone: no renewal came through in time, and none was tried either."""
        if not self._held or self._valid(now):
            return ()
        lost, self._held, self._until = tuple(self._held), {}, None
        return lost

    def dropped(self, partitions: Iterable[int]) -> None:
        """These are let go of; the store is told next, or the lease runs out."""
        gone = dict.fromkeys(partitions)
        self._held = {p: fence for p, fence in self._held.items() if p not in gone}

    def begins(self, now: int) -> None:
        """The store is about to be asked: what it grants counts from here."""
        self._asked = now
        self._due = now + self.settings.lease_ms // RENEWALS

    def failed(self, now: int, *, tried: bool = True) -> None:
        """It was not reached. Tried again soon: in a tenth of a lease. For as long as a renewal would be worth, what is still held is held
        over; not what the clock has taken, and not where the store was not even `tried`."""
        self._due = now + max(1, self.settings.lease_ms // 10)
        if tried and self._valid(now):
            self._until = now + self._worth()

    def claimed(self, partition: int, fence: int) -> bool:
        """Another worker says that the store gave it a partition. True: it was held here by an older fence, and is let go of."""
        if fence <= self._held.get(partition, fence):
            return False
        self.dropped((partition,))
        return True

    def _worth(self) -> int:
        return self.settings.lease_ms - self.settings.lease_ms // MARGIN

    def heard(self, table: Table, now: int) -> Plan:
        """The renewal came through, and this is how all stands."""
        self.alone = table.mine
        if not table.mine:
            lost, self._held, self._until = tuple(self._held), {}, None
            return Plan(lost)
        self._until = self._granted = self._asked + self._worth()
        mine = {p.partition: p.fence for p in table.partitions if (p.worker, p.boot) == (self.me.worker, self.me.boot)}
        lost = tuple(p for p, fence in self._held.items() if mine.get(p) != fence)
        self._held = {p: fence for p, fence in self._held.items() if p not in lost}
        # What the store still calls ours and we gave up for the time: it is given back, and taken again as anybody would take it.
        stray = [(p, fence) for p, fence in mine.items() if p not in self._held]
        share = self._share(table)
        surplus = sorted(self._held.items())[share:]
        if not self._valid(now):
            return Plan((*lost, *self.expired(now)), tuple(stray))
        self._held = {p: fence for p, fence in self._held.items() if (p, fence) not in surplus}
        free = [(p.partition, p.fence) for p in table.partitions if table.is_free(p) and p.partition not in mine]
        return Plan(lost, (*stray, *surplus), tuple(free[: max(0, share - len(self._held))]))

    def took(self, granted: Mapping[int, int], now: int) -> tuple[int, ...]:
        """The store gave these. Returns those that count: none where it took too long."""
        if not self._valid(now):
            return ()
        self._held |= granted
        return tuple(granted)

    def _share(self, table: Table) -> int:
        """How many are this worker's, when all that live have as many as each other; who comes first by name takes one of the rest."""
        names = [w.worker for w in table.workers]
        each, rest = divmod(len(table.partitions), max(1, len(names)))
        return each + (1 if self.me.worker in names[:rest] else 0)
