"""Edges for tests: a runtime over a temporary ledger, a line that a test holds in its hands, a hub that only signs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

from edge_agent.core import EdgeIdentity, EdgeSettings
from edge_agent.counts import Bounds
from edge_agent.runtime import EdgeRuntime
from protocols.codec import Envelope, FrameHeader, Kind
from protocols.errors import TransportError
from protocols.event import EventDefaults, OrderEvent, parse_event
from protocols.messages import Answer, Hello
from protocols.sqlite import Db
from protocols.sync.seal import Control, seal, unseal
from protocols.sync.uplink import Out
from protocols.topics import Address, Channel
from protocols.transport.port import PLAIN, Down, Event, Extra, Listener, Message, Published, Up
from protocols.transport.refusals import Seen
from protocols.trust import HubAddress, NodeKey, format_address, verify
from tests.support.patience import WITHIN_S

T = TypeVar("T")

ADDRESS: Final = Address.of("acme", "EMEA", "W8-Madrid", "madrid-1")
DEFAULTS: Final = EventDefaults("acme", "EMEA", "W8-Madrid")
HUB_KEY: Final = NodeKey(b"h" * 32)
NODE_KEY: Final = NodeKey(b"n" * 32)
IDENTITY: Final = EdgeIdentity(ADDRESS, "hub", HUB_KEY.public)
HUB_ADDRESS: Final = format_address(HubAddress("127.0.0.1", 1883, "acme", "hub", HUB_KEY.public))
NOW_MS: Final = 1_779_372_312_000


def run(test: Coroutine[Any, Any, T]) -> T:
    """A test's coroutine in a loop of its own, with an end."""
    return asyncio.run(asyncio.wait_for(test, 60))


def event_json(order_id: str = "A1", status: str = "PICKED", **more: Any) -> dict[str, Any]:
    """An event as JSON."""
    return {"orderId": order_id, "source": "WMS", "status": status, "timestamp": "2026-05-21T14:05:12Z", **more}


def event(order_id: str = "A1", status: str = "PICKED", **more: Any) -> OrderEvent:
    """The same, parsed."""
    return parse_event(event_json(order_id, status, **more), defaults=DEFAULTS, now_ms=NOW_MS)


def edge(
    folder: Path,
    *,
    settings: EdgeSettings | None = None,
    bounds: Bounds | None = None,
    line: HeldLine | None = None,
    open_db: Callable[[str | Path], Db] = Db,
) -> EdgeRuntime:
    """A runtime on `folder/ledger.db`, not started."""
    return EdgeRuntime(
        folder / "ledger.db", IDENTITY, NODE_KEY.sign, verify, settings=settings, bounds=bounds, rng=Random(7), open_db=open_db,
        make_transport=None if line is None else line.made,
    )  # fmt: skip


class HeldLine:
    """A transport that does what the test says, in the test's own time."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.restarts = 0
        self.stopped = False
        self.epoch = 0
        self.connected = False
        self._listener: Listener | None = None
        self.refusing: tuple[Seen, ...] = ()

    protocol = "held"

    def refusals(self) -> tuple[Seen, ...]:
        return self.refusing

    def refused_totals(self) -> dict[str, int]:
        return {}

    def made(self, epoch: int) -> HeldLine:
        self.epoch = epoch
        return self

    def start(self, listener: Listener) -> None:
        self._listener = listener

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, extra: Extra = PLAIN) -> int:
        if self.stopped:
            raise TransportError("stopped")
        self.sent.append((topic, payload))
        self.say(Published(len(self.sent)))
        return len(self.sent)

    def restart(self) -> None:
        self.restarts += 1

    def stop(self, timeout_s: float = 5.0) -> None:
        self.stopped = True

    def say(self, event: Event) -> None:
        """What the transport's thread would report."""
        assert self._listener is not None
        self.connected = True if isinstance(event, Up) else False if isinstance(event, Down) else self.connected
        self._listener(event)

    # --- the hub's side

    def controls(self, kind: Kind) -> list[Any]:
        """Control messages of a kind that were sent."""
        found = [unseal(payload) for _, payload in self.sent]
        return [one.message() for one in found if isinstance(one, Control) and one.envelope.kind is kind]

    def frames(self) -> list[tuple[Envelope, FrameHeader]]:
        """Frames that were sent."""
        return [one for one in (unseal(payload) for _, payload in self.sent) if not isinstance(one, Control)]

    def answer(self, *, key: NodeKey = HUB_KEY, credit: int = 1_000, topic: str | None = None) -> None:
        """The hub's answer to the latest hello: it holds nothing."""
        hello: Hello = self.controls(Kind.HELLO)[-1]
        answer = Answer(hello.nonce, b"incarnat", NOW_MS, credit, ())
        sealed = seal(Out(Channel.RECEIPT, Kind.ANSWER, [], answer.to_list()), "hub", ADDRESS.node, key.sign)
        self.say(Message(topic or ADDRESS.topic(Channel.RECEIPT), sealed))


async def until(ready: Callable[[], bool], what: str = "it") -> None:
    """Let the loop run until something is so; fails after a while."""
    try:
        async with asyncio.timeout(WITHIN_S):
            while not ready():
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(f"{what} did not happen within {WITHIN_S} s") from None


def stored(folder: Path) -> list[tuple[int, bytes]]:
    """(seq, row) of every fact on disk, read by another connection."""
    db = Db(folder / "ledger.db", read_only=True)
    try:
        return [(seq, bytes(row)) for seq, row in db.query("SELECT seq, row FROM log ORDER BY sid, seq")]
    finally:
        db.close()
