"""The broker as a lossy pipe: it drops, doubles, delays, reorders, damages, replays, and lets strangers speak."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.codec import FrameHeader, Kind, encode_body, envelope, pack
from protocols.fact import chain
from protocols.messages import Receipt, RunStated, StreamStated
from protocols.sync.seal import seal
from protocols.sync.uplink import Out
from protocols.topics import Channel
from tests.sim.broker import Broker
from tests.sim.checkers import Violation
from tests.sim.edgeproc import EdgeProc
from tests.sim.hubproc import HubProc
from tests.sim.procs import Down, Up
from tests.sim.versions import as_version_1

if TYPE_CHECKING:
    from tests.sim.world import World

REMEMBERED = 6


class Net:
    """See the module. Sessions and partitions belong to the edges: a link that is down loses what is sent into it."""

    def __init__(self, world: World) -> None:
        self.world, self.rng = world, world.rng("net")
        self.broker = Broker(world)
        self._past: dict[str, list[bytes]] = {}
        """what went down to a node lately: a broker may replay it to the next session"""

    def up(self, edge: EdgeProc, topic: str, payload: bytes) -> None:
        """From an edge to the hub."""
        said = self._between(edge, payload)
        if said is None or not edge.linked or edge.silent:
            return
        payload = said
        for hub in self.world.readers(edge):
            for delay, data in self._copies(payload):
                self.broker.carry(hub.name, delay, self._at_hub, hub, edge.node, data)
            if self._strikes(self.world.options.forgery):
                self.world.after(self._latency(), self._at_hub, hub, edge.node, self._forged(edge, payload))

    def down(self, topic: str, payload: bytes) -> None:
        """From the hub to every session of a node: clones share a topic."""
        node = topic.split("/")[5]
        self._past[node] = [*self._past.get(node, []), payload][-REMEMBERED:]
        for edge in self.world.edges:
            if edge.address.node != node:
                continue
            if not topic.startswith(f"{edge.address.prefix}/"):
                raise Violation(f"I10 a message for {edge.address.prefix} goes to {topic}")
            said = self._between(edge, payload) if edge.linked and not edge.silent else None
            if said is not None:
                for delay, data in self._copies(said):
                    self.broker.carry(edge.name, delay, self._at_edge, edge, data)
                if self._strikes(self.world.options.forgery):
                    self.world.after(self._latency(), self._at_edge, edge, self._forged_receipt(edge))

    def _between(self, edge: EdgeProc, payload: bytes) -> bytes | None:
        """The message as the older of the two ends says or reads it; None when that has no such message."""
        if edge.node not in self.world.old and not self.world.options.old_hub:
            return payload
        said = as_version_1(payload, self.world.keys)
        self.world.count("message cut down to version 1" if said is not None else "message that version 1 does not know")
        return said

    def stale(self, edge: EdgeProc) -> None:
        """What a broker kept for a session before this one."""
        if self._strikes(self.world.options.stale):
            self.world.count("stale messages replayed")
            for data in self._past.get(edge.node, []):
                self.world.after(self._latency(), self._at_edge, edge, data)

    def _at_hub(self, hub: HubProc, node: str, data: bytes) -> None:
        self.world.deliver(hub.name, data)
        hub.give(Up(node, data))

    def _at_edge(self, edge: EdgeProc, data: bytes) -> None:
        if edge.linked and not edge.silent:
            self.world.deliver(edge.name, data)
            edge.give(Down(data))

    # ------------------------------------------------------------ what may happen on the way

    def _strikes(self, chance: float) -> bool:
        return self.world.faulty and chance > 0 and self.rng.random() < chance

    def _latency(self) -> int:
        o = self.world.options
        wait = self.rng.randrange(o.latency_ms // 2, o.latency_ms + 1)
        return wait + self.rng.randrange(o.slow_ms + 1) if self._strikes(o.slow) else wait

    def _copies(self, payload: bytes) -> list[tuple[int, bytes]]:
        o = self.world.options
        if self._strikes(o.loss):
            self.world.count("message lost")
            return []
        copies = [(self._latency(), payload)]
        if self._strikes(o.duplicates):
            self.world.count("message doubled")
            copies.append((self._latency(), payload))
        if self._strikes(o.damage):
            self.world.count("message damaged")
            copies[0] = (copies[0][0], self._damaged(payload))
        return copies

    def _damaged(self, payload: bytes) -> bytes:
        at = self._place(len(payload))
        if self.rng.random() < 0.3:
            return payload[:at]
        return payload[:at] + bytes((payload[at] ^ 1 << self.rng.randrange(8),)) + payload[at + 1 :]

    def _place(self, length: int) -> int:
        """Somewhere in a message. Small worlds keep the draw that they were made with, of which the length changes the next ones."""
        return self.rng.randrange(length) if self.world.options.profile == "small" else int(self.rng.random() * length)

    # ------------------------------------------------------------ strangers

    def _forged(self, edge: EdgeProc, payload: bytes) -> bytes:
        """A message with another signature, or a fact that its author never said, signed by somebody else."""
        self.world.count("message forged")
        sign = self.world.keys.signer("stranger")
        if self.rng.random() < 0.5:
            return payload[:-64] + (sign(payload[:-64]) if self.rng.random() < 0.5 else self.rng.randbytes(64))
        seq, h = edge.core.ledger.own().head
        row = pack([2, 1, 1, self.rng.randbytes(8)])
        header = FrameHeader(edge.node, edge.core.ledger.own().key.epoch, 0, seq + 1, 1, h, chain(h, [row])[0], 0)
        unsigned = envelope(Kind.FRAME, header.to_list(), encode_body([row], dictionary=0))
        return unsigned + sign(unsigned)

    def _forged_receipt(self, edge: EdgeProc) -> bytes:
        """All is received, settled and may be freed, says somebody who is not the hub."""
        self.world.count("receipt forged")
        hub = self.world.hub
        streams = []
        for s in edge.core.ledger.own_streams():
            seq, h = s.head
            if seq:
                streams.append(StreamStated(*s.key, (RunStated(1, b"", seq, h),), ((seq, h),), ((seq, h),)))
        receipt = Receipt(hub.core.receiver.incarnation, self.world.wall, 100, tuple(streams), True)
        out = Out(Channel.RECEIPT, Kind.RECEIPT, [], receipt.to_list())
        return seal(out, self.world.hub_address.node, edge.node, self.world.keys.signer("stranger"))
