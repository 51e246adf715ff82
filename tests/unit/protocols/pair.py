"""One edge and one hub, joined by the test itself: each message is handed over by hand, lost, doubled or held back as the story wants."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from protocols.codec import FrameHeader, Kind, envelope
from protocols.event import OrderEvent
from protocols.ledger import Ledger
from protocols.messages import (
    Answer,
    Heartbeat,
    Hello,
    Message,
    Pull,
    Receipt,
    Record,
    Refused,
    RunStated,
    StreamQueue,
    StreamStated,
    parse_message,
)
from protocols.sync.frames import digest
from protocols.sync.receiver import Receiver, StoreSays
from protocols.sync.uplink import Heard, Out, Uplink, UplinkSettings
from protocols.topics import Channel
from tests.unit.protocols.ledgers import NOW_MS, event, ledger

SMALL = UplinkSettings(
    frame_facts=4, window_facts=12, live_share_percent=25, linger_ms=20, retry_ms=1_000, retry_most_ms=8_000, idle_hello_ms=60_000,
    stall_ms=10_000, level=1,
)  # fmt: skip

Sent = tuple[str, int, int]
"""a frame as tests read it: (lane, first, last)"""


class Pair:
    """`now` is the edge's monotonic clock. `send` gives what goes up, `hub_takes` what comes back, `hear` hands it to the edge."""

    def __init__(self, *, facts: int = 0, edge: Ledger | None = None, hub: Ledger | None = None, settings: UplinkSettings = SMALL) -> None:
        self.now = 1_000
        self.edge = edge or ledger()
        self.uplink = Uplink(self.edge, Random(1), settings)
        self.hub = hub or ledger("hub")
        self.incarnations = iter(range(1, 100))
        self.receiver = self.restart_hub()
        if facts:
            self.say(facts)

    def restart_hub(self, hub: Ledger | None = None, *, credit: int = 1_000) -> Receiver:
        """A new incarnation over the same, or another, disk."""
        self.hub = hub or self.hub
        self.receiver = Receiver(self.hub, next(self.incarnations).to_bytes(8, "big"), credit=credit)
        return self.receiver

    # ------------------------------------------------------------ the edge

    def say(self, count: int = 1, *events: OrderEvent) -> None:
        """New facts, committed."""
        self.edge.begin()
        self.edge.append_all(events or [event(f"order-{i}") for i in range(count)], NOW_MS)
        self.uplink.on_appended(self.now)
        self.edge.commit()

    def send(self, after_ms: int = 0) -> list[Out]:
        """What goes up now, or a while later."""
        self.now += after_ms
        return self.uplink.outputs(self.now)

    def hear(self, *messages: Message) -> Heard:
        """The edge hears messages, in one transaction."""
        out = Heard()
        self.edge.begin()
        for m in messages:
            heard = self._hear(m)
            out.fork, out.settled = out.fork or heard.fork, out.settled or heard.settled
            out.refused += heard.refused
        self.edge.commit()
        return out

    def _hear(self, m: Message) -> Heard:
        if isinstance(m, Answer):
            return self.uplink.on_answer(m, self.now)
        if isinstance(m, Receipt):
            return self.uplink.on_receipt(m, self.now)
        if isinstance(m, Refused):
            self.uplink.on_refused(m, self.now)
        elif isinstance(m, Pull):
            self.uplink.on_pull(m)
        return Heard()

    def queue(self) -> Heartbeat:
        """A heartbeat."""
        queues = (StreamQueue(s.key.epoch, s.key.cls, s.head, 0, 0, None) for s in self.edge.own_streams())
        return Heartbeat(NOW_MS, tuple(queues), "0")

    # ------------------------------------------------------------ the hub

    def hub_takes(self, outs: Iterable[Out], *, poison: Iterable[int] = ()) -> list[Message]:
        """What the hub answers after its commit. A frame that touches a seq of `poison` does not decode here."""
        replies: list[Message] = []
        hellos: list[Hello] = []
        bad = list(poison)
        self.hub.begin()
        for out in outs:
            if isinstance(out.body, bytes):
                header = FrameHeader.parse(out.header)
                if any(header.first <= seq < header.first + header.count for seq in bad):
                    replies.append(refusal(out, self.receiver.incarnation))
                else:
                    self.receiver.frame(header, out.body, NOW_MS)
                continue
            message = parse_message(out.kind, out.body)
            if isinstance(message, Hello):
                hellos.append(message)
            elif isinstance(message, Record):
                self.receiver.record(self.edge.node, message, b"signed", NOW_MS)
        self.hub.commit()
        answers = [self.receiver.answer(self.edge.node, h, NOW_MS) for h in hellos]
        receipts = [receipt for node, receipt in self.receiver.receipts(NOW_MS) if node == self.edge.node]
        return [*answers, *receipts, *replies]

    def store_has(self, seq: int, *, freeable: int | None = None, backed_up: bool = True) -> None:
        """The central store says that it has everything up to a seq of the edge's stream."""
        stream = self.hub.log.open(self.edge.own().key)
        points = [() if not at else ((at, self.hub.log.hash_at(stream, at) or b""),) for at in (seq, seq if freeable is None else freeable)]
        self.receiver.store_says([(stream.key, StoreSays(points[0], points[1]))], backed_up=backed_up)

    # ------------------------------------------------------------ both

    def greet(self) -> None:
        """The link comes up, hello is answered."""
        self.uplink.on_up(self.now)
        self.hear(*self.hub_takes(o for o in self.send() if o.kind is Kind.HELLO))

    def run(self, rounds: int = 50) -> None:
        """Everything arrives, until there is nothing more to say."""
        for _ in range(rounds):
            outs = self.send(SMALL.linger_ms)
            if not outs:
                return
            self.hear(*self.hub_takes(outs))
        raise AssertionError(f"still talking after {rounds} rounds")

    def missing(self) -> list[tuple[int, int]]:
        """What the hub does not hold of the edge's current stream."""
        stream = self.edge.own()
        return list(self.receiver.held(stream.key, stream.head).missing(1, stream.head[0]))


def frames(outs: Iterable[Out]) -> list[Sent]:
    """The frames among what was sent."""
    out = []
    for o in outs:
        if isinstance(o.body, bytes):
            header = FrameHeader.parse(o.header)
            out.append(("live" if o.channel is Channel.LIVE else "backfill", header.first, header.first + header.count - 1))
    return out


def kinds(outs: Iterable[Out]) -> list[str]:
    """What was sent, by name."""
    return [o.kind.name for o in outs]


def refusal(out: Out, incarnation: bytes) -> Refused:
    """The hub could not read this frame."""

    assert isinstance(out.body, bytes)
    return Refused(incarnation, digest(envelope(out.kind, out.header, out.body)), "does not decode")


def hello_of(outs: list[Out]) -> Hello:
    (out,) = [o for o in outs if o.kind is Kind.HELLO]
    return Hello.parse(out.body)


def record_of(outs: list[Out]) -> Record:
    (out,) = [o for o in outs if o.kind is Kind.RECORD]
    return Record.parse(out.body)


def answer(pair: Pair, hello: Hello, *stated: StreamStated, incarnation: bytes = b"hub is 1", credit: int = 100) -> Answer:
    return Answer(hello.nonce, incarnation, NOW_MS, credit, stated)


def stated(led: Ledger, *runs: tuple[int, int], **more: object) -> StreamStated:
    """A statement about the own stream: runs of its chain."""
    stream = led.own()
    at: Callable[[int], bytes] = lambda seq: led.log.hash_at(stream, seq) or b""  # noqa: E731
    return StreamStated(*stream.key, tuple(RunStated(a, at(a - 1), b, at(b)) for a, b in runs), **more)  # type: ignore[arg-type]


def greeted(facts: int = 0, *, credit: int = 1_000) -> Pair:
    """A pair whose hello was answered."""
    pair = Pair(facts=facts)
    pair.restart_hub(credit=credit)
    pair.greet()
    return pair
