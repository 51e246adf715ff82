"""What a projector does with records of the bus: facts out of headers, into the central store, with the offsets in the same transaction.

The store's offsets are the truth: a partition is claimed when the group assigns it, read from where the store stands, and moved by
compare-and-set with each batch. A projector that lost a partition without knowing changes nothing (`Fenced`). What a record means is in its
`ls_` headers; a record that cannot be read, or that the store fails on alone, becomes a dead letter before the offset moves past it.

Blocking; for one worker thread. The bus is `hub.project`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final, NamedTuple, TypeVar

from hub import bridge_records
from hub.bridge_topics import DEAD
from hub.bus import BusRecord, Place, Taken
from hub.store.offsets import Advance, Move
from hub.store.port import Applied, CentralStore, MayBeAway, StoreFact, StoreRecord
from protocols.errors import DecodeError, Fenced, LedgerError, LongshoreError
from protocols.trace_log import traced

T = TypeVar("T")
_ON_ITS_CHAIN: Final = itemgetter(0, 1)
"""stream and seq of a fact"""
log = logging.getLogger(__name__)


@dataclass(slots=True)
class ProjectorCounts:
    """Totals since the start. `known_total`: facts that the store had already, which the topic held twice."""

    batches_total: int = 0
    applied_total: int = 0
    known_total: int = 0
    records_total: int = 0
    dead_total: int = 0
    fenced_total: int = 0
    store_errors_total: int = 0


class Work(NamedTuple):
    """What was read of the bus, as far as it can be read. `dead`: records and why they cannot be taken."""

    facts: list[StoreFact]
    records: list[StoreRecord]
    dead: list[tuple[Taken, str]]
    moves: tuple[Move, ...]


class Projector:
    """See the module. `open_store` opens it for writing; `new_fence` gives a token that nobody else has."""

    def __init__(self, open_store: Callable[[], CentralStore], new_fence: Callable[[], int], now_ms: Callable[[], int]) -> None:
        self._open, self._new_fence, self._now_ms = open_store, new_fence, now_ms
        self._store: CentralStore | None = None
        self._fences: dict[Place, int] = {}
        self._next: dict[Place, int | None] = {}
        self.counts = ProjectorCounts()

    @property
    def open(self) -> bool:
        """Whether the store is open."""
        return self._store is not None

    def opened(self) -> CentralStore:
        """The store, opened if it was not. Errors: LedgerError, ConfigError."""
        if self._store is None:
            self._store = self._open()
        return self._store

    def still_there(self) -> None:
        """Nothing came for a while: is the store there? Errors: LedgerError: it is not, and is opened by the next call."""
        store = self.opened()
        if isinstance(store, MayBeAway):
            self._tried(store.still_there)

    def close(self) -> None:
        """Let go of the store. Idempotent."""
        store, self._store = self._store, None
        if store is not None:
            store.close()

    # ------------------------------------------------------------ partitions

    def claim(self, places: Sequence[Place]) -> dict[Place, int | None]:
        """These partitions, and no others, are this projector's now. Returns where to read on. Errors: LedgerError, ConfigError."""
        self._fences, self._next = {}, {}
        fence = self._new_fence()
        for place in places:
            self._next[place] = self._claim(place, fence)
            self._fences[place] = fence
        return dict(self._next)

    def _claim(self, place: Place, fence: int) -> int | None:
        return self._tried(lambda: self.opened().claim(*place, fence))

    def release(self) -> None:
        """No partition is this projector's any more."""
        self._fences, self._next = {}, {}

    # ------------------------------------------------------------ batches

    def read(self, polled: Mapping[Place, Sequence[Taken]]) -> Work:
        """Facts in the order of their streams, so that the store takes long stretches; partitions that are not claimed are left out."""
        facts: list[StoreFact] = []
        records: list[StoreRecord] = []
        dead: list[tuple[Taken, str]] = []
        moves: list[Move] = []
        for place in sorted(polled):
            fence = self._fences.get(place)
            if fence is None:
                continue
            found, said, lost = bridge_records.read_all(polled[place])
            facts += found
            records += said
            dead += lost
            if polled[place]:
                moves.append(Move(*place, fence, self._next[place], polled[place][-1].offset + 1))
        facts.sort(key=_ON_ITS_CHAIN)
        return Work(facts, records, dead, tuple(moves))

    def apply(self, work: Work) -> Applied:
        """In one transaction with the offsets. Errors: Fenced: a partition is another's, nothing changed; LedgerError: the store failed, is
        closed, and is opened by the next call."""
        if not work.moves:
            return Applied(0, 0)
        try:
            applied = self._tried(lambda: self.opened().apply(work.facts, work.records, self._now_ms(), Advance(work.moves)))
        except Fenced:
            self.counts.fenced_total += 1
            raise
        traced("applied", work.facts)
        self._next |= {Place(move.topic, move.partition): move.next_offset for move in work.moves}
        self.counts.batches_total += 1
        self.counts.applied_total += applied.new
        self.counts.known_total += applied.known
        self.counts.records_total += len(work.records)
        return applied

    def apart(self, polled: Mapping[Place, Sequence[Taken]]) -> list[tuple[Taken, str]]:
        """After the store failed on a batch in a way that nobody foresaw: one record after the other. Returns the first on which it fails
        alone while it takes an empty batch: set that aside, then `skip` it. Errors: see `apply`."""
        for place in sorted(polled):
            for one in polled[place]:
                work = self.read({place: [one]})
                try:
                    self.apply(work)
                except UnforeseenError as error:
                    self._tried(lambda: self.opened().apply([], [], self._now_ms()))
                    return [(one, error.reason)]
        return []

    def skip(self, dead: Iterable[Taken]) -> None:
        """Move past records that were set aside. Errors: see `apply`."""
        for one in dead:
            self.apply(self.read({one.place: [one]})._replace(facts=[], records=[]))

    def bury(self, dead: Sequence[tuple[Taken, str]]) -> list[BusRecord]:
        """The dead letters of these records; `counts` knows of them."""
        self.counts.dead_total += len(dead)
        return [dead_letter(one, why, self._now_ms()) for one, why in dead]

    def positions(self) -> dict[Place, int | None]:
        """Where the store stands, by what it last said to this projector."""
        return dict(self._next)

    def _tried(self, work: Callable[[], T]) -> T:
        """A store that failed is closed: the next call opens it."""
        try:
            return work()
        except LedgerError:
            self.counts.store_errors_total += 1
            self.close()
            raise
        except LongshoreError:
            raise
        # boundary: a bug of the store on one record must not stop all others; it is found by taking them one by one
        except Exception as error:
            log.exception("The central store failed on a batch")
            self.counts.store_errors_total += 1
            self.close()
            raise UnforeseenError(f"internal error of the central store: {type(error).__name__}") from error


class UnforeseenError(LedgerError):
    """The store failed on a batch by a bug; the log has it."""


def dead_letter(one: Taken, why: str, now_ms: int) -> BusRecord:
    """A record beside its topic, as it was, with where it lay and why it cannot be taken."""
    told = {
        "dlq_topic": one.place.topic,
        "dlq_partition": str(one.place.partition),
        "dlq_offset": str(one.offset),
        "dlq_error": why[:500],
        "dlq_time_ms": str(now_ms),
    }
    headers = [(name, value or b"") for name, value in one.headers if name not in told]
    return BusRecord(one.place.topic + DEAD, one.key, one.value, [*headers, *((n, v.encode()) for n, v in told.items())], one.timestamp_ms)


def replayed(one: Taken) -> BusRecord:
    """A dead letter as the record that it was, on its way back to its topic. Errors: DecodeError: it is none."""
    headers = dict(one.headers)
    topic = headers.get("dlq_topic", b"").decode("utf-8", "replace")
    if not topic or topic + DEAD != one.place.topic:
        raise DecodeError("dlq_topic: missing, or not the topic beside which it lies")
    kept = [(name, value) for name, value in one.headers if not name.startswith("dlq_")]
    return BusRecord(topic, one.key, one.value, kept, one.timestamp_ms)
