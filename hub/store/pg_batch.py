"""One batch on its way into a store on PostgreSQL, beside other writers who bring facts of the same streams.

At first it is taken in good hope: orders and streams are read, facts logged and folded, rows written, all without a lock; then the streams'
rows are locked, and under that lock it is seen whether others changed what the fold relied on: an order's row, a stream's forks and fixes,
the facts beside ours. The lock is held for that look and the commit, so batches of several writers run side by side. If somebody did come
between (`Raced`), or where branches, fixes and the like are at stake from the start, all is undone and taken once more *carefully*: rows of
orders and streams are locked first, and nothing changes under the fold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, Final

from hub.store import pg_offsets
from hub.store.offsets import Advance
from hub.store.pg import Asked, Pg, Raced
from hub.store.pg_log import PgLog
from hub.store.pg_rows import LogRow, log_rows
from hub.store.pg_shelf import NUMBERS, Numbers, PgShelf
from hub.store.pg_values import bigints, integers
from hub.store.port import Applied, StoreFact, StoreRecord
from hub.store.reading import Fresh, Read, applied, lanes
from hub.store.view import ViewBook
from protocols.fact import Replaces
from protocols.fixes import Identity, withdrawal
from protocols.policy import Policies
from protocols.streams import Stream, StreamKey

NEAR: Final = 32
"""seqs that facts of one stream may lie apart and still be looked for together"""

_IDENTITY: Final = itemgetter(0, 1, 2)
"""stream, seq and hash of a fact"""
Span = tuple[int, int, int]
"""sid, first seq, last seq"""

_SPANS: Final = "unnest(?::integer[], ?::bigint[], ?::bigint[]) WITH ORDINALITY r (sid, first, last, n)"
_KNOWN: Final = f"SELECT l.sid, l.seq, l.h FROM {_SPANS} JOIN log l ON l.sid = r.sid AND l.seq BETWEEN r.first AND r.last"
_SUSPECT: Final = f"""SELECT DISTINCT r.sid FROM {_SPANS} CROSS JOIN LATERAL (
      SELECT l.seq, l.prev, lag(l.seq) OVER w AS seq_before, lag(l.h) OVER w AS h_before
      FROM log l WHERE l.sid = r.sid AND l.seq BETWEEN r.first - 1 AND r.last + 1
      WINDOW w AS (ORDER BY l.seq)) x
    WHERE seq = seq_before OR (seq = seq_before + 1 AND prev <> h_before)"""
"""streams in which facts beside ours hang on another hash than the one that is there, or share a seq"""
_BESIDE: Final = f"SELECT l.seq, l.h, l.prev FROM {_SPANS} JOIN log l ON l.sid = r.sid AND l.seq BETWEEN r.first - 1 AND r.last + 1"
_CLOSURE: Final = "INSERT INTO closures VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_ASIDE: Final = "INSERT INTO quarantine (sid, seq, h, reason, at_ms) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_COUNT: Final = """UPDATE streams s SET facts=s.facts+n.facts, orderly=s.orderly+n.orderly, records=s.records+n.records
    FROM unnest(?::integer[], ?::bigint[], ?::bigint[], ?::bigint[]) n (sid, facts, orderly, records) WHERE s.sid=n.sid"""


class PgBatch:
    """Inside the owner's transaction, READ COMMITTED. Errors of `take`: Fenced; Raced: undo it, and take it carefully.

    What a batch in good hope asks goes to the server in two messages, and what it writes in one more: each question by itself would cost as
    much as applying some facts. `doubt`: facts may be logged already, so that is asked, too; without it such a batch is raced.
    """

    def __init__(self, db: Pg, policies: Policies, now_ms: int, *, careful: bool, doubt: bool = True) -> None:
        self._db, self._policies, self._now_ms, self._careful, self._doubt = db, policies, now_ms, careful, doubt
        self._log = PgLog(db, careful=careful)
        self._fresh: list[Fresh] = []
        self._poison: list[tuple[int, int, bytes, str, int]] = []
        self._fixes: list[tuple[Stream, int, bytes, Replaces, bool]] = []
        self._counts: dict[int, list[int]] = {}
        """by stream: facts, facts of orders and records that are new"""

    def take(
        self, facts: Sequence[StoreFact], records: Sequence[StoreRecord], read: Sequence[Read], offsets: Advance | None = None
    ) -> Applied:
        """Log and fold what is new; the owner commits next."""
        own = lanes(facts)
        self._open([*own, *(r.stream for r in records)], facts, read, offsets)
        self._counts = {self._log.open(key).sid: [0, 0, 0] for key in [*own, *(r.stream for r in records)]}
        self._choose(facts, read)
        spans = [span for key, lane in own.items() for span in _spans(self._log.open(key).sid, [facts[i].seq for i in lane])]
        new = self._unknown(spans, facts)
        self._log.hold(log_rows(self._rows(new, facts, read)))
        if self._careful:
            self._log.write()
        self._set_aside(records)
        self._fold(spans, facts)
        self._book.finish(self._now_ms)
        self._write(spans)
        return applied(self._fresh, facts, len(new))

    def _write(self, spans: Sequence[Span]) -> None:
        """All that is left, in two goes; where the batch was in good hope, look under the lock whether it was right to."""
        lists = [integers(list(self._counts)), *(bigints([counts[n] for counts in self._counts.values()]) for n in range(3))]
        counting: Asked = (_COUNT, lists)
        if self._careful:
            self._db.together(counting)
            return
        self._db.copy_in(*self._log.held(), *self._shelf.held())
        changing = self._shelf.changing()
        suspecting: Asked = (_SUSPECT, _packed(spans))
        *changed, locked, suspects, _ = self._db.together(*changing, self._log.locking(self._counts), suspecting, counting)
        self._shelf.changed(changed)
        self._log.locked(locked)
        if suspects.rows:
            raise Raced("a stream is forked", remedy="try again")

    # ------------------------------------------------------------ before

    def _open(self, touched: Sequence[StreamKey], facts: Sequence[StoreFact], read: Sequence[Read], offsets: Advance | None) -> None:
        """Orders before streams, forks and fixes: who reads an order as another batch left it must know all that that batch knew."""
        orders = list(dict.fromkeys((fact.org, fact.order_id) for fact, _ in read if fact is not None))
        named = dict.fromkeys(touched)
        for given, (fact, _) in zip(facts, read, strict=True):
            if fact is not None and fact.context:
                named |= dict.fromkeys(StreamKey(e[0], e[1], given.stream.cls) for e in fact.context)
        moving = [] if offsets is None else [pg_offsets.moving(offsets)]
        fixed: list[int] | None = None
        if self._careful:
            moved = self._db.together(*moving)
            self._shelf = PgShelf(self._db, careful=True)
            self._shelf.read(orders)
            self._log.open_all(named)
            self._log.load_forked()
        else:
            *moved, found, opened, given_out = self._db.together(*moving, PgShelf.fetching(orders), self._log.opening(named), NUMBERS)
            numbers = Numbers(*given_out.rows[0])
            self._shelf = PgShelf(self._db, careful=False, found=found, numbers=numbers)
            self._log.opened(opened, named)
            fixed = numbers.fixed
        if offsets is not None:
            pg_offsets.check(offsets, moved[0])
        self._book = ViewBook(self._db, self._log, self._shelf, policies=self._policies, fixed=fixed)
        self._book.fetch(orders)

    def _choose(self, facts: Sequence[StoreFact], read: Sequence[Read]) -> None:
        """Take the locks, or see that this batch can do without. Errors: Raced."""
        fixed = self._fixed(facts, read)
        if self._careful:
            self._log.open_all(fixed)
            forked = [stream.sid for stream in self._log.all() if stream.chain.fork_point is not None]
            self._log.lock({**self._counts, **dict.fromkeys(forked), **dict.fromkeys(self._log.open(key).sid for key in fixed)})
        elif fixed or any(self._log.by_sid(sid).key.node in self._log.forked_nodes for sid in self._counts):
            raise Raced("forks or fixes are at stake", remedy="try again")

    def _fixed(self, facts: Sequence[StoreFact], read: Sequence[Read]) -> dict[StreamKey, None]:
        """Streams of facts that this batch replaces or gives up."""
        out: dict[StreamKey, None] = {}
        for given, (fact, why) in zip(facts, read, strict=True):
            said = fact if fact is not None else None if why else withdrawal(given.row)
            if said is not None and said.replaces is not None:
                out |= dict.fromkeys(given.stream._replace(epoch=epoch) for epoch, _, _ in said.replaces.all)
                out[given.stream._replace(epoch=said.replaces.place[0])] = None
        return out

    def _unknown(self, spans: Sequence[Span], facts: Sequence[StoreFact]) -> list[int]:
        """The places in the batch of facts that are not logged yet, each once."""
        seen: dict[Any, None] = dict.fromkeys(self._db.query(_KNOWN, _lists(spans))) if self._careful or self._doubt else {}
        if not seen and len(dict.fromkeys(map(_IDENTITY, facts))) == len(facts):
            return list(range(len(facts)))
        sids = {key: self._log.open(key).sid for key in dict.fromkeys(f.stream for f in facts)}
        new = []
        for i, f in enumerate(facts):
            identity = sids[f.stream], f.seq, f.h
            if identity not in seen:
                seen[identity] = None
                new.append(i)
        return new

    # ------------------------------------------------------------ logging

    def _rows(self, new: Sequence[int], facts: Sequence[StoreFact], read: Sequence[Read]) -> Iterator[LogRow]:
        """New facts as rows of the log; what belongs to an order goes on to the fold, what cannot be read to quarantine."""
        book, now_ms = self._book, self._now_ms
        for i in new:
            key, seq, h, prev, row, received_ms, _, _ = facts[i]
            fact, why = read[i]
            stream, okey = self._log.open(key), None
            counts = self._counts[stream.sid]
            counts[0] += 1
            if fact is not None:
                order = book.open(fact.org, fact.order_id)
                okey = order.okey
                counts[1] += 1
                self._fresh.append((i, book.as_head(stream.sid, key.cls, seq, h, fact), order, fact))
                if fact.replaces is not None:
                    self._fixes.append((stream, seq, h, fact.replaces, False))
            elif why:
                self._poison.append((stream.sid, seq, h, why.replace("\0", " "), now_ms))
            elif (given_up := withdrawal(row)) is not None:
                self._fixes.append((stream, seq, h, given_up.replaces, True))
            yield stream.sid, seq, h, prev, okey, now_ms, row, received_ms

    def _set_aside(self, records: Sequence[StoreRecord]) -> None:
        """What cannot be read, and the authors' word on holes."""
        self._db.many(_ASIDE, self._poison)
        for r in records:
            sid = self._log.open(r.stream).sid
            row = (sid, r.first, r.h_before, r.last, r.h_last, int(r.kind), r.signed, r.received_ms)
            self._counts[sid][2] += self._db.count(_CLOSURE, row)

    # ------------------------------------------------------------ folding

    def _fold(self, spans: Sequence[Span], facts: Sequence[StoreFact]) -> None:
        """In the order in which the batch names them: whoever delivers sends causes before effects where it can."""
        replaced: dict[Identity, None] = {}
        for stream, seq, h, replaces, gone in self._fixes:
            replaced |= dict.fromkeys(self._book.fixes.take(stream, seq, h, replaces, gone=gone))
        self._note_fixes(replaced)
        forked = self._forked(spans) if self._careful else []
        fold = self._book.fold
        for i, head, order, fact in self._fresh:
            given = facts[i]
            fold(order, head, fact, given.stream.node, given.received_ms)
        if not self._careful:
            return
        for sid in forked:
            self._book.mark_forked(sid, self._log.fork_point(sid) or 0)
        if replaced:
            self._book.mark_replaced(list(replaced))
        self._book.mark_unsure(self._counts)

    def _note_fixes(self, replaced: Iterable[Identity]) -> None:
        sids = sorted({sid for sid, _, _ in replaced})
        if sids:
            self._db.run("UPDATE streams SET fixes=fixes+1 WHERE sid = ANY(?)", (sids,))

    def _suspects(self, spans: Sequence[Span]) -> list[int]:
        (found,) = self._db.together((_SUSPECT, _packed(spans)))
        return [sid for (sid,) in found.rows]

    def _forked(self, spans: Sequence[Span]) -> list[int]:
        """The streams whose branches are seen to part lower than was known. Under the lock."""
        found = []
        for sid in self._suspects(spans):
            fork_seq = self._parts_at([span for span in spans if span[0] == sid])
            known = self._log.fork_point(sid)
            if fork_seq is not None and (known is None or fork_seq < known):
                self._log.note_fork(self._log.by_sid(sid), fork_seq)
                self._db.run("UPDATE streams SET fork_seq=? WHERE sid=?", (fork_seq, sid))
                found.append(sid)
        return found

    def _parts_at(self, spans: Sequence[Span]) -> int | None:
        """The highest seq below all at which two hashes are known, of facts or of what they follow."""
        hashes: dict[int, dict[bytes, None]] = {}
        for seq, h, prev in self._db.query(_BESIDE, _lists(spans)):
            hashes.setdefault(seq, {})[h] = None
            hashes.setdefault(seq - 1, {})[prev] = None
        lowest = min((seq for seq, known in hashes.items() if seq > 0 and len(known) > 1), default=None)
        return None if lowest is None else lowest - 1


def _spans(sid: int, seqs: Sequence[int]) -> list[Span]:
    """The stretches of a stream that facts of a batch lie in, those that are near each other together."""
    out: list[Span] = []
    for seq in sorted(seqs):
        if out and seq - out[-1][2] <= NEAR:
            out[-1] = (sid, out[-1][1], seq)
        else:
            out.append((sid, seq, seq))
    return out


def _lists(spans: Sequence[Span]) -> tuple[list[int], list[int], list[int]]:
    return [s[0] for s in spans], [s[1] for s in spans], [s[2] for s in spans]


def _packed(spans: Sequence[Span]) -> tuple[bytes, bytes, bytes]:
    sids, firsts, lasts = _lists(spans)
    return integers(sids), bigints(firsts), bigints(lasts)
