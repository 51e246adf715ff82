"""The one loop of an edge: it owns the clock, the database connection and the line to the hub, and drives the core.

Everything that comes in (requests, and what the transport's thread hears) waits in bounded queues until the loop comes round. One *turn*
takes what waits, lets the core decide and write it in one transaction, commits (one sync for all), answers, and sends what the core says.
So many writers share a sync, and nobody hears yes before it is on disk.

After a LedgerError nothing in memory is believed: connection and core are thrown away, opened again from disk with back-off, and told
whether the line is up; that with a back-off of its own, as what the hub says may be what the disk does not take. Who waited hears 507 (no
room) or 503 (try again with the same idempotencyKey); nobody has to restart anything.

`start` and `stop` are all it takes; without a transport it is a durable ledger, which is how tests and benchmarks use it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, Final, TypeVar, cast

from edge_agent.core import EdgeCore, EdgeIdentity, EdgeSettings, Effect, Now, Restart
from edge_agent.counts import Bounds, Counts
from edge_agent.link import Link
from edge_agent.patience import Patience
from edge_agent.upkeep import EVERY_S, Upkeep
from edge_agent.waiting import Request, again, explained, settle
from protocols.errors import (
    Conflict,
    InvalidInput,
    LedgerBroken,
    LedgerBusy,
    LedgerError,
    LongshoreError,
    OverBudget,
    TransportError,
)
from protocols.event import OrderEvent
from protocols.kernel_clock import KernelClock
from protocols.ledger import Appended
from protocols.sqlite import Db
from protocols.sync.seal import Sign, Verify
from protocols.telemetry import Reading
from protocols.topics import Channel
from protocols.trace_log import traced
from protocols.transport.longpoll import LongPoll
from protocols.transport.port import Down, Dropped, Event, Message, Published, Transport, Up

log = logging.getLogger(__name__)
T = TypeVar("T")

REOPEN_FIRST_S: Final = 0.05
REOPEN_MOST_S: Final = 5.0
FORGET_EVERY_MS: Final = 86_400_000
LATE_S: Final = 0.001
"""a timer of the loop may come this much early; then the core is not asked for nothing"""

MakeTransport = Callable[[int], Transport]
"""From the epoch that this node writes in (its presence carries it) to a line that is not started yet."""


_KERNEL: Final = KernelClock()


def system_now() -> Now:
    """The machine's clocks."""
    mono = time.monotonic_ns() // 1_000_000
    return Now(time.time_ns() // 1_000_000, mono, _KERNEL.synchronised(mono))


class EdgeRuntime:
    """See the module. All methods are for the thread of the loop that ran `start`; only the transport has a thread of its own."""

    def __init__(
        self,
        ledger: str | Path,
        identity: EdgeIdentity,
        sign: Sign,
        verify: Verify,
        *,
        settings: EdgeSettings | None = None,
        bounds: Bounds | None = None,
        make_transport: MakeTransport | None = None,
        rng: Random | None = None,
        now: Callable[[], Now] = system_now,
        open_db: Callable[[str | Path], Db] = Db,
        upkeep: Upkeep | None = None,
    ) -> None:
        """Touches nothing yet. `rng` draws epochs, nonces and jitter."""
        self.identity, self.settings, self.bounds = identity, settings or EdgeSettings(), bounds or Bounds()
        self.counts = Counts()
        self._ledger, self._sign, self._verify = ledger, sign, verify
        self._make_transport, self._rng, self._now, self._open_db = make_transport, rng or SystemRandom(), now, open_db
        self.upkeep = upkeep or Upkeep(Path(ledger))
        self._tender: asyncio.TimerHandle | None = None
        self._db: Db | None = None
        self._core: EdgeCore | None = None
        self._transport: Transport | None = None
        self._requests: deque[Request] = deque()
        self._waiting_events = 0
        self._heard: deque[Event] = deque()
        self._messages_in = self._messages_out = 0
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._patience, self._quiet = Patience(), None  # type: tuple[Patience, asyncio.TimerHandle | None]
        self._stopping = False
        self._why: LedgerError = LedgerBroken("the ledger is not open")
        self._forget_due_ms = 0
        self.link = Link(lambda: self._stopping)
        self.started_ms, self._started_mono = now()[:2]
        self.mail = LongPoll(self._mail_waits)
        """peers that wait for what the hub says to them"""

    # ------------------------------------------------------------ start and stop

    async def start(self) -> None:
        """Open the ledger and begin to connect. Errors: LedgerError, ConfigError."""
        self._loop = asyncio.get_running_loop()
        self.upkeep.start()
        self._open()
        self._tend()
        if self._make_transport is not None:
            self._transport = self._make_transport(self.core.ledger.own().key.epoch)
            self._transport.start(self._from_transport)
        self._arm()

    async def stop(self) -> None:
        """Answer who waits, say goodbye to the hub, close the ledger. Idempotent."""
        while self._core is not None and self._requests:
            self._turn()
        self._stopping = True
        for timer in (self._timer, self._tender):
            if timer is not None:
                timer.cancel()
        if self._transport is not None:
            await self._stop_transport(self._transport)
        self._fail_waiting(LedgerBusy("this edge is stopping", remedy="send it again once it runs"))
        if self._db is not None:
            self._close(checkpoint=True)

    async def _stop_transport(self, transport: Transport) -> None:
        try:
            await asyncio.to_thread(transport.stop)
        except TransportError as error:
            log.warning("%s", error)

    async def __aenter__(self) -> EdgeRuntime:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _open(self) -> None:
        """Database and core from disk. The epoch is made here, so that whoever says "I am" can say in which."""
        db = self._open_db(self._ledger)
        try:
            core = EdgeCore(db, self.identity, self._sign, self._verify, self._rng, self.settings)
            now = self._now()
            self.upkeep.opened(core)
            core.begin()
            core.ledger.own()
            core.commit()
            if self.connected and not self._patience.wait_s:
                core.take_up(now)
        except LongshoreError:
            db.close()
            raise
        self._db, self._core = db, core
        if self._patience.wait_s:
            self._quiet = self._loop.call_later(self._patience.wait_s, self._speak_again)

    def _speak_again(self) -> None:
        """The ledger failed more than once lately, and has been open for a while now."""
        if self.connected and self._core is not None:
            self._heard.append(Up())
            self._schedule()

    def _close(self, *, checkpoint: bool = False) -> None:
        """Let go of the file. On the way out of trouble nothing that fails here matters: the disk has what was committed."""
        db, self._db, self._core = self._db, None, None
        if db is None:
            return
        try:
            db.rollback()
            if checkpoint:
                db.checkpoint()
        except LedgerError as error:
            log.warning("closing the ledger: %s", error)
        finally:
            db.close()

    # ------------------------------------------------------------ asking

    @property
    def core(self) -> EdgeCore:
        """The core, for reading between turns. Errors: LedgerError while it is being opened again."""
        if self._core is None:
            raise again(self._why)
        return self._core

    @property
    def connected(self) -> bool:
        """Whether the line to the broker is up."""
        return self._transport is not None and self._transport.connected

    def refused_totals(self) -> dict[str, int]:
        """How often the broker refused something, by kind."""
        return dict(self._transport.refused_totals()) if self._transport is not None else {}

    @property
    def waiting(self) -> tuple[int, int]:
        """Requests and events that wait for the disk."""
        return len(self._requests), self._waiting_events

    def _mail_waits(self, node: str) -> bool:
        return self._core is not None and self._core.relay.mailboxes.waits(node)

    def now(self) -> Now:
        """The clocks this edge goes by."""
        return self._now()

    @property
    def floor_ms(self) -> int:
        """What is known to have passed; may be asked from any thread."""
        core = self._core
        return 0 if core is None else core.clock.keeper.floor_ms

    def judging_ms(self) -> int:
        """Against which the times in events are called improbable."""
        now = self._now()
        return now.wall if self._core is None else self._core.clock.judging_ms(now)

    def unready(self) -> list[str]:
        """Why events cannot be taken now; empty when they can."""
        if self._core is None:
            return [self._why.reason]
        return self._core.budget.unready()

    def status(self) -> dict[str, Any]:
        """What `GET /v1/status` shows. Errors: LedgerError."""
        now = self._now()
        requests, events = self.waiting
        own = {
            "uptimeMs": now.mono - self._started_mono,
            "waiting": {"requests": requests, "events": events},
            "ready": not self.unready(),
        }
        status = self.core.status(now) | own
        status["disk"] |= self.upkeep.status()
        status["link"] |= self.link.status(self._transport, status["link"], now.wall)
        return status

    # ------------------------------------------------------------ in

    async def append(self, events: Sequence[OrderEvent]) -> list[Appended]:
        """Say yes to a batch, whole or not at all; returns once it is on disk. The answers are in the order of the events.

        Errors: Conflict; LedgerFull: no room; LedgerBusy: too much waits; LedgerBroken: unknown whether it was stored, so send it again
        with the same idempotency keys.
        """
        return await self._wait(Request(events, self._loop.create_future()))

    async def append_telemetry(self, readings: Sequence[Reading]) -> list[Appended]:
        """The same for readings of devices."""
        return await self._wait(Request(readings, self._loop.create_future(), telemetry=True))

    async def act(self, work: Callable[[EdgeCore, Now], T]) -> T:
        """The same for anything else that writes: `work` is called inside the transaction, and refuses before it writes."""
        return await self._wait(Request((), self._loop.create_future(), work=work))

    async def _wait(self, request: Request) -> Any:
        if self._core is None:
            raise again(self._why)
        events = request.events
        room = self.bounds.waiting_events - self._waiting_events
        if self._stopping or len(self._requests) >= self.bounds.waiting_requests or (len(events) > room and self._requests):
            self.counts.busy_total += 1
            raise LedgerBusy("more waits for the disk here than may", remedy="send it again in a moment")
        self._requests.append(request)
        self._waiting_events += len(events)
        self._schedule()
        return await request.answer

    def _from_transport(self, event: Event) -> None:
        """In the transport's thread. What became of a publish only counts: receipts say what to send again."""
        if isinstance(event, Published):
            self.counts.published_total += 1
        elif isinstance(event, Dropped):
            self.counts.dropped_total += 1
            if event.payload:
                self._bring(event)
        elif isinstance(event, Message) and self._messages_in - self._messages_out >= self.bounds.waiting_messages:
            self.counts.messages_dropped_total += 1  # the hub says it again
        else:
            self._messages_in += isinstance(event, Message)
            self._bring(event)

    def _bring(self, event: Event) -> None:
        try:
            self._loop.call_soon_threadsafe(self._hear, event)
        except RuntimeError:  # the loop has ended: nobody is left to hear
            return

    def _hear(self, event: Event) -> None:
        if isinstance(event, Message):
            self.counts.messages_total += 1
        else:
            self.link.tell(event, self._transport.protocol if self._transport else "")
        self._heard.append(event)
        self._schedule()

    # ------------------------------------------------------------ the turn

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _arm(self) -> None:
        """Wake when the core has something to say by itself."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._core.next_deadline() if self._core is not None and not self._stopping else None
        if due is not None:
            self._timer = self._loop.call_later(max(0.0, (due - self._now().mono) / 1_000) + LATE_S, self._schedule)

    def _turn(self) -> None:
        """Take what waits, commit, answer, send; come again if more waits."""
        self._scheduled = False
        core = self._core
        if core is None:
            self._forget_heard()
            return
        requests = self._next_requests()
        try:
            if requests or self._heard:
                self._transact(core, requests)
            self._perform(core.effects(self._now()))
        except LedgerError as error:
            self._lose(error, requests)
        # boundary: a fault of ours may not leave a transaction open or a caller waiting; the core's memory is not to be trusted after it
        except Exception as error:
            log.exception("the edge failed in its loop")
            self._lose(LedgerBroken(f"something failed inside the edge ({type(error).__name__})"), requests)
        if (self._requests or self._heard) and self._core is not None:
            self._schedule()
        self.mail.ring()
        self._arm()

    def _next_requests(self) -> list[Request]:
        """What fits into one transaction; who has gone away meanwhile is left out."""
        taken: list[Request] = []
        events = 0
        while self._requests and len(taken) < self.bounds.turn_requests:
            if taken and events + len(self._requests[0].events) > self.bounds.turn_events:
                break
            request = self._requests.popleft()
            self._waiting_events -= len(request.events)
            if not request.answer.done():
                events += len(request.events)
                taken.append(request)
        return taken

    def _transact(self, core: EdgeCore, requests: list[Request]) -> None:
        """One transaction for all; each answer is given only once it is on disk."""
        now = self._now()
        core.begin()
        self._forget_requests(core, now)
        while self._heard:
            self._take(core, self._heard.popleft(), now)
        answers = [self._decide(core, request, now) for request in requests]
        began_s = time.perf_counter()
        core.commit()
        self.counts.commits_total += 1
        self.counts.commit_s += time.perf_counter() - began_s
        for request, answer in zip(requests, answers, strict=True):
            self._answer(request, answer)

    def _forget_requests(self, core: EdgeCore, now: Now) -> None:
        """Once a day, by the hub's time: keys of facts that were freed long ago, which nobody repeats any more."""
        hub_ms = core.clock.patient_ms(core.uplink)
        if hub_ms is not None and now.mono >= self._forget_due_ms:
            self._forget_due_ms = now.mono + FORGET_EVERY_MS
            core.ledger.forget_requests(hub_ms)

    def _take(self, core: EdgeCore, event: Event, now: Now) -> None:
        if isinstance(event, Message):
            self._messages_out += 1
            if event.topic in (self.identity.address.topic(Channel.RECEIPT), self.identity.address.topic(Channel.ORDERS)):
                core.take_message(event.payload, now)
        elif isinstance(event, Up):
            core.take_up(now)
        elif isinstance(event, Down):
            core.take_down()
        elif isinstance(event, Dropped):
            core.take_too_large(event.payload, now)

    def _decide(self, core: EdgeCore, request: Request, now: Now) -> Any:
        """What the core says to one request. What it refuses before writing is that request's own; all else ends the transaction."""
        try:
            if request.work is not None:
                return request.work(core, now)
            if request.telemetry:
                return core.take_telemetry(cast("Sequence[Reading]", request.events), now)
            return core.take_events(cast("Sequence[OrderEvent]", request.events), now)
        except (Conflict, InvalidInput, OverBudget) as error:
            return error

    def _answer(self, request: Request, answer: Any) -> None:
        if isinstance(answer, LongshoreError):
            self.counts.refused_total += 1
        elif isinstance(answer, list) and all(isinstance(one, Appended) for one in answer):
            traced("committed", [done for done in answer if not done.repeated])
            repeated = sum(done.repeated for done in answer)
            self.counts.repeated_total += repeated
            if request.telemetry:
                self.counts.readings_total += len(answer) - repeated
            else:
                self.counts.events_total += len(answer) - repeated
        settle(request, answer)

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if self._transport is None:
                return
            try:
                if isinstance(effect, Restart):
                    self.counts.restarts_total += 1
                    log.warning("connected, but nothing moves: building a new connection")
                    self._transport.restart()
                else:
                    self._transport.publish(effect.topic, effect.payload, extra=effect.extra)
            except TransportError as error:  # stopping; what was not sent is sent again after the next start
                log.debug("not sent: %s", error)

    def _tend(self) -> None:
        """Every second: the disk."""
        if self._stopping:
            return
        try:
            if self._core is not None:
                self.upkeep.tend(self._core)
                self._name_refused()
        except LedgerError as error:
            self._lose(error, [])
        self._tender = self._loop.call_later(EVERY_S, self._tend)

    def _name_refused(self) -> None:
        if self._transport is not None and self._core is not None:
            now = self._now()
            silent = {"connected": self.connected, "unanswered": self._core.unanswered(now)}
            self.link.name(self.link.status(self._transport, silent, now.wall)["refusals"])

    # ------------------------------------------------------------ trouble

    def _lose(self, error: LedgerError, requests: list[Request]) -> None:
        """The core is gone. Who was in the transaction hears so at once; who still waits gets a turn if it can be opened at once."""
        self._close()
        self.upkeep.failed(error)
        self._patience.failed(self._now().mono)
        if self._quiet is not None:
            self._quiet.cancel()
        self._why = explained(error)
        log.error("the ledger failed and is opened again: %s", error)
        for request in requests:
            settle(request, again(self._why))
        self._forget_heard()
        self._reopen(REOPEN_FIRST_S)

    def _forget_heard(self) -> None:
        """Without a core nobody hears. The hub says it again; whether the line is up is asked once there is a core."""
        self._messages_out += sum(isinstance(event, Message) for event in self._heard)
        self._heard.clear()

    def _reopen(self, wait_s: float) -> None:
        if self._stopping or self._core is not None:
            return
        try:
            self._open()
        # boundary: as in _turn; a fault of ours while opening must not end the attempts
        except Exception as error:
            log.error("the ledger cannot be opened, next attempt in %.2g s: %s", wait_s, error)
            self._why = explained(error) if isinstance(error, LedgerError) else LedgerBroken(f"the ledger cannot be opened: {error}")
            self._fail_waiting(self._why)
            self._loop.call_later(wait_s, self._reopen, min(REOPEN_MOST_S, wait_s * 2))
            return
        self.counts.reopened_total += 1
        log.info("the ledger is open again")
        self._schedule()

    def _fail_waiting(self, error: LedgerError) -> None:
        while self._requests:
            settle(self._requests.popleft(), again(error))
        self._waiting_events = 0
