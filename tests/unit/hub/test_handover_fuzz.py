"""Random streams between hub and store: clones, holes, repeats, records, hubs that come back older. Nothing sticks, each balance closes.

`python -m tests.unit.hub.test_handover_fuzz FIRST LAST` plays other seeds, or one again.
"""

from __future__ import annotations

import sys
from random import Random
from typing import Final

import pytest

from protocols.chains import RunKind
from protocols.codec import pack
from tests.unit.hub.hand_streams import KEY, Branch, Hand, fact
from tests.unit.hub.hub_world import World

SEEDS: Final = (*range(60), 1079)
ORDERS: Final = [f"G{n}" for n in range(4)]
TURNS: Final = 30
"""More store turns than any handover takes."""


def tree(rng: Random) -> list[Branch]:
    """A stream that was cloned now and then; one fact in twenty cannot be read."""
    made = iter(range(1_000))

    def rows(count: int) -> list[bytes]:
        fresh = (next(made) for _ in range(count))
        return [pack([9, n]) if rng.random() < 0.05 else fact(n, rng.choice(ORDERS), rng.randrange(1, 13)) for n in fresh]

    branches = [rows(rng.randrange(3, 12))]
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
        stem = rng.choice(branches)
        branches.append(stem[: rng.randrange(len(stem))] + rows(rng.randrange(1, 9)))
    return [Branch.of(branch) for branch in branches]


class Story:
    """One seed's stream on its way to the store."""

    def __init__(self, seed: int, *, comes_back_older: bool) -> None:
        self.rng, self.world, self.comes_back_older = Random(seed), World(), comes_back_older
        self.branches = tree(self.rng)
        self.hand = Hand(self.world, self.branches[0])
        self.backups = [self.world.db.dump()]

    def play(self) -> None:
        """Most frames in any order, some late; then what only a record closes; at last everything."""
        frames = self.frames()
        late = len(frames) * 3 // 4 if self.rng.random() < 0.5 else len(frames)
        for part in (frames[:late], frames[late:]):
            for payload in part:
                self.world.deliver(KEY.node, payload)
                self.something_happens()
            self.check()
            self.sign_for_holes()
            self.check()
        if self.comes_back_older:
            self.world.restart(self.rng.choice(self.backups))
            self.check()
        for branch in self.branches:
            self.hand.send(1, len(branch.rows), branch)
        self.check()
        self.check_that_all_is_there()

    def frames(self) -> list[bytes]:
        """Of one to three facts; some never come, some come twice."""
        rng, frames = self.rng, []
        for branch in self.branches:
            last = 0
            while last < len(branch.rows):
                first, last = last + 1, min(len(branch.rows), last + rng.randrange(1, 4))
                if rng.random() < 0.85:
                    frames.append(self.hand.frame(first, last, branch))
        frames += [frame for frame in frames if rng.random() < 0.2]
        rng.shuffle(frames)
        return frames

    def something_happens(self) -> None:
        x = self.rng.random()
        if x < 0.2:
            self.sign_for_holes()
        elif x < 0.25:
            self.backups.append(self.world.db.dump())
        elif x < 0.28 and self.comes_back_older:
            self.world.restart(self.rng.choice(self.backups))
            self.world.run(2)
        elif x > 0.8:
            self.hand_over()

    def sign_for_holes(self) -> None:
        """For a hole alone, or, as one who pruned does, for everything up to its end."""
        for first, last, h in self.hand.chain.holes():
            if self.rng.random() < 0.6:
                start = 1 if self.rng.random() < 0.4 else first
                self.hand.close(start, last, h, self.rng.choice([RunKind.LOST, RunKind.PRUNED]))

    # ------------------------------------------------------------ what must hold

    def hand_over(self) -> None:
        """Until the store lacks nothing."""
        for _ in range(TURNS):
            self.world.store_turn()
            facts, records = self.world.hub.lacking_in_store()
            if not facts and not records:
                return
        raise AssertionError(f"handed over without end: {self}")

    def check(self) -> None:
        """Hub and store come to rest, also after the store has stated all of it anew, and the balance closes."""
        self.hand_over()
        self.world._take_back()
        self.hand_over()
        row = self.world.row(KEY.node)
        assert row["balanced"], f"{row}: {self}"

    def check_that_all_is_there(self) -> None:
        assert self.hand.at_hub() == self.hand.at_store(), str(self)
        assert self.hand.chain.holes() == [] and all(run.kind is RunKind.DATA for run in self.hand.chain.runs), str(self)
        for order_id in ORDERS:
            order = self.world.hub.ledger.book.get("acme", order_id)
            heads = sorted(head.seq for head in order.heads) if order is not None else []
            stored = self.world.store.events("acme", order_id) or []
            assert sorted(event.seq for event in stored if event.is_head) == heads, f"{order_id}: {self}"

    def __str__(self) -> str:
        return f"hub {self.hand.at_hub()}, store {self.hand.at_store()}"


@pytest.mark.parametrize("older", [False, True], ids=["steady", "older"])
@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_arrives_in_whatever_order_hub_and_store_agree_in_the_end(seed: int, older: bool) -> None:
    print(f"seed {seed}, replay: python -m tests.unit.hub.test_handover_fuzz {seed} {seed}")
    Story(seed, comes_back_older=older).play()


if __name__ == "__main__":
    for number in range(int(sys.argv[1]), int(sys.argv[2]) + 1):
        for back in (False, True):
            print(f"\rseed {number} {'older' if back else 'steady'}", end="", flush=True)
            Story(number, comes_back_older=back).play()
    print(": all agree")
