"""Requests that come twice: what makes two of them the same, and the refusal of one that only looks like another. Pure."""

from __future__ import annotations

from hashlib import blake2b

from protocols.codec import pack
from protocols.errors import Conflict
from protocols.event import OrderEvent
from protocols.settling import Settlement
from protocols.telemetry import Reading, telemetry_row


def conflict(key: str) -> Conflict:
    """The same idempotencyKey with other content."""
    return Conflict(f"idempotencyKey {key!r} was used before for another event", remedy="use a new key for a new event")


def content_digest(event: OrderEvent) -> bytes:
    """What makes two requests the same: the event without its key, or what a settlement was asked for. 16 bytes."""
    if isinstance(event, Settlement):
        return event.request
    values = [
        event.org, event.order_id, event.source, int(event.status), event.happened_ms, int(event.quality), event.region, event.site,
        event.actor, event.details,
    ]  # fmt: skip
    return blake2b(pack(values), digest_size=16).digest()


def reading_digest(reading: Reading) -> bytes:
    """`content_digest` of a reading; never that of an event."""
    return blake2b(pack(telemetry_row(reading, 0)), digest_size=16).digest()
