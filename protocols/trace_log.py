"""One line in the log per fact and step of its way, with the trace id that every place computes for it (`protocols.trace`).

The steps: `committed` at its author, `received` at the hub, `bridged` to a bus, `applied` to the central store. Off unless switched on: a
line costs more than applying a fact does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final, Protocol

from protocols.ledger import fact_id
from protocols.streams import StreamKey
from protocols.trace import trace_id

LOGGER: Final = "longshore.trace"
log = logging.getLogger(LOGGER)
log.setLevel(logging.WARNING)


class Named(Protocol):
    """Whatever says which fact it is about."""

    @property
    def stream(self) -> StreamKey:
        """Whose stream."""

    @property
    def seq(self) -> int:
        """The fact's number in it."""

    @property
    def h(self) -> bytes:
        """The chain hash at it, 8 bytes."""


def switch(on: bool) -> None:
    """From now on facts are traced, or not."""
    log.setLevel(logging.INFO if on else logging.WARNING)


def tracing() -> bool:
    """Whether `traced` says anything."""
    return log.isEnabledFor(logging.INFO)


def traced(step: str, facts: Iterable[Named]) -> None:
    """These facts took this step, durably."""
    if not tracing():
        return
    for fact in facts:
        told = fact_id(fact.stream, fact.seq, fact.h)
        said = {"step": step, "factId": told, "traceId": trace_id(fact.stream.node, fact.stream.epoch, fact.seq, fact.h)}
        log.info("%s %s", step, told, extra={"said": said})


def said_of(record: logging.LogRecord) -> dict[str, str]:
    """What a line of JSON has beside the message."""
    said = getattr(record, "said", None)
    return dict(said) if isinstance(said, dict) else {}
