"""A program that starts is not looked through for garbage; later it is, but for what it started with."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

from tests.support.patience import WITHIN_S

BEGIN: Final = """
import gc
from protocols.starting import uncollected
collections = []
gc.callbacks.append(lambda phase, info: collections.append(phase))
def grow():
    return [[n] for n in range(100_000)]
"""


def said(code: str) -> list[str]:
    """What a program of its own prints, by words: this one's collector stays as it is."""
    done = subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, timeout=WITHIN_S, check=True)
    return done.stdout.split()


def test_nothing_is_collected_while_a_program_starts_and_what_it_started_with_stays() -> None:
    code = "with uncollected():\n    kept = grow()\nprint(len(collections), gc.isenabled(), gc.get_freeze_count() > 100_000)"
    assert said(code) == ["0", "True", "True"]


def test_what_comes_later_is_collected_also_where_the_start_failed() -> None:
    code = "try:\n    with uncollected():\n        raise ImportError\nexcept ImportError:\n    kept = grow()\n"
    code += "print(len(collections) > 0, gc.isenabled())"
    assert said(code) == ["True", "True"]
