"""The timeline of an order as it is shown: in causal order, and beside what a node's clock said, when it about was. Pure.

What a node says of its clock (`protocols.clocked`) corrects facts that it recorded before the hub confirmed it. A fact is never rewritten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hub.store.port import EventView
from protocols.clock import Shift
from protocols.timeline import Step, causal_order

Shifts = Mapping[str, Sequence[Shift]]
"""by node, the newest last"""


def as_shown(events: Sequence[EventView], shifts: Shifts) -> list[EventView]:
    """The facts of one order in the order in which they are shown, with `about_ms` where their clock is known to have been wrong."""
    told = [_about(event, shifts) for event in events]
    steps = [Step(e.node, *(e.place or (e.epoch, e.seq)), e.context, e.about_ms if e.about_ms is not None else e.recorded_ms) for e in told]
    return [told[i] for i in causal_order(steps)]


def _about(event: EventView, shifts: Shifts) -> EventView:
    for shift in reversed(shifts.get(event.node, ())):
        if shift.epoch == event.epoch and not shift.cls and shift.first <= event.seq <= shift.last:
            return replace(event, about_ms=min(event.recorded_ms + shift.ms, event.received_ms))
    return event
