"""A node's ledger: its own streams and copies of others', the orders folded from them, and what it promised about requests.

Every method runs inside a transaction of the owner (`begin` ... `commit`); log, fold and cursors are one commit, and only after it may
anybody be told (sync.md, rule 3). An edge, a phone and the hub use the same class. Pure but for its database: clock and chance are
arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from itertools import repeat
from typing import Any, Final, NamedTuple

from protocols.chains import Run, RunKind
from protocols.codec import INT63_MAX, pack
from protocols.devices import Devices
from protocols.disputes import Watch
from protocols.errors import DecodeError
from protocols.event import OrderEvent
from protocols.fact import Clock, FactRow, Replaces, continues_row, genesis, to_row
from protocols.fixes import withdrawal
from protocols.judging import Judge
from protocols.limits import CONTEXT_ENTRIES, RUNS_HELD
from protocols.merge import Head
from protocols.merged import QUANTITIES, with_seen
from protocols.orderbook import Folded, Order, OrderBook
from protocols.policy import Policies
from protocols.quarantine import Quarantine, settle_fixes, take_fixes
from protocols.reading import parse_row, readable
from protocols.repeats import conflict, content_digest, reading_digest
from protocols.schema import migrate
from protocols.settling import resolved
from protocols.sqlite import Db
from protocols.streams import LogRow, Stream, StreamKey, StreamLog
from protocols.telemetry import Reading, is_telemetry, read_telemetry, telemetry_row
from protocols.weight import Weights

ORDERS: Final = 0
TELEMETRY: Final = 1
_DAY_MS: Final = 86_400_000
IDEMPOTENCY_MS: Final = 30 * _DAY_MS
"""a key is remembered this long after its fact was freed"""


class Appended(NamedTuple):
    """What a yes is: the fact's identity, and whether the same request had been answered before."""

    stream: StreamKey
    seq: int
    h: bytes
    repeated: bool

    @property
    def fact_id(self) -> str:
        """The identity as people and JSON see it."""
        return fact_id(self.stream, self.seq, self.h)


class Offered(NamedTuple):
    """What became of the facts of a frame. `folded` are those that are new and readable, in order."""

    new: int
    known: int
    quarantined: list[tuple[int, bytes, str]]
    forked: bool
    folded: list[tuple[LogRow, FactRow, Folded]]
    deferred: int = 0
    """not taken now: they would stand apart in a stream that has as many runs as are held; their author sends them again"""


def fact_id(stream: StreamKey, seq: int, h: bytes) -> str:
    """`node/epoch/seq/hash`: long enough to tell the branches of a fork apart."""
    return f"{stream.node}/{stream.epoch:x}/{seq}/{h[:4].hex()}"


class Ledger:
    """See the module. `new_epoch` gives a random int of 1..2^63-1; it is asked when the database is made and when an epoch must begin."""

    def __init__(self, db: Db, *, node: str, new_epoch: Callable[[], int], policies: Policies | None = None) -> None:
        self.db, self.node, self._new_epoch = db, node, new_epoch
        migrate(db)
        self.log = StreamLog(db)
        self.book = OrderBook(db, self.log)
        if policies is not None:
            self.book.watch = Watch(db, self.log, policies)
            db.begin()
            self.book.watch.refresh(self.book)
            db.commit()
        self.devices = Devices(db)
        self.quarantine_rows = Quarantine(db, self.log, self.book.fixes)
        self.weights = Weights(db)
        self._folded_again: dict[int, Order] = {}
        row = db.one("SELECT value FROM meta WHERE key='epoch'")
        self._epoch = int(row[0]) if row else 0

    # ------------------------------------------------------------ own streams

    def own(self, cls: int = ORDERS) -> Stream:
        """The stream that the next yes goes to."""
        if not self._epoch or (cls == ORDERS and self.log.begun_elsewhere(StreamKey(self.node, self._epoch, cls))):
            self._begin_epoch()
        return self.log.open(StreamKey(self.node, self._epoch, cls), own=True)

    def own_streams(self) -> list[Stream]:
        """All streams of this node that this database wrote, oldest first."""
        return [s for s in self.log.all() if s.own]

    def _begin_epoch(self) -> None:
        self._epoch = self._new_epoch()
        self.db.run(
            "INSERT INTO meta (key, value) VALUES ('epoch', ?) ON CONFLICT (key) DO UPDATE SET value=excluded.value", (self._epoch,)
        )

    def start_new_epoch(self, now_ms: int) -> Stream:
        """A point of the current stream that is not on its chain, or lies beyond its head, was seen: never go on in it (rule 2)."""
        old = self.own()
        seq, h = old.head
        self._begin_epoch()
        stream = self.own()
        if seq:
            self._log_own(stream, pack(continues_row(old.key.epoch, seq, h)), None, now_ms)
        return stream

    def append_all(self, events: Sequence[OrderEvent], now_ms: int, *, clock: Clock | None = None) -> list[Appended]:
        """Say yes to a batch, whole or not at all. `now_ms` is this node's clock, `clock` how good it is. Errors: Conflict, before anything
        is written."""
        self._check_requests((e.idempotency_key, content_digest(e)) for e in events if e.idempotency_key is not None)
        return [self.append(event, now_ms, clock=clock) for event in resolved(self, events)]

    def append(self, event: OrderEvent, now_ms: int, *, clock: Clock | None = None) -> Appended:
        """Say yes to one event. Errors: Conflict (same idempotency key, other content)."""
        content = b""
        if event.idempotency_key is not None:
            content = content_digest(event)
            earlier = self._answered(event.idempotency_key, content)
            if earlier is not None:
                return earlier
        stream = self.own()
        order = self.book.open(event.org, event.order_id, now_ms)
        order.followed = True  # whoever says something of an order wants to hear of it
        seen = self.book.seen(order, stream.sid)[:CONTEXT_ENTRIES]  # to say less than was seen is always true
        context = sorted([*self.log.by_sid(sid).key[:2], seq, h4] for sid, seq, h4 in seen) if seen else []
        if order.counted or QUANTITIES in event.details:
            event = replace(event, details=with_seen(event.details, order.counted))
        row = self._log_own(stream, pack(to_row(event, now_ms, context, clock=clock)), order.okey, now_ms)
        self.book.count(order, stream.key, (row.seq, row.h), event.details)
        self._fold_own(order, Head(stream.sid, row.seq, row.h, int(event.status), seen), now_ms)
        if event.idempotency_key is not None:
            self._remember(event.idempotency_key, content, row)
        return Appended(stream.key, row.seq, row.h, False)

    def append_telemetry(self, readings: Sequence[Reading], now_ms: int) -> list[Appended]:
        """Say yes to readings of devices, whole or not at all, in the stream of their own class. Errors: Conflict, nothing written."""
        self._check_requests((r.idempotency_key, reading_digest(r)) for r in readings if r.idempotency_key is not None)
        done = [self._append_reading(reading, now_ms) for reading in readings]
        self.devices.bound()
        return done

    def _append_reading(self, reading: Reading, now_ms: int) -> Appended:
        key, content = reading.idempotency_key, b""
        if key is not None:
            content = reading_digest(reading)
            earlier = self._answered(key, content)
            if earlier is not None:
                return earlier
        if self.log.begun_elsewhere(StreamKey(self.node, self._epoch, TELEMETRY)):
            self.start_new_epoch(now_ms)
        stream = self.own(TELEMETRY)
        row = self._log_own(stream, pack(telemetry_row(reading, now_ms)), None, now_ms)
        self.devices.note(self.node, reading, row.sid, row.seq, now_ms, row.row)
        if key is not None:
            self._remember(key, content, row)
        return Appended(stream.key, row.seq, row.h, False)

    def _fold_own(self, order: Order, head: Head, now_ms: int) -> None:
        """What is said now has seen everything that is here of its order; unless that is more than a context may name."""
        if len(head.ctx) < CONTEXT_ENTRIES:
            self.book.replace(order, (head,), now_ms)
        else:
            self.book.fold(order, head, now_ms)

    def _log_own(self, stream: Stream, row: bytes, okey: int | None, now_ms: int) -> LogRow:
        """Lengthen an own stream by a row; folding it is the caller's."""
        seq, prev = stream.head
        fact = LogRow(stream.sid, seq + 1, blake2b(prev + row, digest_size=8).digest(), prev, okey, now_ms, row)
        self.log.extend(stream, (fact,))
        return fact

    # ------------------------------------------------------------ requests that come twice

    def _check_requests(self, requests: Iterable[tuple[str, bytes]]) -> None:
        """Before anything of a batch is written: no (key, content) contradicts another, or what was answered before. Errors: Conflict."""
        contents: dict[str, bytes] = {}
        for key, content in requests:
            if contents.setdefault(key, content) != content:
                raise conflict(key)
            self._answered(key, content)

    def _answered(self, key: str, content: bytes) -> Appended | None:
        row = self.db.one("SELECT content, sid, seq, h FROM idempotency WHERE key=?", (key,))
        if row is None:
            return None
        if row[0] != content:
            raise conflict(key)
        return Appended(self.log.by_sid(row[1]).key, row[2], row[3], True)

    def remembers(self, key: str) -> bool:
        """Was something said under this idempotencyKey?"""
        return self.db.one("SELECT 1 FROM idempotency WHERE key=?", (key,)) is not None

    def _remember(self, key: str, content: bytes, fact: LogRow) -> None:
        self.db.run(
            "INSERT INTO idempotency (key, content, sid, seq, h, at_ms) VALUES (?, ?, ?, ?, ?, ?)",
            (key, content, fact.sid, fact.seq, fact.h, fact.at_ms),
        )

    def forget_requests(self, now_ms: int) -> None:
        """Drop idempotency keys whose facts were freed more than 30 days ago, by the clock that `free` was told."""
        self.db.run(
            "DELETE FROM idempotency WHERE at_ms < ? AND seq <= (SELECT freed_seq FROM streams WHERE streams.sid = idempotency.sid)",
            (now_ms - IDEMPOTENCY_MS,),
        )

    def free(self, stream: Stream, up_to: int, now_ms: int, *, hashed: bool = False, kept: Iterable[tuple[int, bytes]] = ()) -> int:
        """Delete the facts of a stream up to a seq; places and orders stay known, requests for 30 days more. Returns how many went.
        `hashed`, `kept`: see `StreamLog.free`."""
        below = stream.freed_seq
        gone = self.log.free(stream, up_to, hashed=hashed, kept=kept)
        if gone:
            self.db.run("UPDATE idempotency SET at_ms=? WHERE sid=? AND seq>? AND seq<=?", (now_ms, stream.sid, below, stream.freed_seq))
        return gone

    # ------------------------------------------------------------ others' facts

    def offer(
        self,
        key: StreamKey,
        first: int,
        h_before: bytes,
        facts: Sequence[tuple[bytes, list[Any]]],
        hashes: Sequence[bytes],
        now_ms: int,
        *,
        bounded: bool = True,
        orgs: Sequence[str] = (),
    ) -> Offered:
        """Take in facts of one branch whose chain was verified: each is new (logged and folded) or known, in any order (rule 4).

        `bounded`: new facts are left for later where they would add a run to a stream that has RUNS_HELD, and are quarantined where they
        name more streams than STREAMS_MENTIONED. What came out of the central store was within bounds when it went in.
        `orgs`: the organisations that the author speaks for, if that is to be held against its facts.
        """
        if first == 1 and h_before != genesis(*key):
            raise DecodeError("the first fact of a stream does not follow its genesis hash")
        stream = self.log.open(key)
        done, judge = Offered(0, 0, [], False, []), Judge(self.log, key, bounded, orgs)
        for start, end in self._new_groups(stream, first, h_before, hashes):
            if bounded and _waits(stream, first + start, hashes[start - 1] if start else h_before, hashes[start:end]):
                done = done._replace(deferred=done.deferred + end - start)
                continue
            group = self._take(stream, first, hashes[start - 1] if start else h_before, facts, hashes, start, end, now_ms, judge)
            done = Offered(
                done.new + end - start,
                0,
                done.quarantined + group.quarantined,
                done.forked or group.forked,
                done.folded + group.folded,
                done.deferred,
            )
        return done._replace(known=len(hashes) - done.new - done.deferred)

    def _new_groups(self, stream: Stream, first: int, h_before: bytes, hashes: Sequence[bytes]) -> list[tuple[int, int]]:
        """Stretches [start, end) of the frame that are not logged yet."""
        if stream.chain.extends(first, h_before) is not None or not stream.chain.within(first, first + len(hashes) - 1):
            return [(0, len(hashes))]
        found = stream.chain.locate(first + len(hashes) - 1, hashes[-1])
        if found is not None and found.first <= first:
            return []
        groups: list[tuple[int, int]] = []
        for i, h in enumerate(hashes):
            if not self.log.has(stream.sid, first + i, h):
                if groups and groups[-1][1] == i:
                    groups[-1] = (groups[-1][0], i + 1)
                else:
                    groups.append((i, i + 1))
        return groups

    def _take(
        self,
        stream: Stream,
        first: int,
        prev: bytes,
        facts: Sequence[tuple[bytes, list[Any]]],
        hashes: Sequence[bytes],
        start: int,
        end: int,
        now_ms: int,
        judge: Judge,
    ) -> Offered:
        plain = judge.plain([values for _, values in facts[start:end]])
        if plain is not None:
            return self._take_plain(stream, first + start, prev, [row for row, _ in facts[start:end]], hashes[start:end], now_ms, plain)
        rows: list[LogRow] = []
        parsed: list[tuple[LogRow, FactRow, Order, Head]] = []
        poison: list[tuple[int, bytes, str]] = []
        fixes: list[tuple[LogRow, Replaces, bool]] = []
        judged = [self._judged(stream, first + i, hashes[i], facts[i][1], judge) for i in range(start, end)]
        orders = self.book.open_all([(fact.org, fact.order_id) for fact, _, _ in judged if fact is not None], now_ms)
        for i, (fact, head, why) in enumerate(judged, start):
            data, values = facts[i]
            order = orders[fact.org, fact.order_id] if fact is not None else None
            row = LogRow(stream.sid, first + i, hashes[i], prev, order.okey if order is not None else None, now_ms, data)
            rows.append(row)
            if fact is not None and order is not None and head is not None:
                parsed.append((row, fact, order, head))
                self.book.count(order, stream.key, (row.seq, row.h), fact.details)
                if fact.replaces is not None:
                    fixes.append((row, fact.replaces, False))
            elif why:
                poison.append((row.seq, row.h, why))
            elif is_telemetry(values):
                self.devices.note(stream.key.node, read_telemetry(values)[0], row.sid, row.seq, now_ms, data)
            elif (given_up := withdrawal(data)) is not None:
                fixes.append((row, given_up.replaces, True))
            prev = hashes[i]
        joins, forked = self.log.joins(stream, rows), self.log.extend(stream, rows)
        self.devices.bound()
        touched = take_fixes(self, stream, fixes)
        folded = self._folded(parsed, now_ms)
        if joins or forked:
            self._fold_branches_again(stream)
        for seq, h, why in poison:
            self.quarantine(stream.sid, seq, h, why, now_ms)
        if touched:
            settle_fixes(self, touched, now_ms)
        return Offered(end - start, 0, poison, forked, folded)

    def _take_plain(
        self, stream: Stream, first: int, prev: bytes, data: Sequence[bytes], hashes: Sequence[bytes], now_ms: int, facts: list[FactRow]
    ) -> Offered:
        """Facts of which none is more than an event of an order: nearly all that ever come."""
        sid, names = stream.sid, [fact[:2] for fact in facts]
        orders = list(map(self.book.open_all(names, now_ms).__getitem__, names))
        seqs, okeys = range(first, first + len(facts)), [order.okey for order in orders]
        rows = list(map(_row_of, zip(repeat(sid), seqs, hashes, (prev, *hashes[:-1]), okeys, repeat(now_ms), data, strict=False)))
        statuses = [int(fact.status) for fact in facts]
        heads = map(_head_of, zip(repeat(sid), seqs, hashes, statuses, repeat(()), repeat(()), strict=False))
        joins, forked = self.log.joins(stream, rows), self.log.extend(stream, rows)
        folded = self._folded(list(zip(rows, facts, orders, heads, strict=True)), now_ms)
        if joins or forked:
            self._fold_branches_again(stream)
        return Offered(len(facts), 0, [], forked, folded)

    def _folded(self, parsed: Sequence[tuple[LogRow, FactRow, Order, Head]], now_ms: int) -> list[tuple[LogRow, FactRow, Folded]]:
        done = self.book.fold_all([(order, head) for _, _, order, head in parsed], now_ms)
        return [(row, fact, became) for (row, fact, _, _), became in zip(parsed, done, strict=True)]

    def _judged(self, stream: Stream, seq: int, h: bytes, values: object, judge: Judge) -> tuple[FactRow | None, Head | None, str]:
        """A fact as the fold needs it, before the next one is judged: the streams that it names count from now on."""
        fact, why = judge.of(seq, values)
        return fact, None if fact is None else self.book.as_head(stream.sid, seq, h, fact), why

    def offer_opaque(
        self, key: StreamKey, seq: int, h_before: bytes, h: bytes, data: bytes, reason: str, now_ms: int, *, bounded: bool = True
    ) -> Offered:
        """A well-signed frame of one fact whose body does not decode: keep its bytes under the header's hashes, in quarantine (rule 8)."""
        stream = self.log.open(key)
        if self.log.has(stream.sid, seq, h):
            return Offered(0, 1, [], False, [])
        if bounded and _waits(stream, seq, h_before, (h,)):
            return Offered(0, 0, [], False, [], 1)
        row = LogRow(stream.sid, seq, h, h_before, None, now_ms, data)
        joins, forked = self.log.joins(stream, (row,)), self.log.extend(stream, (row,))
        if joins or forked:
            self._fold_branches_again(stream)
        self.quarantine(stream.sid, seq, h, reason, now_ms)
        return Offered(1, 0, [(seq, h, reason)], forked, [])

    def _fold_branches_again(self, stream: Stream) -> None:
        """More is known of a forked stream's branches than when facts above the fork point were folded (rule 13)."""
        self.note_folded_again(self.book.fold_again(stream.sid, stream.chain.fork_point or 0))

    def note_folded_again(self, orders: Sequence[Order]) -> None:
        """These orders are something else now, though no fact of theirs came: `folded_again` names them."""
        self._folded_again |= {order.okey: order for order in orders}

    def folded_again(self) -> list[Order]:
        """Orders that became something else because more is known of somebody's branches, since this was asked last."""
        orders, self._folded_again = list(self._folded_again.values()), {}
        return orders

    def quarantine(self, sid: int, seq: int, h: bytes, reason: str, now_ms: int) -> None:
        """Note that a logged fact cannot be used here, or was refused elsewhere, and why. Once noted, it stays as it was noted."""
        self.quarantine_rows.note(sid, seq, h, reason, now_ms)

    def close_hole(
        self, key: StreamKey, first: int, h_before: bytes, last: int, h_last: bytes, kind: RunKind, signed: bytes, now_ms: int
    ) -> bool:
        """An author's signed record about a hole of its own stream (rule 9). False when nothing was missing there."""
        stream = self.log.get(key)
        if stream is None or not self.log.close_hole(stream, first, h_before, last, h_last, kind):
            return False
        self.db.run(
            "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", (stream.sid, first, last, h_last, int(kind), signed, now_ms)
        )
        return True

    # ------------------------------------------------------------ one commit

    def begin(self) -> None:
        """Start a transaction; everything else happens inside one."""
        self.db.begin()

    def commit(self) -> None:
        """Log, fold and cursors on disk, together. On an error this object is to be thrown away and rebuilt."""
        self.flush()
        self.db.commit()

    def flush(self) -> None:
        """Write what is pending into the open transaction."""
        self.book.flush()

    # ------------------------------------------------------------ asking

    def quarantined(self, limit: int = 1000) -> list[dict[str, Any]]:
        """What could not be read, newest first."""
        self.flush()
        return [
            {"id": i.qid, "fact": self.fact_id(i.identity), "reason": i.reason, "atMs": i.at_ms} for i in self.quarantine_rows.items(limit)
        ]

    def fact_id(self, identity: tuple[int, int, bytes]) -> str:
        """The identity of a fact by its stream's local number, as people and JSON see it."""
        return fact_id(self.log.by_sid(identity[0]).key, identity[1], identity[2])

    def first_quarantined(self, stream: Stream) -> int:
        """The lowest seq of a stream that waits in quarantine, beyond all when none does: its author keeps it while it does (rule 8)."""
        first = self.quarantine_rows.first_open(stream.sid)
        return INT63_MAX if first is None else first

    def unsettled(self, stream: Stream) -> tuple[int, int, int | None]:
        """Facts above the settled point of a stream: how many, their bytes, and when the oldest was taken (None when there is none)."""
        self.flush()
        return self.weights.unsettled(stream)

    def events(self, order: Order) -> Iterator[tuple[LogRow, FactRow]]:
        """Every fact of an order that is still here, in the order in which this database took them."""
        self.flush()
        for r in self.db.query(
            """SELECT sid, seq, h, prev, okey, at_ms, row FROM log WHERE okey=?1 UNION ALL
               SELECT sid, seq, h, prev, okey, at_ms, row FROM copies c WHERE okey=?1
                 AND NOT EXISTS (SELECT 1 FROM log l WHERE l.sid=c.sid AND l.seq=c.seq AND l.h=c.h)
               ORDER BY at_ms, sid, seq""",
            (order.okey,),
        ):
            row = LogRow(*r)
            yield row, parse_row(row.row)

    def fact(self, sid: int, seq: int, h: bytes) -> FactRow | None:
        """One fact, read; None when it is not here or not readable."""
        row = self.db.one("SELECT row FROM log WHERE sid=? AND seq=? AND h=?", (sid, seq, h))
        return None if row is None else parse_row(row[0])

    def fact_of(self, order: Order, sid: int, seq: int, h: bytes) -> FactRow | None:
        """One fact of an order, also where it is only a copy that came down."""
        fact = self.fact(sid, seq, h)
        if fact is not None:
            return fact
        row = self.db.one("SELECT row FROM copies WHERE okey=? AND sid=? AND seq=? AND h=?", (order.okey, sid, seq, h))
        return None if row is None else parse_row(row[0])


_row_of: Final = partial(tuple.__new__, LogRow)
_head_of: Final = partial(tuple.__new__, Head)
"""of all their parts at once: there is one for each fact of a backlog"""


def _waits(stream: Stream, first: int, h_before: bytes, hashes: Sequence[bytes]) -> bool:
    """Must these new facts wait, because the stream has as many runs as are held and they would add one?"""
    return len(stream.chain.runs) >= RUNS_HELD and stream.chain.apart(first, h_before, hashes)


__all__ = [
    "ORDERS",
    "TELEMETRY",
    "Appended",
    "Ledger",
    "Offered",
    "Run",
    "RunKind",
    "StreamKey",
    "content_digest",
    "fact_id",
    "parse_row",
    "readable",
]
