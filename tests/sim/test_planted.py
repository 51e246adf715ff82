"""The simulation is not blind: each planted bug is caught within a stated number of worlds, and the same world without it is clean."""

from __future__ import annotations

import pytest

from tests.sim.document import names_planted, seed_planted
from tests.sim.planted import PLANTS, Plant, catch


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_planted_bug_is_caught(plant: Plant) -> None:
    caught = catch(plant, seed_planted(plant.name))  # the worlds before that one let it pass: who wants to see that plays them all
    assert caught.worlds, f"missed in {plant.within} worlds"
    assert not caught.control, f"world {caught.seed} complains without the bug: {caught.control}"


def test_there_are_enough_of_them_and_each_has_a_name() -> None:
    assert len(PLANTS) >= 30
    assert len({plant.name for plant in PLANTS}) == len(PLANTS)


def test_most_of_them_are_looked_for_first_where_they_were_found() -> None:
    seeds = {plant.name: seed_planted(plant.name) for plant in PLANTS}
    assert all((seeds[plant.name] < 0) == (plant.story is not None) for plant in PLANTS)


def test_the_document_lists_all_of_them() -> None:
    assert names_planted() == [plant.name for plant in PLANTS], "run: python -m tests.sim --planted --write"
