"""Who a hub is, what it is told to keep to, and what its core wants sent."""

from __future__ import annotations

from dataclasses import dataclass

from hub.credit import ROOM_FACTS


@dataclass(frozen=True, slots=True)
class HubIdentity:
    """Who this hub is."""

    org: str
    region: str
    node: str
    public_key: bytes
    version: str = "0.1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """`credit_facts`: how many facts each node may have under way, `room_facts`: all of them together. `budget_bytes`: of the hub's ledger
    file; full, no credit is granted.

    `pressure_percent` of the budget: beyond it settled facts go even where no backup is configured. `floor_ms`: they stay at least so long.
    `hold_ms`: for so long a receipt to who says little waits for the store's word (`hub.holding`).
    """

    credit_facts: int = 10_000
    room_facts: int = ROOM_FACTS
    budget_bytes: int = 20_000_000_000
    pressure_percent: int = 80
    floor_ms: int = 7 * 86_400_000
    hold_ms: int = 0


@dataclass(frozen=True, slots=True)
class Publish:
    """Send this to a node."""

    topic: str
    payload: bytes
