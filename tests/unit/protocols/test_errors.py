"""How an error and its remedy read on one line."""

from __future__ import annotations

import pytest

from protocols.errors import sentence


@pytest.mark.parametrize(
    ("reason", "remedy", "says"),
    [
        ("It is away", "See that it runs.", "It is away. See that it runs."),
        ("It is away.", "See that it runs.", "It is away. See that it runs."),
        ("It is away", "it is tried again", "It is away; it is tried again"),
        ("It is\n  away", "", "It is away"),
    ],
    ids=["a sentence", "after a stop", "a clause", "nothing"],
)
def test_an_error_and_its_remedy_are_one_line(reason: str, remedy: str, says: str) -> None:
    assert sentence(reason, remedy) == says
