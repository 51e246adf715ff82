"""Chains against brute force: random trees of facts, taken in any order, must be the runs, holes and fork points that a full list gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import pytest

from protocols.chains import Chain, Run, RunKind
from protocols.fact import chain as hashes_of
from protocols.sync.intervals import Intervals
from tests.unit.protocols.ledgers import clone, event, ledger, offer, range_of, say

GENESIS = b"genesis!"
Fact = tuple[int, bytes, bytes]
"""seq, hash, hash before"""


@dataclass(slots=True)
class Log:
    """`chains.Points` over a plain dict: (seq, h) -> the hash before."""

    facts: dict[tuple[int, bytes], bytes] = field(default_factory=dict)
    asked: tuple[int, bytes] | None = None
    """the point that `check` asked for last, and asks for first the next time: a chain remembers it"""

    def has(self, seq: int, h: bytes) -> bool:
        return (seq, h) in self.facts

    def have(self, points: Sequence[tuple[int, bytes]]) -> set[tuple[int, bytes]]:
        return {point for point in points if self.has(*point)}

    def walk(self, seq: int, h: bytes, down_to: int) -> bytes | None:
        while seq > down_to:
            if (seq, h) not in self.facts:
                return None
            seq, h = seq - 1, self.facts[seq, h]
        return h if (seq, h) in self.facts else None

    def below(self, seq: int, h: bytes) -> list[int]:
        """The seqs that are held without a hole on the chain that ends here."""
        out = []
        while (seq, h) in self.facts:
            out.append(seq)
            seq, h = seq - 1, self.facts[seq, h]
        return out


def facts_after(prev: bytes, seq: int, names: Sequence[bytes]) -> list[Fact]:
    hashes = hashes_of(prev, names)
    return [(seq + 1 + i, h, hashes[i - 1] if i else prev) for i, h in enumerate(hashes)]


def tree(rng: Random) -> list[Fact]:
    """A stream that was cloned now and then."""
    points: list[tuple[int, bytes]] = [(0, GENESIS)]
    facts: list[Fact] = []
    for name in range(rng.randint(1, 14)):
        seq, prev = points[-1] if rng.random() < 0.8 else rng.choice(points)
        facts += facts_after(prev, seq, [bytes([name])])
        points.append(facts[-1][:2])
    return facts


def in_frames(facts: Sequence[Fact], rng: Random) -> Iterator[list[Fact]]:
    """Shuffled a little or wholly; what then stands side by side travels together."""
    order = list(facts)
    rng.shuffle(order)
    if rng.random() < 0.5:
        order.sort(key=lambda f: f[0] + rng.random() * 4)
    frame = [order[0]]
    for f in order[1:]:
        if (f[0], f[2]) == (frame[-1][0] + 1, frame[-1][1]):
            frame.append(f)
        else:
            yield frame
            frame = [f]
    yield frame


def take(chain: Chain, log: Log, frame: Sequence[Fact]) -> None:
    """As a stream log does it."""
    for seq, h, prev in frame:
        log.facts[seq, h] = prev
    run = chain.extends(frame[0][0], frame[0][2])
    if run is not None:
        run.last, run.h_last = frame[-1][:2]
    else:
        chain.add(frame[0][0], frame[0][2], [h for _, h, _ in frame])


def fork_point(log: Log) -> int | None:
    """The highest seq up to which no two hashes are known; each fact also tells the hash before it."""
    at: dict[int, dict[bytes, None]] = {}
    for (seq, h), prev in log.facts.items():
        at.setdefault(seq, {})[h] = None
        if seq > 1:
            at.setdefault(seq - 1, {})[prev] = None
    return min((seq for seq, hashes in at.items() if len(hashes) > 1), default=0) - 1 if any(len(v) > 1 for v in at.values()) else None


def check(chain: Chain, log: Log) -> None:
    """Everything that can be said of the data of a chain, against the list."""
    seen: dict[tuple[int, bytes], Run] = {}
    for run in chain.data():
        seq, h = run.last, run.h_last
        while seq >= run.first:
            assert (seq, h) not in seen, "in two runs"
            seen[seq, h] = run
            seq, h = seq - 1, log.facts[seq, h]
        assert h == run.h_before
    assert sorted(seen) == sorted(log.facts), "each fact in one run"
    for run in chain.runs:
        children = [c for c in chain.runs if (c.first, c.h_before) == (run.last + 1, run.h_last)]
        assert not (run.kind is RunKind.DATA and len(children) == 1 and children[0].kind is RunKind.DATA), "two runs that are one"
    assert chain.fork_point == fork_point(log)
    if log.asked is not None:
        assert chain.locate(*log.asked) is seen[log.asked], "where it was, and is not any more"
    log.asked = min(log.facts, key=lambda point: point[1])
    for point in [*log.facts, log.asked]:
        assert chain.locate(*point) is seen[point]
    assert chain.locate(99, b"nothing!") is None


def check_without_records(chain: Chain, log: Log) -> None:
    for seq, h in log.facts:
        held = log.below(seq, h)
        assert chain.covered(seq, h) == Intervals([(held[-1], held[0])])
    missing = sorted({(seq - 1, prev) for (seq, _), prev in log.facts.items() if seq > 1 and (seq - 1, prev) not in log.facts})
    assert sorted({(last, h) for _, last, h in chain.holes()}) == missing
    assert {(r.last, r.h_last) for r in chain.tips()} == {
        (seq, h)
        for seq, h in log.facts
        if log.below(seq, h)[-1] == 1 and not any((s, p) == (seq + 1, h) for (s, _), p in log.facts.items())
    }


def reloaded(chain: Chain, log: Log) -> Chain:
    return Chain(GENESIS, log, [Run(r.first, r.h_before, r.last, r.h_last, r.kind) for r in chain.runs])


@pytest.mark.parametrize("part", range(4))
def test_any_tree_in_any_order_is_the_runs_that_a_full_list_gives(part: int) -> None:
    for seed in range(part * 600, part * 600 + 600):
        rng, log = Random(seed), Log()
        chain = Chain(GENESIS, log)
        for frame in in_frames(tree(rng), rng):
            take(chain, log, frame)
            check(chain, log)
            check_without_records(chain, log)
            assert reloaded(chain, log).fork_point == chain.fork_point


@pytest.mark.parametrize("part", range(4))
def test_records_close_holes_and_data_that_comes_after_all_takes_their_place(part: int) -> None:
    """Authors sign for holes between the frames, some of which come later all the same."""
    closed = 0
    for seed in range(part * 600, part * 600 + 600):
        rng, log = Random(seed), Log()
        chain = Chain(GENESIS, log)
        for frame in in_frames(tree(rng), rng):
            take(chain, log, frame)
            for first, last, h in chain.holes():
                if rng.random() < 0.5:
                    closed += close_and_check(chain, first, last, h, rng)
            check(chain, log)
        check_without_records(chain, log)
        assert [r for r in chain.runs if r.kind is not RunKind.DATA] == [], "all data came, yet a record stands"
    assert closed > 100


def close_and_check(chain: Chain, first: int, last: int, h: bytes, rng: Random) -> bool:
    if all((last, h) != (end, at) for _, end, at in chain.holes()):
        return False  # an earlier record reached down over this one
    kind = rng.choice([RunKind.LOST, RunKind.EVICTED, RunKind.PRUNED])
    data = [(r.first, r.last, r.h_last) for r in chain.data()]
    assert chain.close(first, b"", last, h, kind)
    assert all((last, h) != (end, at) for _, end, at in chain.holes())
    assert any((r.last, r.h_last, r.kind) == (last, h, kind) for r in chain.runs)
    assert sorted((r.first, r.last, r.h_last) for r in chain.data()) == sorted(data), "a record moves no data"
    assert not chain.close(first, b"", last, h, kind), "it is kept once"
    return True


def test_nothing_is_closed_that_nobody_misses() -> None:
    chain, log, facts = grown(5)
    take(chain, log, facts)
    assert not chain.close(2, b"", 3, facts[2][1], RunKind.LOST)
    assert not chain.close(6, b"", 7, b"somewher", RunKind.LOST)
    assert [(r.first, r.last) for r in chain.runs] == [(1, 5)]


def test_data_supersedes_a_record_from_above_and_the_rest_of_it_stands() -> None:
    chain, log, facts = grown(9)
    take(chain, log, facts[:3])
    take(chain, log, facts[8:])
    assert chain.close(4, facts[2][1], 8, facts[7][1], RunKind.LOST)
    assert chain.holes() == []
    take(chain, log, facts[6:8])
    assert [(r.first, r.last, r.kind.name) for r in chain.runs] == [(1, 3, "DATA"), (4, 6, "LOST"), (7, 9, "DATA")]
    take(chain, log, facts[3:6])
    assert [(r.first, r.last) for r in chain.runs] == [(1, 9)]


def test_a_record_whose_ends_are_known_stands_whatever_another_branch_holds_in_between() -> None:
    """A fragment of another branch once moved its lower end and left its hash: a point that nobody ever had (simulation)."""
    chain, log, facts = grown(9)
    other = facts_after(facts[2][1], 3, [b"x", b"y", b"z"])
    take(chain, log, facts[:3])
    take(chain, log, facts[7:])
    take(chain, log, other[1:2])
    assert chain.close(4, facts[2][1], 7, facts[6][1], RunKind.LOST)
    record = next(r for r in chain.runs if r.kind is RunKind.LOST)
    assert (record.first, record.h_before, record.last, record.h_last) == (4, facts[2][1], 7, facts[6][1])
    assert [(last, h) for _, last, h in chain.holes()] == [(4, other[0][1])]
    take(chain, log, facts[3:7])
    take(chain, log, [other[0]])
    assert [(r.first, r.last, r.kind.name) for r in chain.runs] == [(1, 3, "DATA"), (4, 5, "DATA"), (4, 9, "DATA")]


def test_a_record_may_leave_a_run_in_its_middle() -> None:
    """What is signed for left the trunk below its end."""
    chain, log, facts = grown(6)
    other = facts_after(facts[1][1], 2, [b"x", b"y", b"z"])
    take(chain, log, facts)
    take(chain, log, other[2:])
    assert chain.close(3, facts[1][1], 4, other[1][1], RunKind.LOST)
    assert chain.holes() == []
    assert all(chain.rooted(r) for r in chain.runs)
    take(chain, log, other[:2])
    check(chain, log)
    check_without_records(chain, log)


def test_a_record_that_does_not_say_what_lies_below_reaches_down_to_the_hole_or_is_refused() -> None:
    chain, log, facts = grown(9)
    take(chain, log, facts[:2])
    take(chain, log, facts[7:])
    assert not chain.close(5, b"", 7, facts[6][1], RunKind.LOST)
    assert chain.close(1, b"", 7, facts[6][1], RunKind.LOST)
    assert [(r.first, r.last, r.kind.name) for r in chain.runs] == [(1, 2, "DATA"), (3, 7, "LOST"), (8, 9, "DATA")]


def grown(count: int) -> tuple[Chain, Log, list[Fact]]:
    """An empty chain and the facts of a stream."""
    log = Log()
    return Chain(GENESIS, log), log, facts_after(GENESIS, 0, [bytes([n]) for n in range(count)])


def test_the_prefix_ends_at_a_hole_at_a_fork_and_nowhere_else() -> None:
    led, hub = ledger(), ledger("hub")
    say(led, *(event(f"o{i}") for i in range(10)))
    twin = clone(led)
    say(led, *(event(f"a{i}") for i in range(5)))
    say(twin, *(event(f"b{i}") for i in range(2)))
    whole = range_of(led)
    prefix = lambda: hub.log.open(whole.key).chain.prefix()  # noqa: E731
    assert prefix() == 0
    offer(hub, whole.part(4, 6))
    assert prefix() == 0
    offer(hub, whole.part(1, 2))
    assert prefix() == 2
    offer(hub, whole.part(3, 15))
    assert prefix() == 15
    offer(hub, range_of(twin))
    assert prefix() == 10


def test_a_record_that_does_not_say_what_lies_below_stands_on_the_branch_that_has_a_hole() -> None:
    """On the trunk it would say of the other branch that nothing is missing, though a fact below the hole never came."""
    chain, log, facts = grown(6)
    other = facts_after(facts[3][1], 4, [b"e", b"f", b"g", b"h"])  # 5, 6, 7, 8 of a clone; of these 6 and 8 come
    for frame in (facts, [other[1]], [other[3]]):
        take(chain, log, frame)
    assert chain.close(7, b"", 7, other[2][1], RunKind.LOST)
    record = next(r for r in chain.runs if r.kind is RunKind.LOST)
    assert (record.first, record.h_before) == (7, other[1][1])
    assert [h for _, last, h in chain.holes() if last == 5] == [other[0][1]]
