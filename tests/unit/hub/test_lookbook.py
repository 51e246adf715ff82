"""A look that goes on from the one before shows what a look shows that begins anew, whatever happened in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import cast

import pytest

from hub import lookbook
from hub.fleet import Seen, look
from hub.lookbook import Book
from hub.store.port import CentralStore, StreamCounts
from protocols.carried import CustodyStated
from protocols.codec import Kind, open_envelope
from protocols.messages import Heartbeat
from protocols.sync.seal import seal
from protocols.sync.uplink import Out
from protocols.topics import Address, Channel
from tests.support.often import seeds
from tests.unit.hub.hub_world import World, make_card

STEPS = 60
OFFLINE_MS = 9_000


def is_frame(payload: bytes) -> bool:
    """Does it carry facts?"""
    return open_envelope(payload).kind is Kind.FRAME


class Counted:
    """A store that counts what it is told to count, as others write to it meanwhile."""

    def __init__(self, counts: list[StreamCounts]) -> None:
        self._counts = counts

    def counts(self) -> list[StreamCounts]:
        return self._counts


class Walk:
    """Some edges, a clone, a relay, a node that waits, and a hub that keeps a book of its looks."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.world = World()
        self.world.bend = lambda _, payload: [] if self.losing and is_frame(payload) else [self._damaged(payload)]
        self.losing = self.damaging = False
        self.edges = [self.world.edge(f"dock-{n}") for n in range(4)]
        self.edges.append(self.world.edge("later", admitted=False))
        self.backup = self.world.db.dump()
        self.left: dict[str, int] = {}
        self.store: Counted | None = None
        self.taking_back = False
        self.core, self.book = self.world.hub, Book()

    def _damaged(self, payload: bytes) -> bytes:
        return payload[:-1] + bytes((payload[-1] ^ 1,)) if self.damaging else payload

    # ------------------------------------------------------------ what happens

    def says(self) -> None:
        self.rng.choice(self.edges).says(f"A{self.rng.randrange(4)}", self.rng.choice(["PLACED", "PICKED", "SHIPPED"]))

    def reports(self) -> None:
        self.rng.choice(self.edges).reports(f"scanner-{self.rng.randrange(3)}", note=str(self.rng.random()))

    def the_centre_says(self) -> None:
        self.world.says(f"A{self.rng.randrange(4)}", "APPROVED")

    def goes_on(self) -> None:
        self.world.run(self.rng.randrange(1, 4), self.rng.choice([20, 1_000]), store=self.rng.random() < 0.6)

    def time_passes(self) -> None:
        self.world.now_ms += self.rng.choice([1, OFFLINE_MS])

    def loses(self) -> None:
        self.losing = not self.losing

    def damages(self) -> None:
        self.damaging = not self.damaging

    def links(self) -> None:
        edge = self.rng.choice(self.edges)
        edge.cut() if edge.linked else edge.link()

    def is_cloned(self) -> None:
        if len(self.edges) < 7:
            edge = self.rng.choice(self.edges[:4])
            self.edges.append(self.world.edge(edge.address.node, image=edge.db.dump(), linked=False))

    def is_admitted(self) -> None:
        """Perhaps at another site, which changes nothing else."""
        edge = self.rng.choice(self.edges)
        self.world.hub.begin()
        self.world.hub.take_card(make_card(edge.key, edge.address.node, self.rng.choice(["Madrid", "Lagos"])), self.world.hub_ms)
        self.world.hub.commit()

    def leaves(self) -> None:
        name = self.rng.choice(self.edges).address.node
        self.left[name] = self.world.now_ms + self.rng.choice([-1, 1])
        if self.rng.random() < 0.3:
            self.left.clear()

    def relays(self) -> None:
        """An edge says that it keeps facts of others."""
        edge = self.rng.choice(self.edges[:4])
        authors = tuple((f"dock-{n}", self.rng.randrange(3)) for n in range(4) if self.rng.random() < 0.5)
        kept = CustodyStated(sum(n for _, n in authors), 10, self.world.now_ms, authors)
        beat = Heartbeat(self.world.now_ms, (), "0", custody=kept)
        self.world.deliver(
            edge.address.node, seal(Out(Channel.CONTROL, beat.KIND, [], beat.to_list()), edge.address.node, "hub", edge.key.sign)
        )

    def starts_again(self) -> None:
        self.world.restart(self.backup if self.rng.random() < 0.3 else None)

    def is_backed_up(self) -> None:
        self.backup = self.world.db.dump()

    def store_counts(self) -> None:
        """As of now, or as of an earlier moment, or with one of them wrong."""
        counts = self.world.store.counts()
        if counts and self.rng.random() < 0.3:
            n = self.rng.randrange(len(counts))
            counts[n] = StreamCounts(counts[n].stream, counts[n].facts + 1, 1, {"lost": 1}, 0)
        self.store = None if self.rng.random() < 0.1 else Counted(counts)

    def store_forgets(self) -> None:
        """A store that came back older says less than before."""
        said = self.world.store.statement(None)
        keys = [key for key in said.streams if self.rng.random() < 0.7]
        self.world.hub.begin()
        self.world.hub.take_statement(replace(said, streams={key: said.streams[key] for key in keys}), whole=True)
        self.world.hub.commit()

    def partitions_move(self) -> None:
        mine = {f"dock-{n}" for n in range(4) if self.rng.random() < 0.6}
        only: Callable[[Address], bool] | None = None if self.rng.random() < 0.5 else lambda address: address.node in mine
        self.world.hub.serving.only = only

    def comes_back(self) -> None:
        self.taking_back = not self.taking_back

    # ------------------------------------------------------------ looking

    def step(self) -> str:
        deeds: list[Callable[[], None]] = [self.says] * 4 + [self.goes_on] * 6 + [self.store_counts] * 3
        deeds += [self.reports, self.the_centre_says, self.time_passes, self.loses, self.damages, self.links, self.is_cloned, self.leaves]
        deeds += [
            self.is_admitted,
            self.relays,
            self.relays,
            self.starts_again,
            self.is_backed_up,
            self.store_forgets,
            self.partitions_move,
        ]
        deed = self.rng.choice([*deeds, self.comes_back])
        deed()
        return deed.__name__

    def looked(self, book: Book | None) -> Seen:
        store = cast("CentralStore | None", self.store)
        return look(self.world.hub, store, self.world.hub_ms, self.left.get, OFFLINE_MS, taking_back=self.taking_back, book=book)

    def compare(self) -> None:
        if self.world.hub is not self.core:
            self.core, self.book = self.world.hub, Book()
        by_the_book = self.looked(self.book)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lookbook, "_all_stored", lambda *_: False)
            assert by_the_book == self.looked(None)


@pytest.mark.parametrize("seed", seeds(12, quick=3))
def test_a_look_by_the_book_is_a_whole_look_without_short_cuts(seed: int) -> None:
    walk = Walk(seed)
    done: list[str] = []
    for _ in range(STEPS):
        done.append(walk.step())
        try:
            walk.compare()
        except AssertionError as error:
            raise AssertionError((seed, done)) from error
