"""I10: who may hold whose orders. An edge knows the orders of its own organisation only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.sim.edgeproc import EdgeProc


def strangers_orders(edge: EdgeProc) -> Iterator[str]:
    """Orders on an edge's disk that are none of its business."""
    for org, order_id in edge.disk.db.query("SELECT org, order_id FROM orders WHERE org != ? ORDER BY okey", (edge.address.org,)):
        yield f"I10 {edge.name} of {edge.address.org} holds {order_id} of {org}"
