"""The claims of a hub's workers as they travel: a line of its own to the broker, on which each says what it holds, and hears the others.

A claim is retained on its partition's topic, so that a worker that was away hears it when it is back. Each says its own again whenever the
line is up anew, and whenever somebody claims a partition of its with an older fence: that one has to hear of the newer. What is forged,
malformed or old changes nothing. Nothing depends on claims but time: without them a worker that is cut off from the store alone would
speak, beside the one that took over, until the store answers it.

A broker with access rules of before lets no claim through, and may say nothing of it (MQTT 3.1.1). So it is looked after whether this
worker's own come back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hub.line import Line
from hub.store.leases import Me
from protocols.claims import Claim, read_claim, seal_claim
from protocols.errors import DecodeError
from protocols.topics import claims_of
from protocols.transport.port import Message, Transport
from protocols.trust import NodeKey, verify

log = logging.getLogger(__name__)
ECHO_MS: Final = 30_000
"""a claim that has not come back for so long does not get through"""


@dataclass(frozen=True, slots=True)
class Place:
    """Whose claims these are: the hub's, by organisation and name, signed with its key; and which process of it this is."""

    org: str
    hub: str
    key: NodeKey
    me: Me


class Claims:
    """See the module. `held`: what this worker holds now, with its fences. `heard`: another has a partition with that fence."""

    def __init__(
        self, place: Place, held: Callable[[], Mapping[int, int]], heard: Callable[[Claim], None], mono_ms: Callable[[], int]
    ) -> None:
        self._place, self._held, self._heard, self._mono_ms = place, held, heard, mono_ms
        self._line: Line | None = None
        self._unheard: dict[int, tuple[int, int]] = {}
        """of what was said: the fence, and when, until it comes back"""

    # ------------------------------------------------------------ its life

    def start(self, transport: Callable[[Sequence[str]], Transport]) -> None:
        """Begin to connect. `transport`: a line to the broker that reads these topics."""
        self._line = Line(transport([claims_of(self._place.org, self._place.hub)]), self._came, self._came_up)
        self._line.start()

    async def stop(self) -> None:
        """Say goodbye. Idempotent."""
        if self._line is not None:
            await self._line.stop()

    # ------------------------------------------------------------ what is said and heard

    def say(self, fences: Mapping[int, int]) -> None:
        """This worker holds these."""
        line, (org, hub, key, me) = self._line, (self._place.org, self._place.hub, self._place.key, self._place.me)
        if line is None or not line.connected:
            return  # all that is held is said when it is
        for partition, fence in fences.items():
            self._unheard[partition] = (fence, self._mono_ms())
            line.publish(claims_of(org, hub, partition), seal_claim(Claim(partition, fence, me.worker, me.boot), key.sign), retain=True)

    def _came_up(self) -> None:
        self._unheard = {}
        self.say(self._held())

    def _came(self, message: Message) -> None:
        try:
            said = read_claim(message.payload)
            claim, fence = said.claim, self._held().get(said.claim.partition)
            if self._unheard.get(claim.partition, (0, 0))[0] == claim.fence:
                del self._unheard[claim.partition]
            if fence is None or fence == claim.fence or message.topic != claims_of(self._place.org, self._place.hub, claim.partition):
                return
            said.check(self._place.key.public, verify)
        except DecodeError as error:
            log.warning("A claim was ignored: %s", error)
            return
        if claim.fence > fence:
            self._heard(claim)
        else:
            self.say({claim.partition: fence})

    # ------------------------------------------------------------ shown

    def finding(self) -> str:
        """Why claims do not get through; empty while they do, and while the broker is away."""
        if self._line is None or not self._line.connected:
            return ""
        held, since_ms = self._held(), self._mono_ms() - ECHO_MS
        lost = [p for p, (fence, at_ms) in self._unheard.items() if held.get(p) == fence and at_ms < since_ms]
        if not lost:
            return ""
        return (
            f"the broker does not pass on the claims of workers ({len(lost)} partitions): one that is cut off from the store alone does "
            "not hear that another took over; write the broker's access rules anew (longshore-hub broker acl)"
        )
