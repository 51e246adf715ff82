"""Two processes' stores on one file. Each sees at once what the other wrote, and nothing is applied twice."""

from __future__ import annotations

from pathlib import Path

from hub.store.port import StoreFact
from hub.store.sqlite import SqliteStore
from tests.unit.hub.hand_streams import KEY, Branch, fact


def test_two_writers_of_one_file_take_turns(tmp_path: Path) -> None:
    one, two = (SqliteStore(tmp_path / "store.db", shared=True) for _ in range(2))
    rows, hashes = Branch.of(fact(n, "A1") for n in range(12))
    facts = [StoreFact(KEY, n + 1, hashes[n + 1], hashes[n], row, 1) for n, row in enumerate(rows)]
    for n, given in enumerate(facts):
        (one, two)[n % 2].apply([given], [], n)
    assert one.statement(None) == two.statement(None)
    (runs,) = one.statement(None).streams.values()
    assert [(r.first, r.last) for r in runs] == [(1, 12)]
    assert two.apply(facts, [], 99).new == 0 and two.apply(facts, [], 99).known == 12
    view = one.order("acme", "A1")
    assert view is not None and view.facts == 12 and view.heads == 1
    backup = one.begin_backup("b1", "test", "here", 5)
    assert [b.id for b in two.merge_backups([])] == [backup.id]
    one.close()
    two.close()
