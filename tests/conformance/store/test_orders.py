"""Lists, filters, cursors, timelines and conflicts of the consolidated view."""

from __future__ import annotations

import pytest

from hub.store.port import PAGE_ORDERS, CentralStore, OrderQuery, StoreFact
from protocols.errors import InvalidInput
from protocols.lifecycle import Status
from tests.conformance.store.worlds import ORG, START_MS, World

NOW_MS = START_MS + 10_000_000


def ids(store: CentralStore, **filters: object) -> list[str]:
    return [o.order_id for o in store.orders(OrderQuery(**filters)).orders]  # type: ignore[arg-type]


def filled(store: CentralStore, count: int = 30) -> World:
    """Orders SO-1000 on, each with one fact, of three sites in two regions."""
    world = World()
    author = world.author("w1")
    places = (("Madrid", "EMEA"), ("Lagos", "EMEA"), ("Lima", "LATAM"))
    for n in range(count):
        site, region = places[n % 3]
        status = Status.SHIPPED if n % 2 else Status.PLACED
        world.say(author, f"SO-{1000 + n}", status, site=site, region=region, org="acme" if n % 5 else "zeta")
    store.apply([s.given for s in world.said], [], NOW_MS)
    return world


def test_the_most_recently_received_come_first(store: CentralStore) -> None:
    filled(store, 4)
    assert ids(store) == ["SO-1003", "SO-1002", "SO-1001", "SO-1000"]


def test_pages_follow_each_other_without_gap_or_repeat(store: CentralStore) -> None:
    filled(store, 23)
    seen, cursor = [], None
    while True:
        page = store.orders(OrderQuery(limit=5, cursor=cursor))
        seen += [o.order_id for o in page.orders]
        cursor = page.cursor
        if cursor is None:
            break
        assert len(page.orders) == 5
    assert seen == [f"SO-{1022 - n}" for n in range(23)]


def test_a_page_that_ends_the_list_exactly_has_no_cursor(store: CentralStore) -> None:
    filled(store, 10)
    assert store.orders(OrderQuery(limit=10)).cursor is None
    assert store.orders(OrderQuery(limit=9)).cursor is not None


def test_new_facts_between_two_pages_neither_repeat_nor_hide_an_order(store: CentralStore) -> None:
    world = filled(store, 20)
    late = world.author("w2")
    first = store.orders(OrderQuery(limit=8))
    store.apply(
        [world.say(late, "NEW", Status.PLACED), world.say(late, "SO-1019", Status.HELD), world.say(late, "SO-1001", Status.HELD)],
        [],
        NOW_MS,
    )
    rest = store.orders(OrderQuery(limit=50, cursor=first.cursor))
    walked = [o.order_id for o in (*first.orders, *rest.orders)]
    assert len(walked) == len(set(walked))
    assert sorted(walked) == sorted(f"SO-{1000 + n}" for n in range(20) if n != 1)
    assert ids(store, limit=3) == ["SO-1001", "SO-1019", "NEW"]  # on top, where a live list shows what moved


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "AAAAAAAAAAUAAAAA", "é", "AAAAAAAAAAUAAAAA\n", "=" * 16, "A" * 4000])
def test_a_cursor_that_is_none_is_refused_by_name(store: CentralStore, cursor: str) -> None:
    filled(store, 3)
    with pytest.raises(InvalidInput) as refused:
        store.orders(OrderQuery(cursor=cursor))
    assert refused.value.field == "cursor"


def test_a_cursor_with_one_letter_changed_is_refused(store: CentralStore) -> None:
    filled(store, 10)
    cursor = store.orders(OrderQuery(limit=5)).cursor
    assert cursor is not None
    for i, letter in enumerate(cursor):
        with pytest.raises(InvalidInput):
            store.orders(OrderQuery(cursor=cursor[:i] + ("B" if letter != "B" else "C") + cursor[i + 1 :]))


def test_filters_hold_alone_and_together(store: CentralStore) -> None:
    filled(store)
    assert len(ids(store, site="Madrid")) == 10
    assert len(ids(store, region="EMEA")) == 20
    assert len(ids(store, status="SHIPPED")) == 15
    assert len(ids(store, org="zeta")) == 6
    assert ids(store, site="Madrid", status="SHIPPED", org="zeta") == ["SO-1015"]
    assert ids(store, site="Lima", region="EMEA") == []
    assert ids(store, site="madrid") == []
    assert ids(store, conflict=True) == []
    assert len(ids(store, conflict=False)) == 30
    assert ids(store, text="101", site="Lagos") == ["SO-1019", "SO-1016", "SO-1013", "SO-1010"]


def test_filters_page_too(store: CentralStore) -> None:
    filled(store)
    first = store.orders(OrderQuery(site="Madrid", limit=7))
    rest = store.orders(OrderQuery(site="Madrid", limit=7, cursor=first.cursor))
    assert [len(first.orders), len(rest.orders), rest.cursor] == [7, 3, None]
    assert {o.site for o in (*first.orders, *rest.orders)} == {"Madrid"}


def test_a_filter_follows_an_order_that_moves(store: CentralStore) -> None:
    world = World()
    first, second = world.author("w1"), world.author("w2")
    store.apply([world.say(first, f"O-{n}", Status.PLACED, site="Madrid") for n in range(3)], [], NOW_MS)
    world.learn(second, first, "O-0")
    store.apply([world.say(second, "O-0", Status.HELD, site="Quito", region="LATAM")], [], NOW_MS)
    assert ids(store, site="Quito") == ids(store, status="HELD") == ids(store, region="LATAM") == ["O-0"]
    assert ids(store, site="Madrid") == ids(store, status="PLACED") == ids(store, region="EMEA") == ["O-2", "O-1"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("GLOBAL/7-a", ["GLOBAL/7-a"]), ("global", ["GLOBAL/7-a"]), ("L/7", ["GLOBAL/7-a"]), ("7", ["GLOBAL/7-a"]), ("-a", ["GLOBAL/7-a"]),
        ("%", ["100%_x"]), ("_", ["100%_x"]), ("%_x", ["100%_x"]), ('say "hi"', ['say "hi"']), ('"', ['say "hi"']), ('"hi"', ['say "hi"']),
        ("订单号", ["订单号42"]), ("单号4", ["订单号42"]), ("42", ["订单号42"]),
        ("OR", []), ("AND", []), ("a*b", []), ("zzz", []), ("x" * 128, []),
        ("\\", ["back\\slash"]), ("k\\sl", ["back\\slash"]), ("back slash", []), ("NEAR(a b)", []),
    ],
)  # fmt: skip
def test_any_fragment_of_an_id_finds_the_order(store: CentralStore, text: str, found: list[str]) -> None:
    world = World()
    author = world.author("w1")
    store.apply([world.say(author, i, Status.PLACED) for i in ("GLOBAL/7-a", "100%_x", 'say "hi"', "订单号42", "back\\slash")], [], NOW_MS)
    assert ids(store, text=text) == found


def test_fragments_that_many_orders_have_page_from_the_newest(store: CentralStore) -> None:
    world = World()
    author = world.author("w1")
    store.apply([world.say(author, f"MANY-{n:04d}", Status.PLACED, site="Madrid") for n in range(1_200)], [], NOW_MS)
    assert (
        ids(store, text="MANY-", limit=2)
        == ids(store, text="MA", limit=2)
        == ids(store, site="Madrid", limit=2)
        == ["MANY-1199", "MANY-1198"]
    )
    page = store.orders(OrderQuery(text="any-", limit=2))
    assert [o.order_id for o in store.orders(OrderQuery(text="any-", limit=1, cursor=page.cursor)).orders] == ["MANY-1197"]
    assert len(ids(store, limit=10_000)) == PAGE_ORDERS


@pytest.mark.parametrize(
    ("filters", "field"),
    [({"status": "shipped"}, "status"), ({"status": ""}, "status"),
     ({"text": "a\0b"}, "q"), ({"text": "\ud800"}, "q"), ({"text": "x" * 129}, "q"),
     ({"site": "\udfff"}, "site"), ({"org": "x" * 500}, "org"), ({"region": "\0"}, "region")],
)  # fmt: skip
def test_a_filter_that_is_none_is_refused_by_name(store: CentralStore, filters: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        store.orders(OrderQuery(**filters))  # type: ignore[arg-type]
    assert refused.value.field == field


def test_the_same_id_of_two_organisations_is_two_orders(store: CentralStore) -> None:
    world = World()
    author = world.author("w1")
    store.apply([world.say(author, "1001", Status.PLACED), world.say(author, "1001", Status.CANCELLED, org="zeta")], [], NOW_MS)
    assert [(o.org, o.status, o.facts) for o in store.find("1001")] == [("acme", "PLACED", 1), ("zeta", "CANCELLED", 1)]
    found = store.order("zeta", "1001")
    assert found is not None
    assert found.status == "CANCELLED"
    assert store.order("nobody", "1001") is None
    assert store.find("\ud800") == []


def test_the_view_shows_the_shown_fact_and_its_details(store: CentralStore) -> None:
    world = World()
    author = world.author("w1")
    details = {"carrier": "FedEx", "expectedDelivery": "2026-05-25T10:00:00Z", "parcels": 3}
    world.say(author, "O-1", Status.PLACED, details=details)
    shipped = world.say(author, "O-1", Status.SHIPPED, source="TMS", site="Lima", region="LATAM", details={"note": "left"})
    store.apply([s.given for s in world.said], [], NOW_MS)
    order = store.order(ORG, "O-1")
    assert order is not None
    assert (order.status, order.source, order.site, order.region, order.node) == ("SHIPPED", "TMS", "Lima", "LATAM", "w1")
    assert (order.details, order.expected_ms) == ({"note": "left"}, 1_779_703_200_000)
    assert (order.facts, order.heads, order.conflict, order.abnormal, order.received_ms) == (2, 1, False, False, shipped.received_ms)


@pytest.mark.parametrize("said", ["soon", "2026-05-25", 7, None, ["2026-05-25T10:00:00Z"]])
def test_a_promise_that_cannot_be_read_is_none(store: CentralStore, said: object) -> None:
    world = World()
    store.apply([world.say(world.author("w1"), "O-1", Status.PLACED, details={"expectedDelivery": said})], [], NOW_MS)
    assert store.find("O-1")[0].expected_ms is None


def test_the_timeline_tells_when_it_happened_was_received_and_was_stored(store: CentralStore) -> None:
    world = World()
    author, other = world.author("w1"), world.author("hub")
    placed = world.say(other, "O-1", Status.PLACED, actor="erp")
    world.learn(author, other, "O-1")
    delivered = world.say(author, "O-1", Status.DELIVERED, actor="staff-17")
    picked = world.say(author, "O-1", Status.PICKED)
    store.apply([placed], [], NOW_MS)
    store.apply([delivered, picked], [], NOW_MS + 7)
    first, second, third = store.events(ORG, "O-1")
    assert (first.status, first.actor, first.node, first.seq, first.stored_ms, first.context) == ("PLACED", "erp", "hub", 1, NOW_MS, [])
    assert (second.status, second.received_ms, second.stored_ms) == ("DELIVERED", delivered.received_ms, NOW_MS + 7)
    assert second.context == [["hub", 1, 1, placed.h[:4]]]
    assert second.fact_id == f"w1/1/1/{delivered.h[:4].hex()}"
    assert [e.is_head for e in (first, second, third)] == [False, False, True]
    assert [e.abnormal for e in (first, second, third)] == [False, False, True]
    assert store.find("O-1")[0].abnormal


def dispute(world: World) -> list[StoreFact]:
    """Cancelled at the centre while shipped at the dock; then the dock hears of it and the goods come back."""
    centre, dock = world.author("hub"), world.author("dock-1")
    placed = world.say(centre, "O-1", Status.PLACED)
    world.learn(dock, centre, "O-1")
    cancelled = world.say(centre, "O-1", Status.CANCELLED, site=None, actor="ops-3")
    shipped = world.say(dock, "O-1", Status.SHIPPED, site="W8-Madrid")
    world.learn(dock, centre, "O-1")
    returned = world.say(dock, "O-1", Status.RETURNED, site="W8-Madrid")
    return [placed, cancelled, shipped, returned]


def test_a_conflict_is_raised_in_plain_words_and_settled_by_a_fact_that_saw_both(store: CentralStore) -> None:
    placed, cancelled, shipped, returned = dispute(World())
    store.apply([placed, cancelled], [], NOW_MS)
    assert store.conflicts() == []
    (change,) = store.apply([shipped], [], NOW_MS + 1).changes
    assert (change.conflict, change.is_head, change.shown) == (True, True, "CANCELLED")
    (raised,) = store.conflicts(open_only=True)
    assert raised.sentence.startswith(
        "Cancelled at the centre by ops-3 while shipped at W8-Madrid by dock-1, neither knowing of the other."
    )
    assert (raised.order_id, raised.raised_ms, raised.settled_ms) == ("O-1", NOW_MS + 1, None)
    assert (raised.shown_fact, raised.other_fact) == (f"hub/1/2/{cancelled.h[:4].hex()}", f"dock-1/1/1/{shipped.h[:4].hex()}")
    assert ids(store, conflict=True) == ["O-1"]
    assert store.totals()["conflicts"] == 1
    store.apply([returned], [], NOW_MS + 2)
    assert store.conflicts(open_only=True) == []
    (settled,) = store.conflicts()
    assert (settled.raised_ms, settled.settled_ms) == (NOW_MS + 1, NOW_MS + 2)
    assert (ids(store, conflict=True), store.find("O-1")[0].status) == ([], "RETURNED")


def test_a_conflict_that_was_settled_before_it_was_seen_is_never_open_but_known(store: CentralStore) -> None:
    placed, cancelled, shipped, returned = dispute(World())
    (change, *_) = store.apply([returned, placed, shipped, cancelled], [], NOW_MS).changes
    assert (change.conflict, store.conflicts(open_only=True), store.find("O-1")[0].status) == (False, [], "RETURNED")
    (known,) = store.conflicts()
    assert (known.settled_ms, [t.fact_id for t in known.clash.settled_by]) == (NOW_MS, [f"dock-1/1/2/{returned.h[:4].hex()}"])


def test_conflicts_come_newest_first_and_bounded(store: CentralStore) -> None:
    world = World()
    one, two = world.author("w1"), world.author("w2")
    for n in range(4):
        store.apply([world.say(one, f"O-{n}", Status.CANCELLED), world.say(two, f"O-{n}", Status.SHIPPED)], [], NOW_MS + n)
    assert [c.order_id for c in store.conflicts(limit=3)] == ["O-3", "O-2", "O-1"]
