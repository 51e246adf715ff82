"""The disk that loses power forgets what it may forget and nothing else: the proof is worth as much as this."""

from __future__ import annotations

from random import Random

import pytest

from tests.storage.disk import EVERYTHING, NOTHING, Mood, Op, Surface

A = "a.db"


def left(ops: list[Op], mood: Mood = NOTHING, seed: int = 1, begun: dict[str, bytes] | None = None) -> dict[str, bytes]:
    surface = Surface({A: b"old"} if begun is None else begun)
    for op in ops:
        surface.play(op)
    return surface.left(Random(seed), mood)


def write(at: int, data: bytes, inode: int = 1) -> Op:
    return Op("write", inode, at, data)


SYNC = Op("sync", 1)


def test_what_was_not_synced_may_be_gone_or_there() -> None:
    assert left([write(0, b"new")]) == {A: b"old"}
    assert left([write(0, b"new")], EVERYTHING) == {A: b"new"}
    assert left([write(0, b"new"), SYNC]) == {A: b"new"}
    assert left([write(0, b"new"), SYNC, write(0, b"NEW")]) == {A: b"new"}


def test_sectors_are_kept_each_on_its_own_and_out_of_order() -> None:
    two = [write(0, b"1" * 1024), SYNC, write(0, b"2" * 512), write(512, b"3" * 512)]
    seen = {left(two, Mood(keep=0.5), seed)[A] for seed in range(60)}
    assert seen == {a * 512 + b * 512 for a in (b"1", b"2") for b in (b"1", b"3")}
    torn = [write(0, b"1" * 1024), SYNC, write(0, b"2" * 1024)]
    assert {left(torn, Mood(keep=0.5), seed)[A][::512] for seed in range(60)} == {b"11", b"12", b"21", b"22"}
    assert {left(torn, Mood(4096, keep=0.5), seed)[A][::512] for seed in range(60)} == {b"11", b"22"}


def test_a_sector_is_as_some_write_left_it_never_newer_without_older() -> None:
    ops = [write(0, b"...."), SYNC, write(0, b"ab"), write(1, b"cd")]
    assert {left(ops, Mood(keep=0.5), seed)[A] for seed in range(60)} == {b"....", b"ab..", b"acd."}


def test_a_size_may_be_lost_or_come_without_its_bytes() -> None:
    ops = [write(600, b"far")]
    sizes = {(len(data), data.endswith(b"far")) for seed in range(80) for data in [left(ops, Mood(keep=0.5, sizes=0.5), seed)[A]]}
    assert sizes == {(3, False), (603, False), (603, True)}


def test_a_truncation_may_be_lost_and_leaves_zeros_beyond() -> None:
    ops = [write(0, b"x" * 2000), SYNC, Op("truncate", 1, 10)]
    assert {len(left(ops, Mood(sizes=0.5), seed)[A]) for seed in range(40)} == {10, 2000}
    assert left([*ops, SYNC, write(1000, b"y"), SYNC]) == {A: b"x" * 10 + bytes(990) + b"y"}


def test_garbage_stands_only_where_was_written() -> None:
    ops = [write(0, b"." * 512), SYNC, write(100, b"new")]
    found = {left(ops, Mood(garble=1.0), seed)[A] for seed in range(20)}
    assert len(found) > 10
    assert {data[:100] + data[103:] for data in found} == {b"." * 509}


@pytest.mark.parametrize("synced", [False, True])
def test_a_name_is_safe_once_its_directory_was_synced(synced: bool) -> None:
    made = [Op("create", 2, name="b"), write(0, b"hello", 2), Op("sync", 2), *([Op("dirsync")] if synced else [])]
    assert left(made) == ({A: b"old", "b": b"hello"} if synced else {A: b"old"})
    removed = [Op("unlink", 1, name=A), *([Op("dirsync")] if synced else [])]
    assert left(removed) == ({} if synced else {A: b"old"})
    assert left(removed, EVERYTHING) == {}


def test_a_removed_name_may_come_back_with_its_old_bytes_after_a_new_file_took_it() -> None:
    ops = [Op("unlink", 1, name=A), Op("create", 2, name=A), write(0, b"new", 2), Op("sync", 2)]
    assert {left(ops, Mood(names=0.5), seed).get(A) for seed in range(60)} == {b"old", None, b"new"}


def test_after_a_sync_that_failed_the_next_one_does_not_bring_it_back() -> None:
    ops = [write(0, b"new"), Op("badsync", 1), write(3, b"!"), SYNC]
    assert left(ops) == {A: b"old!"}
    assert left([*ops, write(0, b"again"), SYNC]) == {A: b"again"}
