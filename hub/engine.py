"""The hub's one loop: inputs, one transaction, answers; then the central store, and its word back.

A turn, in a worker thread so that HTTP and broker go on breathing while the disk syncs:

1. one transaction takes what the store said and what waits (frames, events, admissions), and commits;
2. receipts and answers go out, and whoever waits is told;
3. what the store lacks is applied to it, and it is asked what it now holds of the streams touched. Turn by turn, until nothing is left.

The core, the store's writer and both connections belong to that worker; nothing else touches them. What others want to know is in `seen`,
made by the worker between turns. After a LedgerError core and connection are thrown away and built again from disk, which is a new
incarnation (sync.md, rule 6). While the store fails the hub goes on taking facts and saying `received`, and asks it again with back-off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from hub.core import HubCore, Publish
from hub.engine_ports import BACKOFF_FIRST_MS, BACKOFF_MOST_MS, LOOK_LATE_MS, POISON_KEPT, Done, EngineCounts, Ports, Rhythm
from hub.first_word import FirstWord
from hub.fleet import Seen, look_at_nodes
from hub.inputs import Admit, Append, Asked, Came, Do, Input, Inputs
from hub.lookout import Lookout
from hub.pace import Pace, much
from hub.registry import Node
from hub.store.port import Applied, CentralStore
from hub.store_side import Owner, StoreSide
from hub.tracing import Fresh
from protocols.clock import quality_of
from protocols.errors import LedgerBroken, LedgerError, LedgerFull, LongshoreError
from protocols.event import OrderEvent
from protocols.ledger import Appended
from protocols.sync.frames import digest
from protocols.trust import NodeCard

T = TypeVar("T")
log = logging.getLogger(__name__)
__all__ = ["Engine", "EngineCounts", "Ports", "Rhythm"]


class Engine:
    """See the module. All methods are for the thread of the event loop."""

    def __init__(self, ports: Ports, rhythm: Rhythm | None = None) -> None:
        self.counts = EngineCounts()
        self.inputs, self._fresh = Inputs(), Fresh()
        self.seen: Seen = Seen()
        self._ports, self._rhythm = ports, rhythm or Rhythm()
        self._wake, self._hurry = asyncio.Event(), asyncio.Event()
        self._lookout = Lookout(ports, self._rhythm)
        self._pace = Pace(self._rhythm.apart_ms / 1_000)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._stopping = False
        self._core: HubCore | None = None
        self._poison: dict[bytes, None] = {}
        self._failure: LedgerError | None = None
        """why there is no core, or why there was none: until a whole turn has succeeded again"""
        self._committed = False
        """has this core made anything durable yet?"""
        self._core_due_ms = self._look_due_ms = self._core_wait_ms = 0
        self._changed = True
        self._first_word = FirstWord()
        owner = Owner(self._lose_core, self._publish, self._note_change, self._wake_from_anywhere)
        self._side = StoreSide(ports, self._rhythm, self.counts, owner)

    # ------------------------------------------------------------ for the owner

    async def open(self) -> HubCore:
        """Open ledger and store for the first time. Errors: LedgerError, ConfigError: the hub cannot start."""
        self._loop = asyncio.get_running_loop()
        core = await self._in_worker(self._first_open)
        self._first_word.begin(self._ports.now_ms())
        return core

    async def with_store(self, work: Callable[[CentralStore], T]) -> T:
        """Let the worker do something with the store between two turns; then it is asked again for all that it holds. Errors: those of
        `work`; LedgerBroken: it is not open."""
        done = await self._in_worker(self._side.use, work)
        self._at_once()
        return done

    async def run(self) -> None:
        """Until `stop`, and then until nothing waits. Ends by itself only for a bug, which it raises."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._busy:
                if self._stopping and not self._side.under_way:
                    return
                await self._rest()
            await self._gather()
            self._wake.clear()
            began_s, moved = loop.time(), self.counts.moved
            await self._one_turn()
            self._pace.turned(began_s, self.counts.moved - moved)
            if self._stopping and self._core is None:
                return

    async def _gather(self) -> None:
        """After a turn that did little, what follows within a moment goes into one; see `hub.pace`."""
        rest_s = self._pace.rest_s(asyncio.get_running_loop().time(), self.inputs.bytes)
        if rest_s and not (self.inputs.asked or self._stopping):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._hurry.wait()
        self._hurry.clear()

    def _at_once(self) -> None:
        """Somebody waits for the next turn."""
        self._hurry.set()
        self._wake.set()

    @property
    def _busy(self) -> bool:
        return bool(self.inputs or self._side.busy or (self._core is not None and self._core.feeds.busy))

    async def _one_turn(self) -> None:
        """Answers go out before the store has its turn: who waits, waits for one sync only."""
        self.counts.turns_total += 1
        done = await self._in_worker(self._transaction, self.inputs.take())
        self.inputs.put_back(done.put_back)
        for item, answer in done.answers:
            if not item.answer.done():
                item.answer.set_exception(answer) if isinstance(answer, Exception) else item.answer.set_result(answer)
        applied = await self._in_worker(self._after)
        self._first_word.note(spoken=self._own_is_here())
        if applied is not None:
            self._ports.applied(applied)

    def _own_is_here(self) -> bool:
        """Has the store spoken, and is nothing of the hub's own facts still to come back from it?"""
        core = self._core
        return core is not None and core.asked_store and not any(core.serving.is_own(key) for key, _ in self._side.refill)

    async def _rest(self) -> None:
        if self._core is None:
            due = [self._core_due_ms]
        else:
            due_ms = self._core.due_ms(self._ports.now_ms())
            due = [
                self._side.due_ms(),
                *([due_ms] if due_ms is not None else []),
                *([self._look_due_ms] if self._changed and self._side.in_step else []),
            ]
            if self._ports.desk is not None and self._side.store is not None:
                due.append(self._ports.desk.due_ms(else_ms=due[0]))
        pause_s = min(max(min(due) - self._ports.now_ms(), 0), 1_000) / 1_000
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._wake.wait()

    def stop(self) -> None:
        """End `run` after what waits now."""
        self._stopping = True
        self._at_once()

    async def close(self) -> None:
        """After `run` has ended: tell whoever still waits, let go of the files. Idempotent."""
        self.inputs.fail(LedgerBroken("the hub is shutting down", remedy="send it again once it runs"))
        await self._in_worker(self._close)
        self._worker.shutdown()

    def came(self, node: str, payload: bytes) -> bool:
        """Bytes from a node's topic. False: there is no room for them now."""
        kept = not self._stopping and self.inputs.came(node, payload)
        self._wake.set()
        if much(self.inputs.bytes):
            self._hurry.set()
        return kept

    async def append(self, events: Sequence[OrderEvent]) -> list[Appended]:
        """Take a batch; returns once it is on disk. Errors: Conflict, LedgerFull, LedgerBusy, LedgerBroken."""
        await self._may_write()
        answer: asyncio.Future[list[Appended]] = asyncio.get_running_loop().create_future()
        self.inputs.append(Append(events, answer))
        self._at_once()
        return await answer

    async def _may_write(self) -> None:
        self._refuse_if_down()
        try:
            await self._first_word.heard(self._ports.now_ms(), reachable=self._side.store is not None)
        finally:
            self._refuse_if_down()

    async def admit(self, card: NodeCard, orgs: Sequence[str] | None = None) -> Node:
        """Admit a node; returns once it is on disk. Errors: InvalidInput (taken), LedgerError."""
        self._refuse_if_down()
        answer: asyncio.Future[Node] = asyncio.get_running_loop().create_future()
        self.inputs.ask(Admit(card, orgs, answer))
        self._at_once()
        return await answer

    async def do(self, work: Callable[[HubCore, int], T], *, writes: bool = False) -> T:
        """Have something done in the hub's transaction; returns once it is on disk. `work` refuses before it writes. `writes`: facts of the
        hub's own, which wait for the store's first word as events do."""
        self._refuse_if_down()
        if writes:
            await self._may_write()
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.inputs.ask(Do(work, answer))
        self._at_once()
        return await answer

    def _refuse_if_down(self) -> None:
        if self._stopping or self._core is None:
            raise self._again()

    def _again(self) -> LedgerError:
        """The same error, for another caller."""
        failure = self._failure or LedgerBroken("the hub is shutting down")
        return type(failure)(failure.reason, remedy=failure.remedy or "send it again in a moment")

    @property
    def waiting_for_turn(self) -> int:
        """Nodes with a backlog that send only what is fresh, until it is their turn."""
        return self._core.credit.turns.waiting if self._core is not None else 0

    def touched(self) -> None:
        """Something that `seen` shows has changed outside of the engine (a node came or went, the bus answered)."""
        self._changed = True
        self._wake.set()

    def troubles(self) -> list[str]:
        """Why this hub is not ready; empty when it is."""
        found = []
        if self._core is None:
            found.append(f"the ledger is not open: {self._failure.reason if self._failure else 'starting'}")
        elif self._failure is not None:
            found.append(f"the ledger failed, and no turn has succeeded since: {self._failure.reason}")
        if self._side.store is None:
            found.append(f"the central store is not open: {self._side.error or 'starting'}")
        return found

    def _wake_from_anywhere(self) -> None:
        if self._loop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            self._loop.call_soon_threadsafe(self._wake.set)

    async def _in_worker(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work, *args)

    # ------------------------------------------------------------ below: in the worker

    def _first_open(self) -> HubCore:
        self._core = self._ports.open_core()
        self._side.open()
        self._look()
        return self._core

    def _transaction(self, batch: list[Input]) -> Done:
        """One commit for all that waits, then what follows from it."""
        if self._core is None and not self._reopen():
            return Done(self._failed(batch, self._again()))
        core = self._core
        if core is None or not (batch or self._side.has_word or core.feeds.busy or core.is_due(self._ports.now_ms())):
            return Done([])
        answers: list[tuple[Asked, Any]] = []
        later: list[Input] = []
        at: Input | None = None
        stands = self._side.waits
        try:
            if batch or self._side.has_word:
                core.begin()
                self._fresh.begin()
                self._side.heard(core)
                for n, at in enumerate(batch):
                    self._take(core, at, answers)
                    if (stands or self._side.waits) and isinstance(at, Came):  # for no longer than a frame takes
                        later = batch[n + 1 :]
                        break
                at = None
                core.commit()
                self._fresh.committed(answer for _, answer in answers)
            core.credit.turns.waiting_bytes = self.inputs.bytes
            self._publish(core.effects(self._ports.now_ms()))
        except LedgerError as error:
            self._lose_core(error)
            return Done(self._failed(batch, error))
        # boundary: a bug must not end the hub, nor may one input stop the rest: it is set aside, and the others are taken again
        except Exception as error:
            log.exception("The hub failed on an input; it is set aside")
            self._lose_core(LedgerBroken(f"internal error: {type(error).__name__}"))
            return self._without(at, batch, error)
        self.counts.commits_total += 1
        self._changed = self._committed = True
        self._look_if_due(at_once=any(isinstance(item, Admit | Do) for item in batch))  # who admits a node expects to see it
        return Done(answers, later)

    def _after(self) -> Applied | None:
        """A look at everything when it is time for one (also while the store is given more and more), and the store's part of a turn."""
        self._look_if_due()
        core = self._core
        applied = self._side.turn(core, ahead=not self._look_is_late()) if core is not None else None
        if self._committed and core is self._core and core is not None and (self._side.store is None or core.asked_store):
            # It was written, and read for the store. Commits alone do not show that a ledger works, nor end the back-off.
            self._failure, self._core_wait_ms = None, 0
        self._look_if_due()
        return applied

    def _take(self, core: HubCore, item: Input, answers: list[tuple[Asked, Any]]) -> None:
        now_ms = self._ports.now_ms()
        if isinstance(item, Came):
            if digest(item.payload[:-64]) in self._poison:
                core.refuse(item.node, item.payload, "this hub failed on it; its log says more", now_ms)
                return
            done = core.take_message(item.node, item.payload, now_ms)
            self.counts.frames_total += done is not None
            self.counts.facts_total += self._fresh.came(item.payload, done)
            return
        try:
            if isinstance(item, Append):
                answers.append((item, core.take_events(item.events, now_ms, clock=quality_of(now_ms, self._ports.synchronised()))))
            elif isinstance(item, Admit):
                answers.append((item, core.take_card(item.card, now_ms, item.orgs)))
            else:
                answers.append((item, item.work(core, now_ms)))
        except LedgerFull as error:
            if not core.full:
                raise  # the disk, not the budget: what was written of it is undone with the transaction
            answers.append((item, error))
        except LedgerError:
            raise
        except LongshoreError as error:  # refused before anything was written
            answers.append((item, error))

    def _failed(self, batch: Sequence[Input], error: LedgerError) -> list[tuple[Asked, Any]]:
        return [(item, error) for item in batch if not isinstance(item, Came)]

    def _without(self, culprit: Input | None, batch: list[Input], error: Exception) -> Done:
        if isinstance(culprit, Came):
            if len(self._poison) >= POISON_KEPT:
                self._poison.clear()
            self._poison[digest(culprit.payload[:-64])] = None
        lost = LedgerBroken(f"internal error: {type(error).__name__}")
        if culprit is None:
            return Done(self._failed(batch, lost))
        spared = [item for item in batch if item is not culprit or isinstance(item, Came)]  # a frame comes again to be refused
        return Done(self._failed([culprit], lost), spared)

    def _publish(self, effects: Sequence[Publish]) -> None:
        for effect in effects:
            self._ports.publish(effect.topic, effect.payload)
        self.counts.published_total += len(effects)

    # ------------------------------------------------------------ trouble

    def _lose_core(self, error: LedgerError) -> None:
        """Poisoned: back to what is on disk. At once, and with back-off where it fails again before anything could be committed."""
        log.error("The hub's ledger failed, and is opened again: %s", error)
        self._failure = error
        self._close_core()
        self._side.ask_all()
        self._core_due_ms = self._ports.now_ms() + self._core_wait_ms
        self._core_wait_ms = min(max(2 * self._core_wait_ms, BACKOFF_FIRST_MS), BACKOFF_MOST_MS)
        self._changed = True

    def _reopen(self) -> bool:
        if self._ports.now_ms() < self._core_due_ms:
            return False
        try:
            self._core = self._ports.open_core()
        except LongshoreError as error:
            self._lose_core(error if isinstance(error, LedgerError) else LedgerBroken(error.reason, remedy=error.remedy))
            return False
        self.counts.rebuilt_total += 1
        self._committed = False
        return True

    def _note_change(self) -> None:
        self._changed = True

    def _close_core(self) -> None:
        core, self._core = self._core, None
        if core is not None:
            try:
                core.ledger.db.rollback()
            except LedgerError as error:
                log.warning("rolling back: %s", error)
            core.ledger.db.close()

    def _close(self) -> None:
        self._side.close()
        self._close_core()

    # ------------------------------------------------------------ what others may know

    def _look_is_late(self) -> bool:
        return self._changed and self._ports.now_ms() >= self._look_due_ms + LOOK_LATE_MS

    def _look_if_due(self, *, at_once: bool = False) -> None:
        """Never while the store has facts of which this ledger has not yet been told: they would be counted twice."""
        if not self._changed:
            return
        if not self._side.in_step:
            if at_once and self._core is not None:
                self.seen, self._look_due_ms = look_at_nodes(self._core, self.seen), 0
        elif at_once or self._ports.now_ms() >= self._look_due_ms:
            self._look()

    def _look(self) -> None:
        """Made between two turns, so that ledger and store are seen at one moment. What takes long is made seldom."""
        core, side = self._core, self._side
        if core is not None:
            self.seen, self._look_due_ms = self._lookout.around(core, side.store, self.seen, bool(side.refill))
            self._changed = False
