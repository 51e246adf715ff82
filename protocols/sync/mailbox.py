"""What waits for nodes that come and ask instead of holding a line (HTTP): in memory and bounded, the newest kept.

Everything the hub says is absolute or comes again: what is forgotten here costs time, never a fact.
"""

from __future__ import annotations

from collections import deque
from typing import Final

MAILBOX_BYTES: Final = 1_000_000
MAILBOX_MESSAGES: Final = 256
MAILBOXES: Final = 2_000


class Mailboxes:
    """Messages by node, oldest first. Of too many nodes the one that was written to longest ago is forgotten."""

    def __init__(self, *, most_bytes: int = MAILBOX_BYTES, most_messages: int = MAILBOX_MESSAGES, most_nodes: int = MAILBOXES) -> None:
        self._most_bytes, self._most_messages, self._most_nodes = most_bytes, most_messages, most_nodes
        self._boxes: dict[str, deque[bytes]] = {}
        self._bytes: dict[str, int] = {}
        self.forgotten = 0
        """messages that had to give way"""

    def put(self, node: str, payload: bytes) -> None:
        """Keep a message for a node; what is older gives way."""
        box = self._boxes.pop(node, None) or deque()
        self._boxes[node] = box
        box.append(payload)
        self._bytes[node] = self._bytes.get(node, 0) + len(payload)
        while len(box) > 1 and (self._bytes[node] > self._most_bytes or len(box) > self._most_messages):
            self._bytes[node] -= len(box.popleft())
            self.forgotten += 1
        if len(self._boxes) > self._most_nodes:
            self.drop(next(iter(self._boxes)))

    def waits(self, node: str) -> bool:
        """Is there anything for this node?"""
        return bool(self._boxes.get(node))

    def take(self, node: str, most_bytes: int) -> list[bytes]:
        """What waits for a node, oldest first, as much as fits; at least one message where there is any. It is not kept any longer."""
        box, size = self._boxes.get(node), 0
        taken: list[bytes] = []
        while box and (not taken or size + len(box[0]) <= most_bytes):
            taken.append(box.popleft())
            size += len(taken[-1])
        self._bytes[node] = self._bytes.get(node, 0) - size
        if not box:
            self._boxes.pop(node, None)
            self._bytes.pop(node, None)
        return taken

    def drop(self, node: str) -> None:
        """Forget what waits for a node."""
        self.forgotten += len(self._boxes.pop(node, ()))
        self._bytes.pop(node, None)
