"""The central store of the world: the production store on a disk that fails, with its backups. What hubs do with it is `handover.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hub.store.port import Statement
from hub.store.sqlite import SqliteStore
from protocols.messages import RunStated
from protocols.streams import StreamKey
from tests.sim.disks import Disk
from tests.sim.truth import Mask

if TYPE_CHECKING:
    from tests.sim.world import World

BACKUPS_KEPT = 2


class Central:
    """The store and its backups."""

    def __init__(self, world: World) -> None:
        self.world, self.disk = world, world.first_disk("store")
        self.store = SqliteStore(self.disk.db)
        self.backups: list[Disk] = []
        self.rng = world.rng("store")
        self._away_until = 0
        self._common: Mask = -1
        self._runs: dict[StreamKey, tuple[RunStated, ...]] = {}
        """what all backups have, as it is stated"""

    def reopen(self) -> None:
        """After a batch that failed: nothing of it is there."""
        self.disk.db.fail = ""
        self.disk.db.rollback()
        self.store = SqliteStore(self.disk.db)

    @property
    def away_until(self) -> int:
        """Until when it cannot be reached; 0 when it can."""
        return self._away_until if self.world.faulty and self.world.now < self._away_until else 0

    def away(self, for_ms: int) -> None:
        """It cannot be reached for a while."""
        self._away_until = max(self._away_until, self.world.now + for_ms)

    def statement(self, keys: Sequence[StreamKey] | None) -> Statement:
        """The store's own word, with what every restorable backup has."""
        said = self.store.statement(keys)
        if not self.world.options.backups:
            return said
        common = -1 if self.backups else 0
        for backup in self.backups:
            common &= backup.held
        if self._common != common:
            self._common, self._runs = common, self.world.check.truth.runs(common)
        return Statement(said.streams, dict(self._runs))

    # ------------------------------------------------------------ backups

    def backup(self) -> None:
        """Begin a backup; the oldest can no longer be restored."""
        self.backups.append(self.disk.copy("store backup"))
        for old in self.backups[:-BACKUPS_KEPT]:
            old.close()
        self.backups = self.backups[-BACKUPS_KEPT:]
        self.world.say("store", "is backed up")

    def restore(self) -> None:
        """The store comes back from a backup."""
        if not self.backups:
            return
        backup = self.rng.choice(self.backups)
        self.store.close()
        self.disk.gone = True
        self.disk = backup.copy("store")
        self.store = SqliteStore(self.disk.db)
        self.world.count("store restored")
        self.world.say("store", "is restored from a backup")
        self.world.check.destroyed()

    def close(self) -> None:
        """Let go of everything."""
        self.store.close()
        for backup in self.backups:
            backup.close()
