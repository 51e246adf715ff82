"""The oracle folds and compares by itself: facts made by hand, and each thing that may be wrong in what the processes left behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgpack
import pytest

from protocols.event import OrderEvent, TimeQuality
from protocols.ledger import Ledger
from protocols.lifecycle import Status
from protocols.sqlite import Db
from tests.chaos import oracle
from tests.chaos.history import Stored
from tests.chaos.oracle import Books, Fact, FactId, Shown, broken_chains, compare, fold, read

E: int = 5
ORDER = ("acme", "O1")


class Author:
    """Writes facts of one stream as the specification says."""

    def __init__(self, node: str) -> None:
        self.node, self.tip = node, b""
        self.facts: dict[FactId, Fact] = {}

    def says(self, status: Status, *seen: Fact, order: str = "O1") -> Fact:
        context = [[f.id.node, f.id.epoch, f.id.seq, f.id.h[:4]] for f in seen]
        return self._log([1, "acme", order, "S", int(status), 7, 0, 7, None, None, None, {"op": f"{self.node}.{len(self.facts)}"}, context])

    def _log(self, row: Sequence[Any]) -> Fact:
        seq = len(self.facts) + 1
        prev = self.tip or blake2b(b"longshore/stream/1" + msgpack.packb([self.node, E, 0]), digest_size=8).digest()
        data = msgpack.packb(row)
        self.tip = blake2b(prev + data, digest_size=8).digest()
        fact = Fact(FactId(self.node, E, 0, seq, self.tip), prev, data)
        self.facts[fact.id] = fact
        return fact


def shown(*authors: Author) -> Shown:
    return fold({fid: f for a in authors for fid, f in a.facts.items()})[ORDER]


def test_the_last_of_one_author_is_the_state() -> None:
    dock = Author("dock")
    dock.says(Status.PACKED)
    last = dock.says(Status.PLACED)
    assert shown(dock) == Shown("PLACED", (last.id,), False, 2)


def test_two_that_did_not_see_each_other_both_stand_and_the_higher_is_shown() -> None:
    dock, van = Author("dock"), Author("van")
    a, b = dock.says(Status.SHIPPED), van.says(Status.CANCELLED)
    assert shown(dock, van) == Shown("CANCELLED", tuple(sorted((a.id, b.id))), True, 2)
    c = van.says(Status.IN_TRANSIT)
    assert shown(dock, van) == Shown("IN_TRANSIT", tuple(sorted((a.id, c.id))), False, 3)


def test_who_had_seen_a_fact_had_seen_all_before_it() -> None:
    dock, van = Author("dock"), Author("van")
    dock.says(Status.PLACED)
    last = van.says(Status.PICKED, dock.says(Status.APPROVED))
    assert shown(dock, van).heads == (last.id,)


def test_it_agrees_with_a_ledger_of_the_product(tmp_path: Path) -> None:
    db = Db(tmp_path / "ledger.db")
    ledger = Ledger(db, node="dock", new_epoch=lambda: 5)
    ledger.begin()
    for n, status in enumerate((Status.PLACED, Status.SHIPPED, Status.HELD)):
        ledger.append(OrderEvent("acme", f"O{n % 2}", "S", status, 7, TimeQuality.STATED, None, None, None, {"op": f"t{n}"}), 9)
    ledger.commit()
    db.close()
    books = read(tmp_path / "ledger.db")
    assert list(broken_chains(books.facts, {})) == []
    right = fold(books.facts)
    assert {order: (s.status, s.heads, s.conflict) for order, s in books.view.items()} == {
        order: (s.status, s.heads, s.conflict) for order, s in right.items()
    }
    assert books.own == {("dock", 5, 0): (3, 0, 0)}
    first = min(books.facts.values(), key=lambda f: f.id.seq)
    assert first.stored() == Stored("dock", 5, 1, str(first.id), "t0", ("acme", "O0", "PLACED", "S"))


# ---------------------------------------------------------------- what may be wrong


def quiet() -> tuple[Books, Books, Books]:
    """Store, hub and one edge as they must be left: two facts, all settled."""
    dock = Author("dock")
    dock.says(Status.PLACED)
    dock.says(Status.PICKED)
    view = fold(dock.facts)
    edge = Books("edge", dict(dock.facts), {("dock", E, 0): (2, 2, 0)})
    return Books("store", dict(dock.facts), {}, view), Books("hub", dict(dock.facts), {}), edge


def without(books: Books, seq: int) -> Books:
    return replace(books, facts={fid: f for fid, f in books.facts.items() if fid.seq != seq})


def test_nothing_is_said_of_what_is_right() -> None:
    store, hub, edge = quiet()
    assert compare(store, hub, [edge]) == []
    freed = replace(without(edge, 1), own={("dock", E, 0): (2, 2, 1)})
    assert compare(store, hub, [freed]) == []


def _lost(store: Books, hub: Books, edge: Books) -> tuple[Books, Books, Books]:
    return without(store, 2), without(hub, 2), edge


def _freed_and_gone(store: Books, hub: Books, edge: Books) -> tuple[Books, Books, Books]:
    return without(store, 1), without(hub, 1), replace(without(edge, 1), own={("dock", E, 0): (2, 2, 1)})


def _phantom(store: Books, hub: Books, edge: Books) -> tuple[Books, Books, Books]:
    return store, hub, replace(without(edge, 2), own={("dock", E, 0): (1, 1, 0)})


def _queued(store: Books, hub: Books, edge: Books) -> tuple[Books, Books, Books]:
    return store, hub, replace(edge, own={("dock", E, 0): (2, 1, 0)})


def _hub_is_ahead(store: Books, hub: Books, edge: Books) -> tuple[Books, Books, Books]:
    return without(store, 2), hub, without(edge, 2)


def _wrong_view(store: Books, hub: Books, edge: Books) -> tuple[Books, Books, Books]:
    return replace(store, view={ORDER: replace(store.view[ORDER], status="HELD")}), hub, edge


def _no_view(store: Books, hub: Books, edge: Books) -> tuple[Books, Books, Books]:
    return replace(store, view={}), hub, edge


def _view_of_nothing(store: Books, hub: Books, edge: Books) -> tuple[Books, Books, Books]:
    return replace(store, view={**store.view, ("acme", "O2"): store.view[ORDER]}), hub, edge


def _quarantined(store: Books, hub: Books, edge: Books) -> tuple[Books, Books, Books]:
    return store, replace(hub, quarantined=1), edge


def _damaged(store: Books, hub: Books, edge: Books) -> tuple[Books, Books, Books]:
    return replace(store, integrity="row missing"), hub, edge


def _other_bytes(store: Books, hub: Books, edge: Books) -> tuple[Books, Books, Books]:
    facts = {fid: (replace(f, row=f.row[:-1] + b"\x91") if fid.seq == 2 else f) for fid, f in edge.facts.items()}
    return store, hub, replace(edge, facts=facts)


WRONG = {
    "is not in the store": _lost,
    "freed 1 facts of": _freed_and_gone,
    "which its author does not": _phantom,
    "believes 1 settled": _queued,
    "the hub holds": _hub_is_ahead,
    "shows HELD by dock/5/2/": _wrong_view,
    "shows None": _no_view,
    "there is no such order": _view_of_nothing,
    "in quarantine": _quarantined,
    "integrity check says": _damaged,
    "as it is here": _other_bytes,
}


@pytest.mark.parametrize("complaint", WRONG)
def test_it_says(complaint: str) -> None:
    store, hub, edge = WRONG[complaint](*quiet())
    assert any(complaint in said for said in compare(store, hub, [edge])), compare(store, hub, [edge])


def test_a_chain_with_a_changed_row_or_without_a_link_is_broken() -> None:
    store, _, _ = quiet()
    changed = {fid: replace(f, row=f.row + b"\xc0") if fid.seq == 1 else f for fid, f in store.facts.items()}
    assert any("is not the hash" in said for said in broken_chains(changed, {}))
    assert any("hangs on nothing" in said for said in broken_chains(without(store, 1).facts, {}))
    assert list(broken_chains(without(store, 1).facts, {("dock", E, oracle.ORDERS): [(1, 1)]})) == []
