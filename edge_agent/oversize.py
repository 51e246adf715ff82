"""Own facts that alone are too large for the way to the hub: they step aside into this edge's quarantine, where people see them and why.

Nothing is lost by that: the fact stays in the ledger and is tried once an hour. What helps: a larger limit at the broker; another way, as a
stick or a gateway; or a shorter fact in its place (`queue quarantine resubmit`), which travels at once. When the hub says that it has
it after all, it is in quarantine no longer.
"""

from __future__ import annotations

from typing import Final

from protocols.ledger import Ledger
from protocols.quarantine import State
from protocols.sync.uplink import Uplink

REASON: Final = "too large for the line"


class Oversize:
    """See the module. Every method but the first runs inside the owner's transaction."""

    def __init__(self, ledger: Ledger, uplink: Uplink) -> None:
        self._ledger, self._uplink = ledger, uplink
        items = ledger.quarantine_rows.items(state=State.OPEN)
        self._aside = {item.identity: None for item in items if item.reason.startswith(REASON) and ledger.log.by_sid(item.identity[0]).own}

    def refused(self, digest: bytes, size_bytes: int, wall_ms: int, now: int) -> None:
        """The line did not take a frame for its size: it is cut smaller; where it holds one fact, that steps aside."""
        alone = self._uplink.on_too_large(digest, now)
        if alone is None:
            return
        sid, seq = alone
        h = self._ledger.log.hash_at(self._ledger.log.by_sid(sid), seq)
        if h is not None:
            remedy = "raise max_packet_size at the broker, carry it another way (queue export), or resubmit it shorter"
            self._ledger.quarantine(sid, seq, h, f"{REASON}: its frame takes {size_bytes} bytes; {remedy}", wall_ms)
            self._aside[sid, seq, h] = None

    def heard(self) -> None:
        """The hub spoke: what it has now is in nobody's way any more."""
        for identity in list(self._aside):
            if self._uplink.believed(self._ledger.log.by_sid(identity[0])).covers(identity[1], identity[1]):
                self._ledger.quarantine_rows.forget(identity)
                del self._aside[identity]
