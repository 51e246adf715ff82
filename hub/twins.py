"""Two machines that live under one name at once: a cloned card, or a copy that was restored beside the original.

A feed leaves out what a node said itself; of twins each must be sent what the other said. They share a name, a key and topics, and nothing
tells them apart but their streams: the younger one goes on in an epoch of its own. A fact of an older stream that comes when a younger one
has begun shows that both live. Facts of an older stream that were only late show the same: its node is then sent what it has, which
costs bytes and nothing else.

Until the younger one says its first fact, nobody knows of it. What the other said by then was left out for both: so when a stream begins
beside another of its node, whoever follows its sites compares once more. An epoch that began for another reason costs that, too.
"""

from __future__ import annotations

from protocols.ledger import Ledger
from protocols.streams import Stream


class Twins:
    """See the module. The knowledge of one start, begun with what the log shows by the times at which facts were taken in."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._youngest: dict[str, int] = {}
        """of each node the order stream that was met last, by its local number"""
        self._names: dict[str, None] = {}
        for stream in ledger.log.all():
            if stream.key.cls == 0 and stream.chain.runs:
                self._begun(stream)

    def __contains__(self, node: object) -> bool:
        return node in self._names

    def meet(self, sid: int) -> bool:
        """A fact of this stream was logged. True: that is how its node is found to have a twin, or may have had one for some time."""
        stream = self._ledger.log.by_sid(sid)
        node = stream.key.node
        youngest = self._youngest.get(node, 0)
        if youngest == sid or stream.key.cls:
            return False
        if youngest < sid:
            self._youngest[node] = sid
            return bool(youngest)
        return self._found(node)

    def _begun(self, stream: Stream) -> None:
        node = stream.key.node
        older, self._youngest[node] = self._youngest.get(node), stream.sid
        if older is not None and self._at(older, "DESC") > self._at(stream.sid, "ASC"):
            self._found(node)

    def _at(self, sid: int, order: str) -> int:
        """When the lowest or highest fact of a stream that is still logged was taken in; 0 where none is."""
        row = self._ledger.db.one(f"SELECT at_ms FROM log WHERE sid=? ORDER BY seq {order} LIMIT 1", (sid,))
        return int(row[0]) if row is not None else 0

    def _found(self, node: str) -> bool:
        new = node not in self._names
        self._names[node] = None
        return new
