"""A projector as it runs: a member of the group that reads the bus, one worker thread that applies to the central store.

Nothing is kept here: where reading goes on stands in the store. So whatever goes wrong ends the same way: the reader is closed and another
one joins, with back-off, and claims what the group gives it. Only what somebody must change (credentials, a missing topic, a setting) ends
the process, with one line.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from hub.bus import BusError, Place, Reader, Sender, Taken
from hub.projector import Projector, UnforeseenError
from hub.store.port import WORD_MS, Applied
from protocols.errors import ConfigError, LongshoreError

T = TypeVar("T")
log = logging.getLogger(__name__)
POLL_MS: Final = 500
BACKOFF_FIRST_S: Final = 0.25
BACKOFF_MOST_S: Final = 5.0
WORD_S: Final = WORD_MS / 1_000
GATHER_S: Final = 0.02
GATHER_RECORDS: Final = 500
LOGGED: Final = 5
"""dead letters of one batch that are named in the log"""


class Projection:
    """See the module. `make_reader` and `make_sender` (of dead letters) open nothing yet; `progressed` is told of each batch."""

    def __init__(
        self,
        projector: Projector,
        make_reader: Callable[[], Reader],
        make_sender: Callable[[], Sender],
        progressed: Callable[[Applied], None] = lambda _: None,
    ) -> None:
        self._projector, self._make_reader, self._make_sender, self._progressed = projector, make_reader, make_sender, progressed
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="projector")
        self._reader: Reader | None = None
        self._sender: Sender | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._turn = 0
        """counts assignments: what was read before one is not applied after it"""
        self._lost: LongshoreError | None = None
        """why the claim of an assignment failed, told to the loop"""
        self.error = "joining"
        """why nothing is applied; empty while all is well"""
        self.rejoined_total = 0
        self.turns_total = 0
        """goes up as long as this projector is alive, whatever it waits for"""

    # ------------------------------------------------------------ asking

    @property
    def counts(self) -> Any:
        """See `ProjectorCounts`."""
        return self._projector.counts

    def places(self) -> list[Place]:
        """The partitions that this projector has."""
        return self._reader.places() if self._reader is not None else []

    def lag(self) -> dict[Place, int]:
        """Records of them that are not read yet, as far as it is known."""
        return self._reader.lag() if self._reader is not None else {}

    # ------------------------------------------------------------ running

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Errors: BusRefused, ConfigError: somebody must change something."""
        stopping = asyncio.create_task(stop.wait())
        try:
            wait_s = BACKOFF_FIRST_S
            while not stop.is_set():
                applied = self._projector.counts.batches_total
                self.turns_total += 1
                await self._once(stopping)
                if stop.is_set():
                    return
                wait_s = BACKOFF_FIRST_S if self._projector.counts.batches_total > applied else min(2 * wait_s, BACKOFF_MOST_S)
                await asyncio.wait([stopping], timeout=wait_s)
        finally:
            stopping.cancel()
            await self._leave()
            await self._in_worker(self._projector.close)
            self._worker.shutdown()

    async def _once(self, stopping: asyncio.Task[Any]) -> None:
        """As one member of the group, until something goes wrong."""
        member = asyncio.create_task(self._member(), name="member")
        await asyncio.wait([member, stopping], return_when=asyncio.FIRST_COMPLETED)
        member.cancel()
        try:
            await member
        except asyncio.CancelledError:
            return
        except ConfigError:  # BusRefused, too: it goes on until somebody changes something
            raise
        except LongshoreError as error:
            self._failed(error)
        # boundary: a bug must not end a projector that could go on with the next batch; it is told, and the group is joined again
        except Exception as error:
            log.exception("The projector failed")
            self._failed(BusError(f"internal error: {type(error).__name__}"))
        finally:
            await self._leave()

    def _failed(self, error: LongshoreError) -> None:
        self.rejoined_total += 1
        if self.error != str(error):
            log.error("%s", error)
        self.error = str(error)

    async def _leave(self) -> None:
        self._idle.set()
        for one in (self._reader, self._sender):
            if one is not None:
                await one.close()
        self._reader = self._sender = None

    async def _member(self) -> None:
        await self._in_worker(self._projector.opened)
        self._reader, self._lost = self._make_reader(), None
        await self._reader.start(self._assigned, self._revoked)
        word_s = asyncio.get_running_loop().time() + WORD_S
        while True:
            turn = self._turn
            self.turns_total += 1
            polled = await self._reader.poll(POLL_MS)
            if self._lost is not None:
                raise self._lost
            if turn != self._turn:  # nobody can tell which of it was read before: from where the store stands, once more
                await self._reader.seek(await self._in_worker(self._projector.positions))
                continue
            if not polled:
                self._note_well()
                if asyncio.get_running_loop().time() >= word_s:  # else the next record would be the first to miss it
                    await self._in_worker(self._projector.still_there)
                    word_s = asyncio.get_running_loop().time() + WORD_S
                continue
            self._idle.clear()
            now_s = asyncio.get_running_loop().time
            began_s, count = now_s(), sum(map(len, polled.values()))
            try:
                self._progressed(await self._take(polled))
            finally:
                self._idle.set()
            word_s = now_s() + WORD_S
            self._note_well()
            if count < GATHER_RECORDS:  # after little, what follows within a moment is taken together: a transaction costs as much as it
                await asyncio.sleep(max(0.0, GATHER_S - (now_s() - began_s)))

    def _note_well(self) -> None:
        if self.error and self.places():
            log.info("projecting %d partitions", len(self.places()))
            self.error = ""

    # ------------------------------------------------------------ partitions come and go

    async def _assigned(self, places: Sequence[Place]) -> Mapping[Place, int | None]:
        """Claim them. A claim that fails is told to the loop: the library would only log it."""
        self._turn += 1
        try:
            return await self._in_worker(self._projector.claim, places)
        except LongshoreError as error:
            self._lost = error
            return {}

    async def _revoked(self) -> None:
        """The batch at hand is applied first: it would only be fenced later."""
        await self._idle.wait()
        self._turn += 1
        await self._in_worker(self._projector.release)

    # ------------------------------------------------------------ batches

    async def _take(self, polled: Mapping[Place, list[Taken]]) -> Applied:
        work = await self._in_worker(self._projector.read, polled)
        if work.dead:
            await self._bury(work.dead)
        try:
            return await self._in_worker(self._projector.apply, work)
        except UnforeseenError:
            return await self._apart(polled)

    async def _apart(self, polled: Mapping[Place, list[Taken]]) -> Applied:
        """One by one, and those on which the store fails become dead letters; then reading goes on from where the store stands."""
        dead = await self._in_worker(self._projector.apart, polled)
        if dead:
            await self._bury(dead)
            await self._in_worker(self._projector.skip, [one for one, _ in dead])
        assert self._reader is not None
        await self._reader.seek(await self._in_worker(self._projector.positions))
        return Applied(0, 0)

    async def _bury(self, dead: Sequence[tuple[Taken, str]]) -> None:
        """Acknowledged before the offsets move past them."""
        if self._sender is None:
            self._sender = self._make_sender()
            await self._sender.start()
        letters = self._projector.bury(dead)
        for n in await self._sender.send(letters):
            log.error("%s: it is too large for a dead letter; it stays where it lies: %s", _at(dead[n][0]), dead[n][1])
        for one, why in dead[:LOGGED]:
            log.warning("%s cannot be taken and is a dead letter now: %s", _at(one), why)

    async def _in_worker(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work, *args)


def _at(one: Taken) -> str:
    return f"{one.place.topic}/{one.place.partition}@{one.offset}"
