"""The engine's side of the central store: what it lacks is handed over, what it says is taken, what it alone holds is fetched back.

Everything here runs in the engine's worker, but for the work on the store itself: that is an errand (`hub.errands`), and each turn begins
one or looks whether the first has ended. While a store that works beside the engine takes a batch, the next one is made ready and waits
there, so that neither stands still for the other; what was handed over counts as there until the store's word on it was taken in. While the
store fails it is opened again with back-off, and nothing else
stops. What an errand brings for a core that was thrown away meanwhile is dropped: the new one asks anew.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

from hub.asking import Asking, to_take_back
from hub.core import HubCore, Publish
from hub.engine_ports import BACKOFF_FIRST_MS, BACKOFF_MOST_MS, REFILL_FACTS, TURN_FACTS, EngineCounts, Ports, Rhythm
from hub.errands import Errands
from hub.handing import Spans, spans_of
from hub.store.port import Applied, CentralStore, Statement, StoreFact, StoreRecord
from protocols.errors import DecodeError, LedgerBroken, LedgerBusy, LedgerError, LongshoreError
from protocols.messages import RunStated
from protocols.streams import StreamKey
from protocols.trace_log import traced

T = TypeVar("T")
log = logging.getLogger(__name__)
MUCH_FACTS: Final = 500
SOON_MS: Final = 1_000
"""the longest pause of a loop that waits for an errand: its end wakes it, and a clock that jumps must not keep it asleep"""


class Owner(NamedTuple):
    """Whom the store's side belongs to. `lose_core`: the ledger failed; `publish`: what a transaction of the core's leads to;
    `changed`: there is something new to see; `wake`: from any thread, an errand has ended."""

    lose_core: Callable[[LedgerError], None]
    publish: Callable[[list[Publish]], None]
    changed: Callable[[], None]
    wake: Callable[[], None]


class _Said(NamedTuple):
    """What the store stated, whether that is everything, and which batch it had been handed (0: none)."""

    statement: Statement
    whole: bool
    batch: int = 0


class _Errand(NamedTuple):
    """`work` is done on the store, `then` with what it brought; `core`: for whom it was begun."""

    core: HubCore
    work: Callable[[], Any]
    then: Callable[[HubCore, Any], Applied | None]


class StoreSide:
    """See the module."""

    def __init__(self, ports: Ports, rhythm: Rhythm, counts: EngineCounts, owner: Owner) -> None:
        self.store: CentralStore | None = None
        self.error = ""
        self.said: list[_Said] = []
        """what the store stated and the ledger has not been told"""
        self.refill: list[tuple[StreamKey, RunStated]] = []
        """what the store alone holds, and is taken from it"""
        self._ports, self._rhythm, self._counts, self._owner = ports, rhythm, counts, owner
        self._errands = Errands(beside=ports.beside, ended=owner.wake)
        self._begun: deque[_Errand] = deque()
        self._batch, self._much = 0, False
        self._given: dict[int, Spans] = {}
        """batches that were handed over, by number, until the ledger is told what the store says of them"""
        self._asking = Asking(rhythm)
        self._unfit: list[tuple[StreamKey, RunStated]] = []
        self._due_ms, self._wait_ms = 0, BACKOFF_FIRST_MS

    # ------------------------------------------------------------ for the loop

    @property
    def under_way(self) -> bool:
        """Is the store at work for the engine?"""
        return self._errands.under_way

    @property
    def waits(self) -> bool:
        """Does the store stand still, though it could go on?"""
        return self._errands.all_done() or (bool(self.said) and not self.under_way)

    @property
    def has_word(self) -> bool:
        """Has store or bus said what the ledger is to be told?"""
        return bool(self.said) or (self._ports.desk is not None and self._ports.desk.answered)

    @property
    def busy(self) -> bool:
        """Is there something for the engine to do at once?"""
        return bool(self.said) or (bool(self.refill) and not self.under_way)

    @property
    def in_step(self) -> bool:
        """Does the ledger know all that the store has of it? Looked at in between, what is under way would be counted twice."""
        return not self.said and not self.under_way

    def due_ms(self) -> int:
        """When to look again though nothing happened."""
        if self.under_way:
            return self._ports.now_ms() + SOON_MS
        return self._due_ms if self.store is None else self._asking.due_ms

    def ask_all(self) -> None:
        """A new core knows nothing of what the store holds."""
        self.said, self.refill = [], []
        self._given.clear()
        self._asking.at_once()

    def heard(self, core: HubCore) -> None:
        """Inside the core's transaction: it takes what bus and store said."""
        desk = self._ports.desk
        if desk is not None:
            desk.take_answers(core, self._ports.now_ms())
        for statement, whole, batch in self.said:
            older = core.take_statement(statement, whole=whole, now_ms=self._ports.now_ms())
            if desk is not None:
                desk.heard(core, statement.streams, self._ports.now_ms(), whole=whole)
            self.refill = to_take_back(core.serving, self.refill, [one for one in older if one not in self._unfit], whole=whole)
            if whole:
                core.take_holes(self._ports.now_ms())
            for key, _ in self._given.pop(batch, ()):
                core.handing.unhanded[key] = None  # what the store does not state of it, it lacks
        self.said = []

    def turn(self, core: HubCore, *, ahead: bool) -> Applied | None:
        """Begin what is next, or take what has ended. `ahead`: the store may be given more before the ledger knows all that it has. Returns
        what a batch did."""
        now_ms, desk = self._ports.now_ms(), self._ports.desk
        if desk is None:
            core.handing.elsewhere = self._on_the_way
        if not self.under_way:
            if self.store is None and (now_ms < self._due_ms or not self._reopen()):
                return self._bridge_turn(core, now_ms)
            assert self.store is not None
            self._begin(self._next(core, self.store, now_ms))
        applied = self._collected(core) if self._errands.done() else None
        if desk is not None:
            return self._bridge_turn(core, now_ms)
        if ahead and self._errands.room and self._only_more(core, now_ms):
            assert self.store is not None
            self._begin(self._hand_over(core, self.store))
        return applied

    def _begin(self, errand: _Errand | None) -> None:
        if errand is not None:
            self._begun.append(errand)
            self._errands.begin(errand.work)

    def _only_more(self, core: HubCore, now_ms: int) -> bool:
        """Is there nothing to do with the store but to hand over more, and a backlog of that? Little goes together with what comes."""
        store = self.store
        return self._much and store is not None and core.asked_store and not self.refill and not self._asking.wants(store, now_ms)

    def _on_the_way(self, key: StreamKey) -> list[RunStated]:
        return [run for spans in self._given.values() for k, run in spans if k == key]

    def _collected(self, core: HubCore) -> Applied | None:
        errand = self._begun.popleft()
        try:
            brought = self._errands.collect()
            self._asking.answered(self._ports.now_ms())
            return errand.then(core, brought) if errand.core is core else None
        except LedgerError as error:
            self.lose(error)
        # boundary: a bug in the store must not keep the hub from taking what edges send; it is tried again with back-off
        except Exception as error:
            log.exception("The central store failed on a batch")
            self.lose(LedgerBroken(f"internal error: {type(error).__name__}"))
        return None

    def _bridge_turn(self, core: HubCore, now_ms: int) -> Applied | None:
        """Facts that go over a bus go on their way also while the store is away."""
        try:
            return self._ports.desk.turn(core, now_ms, self._counts) if self._ports.desk is not None else None
        except LedgerError as error:
            self._owner.lose_core(error)
            return None

    # ------------------------------------------------------------ errands

    def _next(self, core: HubCore, store: CentralStore, now_ms: int) -> _Errand | None:
        if self._asking.wants(store, now_ms):
            return _Errand(core, lambda: self._asking.ask(store, self._ports.now_ms), self._note)
        if self.refill:
            key, run = self.refill[0]
            return _Errand(core, lambda: _page(store, key, run), self._take_back)
        desk = self._ports.desk
        if desk is not None:
            keys = desk.asks(now_ms)
            return _Errand(core, lambda: (store.statement(keys), False), self._note) if keys else self._word(core, store, now_ms)
        return self._hand_over(core, store) or self._word(core, store, now_ms)

    def _word(self, core: HubCore, store: CentralStore, now_ms: int) -> _Errand | None:
        """Nothing else is asked of the store: is it there?"""
        word = self._asking.word_of(store, now_ms)
        return _Errand(core, word, lambda _core, _word: None) if word is not None else None

    def _note(self, _core: HubCore, said: tuple[Statement, bool] | None) -> None:
        if said is not None:
            self.said.append(_Said(*said))
            if self._ports.desk is not None:  # to answer is all that is asked of it here; others write to it
                self._wait_ms = BACKOFF_FIRST_MS

    def _hand_over(self, core: HubCore, store: CentralStore) -> _Errand | None:
        try:
            facts, records = core.lacking_in_store(TURN_FACTS)
        except LedgerError as error:
            self._owner.lose_core(error)
            return None
        if not facts and not records:
            return None
        now_ms, self._much = self._ports.now_ms(), len(facts) >= MUCH_FACTS
        touched = list(dict.fromkeys([*(f.stream for f in facts), *(r.stream for r in records)]))
        self._batch = batch = self._batch + 1
        self._given[batch] = spans_of(facts, records)

        def work() -> tuple[Applied, Statement]:
            return store.apply(facts, records, now_ms), store.statement(touched)

        def then(core: HubCore, brought: tuple[Applied, Statement]) -> Applied:
            applied, statement = brought
            traced("applied", facts)
            if all(statement.streams.get(key, ()) == core.stated(key) for key in touched):
                raise LedgerBroken("the store does not state what it was just given")  # handing it over again at once would never end
            self.said.append(_Said(statement, False, batch))
            self._counts.applied_total += applied.new
            self._counts.doubled_total += applied.known
            self._wait_ms = BACKOFF_FIRST_MS
            return applied

        return _Errand(core, work, then)

    def _take_back(self, core: HubCore, page: _Page) -> None:
        """What the store holds and this hub lost: a page of it (rule 12)."""
        key, run, facts, records = page
        last = facts[-1] if facts else None
        done = last is None or last.seq >= run.last
        try:
            core.begin()
            core.take_from_store(facts, records, self._ports.now_ms())
            core.commit()
            self._owner.publish(core.effects(self._ports.now_ms()))
        except DecodeError as error:
            self._unfit.append((key, run))
            self._owner.lose_core(LedgerBroken(f"the central store gave back what is not a chain: {error}"))
            return
        except LedgerError as error:
            self._owner.lose_core(error)
            return
        self._counts.refilled_total += len(facts)
        self._owner.changed()
        self.refill[0:1] = [] if done or last is None else [(key, RunStated(last.seq + 1, last.h, run.last, run.h_last, run.kind))]

    def use(self, work: Callable[[CentralStore], T]) -> T:
        """Let the caller do something with the store between two errands; then it is asked for all that it holds. Errors: those of `work`;
        LedgerBroken: it is not open."""
        self._errands.wait()
        if self.store is None:
            raise LedgerBroken("the central store is not open", remedy="try again once it is")
        try:
            done = work(self.store)
        except LedgerError as error:
            self.lose(error)
            raise
        self._asking.at_once()
        return done

    # ------------------------------------------------------------ open and lost

    def open(self) -> bool:
        """Open it. False: not now, and `error` says why. Errors: ConfigError: nothing that time mends."""
        try:
            self.store = self._ports.open_store()
        except LedgerBusy as error:  # nothing failed: somebody has to be waited for
            self.error, self._due_ms = error.reason, self._ports.now_ms() + self._rhythm.store_wait_ms
            return False
        except LedgerError as error:
            self.lose(error)
            return False
        self.error = ""
        return True

    def _reopen(self) -> bool:
        """What keeps a hub from starting must not end one that runs: it takes what edges send and tries again."""
        try:
            return self.open()
        except LongshoreError as error:
            self.lose(LedgerBroken(error.reason, remedy=error.remedy))
            return False

    def lose(self, error: LedgerError) -> None:
        """The hub goes on taking; what it took waits in its own ledger."""
        log.error("The central store failed, and is opened again in %d ms: %s", self._wait_ms, error)
        self._counts.store_errors_total += 1
        self.error = error.reason
        self._let_go()
        self._due_ms = self._ports.now_ms() + self._wait_ms
        self._wait_ms = min(self._wait_ms * 2, BACKOFF_MOST_MS, self._rhythm.store_backoff_ms)
        self._owner.changed()

    def _let_go(self) -> None:
        store, self.store = self.store, None
        self._errands.forget()  # whoever opens it again asks what it has
        self._begun.clear()
        self._given.clear()
        if store is not None:
            store.close()

    def close(self) -> None:
        """Idempotent."""
        self._let_go()
        self._errands.close()


_Page = tuple[StreamKey, RunStated, list[StoreFact], list[StoreRecord]]


def _page(store: CentralStore, key: StreamKey, run: RunStated) -> _Page:
    facts = store.facts(key, run, REFILL_FACTS)
    done = not facts or facts[-1].seq >= run.last
    return key, run, facts, store.records(key) if done else []
