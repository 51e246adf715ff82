"""The time of an edge: what its facts are stamped with, how good that is, and what the hub's word says of facts of before.

The time floor is kept in the ledger, written with whatever transaction is under way, every few minutes at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from protocols.clock import WORDS, Patience, Regimes, Stamp, TimeKeeper, quality_word
from protocols.clocked import ClockStated
from protocols.event import LAST_MS
from protocols.ledger import Appended, Ledger
from protocols.sync.uplink import Uplink

_FLOOR: Final = "clock/floor"
_PATIENCE: Final = "clock/patience"


class Now(NamedTuple):
    """The moment of an input: `wall` ms since 1970 as this machine believes, `mono` ms of a clock that never steps.

    `synchronised`: what the kernel says of the former; None: nothing.
    """

    wall: int
    mono: int
    synchronised: bool | None = None


class EdgeClock:
    """See the module."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.keeper, self._patience = TimeKeeper(self._kept(_FLOOR)), Patience(self._kept(_PATIENCE))
        self.regimes = Regimes()

    def _kept(self, key: str) -> str:
        row = self._ledger.db.one("SELECT value FROM meta WHERE key=?", (key,))
        return str(row[0]) if row is not None else ""

    def _keep(self, key: str, value: str) -> None:
        sql = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value=excluded.value"
        self._ledger.db.run(sql, (key, value))

    def patient_ms(self, uplink: Uplink) -> int | None:
        """The hub's time as waiting goes by; None while there is no hub whose word counts."""
        if uplink.incarnation is None or uplink.hub_ms is None or uplink.last_heard_ms is None:
            return None
        return self._patience.at(uplink.hub_ms, uplink.last_heard_ms)

    def stamp(self, now: Now) -> Stamp:
        """What something recorded now would be stamped with."""
        return self.keeper.stamp(now.wall, now.mono, synchronised=now.synchronised)

    def ms(self, now: Now) -> int:
        """The time as far as it is known."""
        return self.stamp(now).ms

    def judging_ms(self, now: Now) -> int:
        """Against which others' times are called improbably late. A machine that does not know the time calls none so."""
        judging = self.keeper.judging_ms(now.wall, now.mono, synchronised=now.synchronised)
        return LAST_MS if judging is None else judging

    def recording(self, now: Now) -> Stamp:
        """`stamp`, inside a transaction: the floor is written with it when it is due."""
        stamp = self.stamp(now)
        if self.keeper.due(now.mono):
            self._keep(_FLOOR, self.keeper.persisted(now.mono))
            self._keep(_PATIENCE, self._patience.persisted())
        return stamp

    def recorded(self, done: Sequence[Appended], stamp: Stamp, now: Now) -> None:
        """These facts got this stamp."""
        new = [one for one in done if not one.repeated]
        if new:
            self.regimes.recorded(new[0].stream.epoch, new[0].stream.cls, new[0].seq, new[-1].seq, stamp, now.mono)

    def heard(self, uplink: Uplink, now: Now) -> None:
        """The hub's signed word was taken in, inside a transaction."""
        if uplink.round_trip is not None:
            self.keeper.hub_answered(*uplink.round_trip)
            uplink.round_trip = None
            self.regimes.judge(self.keeper, now.mono)
            self.recording(now)
        elif uplink.hub_ms is not None and uplink.incarnation is not None and uplink.last_heard_ms == now.mono:
            self.keeper.hub_said(uplink.hub_ms, now.mono)

    def stated(self, now: Now) -> ClockStated:
        """For the heartbeat."""
        offset, within = self.keeper.offset_ms(now.wall, now.mono) or (None, None)
        return ClockStated(self.stamp(now).clock, offset, within, tuple(self.regimes.shifts()))

    def status(self, now: Now) -> dict[str, Any]:
        """For `GET /v1/status`."""
        stamp, offset = self.stamp(now), self.keeper.offset_ms(now.wall, now.mono)
        return {
            "quality": quality_word(stamp.clock),
            "says": WORDS[stamp.clock],
            "recordsMs": stamp.ms,
            "floorMs": self.keeper.floor_ms,
            "synchronised": now.synchronised,
            "offsetMs": None if offset is None else offset[0],
            "offsetWithinMs": None if offset is None else offset[1],
            "shifts": [s._asdict() | {"epoch": f"{s.epoch:x}"} for s in self.regimes.shifts()],
        }

    def about_ms(self, epoch: int, cls: int, seq: int, recorded_ms: int) -> int | None:
        """When an own fact was recorded, put right by what is known now; None: nothing says that it is wrong."""
        for shift in reversed(self.regimes.shifts()):
            if (shift.epoch, shift.cls) == (epoch, cls) and shift.first <= seq <= shift.last:
                return recorded_ms + shift.ms
        return None
