"""`longshore-sim`: what a plan leads to, by a model whose answers can be worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.plan.cli import BAD_INPUT, HOLDS, HOLDS_NOT, main
from deploy.plan.measure import Costs, measure
from deploy.plan.region import DAY_S, Plan, play

COSTS = Costs(edge_disk_bytes=400, hub_disk_bytes=400, wire_bytes=20, overhead_bytes=400, edge_s=20e-6, hub_s=100e-6)


def plan(**changes: float) -> Plan:
    values = {
        "edges": 10, "days": 10, "outage_s": 2 * DAY_S, "outage_from_s": DAY_S, "outage_edges": 10, "events_per_day": 1_440, "peak": 1,
        "link_bps": 1e6, "budget_bytes": 1e9, "hub_share": 1.0, "flaky_per_day": 0, "flaky_s": 0, "seed": 1,
    }  # fmt: skip
    return Plan(**(values | changes))  # type: ignore[arg-type]


def test_a_queue_grows_by_what_is_captured_and_is_gone_soon_after() -> None:
    out = play(plan(), COSTS)
    assert max(e.peak for e in out.edges) == pytest.approx(2 * 1_440, abs=2)
    assert out.catch_up_s is not None
    assert out.catch_up_s <= 120


def test_a_slow_hub_takes_its_time_and_serves_all_alike() -> None:
    slow = Costs(400, 400, 20, 400, 20e-6, hub_s=0.1)  # 10 events a second, 10 edges bring 28,800, and go on
    out = play(plan(), slow)
    assert out.catch_up_s == pytest.approx(28_800 / (10 - 10 * 1_440 / DAY_S), rel=0.05)
    times = [e.caught_up_s or 0.0 for e in out.edges]
    assert max(times) - min(times) <= 120


def test_a_thin_link_is_the_bound_where_it_is_thinner_than_the_hub() -> None:
    out = play(plan(link_bps=160), COSTS)  # one event a second; one every 60 s is captured
    assert out.catch_up_s == pytest.approx(2_880 / (1 - 1 / 60), rel=0.05)


def test_a_small_disk_is_full_in_time() -> None:
    out = play(plan(budget_bytes=400 * 1_440.0), COSTS)
    assert {round((e.full_s or 0.0) / DAY_S, 1) for e in out.edges} == {2.0}


def test_busy_hours_do_not_add_to_the_day() -> None:
    even, busy = play(plan(), COSTS), play(plan(peak=3), COSTS)
    assert sum(e.captured for e in busy.edges) == pytest.approx(sum(e.captured for e in even.edges), rel=0.02)


def test_the_same_seed_gives_the_same_answer() -> None:
    one, other = (play(plan(flaky_per_day=2, flaky_s=3_600), COSTS) for _ in range(2))
    assert one.curve == other.curve


def test_the_command_answers_in_words_and_json_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--edges", "5", "--days", "10", "--outage", "2d", "--plot", str(tmp_path / "new" / "p.svg")], costs=lambda: COSTS) == HOLDS
    assert capsys.readouterr().out.startswith("It holds.")
    assert "<polyline" in (tmp_path / "new" / "p.svg").read_text()
    assert main(["--edges", "5", "--days", "10", "--outage", "2d", "--budget", "1M", "--json"], costs=lambda: COSTS) == HOLDS_NOT
    said = json.loads(capsys.readouterr().out)
    assert said["edgesFull"] == 5
    assert not said["holds"]


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--edges", "0"], "--edges"), (["--days", "3", "--outage", "7d"], "--outage"), (["--outage-edges", "41"], "--outage-edges"),
        (["--outage", "7d", "--outage-from", "29d"], "--outage"), (["--peak", "9"], "--peak"),
        (["--days", "2", "--outage-from", "3d"], "--outage-from"),
        (["--days", "2", "--outage", "7d"], "is 7 d"),
    ],
    ids=["edges", "outage", "outage-edges", "outage-from", "peak", "begins late", "in days"],
)  # fmt: skip
def test_bad_input_names_the_option_and_the_remedy(args: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args, costs=lambda: COSTS) == BAD_INPUT
    error = capsys.readouterr().err
    assert named in error
    assert "Give" in error


@pytest.mark.parametrize("args", [["--days", "2"], ["--days", "2", "--outage-from", "36h"]], ids=["few days", "begins late"])
def test_an_outage_that_nobody_asked_for_fits_the_days(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--edges", "2", *args], costs=lambda: COSTS) in (HOLDS, HOLDS_NOT), capsys.readouterr().err


@pytest.mark.slow
def test_the_costs_are_measured_with_the_product() -> None:
    costs = measure()
    assert 50 < costs.edge_disk_bytes < 2_000
    assert 5 < costs.wire_bytes < 100
    assert 0 < costs.edge_s < costs.hub_s < 0.01
