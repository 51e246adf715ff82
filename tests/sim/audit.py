"""I11: a walk over a database that needs nothing but its rows. It names what was edited, removed, put in, moved or cut off."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

from protocols.fact import genesis
from protocols.sqlite import Db

Known = dict[int, dict[bytes, int]]
"""seq -> hash -> how often it stands in the log"""


def audit(db: Db) -> Iterator[str]:
    """Every finding, stream by stream."""
    for sid, node, epoch, cls, freed, freed_h in db.query("SELECT sid, node, epoch, cls, freed_seq, freed_h FROM streams ORDER BY sid"):
        name = f"{node}/{epoch % 4096:03x}"
        start = genesis(node, epoch, cls)
        yield from _links(db, sid, name, start, freed, bytes(freed_h or b""))
        yield from _runs(db, sid, name, start, freed)


def _links(db: Db, sid: int, name: str, start: bytes, freed: int, freed_h: bytes) -> Iterator[str]:
    """Each row hashes to its identity and hangs on the one before it, on a run's lower end, or on what was freed."""
    opaque = {(seq, bytes(h)) for seq, h in db.query("SELECT seq, h FROM quarantine WHERE sid=?", (sid,))}
    ends = {(first - 1, bytes(h)) for first, h in db.query("SELECT first, h_before FROM runs WHERE sid=?", (sid,))}
    below = {(0, start), (freed, freed_h), *ends}
    for seq, h, prev, row in db.query("SELECT seq, h, prev, row FROM log WHERE sid=? ORDER BY seq, h", (sid,)):
        h, prev = bytes(h), bytes(prev)
        if blake2b(prev + bytes(row), digest_size=8).digest() != h and (seq, h) not in opaque:
            yield f"{name}/{seq} was edited: its bytes do not hash to {h.hex()}"
        if (seq - 1, prev) not in below and seq > freed:
            yield f"{name}/{seq} hangs on {prev.hex()}, which is not there"
        below.add((seq, h))


def _runs(db: Db, sid: int, name: str, start: bytes, freed: int) -> Iterator[str]:
    """Every fact that a run of data claims is there, from its upper end down, and none stands outside of all runs."""
    rows = {(seq, bytes(h)): bytes(prev) for seq, h, prev in db.query("SELECT seq, h, prev FROM log WHERE sid=?", (sid,))}
    claimed: dict[tuple[int, bytes], None] = {}
    for first, h_before, last, h_last in db.query(
        "SELECT first, h_before, last, h_last FROM runs WHERE sid=? AND kind=0 ORDER BY first", (sid,)
    ):
        seq, h = last, bytes(h_last)
        while seq >= first and seq > freed:
            if (seq, h) not in rows:
                yield f"{name}/{seq} with hash {h.hex()} is missing"
                break
            claimed[seq, h] = None
            seq, h = seq - 1, rows[seq, h]
        if seq == first - 1 >= freed and h != bytes(h_before) and bytes(h_before):
            yield f"{name}/{first} begins on {h.hex()}, its run on {bytes(h_before).hex()}"
        if first == 1 and not freed and bytes(h_before) != start:
            yield f"{name} does not begin with its genesis"
    for seq, h in rows:
        if (seq, h) not in claimed and seq > freed:
            yield f"{name}/{seq} with hash {h.hex()} was put in: no run knows it"
