"""Nodes that come over HTTP instead of holding a line: signed in like at the broker's door, their mail kept while they come.

What the hub publishes goes to the broker and, for a node that asked within the last minutes, into its mailbox. For the event loop's
thread; only `published` may be called from any other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from hub.broker_access import Gatekeeper, Lookup, Member
from protocols.codec import Kind
from protocols.errors import InvalidInput, LedgerBusy, LedgerFull
from protocols.sync.mailbox import Mailboxes
from protocols.sync.parcel import PARCEL_BYTES
from protocols.topics import parse_topic
from protocols.transport.longpoll import LongPoll

LIVE_S: Final = 300.0
"""a mailbox is kept so long after its node asked last"""
_KIND_AT: Final = 3
"""where the kind of a message stands in its bytes"""


class Post:
    """See the module. `lookup` gives a node's grant; `came` takes a message as the broker's would come, False when there is no room; `full`
    says whether the hub's ledger has reached its budget; `turned_away` hears who was not let in, and why."""

    def __init__(
        self,
        lookup: Lookup,
        came: Callable[[str, bytes], bool],
        full: Callable[[], bool],
        turned_away: Callable[[str, str], object] = lambda _name, _why: None,
    ) -> None:
        self._lookup, self._came, self._full, self._turned_away = lookup, came, full, turned_away
        self._gate: Gatekeeper | None = None
        self._boxes = Mailboxes()
        self._poll = LongPoll(self._boxes.waits)
        self._live: dict[str, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def sign_in(self, name: str, password: str) -> bool:
        """Whether this is the password of an admitted node."""
        if self._gate is None:
            self._gate = Gatekeeper(self._lookup)
        found = await self._gate.admit_node(name, password)
        if isinstance(found, Member):
            return True
        self._turned_away(name, found)
        return False

    async def exchange(self, node: str, payloads: Sequence[bytes], wait_s: float) -> list[bytes]:
        """Hand over what a node sent, and give what waits for it, waiting a while where there is nothing. `node` "": nobody's mail.

        Errors: LedgerFull (no frame is taken at the budget), LedgerBusy: some may have been taken; they are known when they come again.
        """
        if self._full() and any(payload[_KIND_AT : _KIND_AT + 1] == bytes((Kind.FRAME,)) for payload in payloads):
            raise LedgerFull("the hub's ledger has reached its budget", remedy="Keep it, and come again later.")
        if node:
            self._note(node)
        for payload in payloads:
            if not self._came(node, payload):
                raise LedgerBusy("too much waits for the disk here", remedy="Send it again in a moment.")
        if not node:
            return []
        await self._poll.until(node, wait_s)
        self._note(node)
        return self._boxes.take(node, PARCEL_BYTES // 2)

    def _note(self, node: str) -> None:
        self._loop = asyncio.get_running_loop()
        now_s = time.monotonic()
        self._live[node] = now_s + LIVE_S
        for gone in [name for name, until_s in self._live.items() if until_s < now_s]:
            del self._live[gone]
            self._boxes.drop(gone)

    def comes(self, node: str) -> bool:
        """Has this node come lately? From any thread."""
        return node in self._live

    def published(self, topic: str, payload: bytes) -> None:
        """What the hub says on a topic: kept for a node that comes over HTTP. From any thread."""
        if not self._live or self._loop is None:
            return
        try:
            node = parse_topic(topic)[0].node
        except InvalidInput:
            return
        if node in self._live:
            try:
                self._loop.call_soon_threadsafe(self._put, node, payload)
            except RuntimeError:  # the loop has ended: nobody comes any more
                return

    def _put(self, node: str, payload: bytes) -> None:
        self._boxes.put(node, payload)
        self._poll.ring()

    def hush(self) -> None:
        """Let everybody go who waits: the server stops."""
        self._poll.close()

    def close(self) -> None:
        """End the threads. Idempotent."""
        self.hush()
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.close()
