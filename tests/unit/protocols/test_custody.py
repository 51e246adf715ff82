"""Others' signed bytes are kept until every stretch of them is settled on its own branch; what is full refuses, and drops nothing."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from random import Random

import pytest

from protocols.chains import RunKind
from protocols.custody import POINTS_HELD, Custody, chained
from protocols.custody_spans import Span
from protocols.errors import CustodyFull
from protocols.lifecycle import Status
from protocols.messages import RunStated
from protocols.schema import migrate
from protocols.sqlite import Db
from protocols.streams import StreamKey
from tests.unit.protocols.ledgers import clone, event, ledger, offer, range_of, say

PHONE = StreamKey("phone-1", 7, 0)
OTHER = StreamKey("phone-2", 8, 0)
FRAME, FEED = b"LS\x01\x01frame", b"LS\x01\x0cfeed"


def h(seq: int, branch: str = "") -> bytes:
    """The hash at a point of a made-up chain; "" is the trunk."""
    return blake2b(f"{branch}/{seq}".encode(), digest_size=8).digest()


def span(first: int, last: int, key: StreamKey = PHONE, *, branch: str = "", fork: int = 0) -> Span:
    """first..last; above `fork` on a branch of its own."""
    return Span(key, first, h(first - 1, branch if first - 1 > fork else ""), last, h(last, branch if last > fork else ""))


def custody(db: Db | None = None, **more: int) -> Custody:
    db = db or Db(":memory:")
    migrate(db)
    return Custody(db, **more)


def kept(c: Custody) -> list[bytes]:
    return [c.payload(cid) for cid, _ in c.payloads()]


def run(first: int, last: int, kind: RunKind = RunKind.DATA) -> RunStated:
    return RunStated(first, h(first - 1), last, h(last), kind)


# ------------------------------------------------------------ keeping


def test_what_is_kept_is_counted_and_found_again_after_a_restart(tmp_path: Path) -> None:
    db = Db(tmp_path / "a.db")
    c = custody(db)
    assert c.keep(b"one", [span(1, 5)], 100)
    assert c.keep(b"three", [span(6, 8)], 50)
    assert c.counts() == (8, 2, 8, 50)
    db.close()
    again = custody(Db(tmp_path / "a.db"))
    assert kept(again) == [b"one", b"three"]
    assert (again.kept_bytes, again.counts().events) == (8, 8)


def test_the_same_bytes_are_kept_once() -> None:
    c = custody()
    assert c.keep(b"one", [span(1, 5)], 100)
    assert not c.keep(b"one", [span(1, 5)], 900)
    assert c.counts() == (5, 1, 3, 100)


def test_a_full_custody_refuses_and_keeps_what_it_has() -> None:
    c = custody(budget_bytes=10)
    c.keep(b"sixsix", [span(1, 5)], 1)
    with pytest.raises(CustodyFull, match="10 bytes") as caught:
        c.keep(b"five5", [span(6, 9)], 2)
    assert "bound" in caught.value.remedy
    assert kept(c) == [b"sixsix"]
    assert not c.keep(b"sixsix", [span(1, 5)], 3), "what is here needs no room"
    c.settled(PHONE, [(5, h(5))])
    assert c.keep(b"five5", [span(6, 9)], 4), "what went leaves its room"


def test_facts_cut_anew_are_known_by_their_chain() -> None:
    c = custody()
    c.keep(b"low", [span(1, 5)], 1)
    c.keep(b"high", [span(6, 9)], 1)
    assert c.covers(span(1, 9))
    assert c.covers(span(4, 9))
    assert not c.covers(span(1, 7)), "it ends where no frame ends: nobody here knows that it is the same branch"
    assert not c.covers(span(1, 9, branch="b", fork=5))
    assert not c.covers(span(1, 9, OTHER))


# ------------------------------------------------------------ letting go


def test_custody_ends_at_a_settled_point_and_for_all_that_it_stands_on() -> None:
    c = custody()
    for first in (1, 6, 11):
        c.keep(b"from %d" % first, [span(first, first + 4)], 1)
    assert c.settled(PHONE, [(10, h(10))]) == 2
    assert kept(c) == [b"from 11"]
    assert c.settled(PHONE, [(15, h(15))]) == 1
    assert (kept(c), c.kept_bytes, c.held()) == ([], 0, [])


def test_a_higher_point_proves_nothing_without_the_chain() -> None:
    c = custody()
    c.keep(b"low", [span(1, 5)], 1)
    assert c.settled(PHONE, [(9, h(9))]) == 0
    assert c.settled(PHONE, [(9, h(9))], lambda key, tip, point: (key, tip, point) == (PHONE, (9, h(9)), (5, h(5)))) == 1


def test_the_other_branch_of_a_fork_stays() -> None:
    c = custody()
    c.keep(b"trunk", [span(1, 4)], 1)
    c.keep(b"mine", [span(5, 9)], 1)
    c.keep(b"clone", [span(5, 9, branch="b", fork=4)], 1)
    assert c.settled(PHONE, [(9, h(9))]) == 2
    assert kept(c) == [b"clone"]
    assert c.settled(PHONE, [(9, h(9, "b"))]) == 1


def test_settled_of_one_stream_is_nothing_to_another() -> None:
    c = custody()
    c.keep(b"mine", [span(1, 5)], 1)
    assert c.settled(OTHER, [(5, h(5))]) == 0
    assert kept(c) == [b"mine"]


def test_a_payload_of_several_streams_stays_until_each_is_settled() -> None:
    c = custody()
    c.keep(b"feed", [span(1, 3), span(2, 4, OTHER)], 1)
    assert c.settled(PHONE, [(3, h(3))]) == 0
    assert kept(c) == [b"feed"]
    assert c.settled(OTHER, [(4, h(4))]) == 1, "what was settled before is remembered"


def test_custody_may_end_before_the_bytes_go() -> None:
    c = custody(budget_bytes=30)
    c.keep(FRAME, [span(1, 5)], 1)
    assert c.note_settled(PHONE, [(5, h(5))], 1_000) == 1
    assert c.note_settled(PHONE, [(5, h(5))], 2_000) == 0, "it ends once"
    assert c.counts() == (0, 0, 0, None)
    assert kept(c) == [FRAME]
    assert c.release(PHONE, [(5, h(5))], 999) == 0, "younger than the floor"
    assert c.release(PHONE, [(4, h(4))], 5_000) == 0, "not in every backup"
    assert c.release(PHONE, [(5, h(5))], 1_000) == 1
    assert (kept(c), c.kept_bytes) == ([], 0)


def test_what_came_down_the_feed_goes_when_every_backup_has_it_and_frames_stay() -> None:
    c = custody()
    c.keep(FRAME, [span(1, 5)], 1)
    c.keep(FEED, [span(2, 2), span(3, 3, OTHER)], 1)
    assert c.note_settled(PHONE, [(5, h(5)), (2, h(2))], 1_000) == 1
    assert c.note_settled(OTHER, [(3, h(3))], 1_000) == 1
    assert c.counts().payloads == 0
    assert c.release(PHONE, [(2, h(2))], 5_000) == 0, "the other stream of the message may still be lost"
    assert c.release_feed(PHONE, [(5, h(5)), (2, h(2))]) == 0
    assert c.lacking(OTHER, []) == [FEED], "given back to a hub and a store that both went back"
    assert c.release_feed(OTHER, [(3, h(3))]) == 1
    assert kept(c) == [FRAME]
    assert c.kept_bytes == len(FRAME)


def test_only_frames_make_a_carrier_and_count_by_author() -> None:
    c = custody()
    c.keep(FEED, [span(1, 5, OTHER)], 1)
    c.keep(FRAME, [span(1, 5)], 1)
    assert (c.carries(PHONE), c.carries(OTHER)) == (True, False)
    assert c.by_author() == [("phone-1", 5)]


def test_scattered_facts_are_asked_about_page_by_page() -> None:
    c = custody()
    for seq in range(2, 42, 2):
        c.keep(FEED + b"%d" % seq, [span(seq, seq)], 1)
    pages = [c.page_of_points(PHONE, 8, turn) for turn in range(3)]
    assert [len(page) for page in pages] == [8, 8, 4]
    assert len(dict.fromkeys(point for page in pages for point in page)) == 20
    assert c.page_of_points(PHONE, 8, 3) == pages[0]
    c.note_settled(PHONE, pages[0], 1_000)
    assert c.page_of_points(PHONE, 8, 0) == pages[0], "settled, and not in every backup"
    c.release_feed(PHONE, pages[0])
    assert c.page_of_points(PHONE, 8, 0) == pages[1]


def test_what_is_not_settled_is_never_released() -> None:
    c = custody()
    c.keep(b"mine", [span(1, 5)], 1)
    assert c.release(PHONE, [(5, h(5))], 10**15) == 0
    assert kept(c) == [b"mine"]


# ------------------------------------------------------------ asking the hub


def test_held_names_streams_the_oldest_first_and_where_their_branches_end() -> None:
    c = custody()
    c.keep(b"other", [span(1, 2, OTHER)], 1)
    for first in (1, 6):
        c.keep(b"from %d" % first, [span(first, first + 4)], 1)
    c.keep(b"clone", [span(6, 7, branch="b", fork=5)], 1)
    assert c.held() == [(OTHER, ((2, h(2)),)), (PHONE, ((10, h(10)), (7, h(7, "b")), (5, h(5))))]


def test_of_many_points_the_tips_and_some_below_are_named() -> None:
    c = custody()
    for seq in range(1, 201):
        c.keep(b"%d" % seq, [span(seq, seq)], 1)
    ((_, points),) = c.held()
    assert len(points) == POINTS_HELD
    assert points[0] == (200, h(200))
    assert points[-1][0] < 20
    assert list(points) == sorted(points, reverse=True)


def test_what_the_hub_lacks_is_sent_again_and_nothing_else() -> None:
    c = custody()
    for first in (1, 6, 11):
        c.keep(b"from %d" % first, [span(first, first + 4)], 1)
    assert c.lacking(PHONE, []) == [b"from 1", b"from 6", b"from 11"]
    assert c.lacking(PHONE, [run(1, 10)]) == [b"from 11"], "the second stands on the first, in one run of the hub's"
    assert c.lacking(PHONE, [run(1, 9)]) == [b"from 1", b"from 6", b"from 11"], "no end is named, and nobody has the chain"
    assert c.lacking(PHONE, [run(1, 5), run(1, 10)]) == [b"from 11"]
    assert c.lacking(PHONE, [run(1, 3), run(4, 5), run(6, 8), run(12, 15)]) == [b"from 6", b"from 11"]
    assert c.lacking(PHONE, [run(1, 5, RunKind.LOST), run(6, 10)]) == [b"from 1", b"from 11"], "a record is no data"
    assert c.lacking(PHONE, [run(1, 15)], lambda *_: True) == []


def test_of_a_branch_that_was_not_asked_about_only_what_waits_already_is_sent() -> None:
    c = custody()
    for first in (1, 4, 9):
        c.keep(b"from %d" % first, [span(first, first + 2)], 1)
    cid = c.id_of(b"from 9")
    assert [c.payload(i) for i in c.lacking_ids(PHONE, [], asked=[(6, h(6))])] == [b"from 1", b"from 4"]
    assert [c.payload(i) for i in c.lacking_ids(PHONE, [], asked=[(3, h(3))])] == [], "the branch ends in 6"
    assert [c.payload(i) for i in c.lacking_ids(PHONE, [], asked=[], waiting=[cid or 0])] == [b"from 9"]


def test_where_more_branches_end_than_may_be_named_each_has_its_turn() -> None:
    c = custody()
    for n in range(POINTS_HELD + 8):
        c.keep(b"%d" % n, [span(2 * n + 2, 2 * n + 2)], 1)
    named = [dict(c.held(turn))[PHONE] for turn in range(3)]
    assert {len(points) for points in named} == {POINTS_HELD}
    assert {seq for points in named for seq, _ in points} == {2 * n + 2 for n in range(POINTS_HELD + 8)}


def test_the_ends_of_branches_are_named_before_what_lies_below() -> None:
    c = custody()
    c.keep(b"low", [span(2, 3)], 1)
    for n in range(POINTS_HELD + 8):
        c.keep(b"%d" % n, [span(10 + n, 10 + n)], 1)
    (_, points), *others = c.held()
    assert not others and points[:2] == ((9 + POINTS_HELD + 8, h(9 + POINTS_HELD + 8)), (3, h(3))) and len(points) == POINTS_HELD


def test_a_hub_that_holds_another_branch_lacks_this_one() -> None:
    c = custody()
    c.keep(b"clone", [span(6, 7, branch="b", fork=5)], 1)
    assert c.lacking(PHONE, [run(1, 40)]) == [b"clone"]


def test_what_was_settled_is_given_back_to_a_hub_that_went_back() -> None:
    c = custody()
    c.keep(FRAME, [span(1, 5)], 1)
    c.note_settled(PHONE, [(5, h(5))], 1_000)
    assert c.lacking(PHONE, []) == [FRAME]


# ------------------------------------------------------------ with the facts themselves in a log


def test_a_log_knows_what_lies_below_a_point_but_not_across_a_hole() -> None:
    phone, gateway = ledger("phone-1"), ledger("gateway-1")
    say(phone, *(event(f"o{i}", Status.PLACED) for i in range(12)))
    whole = range_of(phone)
    key, known = whole.key, chained(gateway.log)

    def point(seq: int) -> tuple[int, bytes]:
        return seq, whole.hashes[seq - 1]

    offer(gateway, whole.part(1, 5))
    offer(gateway, whole.part(9, 12))
    assert known(key, point(5), point(3))
    assert not known(key, point(12), point(3)), "between them lies a hole: it may be another branch"
    assert not known(key, point(5), (3, h(3)))
    assert known(key, (40, h(40)), (40, h(40))), "a point is on its own chain"
    offer(gateway, whole.part(6, 8))
    assert known(key, point(12), point(3))


def test_a_log_tells_the_branches_of_a_fork_apart() -> None:
    phone, gateway = ledger("phone-1"), ledger("gateway-1")
    say(phone, *(event(f"o{i}") for i in range(4)))
    twin = clone(phone)
    say(phone, event("mine"), event("mine2"))
    say(twin, event("his"), event("his2"))
    mine, his = range_of(phone), range_of(twin)
    offer(gateway, mine)
    offer(gateway, his)
    known = chained(gateway.log)
    assert known(mine.key, (6, mine.hashes[5]), (5, mine.hashes[4]))
    assert known(mine.key, (6, his.hashes[5]), (4, his.hashes[3]))
    assert not known(mine.key, (6, mine.hashes[5]), (5, his.hashes[4]))


@pytest.mark.parametrize("seed", range(20))
def test_nothing_goes_before_it_is_settled_on_its_own_branch(seed: int) -> None:
    """Random cuts of two branches, in any order, freed at random points: what is left is exactly what no settled point stands on."""
    rng = Random(seed)
    print("seed", seed)
    c, fork = custody(), 6
    spans = []
    for branch in ("", "b"):
        seq = 1 if not branch else fork + 1
        while seq <= 20:
            last = min(20, seq + rng.randrange(4))
            spans.append(span(seq, last, branch=branch, fork=fork))
            seq = last + 1
    rng.shuffle(spans)
    for i, s in enumerate(spans):
        c.keep(b"%d" % i, [s], i)
    done = {"": 0, "b": 0}
    for _ in range(6):
        s = rng.choice(spans)
        branch = "b" if s.last > fork and s.h_last == h(s.last, "b") else ""
        c.settled(PHONE, [s.end])
        if branch:
            done["b"] = max(done["b"], s.last)
            done[""] = max(done[""], min(s.last, fork))
        else:
            done[""] = max(done[""], s.last)
    left = {c.payload(cid) for cid, _ in c.payloads()}
    for i, s in enumerate(spans):
        mine = "b" if s.last > fork and s.h_last == h(s.last, "b") else ""
        settled = s.last <= done[mine]
        assert (b"%d" % i in left) != settled, (s, done)
