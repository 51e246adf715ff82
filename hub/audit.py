"""Audits a hub: its ledger and the central store, each by its own chains, and each against what others said.

A tail that was cut off clean is only visible against somebody else's word. Words are: the heads that nodes named as settled in their
heartbeats (signed by them, kept in the registry), what the other of the two databases holds, the hub's own settled points, and what
registered backups had when they were begun. A hub or store that came back from a backup looks cut, too, until it has been given back what
it lost: an audit says what is, not why.

Reads only; open both databases read-only and hold them at one moment, the ledger first: the store may be ahead of it, never behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from hub.store.backups import unpack_cover
from protocols.audit import Audit, Finding, What, Word, audit
from protocols.chains import RunKind
from protocols.codec import unpack
from protocols.errors import DecodeError
from protocols.limits import FRAME_WIRE_BYTES
from protocols.messages import Heartbeat
from protocols.sqlite import Db
from protocols.streams import StreamKey

STEP_SEQS: Final = 2_000
Tell = Callable[[str, int, int], None]
Words = dict[StreamKey, list[Word]]


@dataclass(slots=True)
class HubAudit:
    """Both databases. `behind`: facts that the ledger holds and the store has not been given yet, or not again: no trouble by itself."""

    ledger: Audit = field(default_factory=Audit)
    store: Audit = field(default_factory=Audit)
    behind: int = 0

    def findings(self) -> list[tuple[str, Finding]]:
        """(hub.db or store.db, what was done to it), by stream."""
        found = [("hub.db", f) for f in self.ledger.findings] + [("store.db", f) for f in self.store.findings]
        return sorted(found, key=lambda one: (one[1].stream, one[0]))


def audit_hub(ledger: Db, store: Db, tell: Tell) -> HubAudit:
    """See the module. Errors: LedgerBroken."""
    said = _heartbeats(ledger)
    done = HubAudit()
    done.ledger = audit(ledger, _joined(said, _ends(store, "the central store")), lambda n, of: tell("hub.db", n, of))
    done.store = audit(store, _joined(said, _settled_own(ledger), _backups(store)), lambda n, of: tell("store.db", n, of))
    done.ledger.findings = [_sharpened(f, ledger, store) for f in done.ledger.findings]
    done.behind = max(0, _facts(ledger) - _facts(store))
    return done


def _facts(db: Db) -> int:
    row = db.one("SELECT coalesce(sum(last - first + 1), 0) FROM runs WHERE kind=0")
    return int(row[0]) if row else 0


# ------------------------------------------------------------ words


def _joined(*all_words: Words) -> Words:
    out: Words = {}
    for words in all_words:
        for key, said in words.items():
            out.setdefault(key, []).extend(said)
    return out


def _heartbeats(ledger: Db) -> Words:
    """What nodes call settled was at this hub and in its store when they were told so. Facts of orders only: they are never evicted."""
    words: Words = {}
    for node, body in ledger.query("SELECT node, body FROM beats ORDER BY node"):
        try:
            beat = Heartbeat.parse(unpack(bytes(body), max_bytes=FRAME_WIRE_BYTES))
        except DecodeError:
            continue  # of a later version
        for q in beat.streams:
            settled, h = (q.head[0] - q.queued, b"") if q.queued else q.head
            if settled > 0 and not q.cls:
                words.setdefault(StreamKey(node, q.epoch, q.cls), []).append(Word(settled, h, f"the heartbeat of {node}"))
    return words


def _ends(db: Db, who: str) -> Words:
    words: Words = {}
    for node, epoch, cls, last, h, kind in db.query("SELECT node, epoch, cls, last, h_last, kind FROM runs JOIN streams USING (sid)"):
        if kind == RunKind.DATA:
            words.setdefault(StreamKey(node, epoch, cls), []).append(Word(int(last), bytes(h), who))
    return words


def _settled_own(ledger: Db) -> Words:
    rows = ledger.query("SELECT node, epoch, cls, settled_seq FROM streams WHERE own=1 AND settled_seq>0")
    return {
        StreamKey(node, epoch, cls): [Word(int(seq), b"", f"{node}, which was told that it is settled,")] for node, epoch, cls, seq in rows
    }


def _backups(store: Db) -> Words:
    words: Words = {}
    for backup_id, covers in store.query("SELECT id, covers FROM backups WHERE expired_ms IS NULL ORDER BY begun_ms"):
        for key, runs in unpack_cover(bytes(covers)).items():
            said = [Word(r.last, r.h_last, f"backup {backup_id}") for r in runs if r.kind is RunKind.DATA]
            words.setdefault(key, []).extend(said)
    return words


# ------------------------------------------------------------ where two databases part


def _sharpened(found: Finding, ledger: Db, store: Db) -> Finding:
    """Only the ends of runs are compared at first; where they differ, the first fact that does is named."""
    if found.what is not What.EDITED or "the central store names" not in found.text:
        return found
    seq = first_difference(ledger, store, found.stream)
    return found if seq is None or seq >= found.seq else found._replace(seq=seq)


def first_difference(a: Db, b: Db, key: StreamKey) -> int | None:
    """The lowest seq of a stream at which both hold facts and neither holds all that the other does."""
    sids = [db.one("SELECT sid FROM streams WHERE node=? AND epoch=? AND cls=?", tuple(key)) for db in (a, b)]
    if sids[0] is None or sids[1] is None:
        return None
    top, low = a.one("SELECT max(seq) FROM log WHERE sid=?", (sids[0][0],)), 1
    while top is not None and top[0] is not None and low <= top[0]:
        ours, theirs = (_hashes(db, sid[0], low) for db, sid in ((a, sids[0]), (b, sids[1])) if sid is not None)
        for seq in sorted(ours.keys() & theirs.keys()):
            if not (ours[seq] <= theirs[seq] or theirs[seq] <= ours[seq]):
                return seq
        low += STEP_SEQS
    return None


def _hashes(db: Db, sid: int, low: int) -> dict[int, frozenset[bytes]]:
    out: dict[int, frozenset[bytes]] = {}
    for seq, h in db.query("SELECT seq, h FROM log WHERE sid=? AND seq BETWEEN ? AND ?", (sid, low, low + STEP_SEQS - 1)):
        out[seq] = out.get(seq, frozenset()) | {bytes(h)}
    return out
