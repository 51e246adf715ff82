"""SQL that runs alike on SQLite and on PostgreSQL: the connection as shared modules see it, with `?` for each parameter.

What is written against this port keeps to what both understand: `ON CONFLICT` in place of `INSERT OR …`, no `LIMIT -1`, flags as integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol


class Sql(Protocol):
    """One connection inside its owner's transaction. Errors of every method: LedgerFull, LedgerBusy, LedgerBroken."""

    def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a statement."""

    def one(self, sql: str, params: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """The first row, or None."""

    def run(self, sql: str, params: Sequence[Any] = ()) -> None:
        """Execute one statement for its effect."""

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Execute one statement for each row."""
