"""What must be true of a database after a power loss, whatever was cut: read with the product's own code and, for the chain, without it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

from hub.store.port import OrderQuery, OrderView
from hub.store.sqlite import SqliteStore
from protocols.chains import RunKind
from protocols.fact import genesis
from protocols.ledger import Ledger
from protocols.merge import Head, refold
from protocols.messages import RunStated
from protocols.sqlite import Db
from protocols.streams import StreamKey
from tests.storage.world import Said, Yes


class Violation(AssertionError):
    """A promise was broken. `kind`: lost, corrupt, half, or the invariant."""

    def __init__(self, kind: str, what: str) -> None:
        self.kind = kind
        super().__init__(f"{kind}: {what}")


def demand(true: bool, kind: str, what: str) -> None:
    """Raise unless it is so."""
    if not true:
        raise Violation(kind, what)


def ledger(image: bytes, node: str, yes: Sequence[Yes], said: Sequence[Said]) -> None:
    """A ledger that was committed: sound, its chains whole, its fold that of its log, its yeses and receipts kept."""
    db = Db.load(image)
    try:
        sound(db)
        links(db)
        led = Ledger(db, node=node, new_epoch=_never)
        runs(led)
        folds(led)
        answered(led, yes)
        held(led, said)
    finally:
        db.close()


def _never() -> int:
    raise Violation("identity", "reading a ledger began an epoch")


def sound(db: Db) -> None:
    """By SQLite's own word."""
    found = db.damage(3)
    demand(not found, "corrupt", f"SQLite says {found}")


def links(db: Db) -> None:
    """Each row hashes to its identity and follows one that is there, that was freed, or the genesis; computed here."""
    starts = {s: genesis(node, epoch, cls) for s, node, epoch, cls in db.query("SELECT sid, node, epoch, cls FROM streams")}
    freed = {s: (seq, h) for s, seq, h in db.query("SELECT sid, freed_seq, freed_h FROM streams")}
    rows = db.query("SELECT sid, seq, h, prev, row FROM log")
    known = {(sid, seq, h) for sid, seq, h, _, _ in rows}
    lowest = {(sid, first, before) for sid, first, before in db.query("SELECT sid, first, h_before FROM runs")}
    for sid, seq, h, prev, row in rows:
        demand(blake2b(prev + row, digest_size=8).digest() == h, "chain", f"fact {seq} of stream {sid} does not hash to its identity")
        follows = (sid, seq - 1, prev) in known or freed[sid] == (seq - 1, prev) or (sid, seq, prev) in lowest
        demand(follows or (seq == 1 and prev == starts[sid]), "chain", f"fact {seq} of stream {sid} follows nothing")


def runs(led: Ledger) -> None:
    """Runs and log say the same; settled and freed lie where they must."""
    for s in led.log.all():
        data = [r for r in s.chain.runs if r.kind is RunKind.DATA]
        have = {row[0] for row in led.db.query("SELECT DISTINCT seq FROM log WHERE sid=?", (s.sid,))}
        named = {seq for r in data for seq in range(max(r.first, s.freed_seq + 1), r.last + 1)}
        demand(have == named, "half", f"{s.key}: the log has {len(have)} seqs, its runs name {len(named)}")
        demand(s.freed_seq <= s.settled_seq <= max(s.head[0], s.settled_seq), "half", f"{s.key}: freed beyond what is settled")


def folds(led: Ledger) -> None:
    """The heads that are stored are those that a new fold of the facts gives, and each of them is here or was freed."""
    for org, order_id in led.db.query("SELECT org, order_id FROM orders"):
        order = led.book.get(org, order_id)
        assert order is not None
        demand(all(_there(led, order.okey, h) for h in order.heads), "half", f"{order_id}: a head that is not there")
        again = refold(led.book.facts(order), led.log)
        demand(set(again) == set(order.heads), "half", f"{order_id}: folded again it has other heads")
    strays = led.db.query("SELECT 1 FROM log WHERE okey IS NOT NULL AND okey NOT IN (SELECT okey FROM orders)")
    demand(not strays, "half", "a fact of an order that is not there")


def _there(led: Ledger, okey: int, head: Head) -> bool:
    """In the log (or freed), or a copy of what came down."""
    copy = "SELECT 1 FROM copies WHERE okey=? AND sid=? AND seq=? AND h=?"
    return led.log.has(head.sid, head.seq, head.h) or led.db.one(copy, (okey, head.sid, head.seq, head.h)) is not None


def answered(led: Ledger, yes: Iterable[Yes]) -> None:
    """Every yes is on the disk under its identity, and its request would be answered in the same way."""
    for one in yes:
        stream = led.log.get(one.done.stream)
        there = stream is not None and led.log.has(stream.sid, one.done.seq, one.done.h)
        demand(there, "lost", f"I1 {one.done.fact_id} was acknowledged")
        key = one.event.idempotency_key
        if key is not None and stream is not None:
            row = led.db.one("SELECT sid, seq, h FROM idempotency WHERE key=?", (key,))
            forgotten = row is None and one.done.seq <= stream.freed_seq  # 30 days after it was freed
            demand(forgotten or row == (stream.sid, one.done.seq, one.done.h), "lost", f"the key {key} of {one.done.fact_id}")


def held(led: Ledger, said: Iterable[Said]) -> None:
    """I5: what a receipt called held is held."""
    stated: dict[tuple[StreamKey, int, bytes, int], RunStated] = {}
    for one in said:
        for s in one.message.streams:
            for run in s.runs:
                stated[StreamKey(s.node, s.epoch, s.cls), run.last, run.h_last, run.first] = run
    for (key, *_), run in stated.items():
        stream = led.log.get(key)
        demand(stream is not None and _covers(led, key, run), "I5", f"the hub said it holds {key} {run.first}..{run.last}")


def _covers(led: Ledger, key: StreamKey, run: RunStated) -> bool:
    stream = led.log.get(key)
    assert stream is not None
    if run.kind is not RunKind.DATA:
        return any(r.first <= run.first and run.last <= r.last for r in stream.chain.runs) or not stream.chain.holes()
    return stream.chain.covered(run.last, run.h_last).covers(run.first, run.last)


def store(image: bytes, said: Sequence[Said]) -> None:
    """A central store that was committed: sound, its view that of its log, and all that was called settled in it."""
    db = Db.load(image)
    sound(db)
    strays = db.query("SELECT 1 FROM log WHERE okey IS NOT NULL AND okey NOT IN (SELECT okey FROM view)")
    demand(not strays, "half", "a fact of an order that the view lacks")
    links(db)
    central, fresh = SqliteStore(db), SqliteStore(Db(":memory:"))
    try:
        for key, stated in central.statement().streams.items():
            for run in stated:
                fresh.apply(central.facts(key, run, 1_000_000), [], 1)
            fresh.apply([], central.records(key), 1)
        demand(_view(central) == _view(fresh), "half", "the view is not the fold of the log")
        settled(central, said)
    finally:
        central.close()
        fresh.close()


def _view(central: SqliteStore) -> list[tuple[object, ...]]:
    orders = central.orders(OrderQuery(limit=500)).orders
    return sorted(_shown(o) for o in orders)


def _shown(o: OrderView) -> tuple[object, ...]:
    return (o.org, o.order_id, o.status, o.facts, o.heads, o.conflict, o.abnormal, o.node)


def settled(central: SqliteStore, said: Iterable[Said]) -> None:
    """I5: what a receipt called settled is in the store."""
    points = {(StreamKey(s.node, s.epoch, s.cls), seq, h) for one in said for s in one.message.streams for seq, h in s.settled}
    statement = central.statement().streams
    for key, seq, _ in sorted(points):
        reach = max((r.last for r in statement.get(key, ())), default=0)
        demand(seq <= reach, "I5", f"the hub called {key} settled up to {seq}, the store reaches to {reach}")
