"""The tables of the central store on SQLite, as migrations that only ever go forward.

The log, its streams and runs are those of every ledger, so each step of the ledger's migrations is a step here too, followed by what the
store adds. A released step is never edited.
"""

from __future__ import annotations

from typing import Final

from protocols.errors import LedgerBroken
from protocols.schema import LEDGER
from protocols.sqlite import Db

# view.pos numbers the changes of orders in the order of commits: the key of paging, most recent first.
# Every fact changes its order's pos, so only the index on pos has it: in indexes on (site, pos) and the like each fact would dirty two more
# pages somewhere, which measured a quarter of the cost of a batch. Queries look up what is rare and walk along pos for what is not.
# view.covered: the one head has seen every fact of the order that is here: who has seen the head needs no comparing with the rest.
# oddities: facts that made an abnormal transition. unsure: orders whose fold met a branch of stream `sid` that is not all here yet.
# closures: every signed record that came, also one whose hole is not known yet or was filled by data since.
_STORE_1: Final = (
    "ALTER TABLE log ADD COLUMN received_ms INTEGER NOT NULL DEFAULT 0",
    """CREATE TABLE view (okey INTEGER PRIMARY KEY, org TEXT NOT NULL, order_id TEXT NOT NULL, status INTEGER NOT NULL,
         source TEXT NOT NULL, region TEXT, site TEXT, node TEXT NOT NULL, happened_ms INTEGER, quality INTEGER NOT NULL,
         received_ms INTEGER NOT NULL, facts INTEGER NOT NULL, head_count INTEGER NOT NULL, heads BLOB NOT NULL,
         covered INTEGER NOT NULL, conflict INTEGER NOT NULL, abnormal INTEGER NOT NULL, expected_ms INTEGER, pos INTEGER NOT NULL,
         UNIQUE (order_id, org))""",
    "CREATE INDEX view_pos ON view (pos, status)",
    "CREATE INDEX view_site ON view (site)",
    "CREATE INDEX view_region ON view (region)",
    "CREATE INDEX view_conflict ON view (pos) WHERE conflict = 1",
    """CREATE TABLE oddities (okey INTEGER NOT NULL, sid INTEGER NOT NULL, seq INTEGER NOT NULL, h BLOB NOT NULL,
         PRIMARY KEY (okey, sid, seq, h)) WITHOUT ROWID""",
    "CREATE TABLE unsure (sid INTEGER NOT NULL, okey INTEGER NOT NULL, PRIMARY KEY (sid, okey)) WITHOUT ROWID",
    """CREATE TABLE conflicts (cid INTEGER PRIMARY KEY, okey INTEGER NOT NULL,
         shown_sid INTEGER NOT NULL, shown_seq INTEGER NOT NULL, shown_h BLOB NOT NULL,
         other_sid INTEGER NOT NULL, other_seq INTEGER NOT NULL, other_h BLOB NOT NULL,
         sentence TEXT NOT NULL, raised_ms INTEGER NOT NULL, settled_ms INTEGER,
         UNIQUE (okey, shown_sid, shown_seq, shown_h, other_sid, other_seq, other_h))""",
    "CREATE INDEX conflicts_open ON conflicts (cid) WHERE settled_ms IS NULL",
    """CREATE TABLE closures (sid INTEGER NOT NULL, first INTEGER NOT NULL, h_before BLOB NOT NULL, last INTEGER NOT NULL,
         h_last BLOB NOT NULL, kind INTEGER NOT NULL, signed BLOB NOT NULL, received_ms INTEGER NOT NULL,
         PRIMARY KEY (sid, last, h_last, first)) WITHOUT ROWID""",
)

# conflicts_1 is read once and dropped by `hub.store.disputes`; what it held is in the ledger's `clashes`.
# backups: copies of this store that were begun; covers is what `hub.store.backups` packs. Their list is read with the rows (rule 11).
_STORE_2: Final = (
    """CREATE TABLE backups (id TEXT PRIMARY KEY, begun_ms INTEGER NOT NULL, finished_ms INTEGER, expired_ms INTEGER, tool TEXT NOT NULL,
         place TEXT NOT NULL, covers BLOB NOT NULL) WITHOUT ROWID""",
    "ALTER TABLE view ADD COLUMN held INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE view ADD COLUMN counted BLOB",
    "ALTER TABLE conflicts RENAME TO conflicts_1",
)

# offsets: how far each partition of a bus was applied, and by whose claim; it moves with the batches (hub.store.offsets).
_STORE_3: Final = (
    """CREATE TABLE offsets (topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER, fence INTEGER NOT NULL,
         PRIMARY KEY (topic, partition)) WITHOUT ROWID""",
)

STORE: Final = ((*LEDGER[0], *_STORE_1), (*LEDGER[1], *_STORE_2), _STORE_3)

_TEXT: Final = "CREATE VIRTUAL TABLE IF NOT EXISTS order_text USING fts5 (order_id, content='', detail=none, tokenize='trigram')"


def has_text_index(db: Db) -> bool:
    """Can this connection search fragments of order ids by their trigrams? Not every build of SQLite has FTS5 with trigrams."""
    try:
        db.query("SELECT rowid FROM order_text WHERE order_text MATCH ?", ('"abc"',))
    except LedgerBroken:
        return False
    return True


def make_text_index(db: Db) -> bool:
    """Make the index where the build allows it, and take in the orders that a build without it added. Inside a transaction."""
    try:
        db.run(_TEXT)
    except LedgerBroken:
        return False
    db.run(
        """INSERT INTO order_text (rowid, order_id)
             SELECT okey, order_id FROM view WHERE okey > (SELECT coalesce(max(id), 0) FROM order_text_docsize)"""
    )
    return True
