"""The bridge's end in the hub's worker: takes from the ledger what goes over the bus, notes what the bus acknowledged, and when to ask the
store what became of it.

Everything but `answer` is called by the engine's worker, between its transactions. Batches go to `hub.bridge`, which speaks to the bus, and
come back as answers. A core that is made anew forgets which batches were under way: those facts go again, and are the same facts.
"""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, Protocol

from hub.ask_pace import AskPace
from hub.bridging import Batch, BridgeCounts, Bridging
from hub.core import HubCore
from hub.store.port import Applied, Change, StoreFact
from protocols.chains import RunKind
from protocols.codec import unpack
from protocols.errors import DecodeError
from protocols.limits import FRAME_UNPACKED_BYTES
from protocols.reading import readable
from protocols.streams import StreamKey
from protocols.sync.intervals import Intervals

BATCH_FACTS: Final = 4_000
UNDER_WAY: Final = 3
"""batches that wait for the bus: one that it writes, one that is made ready, one that waits"""
SHOWN_KEPT: Final = 5_000
"""facts that are told to the live feed once they are in the store"""


class Counts(Protocol):
    """What the engine counts of the store."""

    applied_total: int


class BridgeSeen(NamedTuple):
    """Figures of the ledger's side, as of the last look: places that the bus lacks and that the store lacks, and since when (ms)."""

    backlog: int = 0
    backlog_since_ms: int | None = None
    unsettled: int = 0
    unsettled_since_ms: int | None = None


class BridgeDesk:
    """See the module. `offer` is given each batch with the number of the core that gave it, and returns at once."""

    def __init__(self, offer: Callable[[int, Batch], None], again_ms: int) -> None:
        self._offer, self._again_ms = offer, again_ms
        self._answers: deque[tuple[int, int, bool]] = deque()
        self._core: HubCore | None = None
        self._bridging: Bridging | None = None
        self._generation = 0
        self._pace = AskPace()
        self._shown: dict[StreamKey, dict[int, StoreFact]] = {}
        self._settled, self._changes = 0, list[Change]()
        self.counts = BridgeCounts()
        self.seen = BridgeSeen()

    def answer(self, generation: int, number: int, *, sent: bool) -> None:
        """From any thread: what became of a batch."""
        self._answers.append((generation, number, sent))

    @property
    def answered(self) -> bool:
        """Is there an answer that was not noted?"""
        return bool(self._answers)

    # ------------------------------------------------------------ the worker's turns

    def take_answers(self, core: HubCore, now_ms: int) -> None:
        """In the core's transaction: note what the bus answered. Errors: LedgerError."""
        if self._bridging is not None and self._core is core:  # otherwise they are of batches that this core never gave
            self._take_answers(self._bridging, now_ms)

    def turn(self, core: HubCore, now_ms: int, counts: Counts) -> Applied | None:
        """Give the bus more. Returns what the store has taken in since. Errors: LedgerError, of the core."""
        bridging = self._of(core, now_ms)
        if core.asked_store or bridging.begun:
            self._offer_all(bridging, now_ms)
        settled, changes = self._settled, self._changes
        self._settled, self._changes = 0, []
        counts.applied_total += settled
        received = Counter(change.received_ms for change in changes)
        return Applied(settled, 0, changes, received=dict(received)) if settled or changes else None

    def _offer_all(self, bridging: Bridging, now_ms: int) -> None:
        """What the bus has room for."""
        while bridging.underway < UNDER_WAY:
            batch = bridging.next_batch(BATCH_FACTS, now_ms)
            if batch is None:
                break
            batch = batch._replace(facts=[f if f.fact is not None else _read(f) for f in batch.facts])
            self._keep_changes(batch.facts)
            self._offer(self._generation, batch)

    def _of(self, core: HubCore, now_ms: int) -> Bridging:
        if self._bridging is None or self._core is not core:
            self._core, self._generation = core, self._generation + 1
            self._bridging = Bridging(core.ledger, core.handing, self._again_ms, now_ms)
            self._bridging.counts = self.counts
            if core.asked_store:
                self._bridging.stated([*core.handing.stated, *self._bridging.waiting()], now_ms)
        return self._bridging

    def _take_answers(self, bridging: Bridging, now_ms: int) -> None:
        sent = 0
        for generation, number, done in [self._answers.popleft() for _ in range(len(self._answers))]:
            if generation != self._generation:
                continue
            if not done:
                bridging.failed(number)
                continue
            bridging.acknowledged(number, now_ms)
            sent += 1
        if sent:
            self._pace.soon(now_ms)

    # ------------------------------------------------------------ the store's word

    def asks(self, now_ms: int) -> list[StreamKey]:
        """Streams about which the store is to be asked now; [] when it is not time."""
        if self._bridging is None or now_ms < self._pace.due_ms:
            return []
        keys = self._bridging.waiting()
        self._pace.asked(now_ms, something=bool(keys))
        return keys

    def heard(self, core: HubCore, keys: Iterable[StreamKey], now_ms: int, *, whole: bool) -> None:
        """The store has spoken of these streams, or of all, and the core has taken that in. In the core's transaction."""
        bridging = self._bridging
        if bridging is None or self._core is not core:
            return  # the first turn of this core hears of it
        if not whole:
            self._pace.answered(now_ms)
        named = dict.fromkeys([*keys, *(bridging.waiting() if whole else ())])
        settled = bridging.stated(named, now_ms)
        if settled:
            self._settled += settled
            self._pace.soon(now_ms)
            for key in named:
                self._tell(core, key)

    def due_ms(self, *, else_ms: int) -> int:
        """When the next turn is needed at the latest, though nothing happens; `else_ms` where it is not."""
        if self._bridging is None:
            return else_ms
        return self._pace.due_ms if self._bridging.waiting() else else_ms

    def look(self) -> None:
        """Make the figures anew; the engine does it when it looks at the fleet."""
        if self._bridging is not None:
            self.seen = BridgeSeen(*self._bridging.backlog(), *self._bridging.unsettled())

    # ------------------------------------------------------------ the live feed

    def _keep_changes(self, facts: Iterable[StoreFact]) -> None:
        if sum(len(one) for one in self._shown.values()) > SHOWN_KEPT:
            self._shown.clear()
        key, shown = None, dict[int, StoreFact]()
        for f in facts:
            if f.fact is not None:
                if f.stream is not key:  # facts of one stream lie together
                    key = f.stream
                    shown = self._shown.setdefault(key, {})
                shown[f.seq] = f

    def _tell(self, core: HubCore, key: StreamKey) -> None:
        waiting = self._shown.get(key)
        if not waiting:
            return
        held = Intervals(sorted((r.first, r.last) for r in core.stated(key) if r.kind is RunKind.DATA))
        done = [seq for seq in waiting if seq in held]
        self._changes += [_change(waiting.pop(seq)) for seq in done]
        if not waiting:
            del self._shown[key]


def _read(f: StoreFact) -> StoreFact:
    """With what its row says, where it is an order's: once, for all who want to know it here."""
    if f.fact is not None or f.quarantined or f.stream.cls:
        return f
    with contextlib.suppress(DecodeError):
        return f._replace(fact=readable(unpack(f.row, max_bytes=FRAME_UNPACKED_BYTES), f.stream, f.seq)[0])
    return f


def _change(f: StoreFact) -> Change:
    """What the live feed says of a fact: whether others stand beside it only the store knows."""
    fact = f.fact
    assert fact is not None
    status, place = fact.status.name, (fact.source, fact.site, fact.region)
    return Change(fact.org, fact.order_id, status, status, *place, f.stream.node, fact.happened_ms, f.received_ms, False, True)
