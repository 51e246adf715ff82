"""Two histories under one name: both are kept, applied and stated, and every order is folded as if all had been known at once."""

from __future__ import annotations

from hub.store.port import CentralStore
from protocols.clashes import State
from protocols.lifecycle import Status
from tests.conformance.store.worlds import ORG, Author, World

NOW_MS = 1_767_300_000_000


def cloned() -> tuple[World, Author, Author]:
    """An author with two facts of order COMMON, and its clone."""
    world = World()
    author = world.author("w1")
    world.say(author, "COMMON", Status.PLACED)
    world.say(author, "COMMON", Status.APPROVED)
    return world, author, world.fork(author)


def head_statuses(store: CentralStore, order_id: str) -> list[str]:
    return sorted(e.status for e in store.events(ORG, order_id) if e.is_head)


def test_both_branches_are_kept_applied_and_stated(store: CentralStore) -> None:
    world, author, clone = cloned()
    world.say(author, "O-1", Status.PICKED)
    world.say(clone, "O-1", Status.CANCELLED)
    world.say(clone, "O-2", Status.PLACED)
    applied = store.apply([s.given for s in world.said], [], NOW_MS)
    assert applied.new == 5
    assert head_statuses(store, "O-1") == ["CANCELLED", "PICKED"]
    runs = store.statement([author.key]).streams[author.key]
    assert sorted((r.first, r.last, r.h_last) for r in runs) == sorted(
        [(1, 2, author.line[1].given.h), (3, 3, author.line[2].given.h), (3, 4, clone.line[3].given.h)]
    )
    (counts,) = store.counts()
    assert (counts.facts, counts.twins) == (5, 1)


def test_each_branch_can_be_read_back(store: CentralStore) -> None:
    world, author, clone = cloned()
    for n in range(3):
        world.say(author, f"A-{n}", Status.PLACED)
        world.say(clone, f"B-{n}", Status.PLACED)
    store.apply([s.given for s in world.said], [], NOW_MS)
    for run in store.statement().streams[author.key]:
        line = [s.given for s in (author if run.h_last != clone.line[-1].given.h else clone).line]
        assert [f[:6] for f in store.facts(author.key, run, 100)] == [f[:6] for f in line[run.first - 1 : run.last]]


def test_the_clones_cancellation_and_the_originals_shipment_are_a_conflict(store: CentralStore) -> None:
    world, author, clone = cloned()
    world.say(author, "COMMON", Status.SHIPPED)
    world.say(clone, "COMMON", Status.CANCELLED)
    store.apply([s.given for s in world.said], [], NOW_MS)
    (conflict,) = store.conflicts(open_only=True)
    assert conflict.sentence.startswith("Cancelled at site-w1 by w1 while shipped at site-w1 by w1")


def test_a_fork_found_by_a_fact_of_another_order_corrects_an_order_that_gets_no_fact(store: CentralStore) -> None:
    """The centre saw fact 5 of the original. The clone's fact 3 is no ancestor of it, which nothing shows before fact 4 is here."""
    world, author, clone = cloned()
    centre = world.author("hub")
    world.say(author, "OTHER", Status.PLACED)
    fourth = world.say(author, "OTHER", Status.APPROVED)
    fifth = world.say(author, "O-1", Status.PLACED)
    world.learn(centre, author, "O-1")
    saw_original = world.say(centre, "O-1", Status.CANCELLED)
    by_clone = world.say(clone, "O-1", Status.PICKED)
    first_two = [s.given for s in author.line[:2]]
    store.apply([*first_two, by_clone, fifth, saw_original], [], NOW_MS)
    assert head_statuses(store, "O-1") == ["CANCELLED"]  # as far as anybody can know here
    store.apply([fourth], [], NOW_MS + 1)
    assert head_statuses(store, "O-1") == ["CANCELLED", "PICKED"]
    assert len(store.conflicts(open_only=True)) == 1


def test_a_branch_that_becomes_whole_corrects_an_order_that_could_not_be_decided_before(store: CentralStore) -> None:
    """The fork is known, but not whether the fact that the centre saw stands above fact 3: the facts between belong to another order."""
    world, author, clone = cloned()
    centre = world.author("hub")
    third = world.say(author, "O-1", Status.PLACED)
    between = [world.say(author, "OTHER", Status.PLACED), world.say(author, "OTHER", Status.APPROVED)]
    sixth = world.say(author, "O-1", Status.ALLOCATED)
    world.learn(centre, author, "O-1")
    saw = world.say(centre, "O-1", Status.HELD)
    by_clone = world.say(clone, "COMMON", Status.PICKED)
    store.apply([*(s.given for s in author.line[:2]), by_clone, third, sixth, saw], [], NOW_MS)
    assert head_statuses(store, "O-1") == ["HELD", "PLACED"]
    store.apply(between, [], NOW_MS + 1)
    assert head_statuses(store, "O-1") == ["HELD"]


def test_what_looked_settled_until_a_fork_came_to_light_was_not(store: CentralStore) -> None:
    """A context that names another branch than the one that is here stands for it only as long as nobody knows of the fork."""
    world = World()
    w1, hub = world.author("w1"), world.author("hub")
    placed = world.say(w1, "O-1", Status.PLACED)
    twin = world.fork(w1)
    cancelled = world.say(twin, "O-1", Status.CANCELLED)
    other, approved = world.say(w1, "O-2", Status.PLACED), world.say(w1, "O-1", Status.APPROVED)
    picked = world.say(hub, "O-1", Status.PICKED)
    world.learn(hub, w1, "O-1")
    packed = world.say(hub, "O-1", Status.PACKED)
    store.apply([placed, cancelled, picked, packed], [], NOW_MS)
    assert [c.clash.state for c in store.conflicts()] == [State.SETTLED]
    store.apply([other, approved], [], NOW_MS)
    told = {(c.clash.shown.status, c.clash.other.status): c.clash.state for c in store.conflicts()}
    assert told == {(Status.CANCELLED, Status.PICKED): State.WENT_ON, (Status.CANCELLED, Status.PACKED): State.OPEN}
    assert store.find("O-1")[0].held
