"""A hub that came back older than it was: what nodes give back of what it once sent them, and what nobody has any more (rule 12).

Nodes keep the hub's own signed messages while facts in them are not settled, and send them again to a hub that does not hold those facts.
Its own signature is what makes it believe them.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final, NamedTuple

from protocols.chains import RunKind
from protocols.codec import Kind, decode_body
from protocols.downlink import Feed
from protocols.ledger import Ledger
from protocols.messages import Record
from protocols.streams import StreamKey
from protocols.sync.seal import Sign, seal
from protocols.sync.uplink import Out
from protocols.topics import Channel

LOST_AFTER_MS: Final = 3_600_000
"""a hole in a stream of the hub itself stays open so long: a node that has the facts may still come"""


class GivenBack(NamedTuple):
    """One fact of a feed, with its place in its author's chain."""

    key: StreamKey
    seq: int
    prev: bytes
    h: bytes
    row: bytes
    values: list[Any]


def facts_of(feed: Feed) -> list[GivenBack]:
    """What a feed holds, in its order. Errors: DecodeError."""
    rows = decode_body(feed.body, len(feed.places), feed.dictionary) if feed.places else []
    return [
        GivenBack(StreamKey(*feed.streams[place[0]][:3]), place[1], place[2], blake2b(place[2] + row, digest_size=8).digest(), row, values)
        for place, (row, values) in zip(feed.places, rows, strict=True)
    ]


class OwnHoles:
    """Holes in the hub's own streams: as any author does, it signs that it lost what nobody gave back in time (rules 9 and 12)."""

    def __init__(self, ledger: Ledger, node: str, sign: Sign) -> None:
        self._ledger, self._node, self._sign = ledger, node, sign
        self._since_ms: dict[tuple[StreamKey, int, bytes], int] = {}

    def close(self, now_ms: int) -> list[StreamKey]:
        """Sign for holes that have been open for long enough since this start. Inside a transaction; returns the streams concerned."""
        since, closed = self._since_ms, list[StreamKey]()
        self._since_ms = {}
        for stream in self._ledger.log.of_node(self._node):
            for first, last, h in stream.chain.holes():
                seen_ms = min(since.get((stream.key, last, h), now_ms), now_ms)
                self._since_ms[stream.key, last, h] = seen_ms
                if now_ms - seen_ms >= LOST_AFTER_MS and self._sign_off(stream.key, first, last, h, now_ms):
                    closed.append(stream.key)
        return closed

    def _sign_off(self, key: StreamKey, first: int, last: int, h: bytes, now_ms: int) -> bool:
        record = Record(key.epoch, key.cls, first, b"", last, h, RunKind.LOST, now_ms)
        signed = seal(Out(Channel.CONTROL, Kind.RECORD, [], record.to_list()), self._node, self._node, self._sign)
        return self._ledger.close_hole(key, first, b"", last, h, RunKind.LOST, signed, now_ms)
