"""The ledger: what a yes is, what becomes of facts that are offered in any order, and that nothing shows before the commit."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.chains import RunKind
from protocols.codec import pack, unpack
from protocols.errors import Conflict, DecodeError
from protocols.fact import CONTINUES, continues_row, genesis, read_continues
from protocols.ledger import IDEMPOTENCY_MS, Ledger, content_digest, parse_row
from protocols.lifecycle import Status
from protocols.sqlite import Db
from protocols.streams import StreamKey
from tests.unit.protocols.ledgers import (
    DAY_MS,
    NOW_MS,
    ORG,
    event,
    heads,
    ledger,
    offer,
    order_row,
    orders,
    range_of,
    rows_range,
    runs,
    say,
)  # fmt: skip

KEY = StreamKey("edge-1", 101, 0)


def rows_of(led: Ledger) -> list[bytes]:
    return [row for (row,) in led.db.query("SELECT row FROM log ORDER BY sid, seq, h")]


# ------------------------------------------------------------ own facts


def test_facts_are_numbered_from_one_and_chained_from_the_genesis_of_their_stream() -> None:
    led = ledger()
    done = say(led, event("A"), event("B"))
    first, second = rows_of(led)
    h1 = blake2b(genesis("edge-1", 101, 0) + first, digest_size=8).digest()
    h2 = blake2b(h1 + second, digest_size=8).digest()
    assert [(a.stream, a.seq, a.h, a.repeated) for a in done] == [(KEY, 1, h1, False), (KEY, 2, h2, False)]
    assert done[0].fact_id == f"edge-1/65/1/{h1[:4].hex()}"


def test_the_row_is_the_event_with_the_time_at_which_it_was_recorded() -> None:
    led = ledger()
    say(led, event("A", Status.SHIPPED, "k", carrier="X"), now_ms=NOW_MS + 5)
    fact = parse_row(rows_of(led)[0])
    assert (fact.order_id, fact.status, fact.details, fact.recorded_ms) == ("A", Status.SHIPPED, {"carrier": "X"}, NOW_MS + 5)
    assert fact.idempotency_key is None, "the key stays at the node"


def test_the_stream_goes_on_where_it_was_after_the_file_is_opened_again(tmp_path: Path) -> None:
    led = ledger(db=Db(tmp_path / "a.db"))
    say(led, event("A"), event("B"))
    head = led.own().head
    led.db.close()
    again = ledger(db=Db(tmp_path / "a.db"), epochs=())
    assert again.own().key == KEY
    assert again.own().head == head
    assert say(again, event("A", Status.SHIPPED))[0].seq == 3
    assert heads(again, "A") == {("edge-1", 101, 3, again.own().head[1])}
    again.db.close()


def test_own_facts_of_an_order_follow_each_other_without_a_word_of_context() -> None:
    led = ledger()
    say(led, event("A"), event("A", Status.SHIPPED))
    assert [parse_row(row).context for row in rows_of(led)] == [[], []]
    assert len(heads(led)) == 1


def test_a_fact_names_what_its_author_had_seen_of_others() -> None:
    led, centre = ledger(), ledger("centre")
    say(centre, event("B"), event("A", Status.CANCELLED))
    offer(led, range_of(centre))
    say(led, event("A", Status.RETURNED))
    (said,) = say(led, event("A", Status.REFUNDED))
    contexts = [parse_row(row).context for row in rows_of(led) if parse_row(row).status in (Status.RETURNED, Status.REFUNDED)]
    assert contexts == [[["centre", 101, 2, centre.own().head[1][:4]]]] * 2
    assert heads(led) == {("edge-1", 101, said.seq, said.h)}


# ------------------------------------------------------------ requests that come twice


def test_a_repeated_key_returns_the_first_identity_and_stores_nothing() -> None:
    led = ledger()
    (first,) = say(led, event("A", key="k1"))
    (again,) = say(led, event("A", key="k1"), now_ms=NOW_MS + 99)
    assert again == first._replace(repeated=True)
    assert led.own().head[0] == 1


def test_a_key_with_other_content_is_a_conflict_and_the_whole_batch_is_refused() -> None:
    led = ledger()
    say(led, event("A", key="k1"))
    led.begin()
    with pytest.raises(Conflict) as caught:
        led.append_all([event("B"), event("A", Status.SHIPPED, "k1")], NOW_MS)
    led.commit()
    assert caught.value.remedy
    assert led.own().head[0] == 1
    assert led.book.get(ORG, "B") is None


def test_within_a_batch_a_repeated_key_is_one_fact_and_other_content_refuses_all() -> None:
    led = ledger()
    a, b, c = say(led, event("A", key="k"), event("A", key="k"), event("B"))
    assert (a.seq, b.seq, c.seq) == (1, 1, 2)
    assert (a.repeated, b.repeated) == (False, True)
    led.begin()
    with pytest.raises(Conflict):
        led.append_all([event("C", key="new"), event("D", key="new")], NOW_MS)
    led.commit()
    assert led.own().head[0] == 2


def test_two_requests_are_the_same_if_all_but_the_key_is() -> None:
    assert content_digest(event("A", key="1")) == content_digest(event("A", key="2"))
    other = [event("B"), event(status=Status.SHIPPED), event(x=1), event(x="1"), event(x=True)]
    assert len({content_digest(e) for e in [event(), *other]}) == 6


def test_a_key_is_kept_thirty_days_beyond_the_freeing_of_its_fact() -> None:
    led = ledger()
    (first,) = say(led, event("A", key="old"))
    say(led, event("B", key="young"))
    freed_ms = NOW_MS + 400 * DAY_MS
    led.begin()
    led.free(led.own(), 1, freed_ms)
    led.commit()
    led.begin()
    led.forget_requests(freed_ms + IDEMPOTENCY_MS)
    led.commit()
    assert say(led, event("A", key="old")) == [first._replace(repeated=True)], "it was freed only now"
    led.begin()
    led.forget_requests(freed_ms + IDEMPOTENCY_MS + 1)
    led.commit()
    assert not say(led, event("A", key="old"))[0].repeated
    assert say(led, event("B", key="young"))[0].repeated, "its fact is still here, whatever its age"


# ------------------------------------------------------------ offered facts


@pytest.fixture
def author() -> Ledger:
    """An edge with ten facts of three orders."""
    led = ledger()
    say(led, *(event("ABC"[i % 3], Status.PLACED if i < 5 else Status.SHIPPED) for i in range(10)))
    return led


def test_new_facts_are_logged_and_folded(author: Ledger) -> None:
    hub = ledger("hub")
    done = offer(hub, range_of(author))
    assert (done.new, done.known, done.forked, done.quarantined) == (10, 0, False, [])
    assert [row.seq for row, _, _ in done.folded] == list(range(1, 11))
    assert orders(hub) == orders(author)
    assert hub.log.open(KEY).head == author.own().head


def test_the_same_frame_twice_changes_nothing(author: Ledger) -> None:
    hub = ledger("hub")
    offer(hub, range_of(author))
    before = hub.db.dump()
    done = offer(hub, range_of(author))
    assert (done.new, done.known, done.folded) == (0, 10, [])
    assert hub.db.dump() == before


def test_of_a_frame_that_overlaps_only_the_new_facts_count(author: Ledger) -> None:
    hub, all_ = ledger("hub"), range_of(author)
    offer(hub, all_.part(4, 6))
    done = offer(hub, all_.part(2, 8))
    assert (done.new, done.known) == (4, 3)
    assert [row.seq for row, _, _ in done.folded] == [2, 3, 7, 8]
    assert runs(hub, KEY) == [(2, 8, 0)]


def test_facts_beyond_a_hole_are_folded_at_once_and_the_hole_is_named(author: Ledger) -> None:
    hub, all_ = ledger("hub"), range_of(author)
    offer(hub, all_.part(1, 3))
    offer(hub, all_.part(8, 10))
    assert heads(hub, "A") == heads(author, "A")
    assert hub.log.open(KEY).chain.holes() == [(4, 7, all_.hashes[6])]
    offer(hub, all_.part(4, 7))
    assert runs(hub, KEY) == [(1, 10, 0)]
    assert orders(hub) == orders(author)


def test_a_first_fact_that_does_not_follow_the_genesis_is_refused_whole(author: Ledger) -> None:
    hub = ledger("hub")
    bad = rows_range(KEY, [order_row()], h_before=b"12345678")
    with pytest.raises(DecodeError):
        offer(hub, bad)
    hub.db.rollback()
    assert rows_of(hub) == []


@given(st.integers(0, 2**32), st.integers(1, 4))
def test_pieces_in_any_order_and_number_end_in_the_authors_own_view(seed: int, copies: int) -> None:
    rng, led = Random(seed), ledger()
    say(led, *(event(rng.choice("AB"), rng.choice(list(Status))) for _ in range(8)))
    hub, all_ = ledger("hub"), range_of(led)
    pieces = [all_.part(a, rng.randint(a, 8)) for a in range(1, 9) for _ in range(copies)] + [all_.part(8, 8)]
    rng.shuffle(pieces)
    new = sum(offer(hub, piece).new for piece in [*pieces, *all_.singles()])
    assert new == 8
    assert runs(hub, KEY) == [(1, 8, 0)]
    assert orders(hub) == orders(led)


# ------------------------------------------------------------ what cannot be read


def test_a_future_kind_and_a_bad_row_are_kept_byte_for_byte_while_their_neighbours_fold() -> None:
    hub = ledger("hub")
    strange = [order_row("A"), [77, "later"], order_row("B", status=9_999), b"\xc1 no msgpack", pack("text"), order_row("C")]
    done = offer(hub, rows_range(KEY, strange))
    assert (done.new, [seq for seq, _, _ in done.quarantined]) == (6, [2, 3, 4, 5])
    assert sorted(orders(hub)) == ["A", "C"]
    assert rows_of(hub) == [row if isinstance(row, bytes) else pack(row) for row in strange]
    reasons = {q["fact"].split("/")[2]: q["reason"] for q in hub.quarantined()}
    assert sorted(reasons) == ["2", "3", "4", "5"]
    assert "77" in reasons["2"]
    assert "9999" in reasons["3"]


def test_the_record_that_opens_an_epoch_is_no_order_and_no_poison() -> None:
    hub = ledger("hub")
    assert offer(hub, rows_range(KEY, [continues_row(5, 9, b"12345678")])).quarantined == []
    assert orders(hub) == {}


def test_elements_of_a_later_version_travel_on_unread() -> None:
    hub = ledger("hub")
    offer(hub, rows_range(KEY, [[*order_row("A"), None, None, {"later": 1}]]))
    (row,) = rows_of(hub)
    assert parse_row(row).extra == ({"later": 1},)


def test_bytes_that_do_not_decode_stand_in_the_log_under_the_hashes_of_their_header(author: Ledger) -> None:
    hub, all_ = ledger("hub"), range_of(author)
    offer(hub, all_.part(1, 4))
    for _ in range(2):
        hub.begin()
        new = hub.offer_opaque(KEY, 5, all_.hashes[3], all_.hashes[4], b"damage", "why", NOW_MS)
        hub.commit()
    assert (new.new, new.known) == (0, 1), "the second time it is known"
    offer(hub, all_.part(6, 10))
    assert runs(hub, KEY) == [(1, 10, 0)]
    assert [(q["reason"], q["fact"].split("/")[2]) for q in hub.quarantined()] == [("why", "5")]
    assert heads(hub, "A") == heads(author, "A")


def test_what_was_noted_first_of_a_bad_fact_stays() -> None:
    led = ledger()
    (done,) = say(led, event())
    led.begin()
    led.quarantine(1, 1, done.h, "first", NOW_MS)
    led.quarantine(1, 1, done.h, "second", NOW_MS + 1)
    led.commit()
    assert [(q["reason"], q["atMs"]) for q in led.quarantined()] == [("first", NOW_MS)]


# ------------------------------------------------------------ a new epoch


def test_a_new_epoch_begins_with_a_record_that_continues_the_old_one() -> None:
    led = ledger()
    say(led, event("A"), event("B"))
    old = led.own()
    led.begin()
    new = led.start_new_epoch(NOW_MS)
    led.commit()
    assert (new.key, led.own(), led.own_streams()) == (StreamKey("edge-1", 102, 0), new, [old, new])
    row = unpack(rows_of(led)[-1], max_bytes=100)
    assert isinstance(row, list)
    assert row[0] == CONTINUES
    assert read_continues(row) == read_continues(continues_row(101, 2, old.head[1]))
    (said,) = say(led, event("A", Status.SHIPPED))
    assert (said.stream, said.seq) == (new.key, 2)
    assert heads(led, "A") == {("edge-1", 102, 2, said.h)}, "its own past goes on"


def test_an_epoch_that_said_nothing_is_not_continued() -> None:
    led = ledger()
    led.begin()
    assert led.start_new_epoch(NOW_MS).head[0] == 0
    led.commit()


def test_the_new_epoch_outlives_a_restart(tmp_path: Path) -> None:
    led = ledger(db=Db(tmp_path / "a.db"))
    say(led, event())
    led.begin()
    led.start_new_epoch(NOW_MS)
    led.commit()
    led.db.close()
    again = ledger(db=Db(tmp_path / "a.db"), epochs=())
    assert again.own().key.epoch == 102
    again.db.close()


# ------------------------------------------------------------ records


def test_a_record_closes_a_hole_and_data_that_comes_after_all_supersedes_it(author: Ledger) -> None:
    hub, all_ = ledger("hub"), range_of(author)
    offer(hub, all_.part(1, 3))
    offer(hub, all_.part(8, 10))
    hub.begin()
    assert hub.close_hole(KEY, 4, all_.hashes[2], 7, all_.hashes[6], RunKind.LOST, b"signed", NOW_MS)
    hub.commit()
    assert runs(hub, KEY) == [(1, 3, 0), (4, 7, 1), (8, 10, 0)]
    assert hub.log.open(KEY).chain.holes() == []
    assert hub.db.query("SELECT first, last, h_last, kind, signed FROM records") == [(4, 7, all_.hashes[6], 1, b"signed")]
    offer(hub, all_.part(6, 7))
    assert runs(hub, KEY) == [(1, 3, 0), (4, 5, 1), (6, 10, 0)]
    offer(hub, all_.part(4, 5))
    assert runs(hub, KEY) == [(1, 10, 0)]


def test_a_record_about_nothing_that_is_missed_leaves_no_trace(author: Ledger) -> None:
    """Also right after other facts of the same stream in the same transaction."""
    hub, all_ = ledger("hub"), range_of(author)
    hub.begin()
    hub.offer(KEY, 1, all_.h_before, all_.facts, all_.hashes, NOW_MS)
    assert not hub.close_hole(KEY, 4, all_.hashes[2], 7, all_.hashes[6], RunKind.LOST, b"signed", NOW_MS)
    hub.commit()
    assert runs(hub, KEY) == [(1, 10, 0)]
    assert hub.db.query("SELECT * FROM records") == []


# ------------------------------------------------------------ freeing


def test_freed_facts_are_gone_and_stay_known(author: Ledger) -> None:
    everything = range_of(author)
    author.begin()
    assert author.free(author.own(), 6, NOW_MS) == 6
    author.commit()
    stream = author.own()
    assert (stream.freed_seq, stream.freed_h, stream.head) == (6, everything.hashes[5], (10, everything.hashes[9]))
    assert len(rows_of(author)) == 4
    assert [offer(author, part).new for part in (everything, everything.part(2, 5), everything.part(4, 8))] == [0, 0, 0]
    assert author.log.hash_at(stream, 6) == everything.hashes[5]
    assert author.log.hash_at(stream, 5) is None
    assert say(author, event("A", Status.DELIVERED))[0].seq == 11


def test_freeing_outlives_a_restart_and_does_not_go_back(author: Ledger) -> None:
    author.begin()
    author.free(author.own(), 6, NOW_MS)
    assert author.free(author.own(), 4, NOW_MS) == 0
    assert author.free(author.own(), 99, NOW_MS) == 0
    author.commit()
    again = ledger(db=author.db, epochs=())
    assert again.own().freed_seq == 6
    assert heads(again, "B") == heads(author, "B")
    again.begin()
    assert again.free(again.own(), 8, NOW_MS) == 2
    again.commit()


def test_the_orders_of_freed_facts_go_on(author: Ledger) -> None:
    before = orders(author)
    author.begin()
    author.free(author.own(), 10, NOW_MS)
    author.commit()
    again = ledger(db=author.db, epochs=())
    assert orders(again) == before
    (said,) = say(again, event("A", Status.DELIVERED))
    assert heads(again, "A") == {("edge-1", 101, 11, said.h)}


# ------------------------------------------------------------ nothing before the commit


def test_a_rollback_leaves_the_file_as_it_was(tmp_path: Path, author: Ledger) -> None:
    led = ledger("hub", Db(tmp_path / "a.db"))
    say(led, event("A", key="k"))
    before = led.db.dump()
    led.begin()
    led.append_all([event("A", Status.SHIPPED), event("N", key="n")], NOW_MS)
    all_ = range_of(author)
    led.offer(all_.key, 1, all_.h_before, all_.facts, all_.hashes, NOW_MS)
    led.start_new_epoch(NOW_MS)
    led.flush()
    led.db.rollback()
    assert led.db.dump() == before
    led.db.close()


def test_another_reader_sees_log_fold_and_key_together_or_not_at_all(tmp_path: Path) -> None:
    led = ledger(db=Db(tmp_path / "a.db"))
    reader = Db(tmp_path / "a.db", read_only=True)
    tables = ("log", "orders", "idempotency", "runs")
    led.begin()
    led.append(event("A", key="k"), NOW_MS)
    led.flush()
    assert [reader.query(f"SELECT count(*) FROM {t}") for t in tables] == [[(0,)]] * 4
    led.commit()
    assert [reader.query(f"SELECT count(*) FROM {t}") for t in tables] == [[(1,)]] * 4
    reader.close()
    led.db.close()


# ------------------------------------------------------------ asking


def test_unsettled_counts_facts_bytes_and_the_oldest(author: Ledger) -> None:
    say(author, event("Z"), now_ms=NOW_MS + 50)
    stream = author.own()
    assert author.unsettled(stream) == (11, sum(len(row) for row in rows_of(author)), NOW_MS)
    stream.settled_seq = 10
    assert author.unsettled(stream) == (1, len(rows_of(author)[-1]), NOW_MS + 50)
    stream.settled_seq = 11
    assert author.unsettled(stream) == (0, 0, None)


def test_the_events_of_an_order_come_as_this_database_took_them(author: Ledger) -> None:
    hub, all_ = ledger("hub"), range_of(author)
    offer(hub, all_.part(6, 10), NOW_MS)
    offer(hub, all_.part(1, 5), NOW_MS + 1)
    order = hub.book.get(ORG, "A")
    assert order is not None
    assert [row.seq for row, _ in hub.events(order)] == [7, 10, 1, 4]
    assert {fact.order_id for _, fact in hub.events(order)} == {"A"}


def test_one_fact_can_be_asked_for_by_its_identity(author: Ledger) -> None:
    seq, h = author.own().head
    fact = author.fact(1, seq, h)
    assert fact is not None
    assert fact.order_id == "A"
    assert author.fact(1, seq, b"another.") is None
