"""Orders opened together are those that would be opened one by one."""

from __future__ import annotations

from protocols.lifecycle import Status
from protocols.sqlite import Db
from tests.unit.protocols.ledgers import NOW_MS, ORG, event, ledger, say


def test_many_at_once_as_one_by_one() -> None:
    first = ledger()
    names = ["A", "B", 'with "quotes" and \\', "naïve ✓", "C"]
    say(first, *(event(name) for name in names), event("B", Status.APPROVED, quantities={"picked": 3}))
    image = first.db.dump()
    together, alone = ledger(db=Db.load(image)), ledger(db=Db.load(image))
    asked = [(ORG, "new"), *((ORG, name) for name in names), ("other", "A"), (ORG, "A"), (ORG, "new")]
    found = together.book.open_all(asked, NOW_MS + 1)
    one_by_one = {name: alone.book.open(*name, NOW_MS + 1) for name in asked}
    assert {name: order for name, order in found.items() if order.stored} == {name: o for name, o in one_by_one.items() if o.stored}
    assert sorted(found) == sorted(one_by_one)
    assert [o.stored for o in found.values()].count(True) == len(names)
    assert found[ORG, "B"].counted and found[ORG, "B"].heads
    assert len({order.okey for order in found.values()}) == len(found), "each has a number of its own"


def test_what_is_in_memory_is_not_read_again() -> None:
    led = ledger()
    say(led, event("A"))
    led.begin()
    order = led.book.open(ORG, "A", NOW_MS)
    order.heads = ()
    assert led.book.open_all([(ORG, "A")], NOW_MS)[ORG, "A"] is order
    begun = led.book.open_all([(ORG, "Z")], NOW_MS)[ORG, "Z"]
    assert led.book.open(ORG, "Z", NOW_MS) is begun
