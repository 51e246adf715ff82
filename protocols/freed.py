"""The hashes of facts that a holder freed: 8 bytes each, so that it still tells one branch from another where the facts are gone.

A hub needs this: facts of a branch that leaves below what it freed are new facts, never duplicates, and what a frame says of places that
were freed can be checked as exactly as if the facts were here. Where an evicted range has no facts there is no hash either.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final

from protocols.sql import Sql

HASH_BYTES: Final = 8
PIECE: Final = 480
"""hashes in one row: a page of the file"""


class FreedHashes:
    """See the module. One chain per stream: what is freed is freed along one branch, below any fork that is known then."""

    def __init__(self, db: Sql) -> None:
        self._db = db
        made = db.one("SELECT 1 FROM sqlite_master WHERE type='table' AND name='freed'") is not None  # not in a file of version 1
        self._sids: dict[int, None] = dict.fromkeys(sid for (sid,) in db.query("SELECT DISTINCT sid FROM freed")) if made else {}

    def kept_of(self, sid: int) -> bool:
        """Are hashes kept of this stream?"""
        return sid in self._sids

    def keep(self, sid: int, points: Sequence[tuple[int, bytes]]) -> None:
        """Facts by (seq, hash), ascending, that are freed now."""
        if not points:
            return
        self._sids[sid] = None
        for _, group in groupby(enumerate(points), key=lambda it: it[1][0] - it[0]):
            run = [point for _, point in group]
            self._append(sid, run[0][0], b"".join(h for _, h in run))

    def _append(self, sid: int, first: int, hashes: bytes) -> None:
        """Behind the last piece, which is filled up first."""
        last = self._db.one("SELECT first, hashes FROM freed WHERE sid=? ORDER BY first DESC LIMIT 1", (sid,))
        if last is not None and last[0] + len(last[1]) // HASH_BYTES == first and len(last[1]) < PIECE * HASH_BYTES:
            first, hashes = last[0], bytes(last[1]) + hashes
            self._db.run("DELETE FROM freed WHERE sid=? AND first=?", (sid, first))
        step = PIECE * HASH_BYTES
        self._db.many(
            "INSERT INTO freed (sid, first, hashes) VALUES (?, ?, ?)",
            [(sid, first + i // HASH_BYTES, hashes[i : i + step]) for i in range(0, len(hashes), step)],
        )

    def at(self, sid: int, seq: int) -> bytes | None:
        """The hash at a seq; None where none is kept."""
        if sid not in self._sids:
            return None
        row = self._db.one("SELECT first, hashes FROM freed WHERE sid=? AND first<=? ORDER BY first DESC LIMIT 1", (sid, seq))
        if row is None:
            return None
        h = bytes(row[1])[(seq - row[0]) * HASH_BYTES : (seq - row[0] + 1) * HASH_BYTES]
        return h or None

    def between(self, sid: int, first: int, last: int) -> dict[int, bytes]:
        """The hashes of a range, by seq."""
        rows = self._db.query("SELECT first, hashes FROM freed WHERE sid=? AND first<=? ORDER BY first", (sid, last))
        found: dict[int, bytes] = {}
        for start, hashes in rows:
            for i in range(max(0, first - start), min(len(hashes) // HASH_BYTES, last - start + 1)):
                found[start + i] = bytes(hashes[i * HASH_BYTES : (i + 1) * HASH_BYTES])
        return found

    def forget_above(self, sid: int, seq: int) -> None:
        """What lies above is not held any more."""
        row = self._db.one("SELECT first, hashes FROM freed WHERE sid=? AND first<=? ORDER BY first DESC LIMIT 1", (sid, seq))
        self._db.run("DELETE FROM freed WHERE sid=? AND first>?", (sid, seq))
        if row is not None:
            self._db.run(
                "UPDATE freed SET hashes=? WHERE sid=? AND first=?", (bytes(row[1])[: (seq - row[0] + 1) * HASH_BYTES], sid, row[0])
            )
