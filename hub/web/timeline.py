"""Words and marks of an order's page: lag, promise, milestones. Pure; times in ms since 1970 UTC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hub import words
from hub.store.port import EventView, OrderView
from protocols.event import TimeQuality
from protocols.lifecycle import PATH, ROWS, Policy, Status


def policy_class(status: str) -> str:
    """`moving`, `stopped`, `called-off` or `done`: colour and shape of a status chip."""
    return ROWS[Status[status]].policy.name.lower().replace("_", "-") if status in Status.__members__ else Policy.STOPPED.name.lower()


def lag_words(event: EventView) -> list[str]:
    """How late a fact was written down, and how late it came here; only what is worth saying."""
    out = []
    if event.happened_ms is not None and event.quality == TimeQuality.STATED:
        late = event.recorded_ms - event.happened_ms
        if late >= words.MINUTE_MS:
            out.append(f"written down {words.duration(late)} after it happened")
        elif late <= -words.MINUTE_MS:
            out.append(f"said to happen {words.duration(late)} after it was written down")
    if event.about_ms is not None:
        return [f"recorded about {words.moment(event.about_ms)}: its node's clock was wrong, and said {words.moment(event.recorded_ms)}"]
    way = event.received_ms - event.recorded_ms
    if way >= 0:
        out.append(f"here {words.duration(way)} later" if way >= words.SECOND_MS else "here within a second")
    else:
        out.append(f"the node's clock was {words.duration(way)} ahead of the hub's")
    return out


def promise_words(view: OrderView, events: Sequence[EventView], now_ms: int) -> tuple[str, str]:
    """(tone, words) of promise against what happened: tone is `good`, `late`, `open` or `none`."""
    if view.expected_ms is None:
        return "none", "no promise known"
    delivered = next((e.happened_ms for e in reversed(events) if e.status == "DELIVERED" and e.happened_ms is not None), None)
    if delivered is not None:
        gap = delivered - view.expected_ms
        if abs(gap) < words.HOUR_MS:
            return "good", "delivered on time"
        return ("late", f"delivered {words.duration(gap)} late") if gap > 0 else ("good", f"delivered {words.duration(gap)} early")
    if view.status in ("CANCELLED", "RETURNED", "REFUNDED"):
        return "none", "the order ended without a delivery"
    left = view.expected_ms - now_ms
    return ("open", f"due in {words.duration(left)}") if left >= 0 else ("late", f"overdue by {words.duration(left)}")


def milestones(view: OrderView, events: Sequence[EventView]) -> list[dict[str, Any]]:
    """The nine steps of the path: `reached` (somebody said so), `skipped` (a later one was reached) or `ahead`; which one is furthest,
    and which is shown now."""
    said = {event.status for event in events}
    reached = [status.name in said for status in PATH]
    furthest = max((n for n, yes in enumerate(reached) if yes), default=-1)
    states = ["reached" if yes else "skipped" if n < furthest else "ahead" for n, yes in enumerate(reached)]
    return [
        {
            "name": status.name,
            "words": words.status_words(status.name),
            "state": states[n],
            "now": status.name == view.status,
            "furthest": n == furthest,
        }
        for n, status in enumerate(PATH)
    ]
