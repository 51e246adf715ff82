"""Edges, Mosquitto, a hub, Kafka, projectors and PostgreSQL, each killed: what was answered with yes is in PostgreSQL, once, in order."""

from __future__ import annotations

from pathlib import Path
from random import SystemRandom
from typing import Final

import pytest

from tests.chaos.plan import KILL
from tests.real.plan import KINDS
from tests.real.report import text
from tests.real.run import RealOptions, run
from tests.real.sabotage import SABOTAGES
from tests.support.needs import needs

pytestmark = [pytest.mark.slow, needs("mosquitto"), needs("kafka"), needs("postgres")]

DOWN_MS: Final = 12_000
"""how long Kafka is away here: shorter than minutes, so that `make test` ends; `make real` has it away for two"""
LEAST_OK: Final = 150
TOGETHER: Final = ("says-nothing-of-kafka", "identities-by-copy")
"""those that show in every run; the others need a moment that a slow machine may miss: `python -m tests.real --sabotage NAME`"""


def test_everything_said_yes_to_is_in_postgresql_once_and_in_order_whoever_is_killed(tmp_path: Path) -> None:
    seed = SystemRandom().randrange(1_000_000)
    workers = 1 + seed % 2  # of the hub: one without leases, or two that share the edges
    outcome = run(RealOptions(seed, kills=11, edges=3, workers=workers, writers=1, least_ok=LEAST_OK, down_ms=DOWN_MS), tmp_path)
    told = f"{text(outcome)}\nreplay: python -m tests.real --replay {outcome.journal}"
    assert outcome.complaints == [], told
    assert all(outcome.counts[f"{KILL} {kind}"] for kind in KINDS), told
    assert outcome.counts["answered"] == outcome.counts["found"] >= LEAST_OK, told
    assert outcome.counts["met in the midst of a transaction"] == 1, told
    assert outcome.counts["files wiped"], told


def test_products_that_break_their_promise_are_caught(tmp_path: Path) -> None:
    """Several mistakes at once, each of which must be named."""
    seed, sabotage = SystemRandom().randrange(1_000_000), "+".join(TOGETHER)
    outcome = run(RealOptions(seed, kills=0, writers=1, down_ms=DOWN_MS, quiet_s=30.0, sabotage=sabotage), tmp_path)
    unseen = [name for name in TOGETHER if not any(said.startswith(SABOTAGES[name].caught_as) for said in outcome.complaints)]
    assert unseen == [], f"{unseen} were not caught\n{text(outcome)}"
