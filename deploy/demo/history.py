"""The orders that are played: who captures which, in the order in which they became known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from models import samples
from models.importers.report import Report
from models.importers.scms import TimedEvent, play_order, read_events

EDGES = (
    (
        "accra", "Africa", "Accra",
        ("Nigeria", "Côte d'Ivoire", "Ghana", "Senegal", "Cameroon", "Mali", "Benin", "Togo", "Guinea", "Liberia", "Sierra Leone", "Haiti",
         "Guyana", "Dominican Republic", "Guatemala", "Belize"),
    ),
    (
        "johannesburg", "Africa", "Johannesburg",
        ("South Africa", "Zambia", "Zimbabwe", "Mozambique", "Namibia", "Botswana", "Lesotho", "Swaziland", "Malawi", "Angola"),
    ),
    ("nairobi", "Africa", "Nairobi", ()),
)  # fmt: skip
"""(node, region, site, countries); the last one captures all others"""


@dataclass(slots=True)
class Day:
    """What one edge captures on one day of the history."""

    known_ms: int
    node: str
    events: list[dict[str, Any]]


@dataclass(slots=True)
class History:
    """The whole play: days in order, how many events, and what the importer said of the file."""

    days: list[Day]
    events: int
    report: Report
    disputed: dict[str, Any] = field(default_factory=dict)
    """the order that is cancelled at the centre while the dock ships it: its PLACED event"""


def load(records: Path | None, disputed_at: str) -> History:
    """Read the shipped sample, or the user's own export. Errors: InvalidInput, OSError."""
    report = Report()
    if records is None:
        with samples.open_scms() as f:
            timed = play_order(read_events(f, report))
    else:
        with records.open("rb") as f:
            timed = play_order(read_events(f, report, name=str(records)))
    placed = _disputed(timed, disputed_at)
    kept = [t for t in timed if placed is None or t.event["orderId"] != placed["orderId"] or t.event is placed]
    days = [Day(known, node, events) for known, group in groupby(kept, key=lambda t: t.known_ms) for node, events in _by_edge(group)]
    return History(days, len(kept), report, placed or {})


def _by_edge(group: Iterator[TimedEvent]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    by_node: dict[str, list[dict[str, Any]]] = {}
    for t in group:
        by_node.setdefault(edge_of(t.event), []).append(t.event)
    yield from by_node.items()


def edge_of(event: dict[str, Any]) -> str:
    """Which edge captures this event: by the country it goes to."""
    country = event.get("details", {}).get("country")
    return next((node for node, _, _, countries in EDGES if country in countries), EDGES[-1][0])


def _disputed(timed: list[TimedEvent], node: str) -> dict[str, Any] | None:
    """An order placed in the first third of the play, at the edge that will be cut off; its real delivery is left out for the conflict."""
    first = timed[: len(timed) // 3]
    return next((t.event for t in reversed(first) if t.event["status"] == "PLACED" and edge_of(t.event) == node), None)
