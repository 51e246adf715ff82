"""Write the golden databases that are missing: python -m tests.golden.databases.make. What exists is never touched."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hub.registry import Registry
from hub.store.port import StoreFact, StoreRecord
from hub.store.sqlite import SqliteStore
from protocols.chains import RunKind
from protocols.codec import pack, unpack
from protocols.errors import DecodeError
from protocols.event import OrderEvent, TimeQuality
from protocols.fact import chain
from protocols.ledger import Ledger
from protocols.lifecycle import Status
from protocols.messages import Heartbeat, StreamQueue
from protocols.sqlite import Db
from protocols.streams import Stream, StreamKey
from protocols.trust import NodeCard, NodeKey
from tests.golden.databases import contents

HERE: Final = Path(__file__).parent
T0: Final = 1_779_372_312_000
DAY_MS: Final = 86_400_000
EPOCHS: Final = {"w8-madrid": 4_611_686_018_427_387_905, "dock-2": 77, "hub-emea": 9_007_199_254_740_993}
PASSWORD: Final = "scrypt$16384$8$1$AAAAAAAAAAAAAAAAAAAAAA==$" + "A" * 43 + "="


def event(order_id: str, status: Status, minute: int = 0, key: str | None = None, **details: Any) -> OrderEvent:
    """An event of organisation acme."""
    at = T0 + minute * 60_000
    return OrderEvent("acme", order_id, "FULFILLMENT", status, at, TimeQuality.STATED, "EMEA", "W8-Madrid", "staff-17", details, key)


def ledger(node: str, path: Path | str = ":memory:") -> Ledger:
    """A ledger whose epochs are fixed: EPOCHS[node] and the numbers after it."""
    epochs = iter(range(EPOCHS[node], EPOCHS[node] + 9))
    return Ledger(Db(path), node=node, new_epoch=lambda: next(epochs))


def say(led: Ledger, *events: OrderEvent) -> None:
    """One transaction."""
    led.begin()
    led.append_all(events, T0 + 900 + led.own().head[0])
    led.commit()


def clone(led: Ledger) -> Ledger:
    """The same card in another machine."""
    return Ledger(Db.load(led.db.dump()), node=led.node, new_epoch=lambda: 1)


def madrid(path: Path | str = ":memory:") -> Ledger:
    """The first eight facts of the edge."""
    led = ledger("w8-madrid", path)
    say(led, event("GLOBAL-1001", Status.PLACED, key="req-1"), event("GLOBAL-1002", Status.PLACED, key="req-2", parcels=2))
    say(led, event("GLOBAL-1001", Status.PICKED, 5), event("GLOBAL-1003", Status.ALLOCATED, 6, weightKg="13.40"))
    say(led, event("GLOBAL-1001", Status.SHIPPED, 9, "req-3", carrier="FedEx"), event("GLOBAL-1002", Status.PICKED, 12))
    say(led, event("GLOBAL-1003", Status.PACKED, 30), event("GLOBAL-3001", Status.PLACED, 31))
    return led


def centre() -> Ledger:
    """Facts of the hub itself, which had seen nothing of the edge."""
    led = ledger("hub-emea")
    say(led, event("GLOBAL-1001", Status.APPROVED, 1), event("GLOBAL-1002", Status.CANCELLED, 3))
    return led


def give(to: Ledger, led: Ledger, first: int, last: int) -> None:
    """Facts first..last of an own stream, in a frame."""
    rows = led.log.read(led.own(), first, last, max_bytes=10**6, max_facts=1_000)
    facts = [(r.row, _values(r.row)) for r in rows]
    to.begin()
    to.offer(led.own().key, first, rows[0].prev, facts, [r.h for r in rows], T0 + 5_000)
    to.commit()


def _values(row: bytes) -> list[Any]:
    try:
        values = unpack(row, max_bytes=len(row))
    except DecodeError:
        return []
    return values if isinstance(values, list) else []


def strange(to: Ledger, key: StreamKey, rows: list[bytes]) -> None:
    """Facts of a node that speaks a later version."""
    start = to.log.open(key).chain.genesis
    to.begin()
    to.offer(key, 1, start, [(row, _values(row)) for row in rows], chain(start, rows), T0 + 6_000)
    to.commit()


def edge(path: Path) -> None:
    """See the README."""
    led = madrid(path)
    give(led, centre(), 1, 2)
    say(led, event("GLOBAL-1001", Status.IN_TRANSIT, 60, "req-4"))
    strange(led, StreamKey("dock-9", 5, 0), [pack([77, "of a later version"]), pack([1, "acme"])])
    led.begin()
    stream = led.own()
    led.quarantine(stream.sid, 7, led.log.hash_at(stream, 7) or b"", "refused by the hub", T0 + 8_000)
    stream.settled_seq, stream.dirty = 5, True
    led.free(stream, 2, T0 + 30 * DAY_MS)
    led.start_new_epoch(T0 + 9_000)
    led.commit()
    say(led, event("GLOBAL-1003", Status.SHIPPED, 90, "req-5"), event("GLOBAL-3002", Status.PLACED, 91))
    led.db.close()


def dock() -> tuple[Ledger, Ledger]:
    """A cloned card: two common facts, then each machine its own."""
    one = ledger("dock-2")
    say(one, event("GLOBAL-2001", Status.PLACED), event("GLOBAL-2001", Status.PICKED, 2))
    two = clone(one)
    say(one, event("GLOBAL-2001", Status.SHIPPED, 4), event("GLOBAL-2002", Status.PLACED, 5))
    say(two, event("GLOBAL-2001", Status.CANCELLED, 4))
    return one, two


def hub(path: Path) -> None:
    """See the README."""
    led = ledger("hub-emea", path)
    registry = Registry(led.db)
    say(led, event("GLOBAL-1001", Status.APPROVED, 1), event("GLOBAL-1002", Status.CANCELLED, 3))
    edge_, (one, two) = madrid(), dock()
    give(led, edge_, 1, 3)
    give(led, edge_, 6, 6)
    give(led, edge_, 8, 8)
    stream = led.log.open(edge_.own().key)
    h = [edge_.log.hash_at(edge_.own(), seq) or b"" for seq in range(9)]
    led.begin()
    led.close_hole(stream.key, 4, h[3], 5, h[5], RunKind.LOST, b"signed by the edge", T0 + 7_000)
    led.offer_opaque(StreamKey("dock-9", 6, 0), 2, b"h-before", b"h-after-", b"\xc1 no msgpack", "the body does not decompress", T0 + 7_001)
    led.commit()
    give(led, one, 1, 4)
    give(led, two, 3, 3)
    strange(led, StreamKey("dock-9", 5, 0), [pack([77, "of a later version"]), pack([1, "acme"])])
    led.begin()
    registered(registry, edge_.own())
    led.commit()
    led.db.close()


def registered(registry: Registry, stream: Stream) -> None:
    """Nodes, what they said of themselves, and what is kept of others."""
    for n, node in enumerate(("dock-2", "w8-madrid")):
        card = NodeCard(node, "acme", "EMEA", f"site-{n}", NodeKey(bytes([n + 1]) * 32).public, PASSWORD)
        registry.admit(card, "hub-emea", T0 + n)
    beat = Heartbeat(T0 + 9_000, (StreamQueue(stream.key.epoch, 0, stream.head, 3, 400, T0),), "0.1.0", 1, 10**9)
    registry.note_beat("w8-madrid", beat, T0 + 9_001)
    registry.wait("stranger", b"a frame that waits", T0 + 9_002)
    registry.refuse("dock-2", b"digest of 16 b..", "does not decode", b"damaged frame", T0 + 9_003)
    registry.count("folded", 12)


def store(path: Path) -> None:
    """See the README."""
    with tempfile.TemporaryDirectory() as folder:
        hub(Path(folder) / "hub.db")
        led = Ledger(Db(Path(folder) / "hub.db"), node="hub-emea", new_epoch=contents.no_epoch)
        facts, records = everything(led)
        led.db.close()
    central = SqliteStore(path)
    half = len(facts) // 2
    central.apply(facts[:half], [], T0 + 10_000)
    central.apply(facts[half:], records, T0 + 20_000)
    central.close()


def everything(led: Ledger) -> tuple[list[StoreFact], list[StoreRecord]]:
    """All that a hub hands over."""
    facts, records = [], []
    for s in led.log.all():
        why = {(seq, bytes(h)): reason for seq, h, reason in led.db.query("SELECT seq, h, reason FROM quarantine WHERE sid=?", (s.sid,))}
        for r in s.chain.runs:
            if r.kind is RunKind.DATA:
                rows = led.log.read_branch(s, r, r.first, r.last)
                facts += [StoreFact(s.key, x.seq, x.h, x.prev, x.row, x.at_ms, why.get((x.seq, x.h), "")) for x in rows]
            else:
                records.append(StoreRecord(s.key, r.first, r.h_before, r.last, r.h_last, r.kind, b"signed by the edge", T0 + 7_000))
    return facts, records


MAKERS: Final[dict[str, Callable[[Path], None]]] = {"edge": edge, "hub": hub, "store": store}


def small(path: Path) -> None:
    """Small pages, nothing beside the file, and WAL as every database of ours."""
    db = Db(path)
    db.query("PRAGMA journal_mode=DELETE")
    db.query("PRAGMA page_size=1024")
    db.run("VACUUM")
    db.query("PRAGMA journal_mode=WAL")
    db.checkpoint()
    db.close()


def main() -> None:
    """Write the missing ones and name them."""
    for name, make in MAKERS.items():
        path, about = HERE / f"v1-{name}.db", HERE / f"v1-{name}.json"
        if path.exists():
            continue
        make(path)
        small(path)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            copy.write_bytes(path.read_bytes())
            about.write_text(json.dumps(contents.read(name, copy), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
