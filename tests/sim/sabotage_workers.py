"""Small sabotages of a hub with several workers: takeovers, what a worker that comes back owes, leases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hub.core import HubCore
from hub.leasing import Leasing
from hub.store.leases import Me, SqlLeases, Table
from hub.store.port import StoreFact, StoreRecord
from tests.sim.sabotage import Patch, same_incarnation, swapped

_failed = Leasing.failed


@contextmanager
def takeover_in_the_same_name() -> Iterator[None]:
    """All workers of a hub call themselves the same, and a takeover changes nothing of that."""
    with same_incarnation(), swapped(HubCore, "hands_changed", lambda self, *, taken: self.feeds.let_go(self.serving.to)):
        yield


def own_partitions_only() -> Patch:
    """A worker hands over what is of its own nodes; what it took for others before it lost them stays with it."""
    real = HubCore.lacking_in_store

    def lacking(self: HubCore, limit: int = 2_000) -> tuple[list[StoreFact], list[StoreRecord]]:
        facts, records = real(self, limit)
        mine = self.identity.node
        return (
            [f for f in facts if f.stream.node == mine or self.serving.to(f.stream.node)],
            [r for r in records if r.stream.node == mine or self.serving.to(r.stream.node)],
        )

    return swapped(HubCore, "lacking_in_store", lacking)


def nothing_is_held_over() -> Patch:
    """A worker whose renewals fail gives up what it has when its lease is over."""
    return swapped(Leasing, "failed", lambda self, now, *, tried=True: _failed(self, now, tried=False))


@contextmanager
def held_over_after_a_stop() -> Iterator[None]:
    """A process goes on where it was stopped: an attempt that failed counts, whatever the clock has taken by then."""

    def failed(self: Leasing, now: int, *, tried: bool = True) -> None:
        self._until = now + 1
        _failed(self, now, tried=tried)

    with swapped(Leasing, "expired", lambda self, now: ()), swapped(Leasing, "failed", failed):
        yield


def claims_unheard() -> Patch:
    """What other workers claim changes nothing here."""
    return swapped(Leasing, "claimed", lambda self, partition, fence: False)


def whoever_comes_first() -> Patch:
    """When the store is back, all whose rows have run out are dead."""
    return swapped(Table, "is_free", lambda self, row: not row.lives)


def lease_without_fence() -> Patch:
    """Whoever asks is given a partition, by what it once read of the table."""

    def take(self: SqlLeases, me: Me, wanted: Sequence[tuple[int, int]], now_ms: int) -> dict[int, int]:
        for partition, fence in wanted:
            self._db.run("UPDATE worker_partitions SET worker=?, boot=?, fence=? WHERE part=?", (me.worker, me.boot, fence + 1, partition))
        return {partition: fence + 1 for partition, fence in wanted}

    return swapped(SqlLeases, "_take", take)
