"""What was made of short rows lately, within bounds of memory: many rows are looked at again soon, and the long ones are few."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, Final, TypeVar

ROW_BYTES: Final = 1_024
"""of a row that is remembered: with what was made of it, some kilobytes"""
T = TypeVar("T")


def remembered(most: int) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """For a pure function of a row and of little else, whose answer nobody changes: it is remembered for so many short rows."""

    def around(made: Callable[..., T]) -> Callable[..., T]:
        kept = lru_cache(maxsize=most)(made)

        @wraps(made)
        def ask(row: bytes, *more: Any) -> T:
            return kept(row, *more) if len(row) <= ROW_BYTES else made(row, *more)

        return ask

    return around
