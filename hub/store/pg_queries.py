"""What only PostgreSQL reads in its own way: pages of orders, totals. Writes nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from hub.store.pg import Pg
from hub.store.queries import CANDIDATES, Queries, pattern
from protocols.policy import Policies


class PgQueries(Queries):
    """Reads over one connection."""

    like, unindexed = "ILIKE", ""

    def __init__(self, db: Pg, policies: Policies) -> None:
        super().__init__(db, policies)
        self._pg = db

    def moment(self) -> AbstractContextManager[None]:
        """See `Queries`."""
        return self._pg.moment()

    def _among(self, few: list[int]) -> tuple[str, Any]:
        """See `Queries`."""
        return "v.okey = ANY(?)", few

    def _standing(self, column: str, value: str) -> list[int]:
        """See `Queries`."""
        return [okey for (okey,) in self._db.query(f"SELECT okey FROM orders WHERE {column}=? LIMIT ?", (value, CANDIDATES + 1))]

    def _holding(self, text: str) -> list[int] | None:
        """See `Queries`."""
        found = self._db.query("SELECT okey FROM orders WHERE order_id ILIKE ? ESCAPE '\\' LIMIT ?", (pattern(text), CANDIDATES + 1))
        return [okey for (okey,) in found] if len(found) <= CANDIDATES else None

    def totals(self) -> dict[str, int]:
        """See `CentralStore.totals`. Facts are summed from their counts by stream: counting the log takes a second for ten million."""
        row = self._db.one(
            """SELECT (SELECT count(*) FROM states), (SELECT coalesce(sum(orderly), 0)::bigint FROM streams),
                 (SELECT count(*) FROM clashes WHERE state = 0),
                 (SELECT count(*) FROM quarantine q LEFT JOIN fixes f USING (sid, seq, h) WHERE f.sid IS NULL)"""
        )
        return dict(zip(("orders", "facts", "conflicts", "quarantined"), row or (0, 0, 0, 0), strict=True))
