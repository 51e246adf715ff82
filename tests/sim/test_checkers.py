"""The checkers can complain: each gets a world in which its promise is broken."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from protocols.codec import pack
from tests.sim.audit import audit
from tests.sim.bounds import exceeded, things
from tests.sim.checkers import Violation
from tests.sim.disks import Disk, SimDb, table_written
from tests.sim.invariants import INVARIANTS
from tests.sim.isolation import strangers_orders
from tests.sim.options import draw
from tests.sim.world import World
from tests.support.source import ROOT

QUIET = replace(draw(0), faults=(), plan=(), requests=60, edges=2, pressed=False, backups=False, budget_bytes=10**9)


@pytest.fixture(scope="module")
def healed() -> Iterator[World]:
    world = World(QUIET)
    world.run()
    yield world
    world.close()


def test_every_violation_names_an_invariant() -> None:
    assert list(INVARIANTS) == [f"I{n}" for n in range(1, 14)]
    with pytest.raises(AssertionError, match="which invariant"):
        raise Violation("something is odd")


# ---------------------------------------------------------------- what is looked at only when it was written


def test_no_query_writes_to_the_tables_that_are_looked_at_only_then() -> None:
    watched = {"streams", "log", "runs", "copies", "orders"}
    for folder in ("protocols", "edge_agent", "hub"):
        for file in (ROOT / folder).rglob("*.py"):
            for sql in re.findall(r"\.(?:query|one)\(\s*f?\"+\s*((?:INSERT|UPDATE|DELETE|REPLACE|WITH)\b[^\"]*)", file.read_text("utf-8")):
                assert table_written(sql) not in watched and (not sql.startswith("WITH") or " SELECT " in sql), f"{file}: {sql}"


def test_a_disk_says_what_was_written_since_somebody_asked() -> None:
    disk = Disk.blank("a")
    disk.db.run("CREATE TABLE log (a)")
    assert disk.moved("one", "log") and not disk.moved("one", "log") and disk.moved("other", "log")
    disk.db.many("INSERT OR IGNORE INTO log VALUES (?)", [(1,)])
    assert disk.moved("one", "log") and not disk.moved("one", "log")
    disk.db.run("UPDATE log SET a=2")
    assert disk.moved("one", "log")
    disk.db.query("SELECT a FROM log")
    assert not disk.moved("one", "log")
    disk.close()


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ("SELECT a FROM log", ""),
        (" PRAGMA page_count", ""),
        ("BEGIN IMMEDIATE", ""),
        ("INSERT INTO log VALUES (1)", "log"),
        ("\n  INSERT OR IGNORE INTO\n runs VALUES (1)", "runs"),
        ("UPDATE streams SET a=1", "streams"),
        ("DELETE FROM copies WHERE a", "copies"),
        ("REPLACE INTO orders VALUES (1)", "orders"),
        ("CREATE TABLE log (a)", "*"),
        ("WITH x AS (SELECT 1) DELETE FROM log", "*"),
    ],
)
def test_what_a_statement_writes_to_is_told_from_its_words(sql: str, table: str) -> None:
    assert table_written(sql) == table


# ---------------------------------------------------------------- I11


def edited(db: SimDb) -> None:
    sid, seq, h, row = db.query("SELECT sid, seq, h, row FROM log ORDER BY sid, seq LIMIT 1 OFFSET 5")[0]
    db.run("UPDATE log SET row=? WHERE sid=? AND seq=? AND h=?", (bytes(row)[:-1] + b"\x91", sid, seq, h))


def deleted(db: SimDb) -> None:
    sid, seq = db.query("SELECT sid, max(seq) / 2 FROM log GROUP BY sid ORDER BY 2 DESC LIMIT 1")[0]
    db.run("DELETE FROM log WHERE sid=? AND seq=?", (sid, seq))


def cut_off(db: SimDb) -> None:
    sid, seq = db.query("SELECT sid, max(seq) FROM log GROUP BY sid ORDER BY 2 DESC LIMIT 1")[0]
    db.run("DELETE FROM log WHERE sid=? AND seq=?", (sid, seq))


def put_in(db: SimDb) -> None:
    sid, seq, prev = db.query("SELECT sid, seq, prev FROM log WHERE seq=3 LIMIT 1")[0]
    db.run("INSERT INTO log (sid, seq, h, prev, at_ms, row) VALUES (?, ?, ?, ?, 0, ?)", (sid, seq, b"8 bytes.", prev, pack([1, 2])))


def swapped(db: SimDb) -> None:
    sid = db.query("SELECT sid FROM log WHERE seq=4 LIMIT 1")[0][0]
    (a,), (b,) = db.query("SELECT row FROM log WHERE sid=? AND seq IN (3, 4) ORDER BY seq", (sid,))
    db.run("UPDATE log SET row=? WHERE sid=? AND seq=3", (b, sid))
    db.run("UPDATE log SET row=? WHERE sid=? AND seq=4", (a, sid))


def rewritten_head(db: SimDb) -> None:
    """Somebody who can hash, and rewrites the last fact with its identity: what says so is the run, and everybody else's copy."""
    sid, seq, h = db.query("SELECT sid, seq, h FROM log ORDER BY seq DESC LIMIT 1")[0]
    db.run("UPDATE log SET h=? WHERE sid=? AND seq=? AND h=?", (b"8 bytes.", sid, seq, h))


@pytest.mark.parametrize("tamper", [edited, deleted, cut_off, put_in, swapped, rewritten_head], ids=lambda t: t.__name__)
@pytest.mark.parametrize("whose", ["edge", "hub"])
def test_a_disk_that_was_tampered_with_is_found_out(healed: World, tamper: Callable[[SimDb], None], whose: str) -> None:
    disk = (healed.hub if whose == "hub" else healed.edges[0]).disk.copy("evidence")
    assert list(audit(disk.db)) == []
    tamper(disk.db)
    found = list(audit(disk.db))
    disk.close()
    assert found


# ---------------------------------------------------------------- I7, I10


def test_memory_that_grows_with_the_backlog_is_noticed(healed: World) -> None:
    assert list(exceeded(healed)) == []
    core = healed.edges[0].core
    before = things(core)
    core.uplink.hoard = [(n, bytes(8)) for n in range(5_000)]  # type: ignore[attr-defined]
    assert things(core) > before + 5_000
    assert [what.split()[0] for what in exceeded(healed)] == ["I7"]
    del core.uplink.hoard  # type: ignore[attr-defined]


def test_a_strangers_order_on_an_edge_is_noticed(healed: World) -> None:
    edge = healed.edges[0]
    assert list(strangers_orders(edge)) == []
    edge.disk.db.run("INSERT INTO orders (okey, org, order_id, heads, status, at_ms) VALUES (999, 'globex', 'o1', x'90', 1, 0)")
    assert [what.split()[0] for what in strangers_orders(edge)] == ["I10"]
    edge.disk.db.run("DELETE FROM orders WHERE okey=999")
