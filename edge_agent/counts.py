"""What an edge is bounded by in its loop, and what it counts there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may wait, and how much of it one transaction takes."""

    waiting_requests: int = 1_024
    waiting_events: int = 20_000
    waiting_messages: int = 256
    turn_requests: int = 256
    turn_events: int = 2_000


@dataclass(slots=True)
class Counts:
    """Totals since the start, for metrics."""

    events_total: int = 0
    readings_total: int = 0
    repeated_total: int = 0
    refused_total: int = 0
    busy_total: int = 0
    commits_total: int = 0
    commit_s: float = 0.0
    reopened_total: int = 0
    published_total: int = 0
    dropped_total: int = 0
    messages_total: int = 0
    messages_dropped_total: int = 0
    restarts_total: int = 0
