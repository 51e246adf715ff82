"""What only PostgreSQL reads in its own way: pages of orders, totals. Writes nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager

from hub.store.pg import Pg
from hub.store.port import PAGE_ORDERS, OrderQuery, Page
from hub.store.queries import CANDIDATES, ORDER, Queries, cursor, filters, pattern, read_cursor
from protocols.policy import Policies


class PgQueries(Queries):
    """Reads over one connection."""

    def __init__(self, db: Pg, policies: Policies) -> None:
        super().__init__(db, policies)
        self._pg = db

    def moment(self) -> AbstractContextManager[None]:
        """See `Queries`."""
        return self._pg.moment()

    def orders(self, query: OrderQuery) -> Page:
        """See `CentralStore.orders`."""
        limit = min(max(query.limit, 1), PAGE_ORDERS)
        where, params = filters(query, "ILIKE")
        with self.moment():
            few = self._few(query)
            if few is not None:
                where.append("v.okey = ANY(?)")
                params.append(few)
            if query.cursor is not None:
                where.append("v.pos < ?")
                params.append(read_cursor(query.cursor))
            sql = f"SELECT {ORDER} FROM view v{' WHERE ' if where else ''}{' AND '.join(where)} ORDER BY v.pos DESC LIMIT ?"
            rows = self._db.query(sql, (*params, limit + 1))
            views = [self.view_of(r) for r in rows[:limit]]
        return Page(views, cursor(rows[limit - 1][-1]) if len(rows) > limit else None)

    def _few(self, query: OrderQuery) -> list[int] | None:
        """The orders among which the page is to be found, if some filter leaves few; None: walk from the newest, matches are common."""
        for column, value in (("site", query.site), ("region", query.region)):
            if value is not None:
                found = self._db.query(f"SELECT okey FROM orders WHERE {column}=? LIMIT ?", (value, CANDIDATES + 1))
                if len(found) <= CANDIDATES:
                    return [okey for (okey,) in found]
        if not query.text:
            return None
        found = self._db.query("SELECT okey FROM orders WHERE order_id ILIKE ? ESCAPE '\\' LIMIT ?", (pattern(query.text), CANDIDATES + 1))
        return [okey for (okey,) in found] if len(found) <= CANDIDATES else None

    def totals(self) -> dict[str, int]:
        """See `CentralStore.totals`. Facts are summed from their counts by stream: counting the log takes a second for ten million."""
        row = self._db.one(
            """SELECT (SELECT count(*) FROM states), (SELECT coalesce(sum(orderly), 0)::bigint FROM streams),
                 (SELECT count(*) FROM clashes WHERE state = 0),
                 (SELECT count(*) FROM quarantine q LEFT JOIN fixes f USING (sid, seq, h) WHERE f.sid IS NULL)"""
        )
        return dict(zip(("orders", "facts", "conflicts", "quarantined"), row or (0, 0, 0, 0), strict=True))
