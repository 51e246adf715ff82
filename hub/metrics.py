"""The hub's figures for Prometheus: a table of families, each with where its samples come from.

Names are `longshore_<subsystem>_<thing>_<unit>`, `_total` for counters. Nodes and orders are never labels: a fleet has thousands; sites
are, within bounds (`metrics_sites`). What the store counts is in `metrics_store`, how long facts take in `freshness`.
"""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from hub import metrics_sites
from hub.alarms import unaccounted
from hub.bridge import status
from hub.device_views import SHOWN_STATES
from hub.facade import Metric
from hub.workers import Workers, mono_ms
from protocols.fact import Clock

if TYPE_CHECKING:
    from hub.runtime import Hub

Values = Mapping[str, float] | float


class Family(NamedTuple):
    """A metric family. `read` gives one value, or several by the value of `label`."""

    name: str
    help: str
    read: Callable[[Hub], Values]
    label: str = ""

    @property
    def type(self) -> str:
        """counter or gauge, by the name."""
        return "counter" if self.name.endswith("_total") else "gauge"


def _balance(hub: Hub) -> Values:
    row = hub.balance()["fleet"]
    parts = {"settled": row["settled"], "queued": row["queued"], "in_custody": row["inCustody"], "quarantined": row["quarantined"]}
    return {"captured": row["captured"], **parts, **{f"evicted_{why}": seqs for why, seqs in row["evicted"].items()}}


def _store_lacks(hub: Hub) -> Values:
    row = hub.balance()["fleet"]
    return math.nan if row["notHereYet"] is None else max(row["queued"] + row["inCustody"] - row["notHereYet"], 0)


def _closed(hub: Hub) -> Values:
    closed = hub.balance()["fleet"]["balanced"]
    return math.nan if closed is None else float(closed)


def _memory_bytes(_: Hub) -> Values:
    unit = 1 if sys.platform == "darwin" else 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _oldest_s(hub: Hub) -> Values:
    return max((row.oldest_age_ms or 0 for row in hub.fleet()), default=0) / 1_000


def _full(hub: Hub) -> Values:
    seen = hub.engine.seen
    return float(bool(seen.budget_bytes) and seen.ledger_bytes >= seen.budget_bytes)


def _broker(name: str) -> Callable[[Hub], Values]:
    return lambda hub: float(getattr(hub.broker.counts, name)) if hub.broker is not None else 0.0


def _line_refused(hub: Hub) -> Values:
    return {kind: float(count) for kind, count in hub.line.refused_totals().items()} if hub.line is not None else {}


def _bridge(name: str, without: float = math.nan, unit: float = 1) -> Callable[[Hub], Values]:
    def read(hub: Hub) -> Values:
        said = status(hub.bridge, hub.now_ms())
        return without if said is None else float(said[name]) / unit

    return read


def _workers(read: Callable[[Workers], float]) -> Callable[[Hub], Values]:
    """0 where one process serves all nodes."""
    return lambda hub: read(hub.workers) if hub.workers is not None else 0.0


FAMILIES: Final = (
    Family(
        "longshore_hub_worker_partitions",
        "Partitions of nodes that this worker holds.",
        _workers(lambda w: float(len(w.leasing.held(mono_ms())))),
    ),
    Family(
        "longshore_hub_worker_held_over_partitions",
        "Of these, the ones held beyond the lease, because the lease table is not reached.",
        _workers(lambda w: float(w.leasing.held_over(mono_ms()))),
    ),
    Family(
        "longshore_hub_worker_claimed_total", "Partitions let go of on another worker's claim.", _workers(lambda w: float(w.claimed_total))
    ),
    Family(
        "longshore_hub_worker_alive",
        "Workers that live, as this one last read.",
        _workers(lambda w: float(len(w.table.workers) if w.table is not None else 0)),
    ),
    Family(
        "longshore_hub_worker_unheld_partitions",
        "Partitions that are nobody's, as this worker last read.",
        _workers(lambda w: float(sum(not p.lives for p in w.table.partitions) if w.table is not None else 0)),
    ),
    Family("longshore_hub_worker_takeovers_total", "Partitions that this worker took over.", _workers(lambda w: float(w.takeovers_total))),
    Family(
        "longshore_hub_worker_failures_total",
        "Rounds in which the lease table was not reached.",
        _workers(lambda w: float(w.failures_total)),
    ),
    Family("longshore_hub_ready", "1 when facts can be taken and shown.", lambda hub: float(hub.health()["ready"])),
    Family("longshore_hub_started_seconds", "When this process started, since 1970.", lambda hub: hub.started_ms / 1_000),
    Family("longshore_hub_memory_bytes", "The most memory this process has had.", _memory_bytes),
    Family("longshore_fleet_nodes", "Nodes, by what is known of them.", lambda hub: _nodes(hub), "state"),
    Family(
        "longshore_fleet_missing_events",
        "Facts that nodes have and this hub has not.",
        lambda hub: sum(r.missing or 0 for r in hub.fleet()),
    ),
    Family("longshore_fleet_missing_bytes", "Estimated bytes of them.", lambda hub: sum(r.missing_bytes or 0 for r in hub.fleet())),
    Family("longshore_fleet_oldest_seconds", "Age of the oldest fact of any node that is not settled.", _oldest_s),
    Family("longshore_fleet_captured_events", "Facts that nodes said yes to, as far as they told.", lambda hub: _sum(hub, "head")),
    Family("longshore_fleet_received_events", "Those of them that this hub holds.", lambda hub: _sum(hub, "received")),
    Family("longshore_fleet_settled_events", "Those that the central store holds.", lambda hub: _sum(hub, "settled")),
    Family("longshore_fleet_queued_bytes", "What nodes keep for want of a receipt.", lambda hub: _sum(hub, "queued_bytes")),
    Family("longshore_fleet_clock_nodes", "Admitted nodes, by what they think of their clocks.", lambda hub: _clocks(hub), "quality"),
    Family(
        "longshore_fleet_skew_seconds",
        "The largest distance of any node's clock from the hub's, either way.",
        lambda hub: max((abs(row.skew_ms or 0) for row in hub.fleet()), default=0) / 1_000,
    ),
    Family(
        "longshore_fleet_disk_free_bytes",
        "The least that is free on any node's disk; NaN while none has told.",
        lambda hub: min((row.disk_free_bytes for row in hub.fleet() if row.disk_free_bytes is not None), default=math.nan),
    ),
    Family("longshore_fleet_holes", "Holes in the streams of all nodes.", lambda hub: sum(r.holes for r in hub.fleet())),
    Family("longshore_fleet_forked_nodes", "Nodes of which two histories are known.", lambda hub: sum(r.forked for r in hub.fleet())),
    Family("longshore_balance_events", "Facts by where they are: captured is the sum of all others.", _balance, "part"),
    Family("longshore_balance_closed", "1 when the balance closes, 0 when it does not, NaN while that is not known.", _closed),
    Family(
        "longshore_balance_unaccounted_events",
        "Facts by which nodes' balances are off; any is an alarm.",
        lambda hub: unaccounted(hub.balance()),
    ),
    Family(
        "longshore_backup_age_seconds",
        "Since the newest complete backup of the store was begun; NaN while there is none.",
        lambda hub: math.nan if hub.engine.seen.backup_ms is None else (hub.now_ms() - hub.engine.seen.backup_ms) / 1_000,
    ),
    Family("longshore_gaps_holes", "Holes in what this hub holds.", lambda hub: hub.gaps()["holes"]),
    Family("longshore_gaps_events", "Facts in holes and beyond what is held.", lambda hub: hub.gaps()["facts"]),
    Family("longshore_hub_turns_total", "Turns of the hub's loop.", lambda hub: hub.engine.counts.turns_total),
    Family("longshore_sync_messages_total", "Messages taken off the line.", lambda hub: hub.engine.inputs.counts.frames_total),
    Family("longshore_sync_dropped_total", "Messages for which there was no room.", lambda hub: hub.engine.inputs.counts.dropped_total),
    Family("longshore_sync_waiting_bytes", "Bytes of messages that wait for the loop.", lambda hub: hub.engine.inputs.bytes),
    Family(
        "longshore_sync_waiting_nodes", "Nodes with a backlog that wait for their turn to send it.", lambda hub: hub.engine.waiting_for_turn
    ),
    Family("longshore_sync_frames_total", "Frames among them that verified.", lambda hub: hub.engine.counts.frames_total),
    Family("longshore_sync_facts_total", "New facts taken from nodes.", lambda hub: hub.engine.counts.facts_total),
    Family("longshore_sync_sent_total", "Receipts, answers and refusals sent.", lambda hub: hub.engine.counts.published_total),
    Family("longshore_ledger_commits_total", "Transactions made durable.", lambda hub: hub.engine.counts.commits_total),
    Family("longshore_ledger_budget_bytes", "Room the hub's ledger may take.", lambda hub: hub.engine.seen.budget_bytes),
    Family("longshore_ledger_full", "1 while the budget is used up and no credit is granted.", _full),
    Family("longshore_ledger_freed_facts_total", "Facts freed since the ledger was opened.", lambda hub: hub.engine.seen.freed),
    Family(
        "longshore_ledger_taken_back_facts_total",
        "Freed facts that are asked for again, as the central store went back.",
        lambda hub: hub.engine.seen.taken_back,
    ),
    Family("longshore_devices", "Devices of which the fleet has told.", lambda hub: float(sum(row.devices for row in hub.fleet()))),
    Family("longshore_devices_state", "Devices of the fleet, by their state.", lambda hub: _devices(hub), "state"),
    Family("longshore_devices_low_battery", "Devices with less than a fifth of their charge.", lambda hub: _look(hub, "low_battery")),
    Family("longshore_devices_weak_signal", "Devices with a weak radio link.", lambda hub: _look(hub, "weak_signal")),
    Family("longshore_ledger_bytes", "Bytes in use in the hub's ledger.", lambda hub: hub.engine.seen.ledger_bytes),
    Family("longshore_ledger_rebuilt_total", "Times the ledger failed and was opened again.", lambda hub: hub.engine.counts.rebuilt_total),
    Family("longshore_store_waiting_events", "Facts that this hub holds and the central store has not; NaN while unknown.", _store_lacks),
    Family("longshore_store_facts_total", "Facts that the central store took.", lambda hub: hub.engine.counts.applied_total),
    Family("longshore_store_known_total", "Facts that it had already.", lambda hub: hub.engine.counts.doubled_total),
    Family("longshore_store_refilled_total", "Facts that it gave back to this hub.", lambda hub: hub.engine.counts.refilled_total),
    Family("longshore_store_errors_total", "Times the central store failed.", lambda hub: hub.engine.counts.store_errors_total),
    Family("longshore_wire_up_bytes_total", "Bytes of messages from nodes, since the hub was made.", lambda hub: _kept(hub, "up_bytes")),
    Family("longshore_wire_up_frames_total", "Frames among them that verified.", lambda hub: _kept(hub, "up_frames")),
    Family("longshore_wire_up_facts_total", "Facts in those frames.", lambda hub: _facts(hub), "kind"),
    Family("longshore_refused_total", "Messages that were refused, since the hub was made.", lambda hub: _kept(hub, "refused")),
    Family(
        "longshore_waiting_full_total",
        "Messages of unknown nodes for which there was no room, since the hub was made.",
        lambda hub: _kept(hub, "waiting_full"),
    ),
    Family(
        "longshore_quarantined_events",
        "Facts in quarantine that wait for their author (of the newest 1000).",
        lambda hub: sum(row["state"] == "open" for row in hub.quarantined()),
    ),
    Family("longshore_bridge_up", "1 while Kafka takes what it is given, 0 while it does not, NaN without a bridge.", _bridge("up")),
    Family("longshore_bridge_backlog_events", "Facts that Kafka has not acknowledged.", _bridge("backlog", 0)),
    Family("longshore_bridge_backlog_seconds", "Age of the oldest of them.", _bridge("backlogAgeMs", 0, 1_000)),
    Family("longshore_bridge_unsettled_events", "Facts that Kafka has and the store has not stated.", _bridge("unsettled", 0)),
    Family("longshore_bridge_unsettled_seconds", "Since the oldest of them was acknowledged.", _bridge("unsettledAgeMs", 0, 1_000)),
    Family("longshore_bridge_produced_total", "Facts and records that Kafka acknowledged.", _bridge("produced", 0)),
    Family("longshore_bridge_produced_again_total", "Of these, those that the store lacked after a while.", _bridge("producedAgain", 0)),
    Family("longshore_bridge_producers_total", "Producers that were made: one, and one for each that failed.", _bridge("producers", 0)),
    Family("longshore_bridge_errors_total", "Times that Kafka failed or could not be reached.", _bridge("errors", 0)),
    Family("longshore_bridge_too_large_total", "Records that Kafka refused for their size.", _bridge("tooLarge", 0)),
    Family("longshore_feed_listeners", "Live streams that are open.", lambda hub: hub.feed.listeners),
    Family("longshore_feed_unshown_total", "Changes that the live feed only counted.", lambda hub: hub.unshown_total),
    Family(
        "longshore_line_connected",
        "1 while this hub's line to its broker is up.",
        lambda hub: float(hub.line is not None and hub.line.connected),
    ),
    Family("longshore_line_refused_total", "What the broker refused this hub, by its kind.", _line_refused, "kind"),
    Family("longshore_broker_connections", "Connections at the embedded broker.", lambda hub: hub.broker.connections if hub.broker else 0),
    Family("longshore_broker_logins_total", "Logins that succeeded.", _broker("logins_total")),
    Family("longshore_broker_refused_total", "Logins that were refused.", _broker("refused_total")),
    Family("longshore_broker_denied_total", "Publishes outside of a node's own topics.", _broker("denied_publish_total")),
    Family("longshore_broker_dropped_total", "Messages dropped for a slow reader.", _broker("dropped_total")),
)


def _nodes(hub: Hub) -> Values:
    rows = hub.fleet()
    admitted = [row for row in rows if row.admitted]
    online = sum(row.online for row in admitted)
    return {"online": online, "away": len(admitted) - online, "waiting": len(rows) - len(admitted)}


def _sum(hub: Hub, name: str) -> Values:
    return sum(getattr(row, name) or 0 for row in hub.fleet())


def _clocks(hub: Hub) -> Values:
    said = [row.clock for row in hub.fleet() if row.admitted]
    known = {clock.name.lower(): float(said.count(int(clock))) for clock in Clock}
    return {**known, "not_told": float(len(said) - sum(known.values()))}


def _devices(hub: Hub) -> Values:
    counts = dict.fromkeys(SHOWN_STATES, 0.0)
    for row in hub.fleet():
        for state, number in (row.told.states if row.told is not None else {}).items():
            counts[state] = counts.get(state, 0.0) + number
    return counts


def _look(hub: Hub, name: str) -> Values:
    return float(sum(getattr(row.told, name) for row in hub.fleet() if row.told is not None))


def _kept(hub: Hub, name: str) -> Values:
    return hub.engine.seen.counters.get(name, 0)


def _facts(hub: Hub) -> Values:
    counters = hub.engine.seen.counters
    return {"new": counters.get("up_facts_new", 0), "known": counters.get("up_facts_known", 0)}


def samples(hub: Hub) -> Iterator[Metric]:
    """Every sample, family by family."""
    for family in FAMILIES:
        values = family.read(hub)
        if isinstance(values, Mapping):
            for value_of_label, value in values.items():
                yield Metric(family.name, family.help, family.type, {family.label: value_of_label}, value)
        else:
            yield Metric(family.name, family.help, family.type, {}, values)
    yield from hub.freshness.samples()
    yield from metrics_sites.samples(hub.fleet(), hub.now_ms())
