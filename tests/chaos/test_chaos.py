"""Real processes, killed: whatever was said yes to is in the central store, once, in order, and everybody comes to rest by himself."""

from __future__ import annotations

from pathlib import Path
from random import SystemRandom
from typing import Final

import pytest

from tests.chaos.journal import actions
from tests.chaos.plan import KILL, ROAM
from tests.chaos.run import Options, Outcome, run
from tests.chaos.sabotage import SABOTAGES
from tests.chaos.site import AMQTT, ENGINES
from tests.chaos.sweep import sweep_changes, sweep_resets
from tests.support.needs import needs

pytestmark = pytest.mark.slow

LEAST_OK: Final = 150
KILLS: Final = 9
"""with each of four brokers: 36 of a `make test`"""
CALM_MS: Final = (40, 250)
"""pauses of writers where what they said all along is given back in the end"""
TRIES: Final = 6
"""runs in one of which a sabotage must show: a kill may miss the moment"""
ENGINE_PARAMS: Final = [pytest.param(engine, marks=[] if engine == AMQTT else needs("mosquitto")) for engine in ENGINES]
SABOTAGE_PARAMS: Final = [pytest.param(s.name, marks=[] if s.engine == AMQTT else needs("mosquitto")) for s in SABOTAGES.values()]


def told(outcome: Outcome) -> str:
    """For a failure: how to see it again."""
    return f"{outcome.text()}\nreplay: python -m tests.chaos --replay {outcome.journal}"


@pytest.mark.parametrize("engine", ENGINE_PARAMS)
def test_everything_said_yes_to_survives(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if engine != AMQTT:  # there each process is started as people start it
        request.getfixturevalue("copies")
    outcome = run(Options(SystemRandom().randrange(1_000_000), engine, KILLS, least_ok=LEAST_OK), tmp_path)
    assert outcome.complaints == [], told(outcome)
    assert outcome.counts[KILL] == KILLS, told(outcome)
    assert outcome.counts["ok"] >= LEAST_OK, told(outcome)
    assert outcome.counts["looked"] >= LEAST_OK // 5, told(outcome)


@pytest.mark.usefixtures("copies")
def test_hub_store_and_edges_that_are_put_back_to_backups_are_given_back_what_they_lack(tmp_path: Path) -> None:
    outcome = run(Options(SystemRandom().randrange(1_000_000), AMQTT, 5, writers=1, restores=3, pause_ms=CALM_MS), tmp_path)
    assert outcome.complaints == [], told(outcome)
    assert outcome.counts["backups"] > 0, told(outcome)


@pytest.mark.usefixtures("copies")
def test_a_phone_that_roams_between_two_gateways_is_applied_once(tmp_path: Path) -> None:
    outcome = run(Options(SystemRandom().randrange(1_000_000), AMQTT, 5, 2, phones=1), tmp_path)
    assert outcome.complaints == [], told(outcome)
    assert outcome.counts[ROAM] > 0, told(outcome)


@pytest.mark.usefixtures("copies")
@pytest.mark.parametrize("engine", ENGINE_PARAMS[:2])
def test_a_line_that_is_reset_after_every_so_many_bytes_gets_each_fact_through_once(engine: str, tmp_path: Path) -> None:
    outcome = sweep_resets(Options(SystemRandom().randrange(1_000_000), engine), tmp_path, step=29)
    assert outcome.complaints == [], told(outcome)
    assert outcome.counts["resets up"] > 15, told(outcome)
    assert outcome.counts["resets down"] > 3, told(outcome)


@pytest.mark.usefixtures("copies")
def test_one_changed_byte_wherever_it_is_holds_nothing_up_for_good(tmp_path: Path) -> None:
    outcome = sweep_changes(Options(SystemRandom().randrange(1_000_000), AMQTT), tmp_path, step=151)
    assert outcome.complaints == [], told(outcome)
    assert outcome.counts["changes up"] > 3, told(outcome)


@pytest.mark.usefixtures("copies")
@pytest.mark.parametrize("name", SABOTAGE_PARAMS)
def test_a_product_that_breaks_its_promise_is_caught(name: str, tmp_path: Path) -> None:
    made, said = SABOTAGES[name], []
    for seed in range(TRIES):
        folder = tmp_path / str(seed)
        folder.mkdir()
        favour = made.favour or made.kind
        options = Options(seed, made.engine, 4, 2, sabotage=f"{made.kind}:{name}", gap_ms=(100, 700), favour=favour, quiet_s=5.0)
        outcome = run(options, folder)
        if any(complaint.startswith(made.caught_as) for complaint in outcome.complaints):
            return
        said.append(told(outcome))
    raise AssertionError("\n".join(said))


@pytest.mark.usefixtures("copies")
def test_a_journal_is_played_again(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    options = Options(SystemRandom().randrange(1_000_000), AMQTT, 2, 1, 1, gap_ms=(50, 300))
    outcome = run(options, first)
    assert outcome.complaints == [], told(outcome)
    done = actions(first / "journal.jsonl")
    again = run(options, second, again=done)
    assert again.complaints == [], told(again)
    repeated = [(a.do, a.who, a.fault) for a in actions(second / "journal.jsonl")]
    assert repeated[: len(done)] == [(a.do, a.who, a.fault) for a in done]
