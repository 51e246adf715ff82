"""The embedded broker in a process of its own, for the hub that owns it: the default where a hub may use two cores or more.

One interpreter cannot route what a thousand edges send and decide on it at the same time. The child serves; what it listens on is opened
here, so that a port in use is said at the start as ever, stays the same whatever becomes of the child, and lets clients wait where it is
being replaced. It hears who is admitted and tells its counts over a socket pair, ends when that closes, and is started again when it ends
by itself: edges and the hub's own line reconnect, and nothing is lost, because only the hub's receipts count.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from hub.broker_access import Door
from hub.broker_line import BrokerLine
from hub.broker_port import AtDoorway, BrokerCounts, BrokerSettings, Doorway, open_doorway
from hub.broker_words import ASK, FAILED, GRANTS, HEARD, LOG, REPORT, START, UP, Report, Start, grants_json, pass_on
from hub.child import end_child, start_child
from hub.grants import Changes, Grants
from protocols.errors import ConfigError
from protocols.topics import Rule

log = logging.getLogger("hub.broker")
COMMAND: Final = ("-m", "hub.broker_apart_process")
START_S: Final = 60.0
"""from the start of the process until it listens, on the slowest machine"""
END_S: Final = 5.0
SILENT_S: Final = 60.0
"""a child that says nothing for so long is stuck, and is replaced"""
TOLD_S: Final = 5.0
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MOST_S: Final = 10.0
KILLED_MOST: Final = 5
"""so many in a row, at the start of the hub, are put down to somebody else"""
STABLE_S: Final = 30.0
"""a child that lived so long ended for a new reason"""


class _EndedEarlyError(ConfigError):
    """A process ended before it listened, and did not say why."""


class ApartBroker(AtDoorway):
    """See the module, and `HubBroker`."""

    def __init__(
        self, settings: BrokerSettings, grants: Grants, *, hub_rules: Sequence[Rule] | None = None, holds: Sequence[int] = ()
    ) -> None:
        """Opens nothing yet. `holds`: descriptors that the process inherits, such as the lock of the data directory."""
        self.door = Door()
        self.connections = 0
        self._settings, self._grants, self._holds = settings, grants, holds
        self._hub_rules = None if hub_rules is None else tuple(hub_rules)
        self._doorway: Doorway | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._end_of_line: socket.socket | None = None
        self._line: BrokerLine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._asked: list[asyncio.Future[None]] = []
        self._now, self._before = BrokerCounts(), BrokerCounts()

    @property
    def counts(self) -> BrokerCounts:
        """See the port: those of all processes so far."""
        return self._before.plus(self._now)

    @property
    def pid(self) -> int:
        """Of the process that serves now; 0: none does."""
        return self._process.pid if self._process is not None else 0

    # ------------------------------------------------------------ life

    def prepare(self) -> None:
        """See the port: the process reads its code meanwhile, and who connects waits."""
        self._doorway = open_doorway(self._settings)
        self._spawn(self._doorway)

    async def start(self) -> None:
        """See the port."""
        self._loop = asyncio.get_running_loop()
        try:
            if self._doorway is None:
                self.prepare()
            assert self._doorway is not None
            self._grants.watch(self._changed)
            await self._begin_at_last(self._doorway)
        except ConfigError:
            await self.stop()
            raise
        self._keeper = asyncio.create_task(self._keep(self._doorway), name="broker")

    async def stop(self) -> None:
        """See the port."""
        self._grants.unwatch(self._changed)
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper
        await self._end()
        doorway, self._doorway = self._doorway, None
        if doorway is not None:
            doorway.close()

    def _spawn(self, doorway: Doorway) -> None:
        try:
            self._process, self._end_of_line = start_child(COMMAND, [*(sock.fileno() for sock in doorway.sockets.values()), *self._holds])
        except OSError as error:
            raise ConfigError(f"The process of the embedded broker cannot be started: {error.strerror}.") from error

    async def _begin_at_last(self, doorway: Doorway) -> None:
        """A process that somebody killed before it listened is no reason for the hub to end: another is started. Errors: ConfigError."""
        for _ in range(KILLED_MOST):
            try:
                await self._begin(doorway)
            except _EndedEarlyError:
                process = self._process
                await self._end()
                if process is None or process.returncode >= 0:
                    raise
                log.error("The process of the broker was killed by signal %d before it listened; another is started", -process.returncode)
            else:
                return
        await self._begin(doorway)

    async def _begin(self, doorway: Doorway) -> None:
        """Have a process listen. Errors: ConfigError: it does not."""
        if self._end_of_line is None:
            self._spawn(doorway)
        assert self._end_of_line is not None
        end, self._end_of_line = self._end_of_line, None
        self._line = await BrokerLine.over(end)
        fds = {name: sock.fileno() for name, sock in doorway.sockets.items()}
        level = log.getEffectiveLevel()
        start = Start(self._settings, fds, doorway.secret, self._hub_rules, self._grants.all(), level)
        self._line.say(START, start.as_json())
        with suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                while (said := await self._line.hear()) is not None:
                    word, what = said
                    if word == UP:
                        return
                    if word == FAILED:
                        raise ConfigError(what[0], remedy=what[1])
                    self._take(word, what)
                raise _EndedEarlyError("The process of the embedded broker ended before it listened.", remedy="Its own words stand above.")
        raise ConfigError(f"The process of the embedded broker did not listen within {START_S:.0f} s.", remedy="Start the hub again.")

    async def _keep(self, doorway: Doorway) -> None:
        """Hear the child; when it has ended, start another."""
        wait_s = BACKOFF_FIRST_S
        while True:
            began_s = time.monotonic()
            why = await self._heard_out()
            await self._end()
            wait_s = BACKOFF_FIRST_S if time.monotonic() - began_s >= STABLE_S else wait_s
            log.error("The process of the broker %s, and is started again in %.1f s", why, wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, BACKOFF_MOST_S)
            try:
                await self._begin(doorway)
            except ConfigError as error:
                log.error("%s", error)
            else:
                log.info("The broker is there again, at port %d", self.port)

    async def _heard_out(self) -> str:
        """Take what the child says until its end. Returns why it ended, as part of a sentence."""
        try:
            while self._line is not None:
                async with asyncio.timeout(SILENT_S):  # `wait_for` may lose a cancellation
                    said = await self._line.hear()
                if said is None:
                    break
                self._take(*said)
        except TimeoutError:
            return f"said nothing for {SILENT_S:.0f} s"
        return "has ended"

    async def _end(self) -> None:
        """Nothing is left of the process but what it counted."""
        line, self._line = self._line, None
        if line is not None:
            line.close()
        if self._end_of_line is not None:
            self._end_of_line.close()
            self._end_of_line = None
        if self._process is not None:
            await asyncio.to_thread(end_child, self._process, END_S)
            self._process = None
        self._before, self._now, self.connections = self.counts, BrokerCounts(), 0
        self._nobody_to_ask()

    # ------------------------------------------------------------ what is said

    def _take(self, word: str, what: Any) -> None:
        """A word of the child's."""
        if word == REPORT:
            report = Report.of(what)
            self._now, self.connections = report.counts, report.connections
            pass_on(report.door, self.door)
        elif word == LOG:
            name, level, text = what
            logging.getLogger(name).log(level, "%s", text)
        elif word == HEARD and self._asked:
            answer = self._asked.pop(0)
            if not answer.done():
                answer.set_result(None)

    def _changed(self, changes: Changes) -> None:
        """From any thread."""
        told = grants_json(changes)
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended: nobody is let in any more
                self._loop.call_soon_threadsafe(self._say, GRANTS, told)

    def _say(self, word: str, what: object) -> None:
        if self._line is not None:
            self._line.say(word, what)

    async def told(self) -> None:
        """See the port. A child that is away is told everything when it comes."""
        if self._line is None:
            return
        answer = asyncio.get_running_loop().create_future()
        await asyncio.sleep(0)  # what was changed before this is said before it
        self._asked.append(answer)
        self._say(ASK, None)
        with suppress(TimeoutError):
            async with asyncio.timeout(TOLD_S):
                await answer

    def _nobody_to_ask(self) -> None:
        asked, self._asked = self._asked, []
        for answer in asked:
            if not answer.done():
                answer.set_result(None)
