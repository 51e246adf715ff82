"""The backups of the central store that could still be restored, and what all of them hold (sync.md, rule 11).

Whoever holds a fact frees it only when every backup that could still be restored has it. So what a backup lacks holds freeing back, and the
question is from when to when a backup counts:

- *From the moment it is begun*, before its first byte is copied. What it will hold is then at least what the store holds at that moment,
  for rows are never deleted: `covers` is the store's runs, read in the transaction that registers it. A statement that was made before may
  be on its way to a node for ever; all it called freeable was in the store by then, so the new backup has it. Were a backup to count from
  its end only, facts that came while it was made would be freed by a list that does not know it yet, and it lacks them.
- *While it is unfinished* it constrains like any other (it may yet complete), but it is no cover: nothing is freed on its word alone,
  because it may also fail. At least one complete backup is needed before settled facts are freed without pressure.
- *Until it is expired*, which is final: an expired backup is never completed, and a restore refuses it. One that failed is expired by its
  maker, who knows that nothing of it is left; one whose maker died, by people or by retention.

Rows and list are of one database and read at one moment. The list therefore is restored with the rows; what a restored store does not
remember is told to it again from files beside it (`merge`, and `hub.backup_register`): states only ever go forward, so both are joined.

A store that came back older may lack the point at which a newer backup ends. Then nothing tells how much of what is here that backup has:
it counts as having nothing, and freeing waits until nodes have given the point back, or the backup is expired.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from protocols.chains import Chain, Run, RunKind
from protocols.codec import pack, unpack
from protocols.errors import InvalidInput
from protocols.messages import RunStated
from protocols.sql import Sql
from protocols.streams import Stream, StreamKey, StreamLog
from protocols.sync.intervals import Intervals

Cover = dict[StreamKey, tuple[RunStated, ...]]
EXPIRED_KEPT: Final = 500
"""backups that are told of after they have expired"""
_DAY_MS: Final = 86_400_000
UNFINISHED_MS: Final = _DAY_MS
"""an unfinished backup that another has overtaken is given up after so long"""
_COLUMNS: Final = "id, begun_ms, finished_ms, expired_ms, tool, place, covers"


@dataclass(frozen=True, slots=True)
class Backup:
    """One copy of the store. `tool` made it and `place` is where it lies, in words; `covers` is packed, and empty once it has expired."""

    id: str
    begun_ms: int
    finished_ms: int | None
    expired_ms: int | None
    tool: str
    place: str
    covers: bytes

    @property
    def state(self) -> str:
        """begun, complete or expired."""
        return "expired" if self.expired_ms is not None else "complete" if self.finished_ms is not None else "begun"


def pack_cover(cover: Cover) -> bytes:
    """Runs per stream as bytes for a column."""
    rows = [[*key, [[r.first, r.h_before, r.last, r.h_last, int(r.kind)] for r in runs]] for key, runs in cover.items() if runs]
    return zlib.compress(pack(rows))


def unpack_cover(data: bytes) -> Cover:
    """What `pack_cover` wrote. Without a bound: it was written here."""
    if not data:
        return {}
    plain = zlib.decompress(data)
    rows: list[list[object]] = unpack(plain, max_bytes=len(plain))  # type: ignore[assignment]
    return {
        StreamKey(node, epoch, cls): tuple(RunStated(r[0], r[1], r[2], r[3], RunKind(r[4])) for r in runs)  # type: ignore[arg-type,attr-defined]
        for node, epoch, cls, runs in rows
    }


class Backups:
    """The list of one store, for its writer or a reader. Methods that change something run inside the owner's transaction."""

    def __init__(self, db: Sql, log: StreamLog) -> None:
        self._db, self._log = db, log
        self._restorable: list[tuple[Backup, Cover]] = []
        self._known: dict[int, tuple[Chain, tuple[RunStated, ...]]] = {}
        """by stream: the chain as it was, and what every backup has of it, where that cannot change any more"""
        self._load()

    def _load(self) -> None:
        self._restorable = [(b, unpack_cover(b.covers)) for b in self.rows() if b.state != "expired"]
        self._known = {}

    # ------------------------------------------------------------ the list

    def rows(self) -> list[Backup]:
        """All of them, oldest first."""
        return [
            Backup(r[0], r[1], r[2], r[3], r[4], r[5], bytes(r[6]))
            for r in self._db.query(f"SELECT {_COLUMNS} FROM backups ORDER BY begun_ms, id")
        ]

    def get(self, backup_id: str) -> Backup:
        """One of them. Errors: InvalidInput."""
        found = next((b for b in self.rows() if b.id == backup_id), None)
        if found is None:
            raise InvalidInput("id", f"no backup {backup_id!r} is registered.", remedy="List them: longshore-hub backups ls")
        return found

    def begin(self, backup_id: str, tool: str, place: str, cover: Cover, now_ms: int) -> Backup:
        """Register one before its first byte is copied. `cover`: what the store holds in this very transaction."""
        backup = Backup(backup_id, now_ms, None, None, tool, place, pack_cover(cover))
        self._write(backup)
        return backup

    def complete(self, backup_id: str, now_ms: int) -> Backup:
        """It is whole and lies where it belongs. Errors: InvalidInput: not known, or expired meanwhile."""
        found = self.get(backup_id)
        if found.expired_ms is not None:
            raise InvalidInput(
                "id", f"backup {backup_id} has expired: facts that it lacks may have been freed.", remedy="Delete it, and make another."
            )
        if found.finished_ms is None:
            found = replace(found, finished_ms=now_ms)
            self._write(found)
        return found

    def expire(self, backup_id: str, now_ms: int) -> Backup:
        """It will never be restored. Final. Errors: InvalidInput."""
        found = self.get(backup_id)
        if found.expired_ms is None:
            found = replace(found, expired_ms=now_ms, covers=b"")
            self._write(found)
            self._forget()
        return found

    def merge(self, others: Iterable[Backup]) -> list[Backup]:
        """Take in what is remembered elsewhere: a state never goes back. Returns the list as it then is."""
        mine = {b.id: b for b in self.rows()}
        for other in others:
            joined = _joined(mine.get(other.id), other)
            if joined != mine.get(other.id):
                self._write(joined)
        return self.rows()

    def _write(self, b: Backup) -> None:
        self._db.run(
            f"""INSERT INTO backups ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET
                  begun_ms=excluded.begun_ms, finished_ms=excluded.finished_ms, expired_ms=excluded.expired_ms, tool=excluded.tool,
                  place=excluded.place, covers=excluded.covers""",
            (b.id, b.begun_ms, b.finished_ms, b.expired_ms, b.tool, b.place, b.covers),
        )
        self._load()

    def _forget(self) -> None:
        expired = self._db.query("SELECT id FROM backups WHERE expired_ms IS NOT NULL ORDER BY expired_ms DESC, id")
        self._db.many("DELETE FROM backups WHERE id=?", expired[EXPIRED_KEPT:])

    # ------------------------------------------------------------ what all of them have

    @property
    def newest_ms(self) -> int | None:
        """When the newest was begun that could be restored now; None: there is none."""
        return max((b.begun_ms for b, _ in self._restorable if b.finished_ms is not None), default=None)

    def backed_up(self, streams: Sequence[StreamKey] | None, *, required: bool) -> Cover | None:
        """Runs of the store's own chains that every restorable backup has; None: there is none, and none is required."""
        if not self._restorable:
            return {} if required else None
        found = [self._log.get(key) for key in streams] if streams is not None else self._log.all()
        return {s.key: self._of(s) for s in found if s is not None}

    def _of(self, stream: Stream) -> tuple[RunStated, ...]:
        known = self._known.get(stream.sid)
        if known is not None and known[0] is stream.chain:
            return known[1]
        covers = [cover.get(stream.key, ()) for _, cover in self._restorable]
        lacks, sure = _lacked(stream.chain, covers)
        out: list[RunStated] = []
        for run in stream.chain.runs:
            if run.kind is not RunKind.DATA:
                if all(any(_records(c, run) for c in cover) for cover in covers):
                    out.append(RunStated(run.first, run.h_before, run.last, run.h_last, run.kind))
                continue
            for low, high in lacks[id(run)].missing(run.first, run.last):
                piece = self._piece(stream, run, low, high)
                if piece is not None:
                    out.append(piece)
        if sure:  # a longer chain does not change what copies have of it
            self._known[stream.sid] = (stream.chain, tuple(out))
        return tuple(out)

    def _piece(self, stream: Stream, run: Run, low: int, high: int) -> RunStated | None:
        before = run.h_before if low == run.first else self._log.hash_in(stream, run, low - 1)
        last = run.h_last if high == run.last else self._log.hash_in(stream, run, high)
        return None if before is None or last is None else RunStated(low, before, high, last)


def _joined(mine: Backup | None, other: Backup) -> Backup:
    """Two memories of one backup: what either of them says has happened, has."""
    if mine is None:
        return other if other.expired_ms is None else replace(other, covers=b"")
    finished = mine.finished_ms if mine.finished_ms is not None else other.finished_ms
    expired = mine.expired_ms if mine.expired_ms is not None else other.expired_ms
    return replace(mine, finished_ms=finished, expired_ms=expired, covers=b"" if expired is not None else mine.covers or other.covers)


def _lacked(chain: Chain, covers: Sequence[Sequence[RunStated]]) -> tuple[dict[int, Intervals], bool]:
    """(by run of the chain: seqs that some backup lacks; whether the end of every run of every backup is known here)."""
    lacks = {id(run): Intervals() for run in chain.data()}
    sure = True
    for cover in covers:
        has: dict[int, Intervals] = {}
        for said in cover:
            if said.kind is not RunKind.DATA:
                continue
            way = list(chain.path(said.last, said.h_last))
            sure = sure and bool(way)
            for run, last in way:
                if last < said.first:
                    break
                if run.kind is RunKind.DATA:
                    has.setdefault(id(run), Intervals()).add(max(run.first, said.first), last)
        for run in chain.data():
            for low, high in has.get(id(run), Intervals()).missing(run.first, run.last):
                lacks[id(run)].add(low, high)
    return lacks, sure


def _records(said: RunStated, run: Run) -> bool:
    """Has a backup the author's word on what this record closes?"""
    return said.kind is not RunKind.DATA and said.first <= run.first and said.last >= run.last


def to_expire(backups: Sequence[Backup], now_ms: int, *, keep: int, max_age_ms: int) -> list[Backup]:
    """What retention ends: complete ones beyond the newest `keep`, those begun longer ago than `max_age_ms` (0: no limit, for either), and
    unfinished ones that a later backup has overtaken a day ago. The newest complete backup always stays."""
    living = [b for b in backups if b.expired_ms is None]
    complete = sorted((b for b in living if b.finished_ms is not None), key=lambda b: (b.begun_ms, b.id))
    if not complete:
        return []
    newest = complete[-1]
    gone = complete[:-keep] if keep else []
    gone += [b for b in complete if b is not newest and b not in gone and max_age_ms and now_ms - b.begun_ms > max_age_ms]
    given_up = [
        b for b in living if b.finished_ms is None and b.begun_ms < newest.begun_ms and now_ms - b.begun_ms > (max_age_ms or UNFINISHED_MS)
    ]
    return [*gone, *given_up]
