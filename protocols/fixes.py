"""Which facts were replaced or given up by their author after they had been refused, and what stands in their place (sync.md, rule 8).

A fix is a fact of the same author that names what it replaces; a withdrawal is one that puts nothing in its place. Whichever comes first,
the fix or the refused fact: of all that claim a place the one with the greatest `merge.By` holds it, everywhere, and the others count for
nothing in the fold, also where they can be read. They stay in the log and in the lists.

A row of the table `fixes` is kept per place, and per fix that was fixed in turn. Shared by every ledger and by the stores.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from protocols.codec import unpack
from protocols.errors import DecodeError
from protocols.fact import WITHDRAWN, FactRow, Replaces, Withdrawn, read_withdrawn
from protocols.limits import FRAME_UNPACKED_BYTES
from protocols.merge import Head
from protocols.sql import Sql
from protocols.streams import Stream, StreamKey, StreamLog

Identity = tuple[int, int, bytes]
"""(sid, seq, h) of a fact in this database"""
_SHORT_ARRAYS: Final = range(0x90, 0xA0)
_HOLDS: Final = """INSERT INTO fixes (sid, seq, h, turn, by_seq, by_h, by_sid, gone) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (sid, seq, h) DO UPDATE SET turn=excluded.turn, by_seq=excluded.by_seq, by_h=excluded.by_h, by_sid=excluded.by_sid,
      gone=excluded.gone"""


class Fix(NamedTuple):
    """What stands in the place of a fact. `gone`: nothing does, its author gave it up."""

    by: tuple[int, int, bytes, int]
    gone: bool

    @property
    def fact(self) -> Identity:
        """The fact that says so."""
        return self.by[3], self.by[1], self.by[2]


class Fixes:
    """See the module. `take` belongs into the owner's transaction."""

    def __init__(self, db: Sql, log: StreamLog, sids: Iterable[int] | None = None) -> None:
        """`sids`: of the streams in which something was replaced, where somebody has read them already."""
        self._db, self._log = db, log
        if sids is None:
            sids = [sid for (sid,) in db.query("SELECT DISTINCT sid FROM fixes ORDER BY sid")]
        self._sids: dict[int, None] = dict.fromkeys(sids)
        """streams in which something was replaced: facts of all others are not looked up"""

    def of(self, identity: Identity) -> Fix | None:
        """What stands in the place of a fact; None: it was not replaced."""
        if identity[0] not in self._sids:
            return None
        row = self._db.one("SELECT turn, by_seq, by_h, by_sid, gone FROM fixes WHERE sid=? AND seq=? AND h=?", identity)
        return None if row is None else Fix((row[0], row[1], bytes(row[2]), row[3]), bool(row[4]))

    def overruled(self, head: Head) -> bool:
        """Does something else hold this fact's place?"""
        if not self._sids or head.sid not in self._sids:
            return False
        found = self.of(head.place)
        return found is not None and found.by > head.by

    def place(self, stream: Stream, replaces: Replaces) -> Identity:
        """The place that a fix in this stream takes."""
        return self._identity(stream, replaces.place)

    def _identity(self, stream: Stream, named: tuple[int, int, bytes]) -> Identity:
        epoch, seq, h = named
        return self._log.open(StreamKey(stream.key.node, epoch, stream.key.cls)).sid, seq, h

    def take(self, stream: Stream, seq: int, h: bytes, replaces: Replaces, *, gone: bool) -> list[Identity]:
        """Take in a fix that was logged at (seq, h) of a stream. Returns the facts whose orders are to be folded again."""
        mine = (replaces.turn, seq, h, stream.sid)
        touched: dict[Identity, None] = {}
        for identity in [self._identity(stream, named) for named in replaces.all]:
            known = self.of(identity)
            touched[identity] = None
            if known is not None:
                touched[known.fact] = None
            if known is None or known.by < mine:
                self._sids[identity[0]] = None
                self._db.run(_HOLDS, (*identity, *mine, int(gone)))
        return list(touched)

    def orders(self, facts: list[Identity]) -> list[int]:
        """The orders (okey) that these facts are logged under, where they are here and could be read."""
        okeys: dict[int, None] = {}
        for identity in facts:
            row = self._db.one("SELECT okey FROM log WHERE sid=? AND seq=? AND h=? AND okey IS NOT NULL", identity)
            if row is not None:
                okeys[row[0]] = None
        return list(okeys)


def is_withdrawal(row: bytes) -> bool:
    """Is it the row of a withdrawal, by its first two bytes? It spares unpacking the others."""
    return len(row) > 1 and row[0] in _SHORT_ARRAYS and row[1] == WITHDRAWN


def withdrawal(row: bytes) -> Withdrawn | None:
    """The withdrawal in a row; None where it is none, or cannot be read."""
    if not is_withdrawal(row):
        return None
    try:
        return read_withdrawn(unpack(row, max_bytes=FRAME_UNPACKED_BYTES))
    except DecodeError:
        return None


def unfit(key: StreamKey, seq: int, said: FactRow | Withdrawn) -> str:
    """Why a fix cannot be one: what it names must come before it. Empty: it can, or it is no fix."""
    replaces = said.replaces
    if replaces is None:
        return ""
    for epoch, at, _ in replaces.all:
        if epoch == key.epoch and at >= seq:
            return f"replaces seq {at}, which is not before its own"
    return ""
