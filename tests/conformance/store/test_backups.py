"""Backups of the store: what all that could still be restored have, from the moment they were begun (rule 11)."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from hub.store.backups import Backup, to_expire
from hub.store.port import CentralStore, StoreFact
from protocols.chains import RunKind
from protocols.errors import InvalidInput
from protocols.lifecycle import Status
from protocols.streams import StreamKey
from protocols.sync.receiver import rooted_points
from tests.conformance.store.kinds import StoreKind
from tests.conformance.store.test_holes import NOW_MS, line, record
from tests.conformance.store.worlds import World, random_world

DAY_MS = 86_400_000


def covered(store: CentralStore, key: StreamKey) -> list[tuple[int, int]] | None:
    said = store.statement([key]).backed_up
    return None if said is None else [(r.first, r.last) for r in said.get(key, ())]


def test_without_a_backup_nothing_is_said_of_them(store: CentralStore) -> None:
    author, facts = line()
    store.apply(facts, [], NOW_MS)
    assert covered(store, author.key) is None
    assert store.backups() == []


def test_a_backup_counts_from_its_begin_and_has_what_was_there_then(store: CentralStore) -> None:
    author, facts = line()
    store.apply(facts[:4], [], NOW_MS)
    begun = store.begin_backup("b1", "test", "here", NOW_MS)
    assert begun.state == "begun"
    store.apply(facts[4:], [], NOW_MS)
    assert covered(store, author.key) == [(1, 4)]
    assert not store.statement().covered, "it may still fail, so it is no cover yet"
    assert store.complete_backup("b1", NOW_MS + 1).state == "complete"
    assert covered(store, author.key) == [(1, 4)]
    assert store.statement().covered


def test_every_backup_counts_until_it_has_expired(store: CentralStore) -> None:
    author, facts = line()
    for name, upto in (("old", 3), ("mid", 6), ("new", 9)):
        store.apply(facts[:upto], [], NOW_MS)
        store.begin_backup(name, "test", "", NOW_MS + upto)
        store.complete_backup(name, NOW_MS + upto)
    assert covered(store, author.key) == [(1, 3)]
    store.expire_backup("mid", NOW_MS + 20)
    assert covered(store, author.key) == [(1, 3)]
    assert store.expire_backup("old", NOW_MS + 20).covers == b""
    assert covered(store, author.key) == [(1, 9)]
    store.expire_backup("new", NOW_MS + 20)
    assert covered(store, author.key) is None
    assert [b.state for b in store.backups()] == ["expired"] * 3


def test_expired_is_final(store: CentralStore) -> None:
    store.begin_backup("b1", "test", "", NOW_MS)
    store.expire_backup("b1", NOW_MS)
    with pytest.raises(InvalidInput, match="expired"):
        store.complete_backup("b1", NOW_MS + 1)
    assert store.expire_backup("b1", NOW_MS + 9).expired_ms == NOW_MS
    with pytest.raises(InvalidInput, match="no backup 'b2'"):
        store.complete_backup("b2", NOW_MS)


def test_holes_and_records_are_covered_as_far_as_every_backup_has_them(store: CentralStore) -> None:
    author, facts = line()
    store.apply([*facts[:3], *facts[6:8]], [], NOW_MS)
    store.begin_backup("b1", "test", "", NOW_MS)
    store.apply(facts[8:], [record(author, 4, 6, RunKind.EVICTED)], NOW_MS)
    assert covered(store, author.key) == [(1, 3), (7, 8)]
    store.begin_backup("b2", "test", "", NOW_MS)
    assert covered(store, author.key) == [(1, 3), (7, 8)]
    store.expire_backup("b1", NOW_MS)
    assert covered(store, author.key) == [(1, 3), (4, 6), (7, 10)]
    store.apply(facts[3:6], [], NOW_MS)  # data after all: the backup has only the record
    assert [r for r in covered(store, author.key) or [] if r[0] <= 4 <= r[1]] in ([], [(4, 6)])
    said = store.statement().backed_up
    assert said is not None
    assert all(r.kind is RunKind.EVICTED for r in said[author.key] if r.first <= 4 <= r.last)


def test_each_branch_of_a_fork_by_itself(store: CentralStore) -> None:
    world = World()
    author = world.author("w1")
    for n in range(3):
        world.say(author, f"O-{n}", Status.PLACED)
    clone = world.fork(author)
    ours = [world.say(author, f"A-{n}", Status.PLACED) for n in range(3)]
    theirs = [world.say(clone, f"B-{n}", Status.PLACED) for n in range(3)]
    store.apply([s.given for s in author.line[:3]], [], NOW_MS)
    store.apply(ours[:2], [], NOW_MS)
    store.begin_backup("b1", "test", "", NOW_MS)
    store.apply([ours[2], *theirs], [], NOW_MS)
    said = store.statement([author.key]).backed_up
    assert said is not None
    points = rooted_points(said[author.key], author.line[0].given.prev)
    assert max(points) == (5, ours[1].h)
    assert all(h not in {f.h for f in theirs} for _, h in points)


def test_a_store_that_is_older_than_a_backup_says_nothing_of_it_until_its_end_is_known_again(kind: StoreKind) -> None:
    author, facts = line()
    store, older = kind.scratch(), kind.scratch()
    store.apply(facts, [], NOW_MS)
    store.begin_backup("b1", "test", "", NOW_MS)
    older.apply(facts[:6], [], NOW_MS)
    assert [b.id for b in older.merge_backups(store.backups())] == ["b1"]
    assert covered(older, author.key) == []
    older.apply(facts[6:], [], NOW_MS)
    assert covered(older, author.key) == [(1, 10)]
    for one in (store, older):
        one.close()


def test_two_memories_of_a_backup_are_joined_and_go_forward_only(store: CentralStore) -> None:
    b1 = store.begin_backup("b1", "test", "", NOW_MS)
    done = replace(b1, finished_ms=NOW_MS + 5)
    gone = replace(done, expired_ms=NOW_MS + 9)
    assert [b.state for b in store.merge_backups([done])] == ["complete"]
    assert [b.state for b in store.merge_backups([b1])] == ["complete"]
    assert [b.state for b in store.merge_backups([gone])] == ["expired"]
    assert [b.state for b in store.merge_backups([done])] == ["expired"]
    assert store.merge_backups([Backup("b2", 1, 2, 3, "test", "", b"x")])[0].covers == b""


def test_the_list_lasts_and_a_reader_sees_it(kind: StoreKind, tmp_path: Path) -> None:
    author, facts = line()
    store = kind.open(tmp_path)
    store.apply(facts[:4], [], NOW_MS)
    store.begin_backup("b1", "test", "somewhere", NOW_MS)
    reader = kind.reader(tmp_path)
    assert covered(reader, author.key) == [(1, 4)]
    store.close()
    again = kind.open(tmp_path)
    assert again.backups() == reader.backups()
    assert covered(again, author.key) == [(1, 4)]
    reader.close()
    again.close()


@pytest.mark.parametrize("seed", range(12))
def test_what_is_said_to_be_in_every_backup_is(seed: int, kind: StoreKind) -> None:
    """Against sets of identities: the oracle never looks at runs."""
    rng = random.Random(seed)
    store, facts = kind.scratch(), _shuffled(seed, rng)
    held: set[tuple[StreamKey, int, bytes]] = set()
    backups: dict[str, set[tuple[StreamKey, int, bytes]]] = {}
    for step, batch in enumerate(facts):
        store.apply(batch, [], NOW_MS)
        held |= {(f.stream, f.seq, f.h) for f in batch}
        if rng.random() < 0.4:
            store.begin_backup(f"b{step}", "test", "", NOW_MS + step)
            backups[f"b{step}"] = set(held)
        if backups and rng.random() < 0.2:
            name = rng.choice(sorted(backups))
            store.expire_backup(name, NOW_MS)
            del backups[name]
        said = store.statement().backed_up
        if not backups:
            assert said is None, seed
            continue
        assert said is not None
        found = {(k, f.seq, f.h) for k, runs in said.items() for run in runs for f in store.facts(k, run, 10_000)}
        assert found == set.intersection(held, *backups.values()), seed
    store.close()


def _shuffled(seed: int, rng: random.Random) -> list[list[StoreFact]]:
    facts = [s.given for s in random_world(seed, 60, forks=True).said]
    if rng.random() < 0.5:
        rng.shuffle(facts)
    out = []
    while facts:
        n = rng.randrange(1, 9)
        out.append(facts[:n])
        facts = facts[n:]
    return out


def test_retention_keeps_the_newest_and_gives_up_what_was_overtaken() -> None:
    def backup(name: str, day: int, *, done: bool = True, gone: bool = False) -> Backup:
        at = day * DAY_MS
        return Backup(name, at, at + 1 if done else None, at + 2 if gone else None, "test", "", b"")

    days = [backup(f"d{n}", n) for n in range(1, 8)]
    now = 8 * DAY_MS

    def ended(rows: list[Backup], keep: int = 0, days: int = 0) -> list[str]:
        return sorted(b.id for b in to_expire(rows, now, keep=keep, max_age_ms=days * DAY_MS))

    assert ended(days) == []
    assert ended(days, keep=3) == ["d1", "d2", "d3", "d4"]
    assert ended(days, days=3) == ["d1", "d2", "d3", "d4"]
    assert ended(days[:1], days=3) == [], "the newest complete one stays, however old"
    assert ended([backup("d1", 1, gone=True), backup("d7", 7)], keep=1) == []
    unfinished = backup("u", 5, done=False)
    assert ended([unfinished, *days]) == ["u"]
    assert ended([unfinished, backup("d4", 4)]) == [], "nothing has overtaken it"
    assert ended([backup("u", 7, done=False), replace(backup("d7", 7), begun_ms=7 * DAY_MS + 5)]) == [], "it is not a day old"
