"""Metrics, alert rules and dashboards: what they name is there, what they say parses, and each alert is raised by what it is for."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
import yaml

from deploy import dashboards
from edge_agent.metrics import ALWAYS, OPEN, exposition
from hub import freshness, metrics, metrics_sites, metrics_store, project_http
from hub.facade import Metric
from hub.projector import ProjectorCounts
from hub.views import FleetRow
from tests.support.needs import find, needs, where
from tests.support.patience import WITHIN_S
from tests.support.source import ROOT
from tests.unit.hub.hub_world import order_event
from tests.unit.hub.test_runtime import EdgeKit, calling, in_loop, make_hub

FOLDER: Final = ROOT / "deploy" / "prometheus"
RULES: Final = FOLDER / "longshore.rules.yml"
HUB: Final = (
    *(family.name for family in metrics.FAMILIES), *(family.name for family in metrics_sites.FAMILIES),
    *(family.name for family in metrics_store.FAMILIES), freshness.NAME,
)  # fmt: skip
EDGE: Final = tuple(metric.name for metric in (*ALWAYS, *OPEN))
PROMETHEUS: Final = ("up",)
_IDLE: Any = SimpleNamespace(lag=dict, places=list, error="", rejoined_total=0, counts=ProjectorCounts())
PROJECTOR: Final = tuple(sample.name for sample in project_http.samples(_IDLE))


def rules() -> list[dict[str, Any]]:
    """Every rule."""
    return [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]


def named_in(expression: str) -> list[str]:
    """The metrics that an expression asks for."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}', "", expression)
    return re.findall(r"\b(?:longshore[\w:]*|up)\b", bare)


def known() -> set[str]:
    """Every series that exists, or that a rule records."""
    parts = {freshness.NAME + suffix for suffix in ("_bucket", "_sum", "_count")}
    return {*HUB, *EDGE, *PROJECTOR, *PROMETHEUS, *parts, *(rule["record"] for rule in rules() if "record" in rule)}


@pytest.mark.parametrize("expression", [*dict.fromkeys([*dashboards.expressions(), *(rule["expr"] for rule in rules())])])
def test_rules_and_dashboards_name_metrics_that_exist(expression: str) -> None:
    asked = named_in(expression)
    assert asked
    assert [name for name in asked if name not in known()] == []


def test_a_metric_that_does_not_exist_would_be_found() -> None:
    assert named_in('rate(longshore_lost_total{job="up"}[5m]) > on (instance) up') == ["longshore_lost_total", "up"]
    assert "longshore_lost_total" not in known()


def test_the_dashboard_is_what_its_table_says() -> None:
    assert dashboards.FILE.read_text("utf-8") == dashboards.text(), "run: make docs"
    panels = json.loads(dashboards.text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    boxes = [(p["gridPos"]["x"] + p["gridPos"]["w"]) for p in panels]
    assert max(boxes) <= dashboards.WIDTH
    for wanted in ("longshore_site_missing_events", "longshore_site_oldest_seconds", "longshore:settled:rate5m", "longshore_gaps_events"):
        assert any(wanted in expression for expression in dashboards.expressions())


def test_every_alert_is_tested() -> None:
    told = (FOLDER / "longshore.rules.test.yml").read_text("utf-8")
    assert [rule["alert"] for rule in rules() if "alert" in rule and f"alertname: {rule['alert']}" not in told] == []


def promtool(*words: str, text: str = "", cwd: Path | None = None) -> str:
    """What promtool says; fails where it does."""
    done = subprocess.run([where("promtool"), *words], input=text, capture_output=True, text=True, check=False, cwd=cwd, timeout=WITHIN_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@needs("promtool")
def test_the_rules_pass_their_own_tests() -> None:
    promtool("test", "rules", "longshore.rules.test.yml", cwd=FOLDER)


@pytest.mark.slow
@needs("promtool")
def test_the_rules_tests_can_fail(tmp_path: Path) -> None:
    for path in FOLDER.glob("*.yml"):
        text = path.read_text("utf-8").replace("longshore_gaps_holes > 0", "longshore_gaps_holes > 10")
        (tmp_path / path.name).write_text(text, "utf-8")
    with pytest.raises(AssertionError, match="LongshoreGaps"):
        promtool("test", "rules", "longshore.rules.test.yml", cwd=tmp_path)


@needs("promtool")
def test_the_configuration_of_prometheus_is_one() -> None:
    promtool("check", "config", "--syntax-only", str(FOLDER / "prometheus.yml"))


@needs("promtool")
def test_every_expression_of_the_dashboard_parses(tmp_path: Path) -> None:
    def check(expressions: list[str]) -> None:
        listed = [{"record": f"x{n}", "expr": expression} for n, expression in enumerate(expressions)]
        (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "x", "rules": listed}]}), "utf-8")
        promtool("check", "rules", str(tmp_path / "rules.yml"))

    check(dashboards.expressions())
    with pytest.raises(AssertionError, match="parse"):
        check(["rate(longshore_edge_ready[5m)"])


# ------------------------------------------------------------------ the real exposition


def heads(text: str) -> list[str]:
    """Families of an exposition, in its order."""
    return re.findall(r"^# TYPE (\S+) (?:counter|gauge|histogram)$", text, re.M)


@pytest.mark.slow
def test_hub_and_edge_really_say_what_the_tables_say(tmp_path: Path) -> None:
    """Of a hub and an edge that sent it something; and promtool finds nothing wrong with the form of either."""

    async def story() -> None:
        async with calling(make_hub(tmp_path)) as hub:
            kit = EdgeKit(tmp_path, "dock-7")
            await hub.hub.admit(kit.card)
            async with kit.runtime(hub.hub.address) as edge:
                await edge.append([order_event("A1", "PLACED")])
                await hub.settled(1)
                said = (await hub.client.get("/metrics")).text
                assert sorted(heads(said)) == sorted(HUB)
                assert "\nlongshore_freshness_seconds_count 1\n" in said
                assert '\nlongshore_site_nodes{org="acme",region="EMEA",site="Madrid"} 1\n' in said
                assert "\nlongshore_orders 1\n" in said
                own = exposition(edge)
                assert sorted(heads(own)) == sorted(EDGE)
                for text in (said, own):
                    lint(text)

    in_loop(story)


def lint(text: str) -> None:
    """Every family has HELP and TYPE, no series stands twice, and promtool (where it is there) can read it."""
    described = re.findall(r"^# HELP (\S+) \S", text, re.M)
    assert described == heads(text)
    assert len(set(described)) == len(described)
    series = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(set(series)) == len(series)
    if find("promtool"):
        done = subprocess.run(
            [where("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=WITHIN_S
        )
        assert "error while linting" not in done.stderr, done.stderr


# ------------------------------------------------------------------ bounds


def fleet(sites: int) -> list[FleetRow]:
    """A node at each of so many sites; those with high numbers are worse off."""
    return [
        FleetRow(f"n{n}", "acme", "EMEA", f"site-{n:04}", "", online=n % 2 == 0, last_seen_ms=1_000, missing=n, oldest_age_ms=n * 1_000)
        for n in range(sites)
    ]


def by_site(samples: list[Metric], name: str) -> dict[str, float]:
    """Values of a family by site."""
    return {sample.labels["site"]: sample.value for sample in samples if sample.name == name}


def test_there_are_never_more_series_than_bounded_and_nothing_is_left_out() -> None:
    rows = fleet(3_000)
    samples = list(metrics_sites.samples(rows, 61_000))
    assert len(samples) == metrics_sites.SITES * len(metrics_sites.FAMILIES)
    missing = by_site(samples, "longshore_site_missing_events")
    assert sum(missing.values()) == sum(row.missing or 0 for row in rows)
    assert missing["site-2999"] == 2_999
    assert "site-0003" not in missing
    assert sum(by_site(samples, "longshore_site_nodes").values()) == 3_000
    assert by_site(samples, "longshore_site_silence_seconds")["(others)"] == 60


def test_few_sites_each_stand_for_themselves_and_strangers_are_no_site() -> None:
    rows = [*fleet(3), FleetRow("x", "acme", "EMEA", "nowhere", "", online=False, last_seen_ms=None, admitted=False)]
    assert by_site(list(metrics_sites.samples(rows, 0)), "longshore_site_nodes") == {f"site-{n:04}": 1 for n in range(3)}


def test_ages_are_counted_into_every_bucket_above_them() -> None:
    fresh = freshness.Freshness()
    fresh.took({900: 1, 990: 1, 2_000: 1}, 1_000)
    said = {(sample.suffix, sample.labels.get("le", "")): sample.value for sample in fresh.samples()}
    assert said["_bucket", "0.025"] == 2
    assert said["_bucket", "0.1"] == 3
    assert said["_bucket", "+Inf"] == said["_count", ""] == 3
    assert said["_sum", ""] == pytest.approx(0.11)
