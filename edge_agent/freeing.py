"""What an edge frees of its own streams, and when: settled, older than the floor, in every backup of the central store (sync.md, rule 11).

Where no backup is configured, only under pressure of the budget. Only what the hub of this incarnation says counts.
"""

from __future__ import annotations

from edge_agent.timekeeping import EdgeClock
from protocols.freeing import Freeing
from protocols.ledger import Ledger
from protocols.sync.uplink import Uplink


class EdgeFreeing:
    """See the module. Called inside the core's transaction whenever the hub was heard."""

    def __init__(self, ledger: Ledger, uplink: Uplink, clock: EdgeClock, floor_ms: int) -> None:
        self._ledger, self._uplink, self._clock = ledger, uplink, clock
        self._freeing = Freeing(ledger, floor_ms)

    @property
    def freed(self) -> int:
        """Facts freed since the start."""
        return self._freeing.freed

    def heard(self, *, pressed: bool) -> None:
        """Mark what the hub calls freeable now, and free what has been for long enough. A message that was ignored moves nothing."""
        hub_ms, may = self._clock.patient_ms(self._uplink), self._uplink.backed_up or pressed
        if hub_ms is None:
            return
        for stream in self._ledger.own_streams():
            freeable = self._uplink.freeable(stream)
            self._freeing.mark(stream, freeable, hub_ms)
            if may:
                up_to = min(self._freeing.due(stream, freeable, hub_ms), self._ledger.first_quarantined(stream) - 1)
                if self._freeing.free(stream, up_to, hub_ms):
                    self._ledger.forget_requests(hub_ms)
