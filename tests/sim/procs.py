"""What the processes of the simulated world have in common: a disk, an inbox, and the loop that their shells run, with crashes around each
commit.

begin, decide and write, commit, then the effects, then the answers. A crash takes the core; its disk stays, as committed. Nothing is sent
or answered in a step whose commit did not return.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from protocols.errors import LedgerError, LedgerFull
from protocols.event import OrderEvent
from tests.sim.checkers import Answered
from tests.sim.disks import Disk

if TYPE_CHECKING:
    from tests.sim.world import World


CRASHES_MOST: Final = 3
"""of one process by chance in a fortieth of the world's time. Everybody greets a hub that came back, and each greeting, and each answer to
it, is one more chance to die: without a bound some worlds were one storm of crashes, and cost as much as ten"""
PARTS: Final = 40


@dataclass(slots=True, eq=False)
class Request:
    """What a client wants, until it is told yes or gives up."""

    events: Sequence[OrderEvent]
    tries: int = 1
    answer: Answered | None = None
    told: bool = False


class Down(NamedTuple):
    """Bytes for an edge."""

    payload: bytes


class Up(NamedTuple):
    """Bytes for the hub, on the topics of `node`."""

    node: str
    payload: bytes


class Link(NamedTuple):
    """The transport of an edge came up or went."""

    up: bool


class Proc(ABC):
    """What edge and hub have in common: a disk, an inbox, and a loop that a crash can end at three points."""

    def __init__(self, world: World, name: str, disk: Disk, crashes: float) -> None:
        self.world, self.name, self.disk, self.crashes = world, name, disk, crashes
        self.inbox: list[Any] = []
        self.boots = 0
        self.alive = False
        self.alarm: int | None = None
        self._draining = False
        self.paused_until = 0
        """stopped between two of its steps, as by SIGSTOP: what is for it waits"""
        self.rng = world.rng(f"crashes/{name}")
        self._crashed: dict[int, int] = {}
        """how often in each part of the world's time"""

    def give(self, thing: Any) -> None:
        """Something arrives; what arrives within a moment shares a commit. A dead process hears nothing."""
        if not self.alive:
            return
        self.inbox.append(thing)
        if not self._draining:
            self._draining = True
            self.world.after(self.world.options.group_ms, self._drain, self.boots)

    def held_up(self, act: Callable[..., None], *args: Any) -> bool:
        """While it is stopped nothing of it happens; then this does, among all else that waits, in any order."""
        if self.world.now >= self.paused_until:
            return False
        self.world.at(self.paused_until + self.rng.randrange(50), act, *args)
        return True

    def _drain(self, boot: int) -> None:
        if boot == self.boots and self.alive and not self.held_up(self._drain, boot):
            self._draining = False
            things, self.inbox = self.inbox, []
            self.step(things)

    def crash_point(self) -> str:
        """Where this step breaks off: "", "before" or "after" the commit, or in the "effects"."""
        if not self.world.faulty or self.rng.random() >= self.crashes:
            return ""
        part = self.world.now * PARTS // self.world.options.duration_ms
        self._crashed[part] = self._crashed.get(part, 0) + 1
        if self._crashed[part] > CRASHES_MOST:
            return ""
        return self.rng.choice(("before", "after", "effects"))

    @abstractmethod
    def step(self, things: Sequence[Any]) -> None:
        """One turn of the loop."""

    def start(self) -> None:
        """From disk; tried again where that is full."""
        self.boots += 1
        self.alive = True
        self._draining = False
        self.inbox, self.alarm = [], None
        try:
            self.open()
        except LedgerFull as e:
            self.no_room(e, ())

    @abstractmethod
    def open(self) -> None:
        """Build the core from what lies on the disk."""

    def no_room(self, error: LedgerError, done: Sequence[Request]) -> None:
        """The disk was full in the middle of a transaction: nothing of it is there, who asked hears so, and all is opened again."""
        if not self.disk.db.filled:
            raise error
        self.crash("on a full disk")
        for request in done:
            request.answer = error
            self.world.clients.told(self, request)

    def stop(self) -> None:
        """The process is gone: memory, inbox, unanswered requests. What was not committed is rolled back."""
        self.alive = False
        self.alarm = None
        self.disk.db.fail = ""
        self.disk.db.rollback()

    def crash(self, why: str) -> None:
        """Gone, and back after a while."""
        self.world.count(f"crash {why}")
        self.world.say(self.name, f"crashes: {why}")
        self.stop()
        self.world.after(self.rng.choice((1, 2_000, 600_000)), self._restart, self.boots)

    def _restart(self, boot: int) -> None:
        if not self.alive and boot == self.boots:
            self.start()
