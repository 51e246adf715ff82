"""What goes beside a message on MQTT 5: trace context, and how long a broker need keep it. Pure decoration; see `transport.port.Extra`.

Only frames of telemetry expire, and only after their author would have sent them again anyway (the longest wait between two attempts,
twice): an expiry that came sooner could let a slow hub and a busy node go round for ever. What expires is still owed, since only receipts
free facts. Receipts, answers, frames of orders and what nodes say of themselves never expire.
"""

from __future__ import annotations

from protocols.codec import FrameHeader, Kind
from protocols.ledger import ORDERS
from protocols.sync.uplink import Out, UplinkSettings
from protocols.trace import frame_traceparent
from protocols.transport.port import PLAIN, Extra


def beside(out: Out, settings: UplinkSettings) -> Extra:
    """For something to send."""
    if out.kind is not Kind.FRAME:
        return PLAIN
    header = FrameHeader.parse(out.header)
    expiry_s = None if header.cls == ORDERS else 2 * settings.retry_most_ms // 1_000 + 1
    return Extra(expiry_s, frame_traceparent(header))
