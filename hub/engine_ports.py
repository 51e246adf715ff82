"""What the hub's loop works with, and what it counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from hub.bridge_desk import BridgeDesk
from hub.core import HubCore
from hub.inputs import Asked, Input
from hub.lookbook import Left
from hub.store.port import WORD_MS, Applied, CentralStore

LOOK_EVERY_MS: Final = 500
LOOK_LATE_MS: Final = 1_500
"""a look that has been due for so long is made before the store is given more"""
BACKOFF_FIRST_MS: Final = 250
BACKOFF_MOST_MS: Final = 30_000
POISON_KEPT: Final = 1_000
TURN_FACTS: Final = 4_000
"""handed over at once: about as many as one turn takes in"""
REFILL_FACTS: Final = 1_000


class Done(NamedTuple):
    """What a transaction led to: answers for those who wait, and items about which nothing was decided."""

    answers: list[tuple[Asked, Any]]
    put_back: Sequence[Input] = ()


@dataclass(slots=True)
class EngineCounts:
    """Totals since the start, for metrics."""

    turns_total: int = 0
    commits_total: int = 0
    frames_total: int = 0
    """that verified, of all that came"""
    facts_total: int = 0
    applied_total: int = 0
    doubled_total: int = 0
    refilled_total: int = 0
    published_total: int = 0
    rebuilt_total: int = 0
    store_errors_total: int = 0

    @property
    def moved(self) -> int:
        """Facts that were taken in or have reached the store."""
        return self.facts_total + self.applied_total + self.refilled_total


@dataclass(frozen=True, slots=True)
class Ports:
    """What the engine works with. `open_core` and `open_store` open from disk, also again after a failure; `now_ms` is the wall clock;
    `publish` may be called from the worker and never blocks; `applied` is called on the loop after each batch that the store took."""

    open_core: Callable[[], HubCore]
    open_store: Callable[[], CentralStore]
    publish: Callable[[str, bytes], None]
    applied: Callable[[Applied], None]
    now_ms: Callable[[], int]
    left: Left
    synchronised: Callable[[], bool | None] = lambda: None
    """what the kernel says of that clock"""
    beside: bool = False
    """the store is in another process or on another machine: what it does, it does while the engine goes on"""
    desk: BridgeDesk | None = None
    """where facts go to the store over a bus: its end in the engine. None: the engine applies them itself"""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """`store_check_ms`: how often the store is asked for all that it holds. `follow_ms`: how often for what others brought; 0: there are
    none. `store_wait_ms`: between two looks at whether a store that is being opened has answered; `store_backoff_ms`: the longest pause
    before one that failed is opened again, shorter than a ledger's, because a server comes back by itself.
    `word_ms`: after so long without anything else to do for the hub, a store on a server is asked whether it is there.
    `apart_ms`: at least between the beginnings of two turns while there is little to do (`hub.pace`)."""

    store_check_ms: int = 60_000
    offline_after_ms: int = 30_000
    follow_ms: int = 0
    store_wait_ms: int = 500
    store_backoff_ms: int = 4_000
    apart_ms: int = 25
    word_ms: int = WORD_MS
