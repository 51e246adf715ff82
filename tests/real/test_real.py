"""Edges, Mosquitto, a hub, Kafka, projectors and PostgreSQL, each killed: what was answered with yes is in PostgreSQL, once, in order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from random import SystemRandom
from typing import Final

import pytest

from tests.chaos.plan import KILL, Action
from tests.real.__main__ import main
from tests.real.plan import BROKER, EDGE, HUB, KAFKA, KINDS, POSTGRES, PROJECTOR, plan
from tests.real.report import text
from tests.real.run import RealOptions, recorded, run
from tests.real.sabotage import SABOTAGES
from tests.support.needs import needs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("copies"), needs("mosquitto"), needs("kafka"), needs("postgres")]

DOWN_MS: Final = 12_000
"""how long Kafka is away here: shorter than minutes, so that `make test` ends; `make real` has it away for two"""
CALM_MS: Final = (40, 250)
"""pauses of writers: some are in the midst of a request at each kill, and there is less to carry in the end"""
LEAST_OK: Final = 150
TOGETHER: Final = ("says-nothing-of-kafka", "identities-by-copy", "settled-by-kafka", "commits-in-the-midst")
"""`a-producer-for-ever` never comes to rest, so that nothing else could be judged: `python -m tests.real --sabotage NAME`"""

NAMES: Final[Mapping[str, Sequence[str]]] = {
    kind: [f"{kind}-1", f"{kind}-2"] if kind in (EDGE, PROJECTOR) else [kind] for kind in (EDGE, BROKER, HUB, PROJECTOR, POSTGRES, KAFKA)
}


def test_everything_said_yes_to_is_in_postgresql_once_and_in_order_whoever_is_killed(tmp_path: Path) -> None:
    seed = SystemRandom().randrange(1_000_000)
    workers = 1 + seed % 2  # of the hub: one without leases, or two that share the edges
    options = RealOptions(seed, kills=11, edges=3, workers=workers, writers=1, pause_ms=CALM_MS, least_ok=LEAST_OK, down_ms=DOWN_MS)
    outcome = run(options, tmp_path)
    told = f"{text(outcome)}\nreplay: python -m tests.real --replay {outcome.journal}"
    assert outcome.complaints == [], told
    assert all(outcome.counts[f"{KILL} {kind}"] for kind in KINDS), told
    assert outcome.counts["answered"] == outcome.counts["found"] >= LEAST_OK, told
    assert outcome.counts["met in the midst of a transaction"] == 1, told
    assert outcome.counts["files wiped"], told


def test_products_that_break_their_promise_are_caught_also_when_a_journal_is_played_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several mistakes at once, each of which must be named; played from a journal, as people replay one."""
    options = RealOptions(
        SystemRandom().randrange(1_000_000),
        kills=0,
        edges=2,
        writers=1,
        down_ms=DOWN_MS,
        pause_ms=CALM_MS,
        quiet_s=15.0,
        name_s=3.0,
        sabotage="+".join(TOGETHER),
    )
    done = plan(options.seed, NAMES, {}, options.kills, options.down_ms)
    journal = written(tmp_path / "journal.jsonl", options, done)
    assert main(["--replay", str(journal), "--keep", str(tmp_path / "kept"), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    unseen = [name for name in TOGETHER if not any(said.startswith(SABOTAGES[name].caught_as) for said in result["complaints"])]
    assert unseen == [], f"{unseen} were not caught: {result | {'complaints': result['complaints'][:20]}}"
    (kept,) = (tmp_path / "kept").iterdir()
    options_again, done_again = recorded(kept / "journal.jsonl")
    assert options_again == options
    assert [(a.do, a.who) for a in done_again[: len(done)]] == [(a.do, a.who) for a in done]


def written(path: Path, options: RealOptions, done: Sequence[Action]) -> Path:
    """A journal of a run, as if it had been played exactly as planned, with lines of others between."""
    lines: list[dict[str, object]] = [{"at_ms": 9_000, "do": "started", "who": KAFKA}, {"at_ms": 0, "do": "begin", **asdict(options)}]
    for action in done:
        lines += [{"at_ms": action.at_ms, "do": action.do, "who": action.who}, {"at_ms": action.at_ms + 1, "do": "op", "op": 1}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"at_ms": 99')  # cut off, as a crash leaves it
    return path


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (None, "cannot be read"),
        ({"do": "kill", "who": "hub"}, "no line says how it was begun"),
        ({"do": "begin", "engine": "amqtt", "gap_ms": [1, 2]}, "tests.chaos"),
        ({"do": "begin", "engine": "real", "gap_ms": [1, 2], "legs": 4}, "another version"),
    ],
    ids=["no-file", "no-beginning", "other-suite", "other-version"],
)
def test_what_is_no_journal_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], first: dict[str, object] | None, words: str
) -> None:
    path = tmp_path / "journal.jsonl"
    if first is not None:
        path.write_text(json.dumps({"at_ms": 0, **first}) + "\n")
    assert main(["--replay", str(path)]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
