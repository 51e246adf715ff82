"""The bridge's end in the hub's event loop: takes batches from the engine, makes records of them, and gives them to the bus.

One batch is written while the next is made ready. A sender that fails in any way is thrown away with all that waits: those batches are
answered as not sent, the engine's end goes on from its cursor, and a new sender is made, with back-off. So the order in which facts of one
stream are first given to the bus is that of the stream, and nothing waits on a producer that is wedged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from hub.bridge_desk import BridgeDesk
from hub.bridge_records import Encoder
from hub.bridging import Batch
from hub.bus import BusError, BusRecord, Sender
from protocols.errors import LongshoreError
from protocols.trace_log import traced

log = logging.getLogger(__name__)
BACKOFF_FIRST_S: Final = 0.25
BACKOFF_MOST_S: Final = 5.0
CHECK_S: Final = 5.0
"""a bus that is sent nothing, or that has not answered, is looked at so often: a hub that cannot bridge says so before there is something
to bridge, and before the time for an answer is over"""


@dataclass(slots=True)
class LineCounts:
    """Totals since the start, of the bus's side."""

    records_total: int = 0
    batches_total: int = 0
    rebuilt_total: int = 0
    errors_total: int = 0
    too_large_total: int = 0


class _Given(NamedTuple):
    generation: int
    batch: Batch


class Bridge:
    """See the module. `make_sender` opens nothing yet; `wake` is called when there is an answer. For the loop's thread but for `offer`."""

    def __init__(self, make_sender: Callable[[], Sender], desk_of: Callable[[Bridge], BridgeDesk], wake: Callable[[], None]) -> None:
        self._make_sender, self._wake = make_sender, wake
        self.desk: BridgeDesk = desk_of(self)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._given: asyncio.Queue[_Given] = asyncio.Queue()
        self._encoder = Encoder()
        self._sender: Sender | None = None
        self.error: str = "connecting"
        """why nothing can be sent; empty while it can"""
        self.counts = LineCounts()
        self._task: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether the bus takes what it is given, as far as is known."""
        return not self.error

    def offer(self, generation: int, batch: Batch) -> None:
        """From the engine's worker: send this."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._given.put_nowait, _Given(generation, batch))

    def start(self) -> None:
        """Begin; returns at once."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run(), name="bridge")

    async def stop(self) -> None:
        """End it; what was not acknowledged is sent after the next start. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._throw_away()

    # ------------------------------------------------------------ below: one task

    async def _run(self) -> None:
        wait_s = BACKOFF_FIRST_S
        while True:
            try:
                await self._connect()
                wait_s = BACKOFF_FIRST_S
                await self._send_all()
            except LongshoreError as error:
                self._failed(error)
            # boundary: a bug in making or sending a record must not end the bridge; it is told, and tried again with back-off
            except Exception as error:
                log.exception("The bridge failed on a batch")
                self._failed(BusError(f"internal error: {type(error).__name__}"))
            await self._throw_away()
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, BACKOFF_MOST_S)

    async def _connect(self) -> None:
        self._sender = self._make_sender()
        await self._sender.start()
        self.counts.rebuilt_total += 1
        if self.error:
            log.info("Kafka takes what it is given")
        self.error = ""
        self._wake()

    async def _send_all(self) -> None:
        """Until it fails. The next batch is made ready in a thread while this one is on its way."""
        ready: asyncio.Task[tuple[_Given, list[BusRecord]]] = asyncio.create_task(self._next())
        try:
            while True:
                await asyncio.wait([ready], timeout=CHECK_S)
                if not ready.done():
                    assert self._sender is not None
                    await self._sender.check()
                    continue
                given, records = ready.result()
                ready = asyncio.create_task(self._next())
                await self._send(given, records)
        finally:
            ready.cancel()
            for one in await asyncio.gather(ready, return_exceptions=True):
                if isinstance(one, tuple):
                    self._answer(one[0], sent=False)

    async def _next(self) -> tuple[_Given, list[BusRecord]]:
        given = await self._given.get()
        records: list[BusRecord] | None = None
        try:
            records = await asyncio.to_thread(_records, self._encoder, given.batch)
        finally:
            if records is None:  # a failure, or the end of this task
                self._answer(given, sent=False)
        return given, records

    async def _send(self, given: _Given, records: list[BusRecord]) -> None:
        assert self._sender is not None
        refused = None
        try:
            refused = await self._sent(self._sender, records)
        finally:
            if refused is None:  # a failure, or the end of this task
                self._answer(given, sent=False)
        for n in refused:
            log.error("Kafka does not take %s: it is too large; raise max.message.bytes of its topic", _name(records[n]))
        traced("bridged", [fact for n, fact in enumerate(given.batch.facts) if n not in refused])
        self.counts.too_large_total += len(refused)
        self.counts.records_total += len(records) - len(refused)
        self.counts.batches_total += 1
        self._answer(given, sent=True)

    async def _sent(self, sender: Sender, records: list[BusRecord]) -> list[int]:
        """As `Sender.send`; a bus that is gone is named as soon as a look tells, long before its time to answer is over."""
        sending = asyncio.create_task(sender.send(records))
        try:
            while not (await asyncio.wait([sending], timeout=CHECK_S))[0]:
                await self._look(sender)
            refused = sending.result()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        if self.error:
            log.info("Kafka takes what it is given")
            self.error = ""
            self._wake()
        return refused

    async def _look(self, sender: Sender) -> None:
        """Only to say so: what is on its way has its own time, and a busy bus may still take it."""
        try:
            await sender.check()
        except LongshoreError as error:
            self._failed(error)

    def _answer(self, given: _Given, *, sent: bool) -> None:
        self.desk.answer(given.generation, given.batch.number, sent=sent)
        self._wake()

    def _failed(self, error: LongshoreError) -> None:
        self.counts.errors_total += 1
        if self.error != str(error):
            log.error("%s", error)
        self.error = str(error)
        self._wake()

    async def _throw_away(self) -> None:
        """Never again this sender, and not what waits for it: the engine's end goes on from its cursor."""
        sender, self._sender = self._sender, None
        if sender is not None:
            await sender.close()
        while not self._given.empty():
            self._answer(self._given.get_nowait(), sent=False)


def _records(encoder: Encoder, batch: Batch) -> list[BusRecord]:
    return [*(encoder.fact(f) for f in batch.facts), *(encoder.record(r) for r in batch.records)]


def _name(record: BusRecord) -> str:
    return next((value.decode(errors="replace") for name, value in record.headers if name == "ce_id"), record.topic)


def troubles(bridge: Bridge | None) -> list[str]:
    """Why a hub with this bridge is not ready; empty when it is."""
    return [] if bridge is None or bridge.up else [f"the bridge to Kafka is down: {bridge.error}"]


def status(bridge: Bridge | None, now_ms: int) -> dict[str, Any] | None:
    """What is shown of a bridge, as JSON; None where there is none. `backlog`: facts that Kafka has not; `unsettled`: facts that Kafka has
    and the central store has not stated."""
    if bridge is None:
        return None
    seen, counts, desk = bridge.desk.seen, bridge.counts, bridge.desk.counts
    return {
        "kind": "kafka",
        "up": bridge.up,
        "error": bridge.error,
        "backlog": seen.backlog,
        "backlogAgeMs": _age(seen.backlog_since_ms, now_ms),
        "unsettled": seen.unsettled,
        "unsettledAgeMs": _age(seen.unsettled_since_ms, now_ms),
        "produced": desk.sent_total,
        "producedAgain": desk.again_total,
        "producers": counts.rebuilt_total,
        "errors": counts.errors_total,
        "tooLarge": counts.too_large_total,
    }


def _age(since_ms: int | None, now_ms: int) -> int:
    return 0 if since_ms is None else max(0, now_ms - since_ms)
