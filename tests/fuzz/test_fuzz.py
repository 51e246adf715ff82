"""Every crasher that was ever found, the seeds, and a few hundred mutations of each target; the long run is `make fuzz`."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.fuzz.mutate import mutated
from tests.fuzz.targets import TARGETS, run

CRASHERS = Path(__file__).parent / "crashers"
FOUND = sorted(path.relative_to(CRASHERS).as_posix() for path in CRASHERS.glob("*/*") if path.is_file())
INPUTS = {"hub": 60, "edge": 60, "feed": 100}
"""cores are made anew for each input; all others: 400"""
BY_TARGET = pytest.mark.parametrize("name", TARGETS)


@BY_TARGET
def test_good_inputs_are_taken(name: str) -> None:
    for seed in TARGETS[name].seeds():
        run(name, seed)


@BY_TARGET
def test_mutations_raise_nothing_but_what_the_decoder_promises(name: str) -> None:
    seed = Random().getrandbits(32)
    rng, seeds = Random(seed), list(TARGETS[name].seeds())
    for n in range(INPUTS.get(name, 400)):
        data = mutated(rng, seeds)
        try:
            run(name, data)
        except Exception as error:  # boundary: said with what it takes to do it again
            raise AssertionError(f"seed {seed}, input {n}: {type(error).__name__}: {error}; {data.hex()}") from error


def test_crashers_stay_harmless() -> None:
    for path in FOUND:
        run(path.split("/")[0], (CRASHERS / path).read_bytes())


def test_a_target_that_lets_something_else_out_is_seen() -> None:
    """The net is not blind: a decoder that raises what it must not is a finding."""
    from tests.fuzz.targets import _only

    with pytest.raises(IndexError):
        _only(ValueError)(lambda data: [].__getitem__(0))(b"")
