"""The Grafana dashboard, written from a table of panels: `python -m deploy.dashboards`. A test holds its metrics against the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

Json = dict[str, Any]
FILE: Final = Path(__file__).parent / "grafana" / "dashboards" / "longshore.json"
WIDTH: Final = 24
HEIGHT: Final = 8


class Panel(NamedTuple):
    """A panel: its title, what it shows and in which unit (Grafana's name), and how. `shows`: (PromQL, legend)."""

    title: str
    about: str
    unit: str
    shows: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    width: int = 12


class Row(NamedTuple):
    """A row of panels under a title."""

    title: str
    panels: tuple[Panel, ...]


_SITE: Final = "{{site}}"
ROWS: Final = (
    Row("At a glance", (
        Panel("Ready", "1 while the hub takes and shows facts.", "short", (("longshore_hub_ready", ""),), "stat", 4),
        Panel("Settled", "Facts a second into the central store.", "short", (("longshore:settled:rate5m", ""),), "stat", 4),
        Panel("Not here yet", "Facts that nodes have and the hub has not.", "short", (("longshore_fleet_missing_events", ""),), "stat", 4),
        Panel("Oldest", "Age of the oldest fact that is not settled.", "s", (("longshore_fleet_oldest_seconds", ""),), "stat", 4),
        Panel("Unaccounted", "Anything but 0 is an alarm.", "short", (("longshore_balance_unaccounted_events", ""),), "stat", 4),
        Panel("Open conflicts", "", "short", (('longshore_conflicts_open{job="longshore-hub"}', ""),), "stat", 4),
    )),
    Row("Sites", (
        Panel("Backlog by site", "Facts that a site's nodes have and the hub has not.", "short",
              (("topk(20, longshore_site_missing_events)", _SITE),)),
        Panel("Oldest fact by site", "That is not settled; grows while a site is cut off.", "s",
              (("topk(20, longshore_site_oldest_seconds)", _SITE),)),
        Panel("Nodes away by site", "", "short", (("topk(20, longshore_site_nodes_away)", _SITE),)),
        Panel("Silence by site", "Since any node of it was heard.", "s", (("topk(20, longshore_site_silence_seconds)", _SITE),)),
    )),
    Row("Flow", (
        Panel("Received and settled", "Facts a second.", "short", (
            ("longshore:received:rate5m", "received"), ("longshore:settled:rate5m", "settled"),
        )),
        Panel("Freshness", "From the hub's disk to the central store.", "s", (
            ("histogram_quantile(0.5, sum by (le) (rate(longshore_freshness_seconds_bucket[5m])))", "p50"),
            ("histogram_quantile(0.99, sum by (le) (rate(longshore_freshness_seconds_bucket[5m])))", "p99"),
        )),
        Panel("Watermarks", "Captured ≥ received ≥ settled; the distances are the queues.", "short", (
            ("longshore_fleet_captured_events", "captured"), ("longshore_fleet_received_events", "received"),
            ("longshore_fleet_settled_events", "settled"),
        )),
        Panel("Waiting for the store", "Facts at the hub that the central store has not.", "short",
              (("longshore_store_waiting_events", "waiting"),)),
        Panel("Bytes from nodes", "", "Bps", (("rate(longshore_wire_up_bytes_total[5m])", "up"),)),
        Panel("Known and refilled", "Facts that came twice, and facts that the store gave back.", "short", (
            ("rate(longshore_store_known_total[5m])", "known"), ("rate(longshore_store_refilled_total[5m])", "refilled"),
        )),
    )),
    Row("Kafka", (
        Panel("Waiting for Kafka, and in it", "Facts that Kafka has not, and facts that it has and the store has not.", "short", (
            ("longshore_bridge_backlog_events", "not in Kafka"), ("longshore_bridge_unsettled_events", "not in the store"),
            ("longshore_projector_lag_records", "lag {{instance}}"),
        )),
        Panel("For how long", "", "s", (
            ("longshore_bridge_backlog_seconds", "not in Kafka"), ("longshore_bridge_unsettled_seconds", "not in the store"),
        )),
        Panel("Produced and applied", "A second.", "short", (
            ("rate(longshore_bridge_produced_total[5m])", "produced"), ("rate(longshore_bridge_produced_again_total[5m])", "again"),
            ("rate(longshore_projector_applied_total[5m])", "applied {{instance}}"),
            ("rate(longshore_projector_known_total[5m])", "known {{instance}}"),
        )),
        Panel("Trouble", "An hour.", "short", (
            ("increase(longshore_bridge_errors_total[1h])", "Kafka failed"),
            ("increase(longshore_projector_dead_total[1h])", "dead letters"),
            ("increase(longshore_projector_fenced_total[1h])", "taken over"),
            ("increase(longshore_projector_rejoined_total[1h])", "rejoined"),
            ("increase(longshore_projector_store_errors_total[1h])", "store failed"),
        )),
    )),
    Row("Hub workers", (
        Panel("Partitions by worker", "All 0 where one process serves all nodes.", "short", (
            ("longshore_hub_worker_partitions", "{{instance}}"), ("max(longshore_hub_worker_unheld_partitions)", "nobody's"),
        )),
        Panel("Takeovers", "An hour.", "short", (
            ("increase(longshore_hub_worker_takeovers_total[1h])", "{{instance}}"),
            ("increase(longshore_hub_worker_failures_total[1h])", "{{instance}}, leases not reached"),
        )),
    )),
    Row("Truth", (
        Panel("Gaps", "Facts in holes and beyond what is held; holes.", "short", (
            ("longshore_gaps_events", "facts"), ("longshore_gaps_holes", "holes"),
        )),
        Panel("Balance", "Where captured facts are.", "short", (("longshore_balance_events", "{{part}}"),)),
        Panel("Set aside", "", "short", (
            ("longshore_quarantined_events", "quarantined"), ("longshore_fleet_forked_nodes", "forked nodes"),
            ("longshore_conflicts_open", "conflicts {{job}}"),
        )),
        Panel("Refused by the broker", "An hour, by kind.", "short", (
            ("increase(longshore_line_refused_total[1h])", "hub, {{kind}}"),
            ("increase(longshore_link_broker_refused_acl_total[1h])", "{{instance}}, acl"),
            ("increase(longshore_link_broker_refused_credentials_total[1h])", "{{instance}}, credentials"),
        )),
        Panel("Devices", "Of which the fleet has told.", "short", (("longshore_devices", "devices"),)),
        Panel("Refused and dropped", "A minute.", "short", (
            ("60 * rate(longshore_refused_total[5m])", "refused"), ("60 * rate(longshore_sync_dropped_total[5m])", "dropped"),
            ("60 * rate(longshore_store_errors_total[5m])", "store failed"),
        )),
    )),
    Row("Room", (
        Panel("Hub's ledger", "", "bytes", (("longshore_ledger_bytes", "used"), ("longshore_ledger_budget_bytes", "budget {{job}}"))),
        Panel("Edges' ledgers", "", "bytes", (("longshore_ledger_size_bytes", "{{instance}}"),)),
        Panel("Evicted telemetry", "An hour, by reason.", "short", (
            ("increase(longshore_ledger_evicted_settled_events_total[1h])", "settled {{instance}}"),
            ("increase(longshore_ledger_evicted_superseded_events_total[1h])", "superseded {{instance}}"),
            ("increase(longshore_ledger_evicted_oldest_events_total[1h])", "oldest {{instance}}"),
        )),
        Panel("Memory", "", "bytes", (("longshore_hub_memory_bytes", "hub"), ("longshore_edge_memory_bytes", "{{instance}}"))),
    )),
    Row("Edges that are scraped", (
        Panel("Queue", "Facts that the central store has not settled.", "short", (("longshore_queue_events", "{{instance}}"),)),
        Panel("Oldest in queue", "", "s", (("longshore_queue_oldest_age_seconds", "{{instance}}"),)),
        Panel("Captured", "A second.", "short", (("rate(longshore_edge_events_total[5m])", "{{instance}}"),)),
        Panel("Link", "1 while it is up.", "short", (("longshore_link_connected", "{{instance}}"),)),
    )),
)  # fmt: skip


def expressions() -> list[str]:
    """Every PromQL expression of the dashboard."""
    return [expression for row in ROWS for panel in row.panels for expression, _ in panel.shows]


def dashboard() -> Json:
    """The dashboard as Grafana reads it."""
    panels: list[Json] = []
    at_y = 0
    for row in ROWS:
        panels.append(_titled(row.title, at_y, len(panels)))
        at_y += 1
        at_x = 0
        for panel in row.panels:
            if at_x + panel.width > WIDTH:
                at_x, at_y = 0, at_y + HEIGHT
            panels.append(_panel(panel, at_x, at_y, len(panels)))
            at_x += panel.width
        at_y += HEIGHT
    return {
        "uid": "longshore",
        "title": "Longshore",
        "tags": ["longshore"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "refresh": "15s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}]},
        "annotations": {"list": []},
        "panels": panels,
    }


_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


def _titled(title: str, y: int, number: int) -> Json:
    return {"id": number + 1, "type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": _place(0, y, WIDTH, 1)}


def _panel(panel: Panel, x: int, y: int, number: int) -> Json:
    targets = [
        {"refId": chr(ord("A") + n), "expr": expression, "legendFormat": legend or "__auto", "datasource": _SOURCE}
        for n, (expression, legend) in enumerate(panel.shows)
    ]
    return {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "gridPos": _place(x, y, panel.width, HEIGHT),
        "targets": targets,
    }


def _place(x: int, y: int, width: int, height: int) -> Json:
    return {"x": x, "y": y, "w": width, "h": height}


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
