"""The process behind `hub.broker_apart`: `python -m hub.broker_apart_process FD` is one embedded broker, and its owner is at FD.

It ends when the line closes, at once: nothing in a broker is worth a farewell, and the next hub waits for its port. Whatever it has to
say (counts, who came to the door, lines for the log) goes over the line; where the owner does not read, less is said.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from hub import loop
from hub.broker import EmbeddedBroker
from hub.broker_line import BrokerLine
from hub.broker_port import Doorway
from hub.broker_words import ASK, FAILED, GRANTS, HEARD, LOG, REPORT, UP, NewsDoor, Report, Start, grants_of
from hub.child import leave_signals_to_owner
from hub.grants import take
from protocols.errors import LongshoreError

REPORT_S: Final = 0.1
SIGN_OF_LIFE_S: Final = 5.0
"""so often it reports though nothing happened"""
UNSENT_MOST: Final = 1_000_000
"""bytes that an owner may be behind before it hears less"""


class _LogLine(logging.Handler):
    """To the owner's log, in the owner's format."""

    def __init__(self, line: BrokerLine) -> None:
        super().__init__()
        self._line = line
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if self._line.unsent < UNSENT_MOST:
            self._line.say(LOG, [record.name, record.levelno, self.format(record)])


class _Reports:
    """Tells what has changed."""

    def __init__(self, line: BrokerLine, broker: EmbeddedBroker, door: NewsDoor) -> None:
        self._line, self._broker, self._door = line, broker, door
        self._last: Report | None = None
        self._said_s = 0.0

    def say(self) -> None:
        """If there is something new, or it has been silent for long."""
        now_s = asyncio.get_running_loop().time()
        if self._line.unsent >= UNSENT_MOST:
            return
        report = Report(replace(self._broker.counts), self._broker.connections, self._door.take())
        if report != self._last or report.door or now_s - self._said_s >= SIGN_OF_LIFE_S:
            self._line.say(REPORT, report.as_json())
            self._last, self._said_s = report, now_s

    async def run(self) -> None:
        """Again and again."""
        while True:
            self.say()
            await asyncio.sleep(REPORT_S)


async def _live(line: BrokerLine) -> None:
    first = await line.hear()
    if first is None:
        return
    start = Start.of(first[1])
    logging.basicConfig(level=start.log_level, handlers=[_LogLine(line)], force=True)
    doorway = Doorway({name: socket.socket(fileno=fd) for name, fd in start.sockets.items()}, start.secret)
    grants, door = dict(start.grants), NewsDoor()
    broker = EmbeddedBroker(start.settings, grants.get, hub_rules=start.hub_rules, door=door, doorway=doorway)
    try:
        await broker.start()
    except LongshoreError as error:
        line.say(FAILED, [error.reason, error.remedy])
        return
    line.say(UP, None)
    reports = _Reports(line, broker, door)
    reporting = asyncio.create_task(reports.run())
    while (said := await line.hear()) is not None:
        word, what = said
        if word == GRANTS:
            take(grants, grants_of(what))
        elif word == ASK:
            reports.say()
            line.say(HEARD, what)
    reporting.cancel()


async def _main(end: socket.socket) -> None:
    line = await BrokerLine.over(end)
    try:
        await _live(line)
    except Exception:  # boundary: between two processes; the owner logs it and starts another one
        logging.getLogger("hub.broker").exception("A bug in the process of the broker")
    await line.finish()
    os._exit(0)  # see the module; what waits for threads and clients would keep the port


def main(argv: Sequence[str]) -> int:
    """`FD`: the line to the owner."""
    leave_signals_to_owner()
    loop.run(_main(socket.socket(fileno=int(argv[0]))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
