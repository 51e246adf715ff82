"""What an edge counts, in Prometheus' text format. Every metric is a row of a table; none has an order or a device as a label."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from edge_agent.runtime import EdgeRuntime
from protocols.errors import LedgerError
from protocols.eviction import REASONS
from protocols.fact import Clock
from protocols.policy import Outcome
from protocols.transport.refusals import Refusal

Status = dict[str, Any]
CLOCKS: Final = tuple(clock.name.lower() for clock in Clock)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name says the unit. `value` is asked with the runtime and its status, and may answer None: not known now."""

    name: str
    kind: str
    help: str
    value: Callable[[EdgeRuntime, Status], float | None]


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1_000


def _memory_bytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1_024)


def _evicted(why: str) -> Metric:
    return Metric(
        f"longshore_ledger_evicted_{why}_events_total",
        "counter",
        f"Telemetry let go as signed records: {_WHY[why]}.",
        lambda r, s: s["disk"]["evicted"][why],
    )


def _refused(kind: Refusal) -> Metric:
    word = kind.value.replace("-", "_")
    return Metric(
        f"longshore_link_broker_refused_{word}_total",
        "counter",
        f"What the broker refused, by its kind: {kind.value}.",
        lambda r, _: r.refused_totals().get(kind.value, 0),
    )


_WHY: Final = {
    "settled": "the central store had it",
    "superseded": "a later reading of the device was there",
    "oldest": "it was the oldest",
}


def _open(runtime: EdgeRuntime, least: int) -> float:
    row = runtime.core.ledger.db.one("SELECT count(*) FROM clashes WHERE state = 0 AND outcome >= ?", (int(least),))
    return float(row[0]) if row else 0.0


def _freed(s: Status) -> float:
    return float(sum(stream["freed"] for stream in s["streams"]))


ALWAYS: Final = (
    Metric("longshore_edge_ready", "gauge", "1 when events can be taken.", lambda r, s: float(not r.unready())),
    Metric("longshore_edge_start_time_seconds", "gauge", "When this process began, since 1970.", lambda r, s: r.started_ms / 1_000),
    Metric("longshore_edge_memory_bytes", "gauge", "The most memory this process has had.", lambda r, s: _memory_bytes()),
    Metric("longshore_edge_events_total", "counter", "Events said yes to since the start.", lambda r, s: r.counts.events_total),
    Metric("longshore_edge_readings_total", "counter", "Readings of devices said yes to.", lambda r, s: r.counts.readings_total),
    Metric(
        "longshore_edge_events_repeated_total", "counter", "Events that had been answered before.", lambda r, s: r.counts.repeated_total
    ),
    Metric(
        "longshore_edge_requests_refused_total",
        "counter",
        "Requests that contradicted an earlier one, or found no room.",
        lambda r, s: r.counts.refused_total,
    ),
    Metric(
        "longshore_edge_requests_busy_total", "counter", "Requests turned away because too many waited.", lambda r, s: r.counts.busy_total
    ),
    Metric("longshore_edge_requests_waiting", "gauge", "Requests that wait for the disk.", lambda r, s: r.waiting[0]),
    Metric("longshore_ledger_commits_total", "counter", "Transactions on disk.", lambda r, s: r.counts.commits_total),
    Metric("longshore_ledger_commit_seconds_total", "counter", "Time spent in them.", lambda r, s: round(r.counts.commit_s, 6)),
    Metric(
        "longshore_ledger_reopened_total", "counter", "Times the ledger failed and was opened again.", lambda r, s: r.counts.reopened_total
    ),
    Metric("longshore_link_connected", "gauge", "1 while the line to the broker is up.", lambda r, s: float(r.connected)),
    Metric(
        "longshore_link_restarts_total", "counter", "Connections built anew because nothing moved.", lambda r, s: r.counts.restarts_total
    ),
    Metric("longshore_link_published_total", "counter", "Messages the broker took.", lambda r, s: r.counts.published_total),
    Metric(
        "longshore_link_dropped_total",
        "counter",
        "Messages whose fate is unknown; they are sent again.",
        lambda r, s: r.counts.dropped_total,
    ),
    Metric("longshore_link_messages_total", "counter", "Messages from the hub.", lambda r, s: r.counts.messages_total),
    Metric(
        "longshore_link_messages_dropped_total",
        "counter",
        "Messages from the hub for which there was no room.",
        lambda r, s: r.counts.messages_dropped_total,
    ),
)

OPEN: Final = (
    Metric("longshore_custody_events", "gauge", "Facts of others kept here and not settled.", lambda r, s: s["custody"]["events"]),
    Metric("longshore_custody_bytes", "gauge", "Bytes kept for others, settled ones included.", lambda r, s: s["custody"]["keptBytes"]),
    Metric(
        "longshore_custody_oldest_age_seconds",
        "gauge",
        "Age of the oldest of them.",
        lambda r, s: _seconds(s["custody"]["oldestAgeMs"]) or 0.0,
    ),
    Metric("longshore_custody_peers", "gauge", "Nodes whose frames this edge carries.", lambda r, s: s["custody"]["peers"]),
    Metric("longshore_queue_events", "gauge", "Facts that the central store has not settled.", lambda r, s: s["queue"]["events"]),
    Metric("longshore_queue_bytes", "gauge", "Their bytes.", lambda r, s: s["queue"]["bytes"]),
    Metric(
        "longshore_queue_oldest_age_seconds", "gauge", "Age of the oldest of them.", lambda r, s: _seconds(s["queue"]["oldestAgeMs"]) or 0.0
    ),
    Metric(
        "longshore_queue_not_received_events", "gauge", "Facts that the hub is not known to hold.", lambda r, s: s["queue"]["notReceived"]
    ),
    Metric("longshore_conflicts_open", "gauge", "Open conflicts of orders known here.", lambda r, s: _open(r, 0)),
    Metric("longshore_conflicts_held", "gauge", "Those of them that hold their order.", lambda r, s: _open(r, Outcome.HOLD)),
    Metric("longshore_queue_quarantined_events", "gauge", "Facts that stepped aside.", lambda r, s: s["queue"]["quarantined"]),
    Metric(
        "longshore_captured_events_total",
        "counter",
        "Facts of this ledger since its beginning.",
        lambda r, s: sum(stream["captured"] for stream in s["streams"]),
    ),
    Metric(
        "longshore_settled_events_total",
        "counter",
        "Facts the central store said it holds.",
        lambda r, s: sum(stream["settled"] for stream in s["streams"]),
    ),
    Metric("longshore_link_answered", "gauge", "1 while the hub has answered on this line.", lambda r, s: float(s["link"]["answered"])),
    Metric("longshore_link_refused_total", "counter", "Frames the hub refused.", lambda r, s: s["link"]["refused"]),
    Metric("longshore_link_damaged_total", "counter", "Messages that were not the hub's, or damaged.", lambda r, s: s["link"]["damaged"]),
    Metric("longshore_link_silence_seconds", "gauge", "Since the hub was last heard.", lambda r, s: _seconds(s["link"]["lastHeardAgoMs"])),
    Metric(
        "longshore_clock_skew_seconds", "gauge", "How far this clock is ahead of the hub's.", lambda r, s: _seconds(s["clock"]["skewMs"])
    ),
    Metric(
        "longshore_clock_quality",
        "gauge",
        "0 not set, 1 not confirmed, 2 synchronised, 3 confirmed by the hub.",
        lambda r, s: float(CLOCKS.index(s["clock"]["quality"])),
    ),
    Metric("longshore_ledger_size_bytes", "gauge", "Size of the ledger.", lambda r, s: s["disk"]["ledgerBytes"]),
    Metric("longshore_ledger_budget_bytes", "gauge", "Room it may take.", lambda r, s: s["disk"]["budgetBytes"]),
    Metric("longshore_ledger_full", "gauge", "1 while facts of orders find no room.", lambda r, s: float(s["disk"]["full"])),
    Metric("longshore_ledger_disk_full", "gauge", "1 while the disk itself has no room.", lambda r, s: float(s["disk"]["diskFull"])),
    Metric("longshore_ledger_disk_free_bytes", "gauge", "What is free on its disk.", lambda r, s: s["disk"]["freeBytes"]),
    Metric("longshore_ledger_ballast_bytes", "gauge", "Set aside there for when it is full.", lambda r, s: s["disk"]["ballastBytes"]),
    Metric("longshore_ledger_ballast_held", "gauge", "1 while it is there.", lambda r, s: float(s["disk"]["ballastHeld"])),
    Metric("longshore_ledger_ballast_released_total", "counter", "Times it was given back.", lambda r, s: s["disk"]["ballastReleased"]),
    Metric("longshore_ledger_cut_bytes_total", "counter", "Given back to the disk by shrinking.", lambda r, s: s["disk"]["cutBytes"]),
    Metric("longshore_ledger_reserve_bytes", "gauge", "Of it, kept for facts of orders.", lambda r, s: s["disk"]["reserveBytes"]),
    Metric("longshore_ledger_telemetry_size_bytes", "gauge", "Telemetry in the ledger.", lambda r, s: s["disk"]["telemetryBytes"]),
    Metric("longshore_ledger_telemetry_budget_bytes", "gauge", "Room it may take.", lambda r, s: s["disk"]["telemetryBudgetBytes"]),
    Metric("longshore_ledger_telemetry_full", "gauge", "1 while telemetry finds no room.", lambda r, s: float(s["disk"]["telemetryFull"])),
    *(_evicted(why) for why in REASONS),
    *(_refused(kind) for kind in Refusal),
    Metric("longshore_ledger_freed_events_total", "counter", "Settled facts freed since the beginning.", lambda r, s: _freed(s)),
)
"""those of which the ledger must be open"""


def exposition(runtime: EdgeRuntime) -> str:
    """All metrics; while the ledger is being opened again, those that do without it."""
    rows: tuple[Metric, ...] = ALWAYS
    status = Status()
    try:
        status = runtime.status()
        rows = ALWAYS + OPEN
    except LedgerError:
        pass  # longshore_edge_ready says so
    lines: list[str] = []
    for row in rows:
        value = row.value(runtime, status)
        if value is not None:
            lines += [f"# HELP {row.name} {row.help}", f"# TYPE {row.name} {row.kind}", f"{row.name} {value}"]
    return "\n".join(lines) + "\n"
