"""The tables of a ledger, as migrations that only ever go forward. A released migration is never edited; golden databases hold that.

A database is made of parts (the ledger; a hub's registry; the store's view), each with its version in the table `versions`, so that they
can go forward one without the other. `migrate` runs what is missing, one transaction each; a file newer than this code is
refused, untouched.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

from protocols.errors import ConfigError
from protocols.sqlite import MEMORY, Db

_VERSIONS: Final = "CREATE TABLE IF NOT EXISTS versions (part TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID"

# seq runs from 1 per stream; h is the chain hash at the fact, prev the one before it (8 bytes each).
# fixes: what holds the place of a fact that was replaced after it had been refused; `gone`: nothing, its author gave it up.
# quarantine.state: 0 open, 1 resubmitted, 2 discarded; by_*: the fact that did it.
# log.okey is null for facts that are no order events or that are quarantined. `at_ms` is when this database took the fact.
LEDGER: Final = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
        """CREATE TABLE streams (
             sid INTEGER PRIMARY KEY, node TEXT NOT NULL, epoch INTEGER NOT NULL, cls INTEGER NOT NULL, own INTEGER NOT NULL DEFAULT 0,
             settled_seq INTEGER NOT NULL DEFAULT 0, freed_seq INTEGER NOT NULL DEFAULT 0, freed_h BLOB, UNIQUE (node, epoch, cls))""",
        """CREATE TABLE runs (
             sid INTEGER NOT NULL, first INTEGER NOT NULL, h_before BLOB NOT NULL, last INTEGER NOT NULL, h_last BLOB NOT NULL,
             kind INTEGER NOT NULL, PRIMARY KEY (sid, last, h_last, kind)) WITHOUT ROWID""",
        """CREATE TABLE log (
             sid INTEGER NOT NULL, seq INTEGER NOT NULL, h BLOB NOT NULL, prev BLOB NOT NULL, okey INTEGER, at_ms INTEGER NOT NULL,
             row BLOB NOT NULL, PRIMARY KEY (sid, seq, h)) WITHOUT ROWID""",
        "CREATE INDEX log_order ON log (okey) WHERE okey IS NOT NULL",
        """CREATE TABLE orders (
             okey INTEGER PRIMARY KEY, org TEXT NOT NULL, order_id TEXT NOT NULL, heads BLOB NOT NULL, status INTEGER NOT NULL,
             conflict INTEGER NOT NULL DEFAULT 0, at_ms INTEGER NOT NULL, UNIQUE (org, order_id))""",
        """CREATE TABLE idempotency (
             key TEXT PRIMARY KEY, content BLOB NOT NULL, sid INTEGER NOT NULL, seq INTEGER NOT NULL, h BLOB NOT NULL,
             at_ms INTEGER NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE quarantine (
             qid INTEGER PRIMARY KEY, sid INTEGER NOT NULL, seq INTEGER NOT NULL, h BLOB NOT NULL, reason TEXT NOT NULL,
             at_ms INTEGER NOT NULL, UNIQUE (sid, seq, h))""",
        """CREATE TABLE records (
             sid INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, h_last BLOB NOT NULL, kind INTEGER NOT NULL,
             signed BLOB NOT NULL, at_ms INTEGER NOT NULL, PRIMARY KEY (sid, last, h_last)) WITHOUT ROWID""",
    ),
    (
        # The downlink (rule 15): k is 32 bits that place an order among the buckets, digest names its heads, followed is 0 for one that
        # left the scope; told_fork is what a hub said of a stream's branches. copies are facts that came down; scopes, at a hub, which
        # sites an order concerns (a hub has tables of its own for it since).
        "ALTER TABLE orders ADD COLUMN k INTEGER",
        "ALTER TABLE orders ADD COLUMN digest INTEGER",
        "ALTER TABLE orders ADD COLUMN followed INTEGER NOT NULL DEFAULT 1",
        "ALTER TABLE streams ADD COLUMN told_fork INTEGER",
        """CREATE TABLE copies (
             okey INTEGER NOT NULL, sid INTEGER NOT NULL, seq INTEGER NOT NULL, h BLOB NOT NULL, prev BLOB NOT NULL,
             at_ms INTEGER NOT NULL, row BLOB NOT NULL, PRIMARY KEY (okey, sid, seq, h)) WITHOUT ROWID""",
        """CREATE TABLE scopes (
             org TEXT NOT NULL, site TEXT NOT NULL, k INTEGER NOT NULL, okey INTEGER NOT NULL,
             PRIMARY KEY (org, site, k, okey)) WITHOUT ROWID""",
        "CREATE INDEX scopes_order ON scopes (okey)",
        """CREATE TABLE custody (
             cid INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, payload BLOB NOT NULL, at_ms INTEGER NOT NULL, settled_ms INTEGER)""",
        """CREATE TABLE custody_spans (
             cid INTEGER NOT NULL, node TEXT NOT NULL, epoch INTEGER NOT NULL, cls INTEGER NOT NULL, first INTEGER NOT NULL,
             h_before BLOB NOT NULL, last INTEGER NOT NULL, h_last BLOB NOT NULL, done INTEGER NOT NULL DEFAULT 0,
             PRIMARY KEY (cid, node, epoch, cls, last, h_last)) WITHOUT ROWID""",
        "CREATE INDEX custody_of_stream ON custody_spans (node, epoch, cls, last)",
        "CREATE INDEX custody_waiting ON custody (cid) WHERE settled_ms IS NULL",
        "CREATE TABLE peers (node TEXT PRIMARY KEY, card TEXT NOT NULL, added_ms INTEGER NOT NULL) WITHOUT ROWID",
        # devices: the latest reading per author, device and kind. evictions: one row per run of kind evicted of an own stream, facts by
        # reason. freed: the chain hashes (8 bytes each) of facts that were freed and are still told apart from others' branches.
        """CREATE TABLE devices (
             node TEXT NOT NULL, device TEXT NOT NULL, kind TEXT NOT NULL, sid INTEGER NOT NULL, seq INTEGER NOT NULL,
             at_ms INTEGER NOT NULL, row BLOB NOT NULL, PRIMARY KEY (node, device, kind)) WITHOUT ROWID""",
        """CREATE TABLE evictions (
             sid INTEGER NOT NULL, last INTEGER NOT NULL, settled INTEGER NOT NULL, superseded INTEGER NOT NULL,
             oldest INTEGER NOT NULL, PRIMARY KEY (sid, last)) WITHOUT ROWID""",
        "CREATE TABLE freed (sid INTEGER NOT NULL, first INTEGER NOT NULL, hashes BLOB NOT NULL, PRIMARY KEY (sid, first)) WITHOUT ROWID",
        """CREATE TABLE fixes (
             sid INTEGER NOT NULL, seq INTEGER NOT NULL, h BLOB NOT NULL, turn INTEGER NOT NULL, by_seq INTEGER NOT NULL,
             by_h BLOB NOT NULL, by_sid INTEGER NOT NULL, gone INTEGER NOT NULL, PRIMARY KEY (sid, seq, h)) WITHOUT ROWID""",
        "ALTER TABLE quarantine ADD COLUMN state INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE quarantine ADD COLUMN by_sid INTEGER",
        "ALTER TABLE quarantine ADD COLUMN by_seq INTEGER",
        "ALTER TABLE quarantine ADD COLUMN by_h BLOB",
        "ALTER TABLE quarantine ADD COLUMN resolved_ms INTEGER",
        "ALTER TABLE quarantine ADD COLUMN who TEXT",
        "ALTER TABLE quarantine ADD COLUMN note TEXT",
        "CREATE INDEX quarantine_open ON quarantine (sid) WHERE state = 0",
        # clashes: pairs of facts that policies judged; state 0 open, 1 settled, 2 went on. orders.held: some open one says hold.
        # orders.counted: the sums of its quantities by author, null for nearly all.
        """CREATE TABLE clashes (
             cid INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, okey INTEGER NOT NULL, state INTEGER NOT NULL, outcome INTEGER NOT NULL,
             policy TEXT NOT NULL, sentence TEXT NOT NULL, pair BLOB NOT NULL, task BLOB, heads BLOB NOT NULL, raised_ms INTEGER NOT NULL,
             closed_ms INTEGER, closed_by BLOB)""",
        "CREATE INDEX clashes_order ON clashes (okey)",
        "CREATE INDEX clashes_open ON clashes (cid) WHERE state = 0",
        "ALTER TABLE orders ADD COLUMN held INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE orders ADD COLUMN counted BLOB",
    ),
)


def migrate(db: Db, migrations: Sequence[Sequence[str]] = LEDGER, *, part: str = "ledger") -> None:
    """Bring one part of a database to the newest version this code knows. Errors: ConfigError when the file is newer than the code."""
    if db.begins_in_memory():
        db.begin_as(_made(db.driver, tuple(map(tuple, migrations)), part))
    else:
        _forward(db, migrations, part)


@cache
def _made(driver: str, migrations: tuple[tuple[str, ...], ...], part: str) -> Db:
    """What a new database in memory begins as a copy of, which is a tenth of the work: simulations make thousands."""
    made = Db(MEMORY, driver=driver)
    _forward(made, migrations, part)
    return made


def _forward(db: Db, migrations: Sequence[Sequence[str]], part: str) -> None:
    have = refuse_newer(db, migrations, part=part)
    for step in range(have, len(migrations)):
        db.begin()
        for statement in (_VERSIONS, *migrations[step]):
            db.run(statement)
        db.run(
            "INSERT INTO versions (part, version) VALUES (?, ?) ON CONFLICT (part) DO UPDATE SET version=excluded.version",
            (part, step + 1),
        )
        db.commit()


def refuse_newer(db: Db, migrations: Sequence[Sequence[str]], *, part: str) -> int:
    """The version of a part that this code can bring forward. Errors: ConfigError. Ask for every part of a file before migrating one."""
    have = version(db, part)
    if have > len(migrations):
        raise ConfigError(
            f"{db.path}: {part} is of version {have}, this program knows up to {len(migrations)}",
            remedy="upgrade Longshore on this machine",
        )
    return have


def version(db: Db, part: str) -> int:
    """The version of one part of a database; 0 where it was never made."""
    if db.one("SELECT 1 FROM sqlite_master WHERE type='table' AND name='versions'") is None:
        return 0
    row = db.one("SELECT version FROM versions WHERE part=?", (part,))
    return int(row[0]) if row else 0
