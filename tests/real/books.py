"""The central store on PostgreSQL, read by somebody else: plain SQL over a connection of its own, msgpack, and nothing of `hub.store`."""

from __future__ import annotations

from typing import Any, Final

import psycopg

from tests.chaos.oracle import Books, Fact, FactId, shown


def read(dsn: str, password: str, *, whole: bool = True) -> Books:
    """All that the oracle compares, of one moment. `whole`: nobody writes any more, and the indexes are held against their tables, too."""
    with psycopg.connect(dsn, password=password) as db:
        db.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        facts = {}
        for node, epoch, cls, seq, h, prev, row in db.execute(
            "SELECT node, epoch, cls, seq, h, prev, row FROM log JOIN streams USING (sid)"
        ):
            fid = FactId(node, epoch, cls, seq, bytes(h))
            assert fid not in facts, f"{fid} is in the log twice"
            facts[fid] = Fact(fid, bytes(prev), bytes(row))
        sids = {sid: (node, epoch, cls) for sid, node, epoch, cls in db.execute("SELECT sid, node, epoch, cls FROM streams")}
        rows: list[Any] = db.execute("SELECT org, order_id, status, heads, conflict, facts FROM states JOIN orders USING (okey)").fetchall()
        closed: dict[tuple[str, int, int], list[tuple[int, int]]] = {}
        for node, epoch, cls, first, last in db.execute(
            "SELECT node, epoch, cls, first, last FROM closures JOIN streams USING (sid) ORDER BY first, last"
        ):
            closed.setdefault((node, epoch, cls), []).append((first, last))
        (quarantined,) = db.execute("SELECT count(*) FROM quarantine").fetchone() or (0,)
    return Books("postgres", facts, {}, shown(rows, sids), quarantined, _integrity(dsn, password) if whole else "ok", {}, closed)


_MISCOUNTED: Final = """SELECT node, cls, s.facts, s.orderly, count(l.sid), count(l.okey) FROM streams s LEFT JOIN log l USING (sid)
    GROUP BY s.sid HAVING s.facts <> count(l.sid) OR s.orderly <> count(l.okey)"""


def _integrity(dsn: str, password: str) -> str:
    """Whether each stream counts as many facts as the log holds of it: counted in the transaction that logs and folds them, and never
    again, so a transaction that was torn shows for ever. Then what `amcheck` says of every index, where the server has it: each entry in
    its place, each row of the table in its index."""
    with psycopg.connect(dsn, password=password, autocommit=True) as db:
        torn = db.execute(_MISCOUNTED).fetchall()
        if torn:
            return f"torn: (node, class, facts and order facts as counted, as logged): {torn}"
        if db.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'amcheck'").fetchone() is None:
            return "ok"
        try:
            db.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
            db.execute(
                "SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_am a ON a.oid = c.relam JOIN pg_namespace n ON n.oid = "
                "c.relnamespace WHERE a.amname = 'btree' AND c.relkind = 'i' AND n.nspname = 'public'"
            )
        except psycopg.Error as error:
            return str(error)
    return "ok"
