"""What time it is, and how far that can be believed, on a machine whose clock may never have been set. Pure: both clocks are arguments.

Nothing is decided by a clock here or anywhere (reliability.md, rule 5): this only says when a fact was recorded and how good that is, so
that people see true timelines, and it keeps certificates judged by a time that is not before what is known to have passed.

The *floor* is the latest time known to have passed: the release of this program, the hub's signed time, and the last wall clock seen. It is
persisted every few minutes, so a board that boots in 1970 goes on where it was. The hub's time comes with its answers: an answer to a hello
that was sent at s and came at r (of a clock that never steps) was made between the two, which bounds the hub's clock to half the way
there and back. A later answer that contradicts the floor corrects it: a wall clock that once ran years ahead must not stay for good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from protocols.fact import Clock

RELEASED_MS: Final = 1_767_225_600_000
"""2026-01-01: no node of this version ran earlier, so no time before it is right"""
SLACK_MS: Final = 2_000
"""a clock that is being set gently goes back this far now and then"""
PERSIST_EVERY_MS: Final = 300_000
HUB_FRESH_MS: Final = 900_000
"""how long the hub's clock is carried forward by this machine's own: one that slept meanwhile would be wrong by that"""
OFF_MS: Final = 86_400_000
REGIMES_KEPT: Final = 16
DRIFT_PPM: Final = 200
"""what a machine's own clock may lose or gain, a generous bound"""
ROUND_TRIP_MOST_MS: Final = 60_000
"""an answer that took longer bounds nothing worth knowing"""


class Stamp(NamedTuple):
    """When something is recorded, in ms since 1970, and what is thought of the clock that says so."""

    ms: int
    clock: Clock


@dataclass(frozen=True, slots=True)
class Hub:
    """The hub's clock, bounded: at `mono` of this machine it was from `low_ms` to `high_ms`."""

    low_ms: int
    high_ms: int
    mono: int

    def at(self, mono: int) -> tuple[int, int]:
        """The bounds now, wider as time goes."""
        past = mono - self.mono
        drift = past * DRIFT_PPM // 1_000_000 + 1
        return self.low_ms + past - drift, self.high_ms + past + drift


class TimeKeeper:
    """See the module. `floor` is what `persisted` gave last time, "" at first. `mono` never steps; it may start anywhere."""

    def __init__(self, floor: str = "") -> None:
        sure, _, seen = floor.partition(":")
        self._sure_ms = max(RELEASED_MS, int(sure) if sure.isdigit() else 0)
        """known from the hub's signed word, or the release"""
        self._seen_ms = int(seen) if seen.isdigit() else 0
        """the last wall clock; the hub's word may take it back"""
        self._at_mono: int | None = None
        """when the floor was last what it is: it grows by what has passed since"""
        self._hub: Hub | None = None
        self._persisted_mono: int | None = None
        self._persisted_ms = self.floor_ms
        self.contradicted = False
        """the hub's last answer took the floor back"""

    # ------------------------------------------------------------ asking

    @property
    def floor_ms(self) -> int:
        """The latest time known to have passed."""
        return max(self._sure_ms, self._seen_ms)

    def stamp(self, wall: int, mono: int, *, synchronised: bool | None = None) -> Stamp:
        """The time of something that is recorded now; raises the floor. `synchronised`: what the kernel says of its clock; None: nothing.

        The wall clock as it is, wherever it can be right; where it is before the floor, the hub's time as it is known, or the floor and
        what has passed since.
        """
        hub = self._bounds(mono)
        if hub is not None and hub[0] - SLACK_MS <= wall <= hub[1] + SLACK_MS:
            self._raise_to(wall, mono)
            return Stamp(wall, Clock.HUB)
        if synchronised and wall >= RELEASED_MS:
            if wall < self._seen_ms:
                self._seen_ms = wall  # a clock that was ahead, and was set right
            self._raise_to(wall, mono)
            return Stamp(wall, Clock.NTP)
        if wall + SLACK_MS >= self.floor_ms:
            if hub is None:  # what the hub contradicts is not known to have passed
                self._raise_to(wall, mono)
            return Stamp(wall, Clock.FLOOR)
        if hub is not None:
            return Stamp((hub[0] + hub[1]) // 2, Clock.HUB)
        return Stamp(self._running_floor(mono), Clock.UNSET)

    def _bounds(self, mono: int) -> tuple[int, int] | None:
        if self._hub is None or not 0 <= mono - self._hub.mono <= HUB_FRESH_MS:
            return None
        return self._hub.at(mono)

    def _raise_to(self, wall: int, mono: int) -> None:
        if wall > self._seen_ms:
            self._seen_ms, self._at_mono = wall, mono

    def _running_floor(self, mono: int) -> int:
        if self._at_mono is None or mono < self._at_mono:
            self._at_mono = mono
        return self.floor_ms + mono - self._at_mono

    def judging_ms(self, wall: int, mono: int, *, synchronised: bool | None = None) -> int | None:
        """The time against which others' times may be called improbably late; None: this machine does not know the time well enough."""
        stamp = self.stamp(wall, mono, synchronised=synchronised)
        return None if stamp.clock is Clock.UNSET else stamp.ms

    def offset_ms(self, wall: int, mono: int) -> tuple[int, int] | None:
        """(the wall clock minus the hub's, by how much that may be wrong), while the hub's time is known well enough to say so."""
        hub = self._bounds(mono)
        return None if hub is None else (wall - (hub[0] + hub[1]) // 2, (hub[1] - hub[0] + 1) // 2)

    # ------------------------------------------------------------ what the hub says

    def hub_answered(self, hub_ms: int, asked_mono: int, now_mono: int) -> None:
        """The hub's time in the answer to a hello of ours that was sent at `asked_mono`: bounded, and later than all it said before."""
        trip = now_mono - asked_mono
        if hub_ms < RELEASED_MS or not 0 <= trip <= ROUND_TRIP_MOST_MS:
            return
        self._hub = _narrower(self._hub, Hub(hub_ms, hub_ms + trip, now_mono))
        latest = hub_ms + trip + SLACK_MS
        self.contradicted = self.floor_ms > latest
        if self.contradicted:
            self._sure_ms, self._seen_ms = min(self._sure_ms, latest), min(self._seen_ms, latest)
        if hub_ms > self.floor_ms:
            self._at_mono = now_mono
        self._sure_ms = max(self._sure_ms, hub_ms)

    def hub_said(self, hub_ms: int, now_mono: int) -> None:
        """The hub's time in any other signed word: it has passed, whenever that was said."""
        if hub_ms > self.floor_ms and (self._hub is None or hub_ms <= self._hub.at(now_mono)[1] + SLACK_MS):
            self._at_mono = now_mono
            self._sure_ms = hub_ms

    # ------------------------------------------------------------ keeping

    def due(self, mono: int) -> bool:
        """Is it time to write the floor down, with whatever is being written anyway? At once when much has become known, as by the hub's
        first word to a board that booted in 1970: a crash would leave it nothing."""
        if self._persisted_mono is None or not 0 <= mono - self._persisted_mono < PERSIST_EVERY_MS:
            return True
        return abs(self.floor_ms - self._persisted_ms) >= PERSIST_EVERY_MS

    def persisted(self, mono: int) -> str:
        """What to keep. Counts as written."""
        self._persisted_mono, self._persisted_ms = mono, self.floor_ms
        return f"{self._sure_ms}:{self._seen_ms}"


def _narrower(known: Hub | None, new: Hub) -> Hub:
    """Both bounds hold, unless they exclude each other: then the hub's clock was set, or it is another hub."""
    if known is None or not 0 <= new.mono - known.mono <= HUB_FRESH_MS:
        return new
    low, high = known.at(new.mono)
    if low > new.high_ms or high < new.low_ms:
        return new
    return Hub(max(low, new.low_ms), min(high, new.high_ms), new.mono)


class Patience:
    """The hub's time for waiting: it goes no faster than this machine's own time, so that a hub whose clock jumps years ahead neither frees
    anything before its floor nor makes a node forget a request that may be repeated; where the hub's clock goes back, it stands still.

    While this machine is off, at most a day passes. `kept` is what `persisted` gave last time.
    """

    def __init__(self, kept: str = "") -> None:
        now, _, hub = kept.partition(":")
        self._now_ms = int(now) if now.isdigit() else None
        self._hub_ms = int(hub) if hub.isdigit() else 0
        self._mono: int | None = None
        self._credit_ms = 0
        """how much of this machine's own time the hub's has not made use of"""

    def at(self, hub_ms: int, mono: int) -> int:
        """The time now; the hub just said `hub_ms`."""
        if self._now_ms is None:
            self._now_ms = hub_ms
        else:
            self._credit_ms += OFF_MS if self._mono is None or mono < self._mono else (mono - self._mono) * 1_001 // 1_000 + 100
            step = max(0, min(hub_ms - self._hub_ms, self._credit_ms))
            self._now_ms += step
            self._credit_ms -= step
        self._hub_ms, self._mono = hub_ms, mono
        return self._now_ms

    def persisted(self) -> str:
        """What to keep."""
        return "" if self._now_ms is None else f"{self._now_ms}:{self._hub_ms}"


# ---------------------------------------------------------------- what is learnt later about facts of before


class Shift(NamedTuple):
    """Facts first..last of an own stream were recorded by a clock that was `ms` behind (ahead: negative), give or take `within_ms`."""

    epoch: int
    cls: int
    first: int
    last: int
    ms: int
    within_ms: int


@dataclass(slots=True)
class _Regime:
    """Facts that were recorded by one setting of the clock: `ahead_ms` is its time minus `mono`."""

    epoch: int
    cls: int
    first: int
    last: int
    ahead_ms: int
    shift: Shift | None = None


class Regimes:
    """Which facts of this run were recorded by which setting of a clock that nobody had confirmed, so that the hub's next answer tells how
    far off each was. In memory: what was recorded before the last start stays as it was said, marked."""

    def __init__(self) -> None:
        self._regimes: list[_Regime] = []

    def recorded(self, epoch: int, cls: int, first: int, last: int, stamp: Stamp, mono: int) -> None:
        """Facts first..last were stamped now."""
        if stamp.clock >= Clock.NTP or last < first:
            return
        ahead_ms = stamp.ms - mono
        latest = self._regimes[-1] if self._regimes else None
        if latest is not None and (latest.epoch, latest.cls) == (epoch, cls) and abs(latest.ahead_ms - ahead_ms) < SLACK_MS:
            latest.last, latest.shift = last, None
            return
        self._regimes.append(_Regime(epoch, cls, first, last, ahead_ms))
        del self._regimes[:-REGIMES_KEPT]

    def judge(self, keeper: TimeKeeper, mono: int) -> None:
        """The hub's time is known now: how far off was each?"""
        for regime in self._regimes:
            off = keeper.offset_ms(regime.ahead_ms + mono, mono)
            if off is not None and regime.shift is None:
                regime.shift = Shift(regime.epoch, regime.cls, regime.first, regime.last, -off[0], off[1])

    def shifts(self) -> list[Shift]:
        """Those that were off by more than a clock may be, newest last."""
        return [r.shift for r in self._regimes if r.shift is not None and abs(r.shift.ms) > SLACK_MS + r.shift.within_ms]


def quality_of(now_ms: int, synchronised: bool | None) -> Clock:
    """Of a clock that nobody above confirms, as the hub's is: what the kernel says of it."""
    if now_ms < RELEASED_MS:
        return Clock.UNSET
    return Clock.NTP if synchronised else Clock.FLOOR


WORDS: Final = {
    Clock.UNSET: "unset: before what is known to have passed",
    Clock.FLOOR: "not confirmed by anybody",
    Clock.NTP: "synchronised, as the system says",
    Clock.HUB: "confirmed by the hub",
}


def quality_word(clock: Clock | int | None) -> str | None:
    """`unset`, `floor`, `ntp`, `hub`; None where nothing was said."""
    return None if clock is None else Clock(clock).name.lower()
