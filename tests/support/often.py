"""Seeds of a test that plays one world each: all of them in `make test`, the first few in `make quick`."""

from __future__ import annotations

from typing import Any

import pytest


def seeds(often: int, quick: int) -> list[Any]:
    """`often` seeds, of which all but the first `quick` are left out of `make quick`."""
    return [pytest.param(seed, marks=pytest.mark.slow if seed >= quick else ()) for seed in range(often)]
