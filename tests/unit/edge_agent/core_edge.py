"""A core with a hub's voice beside it, for the tests of what an edge decides."""

from __future__ import annotations

from random import Random
from typing import Any

from edge_agent.core import EdgeCore, EdgeIdentity, EdgeSettings, Effect, Now, Publish
from protocols.messages import Answer, Hello, Message, Receipt, RunStated, StreamStated
from protocols.sqlite import Db
from protocols.streams import Stream
from protocols.sync.seal import Control, seal, unseal
from protocols.sync.uplink import Out, UplinkSettings
from protocols.topics import Address, Channel
from protocols.trust import NodeKey, verify
from tests.unit.protocols.ledgers import NOW_MS, event

EDGE_KEY, HUB_KEY, OTHER_KEY = NodeKey(b"e" * 32), NodeKey(b"h" * 32), NodeKey(b"o" * 32)
IDENTITY = EdgeIdentity(Address("acme", "EMEA", "W8-Madrid", "edge-1"), "hub", HUB_KEY.public)
ONE, TWO = b"hub is 1", b"hub is 2"
UPLINK = UplinkSettings(frame_facts=10, linger_ms=20, retry_ms=1_000, idle_hello_ms=3_600_000, stall_ms=30_000, level=1)


class Edge:
    """A core with a hub's voice beside it. `now` is both clocks; `hub_ms` is the hub's."""

    def __init__(self, db: Db | None = None, **settings: Any) -> None:
        self.db = db or Db(":memory:")
        self.core = EdgeCore(self.db, IDENTITY, EDGE_KEY.sign, verify, Random(1), EdgeSettings(uplink=UPLINK, **settings))
        self.now = Now(NOW_MS, 1_000)
        self.hub_ms = NOW_MS + 5_000
        self.incarnation = ONE

    def wait(self, ms: int) -> None:
        self.now = Now(self.now.wall + ms, self.now.mono + ms)
        self.hub_ms += ms

    def say(self, count: int = 1, **more: Any) -> None:
        self.core.begin()
        self.core.take_events([event(f"order-{i}", **more) for i in range(count)], self.now)
        self.core.commit()

    def up(self) -> list[Effect]:
        self.core.begin()
        self.core.take_up(self.now)
        self.core.commit()
        return self.effects()

    def effects(self, after_ms: int = 0) -> list[Effect]:
        self.wait(after_ms)
        return self.core.effects(self.now)

    def hear(self, *messages: Message | bytes) -> None:
        self.core.begin()
        for m in messages:
            self.core.take_message(m if isinstance(m, bytes) else signed(m), self.now)
        self.core.commit()

    def greet(self, *stated: StreamStated, backed_up: bool = True) -> list[Effect]:
        """The link comes up and hello is answered; what is sent then."""
        (hello,) = [m for _, m in said(self.up()) if isinstance(m, Hello)]
        self.hear(Answer(hello.nonce, self.incarnation, self.hub_ms, 1_000, stated, backed_up))
        return self.effects()

    def receipt(self, *, received: int = 0, settled: int = 0, freeable: int = 0, backed_up: bool = True) -> Receipt:
        stream = self.stream()
        runs = (RunStated(1, stream.chain.genesis, received, self.h(received)),) if received else ()
        stated = StreamStated(*stream.key, runs, self.points(settled), self.points(freeable))
        return Receipt(self.incarnation, self.hub_ms, 1_000, (stated,), backed_up)

    def points(self, seq: int) -> tuple[tuple[int, bytes], ...]:
        return ((seq, self.h(seq)),) if seq else ()

    def stream(self) -> Stream:
        return self.core.ledger.own()

    def h(self, seq: int) -> bytes:
        return self.core.ledger.log.hash_at(self.stream(), seq) or b"forgot.."

    def status(self) -> dict[str, Any]:
        return self.core.status(self.now)

    def rows(self) -> int:
        row = self.db.one("SELECT count(*) FROM log")
        assert row is not None
        return int(row[0])


def signed(message: Message, *, author: str = "hub", to: str = "edge-1", key: NodeKey = HUB_KEY) -> bytes:
    return seal(Out(Channel.RECEIPT, message.KIND, [], message.to_list()), author, to, key.sign)


def said(effects: list[Effect]) -> list[tuple[str, Any]]:
    """(channel, message or frame header) of what is published, each signature checked."""
    out: list[tuple[str, Any]] = []
    for effect in effects:
        assert isinstance(effect, Publish)
        opened = unseal(effect.payload)
        e = opened.envelope if isinstance(opened, Control) else opened[0]
        verify(EDGE_KEY.public, e.signature, e.signed)
        channel = effect.topic.removeprefix("longshore/v1/acme/EMEA/W8-Madrid/edge-1/")
        if isinstance(opened, Control):
            assert (opened.author, opened.addressee) == ("edge-1", "hub")
            out.append((channel, opened.message()))
        else:
            out.append((channel, opened[1]))
    return out


def ranges(effects: list[Effect]) -> list[tuple[str, int, int]]:
    return [(channel, m.first, m.first + m.count - 1) for channel, m in said(effects) if channel in ("up/live", "up/backfill")]
