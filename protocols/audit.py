"""Walks the hash chains of a database and names what was done to it: edited, deleted, inserted, reordered, cut (invariant I11).

The rows are read from the highest down, because a hash stands for everything below it: each run says which hash its last fact has, each
fact which one lies before it, so at every seq it is known what must lie there. What is named of a stream is its lowest trouble: what lies
above the first wrong link may be wrong because of it.

A chain that was cut and whose runs were shortened with it is whole by itself. That is only visible against somebody else's word: `words`
are such points (from heartbeats, receipts, the other database, what the same database says elsewhere), each a fact that must lie here.

Pure but for its database, which it only reads; hold it at one moment (`Db.read_moment`) while others write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from itertools import groupby
from typing import Final, NamedTuple

from protocols.chains import RunKind
from protocols.fact import genesis
from protocols.freed import FreedHashes
from protocols.merge import load_heads
from protocols.sqlite import Db
from protocols.streams import StreamKey

PAGE_ROWS: Final = 4_000
_SWAPS: Final = 64
"""facts with a wrong hash that are compared with each other, to tell an exchange from an edit"""

_COLUMNS: Final = "seq, CAST(h AS BLOB), CAST(prev AS BLOB), CAST(row AS BLOB)"
"""whoever changed them may have left text there"""

Tell = Callable[[int, int], None]
"""(rows looked at, rows in all)"""


class What(StrEnum):
    """What was done to a stream."""

    EDITED = "edited"
    DELETED = "deleted"
    INSERTED = "inserted"
    REORDERED = "reordered"
    CUT = "cut"


class Finding(NamedTuple):
    """The first trouble of a stream. `seq` is the lowest fact that it touches; `more`: how many other places of the stream are wrong."""

    stream: StreamKey
    seq: int
    what: What
    text: str
    more: int = 0

    def sentence(self) -> str:
        """`dock-7 epoch 3f orders, fact 12: edited: …`"""
        cls = ("orders", "telemetry")[self.stream.cls] if self.stream.cls < 2 else f"class {self.stream.cls}"
        others = f" (and {self.more} more places)" if self.more else ""
        return f"{self.stream.node} epoch {self.stream.epoch:x} {cls}, fact {self.seq}: {self.what}: {self.text}{others}"


class Word(NamedTuple):
    """Somebody names a fact that must lie here. `h` empty: only the seq is known. `who` says so, as `the heartbeat of dock-7`."""

    seq: int
    h: bytes
    who: str


Words = Mapping[StreamKey, Sequence[Word]]


@dataclass(slots=True)
class Audit:
    """What an audit of one database came to. `unread`: facts in quarantine as bytes, of which only the place in the chain is checked."""

    facts: int = 0
    streams: int = 0
    freed: int = 0
    unread: int = 0
    findings: list[Finding] = field(default_factory=list)


class _Row(NamedTuple):
    seq: int
    h: bytes
    prev: bytes
    row: bytes


class _Trouble(NamedTuple):
    seq: int
    what: What
    text: str


@dataclass(slots=True)
class _Way:
    """A run on its way down. `at`: the seq looked at next; `want`: the hash there, None where it is not known any more. `apart`: below what
    was freed, and known to be of another branch."""

    first: int
    h_before: bytes
    last: int
    at: int
    want: bytes | None
    apart: bool = False


def audit(db: Db, words: Words | None = None, tell: Tell | None = None) -> Audit:
    """Walk every stream of a database: a ledger's, a hub's or a store's. Errors: LedgerBroken."""
    done = Audit()
    total = _number(db, "SELECT count(*) FROM log")
    own_words = _own_words(db)
    known: list[StreamKey] = []
    for sid, node, epoch, cls, settled, freed, freed_h in db.query(
        "SELECT sid, node, epoch, cls, settled_seq, freed_seq, freed_h FROM streams ORDER BY sid"
    ):
        key = StreamKey(node, epoch, cls)
        walk = _Walk(db, sid, key, int(freed), bytes(freed_h or b""))
        walk.run(lambda rows: tell(done.facts + rows, total) if tell is not None else None)
        said = [*own_words.get(sid, ()), *((words or {}).get(key, ()))]
        if settled:
            said.append(Word(int(settled), b"", "the receipts of the central store"))
        walk.hear(said)
        done.facts, done.streams, done.unread = done.facts + walk.rows, done.streams + 1, done.unread + walk.unread
        done.freed += int(freed)
        found = walk.finding()
        if found is not None:
            done.findings.append(found)
        known.append(key)
    done.findings += [_never_here(key, said) for key, said in (words or {}).items() if key not in known and said]
    if tell is not None:
        tell(total, total)
    return done


def _never_here(key: StreamKey, said: Sequence[Word]) -> Finding:
    """Nothing is left of a stream that somebody names."""
    word = max(said, key=lambda w: w.seq)
    return Finding(key, 1, What.CUT, f"nothing of this history is here, but {word.who} names {word.seq}")


def _number(db: Db, sql: str, params: Sequence[int] = ()) -> int:
    row = db.one(sql, params)
    return int(row[0] or 0) if row else 0


def _own_words(db: Db) -> dict[int, list[Word]]:
    """What the same database says elsewhere: which facts requests were answered with, and which ones orders end in.

    An order that has left a node's scope still names others' facts, of which the copies have gone: of it only own streams count.
    """
    words: dict[int, list[Word]] = {}
    tops: dict[tuple[int, str], Word] = {}
    came_down, own = _came_down(db), {sid for (sid,) in db.query("SELECT sid FROM streams WHERE own=1")}
    for sid, seq, h in db.query("SELECT sid, seq, h FROM idempotency"):
        _highest(tops, sid, Word(int(seq), bytes(h), "a request that was answered with it"))
        words.setdefault(sid, [])
    for table in ("orders", "view"):
        if db.one("SELECT 1 FROM sqlite_master WHERE type='table' AND name=?", (table,)) is None:
            continue
        followed = "followed" if _has_column(db, table, "followed") else "1"
        for org, order_id, heads, here in db.query(f"SELECT org, order_id, heads, {followed} FROM {table}"):
            for head in load_heads(bytes(heads)):
                sid, seq, h = head.fact
                if head.fact not in came_down and (here or sid in own):
                    words.setdefault(sid, []).append(Word(seq, h, f"order {org}/{order_id}"))
    for (sid, _), word in tops.items():
        words.setdefault(sid, []).append(word)
    return words


def _highest(tops: dict[tuple[int, str], Word], sid: int, word: Word) -> None:
    known = tops.get((sid, word.who))
    if known is None or known.seq < word.seq:
        tops[sid, word.who] = word


def _has_column(db: Db, table: str, name: str) -> bool:
    return any(row[1] == name for row in db.query(f"PRAGMA table_info({table})"))


def _came_down(db: Db) -> dict[tuple[int, int, bytes], None]:
    """Facts that a node holds as copies of the centre's, outside of its log."""
    if db.one("SELECT 1 FROM sqlite_master WHERE type='table' AND name='copies'") is None:
        return {}
    return {(sid, seq, bytes(h)): None for sid, seq, h in db.query("SELECT sid, seq, h FROM copies")}


class _Walk:
    """One stream. `freed`: facts up to there are gone by rule, and `freed_h` is the hash of the last of them."""

    def __init__(self, db: Db, sid: int, key: StreamKey, freed: int, freed_h: bytes) -> None:
        self._db, self._sid, self._key, self._freed, self._freed_h = db, sid, key, freed, freed_h
        self._hashes = FreedHashes(db)
        runs = db.query("SELECT first, h_before, last, h_last, kind FROM runs WHERE sid=? ORDER BY last DESC, h_last", (sid,))
        self._ways = [_Way(r[0], bytes(r[1]), r[2], r[2], bytes(r[3])) for r in runs if r[4] == RunKind.DATA]
        self._held = [(int(r[0]), int(r[2])) for r in runs]
        self._opaque = {(q[0], bytes(q[1])) for q in db.query("SELECT seq, h FROM quarantine WHERE sid=?", (sid,))}
        self._trouble: list[_Trouble] = []
        self._wrong: list[_Row] = []
        self._moved: dict[bytes, None] = {}
        self.rows = self.unread = 0

    # ------------------------------------------------------------ rows, highest first

    def _levels(self) -> Iterator[tuple[int, list[_Row]]]:
        for seq, rows in groupby(self._pages(), key=lambda r: r.seq):
            yield seq, list(rows)

    def _pages(self) -> Iterator[_Row]:
        at: tuple[int, bytes] | None = None
        while True:
            below, params = ("", ()) if at is None else (" AND (seq, h) < (?, ?)", at)
            sql = f"SELECT {_COLUMNS} FROM log WHERE sid=?{below} ORDER BY seq DESC, h DESC LIMIT {PAGE_ROWS}"
            page = [_Row(r[0], bytes(r[1]), bytes(r[2]), bytes(r[3])) for r in self._db.query(sql, (self._sid, *params))]
            yield from page
            if len(page) < PAGE_ROWS:
                return
            at = (page[-1].seq, page[-1].h)

    def run(self, tell: Callable[[int], None]) -> None:
        """Look at every row and at every run."""
        waiting, active = list(self._ways), list[_Way]()
        for seq, rows in self._levels():
            while waiting and waiting[0].last >= seq:
                active.append(waiting.pop(0))
            for way in active:
                self._missing(way, seq + 1)
            for way in active:
                if way.at == seq <= self._freed and self._is_freed(way):
                    way.at = 0
            self._level(seq, rows, [w for w in active if w.at == seq and w.at >= w.first])
            active = [w for w in active if w.at >= w.first]
            if self.rows // PAGE_ROWS != (self.rows + len(rows)) // PAGE_ROWS:
                tell(self.rows)
            self.rows += len(rows)
        for way in [*active, *waiting]:
            self._missing(way, 1)
        self._tell_exchanges()

    def _level(self, seq: int, rows: list[_Row], ways: list[_Way]) -> None:
        """All rows of one seq: each run takes its own, what nobody takes was put in."""
        left = {r.h: r for r in rows}
        sure = [(way, left.pop(way.want)) for way in ways if way.want is not None and way.want in left]
        for way, row in sure:
            self._check(row)
            self._down(way, row.prev)
        for way in ways:
            if not any(way is w for w, _ in sure):
                self._lost_way(way, left)
        for row in left.values():
            if seq <= self._freed and self._freed_at(seq) == row.h:
                self._check(row)  # freed, and kept for who reads it
            elif row.h not in self._moved:
                self._say(seq, What.INSERTED, "a fact lies here that no history leads to")

    def _lost_way(self, way: _Way, left: dict[bytes, _Row]) -> None:
        """The fact that must lie here does not."""
        seq, want = way.at, way.want
        moved = self._elsewhere(want) if want is not None else None
        if moved is not None:
            self._say(min(seq, moved.seq), What.REORDERED, f"the fact of place {seq} lies at {moved.seq}")
            self._moved[moved.h] = None
            left.pop(moved.h, None)
            self._down(way, moved.prev)
            return
        other = next((r for r in left.values() if r.h not in self._moved), None)
        if other is None:
            self._gone(way, seq, seq)
            return
        del left[other.h]
        if want is not None:
            self._say(seq, What.EDITED, "another fact lies here than what follows it hangs on")
        self._check(other)
        self._down(way, other.prev)

    def _elsewhere(self, h: bytes) -> _Row | None:
        found = self._db.one(f"SELECT {_COLUMNS} FROM log WHERE sid=? AND h=?", (self._sid, h))
        return None if found is None else _Row(found[0], bytes(found[1]), bytes(found[2]), bytes(found[3]))

    def _check(self, row: _Row) -> None:
        if blake2b(row.prev + row.row, digest_size=8).digest() == row.h:
            return
        if (row.seq, row.h) in self._opaque:
            self.unread += 1
        elif len(self._wrong) < _SWAPS:
            self._wrong.append(row)
        else:
            self._say(row.seq, What.EDITED, "its bytes are not those of its hash")

    def _down(self, way: _Way, prev: bytes) -> None:
        """One fact lower. At its lowest end a run must hang on what it says that it hangs on."""
        way.at, way.want = way.at - 1, prev
        if way.at == self._freed and self._freed and way.at >= way.first and not self._has(way.at, prev):
            if self._freed_h and prev != self._freed_h:
                self._say(way.at + 1, What.EDITED, "it does not hang on what was freed below it")
            way.at = 0
        elif way.at < way.first and (prev != way.h_before or (way.first == 1 and prev != genesis(*self._key))):
            self._say(way.first, What.EDITED, "it does not hang on what lies below it")

    def _missing(self, way: _Way, down_to: int) -> None:
        """No rows between `down_to` and where the run has got to."""
        if way.at < max(down_to, way.first):
            return
        if way.at <= self._freed and self._is_freed(way):
            way.at = 0
            return
        low = max(down_to, way.first, self._freed + 1 if way.at > self._freed else 1)
        moved = self._elsewhere(way.want) if way.want is not None else None
        if moved is not None and way.at != low:
            moved = None  # a whole stretch is gone, not one fact moved
        if moved is not None:
            self._say(min(low, moved.seq), What.REORDERED, f"the fact of place {low} lies at {moved.seq}")
            self._moved[moved.h] = None
            self._down(way, moved.prev)
            return
        self._gone(way, low, way.at)

    def _gone(self, way: _Way, low: int, high: int) -> None:
        cut = high == way.last and not any(first <= high + 1 <= last for first, last in self._held)
        if cut:
            self._say(low, What.CUT, f"the history ends before {low}, and went on to {high} at least")
        else:
            self._say(low, What.DELETED, f"facts {low} to {high} are gone" if high > low else "it is gone")
        way.at, way.want = low - 1, None
        if way.at < way.first or (way.at <= self._freed and not way.apart):
            way.at = 0

    def _freed_at(self, seq: int) -> bytes | None:
        """The hash of a place that was freed, where it is kept."""
        return self._freed_h if seq == self._freed else self._hashes.at(self._sid, seq)

    def _is_freed(self, way: _Way) -> bool:
        """Is the run, so far down, the chain whose facts were freed? A branch that leaves below has its own facts there."""
        known = self._freed_at(way.at)
        way.apart = way.apart or (way.want is not None and known is not None and known != way.want)
        return not way.apart

    def _tell_exchanges(self) -> None:
        """Facts whose bytes are another's were exchanged; the others were edited."""
        for a in self._wrong:
            other = next((b for b in self._wrong if b is not a and blake2b(a.prev + b.row, digest_size=8).digest() == a.h), None)
            if other is not None:
                self._say(min(a.seq, other.seq), What.REORDERED, f"the content of place {a.seq} lies at {other.seq}")
            else:
                self._say(a.seq, What.EDITED, "its bytes are not those of its hash")

    # ------------------------------------------------------------ what others say

    def hear(self, words: Iterable[Word]) -> None:
        """Compare with what others name of this stream."""
        top = max((last for _, last in self._held), default=0)
        for word in words:
            if word.seq > top:
                self._say(top + 1, What.CUT, f"the history ends at {top}, but {word.who} names {word.seq}")
            elif word.h and word.seq > self._freed and not self._has(word.seq, word.h) and not self._closed(word.seq):
                self._say(word.seq, What.EDITED, f"not the fact that {word.who} names")

    def _has(self, seq: int, h: bytes) -> bool:
        return self._db.one("SELECT 1 FROM log WHERE sid=? AND seq=? AND h=?", (self._sid, seq, h)) is not None

    def _closed(self, seq: int) -> bool:
        """Is there a hole or a record at this seq, so that nothing can be said of it?"""
        return not any(way.first <= seq <= way.last for way in self._ways)

    # ------------------------------------------------------------ result

    def _say(self, seq: int, what: What, text: str) -> None:
        self._trouble.append(_Trouble(seq, what, text))

    def finding(self) -> Finding | None:
        """The lowest trouble of the stream."""
        if not self._trouble:
            return None
        first = min(self._trouble, key=lambda t: t.seq)
        more = len(dict.fromkeys(t.seq for t in self._trouble)) - 1
        return Finding(self._key, first.seq, first.what, first.text, more)
