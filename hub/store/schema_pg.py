"""The tables of the central store on PostgreSQL, as migrations that only ever go forward. A released step is never edited.

They mean what those of SQLite mean (`hub.store.schema`, `protocols.schema`), and have the same names wherever shared code reads them. What
differs, and why:

- There are no `runs`: with several writers each brings pieces of the same streams, and what is held is read from the log's primary key.
- `streams.facts` and `streams.fixes` count what was logged and replaced of a stream, and `fork_seq` says above which seq its branches part.
  They change under a lock on the row that each batch takes last: by them a batch sees whether another writer has changed what it relied on,
  and a reader which streams have something new.
- An order's name and place stand apart (`orders`) from its state (`states`), whose row is written with every fact; `view` joins them.
  `states.version` counts writings: what was read is written only if nobody else wrote meanwhile.
"""

from __future__ import annotations

from typing import Final

BLOCK: Final = 65_536
"""positions, and numbers of orders, that a batch takes at once"""
_TEXT: Final = 'text COLLATE "C"'

_STORE_1: Final = (
    f"CREATE TABLE meta (key {_TEXT} PRIMARY KEY, value {_TEXT})",
    f"""CREATE TABLE streams (
          sid integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, node {_TEXT} NOT NULL, epoch bigint NOT NULL, cls smallint NOT NULL,
          facts bigint NOT NULL DEFAULT 0, orderly bigint NOT NULL DEFAULT 0, records bigint NOT NULL DEFAULT 0,
          fixes bigint NOT NULL DEFAULT 0, fork_seq bigint, UNIQUE (node, epoch, cls))""",
    "CREATE INDEX streams_forked ON streams (sid) WHERE fork_seq IS NOT NULL",
    """CREATE TABLE log (
          seq bigint NOT NULL, okey bigint, at_ms bigint NOT NULL, received_ms bigint NOT NULL, sid integer NOT NULL, h bytea NOT NULL,
          prev bytea NOT NULL, row bytea NOT NULL, PRIMARY KEY (sid, seq, h) INCLUDE (prev))""",
    "CREATE INDEX log_order ON log (okey) WHERE okey IS NOT NULL",
    f"""CREATE TABLE orders (
          okey bigint PRIMARY KEY, org {_TEXT} NOT NULL, order_id {_TEXT} NOT NULL, region {_TEXT}, site {_TEXT},
          UNIQUE (order_id, org))""",
    "CREATE INDEX orders_site ON orders (site) WHERE site IS NOT NULL",
    "CREATE INDEX orders_region ON orders (region) WHERE region IS NOT NULL",
    f"""CREATE TABLE states (
          okey bigint PRIMARY KEY, pos bigint NOT NULL, received_ms bigint NOT NULL, happened_ms bigint, expected_ms bigint,
          version integer NOT NULL, facts integer NOT NULL, head_count integer NOT NULL, status smallint NOT NULL,
          quality smallint NOT NULL, covered smallint NOT NULL, conflict smallint NOT NULL, abnormal smallint NOT NULL,
          held smallint NOT NULL, source {_TEXT} NOT NULL, node {_TEXT} NOT NULL, heads bytea NOT NULL, counted bytea)
        WITH (autovacuum_vacuum_scale_factor=0.05)""",
    "CREATE INDEX states_pos ON states (pos)",
    "CREATE INDEX states_conflict ON states (pos) WHERE conflict = 1",
    "CREATE INDEX states_beside ON states (okey) WHERE head_count > 1",
    """CREATE VIEW view AS SELECT okey, o.org, o.order_id, s.status, s.source, o.region, o.site, s.node, s.happened_ms, s.quality,
          s.received_ms, s.facts, s.head_count, s.heads, s.covered, s.conflict, s.abnormal, s.expected_ms, s.pos, s.held, s.counted,
          s.version
        FROM states s JOIN orders o USING (okey)""",
    f"CREATE SEQUENCE positions INCREMENT BY {BLOCK} START {BLOCK}",
    f"CREATE SEQUENCE okeys INCREMENT BY {BLOCK} START {BLOCK}",
    """CREATE TABLE oddities (okey bigint NOT NULL, sid integer NOT NULL, seq bigint NOT NULL, h bytea NOT NULL,
          PRIMARY KEY (okey, sid, seq, h))""",
    "CREATE TABLE unsure (sid integer NOT NULL, okey bigint NOT NULL, PRIMARY KEY (sid, okey))",
    "CREATE INDEX unsure_order ON unsure (okey)",
    f"""CREATE TABLE quarantine (qid bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, sid integer NOT NULL, seq bigint NOT NULL,
          h bytea NOT NULL, reason {_TEXT} NOT NULL, at_ms bigint NOT NULL, UNIQUE (sid, seq, h))""",
    """CREATE TABLE fixes (sid integer NOT NULL, seq bigint NOT NULL, h bytea NOT NULL, turn bigint NOT NULL, by_seq bigint NOT NULL,
          by_h bytea NOT NULL, by_sid integer NOT NULL, gone smallint NOT NULL, PRIMARY KEY (sid, seq, h))""",
    f"""CREATE TABLE clashes (cid bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id {_TEXT} NOT NULL UNIQUE, okey bigint NOT NULL,
          state smallint NOT NULL, outcome smallint NOT NULL, policy {_TEXT} NOT NULL, sentence {_TEXT} NOT NULL, pair bytea NOT NULL,
          task bytea, heads bytea NOT NULL, raised_ms bigint NOT NULL, closed_ms bigint, closed_by bytea)""",
    "CREATE INDEX clashes_order ON clashes (okey)",
    "CREATE INDEX clashes_open ON clashes (cid) WHERE state = 0",
    """CREATE TABLE closures (sid integer NOT NULL, first bigint NOT NULL, h_before bytea NOT NULL, last bigint NOT NULL,
          h_last bytea NOT NULL, kind smallint NOT NULL, signed bytea NOT NULL, received_ms bigint NOT NULL,
          PRIMARY KEY (sid, last, h_last, first))""",
    f"""CREATE TABLE backups (id {_TEXT} PRIMARY KEY, begun_ms bigint NOT NULL, finished_ms bigint, expired_ms bigint,
          tool {_TEXT} NOT NULL, place {_TEXT} NOT NULL, covers bytea NOT NULL)""",
    f"""CREATE TABLE offsets (topic {_TEXT} NOT NULL, partition integer NOT NULL, next_offset bigint, fence bigint NOT NULL,
          PRIMARY KEY (topic, partition))""",
    "INSERT INTO meta (key, value) VALUES ('incarnation', gen_random_uuid()::text)",
)

STORE_PG: Final = (_STORE_1,)
PART: Final = "store"
