"""Those who wait for the ledger: what they asked for, and what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.core import EdgeCore, Now
from protocols.errors import LedgerBroken, LedgerError, LedgerFull, LongshoreError
from protocols.event import OrderEvent
from protocols.telemetry import Reading


@dataclass(slots=True)
class Request:
    """What somebody asks the ledger for, and waits for."""

    events: Sequence[OrderEvent] | Sequence[Reading]
    answer: asyncio.Future[Any]
    telemetry: bool = False
    """readings of devices, not events of orders"""
    work: Callable[[EdgeCore, Now], Any] | None = None
    """anything else that writes"""


def settle(request: Request, answer: Any) -> None:
    """Tell the caller, unless it has gone away."""
    if request.answer.done():
        return
    if isinstance(answer, LongshoreError):
        request.answer.set_exception(answer)
    else:
        request.answer.set_result(answer)


def again(error: LedgerError) -> LedgerError:
    """The same error for another caller: one object raised in many tasks would collect all their tracebacks."""
    return type(error)(error.reason, remedy=error.remedy)


def explained(error: LedgerError) -> LedgerError:
    """What a caller hears: what to do, which after a failed commit is to ask again."""
    if isinstance(error, LedgerFull):
        return LedgerFull(error.reason, remedy=error.remedy or "free disk space; nothing of this request was stored")
    return LedgerBroken(
        "the ledger failed while this was being stored, and is opened again",
        remedy="send it again with the same idempotencyKey; without a key, look first whether it was stored",
    )
