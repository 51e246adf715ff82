"""What every engine's store answers about orders, in the same way: by the queries of its connection."""

from __future__ import annotations

from hub.store.port import ConflictView, Disputed, EventView, OrderQuery, OrderView, Page
from hub.store.queries import Queries
from protocols.policy import Policies


class StoreViews:
    """The reading half of `hub.store.port.CentralStore`. Its heirs set both names when they open."""

    _queries: Queries
    _policies: Policies

    def orders(self, query: OrderQuery) -> Page:
        """See `CentralStore.orders`."""
        return self._queries.orders(query)

    def order(self, org: str, order_id: str) -> OrderView | None:
        """See `CentralStore.order`."""
        return next((o for o in self.find(order_id) if o.org == org), None)

    def find(self, order_id: str) -> list[OrderView]:
        """See `CentralStore.find`."""
        return self._queries.find(order_id)

    def events(self, org: str, order_id: str) -> list[EventView]:
        """See `CentralStore.events`."""
        return self._queries.events(org, order_id)

    def conflicts(self, *, open_only: bool = False, limit: int = 200) -> list[ConflictView]:
        """See `CentralStore.conflicts`."""
        return self._queries.conflicts(open_only=open_only, limit=limit)

    def conflict(self, clash_id: str) -> ConflictView | None:
        """See `CentralStore.conflict`."""
        return self._queries.conflict(clash_id)

    def judged_by(self) -> Policies:
        """See `CentralStore.judged_by`."""
        return self._policies

    def disputed(self, org: str, order_id: str) -> Disputed:
        """See `CentralStore.disputed`."""
        return self._queries.disputed(org, order_id)

    def totals(self) -> dict[str, int]:
        """See `CentralStore.totals`."""
        return self._queries.totals()
