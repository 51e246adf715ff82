"""An edge whose stream is written by hand: its facts go out in any order and on any branch, and it signs for what it has not.

hand = Hand(World(), Branch.of(fact(n) for n in range(10)))
hand.send(1, 2)
hand.send(9, 10)
hand.record(3, 8)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from protocols.chains import Chain, RunKind
from protocols.codec import FrameHeader, Kind, encode_body, envelope, pack
from protocols.fact import chain, genesis
from protocols.messages import Heartbeat, Record, RunStated, StreamQueue
from protocols.streams import StreamKey
from protocols.sync.seal import seal
from protocols.sync.uplink import Out
from protocols.topics import Channel
from tests.unit.hub.hub_world import START_MS, World

KEY: Final = StreamKey("dock-7", 7, 0)


def fact(n: int, order_id: str = "", status: int = 1) -> bytes:
    """A fact of one order as it stands in a log, unlike any of another n."""
    return pack([1, "acme", order_id or f"G{n}", f"X{n}", status, None, 1, n, None, None, None, {}, []])


class Branch(NamedTuple):
    """Facts from 1 on, and the hash at each seq; at 0 the genesis."""

    rows: list[bytes]
    hashes: list[bytes]

    @classmethod
    def of(cls, rows: Iterable[bytes]) -> Branch:
        """The branch that these facts make."""
        rows = list(rows)
        start = genesis(*KEY)
        return cls(rows, [start, *chain(start, rows)])


class Hand:
    """See the module. The edge is admitted and has no line: nothing but this speaks for it."""

    def __init__(self, world: World, trunk: Branch) -> None:
        self.world, self.trunk = world, trunk
        self.sign = world.edge(KEY.node, linked=False).key.sign

    def frame(self, first: int, last: int, branch: Branch | None = None) -> bytes:
        """The signed frame of a stretch."""
        rows, hashes = branch or self.trunk
        header = FrameHeader(*KEY, first, last - first + 1, hashes[first - 1], hashes[last], 0)
        unsigned = envelope(Kind.FRAME, header.to_list(), encode_body(rows[first - 1 : last], dictionary=0, level=1))
        return unsigned + self.sign(unsigned)

    def send(self, first: int, last: int, branch: Branch | None = None) -> None:
        """A stretch reaches the hub."""
        self.world.deliver(KEY.node, self.frame(first, last, branch))

    def record(self, first: int, last: int, kind: RunKind = RunKind.LOST, branch: Branch | None = None) -> None:
        """The author's word that it has no data for a stretch; where it begins with the stream it says what lies below."""
        self.close(first, last, (branch or self.trunk).hashes[last], kind)

    def close(self, first: int, last: int, h_last: bytes, kind: RunKind) -> None:
        """As `record`, for a stretch that ends in a hash."""
        before = genesis(*KEY) if first == 1 else b""
        record = Record(KEY.epoch, KEY.cls, first, before, last, h_last, kind, START_MS)
        self.world.deliver(KEY.node, self._sealed(Channel.CONTROL, record))

    def beat(self, head: int) -> bytes:
        """A heartbeat that names the fact at `head` as the last."""
        queue = StreamQueue(KEY.epoch, KEY.cls, (head, self.trunk.hashes[head]), 0, 0, None)
        return self._sealed(Channel.CONTROL, Heartbeat(START_MS, (queue,), "0"))

    def _sealed(self, channel: Channel, message: Record | Heartbeat) -> bytes:
        return seal(Out(channel, message.KIND, [], message.to_list()), KEY.node, "hub", self.sign)

    # ------------------------------------------------------------ asking

    @property
    def chain(self) -> Chain:
        """What the hub holds."""
        return self.world.hub.ledger.log.open(KEY).chain

    def at_hub(self) -> list[str]:
        """The runs of the hub, as a person reads them."""
        return shown([RunStated(r.first, r.h_before, r.last, r.h_last, r.kind) for r in self.chain.runs])

    def at_store(self) -> list[str]:
        """The runs of the store."""
        return shown(self.world.store.statement([KEY]).streams.get(KEY, ()))


def shown(runs: Sequence[RunStated]) -> list[str]:
    """As "3-6 DATA", with a hash where it takes one to tell two runs apart."""
    names = [f"{r.first}-{r.last} {r.kind.name}" for r in runs]
    ordered = sorted(zip(names, runs, strict=True), key=lambda n: (n[1].first, n[1].last, n[1].h_last))
    return [name if names.count(name) == 1 else f"{name} {r.h_last.hex()[:4]}" for name, r in ordered]
