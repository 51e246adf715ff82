"""Streams in a store on PostgreSQL. Nothing of the log is kept in memory here: what is asked is read.

`PgLog` is for one batch: the streams it touches as the batch found them. What is held of them, their runs, is no business of a batch, which
brings pieces among those of others; `hub.store.pg_held` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from hub.store.pg import Answer, Asked, Pg, Raced
from hub.store.pg_rows import LOG
from hub.store.pg_values import bigints, integers, smallints, texts
from protocols.chains import Chain, Run
from protocols.fact import genesis
from protocols.freed import FreedHashes
from protocols.streams import Stream, StreamKey, StreamLog, points_of

_KEYS: Final = "unnest(?::text[], ?::bigint[], ?::smallint[]) k (node, epoch, cls)"
_OF_KEYS: Final = 'k.node COLLATE "C" = s.node AND k.epoch = s.epoch AND k.cls = s.cls'
_COLUMNS: Final = "s.sid, s.node, s.epoch, s.cls, s.fixes, s.fork_seq"
_OPENED: Final = f"""SELECT {_COLUMNS} FROM {_KEYS} JOIN streams s ON {_OF_KEYS}
    UNION ALL SELECT {_COLUMNS} FROM streams s WHERE s.fork_seq IS NOT NULL"""
_LOCKED: Final = f"SELECT {_COLUMNS} FROM streams s WHERE s.sid = ANY(?::integer[]) ORDER BY s.sid FOR NO KEY UPDATE"


class NothingFreed(FreedHashes):
    """The central store frees nothing."""

    def __init__(self) -> None:
        self._sids = {}


class Stood(NamedTuple):
    """What a batch relies on of a stream beside its own facts."""

    fixes: int
    fork_seq: int | None


class PgStreams(StreamLog):
    """`StreamLog` over PostgreSQL without runs in memory: its streams, and walks along the links of the log."""

    def __init__(self, db: Pg) -> None:
        self._db = self._pg = db
        self._by_key, self._by_sid, self._pending = {}, {}, []
        self.forked_nodes = {}
        self.freed = NothingFreed()
        self.mentioned = 0

    def made_known(self, sid: int, key: StreamKey, fork_seq: int | None) -> Stream:
        """A stream, entered here if it was not."""
        stream = self._by_sid.get(sid)
        if stream is None:
            stream = Stream(sid, key, False, Chain(genesis(*key), points_of(self, sid)))
            self._by_sid[sid] = self._by_key[key] = stream
        self.note_fork(stream, fork_seq)
        return stream

    def chain_of(self, stream: Stream, runs: Sequence[Run]) -> Chain:
        """A chain of runs that were read from the log, with what is known of its stream's fork."""
        chain = Chain(stream.chain.genesis, points_of(self, stream.sid))
        chain.runs, chain.fork_point = list(runs), stream.chain.fork_point
        return chain

    def note_fork(self, stream: Stream, fork_seq: int | None) -> None:
        """Evidence of a fork is never unlearnt."""
        known = stream.chain.fork_point
        if fork_seq is not None and (known is None or fork_seq < known):
            stream.chain.fork_point = fork_seq
        self._note_fork(stream)

    def by_sid(self, sid: int) -> Stream:
        """See `StreamLog`."""
        stream = self._by_sid.get(sid)
        if stream is None:
            row = self._db.one("SELECT node, epoch, cls, fork_seq FROM streams WHERE sid=?", (sid,))
            assert row is not None, "a stream is never deleted"
            stream = self.made_known(sid, StreamKey(*row[:3]), row[3])
        return stream

    def fork_point(self, sid: int) -> int | None:
        """See `merge.Ancestry`."""
        return self.by_sid(sid).chain.fork_point


class PgLog(PgStreams):
    """For one batch. `careful`: the streams that matter are locked, so that walks along their branches stay true until the commit."""

    def __init__(self, db: Pg, *, careful: bool) -> None:
        super().__init__(db)
        self._careful = careful
        self.stood: dict[int, Stood] = {}
        self._rows = b""

    # ------------------------------------------------------------ rows of the log

    def hold(self, rows: bytes) -> None:
        """Rows for the log, as `log_rows` makes them, that are written together with the rest of the batch, or before somebody asks."""
        self._rows = rows

    def held(self) -> list[tuple[str, bytes]]:
        """What was held and is not written yet; whoever asks writes it."""
        rows, self._rows = self._rows, b""
        return [(LOG, rows)] if rows else []

    def _write(self) -> None:
        self._pg.copy_in(*self.held())

    # ------------------------------------------------------------ streams

    def opening(self, keys: Iterable[StreamKey]) -> Asked:
        """Asks for these streams and for every forked one: `opened` is given the answer."""
        return _OPENED, _packed(sorted(dict.fromkeys(keys)))

    def opened(self, answer: Answer, keys: Iterable[StreamKey]) -> None:
        """Streams that were not there are made."""
        self._enter_rows(answer.rows)
        self._make(keys)

    def open_all(self, keys: Iterable[StreamKey]) -> None:
        """Make streams known, here and in the database, with one question."""
        wanted = sorted(dict.fromkeys(keys))
        self._read(wanted)
        self._make(wanted)

    def _make(self, keys: Iterable[StreamKey]) -> None:
        missing = sorted(dict.fromkeys(key for key in keys if key not in self._by_key))
        if missing:
            self._db.run(
                f"INSERT INTO streams (node, epoch, cls) SELECT node, epoch, cls FROM {_KEYS} ON CONFLICT DO NOTHING", _lists(missing)
            )
            self._read(missing)

    def _read(self, keys: Sequence[StreamKey]) -> None:
        self._enter_rows(self._db.query(f"SELECT {_COLUMNS} FROM {_KEYS} JOIN streams s ON {_OF_KEYS}", _lists(keys)))

    def load_forked(self) -> None:
        """Every stream that is known to be forked: few, and asked about for every order."""
        self._enter_rows(self._db.query(f"SELECT {_COLUMNS} FROM streams s WHERE s.fork_seq IS NOT NULL ORDER BY s.sid"))

    def _enter_rows(self, rows: Iterable[Sequence[Any]]) -> None:
        for sid, node, epoch, cls, fixes, fork_seq in rows:
            self.made_known(sid, StreamKey(node, epoch, cls), fork_seq)
            self.stood[sid] = Stood(fixes, fork_seq)

    def open(self, key: StreamKey, *, own: bool = False) -> Stream:
        """See `StreamLog`."""
        if key not in self._by_key:
            self.open_all([key])
        return self._by_key[key]

    def lock(self, sids: Iterable[int]) -> None:
        """Until the commit nobody else adds facts to these streams, nor learns of their forks and fixes. What others did since they were
        read is taken in by a careful batch, which has decided nothing yet. Errors: Raced, for one that has."""
        (answer,) = self._pg.together(self.locking(sids))
        self.locked(answer)

    def locking(self, sids: Iterable[int]) -> Asked:
        """See `lock`; `locked` is given the answer."""
        return _LOCKED, (integers(sorted(sids)),)

    def locked(self, answer: Answer) -> None:
        """See `lock`."""
        if self._careful:
            self._enter_rows(answer.rows)
        elif any(self.stood.get(row[0]) != (row[4], row[5]) for row in answer.rows):
            raise Raced("another writer changed what is known of a stream", remedy="try again")

    def below(self, sid: int, tip_seq: int, tip_h: bytes, seq: int) -> bytes | None:
        """See `StreamLog`. Which facts of a branch are here must not change before the commit, so it is only asked under the lock."""
        if not self._careful:
            raise Raced("a branch has to be walked", remedy="try again")
        return super().below(sid, tip_seq, tip_h, seq)


def _lists(keys: Sequence[StreamKey]) -> tuple[list[str], list[int], list[int]]:
    return [k.node for k in keys], [k.epoch for k in keys], [k.cls for k in keys]


def _packed(keys: Sequence[StreamKey]) -> tuple[bytes, bytes, bytes]:
    return texts([k.node for k in keys]), bigints([k.epoch for k in keys]), smallints([k.cls for k in keys])
