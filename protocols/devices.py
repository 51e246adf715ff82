"""The latest reading per device and kind: what a ledger remembers of telemetry beside the facts, which may be evicted or freed.

Written in the transaction that logs the fact. "Latest" is by the author's own numbering, never by a clock: of two facts of one author the
one with the higher (stream, seq) is the later, and a fact that comes late does not replace one that came after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from protocols.codec import unpack
from protocols.device_index import DeviceIndex
from protocols.errors import DecodeError
from protocols.limits import DEVICES_KEPT, FRAME_UNPACKED_BYTES
from protocols.sqlite import Db
from protocols.telemetry import Reading, read_telemetry

_NOTE: Final = """INSERT INTO devices (node, device, kind, sid, seq, at_ms, row) VALUES (?, ?, ?, ?, ?, ?, ?)
  ON CONFLICT (node, device, kind) DO UPDATE SET sid=excluded.sid, seq=excluded.seq, at_ms=excluded.at_ms, row=excluded.row
  WHERE (excluded.sid, excluded.seq) >= (devices.sid, devices.seq)"""


@dataclass(frozen=True, slots=True)
class Latest:
    """The latest reading of a (device, kind) that `node` said, when it recorded it and when this database took it."""

    node: str
    reading: Reading
    recorded_ms: int
    taken_ms: int


class Devices:
    """See the module. Bounded: beyond `DEVICES_KEPT` entries those heard of longest ago are forgotten; their facts are not."""

    def __init__(self, db: Db) -> None:
        self._db = db
        self._count: int | None = None
        self._index: DeviceIndex | None = None

    def note(self, node: str, reading: Reading, sid: int, seq: int, at_ms: int, row: bytes) -> None:
        """A fact was logged."""
        self._db.run(_NOTE, (node, reading.device, reading.kind, sid, seq, at_ms, row))
        if self._index is not None:
            self._index.note(node, reading, (sid, seq), at_ms)
        self._count = None if self._count is None else self._count + 1  # at most so many: an entry replaced counts too

    def bound(self) -> None:
        """Forget the oldest beyond the bound; once per transaction that noted any."""
        if self._count is None or self._count > DEVICES_KEPT:
            row = self._db.one("SELECT count(*) FROM devices")
            self._count = int(row[0]) if row else 0
        if self._count > DEVICES_KEPT:
            over = self._count - DEVICES_KEPT * 9 // 10
            self._db.run(
                """DELETE FROM devices WHERE (node, device, kind) IN
                     (SELECT node, device, kind FROM devices ORDER BY at_ms, node, device, kind LIMIT ?)""",
                (over,),
            )
            self._count -= over
            self._index = None

    def is_latest(self, node: str, device: str, kind: str, sid: int, seq: int) -> bool:
        """Does no later fact supersede this one, as far as is remembered? What is not remembered supersedes nothing."""
        row = self._db.one("SELECT sid, seq FROM devices WHERE node=? AND device=? AND kind=?", (node, device, kind))
        return row is None or (row[0], row[1]) <= (sid, seq)

    def page(self, after: str, limit: int, *, node: str | None = None) -> list[Latest]:
        """The entries of the next `limit` devices after the one named, by device and kind; of one author, or of all."""
        names = "SELECT DISTINCT device FROM devices WHERE device > ?1 AND (?3 IS NULL OR node = ?3) ORDER BY device LIMIT ?2"
        rows = self._db.query(
            f"""SELECT node, at_ms, row FROM devices WHERE device IN ({names}) AND (?3 IS NULL OR node = ?3)
                ORDER BY device, kind, node""",
            (after, limit, node),
        )
        return [found for found in (_latest(*row) for row in rows) if found is not None]

    def index(self) -> DeviceIndex:
        """All of them in memory, kept in step from now on. The first question reads the whole table."""
        if self._index is None:
            self._index = DeviceIndex()
            for node, sid, seq, at_ms, row in self._db.query("SELECT node, sid, seq, at_ms, row FROM devices ORDER BY node, device, kind"):
                reading = read_row(row)
                if reading is not None:
                    self._index.note(node, reading, (sid, seq), at_ms)
        return self._index


def _latest(node: str, at_ms: int, row: bytes) -> Latest | None:
    try:
        reading, recorded_ms = read_telemetry(_values(row))
    except DecodeError:  # a later version wrote it into this database
        return None
    return Latest(node, reading, recorded_ms, at_ms)


def _values(row: bytes) -> Any:
    return unpack(row, max_bytes=FRAME_UNPACKED_BYTES)


def read_row(row: bytes) -> Reading | None:
    """The reading in a logged row; None where it is none."""
    try:
        return read_telemetry(_values(row))[0]
    except DecodeError:
        return None
