"""What the hub's loop works with, and what it counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hub.core import HubCore
from hub.fleet import Left
from hub.store.port import Applied, CentralStore


@dataclass(slots=True)
class EngineCounts:
    """Totals since the start, for metrics."""

    turns_total: int = 0
    commits_total: int = 0
    facts_total: int = 0
    applied_total: int = 0
    doubled_total: int = 0
    refilled_total: int = 0
    published_total: int = 0
    rebuilt_total: int = 0
    store_errors_total: int = 0


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


@dataclass(frozen=True, slots=True)
class Rhythm:
    """`store_check_ms`: how often the store is asked for all that it holds."""

    store_check_ms: int = 60_000
    offline_after_ms: int = 30_000
