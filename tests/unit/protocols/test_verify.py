"""A database is read whole: what is wrong with it is said, and what could not be looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from protocols.chains import RunKind
from protocols.ledger import Ledger
from protocols.lifecycle import Status
from protocols.merge import dump_heads, load_heads
from protocols.messages import Record
from protocols.quarantine import resubmit
from protocols.sqlite import DRIVERS, Db
from protocols.sync.seal import seal
from protocols.sync.uplink import Out
from protocols.topics import Channel
from protocols.trust import NodeKey, verify
from protocols.verify import verify_database
from tests.golden.databases import make
from tests.unit.protocols.test_audit import NOW_MS, event, ledger, offer

GOLDEN = Path(make.__file__).parent
DOCK = NodeKey(b"d" * 32)


def troubles(db: Db, **more: object) -> list[str]:
    return verify_database(db, verify, **more).troubles()  # type: ignore[arg-type]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_sound_ledger_has_no_troubles_and_is_only_read(tmp_path: Path, driver: str) -> None:
    path = tmp_path / "ledger.db"
    led = Ledger(Db(path, driver=driver), node="dock-7", new_epoch=lambda: 1)
    led.begin()
    led.append_all([event(n % 3, Status.PLACED) for n in range(9)], NOW_MS)
    led.commit()
    reader = Db(path, read_only=True, driver=driver)
    told: list[str] = []
    done = verify_database(reader, verify, tell=lambda what, _n, _of: told.append(what))
    assert (done.troubles(), done.notes(), done.chains.facts, done.orders) == ([], [], 9, 3)
    assert {"pages", "facts", "orders"} <= set(told)
    reader.close()
    led.db.close()


def test_heads_that_are_not_those_of_the_facts_are_named() -> None:
    led = ledger(6)
    heads = load_heads(led.db.query("SELECT heads FROM orders WHERE order_id='A2'")[0][0])
    wrong = dump_heads([heads[0]._replace(seq=1, h=led.db.query("SELECT h FROM log WHERE seq=1")[0][0])])
    led.db.run("UPDATE orders SET heads=? WHERE order_id='A2'", (wrong,))
    assert troubles(led.db) == ["order acme/A2 does not fold to the heads that are stored for it"]


def test_a_fact_that_was_moved_to_another_order_is_noticed() -> None:
    led = ledger(6)
    led.db.run("UPDATE log SET okey=1 WHERE seq=3")
    assert any("A2" in text or "A0" in text for text in troubles(led.db))


def test_freed_facts_are_said_to_prevent_a_whole_check() -> None:
    led = ledger(6)
    led.begin()
    led.free(led.own(), 4, NOW_MS)
    led.commit()
    done = verify_database(led.db, verify)
    assert done.troubles() == []
    assert (done.partly, done.chains.freed) == (4, 4)
    assert "4 facts were freed by rule" in done.notes()[0]


def test_a_fix_stands_in_the_place_of_what_it_replaces() -> None:
    led = ledger(3)
    h = led.log.hash_at(led.own(), 2) or b""
    led.begin()
    led.quarantine(led.own().sid, 2, h, "not ours", NOW_MS)
    resubmit(led, 1, event(1, Status.APPROVED), NOW_MS)
    led.commit()
    led.begin()
    led.append(event(1, Status.PICKED), NOW_MS)
    led.commit()
    hub = Ledger(Db(":memory:"), node="hub", new_epoch=lambda: 9)
    offer(hub, led, 1, 5)
    for one in (led, hub):
        done = verify_database(one.db, verify)
        assert (done.troubles(), done.partly, done.orders) == ([], 0, 3)


def record(first: int, last: int, h: bytes, *, key: NodeKey = DOCK) -> bytes:
    said = Record(1, 0, first, b"", last, h, RunKind.LOST, NOW_MS)
    return seal(Out(Channel.CONTROL, Record.KIND, [], said.to_list()), "dock-7", "hub", key.sign)


@pytest.mark.parametrize(
    ("signed", "wrong"),
    [
        (lambda h: record(2, 3, h), ""),
        (lambda h: record(2, 3, h, key=NodeKey(b"x" * 32)), "is not what its author signed"),
        (lambda h: record(5, 6, h), "was signed about other facts"),
        (lambda _h: b"rubbish", "is not what its author signed"),
    ],
    ids=["as signed", "another key", "other facts", "no message"],
)
def test_records_are_checked_by_their_signatures(signed: Callable[[bytes], bytes], wrong: str) -> None:
    led, hub = ledger(5), Ledger(Db(":memory:"), node="hub", new_epoch=lambda: 9)
    offer(hub, led, 1, 1)
    offer(hub, led, 4, 5)
    h = led.db.query("SELECT h FROM log WHERE seq=3")[0][0]
    hub.begin()
    assert hub.close_hole(led.own().key, 2, b"", 3, h, RunKind.LOST, signed(h), NOW_MS)
    hub.commit()
    found = troubles(hub.db, keys={"dock-7": DOCK.public})
    assert len(found) == bool(wrong)
    assert all(wrong in text for text in found)
    assert "1 signed records could not be checked" in str(verify_database(hub.db, verify).notes())


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.db")))
def test_databases_of_older_versions_can_be_read_whole(name: str, tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    path.write_bytes((GOLDEN / f"{name}.db").read_bytes())
    db = Db(path, read_only=True)
    done = verify_database(db, verify)
    assert (done.integrity, done.chains.findings, done.wrong_orders) == ([], [], [])
    assert done.chains.facts > 5
    db.close()


def test_a_broken_page_is_named_before_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    led = Ledger(Db(path), node="dock-7", new_epoch=lambda: 1)
    led.begin()
    led.append_all([event(n) for n in range(200)], NOW_MS)
    led.commit()
    led.db.checkpoint()
    (page,) = led.db.query("SELECT rootpage FROM sqlite_master WHERE name='log_order'")[0]
    led.db.close()
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    data[(page - 1) * size : (page - 1) * size + 8] = b"\xff" * 8
    path.write_bytes(data)
    db = Db(path, read_only=True)
    done = verify_database(db, verify)
    assert done.integrity
    assert done.chains.facts == 0
    db.close()
