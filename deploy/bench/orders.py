"""Real orders as the load of every benchmark: the shipped sample, over and over under new order numbers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import count
from typing import Any

from models import samples
from models.importers.report import Report
from models.importers.scms import play_order, read_events
from protocols.event import EventDefaults, OrderEvent, parse_event

DEFAULTS = EventDefaults(org="scms", region="Africa", site="Accra")


@cache
def sample() -> tuple[dict[str, Any], ...]:
    """The sample's events as JSON objects, in the order in which they became known; without idempotency keys."""
    with samples.open_scms() as f:
        return tuple({k: v for k, v in t.event.items() if k != "idempotencyKey"} for t in play_order(read_events(f, Report())))


def objects(events: int) -> Iterator[dict[str, Any]]:
    """That many events; each pass over the sample has order numbers of its own."""
    done = 0
    for lap in count():
        for event in sample():
            if done == events:
                return
            done += 1
            yield event if lap == 0 else {**event, "orderId": f"{event['orderId']}-{lap}"}


def events(wanted: int, now_ms: int) -> Iterator[OrderEvent]:
    """The same, parsed."""
    for obj in objects(wanted):
        yield parse_event(obj, defaults=DEFAULTS, now_ms=now_ms)
