"""What the broker's library has to say, in lines that an operator can read."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from hub.broker_access import Seldom

log = logging.getLogger("hub.broker")


class _Relay(logging.Handler):
    """Passes the library's warnings on as one line each, seldom, and without its tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._seldom = Seldom()

    def emit(self, record: logging.LogRecord) -> None:
        if self._seldom.ask(f"{record.name}:{record.lineno}") is not None:
            log.info("amqtt: %.300s", record.getMessage())


@contextmanager
def library_quiet() -> Iterator[None]:
    """amqtt logs each packet, and a traceback for each client that goes away. While a broker runs, its loggers speak through a relay."""
    loggers, relay = [logging.getLogger(name) for name in ("amqtt", "transitions")], _Relay()
    for logger in loggers:
        logger.addHandler(relay)
        logger.propagate = False
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(relay)
            if not any(isinstance(handler, _Relay) for handler in logger.handlers):
                logger.propagate = True
                logger.setLevel(logging.NOTSET)
