"""I11: whatever is done to a ledger behind its back is named, with its kind and its place."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from random import Random
from typing import Any

import pytest

from protocols.audit import Audit, What, Word, audit
from protocols.chains import RunKind
from protocols.codec import unpack
from protocols.event import OrderEvent, TimeQuality
from protocols.ledger import Ledger
from protocols.lifecycle import Status
from protocols.sqlite import DRIVERS, Db
from protocols.streams import StreamKey
from tests.support.often import seeds

NOW_MS = 1_779_372_312_000


def event(order: int, status: Status = Status.PLACED, key: str | None = None) -> OrderEvent:
    return OrderEvent("acme", f"A{order}", "DOCK", status, NOW_MS, TimeQuality.STATED, None, None, None, {"n": order}, key)


def ledger(count: int = 20, *, node: str = "dock-7", seed: int = 1, driver: str = DRIVERS[0]) -> Ledger:
    led = Ledger(Db(":memory:", driver=driver), node=node, new_epoch=lambda: seed)
    led.begin()
    led.append_all([event(n) for n in range(count)], NOW_MS)
    led.commit()
    return led


def only(done: Audit) -> tuple[int, What]:
    (found,) = done.findings
    return found.seq, found.what


def chained(db: Db, first: int, *, fresh: bytes) -> None:
    """Put other bytes at a place and hash everything above it anew, as somebody would who knows how."""
    prev, last = b"", b""
    for seq, h, before, row in db.query("SELECT seq, h, prev, row FROM log WHERE seq>=? ORDER BY seq", (first,)):
        prev = prev or before
        row = fresh if seq == first else row
        last = blake2b(prev + row, digest_size=8).digest()
        db.run("UPDATE log SET h=?, prev=?, row=? WHERE seq=? AND h=?", (last, prev, row, seq, h))
        prev = last
    db.run("UPDATE runs SET h_last=?", (last,))


def edit(db: Db) -> None:
    db.run("UPDATE log SET row=cast(x'93' || substr(row, 2) AS BLOB) WHERE seq=7")


def edit_with_its_hash(db: Db) -> None:
    prev, row = db.query("SELECT prev, row FROM log WHERE seq=7")[0]
    fresh = row + b"x"
    db.run("UPDATE log SET row=?, h=? WHERE seq=7", (fresh, blake2b(prev + fresh, digest_size=8).digest()))


def edit_and_hash_all_above(db: Db) -> None:
    chained(db, 7, fresh=b"\x93forged")


def delete(db: Db) -> None:
    db.run("DELETE FROM log WHERE seq=7")


def delete_several(db: Db) -> None:
    db.run("DELETE FROM log WHERE seq BETWEEN 7 AND 12")


def insert(db: Db) -> None:
    columns = "prev, okey, at_ms, row"
    db.run(f"INSERT INTO log (sid, seq, h, {columns}) SELECT sid, 7, x'0102030405060708', {columns} FROM log WHERE seq=7")


def insert_on_top(db: Db) -> None:
    seq, h, row = db.query("SELECT seq, h, row FROM log ORDER BY seq DESC LIMIT 1")[0]
    top = blake2b(h + row, digest_size=8).digest()
    db.run("INSERT INTO log (sid, seq, h, prev, okey, at_ms, row) VALUES (1, ?, ?, ?, NULL, 0, ?)", (seq + 1, top, h, row))


def swap_places(db: Db) -> None:
    db.run("UPDATE log SET seq=1007 WHERE seq=7")
    db.run("UPDATE log SET seq=7 WHERE seq=8")
    db.run("UPDATE log SET seq=8 WHERE seq=1007")


def swap_far_places(db: Db) -> None:
    db.run("UPDATE log SET seq=1007 WHERE seq=7")
    db.run("UPDATE log SET seq=7 WHERE seq=15")
    db.run("UPDATE log SET seq=15 WHERE seq=1007")


def swap_contents(db: Db) -> None:
    (a,), (b,) = db.query("SELECT row FROM log WHERE seq IN (7, 9) ORDER BY seq")
    db.run("UPDATE log SET row=? WHERE seq=7", (b,))
    db.run("UPDATE log SET row=? WHERE seq=9", (a,))


def cut(db: Db) -> None:
    db.run("DELETE FROM log WHERE seq > 14")


def cut_with_its_runs(db: Db) -> None:
    cut(db)
    db.run("UPDATE runs SET last=14, h_last=(SELECT h FROM log WHERE seq=14)")


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("tamper", "seq", "what"),
    [
        (edit, 7, What.EDITED),
        (edit_with_its_hash, 7, What.EDITED),
        (edit_and_hash_all_above, 7, What.EDITED),
        (delete, 7, What.DELETED),
        (delete_several, 7, What.DELETED),
        (insert, 7, What.INSERTED),
        (insert_on_top, 21, What.INSERTED),
        (swap_places, 7, What.REORDERED),
        (swap_far_places, 7, What.REORDERED),
        (swap_contents, 7, What.REORDERED),
        (cut, 15, What.CUT),
        (cut_with_its_runs, 15, What.CUT),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_what_was_done_is_named_with_its_place(tamper: Callable[[Db], None], seq: int, what: What, driver: str) -> None:
    db = ledger(driver=driver).db
    assert audit(db).findings == []
    tamper(db)
    assert only(audit(db)) == (seq, what)
    assert audit(db).findings[0].stream == StreamKey("dock-7", 1, 0)


def test_each_stream_has_its_own_first_trouble() -> None:
    led = ledger()
    led._new_epoch = lambda: 2
    led.begin()
    second = led.start_new_epoch(NOW_MS)
    led.append_all([event(n) for n in range(5)], NOW_MS)
    led.commit()
    led.db.run("DELETE FROM log WHERE seq=3 AND sid=1")
    led.db.run("DELETE FROM log WHERE seq=4 AND sid=?", (second.sid,))
    assert [(f.stream.epoch, f.seq) for f in audit(led.db).findings] == [(1, 3), (2, 4)]


def test_a_tail_cut_clean_off_shows_only_against_a_word_from_elsewhere() -> None:
    led = ledger()
    led.db.run("DELETE FROM orders")  # nothing here names the tail any more
    cut_with_its_runs(led.db)
    key = StreamKey("dock-7", 1, 0)
    assert audit(led.db).findings == []
    assert only(audit(led.db, {key: [Word(20, b"", "the heartbeat of dock-7")]})) == (15, What.CUT)
    assert "the heartbeat of dock-7 names 20" in audit(led.db, {key: [Word(20, b"", "the heartbeat of dock-7")]}).findings[0].sentence()
    assert only(audit(led.db, {key: [Word(9, b"elsewise", "the central store")]})) == (9, What.EDITED)


def test_the_word_of_the_store_outlives_the_tail() -> None:
    led = ledger()
    led.db.run("DELETE FROM orders")
    led.db.run("UPDATE streams SET settled_seq=18")
    assert audit(led.db).findings == []
    cut_with_its_runs(led.db)
    assert only(audit(led.db)) == (15, What.CUT)


def test_what_was_freed_by_rule_is_no_finding_and_its_edge_is_held() -> None:
    led = ledger()
    led.begin()
    led.free(led.own(), 8, NOW_MS)
    led.commit()
    assert audit(led.db).findings == []
    assert audit(led.db).freed == 8
    led.db.run("DELETE FROM log WHERE seq IN (9, 10)")
    assert only(audit(led.db)) == (9, What.DELETED)


def freed_hub() -> Ledger:
    """A hub that freed facts 1 to 8 of dock-7 but for 3, and then was brought a branch that leaves at 5."""
    one, other = ledger(12), ledger(5)
    hub = Ledger(Db(":memory:"), node="hub", new_epoch=lambda: 9)
    offer(hub, one, 1, 12)
    stream = hub.log.open(StreamKey("dock-7", 1, 0))
    hub.begin()
    hub.log.free(stream, 8, hashed=True, kept=[(3, one.db.query("SELECT h FROM log WHERE seq=3")[0][0])])
    hub.commit()
    other.begin()
    other.append_all([event(n + 100, Status.CANCELLED) for n in range(6)], NOW_MS)
    other.commit()
    offer(hub, other, 6, 11)
    return hub


def test_a_branch_that_leaves_below_what_was_freed_and_a_fact_that_stayed_are_whole() -> None:
    assert audit(freed_hub().db).findings == []


@pytest.mark.parametrize(
    ("statement", "seq", "what"),
    [
        ("UPDATE log SET row=x'93' WHERE seq=3", 3, What.EDITED),
        ("UPDATE log SET row=x'93' WHERE seq=7", 7, What.EDITED),
        ("DELETE FROM log WHERE seq=7", 7, What.DELETED),
        ("INSERT INTO log (sid, seq, h, prev, at_ms, row) SELECT sid, 4, h, prev, at_ms, row FROM log WHERE seq=3", 4, What.INSERTED),
        ("UPDATE log SET prev=x'0101010101010101' WHERE seq=9 AND prev IN (SELECT freed_h FROM streams)", 9, What.EDITED),
    ],
    ids=["a fact that stayed", "the branch", "the branch, one less", "below what was freed", "the edge"],
)
def test_what_is_done_below_what_was_freed_is_named_too(statement: str, seq: int, what: What) -> None:
    hub = freed_hub()
    hub.db.run(statement)
    assert (audit(hub.db).findings[0].seq, audit(hub.db).findings[0].what) == (seq, what)


def test_a_forked_stream_with_a_hole_and_a_record_is_whole() -> None:
    one, two = ledger(12), ledger(9)
    two.db.run("DELETE FROM log WHERE seq > 5")
    hub = Ledger(Db(":memory:"), node="hub", new_epoch=lambda: 9)
    for led, first, last in ((one, 1, 6), (one, 9, 12)):
        offer(hub, led, first, last)
    other = ledger(5)
    other.begin()
    other.append_all([event(n + 100, Status.CANCELLED) for n in range(4)], NOW_MS)
    other.commit()
    offer(hub, other, 1, 9)
    assert audit(hub.db).findings == []
    h8 = one.db.query("SELECT h FROM log WHERE seq=8")[0][0]
    hub.begin()
    assert hub.close_hole(StreamKey("dock-7", 1, 0), 7, b"", 8, h8, RunKind.LOST, b"signed", NOW_MS)
    hub.commit()
    assert audit(hub.db).findings == []
    hub.db.run("DELETE FROM log WHERE seq=8 AND h<>?", (h8,))
    assert only(audit(hub.db)) == (8, What.DELETED)


def offer(hub: Ledger, led: Ledger, first: int, last: int) -> None:
    rows = led.db.query("SELECT h, prev, row FROM log WHERE seq BETWEEN ? AND ? ORDER BY seq", (first, last))
    hub.begin()
    pairs: list[tuple[bytes, Any]] = [(row, unpack(row, max_bytes=10_000)) for _, _, row in rows]
    hub.offer(StreamKey("dock-7", 1, 0), first, rows[0][1], pairs, [h for h, _, _ in rows], NOW_MS)
    hub.commit()


@pytest.mark.parametrize("seed", seeds(40, quick=10))
def test_one_wrong_byte_anywhere_is_found_at_its_place(seed: int) -> None:
    rng = Random(seed)
    led = ledger(30)
    seq = rng.randrange(1, 31)
    row = bytearray(led.db.query("SELECT row FROM log WHERE seq=?", (seq,))[0][0])
    row[rng.randrange(len(row))] ^= rng.randrange(1, 256)
    led.db.run("UPDATE log SET row=? WHERE seq=?", (bytes(row), seq))
    assert only(audit(led.db)) == (seq, What.EDITED), seed


def test_a_long_run_is_walked_page_by_page_and_says_how_far_it_is() -> None:
    led = ledger(1)
    led.begin()
    for start in range(1, 9_001, 1_000):
        led.append_all([event(n) for n in range(start, start + 1_000)], NOW_MS)
    led.commit()
    heard: list[tuple[int, int]] = []
    assert audit(led.db, tell=lambda done, total: heard.append((done, total))).facts == 9_001
    assert heard[-1] == (9_001, 9_001)
    assert len(heard) > 2
    led.db.run("DELETE FROM log WHERE seq=5001")
    assert only(audit(led.db)) == (5_001, What.DELETED)
